"""Events as log records of OpenTelemetry: what they tell, when there are any, and no harm."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import _logs as api
from opentelemetry._logs import _internal as api_internal
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    InMemoryLogRecordExporter,
    LogRecordExportResult,
    SimpleLogRecordProcessor,
)
from opentelemetry.util._once import Once

import tapps_otel
from tapps_otel import Backoff, annotate, configure, events, step, workflow
from tapps_otel.otel import seam
from tapps_otel.otel.logs import provider as our_provider
from tapps_otel.otel.logs.provider import ManagedLogExporter
from tapps_otel.otel.process import standard_exporters
from tapps_otel.otel.process.shutdown import ExitFlush, flush_all

SECRET = "hunter2-in-the-result"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ExitFlush[ManagedLogExporter]]]:
    """A process without a logger provider; the flushes at its exit are kept, not registered."""
    kept: list[ExitFlush[ManagedLogExporter]] = []

    def keep(flush: ExitFlush[ManagedLogExporter]) -> None:
        kept.append(flush)

    monkeypatch.setattr(api_internal, "_LOGGER_PROVIDER", None)
    monkeypatch.setattr(api_internal, "_LOGGER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(our_provider._setup, "_tried", False)
    monkeypatch.setattr(seam, "_warned", set())
    monkeypatch.setattr(ExitFlush, "register", keep)
    yield kept
    flush_all(kept)


def in_memory() -> InMemoryLogRecordExporter:
    return InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]


@pytest.fixture
def kept() -> InMemoryLogRecordExporter:
    """What the program's own logger provider gets."""
    exporter = in_memory()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    api.set_logger_provider(provider)
    return exporter


@step(retries=1, backoff=Backoff(0, 1, 0))
def write(number: int) -> str:
    annotate("seen", words=3)
    if number < 0:
        raise ValueError(f"{number} is negative")
    return SECRET


@workflow
def flow(number: int) -> str:
    return write(number)


def run(number: int = 1, name: str = "r") -> None:
    try:
        flow.options(workflow_id=name)(number)
    except ValueError:
        assert number < 0


def records(kept: InMemoryLogRecordExporter) -> list[Any]:
    return [one.log_record for one in kept.get_finished_logs()]


def test_each_event_is_a_record_in_the_context_of_its_span(
    kept: InMemoryLogRecordExporter,
) -> None:
    configure(event_logs=True)
    run()
    found, written = records(kept), list(events("r"))

    assert [one.event_name for one in found] == [one.event_type for one in written]
    for record, event in zip(found, written, strict=True):
        assert record.timestamp == event.time_ns
        assert f"{record.trace_id:032x}" == event.trace_id
        assert f"{record.span_id:016x}" == event.span_id
        assert record.attributes["tapps.seq"] == event.seq
        assert record.attributes["tapps.workflow.id"] == "r"
        assert record.attributes["tapps.execution"] == 1
    assert [one.body for one in found] == [
        "run r started",
        "step write started",
        "step write noted seen",
        "step write completed",
        "run r completed",
    ]
    assert found[0].attributes["tapps.workflow.name"] == "flow"
    assert found[1].attributes["tapps.step.name"] == "write"
    assert found[2].attributes["words"] == 3
    assert {one.severity_text for one in found} == {"info"}


def test_severity_tells_failures_from_retries(kept: InMemoryLogRecordExporter) -> None:
    configure(event_logs=True)
    run(-1)
    found = [one for one in records(kept) if one.severity_text != "info"]

    assert [(one.event_name, one.severity_text, one.severity_number.value) for one in found] == [
        ("step_fail", "warn", 13),
        ("step_fail", "error", 17),
        ("workflow_end", "error", 17),
    ]
    assert found[0].body == "step write failed: ValueError: -1 is negative"
    assert found[1].body == "step write, attempt 2 failed: ValueError: -1 is negative"
    assert found[1].attributes["error.type"] == "ValueError"


def test_values_are_in_no_record(kept: InMemoryLogRecordExporter) -> None:
    configure(event_logs=True, capture_inputs=True)
    run(123_456_789)
    found = "".join(one.to_json() for one in kept.get_finished_logs())

    assert tapps_otel.history("r").result == SECRET
    assert SECRET not in found
    assert "123456789" not in found


@pytest.mark.parametrize(
    ("env", "given", "expected"),
    [
        ({}, {}, 0),
        ({"OTEL_LOGS_EXPORTER": "none"}, {}, 0),
        ({"OTEL_LOGS_EXPORTER": "otlp"}, {}, 5),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, {}, 0),
        ({}, {"event_logs": True}, 5),
        ({"OTEL_LOGS_EXPORTER": "otlp"}, {"event_logs": False}, 0),
        ({"OTEL_SDK_DISABLED": "true"}, {"event_logs": True}, 0),
    ],
)
def test_records_are_made_only_if_they_are_asked_for(
    env: dict[str, str],
    given: dict[str, Any],
    expected: int,
    kept: InMemoryLogRecordExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    configure(spans=False, **given)
    run()

    assert len(records(kept)) == expected


def test_a_provider_is_built_once_where_there_is_none(
    fresh: list[ExitFlush[ManagedLogExporter]], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = in_memory()
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "offered")
    monkeypatch.setattr(standard_exporters, "load", lambda _group, _name: lambda: exporter)
    configure(spans=False)
    run(name="one")
    run(name="two")
    (flush,) = fresh
    flush_all(fresh)
    bodies = [one.body for one in records(exporter)]

    assert [outlet.target for outlet in flush.outlets] == ["offered"]
    assert len(bodies) == 10
    assert bodies.count("run one completed") == bodies.count("run two completed") == 1


def test_records_that_are_not_sent_are_a_warning_at_exit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refusing:
        def export(self, batch: object) -> LogRecordExportResult:
            return LogRecordExportResult.FAILURE

        def shutdown(self) -> None: ...

        def force_flush(self, timeout_millis: int) -> bool:
            return True

    exporter = ManagedLogExporter("collector:4317", Refusing)
    exporter.export([1, 2])
    exporter.warn_unsent()

    assert caplog.messages == [
        "log records of events were not sent to collector:4317; the audit log has the events."
    ]


class Broken:
    """A processor that fails at every record."""

    def on_emit(self, record: object) -> None:
        raise OSError("the processor is broken")

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


def test_what_fails_in_a_processor_harms_neither_run_nor_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(Broken())  # type: ignore[arg-type]
    api.set_logger_provider(provider)
    configure(event_logs=True)
    run()
    ours = [one for one in caplog.records if one.name.startswith("tapps_otel")]

    assert tapps_otel.history("r").status == "completed"
    assert len(list(events("r"))) == 5
    assert tapps_otel.verify("r").ok
    assert [one.levelno for one in ours if one.levelno >= logging.WARNING] == [logging.WARNING]
    assert "the processor is broken" in caplog.text


def test_a_missing_exporter_harms_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "no_such_exporter")
    run()

    assert tapps_otel.history("r").status == "completed"
    assert "no installed package offers 'no_such_exporter'" in caplog.text
