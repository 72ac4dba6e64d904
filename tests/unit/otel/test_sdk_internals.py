"""Private names of the SDK: they are where we expect them, and one module uses them."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import wrapt
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    InMemoryMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, StatusCode
from opentelemetry.util._once import Once

import tapps_otel
from tapps_otel.otel import sdk_internals

# ---------------------------------------------------------------- the installed SDK


def started(**attributes: Any) -> Any:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    return tracer.start_span("s", attributes=attributes)


def test_a_span_that_holds_what_it_was_made_with_is_unchanged() -> None:
    span = started(a=1, b="2")
    span.add_event("e")

    assert sdk_internals.is_unchanged(span, {"a": 1, "b": "2"}, 1, 0, "s")


@pytest.mark.parametrize(
    "change",
    [
        lambda span: span.set_attribute("a", 2),
        lambda span: span.set_attribute("c", 3),
        lambda span: span.add_event("e"),
        lambda span: span.add_link(SpanContext(1, 2, is_remote=False)),
        lambda span: span.update_name("t"),
        lambda span: span.set_status(StatusCode.ERROR),
        lambda span: span.end(),
    ],
)
def test_a_change_of_a_span_is_seen(change: Any) -> None:
    span = started(a=1, b="2")
    change(span)

    assert not sdk_internals.is_unchanged(span, {"a": 1, "b": "2"}, 0, 0, "s")


def test_attributes_in_another_order_are_a_change() -> None:
    assert not sdk_internals.is_unchanged(started(a=1, b="2"), {"b": "2", "a": 1}, 0, 0, "s")


def test_a_span_of_another_sdk_is_never_unchanged() -> None:
    assert not sdk_internals.is_unchanged(trace.INVALID_SPAN, {}, 0, 0, "s")


def test_the_limits_of_a_tracer_are_those_of_its_provider() -> None:
    limits = SpanLimits(max_events=7)
    tracer = TracerProvider(span_limits=limits, shutdown_on_exit=False).get_tracer("t")

    assert sdk_internals.span_limits_of(tracer).max_events == 7
    assert sdk_internals.span_limits_of(trace.NoOpTracer()) is None


class Holding:
    """A wrapper of another library."""

    def __init__(self, tracer: object) -> None:
        self.tracer = tracer


@pytest.mark.parametrize("wrap", [lambda tracer: tracer, wrapt.ObjectProxy, Holding])
def test_a_finished_span_is_given_to_the_processors_of_a_provider_or_tracer(wrap: Any) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("t")
    span = started()
    span.end()
    of_provider = sdk_internals.on_end_of(provider, trace.NoOpTracer())
    of_tracer = sdk_internals.on_end_of(trace.NoOpTracerProvider(), wrap(tracer))
    assert of_provider is not None
    assert of_tracer is not None
    of_provider(span)
    of_tracer(span)

    assert sdk_internals.sdk_tracer(wrap(tracer)) is tracer
    assert exporter.get_finished_spans() == (span, span)


@pytest.mark.parametrize("tracer", [trace.NoOpTracer(), Holding(None), MagicMock(), object()])
def test_a_tracer_that_is_not_the_sdks_has_no_processors(tracer: object) -> None:
    assert sdk_internals.sdk_tracer(tracer) is None
    assert sdk_internals.on_end_of(trace.NoOpTracerProvider(), tracer) is None


def test_a_provider_no_longer_shuts_down_by_itself() -> None:
    script = """
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from tapps_otel.otel.sdk_internals import unregister_exit_handler

class Spans(TracerProvider):
    def shutdown(self): print("spans")

class Metrics(MeterProvider):
    def shutdown(self, timeout_millis=0): print("metrics")

unregistered = [Spans(), Metrics()]
left = [Spans(), Metrics()]
print([unregister_exit_handler(one) for one in (*unregistered, trace.NoOpTracerProvider())])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.split("\n") == ["[True, True, False]", "metrics", "spans", ""]


@pytest.mark.parametrize("make", [TracerProvider, MeterProvider])
def test_the_process_id_of_a_resource_is_changed_where_there_is_one(make: Any) -> None:
    named = make(resource=Resource({"process.pid": 1, "a": "b"}), shutdown_on_exit=False)
    unnamed = make(resource=Resource({"a": "b"}), shutdown_on_exit=False)
    for provider in (named, unnamed, trace.NoOpTracerProvider()):
        sdk_internals.change_process_id(provider, 2)

    assert resource_of(named) == {"process.pid": 2, "a": "b"}
    assert resource_of(unnamed) == {"a": "b"}


def resource_of(provider: Any) -> dict[str, Any]:
    """What the provider's telemetry names as its resource."""
    if isinstance(provider, TracerProvider):
        span: Any = provider.get_tracer("t").start_span("s")
        return dict(span.resource.attributes)
    return dict(provider._sdk_config.resource.attributes)


def test_the_apis_placeholder_is_told_from_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.metrics import _internal

    monkeypatch.setattr(_internal, "_METER_PROVIDER", None)
    monkeypatch.setattr(_internal, "_METER_PROVIDER_SET_ONCE", Once())

    assert sdk_internals.is_proxy_meter_provider(metrics.get_meter_provider())
    assert not sdk_internals.is_proxy_meter_provider(MeterProvider(shutdown_on_exit=False))


def test_an_exporters_preferences_are_read() -> None:
    from opentelemetry.sdk.metrics import Counter

    asked: dict[type, AggregationTemporality] = {Counter: AggregationTemporality.DELTA}
    exporter = ConsoleMetricExporter(preferred_temporality=asked)

    assert sdk_internals.preferences_of(exporter)["preferred_temporality"] == asked


def test_numbers_are_dropped_and_held_locks_replaced() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    counter = provider.get_meter("m").create_counter("c")
    counter.add(5)
    with provider._measurement_consumer._lock:
        sdk_internals.reset_metrics(provider)
    added = threading.Thread(target=counter.add, args=(2,), daemon=True)
    added.start()
    added.join()
    data: Any = reader.get_metrics_data()
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics

    assert [point.value for point in metric.data.data_points] == [2]


def test_the_encoder_logs_under_the_name_that_is_listened_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    span = started()
    span._attributes._dict["odd"] = object()
    span.end()
    encode_spans([span])

    assert {record.name for record in caplog.records} == {sdk_internals.ENCODER_LOGGER}


# ---------------------------------------------------------------- no other module

PACKAGE = Path(tapps_otel.__file__).parent
MODULES = [
    path
    for room in ("otel", "audit")  # the rooms that handle objects of the SDK
    for path in sorted((PACKAGE / room).rglob("*.py"))
    if path.name != "sdk_internals.py"
]
OURS = {"self", "cls"}
PUBLIC = {"_asdict", "_fields", "_make", "_replace"}  # of named tuples


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def private_names(source: str) -> Iterator[str]:
    """Private names of other modules that the source uses."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in OURS:
                pass
            case ast.Attribute(attr=name) if private(name):
                yield name
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"),
                args=[_, ast.Constant(value=str(name)), *_],
            ) if private(name):
                yield name
            case ast.ImportFrom(module=str(home), names=names) if home.startswith("opentelemetry"):
                parts = [*home.split("."), *(alias.name for alias in names)]
                yield from filter(private, parts)
            case ast.Import(names=names):
                parts = [part for alias in names for part in alias.name.split(".")]
                yield from filter(private, parts)
            case ast.Constant(value=str(text)) if text.startswith("opentelemetry."):
                yield from filter(private, text.split("."))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_uses_private_names(module: Path) -> None:
    assert not list(private_names(module.read_text("utf-8")))


@pytest.mark.parametrize(
    "source",
    [
        "span._attributes",
        "self._span._attributes",
        "getattr(provider, '_atexit_handler', None)",
        "from opentelemetry.sdk._configuration import x",
        "from opentelemetry.sdk.trace import _Span",
        "import opentelemetry.metrics._internal",
        "logging.getLogger('opentelemetry.sdk._logs')",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert list(private_names(source))


def test_own_and_public_names_pass() -> None:
    source = "self._x; cls._y; pair._replace(a=1); x.__class__; getattr(span, 'attributes')"

    assert not list(private_names(source))
