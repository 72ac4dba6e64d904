"""The exporter of live spans: its failures harm no run, and are logged once."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from tapps_otel import clock
from tapps_otel.otel import run_registry, seam
from tapps_otel.otel.delivery.otlp_exporter import OtlpExporter
from tapps_otel.otel.replay.ledger import Ledger
from tapps_otel.otel.run_registry import KnownRun
from tapps_otel.otel.transport.client import Answer, Client
from tapps_otel.otel.transport.destination import HTTP, Destination


class Near(Client):
    """A collector that accepts everything, or a library that raises."""

    def __init__(self, url: str, error: Exception | None = None) -> None:
        super().__init__(Destination(HTTP, url))
        self._error = error

    def _send_once(self, request: bytes, seconds: float) -> Answer:
        if self._error is not None:
            raise self._error
        return Answer()

    def close(self) -> None: ...


def export_of_runs(client: Client, *folders: Path) -> list[str]:
    """Export a span of a run in each folder, at once; their ids."""
    provider = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("library")
    exporter = OtlpExporter(client)
    made = []
    for number, folder in enumerate(folders):
        span = tracer.start_span("GET")
        trace_id = f"{span.get_span_context().trace_id:032x}"
        run_registry.enter(trace_id, KnownRun(f"r{number}", folder, 1, clock.time_ns()))
        span.end()
        made.append(span)
    exporter.export(made)  # type: ignore[arg-type]  # the SDK's own spans can be read
    return [f"{span.get_span_context().span_id:016x}" for span in made]


@pytest.fixture(autouse=True)
def _unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "_warned", set())


def test_a_destination_with_invalid_text_has_a_ledger_too(tmp_path: Path) -> None:
    """As from an environment variable with bytes that are not UTF-8."""
    client = Near("http://127.0.0.1:4318/\udcff")
    (span_id,) = export_of_runs(client, tmp_path)
    ledger = Ledger(tmp_path / "r0.ledger", client.destination.name)

    assert ledger.spans().get(span_id)


def test_an_unwritable_ledger_does_not_affect_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = Near("http://127.0.0.1:4318")
    odd = tmp_path / "nul\0"  # no path at all: the error is none of the system's
    ids = export_of_runs(client, odd, tmp_path)
    ledger = Ledger(tmp_path / "r1.ledger", client.destination.name)

    assert ledger.spans().get(ids[1])
    assert "OpenTelemetry failed (ledger): ValueError" in caplog.text


def test_an_unexpected_error_is_logged_once_and_not_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = Near("http://127.0.0.1:4318", RuntimeError("of a library"))
    for _ in range(2):
        export_of_runs(client, tmp_path)

    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert [one.getMessage().split(". ")[0] for one in warnings] == [
        "OpenTelemetry failed (sending): RuntimeError: of a library"
    ]
