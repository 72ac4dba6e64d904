"""Which log is that of a state of tapps-agents."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from tapps_otel import settings
from tapps_otel.instrumentation.tapps_agents import log_state
from tapps_otel.log.store import Store
from tapps_otel.run.external_start import ExternalWorkflow, start_run


def begin(store: Store, started_at: str) -> None:
    workflow = ExternalWorkflow("flow", {"state": {"started_at": started_at}})
    start_run(store, "r", workflow, settings.current()).end("completed")


def test_a_log_that_is_older_than_those_looked_at_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_state, "_MOST_LOOKED_AT", 2)
    store, first = Store(tmp_path), datetime(2026, 11, 1, tzinfo=UTC)
    state = SimpleNamespace(workflow_id="r", started_at=first)
    begin(store, first.isoformat())
    begin(store, "later")
    assert log_state.log_of(store, state) == "r"
    assert caplog.text == ""

    begin(store, "later still")
    assert log_state.log_of(store, state) is None
    assert "not among those of the newest 2 runs" in caplog.text
