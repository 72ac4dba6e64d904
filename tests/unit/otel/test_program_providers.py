"""Runs in a program whose tracer provider is not as the SDK makes it: its spans come all the same.

``test_libraries.py`` has the real libraries that make such providers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wrapt
from opentelemetry import trace
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from crashes import die, go, in_child
from tapps_otel import step, workflow
from tapps_otel.otel import seam
from tapps_otel.otel.live import catch_up

DEAD = Path("dead")


@pytest.fixture(autouse=True)
def warnings_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "_warned", set())


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[trace.TracerProvider], None]:
    """Make a provider the process's."""
    return lambda provider: monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)


@pytest.fixture
def memory() -> Iterator[InMemorySpanExporter]:
    yield InMemorySpanExporter()
    caught_up()


def caught_up() -> None:
    """Wait until what earlier executions could not send is handed over."""
    if catch_up._worker is not None:
        catch_up._worker.shutdown()


class Wrapping(TracerProvider):
    """Wraps its tracers, as libraries do."""

    def __init__(self, memory: InMemorySpanExporter, wrap: Callable[[Any], Any]) -> None:
        super().__init__(shutdown_on_exit=False)
        self.add_span_processor(SimpleSpanProcessor(memory))
        self._wrap = wrap

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        tracer: trace.Tracer = self._wrap(super().get_tracer(*args, **kwargs))
        return tracer


class Uncopied(Tracer):
    """A tracer of the SDK that refuses to be copied."""

    def __init__(self, tracer: Tracer) -> None:
        self.__dict__.update(tracer.__dict__)

    def __copy__(self) -> Tracer:
        raise RuntimeError("not to be copied")


class Held(trace.Tracer):
    """A tracer that hands its work on to another one."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self.tracer = tracer

    def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
        return self.tracer.start_span(*args, **kwargs)

    start_as_current_span: Any = None


@step
def work(number: int) -> int:
    return number


@step
def die_at_first() -> int:
    if not DEAD.exists():
        DEAD.touch()
        die()
    return 1


@workflow
def dying() -> int:
    return work(1) + die_at_first()


@workflow
def flow() -> int:
    return work(1) + work(2)


def names(memory: InMemorySpanExporter) -> list[str]:
    return [span.name for span in memory.get_finished_spans()]


# ---------------------------------------------------------------- tracers that are wrapped


SPANS = ["step work", "step work", "workflow flow"]


@pytest.mark.parametrize("wrap", [wrapt.ObjectProxy, Held, lambda one: Held(Held(one))])
def test_a_wrapped_tracer_makes_all_spans_and_the_marker(
    wrap: Any,
    memory: InMemorySpanExporter,
    install: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install(Wrapping(memory, wrap))
    go(flow)

    assert names(memory) == ["workflow flow started", *SPANS]
    assert caplog.text == ""


def test_markers_that_cannot_be_made_cost_no_span(
    memory: InMemorySpanExporter, install: Any, caplog: pytest.LogCaptureFixture
) -> None:
    install(Wrapping(memory, Uncopied))
    go(flow)
    go(flow, workflow_id="again")

    assert names(memory) == SPANS * 2
    (said,) = caplog.records
    assert said.getMessage() == (
        "OpenTelemetry failed (markers): RuntimeError: not to be copied. The run continues, and "
        "its log is complete."
    )


# ---------------------------------------------------------------- providers that are not the SDK's


class Named(NonRecordingSpan):
    """A span of another tracing library, which has ids and takes everything."""

    def is_recording(self) -> bool:
        return True


class Foreign(trace.TracerProvider, trace.Tracer):
    """Another tracing library, used through OpenTelemetry's API."""

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return self

    def start_span(self, name: str, context: Any = None, *args: Any, **kwargs: Any) -> trace.Span:
        parent = trace.get_current_span(context).get_span_context()
        trace_id = parent.trace_id or random.getrandbits(128)
        flags = TraceFlags(TraceFlags.SAMPLED)
        return Named(SpanContext(trace_id, random.getrandbits(64), False, flags))

    start_as_current_span: Any = None


def test_spans_that_no_provider_takes_are_named_with_the_command_that_sends_them(
    install: Any, caplog: pytest.LogCaptureFixture
) -> None:
    install(Foreign())
    in_child(lambda: go(dying))
    assert caplog.text == ""
    go(dying)
    caught_up()

    (said,) = caplog.records
    assert said.getMessage() == (
        "run r: spans of an interrupted execution cannot be given to the program's tracer "
        "provider, which is not that of the OpenTelemetry SDK: `tapps-otel send r` sends them."
    )
