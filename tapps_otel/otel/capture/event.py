"""A finished span as a ``span`` event, to be rebuilt from byte for byte. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import UNSET

from tapps_otel import clock
from tapps_otel.log.event import Event
from tapps_otel.otel.mapping.pack import keep, pack_resource, pack_span
from tapps_otel.past.usage import usage_attributes

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.otel.run_registry import KnownRun

__all__ = ["Captured", "Resources", "capture"]

_LATEST: Final = 1 << 63  # ns: OTLP has no room for later times
_LONG_NAME: Final = 1024  # characters; a longer name is stored with what may go into a blob


class Captured(NamedTuple):
    """An event that is not written yet.

    :ivar resource: the span's, packed, and its schema: whether the event has to name it depends on
        the log that it is written to
    """

    event: Event
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


def capture(
    span: ReadableSpan,
    run: KnownRun,
    resources: Resources,
    put: Callable[[bytes], str],
    *,
    late: bool = False,
) -> Captured:
    """Return the event that holds a span of ``run`` whole.

    Its timestamp is the span's end; its duration leads back to the start.

    :param put: stores what is too large for a line, and returns its name
    :param late: the log should have had it earlier
    :raises ValueError: the span has not ended, or has a time that OTLP cannot hold
    :raises OSError: of ``put``
    """
    context, parent = span.context, span.parent
    start, end = span.start_time, span.end_time
    if start is None or end is None or not (0 <= start < _LATEST and 0 <= end < _LATEST):
        raise ValueError(f"from {start} to {end} ns are not the times of a span that has ended")
    event = Event(
        event_type="span",
        workflow_id=run.workflow_id,
        timestamp=clock.timestamp(end),
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        execution=run.execution,
        name=str(span.name),
        duration_ns=end - start,
    )
    if parent is not None:
        event.parent_span_id = f"{parent.span_id:016x}"
    if late:
        event.late = True
    note = pack_span(span)
    if len(span.name) > _LONG_NAME:
        event.name, note["name"] = str(span.name)[:_LONG_NAME], str(span.name)
    keep(note, event, put)
    if event.otel_blob is not UNSET:  # reports read no blobs: what it used stays in the line
        event.attributes = usage_attributes(note.get("attributes", {})) or UNSET
    return Captured(event, resources.pack(span.resource))
