"""The entrance to spans: its cost without spans, and the provider that is used."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable

import pytest
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from tapps_otel.log.event import Event
from tapps_otel.otel import seam
from tapps_otel.otel.environment import traces_wanted
from tapps_otel.otel.live import spans
from tapps_otel.otel.seam import LiveSpan
from tapps_otel.otel.tracing import tracing
from tapps_otel.redact import NO_RULES
from tapps_otel.settings_model import Settings

OFF = {"OTEL_SDK_DISABLED": "true"}
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}


@pytest.mark.parametrize(
    ("env", "asked"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "shop"}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4317"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", **ENDPOINT}, False),
        ({**ENDPOINT, **OFF}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", **OFF}, False),
    ],
)
def test_the_standard_variables_ask_for_spans(
    env: dict[str, str], asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    assert traces_wanted(Settings()) is asked


@pytest.mark.parametrize("code", ["", "os.environ['OTEL_SDK_DISABLED'] = 'true'"])
def test_a_process_without_spans_does_not_import_opentelemetry(code: str) -> None:
    script = f"""
import os, sys
{code}
from tapps_otel.otel.seam import LiveSpan, SpanRef, Tracing
from tapps_otel.otel.tracing import tracing
from tapps_otel.settings_model import Settings
assert tracing(Settings()) is None
print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout == "[]\n"


def test_a_provider_of_the_program_is_used_and_the_sdk_is_not_set_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", theirs)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    made = tracing(Settings())

    assert isinstance(made, spans._Tracing)
    assert made.provider is theirs
    assert tracing(Settings()) is made
    assert trace.get_tracer_provider() is theirs


def test_a_provider_that_is_set_later_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    before = tracing(Settings())
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(shutdown_on_exit=False))

    assert before is None
    assert tracing(Settings()) is not None


def test_spans_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(shutdown_on_exit=False))

    assert tracing(Settings(spans=False)) is None


def test_without_a_provider_a_callers_trace_is_still_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    above = trace.NonRecordingSpan(trace.SpanContext(0xA1, 0xB2, is_remote=True))
    token = contexts.attach(trace.set_span_in_context(above))
    made = tracing(Settings())
    contexts.detach(token)

    assert made is not None
    assert made.resource is None


def test_a_broken_opentelemetry_stops_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Settings) -> None:
        raise ImportError("half an installation")

    monkeypatch.setattr(spans, "tracing", broken)
    monkeypatch.setattr(seam, "_warned", set())
    caplog.set_level(logging.DEBUG)

    assert tracing(Settings()) is None
    assert tracing(Settings()) is None
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]
    assert "half an installation. The run continues" in caplog.text


def test_a_bare_span_has_ids_and_does_nothing() -> None:
    span = LiveSpan("0a" * 16, "0b" * 8, None)
    event = Event(event_type="annotation", workflow_id="w", timestamp="", execution=1)
    before = Event(event_type="annotation", workflow_id="w", timestamp="", execution=1)
    does: list[Callable[[], object]] = [
        lambda: span.detach(span.attach()),
        lambda: span.record(event),
        lambda: span.hold(event, NO_RULES),
        lambda: span.end(event, sha="ab"),
    ]

    assert [do() for do in does] == [None] * 4
    assert event == before
