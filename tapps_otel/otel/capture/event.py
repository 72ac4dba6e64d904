"""A library's span as events: its start, and the whole span to the byte. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import UNSET
from opentelemetry.trace import StatusCode

from tapps_otel import clock
from tapps_otel.log.event import Event
from tapps_otel.otel.mapping.pack import keep, pack_resource, pack_span
from tapps_otel.past.usage import usage_attributes

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.otel.run_registry import KnownRun

__all__ = ["Captured", "Resources", "capture", "capture_start"]

_LATEST: Final = 1 << 63  # ns: OTLP has no room for later times
_LONG_NAME: Final = 1024  # characters; a longer name is stored with what may go into a blob


class Captured(NamedTuple):
    """An event that is not written yet.

    :ivar span: that it is of
    :ivar resource: the span's, packed, and its schema: whether the event has to name it depends on
        the log that it is written to
    """

    event: Event
    span: ReadableSpan
    resource: tuple[dict[str, Any], str]

    def name_resource(self, known: tuple[dict[str, Any], str] | None) -> Event:
        """Return the event, with its resource unless that is the one ``known``."""
        self.event.resource = UNSET if self.resource == known else self.resource[0]
        return self.event


class Resources:
    """Packs resources; a process usually has one, and packs it once."""

    def __init__(self) -> None:
        self._last: tuple[object, tuple[dict[str, Any], str]] = (None, ({}, ""))

    def pack(self, resource: Any) -> tuple[dict[str, Any], str]:
        """Return its attributes, packed, and its schema."""
        last = self._last  # read once: another thread may replace the pair meanwhile
        if last[0] is not resource:
            last = self._last = (resource, (pack_resource(resource), str(resource.schema_url)))
        return last[1]


def capture_start(span: ReadableSpan, run: KnownRun, resources: Resources) -> Captured:
    """Return the event that a span of ``run`` has started, with what it has by then.

    What is too large for a line is left out.

    :raises ValueError: it has a time that OTLP cannot hold
    """
    event = _event("span_start", span, run, _in_range(span.start_time))
    note = _note(span, event)
    keep(note, event, None)
    return Captured(event, span, resources.pack(span.resource))


def capture(
    span: ReadableSpan,
    run: KnownRun,
    resources: Resources,
    put: Callable[[bytes], str] | None,
    *,
    late: bool = False,
) -> Captured:
    """Return the event that holds a span of ``run`` whole.

    Its timestamp is the span's end; its duration leads back to the start.

    :param put: stores what is too large for a line, and returns its name; without it that is left
        out
    :param late: the log should have had it earlier
    :raises ValueError: the span has not ended, or has a time that OTLP cannot hold
    :raises OSError: of ``put``
    """
    start, end = _in_range(span.start_time), _in_range(span.end_time)
    event = _event("span", span, run, end)
    event.duration_ns = end - start
    if late:
        event.late = True
    note = _note(span, event)
    keep(note, event, put)
    # Reports read no blobs, and not all machines can write one.
    if event.otel_blob is not UNSET or (event.otel is not UNSET and "omitted" in event.otel):
        event.attributes = usage_attributes(note.get("attributes", {})) or UNSET
        if span.status.status_code is StatusCode.ERROR:
            event.status = "failed"
    return Captured(event, span, resources.pack(span.resource))


def _in_range(ns: int | None) -> int:
    if ns is None or not 0 <= ns < _LATEST:
        raise ValueError(f"{ns} ns is not the time of a span")
    return ns


def _event(event_type: str, span: ReadableSpan, run: KnownRun, ns: int) -> Event:
    context, parent = span.context, span.parent
    event = Event(
        event_type=event_type,
        workflow_id=run.workflow_id,
        timestamp=clock.timestamp(ns),
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        execution=run.execution,
        name=str(span.name)[:_LONG_NAME],
    )
    if parent is not None:
        event.parent_span_id = f"{parent.span_id:016x}"
    return event


def _note(span: ReadableSpan, event: Event) -> dict[str, Any]:
    """Return what the event of a span has besides its fields."""
    note = pack_span(span)
    if event.name != span.name:
        note["name"] = str(span.name)
    return note
