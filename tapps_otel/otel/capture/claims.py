"""Which of a process's exporter and processor writes a span: the first that claims it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["claim", "join", "release"]

_MOST: Final = 1 << 16  # spans: many times what a batch processor queues
_writers: Final[set[str]] = set()
_claimed: Final[dict[int, object]] = {}


def join(writer: Literal["exporter", "processor"]) -> None:
    """Announce a writer. Claims are kept only where there are both."""
    _writers.add(writer)


def claim(span: ReadableSpan) -> bool:
    """Claim a span; whether it is the caller's to write."""
    if len(_writers) < 2:
        return True
    mine = object()
    if _claimed.setdefault(span.context.span_id, mine) is not mine:
        return False
    if len(_claimed) > _MOST:
        _claimed.pop(next(iter(_claimed)), None)  # another thread may have taken it
    return True


def release(span: ReadableSpan) -> None:
    """Give a claim back: the span could not be written."""
    _claimed.pop(span.context.span_id, None)
