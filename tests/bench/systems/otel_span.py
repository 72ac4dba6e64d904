"""The cost of the SDK itself: a current child span with a step's attributes and two events.

Its spans are batched for an exporter that drops them. The attributes are those of this project's
step spans. Where this project's spans are measured, the same is taken again in that process with
exactly the attributes that a real step span had (``ours_span``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer
from opentelemetry.util.types import AttributeValue

from .common import Arguments, answer, arguments

WARM = 200

STEP: Mapping[str, AttributeValue] = {
    "tapps.workflow.id": "bench",
    "tapps.workflow.name": "steps",
    "tapps.execution": 1,
    "tapps.step.id": "work#1000",
    "tapps.step.name": "work",
    "tapps.attempt": 1,
    "tapps.status": "completed",
    "tapps.seq.first": 2000,
    "tapps.seq.last": 2001,
    "code.function.name": "bench.work",
}
EVENT: Mapping[str, AttributeValue] = {
    "tapps.seq": 2000,
    "tapps.step.id": "work#1000",
    "tapps.status": "running",
}


class Dropping(SpanExporter):
    """Accepts every batch and keeps nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Done at once."""
        return SpanExportResult.SUCCESS


def provider(exporter: SpanExporter) -> TracerProvider:
    """A provider as a program would set it up."""
    made = TracerProvider()
    made.add_span_processor(BatchSpanProcessor(exporter))
    return made


def span(
    tracer: Tracer,
    attributes: Mapping[str, AttributeValue] = STEP,
    events: Sequence[Mapping[str, AttributeValue]] = (EVENT, EVENT),
) -> None:
    """One current child span, with its events."""
    with tracer.start_as_current_span("step work", attributes=attributes) as current:
        for event in events:
            current.add_event("step_start", event)


def measure(args: Arguments) -> dict[str, float]:
    """Mean time of a span inside a parent span."""
    tracer = provider(Dropping()).get_tracer("bench")
    with tracer.start_as_current_span("workflow steps"):
        for _ in range(WARM):
            span(tracer)
        began = time.perf_counter()
        for _ in range(args.n):
            span(tracer)
        took = time.perf_counter() - began
    return {"span_us": took / args.n * 1e6}


if __name__ == "__main__":
    answer("opentelemetry-sdk", **measure(arguments()))
