"""Where the library keeps out of the way: outside of runs, switched off, and in memory."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest

from crashes import Effects, die_at, go, killed
from tapps_otel import configure, history, step, workflow


def assert_no_logs(log_dir: Path) -> None:
    assert not log_dir.exists()


def test_a_step_outside_a_workflow_is_a_plain_call(log_dir: Path, did: Effects) -> None:
    @step(retries=3)
    def work(value: object) -> object:
        did("work")
        return value

    given = object()
    assert work(given) is given
    assert not log_dir.exists()


def test_a_plain_call_is_not_retried(did: Effects) -> None:
    @step(retries=3)
    def work() -> None:
        did("work")
        raise ValueError("plain")

    with pytest.raises(ValueError, match="plain"):
        work()
    assert did.all == ["work"]


async def test_an_async_step_outside_a_workflow_is_a_plain_call(log_dir: Path) -> None:
    @step
    async def work(value: object) -> object:
        return value

    given = object()
    assert await work(given) is given
    assert_no_logs(log_dir)


def test_switched_off_nothing_is_written(log_dir: Path, did: Effects) -> None:
    """configure(enabled=False): decorators are plain calls."""

    @step
    def work() -> object:
        did("work")
        return NotImplemented

    @workflow
    def flow(given: object) -> object:
        return work() is NotImplemented and given

    configure(enabled=False)
    given = object()
    assert flow(given) is given
    assert flow.options(workflow_id="r")(given) is given
    assert flow.options(workflow_id="r")(given) is given
    assert did.count("work") == 3
    assert not log_dir.exists()


async def test_switched_off_an_async_workflow_is_a_plain_call(log_dir: Path) -> None:
    @step
    async def work() -> int:
        return 1

    @workflow
    async def flow() -> int:
        return await work() + 1

    configure(enabled=False)
    assert await flow() == 2
    assert await flow.options(workflow_id="r")() == 2
    assert_no_logs(log_dir)


def test_a_long_run_holds_no_more_than_its_results() -> None:
    """10 000 steps: a few hundred bytes a step at most, while the run goes on."""

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
