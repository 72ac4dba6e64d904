"""Who is asked about spans before they are captured: what opens runs where spans start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["Roots", "ask", "asked"]


class Roots(Protocol):
    """Opens a run where a span starts, and ends it with that span. No method raises."""

    def started(self, span: ReadableSpan) -> None:
        """Open a run, if the span is the root of one."""

    def ended(self, span: ReadableSpan) -> None:
        """End the run whose root the span is. The log has the span by now."""

    def is_step(self, span: ReadableSpan) -> bool:
        """Whether the span is a step of such a run: its end is to be synced."""


_roots: Roots | None = None


def ask(roots: Roots) -> None:
    """Ask about each span from now on."""
    global _roots  # noqa: PLW0603 - one for the process
    _roots = roots


def asked() -> Roots | None:
    """Return who is asked, if anyone is."""
    return _roots
