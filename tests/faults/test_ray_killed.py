"""Steps in workers of Ray, whose workers and drivers are killed with SIGKILL."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from otlp_collector import once
from tapps_otel import verify
from waiting import until
from worker_programs import (
    assert_one_trace,
    collecting,
    did,
    ended,
    is_alive,
    of_type,
    spans_of_log,
    started,
    starts,
    workers,
    write_program,
)

pytest.importorskip("ray", reason="needs Ray, which has some versions of Python: pip install ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
_PATIENCE = 200.0  # seconds: Ray starts ten processes


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(monkeypatch)
    # What Ray's processes may take to start, on a busy machine.
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "180000")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "180")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def test_spans_made_by_workers_stand_once_in_trace_and_log() -> None:
    with collecting() as (sink, env):
        assert ended("asking", "ray", patience=_PATIENCE, env=env) == "6\n"
    assert_one_trace(once(sink.spans))
    assert sorted(str(one.name) for one in spans_of_log()) == [f"ask {n}" for n in range(4)]
    assert {one["attributes"]["tapps.engine"] for one in of_type("step_start")} == {"ray"}
    assert verify("r").ok


def test_a_killed_worker_and_a_killed_driver_repeat_nothing_that_ended() -> None:
    with started("flow", "ray") as child:
        until(lambda: len(workers()) == 2, _PATIENCE)
        os.kill(workers()[0], signal.SIGKILL)
        until(lambda: len(workers()) == 3, _PATIENCE)  # Ray does not repeat it, the driver does
        pids = workers()[1:]
        child.kill()
        child.wait()
        until(lambda: not any(map(is_alive, pids)))
    (lost,) = of_type("step_fail")
    assert (lost["status"], lost["attempt"]) == ("interrupted", 1)
    Path("go").touch()
    assert ended("flow", "ray", patience=_PATIENCE) == "['A', 'B', 'C']\n"
    assert [did.count(f"draft {page}") for page in "abc"] == [1, 1, 1]
    assert {attempt for _, attempt in starts("slow")} == {1, 2, 3}
    assert verify("r").ok


def test_a_step_that_must_not_run_twice_does_not() -> None:
    with started("paying", "ray") as child:
        _, err = child.communicate(timeout=_PATIENCE)
    assert child.returncode == 1
    assert "StepInterruptedError" in err
    assert did.count("pay") == 1
