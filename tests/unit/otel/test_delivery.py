"""The delivery of live spans: it keeps neither an event loop nor a garbage collection waiting."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tapps_otel import configure, workflow
from tapps_otel.names import ATTR
from tapps_otel.otel import process_end
from tapps_otel.otel.delivery import processor
from tapps_otel.otel.delivery.processor import Delivery, ManagedSpanExporter


@pytest.fixture
def tracer() -> Iterator[trace.Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Delivery(ManagedSpanExporter("memory", InMemorySpanExporter)))
    yield provider.get_tracer("library")
    provider.shutdown()


def test_a_span_may_end_wherever_another_one_is_delivered(tracer: trace.Tracer) -> None:
    """As of a model's stream that was abandoned: the garbage collection ends it, anywhere."""
    ended = threading.Event()
    inside = 0

    def collect(frame: FrameType, what: str, _: object) -> None:
        nonlocal inside
        if what == "call" and frame.f_code.co_filename == processor.__file__:
            inside += 1
            sys.setprofile(None)
            tracer.start_span("stream").end()
            sys.setprofile(collect)

    def deliver() -> None:
        sys.setprofile(collect)
        tracer.start_span("last", attributes={ATTR.SEQ_LAST: 1}).end()
        sys.setprofile(None)
        ended.set()

    threading.Thread(target=deliver, daemon=True).start()

    assert ended.wait(10)
    assert inside > 1


class Slow(SpanExporter):
    """Sends nothing before the run has returned.

    :ivar returned: to be set then
    :ivar was_awaited: a batch was sent only because its time was over
    """

    def __init__(self) -> None:
        self.returned = threading.Event()
        self.was_awaited = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.was_awaited |= not self.returned.wait(10)
        return SpanExportResult.SUCCESS


def test_the_end_of_a_run_does_not_keep_an_event_loop_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it would wait in a process that may be killed after the run: a worker of a pool."""
    configure(durability="os")
    monkeypatch.setattr(process_end, "_forked", True)
    monkeypatch.setattr(processor, "_MOMENT", 60)
    slow = Slow()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Delivery(ManagedSpanExporter("slow", lambda: slow)))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)

    @workflow
    async def flow() -> None: ...

    asyncio.run(flow())
    slow.returned.set()
    provider.shutdown()

    assert not slow.was_awaited
