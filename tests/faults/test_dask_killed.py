"""Steps in workers of Dask: of a cluster in the driver, and of one with a scheduler of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from otlp_collector import once
from tapps_otel import history, verify
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

pytest.importorskip("distributed", reason="needs Dask: pip install distributed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(monkeypatch)
    # Dask's own files and ports are of no interest here.
    monkeypatch.setenv("DASK_DISTRIBUTED__DASHBOARD__LINK", "")


@contextmanager
def running(*command: str, **env: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a program of Dask's, and kill it in the end."""
    output = Path(f"{command[0]}-{len(list(Path().glob('*.out')))}.out")
    with output.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:]],
            env=os.environ | env,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield child, output
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextmanager
def cluster(**env: str) -> Iterator[str]:
    """A scheduler and two worker processes; gives the address."""
    with ExitStack() as stack:
        _, output = stack.enter_context(
            running("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", **env)
        )
        until(lambda: re.search(r"Scheduler at:\s+tcp://\S+", output.read_text()))
        found = re.search(r"Scheduler at:\s+(tcp://\S+)", output.read_text())
        assert found is not None
        for _ in range(2):
            stack.enter_context(
                running("worker", found[1], "--nthreads", "1", "--no-nanny", "--no-dashboard")
            )
        until(lambda: output.read_text().count("Starting worker compute stream") == 2)
        yield found[1]


def schedulers() -> list[int]:
    """Process ids of the schedulers that run in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_here = (path / "cwd").samefile(Path.cwd())
            if is_here and b"dask_scheduler" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def test_a_local_cluster_executes_steps_in_one_trace_and_one_log() -> None:
    with collecting() as (sink, env):
        assert ended("asking", "dask", env=env) == "6\n"
    assert_one_trace(once(sink.spans))
    assert sorted(str(one.name) for one in spans_of_log()) == [f"ask {n}" for n in range(4)]
    assert {one["attributes"]["tapps.engine"] for one in of_type("step_start")} == {"dask"}
    assert len({one["attributes"]["tapps.worker.pid"] for one in of_type("step_finish")}) <= 2
    assert verify("r").ok


def test_the_workers_of_a_local_cluster_end_with_their_driver() -> None:
    with started("flow", "dask") as child:
        until(lambda: len(workers()) == 2)
        pids = workers()
        child.kill()
        child.wait()
        until(lambda: not any(map(is_alive, pids)))


def test_a_killed_worker_and_a_killed_driver_repeat_nothing_that_ended() -> None:
    with cluster() as address:
        with started("flow", address) as child:
            until(lambda: len(workers()) == 2)
            os.kill(workers()[0], signal.SIGKILL)  # the other one has the rest from now on
            child.kill()
            child.wait()
        assert sorted(one["step_id"] for one in of_type("step_finish")) == [
            "draft", "draft#2", "draft#3",
        ]  # fmt: skip
        Path("go").touch()
        assert ended("flow", address) == "['A', 'B', 'C']\n"
    assert [did.count(f"draft {page}") for page in "abc"] == [1, 1, 1]
    assert ("slow", 2) in starts("slow")
    assert verify("r").ok


def test_a_finished_step_is_not_computed_again_when_its_worker_dies() -> None:
    with cluster() as address, started("flow", address) as child:
        until(lambda: len(workers()) == 2)
        os.kill(workers()[0], signal.SIGKILL)  # it has computed some of the drafts
        Path("go").touch()
        out, err = child.communicate(timeout=120)
        assert (child.returncode, out) == (0, "['A', 'B', 'C']\n"), err
    assert [did.count(f"draft {page}") for page in "abc"] == [1, 1, 1]
    assert did.count("done 0") + did.count("done 1") == 2  # one of them in its second worker


def test_a_run_fails_when_its_scheduler_was_killed() -> None:
    with cluster() as address:
        (scheduler,) = schedulers()
        with started("flow", address, env={"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s"}):
            until(lambda: len(workers()) == 2)
            os.kill(scheduler, signal.SIGKILL)
            until(lambda: history("r").status == "failed")  # Dask itself may end later
    assert of_type("workflow_end")[-1]["status"] == "failed"
    assert verify("r").ok


@pytest.mark.parametrize("allowed", [None, "0"], ids=["by-default", "none"])
def test_a_step_that_must_not_run_twice_is_refused_unless_dask_repeats_nothing(
    allowed: str | None,
) -> None:
    env = {} if allowed is None else {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": allowed}
    with cluster(**env) as address, started("paying", address) as child:
        _, err = child.communicate(timeout=120)
    assert child.returncode == 1
    if allowed is None:
        assert "must not run twice" in err
        assert "allowed-failures" in err
        assert did.count("pay") == 0
        assert of_type("step_start") == []
    else:
        assert "StepInterruptedError" in err
        assert did.count("pay") == 1
