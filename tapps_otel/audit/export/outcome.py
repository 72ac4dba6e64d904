"""The outcome of an export: what was written, and what could not be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tapps_otel.otel.transport.encoding import id_of

if TYPE_CHECKING:
    from tapps_otel.otel.replay.run_spans import Found

__all__ = ["UNENCODABLE", "Outcome"]

# Exceptions that encoding a span of a made-up log may raise.
UNENCODABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
)
_MOST: Final = 100


@dataclass(slots=True)
class Outcome:
    """Counts what was written, and notes what was not.

    :ivar count: spans, or rows
    :ivar problems: each with its place; the first hundred, and a last one if there are more
    """

    count: int = 0
    problems: list[str] = field(default_factory=list)

    def leave_out(self, found: Found, error: Exception) -> None:
        """Note a span that cannot be encoded."""
        self.remark(found, f"span {id_of(found.span)} cannot be written: {error!s:.200}")

    def remark(self, found: Found, text: str) -> None:
        """Note a problem of a span."""
        if len(self.problems) < _MOST:
            self.problems.append(f"{found.log}, seq {found.seq}: {text}")
        elif len(self.problems) == _MOST:
            self.problems.append("there are more problems of this kind, which are not listed")
