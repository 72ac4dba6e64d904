"""Ctrl-C at every place of this package's code while steps are submitted to an executor.

The block of the executor ends, the run ends, and a resume finds nothing done twice or lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import remote_steps
from crashes import Effects
from effort import sample
from independent_checker import check
from interrupts import Interrupts
from tapps_otel import bind, history, settings, verify, workflow
from tapps_otel.run.remote.executor import BoundExecutor
from waiting import until

# What was dropped by an interrupt is closed by the collector, with a warning.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ENDS = frozenset({"step_finish", "step_fail", "step_skip"})
Program = Callable[[BoundExecutor, Interrupts, str], list[int]]


def submits(bound: BoundExecutor, interrupts: Interrupts, did: str) -> list[int]:
    with interrupts:
        futures = [bound.submit(remote_steps.noting, did, number) for number in (1, 2, 3)]
    return [one.result() for one in futures]


def leaves(bound: BoundExecutor, interrupts: Interrupts, did: str) -> list[int]:
    futures = [bound.submit(remote_steps.noting, did, number) for number in (1, 2, 3)]
    with interrupts:
        bound.shutdown()
    return [one.result() for one in futures]


@pytest.mark.parametrize("program", sample([submits, leaves], 1))
def test_ctrl_c_at_any_place_leaves_a_run_that_resumes(program: Program, tmp_path: Path) -> None:
    did = Effects(tmp_path / "did")
    for place in itertools.count(1):
        interrupts = Interrupts(place)
        if not interrupted(program, interrupts, did, f"r{place}"):
            assert place > 5
            return
        try:
            resumes(program, did, f"r{place}")
        except BaseException as error:
            error.add_note(f"interrupted at place {place}: {interrupts.raised}")
            raise


def interrupted(program: Program, interrupts: Interrupts, did: Effects, run_id: str) -> bool:
    """Execute the program; return whether it was interrupted."""
    try:
        assert execute(program, interrupts, did, run_id) == [1, 2, 3]
    except KeyboardInterrupt:
        return True
    return bool(interrupts.raised)


def resumes(program: Program, did: Effects, run_id: str) -> None:
    """Resume it, and check what it did."""
    assert execute(program, Interrupts(), did, run_id) == [1, 2, 3]
    verify(run_id).raise_if_bad()
    events = check(settings.current().log_dir / f"{run_id}.jsonl")
    starts = [one for one in events if one["event_type"] == "step_start"]
    ends = [(one["step_id"], one["attempt"]) for one in events if one["event_type"] in ENDS]
    assert sorted(ends) == sorted((one["step_id"], one["attempt"]) for one in starts)
    finished = [one["step_id"] for one in events if one["event_type"] == "step_finish"]
    assert sorted(finished) == ["noting", "noting#2", "noting#3", "noting#4"]
    for number in (1, 2, 3):
        assert did.count(f"{run_id} {number}") <= len(starts)


def execute(program: Program, interrupts: Interrupts, did: Effects, run_id: str) -> list[int]:
    @workflow
    def flow() -> list[int]:
        with bind(ThreadPoolExecutor(1)) as bound:
            bound.submit(remote_steps.noting, str(did._path), 0).result()
            return program(bound, interrupts, str(did._path))

    return flow.options(workflow_id=run_id)()


def test_ctrl_c_while_what_waits_is_cancelled_keeps_no_caller_waiting(tmp_path: Path) -> None:
    for place in itertools.count(1):
        interrupts, go = Interrupts(place), tmp_path / f"go{place}"
        futures = cancels(interrupts, f"r{place}", go)
        assert all(one.done() for one in futures), interrupts.raised
        verify(f"r{place}").raise_if_bad()
        if not interrupts.raised:
            assert place > 20
            return


def cancels(interrupts: Interrupts, run_id: str, go: Path) -> list[Future[int]]:
    """Cancel a step that waits for its next try, and two that wait for a worker."""
    futures = list[Future[int]]()

    @workflow
    def flow() -> None:
        with bind(ThreadPoolExecutor(1)) as bound:
            futures.append(bound.submit(remote_steps.fails_for_long))
            until(lambda: [one.status for one in history(run_id).steps] == ["failed"])
            futures.extend(bound.submit(remote_steps.waits_for, str(go)) for _ in range(3))
            try:
                with interrupts:
                    bound.shutdown(wait=False, cancel_futures=True)
            finally:
                go.touch()

    with suppress(KeyboardInterrupt):
        flow.options(workflow_id=run_id)()
    return futures
