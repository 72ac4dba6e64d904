"""Markers: spans exported at once, which tell that another span has begun.

A span is exported when it ends, so a store shows nothing of a run in progress without them. A
marker is a child of the span that it announces, with an id derived from that span's: it is never
that span with less content.
"""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from tapps_otel.names import ATTR, marker_span_id
from tapps_otel.otel import sdk_internals
from tapps_otel.otel.mapping.content import text
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from tapps_otel.log.event import Event

__all__ = ["Markers"]


class Markers:
    """Makes markers by a copy of the program's tracer.

    It has the sampler, the resource and the processors of the original. Libraries wrap tracers in
    objects that cannot be copied: then it is the SDK's tracer inside that is.

    Without one there are no markers.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = copy.copy(sdk_internals.sdk_tracer(tracer))
        if self._tracer is not None:
            self._tracer.id_generator = self._ids = _PresetId(self._tracer.id_generator)

    def announce(self, span: trace.Span, event: Event, name: str, start_ns: int) -> None:
        """Make the marker of ``span``, which ``event`` started."""
        if self._tracer is None:
            return
        attributes: dict[str, Any] = {
            ATTR.MARKER: True,
            ATTR.WORKFLOW_ID: text(event.workflow_id),
            ATTR.EXECUTION: event.execution,
        }
        if isinstance(event.step_id, str):
            attributes[ATTR.STEP_ID] = text(event.step_id)
        try:
            self._ids.set(int(marker_span_id(str(event.trace_id), str(event.span_id)), 16))
            marker = self._tracer.start_span(
                f"{name} started",
                trace.set_span_in_context(span),
                attributes=attributes,
                start_time=start_ns,
            )
            marker.end(start_ns + 1)  # Jaeger warns of spans of no length
        except Exception as error:  # noqa: BLE001 - of a sampler, a processor, the SDK
            warn_once("marker", error)


class _PresetId:
    """An id generator that returns the span id that this thread has set before."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        self._preset = threading.local()

    def set(self, span_id: int) -> None:
        self._preset.span_id = span_id

    def generate_span_id(self) -> int:
        span_id: int = self._preset.span_id
        return span_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)
