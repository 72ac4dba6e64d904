"""A caller's ``tracestate`` is on the spans of every execution of a run, live and rebuilt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from tapps_otel import configure, step, workflow
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.run_spans import RunSpans

LOGS = Path("logs")


@step
def work() -> None:
    if not Path("again").exists():
        Path("again").touch()
        raise ValueError("once more")


@workflow
def flow() -> None:
    work()


@pytest.fixture
def _caller() -> Iterator[None]:
    """A caller in another process, whose trace has a state."""
    state = TraceState([("vendor", "1"), ("other", "2")])
    context = SpanContext(0xA1, 0xB2, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
    token = contexts.attach(trace.set_span_in_context(trace.NonRecordingSpan(context)))
    yield
    contexts.detach(token)


def fail_and_resume() -> None:
    configure(log_dir=LOGS, durability="os", announce="off")
    with pytest.raises(ValueError, match="once more"):
        flow.options(workflow_id="r")()
    without_caller = contexts.attach(contexts.Context())
    flow.resume("r")
    contexts.detach(without_caller)


def rebuilt() -> dict[int, bytes]:
    spans = [found.span for found in RunSpans(Store(LOGS.absolute()), "r")]
    assert [span.context.trace_state.to_header() for span in spans] == ["vendor=1,other=2"] * 4
    return {span.context.span_id: encode_spans([span]).SerializeToString() for span in spans}


@pytest.mark.usefixtures("_caller")
def test_a_resumed_execution_keeps_it(sent: InMemorySpanExporter) -> None:
    fail_and_resume()
    live = sent.get_finished_spans()

    assert [span.context.trace_state.to_header() for span in live] == ["vendor=1,other=2"] * 4
    assert rebuilt() == {
        span.context.span_id: encode_spans([span]).SerializeToString() for span in live
    }


@pytest.mark.usefixtures("_caller")
def test_an_execution_without_an_sdk_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    fail_and_resume()

    assert len(rebuilt()) == 4
