"""Spans of libraries that a run's logs have: whole, or only their start. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import UNSET

from tapps_otel.clock import timestamp, timestamp_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.log.event import Event

__all__ = ["CapturedSpan", "CapturedSpans"]


class CapturedSpan(NamedTuple):
    """A library's span.

    :ivar start: when it started, RFC 3339
    :ivar end: when it ended; ``None`` if no log has that: its process was killed, or still works
    """

    span_id: str
    parent: str | None
    name: str
    start: str
    end: str | None
    duration_ns: int | None
    attributes: dict[str, Any]

    @property
    def start_ns(self) -> int:
        """When it started, ns since 1970 UTC."""
        return timestamp_ns(self.start)


class CapturedSpans:
    """Collects the captured spans among events, of which each is there once."""

    def __init__(self) -> None:
        self._whole: list[CapturedSpan] = []
        self._begun: dict[str, CapturedSpan] = {}

    def see(self, event: Event) -> None:
        """Take the span of an event; ignore other events."""
        if event.event_type == "span":
            self._whole.append(_span(event))
            self._begun.pop(self._whole[-1].span_id, None)
        elif event.event_type == "span_start" and event.span_id is not UNSET:
            self._begun[event.span_id] = _span(event)

    def __iter__(self) -> Iterator[CapturedSpan]:
        whole = {span.span_id for span in self._whole}
        yield from self._whole
        for span_id, span in self._begun.items():
            if span_id not in whole:
                yield span


def _span(event: Event) -> CapturedSpan:
    start, end, took = event.timestamp, None, None
    if event.event_type == "span":
        took = 0 if event.duration_ns is UNSET else max(0, event.duration_ns)
        start, end = timestamp(max(0, timestamp_ns(event.timestamp) - took)), event.timestamp
    otel = {} if event.otel is UNSET else event.otel
    attributes = otel.get("attributes")
    return CapturedSpan(
        "" if event.span_id is UNSET else event.span_id,
        None if event.parent_span_id is UNSET else event.parent_span_id,
        "" if event.name is UNSET else event.name,
        start,
        end,
        took,
        attributes if isinstance(attributes, dict) else {},
    )
