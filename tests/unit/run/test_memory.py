"""What runs keep in memory."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
import weakref
from types import FrameType
from typing import Any

import pytest

from crashes import Effects, die_at, go, killed
from tapps_otel import Run, history, step, workflow
from tapps_otel.past import fold


def test_functions_that_were_called_as_steps_are_freed() -> None:
    seen = []
    with Run.open("x", workflow_id="r") as run:
        for number in range(3):

            def work(number: int = number) -> int:
                return number

            seen.append(weakref.ref(work))
            run.call("work", work)
            del work
        gc.collect()
        assert [one() for one in seen] == [None, None, None]


def test_outer_steps_that_failed_are_forgotten() -> None:
    @step
    def inner(number: int) -> int:
        return number

    @step
    def outer(number: int) -> None:
        inner(number)
        raise ValueError(number)

    @workflow
    def flow() -> int:
        for number in range(50):
            with pytest.raises(ValueError, match=str(number)):
                outer(number)
        kept = [one for one in gc.get_objects() if type(one).__name__ == "ScopeHistory"]
        return len(kept)

    assert go(flow) < 10


def failures_in_tasks(workflow_id: str, count: int) -> None:
    @step
    async def work(number: int) -> None:
        await asyncio.sleep(0)
        raise ValueError(number)

    @workflow(name="flow")
    async def flow() -> None:
        window = asyncio.Semaphore(10)

        async def one(number: int) -> None:
            async with window:
                await work(number)

        await asyncio.gather(*map(one, range(count)), return_exceptions=True)

    go(flow, workflow_id=workflow_id)


def lines_of_fold(workflow_id: str) -> int:
    """How many lines of the fold run when a log is read."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename != fold.__file__:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        history(workflow_id)
    finally:
        sys.settrace(before)
    return count


def test_the_fold_of_many_failures_in_tasks_is_linear() -> None:
    """It was quadratic when every start looked at every failure before it."""
    failures_in_tasks("few", 100)
    failures_in_tasks("many", 400)

    assert lines_of_fold("many") < 5 * lines_of_fold("few")


@pytest.mark.exhaustive
def test_a_long_run_holds_no_more_than_its_results() -> None:
    """10 000 steps: a few hundred bytes a step at most, while the run is in progress."""

    @step
    def work(number: int) -> int:
        return number

    grown: list[int] = []

    @workflow
    def flow(steps: int) -> None:
        work(0)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1, steps):
            work(number)
        gc.collect()
        grown.append(tracemalloc.get_traced_memory()[0] - before)

    tracemalloc.start()
    try:
        go(flow, 10_000)
    finally:
        tracemalloc.stop()
    assert grown[0] < 10_000 * 300


@pytest.mark.slow
def test_a_resumed_run_holds_little_more_than_its_results(did: Effects) -> None:
    """After 2 000 steps with results of 5 000 bytes: these, and no second copy of them."""

    @step
    def work(number: int) -> str:
        return chr(97 + number % 26) * 5_000

    @workflow
    def flow() -> int:
        got = sum(len(work(number)) for number in range(2_000))
        die_at("end")
        return got

    killed(lambda: go(flow), at="end")
    gc.collect()
    tracemalloc.start()
    try:
        assert go(flow) == 10_000_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000 * 1.8
    assert len(history("r").steps) == 2_000
