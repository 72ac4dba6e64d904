"""The provider that is built by the environment, as the SDK's own configurator reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from tapps_otel.otel import seam
from tapps_otel.otel.delivery import provider
from tapps_otel.otel.delivery.otlp_exporter import OtlpExporter
from tapps_otel.otel.delivery.processor import Delivery, ManagedSpanExporter
from tapps_otel.otel.process.plugins import process_resource
from tapps_otel.otel.process.shutdown import ExitFlush, flush_all
from tapps_otel.settings_model import Settings

GRPC, HTTP = "otlp_proto_grpc", "otlp_proto_http"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ExitFlush[Any]]]:
    """A process without a provider; the flushes at its exit are kept, not registered."""
    kept: list[ExitFlush[Any]] = []

    def keep(flush: ExitFlush[Any]) -> None:
        kept.append(flush)

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(provider._setup, "_tried", False)
    monkeypatch.setattr(seam, "_warned", set())
    monkeypatch.setattr(ExitFlush, "register", keep)
    yield kept
    for one in kept:
        one.request()


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({}, [GRPC]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, [HTTP]),
        (
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            },
            [GRPC],
        ),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", GRPC]),
        ({"OTEL_TRACES_EXPORTER": "otlp_proto_http"}, [HTTP]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier/pigeon"}, ["carrier/pigeon"]),
    ],
)
def test_exporters_are_those_that_the_variables_name(
    env: dict[str, str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    assert provider._exporter_names(Settings()) == names


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_exporter_of_the_protocol_is_made(
    protocol: str, monkeypatch: pytest.MonkeyPatch, fresh: list[ExitFlush[Any]]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    made = provider.ensure_provider(Settings())
    (flush,) = fresh
    exporter = flush.outlets[0].exporter.wrapped

    assert isinstance(made, TracerProvider)
    assert trace.get_tracer_provider() is made
    assert isinstance(exporter, OtlpExporter)
    assert exporter.client.destination.protocol == protocol
    assert provider.ensure_provider(Settings()) is made  # not built twice


def test_standard_exporters_sampler_and_ids_are_respected(
    monkeypatch: pytest.MonkeyPatch, fresh: list[ExitFlush[Any]]
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_PYTHON_ID_GENERATOR", "random")
    made = provider.ensure_provider(Settings())
    (flush,) = fresh

    assert isinstance(made, TracerProvider)
    assert made.sampler.get_description() == "AlwaysOffSampler"
    assert isinstance(flush.outlets[0].exporter.wrapped, ConsoleSpanExporter)


@pytest.mark.parametrize(
    ("sampler", "description"),
    [
        ("traceidratio", "TraceIdRatioBased{0.25}"),
        ("TraceIdRatio", "TraceIdRatioBased{0.25}"),
        ("parentbased_traceidratio", "ParentBased{root:TraceIdRatioBased{0.25}"),
        ("always_on", "AlwaysOnSampler"),
    ],
)
def test_a_standard_sampler_gets_its_argument_and_nothing_is_warned_of(
    sampler: str,
    description: str,
    monkeypatch: pytest.MonkeyPatch,
    fresh: list[ExitFlush[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    made = provider.ensure_provider(Settings())

    assert isinstance(made, TracerProvider)
    assert made.sampler.get_description().startswith(description)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "pigeon"}, "no installed package offers 'pigeon'"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "x"}, "offers 'x'"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "max_queue_size"),
    ],
)
def test_what_cannot_be_built_is_logged_once(
    env: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    fresh: list[ExitFlush[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    assert provider.ensure_provider(Settings()) is None
    assert provider.ensure_provider(Settings()) is None
    assert said in caplog.text
    assert len([r for r in caplog.records if r.name.startswith("tapps_otel")]) == 1
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def test_nothing_is_built_unless_asked_for(fresh: list[ExitFlush[Any]]) -> None:
    assert provider.ensure_provider(Settings()) is None
    assert not fresh


# ---------------------------------------------------------------- sending


class Refusing(InMemorySpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        super().export(spans)
        return SpanExportResult.FAILURE


def leave(
    make: type[SpanExporter], spans: int, caplog: pytest.LogCaptureFixture
) -> tuple[ExitFlush[Delivery], str]:
    """A process that makes this many spans and ends."""
    delivery = Delivery(ManagedSpanExporter("memory", make))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(delivery)
    flush = ExitFlush(provider, [delivery], timeout=10)
    for _ in range(spans):
        provider.get_tracer("t").start_span("s").end()
    flush_all([flush])
    return flush, caplog.text


def test_queued_spans_are_sent_at_exit(caplog: pytest.LogCaptureFixture) -> None:
    flush, said = leave(InMemorySpanExporter, 3, caplog)

    assert len(flush.outlets[0].exporter.wrapped.get_finished_spans()) == 3  # type: ignore[attr-defined]
    assert said == ""


def test_unsent_spans_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    _, said = leave(Refusing, 3, caplog)

    assert "3 of 3 spans were not sent to memory; the log has them" in said
    assert len(caplog.records) == 1


def test_spans_after_the_exit_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    flush, said = leave(InMemorySpanExporter, 3, caplog)
    tracer = flush._provider.get_tracer("t")
    for _ in range(2):
        tracer.start_span("late").end()
    flush_all([flush])

    assert said == ""
    (record,) = caplog.records
    assert record.getMessage() == (
        "1 of 4 spans were not sent to memory; the log has them: `tapps-otel send --all` sends "
        "them later."
    )


def test_a_forked_child_counts_from_zero_and_reconnects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivery = Delivery(ManagedSpanExporter("memory", Refusing))
    provider = TracerProvider(resource=process_resource(None), shutdown_on_exit=False)
    provider.add_span_processor(delivery)
    flush = ExitFlush(provider, [delivery], timeout=10)
    provider.get_tracer("t").start_span("the parent's").end()
    parents = delivery.exporter.wrapped
    monkeypatch.setattr(os, "getpid", lambda: 424242)
    flush.after_fork()
    provider.force_flush()

    assert delivery.unsent == 0
    assert delivery.exporter.wrapped is not parents
    assert provider.resource.attributes["process.pid"] == 424242
