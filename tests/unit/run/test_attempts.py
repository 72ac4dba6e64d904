"""Attempts: retries, timeouts, skips, cancellation, and their events in the log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from crashes import Effects, die_at, go, killed
from tapps_otel import (
    Backoff,
    annotate,
    clock,
    current_step,
    history,
    skip,
    step,
    workflow,
)
from tapps_otel.errors import StepTimeoutError

QUICK = Backoff(0.001, 1, 0.001)

Labels = Callable[..., list[str]]
Log = Callable[..., list[dict[str, Any]]]


class SetClock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000_000
        self.slept: list[float] = []

    def time_ns(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += int(seconds * 1e9)


class BusyMachine(SetClock):
    """Some readings come late, as those of a thread that loses its processor just before."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._chance = random.Random(seed)

    def _read(self) -> int:
        self.now += 1_000_000 if self._chance.random() < 0.2 else 100
        return self.now

    def time_ns(self) -> int:
        return self._read()

    def monotonic_ns(self) -> int:
        return self._read()


@pytest.mark.parametrize("seed", range(20))
def test_no_step_ends_after_what_encloses_it(log: Log, seed: int) -> None:
    @step
    def inner() -> None: ...

    @step
    def outer() -> None:
        inner()

    @workflow
    def flow() -> None:
        outer()

    with clock.use(BusyMachine(seed)):
        go(flow)

    def moments(event_type: str) -> list[str]:
        return [one["timestamp"] for one in log(None) if one["event_type"].endswith(event_type)]

    for found in (moments("start"), moments("finish") + moments("workflow_end")):
        assert len(found) >= 2
        assert found == sorted(found)


# ---------------------------------------------------------------- retries


def test_each_try_is_an_attempt_of_its_own(did: Effects, labels: Labels) -> None:
    @step(retries=2, backoff=QUICK)
    def flaky() -> str:
        if did("flaky") < 3:
            raise ValueError("again")
        return "done"

    @workflow
    def flow() -> str:
        return flaky()

    assert go(flow) == "done"
    assert labels() == [
        "workflow_start",
        *["step_start flaky", "step_fail flaky"] * 2,
        "step_start flaky",
        "step_finish flaky",
        "workflow_end",
    ]
    (record,) = history("r").steps
    assert [(one.number, one.status) for one in record.attempts] == [
        (1, "failed"),
        (2, "failed"),
        (3, "completed"),
    ]


def test_back_off_waits_grow_to_their_limit_and_are_logged(log: Log) -> None:
    """The waits are visible, and waited."""

    @step(retries=8)
    def bad() -> None:
        raise ValueError("bad")

    @workflow
    def flow() -> None:
        bad()

    tick = SetClock()
    with clock.use(tick), pytest.raises(ValueError, match="bad"):
        go(flow)

    waits = [one["retry_in_ns"] / 1e9 for one in log("step_fail") if "retry_in_ns" in one]
    assert len(waits) == 8
    assert waits == pytest.approx(tick.slept, abs=1e-6)
    assert waits[-1] <= 60 * 1.5
    for number, wait in enumerate(waits):
        assert 0 < wait <= min(2**number, 60) * 1.5
    assert sum(waits[:3]) < sum(waits[3:6])
    assert "retry_in_ns" not in log("step_fail")[-1]


def test_waits_have_jitter(log: Log) -> None:
    """Many that failed together do not come again together."""

    @step(retries=12, backoff=Backoff(1, 1, 1))
    def bad() -> None:
        raise ValueError("bad")

    @workflow
    def flow() -> None:
        bad()

    with clock.use(SetClock()), pytest.raises(ValueError, match="bad"):
        go(flow)
    waits = {one.get("retry_in_ns") for one in log("step_fail")}
    assert len(waits) > 6


async def test_an_async_step_is_retried(did: Effects) -> None:
    @step(retries=1, backoff=QUICK)
    async def flaky() -> str:
        if did("flaky") < 2:
            raise ValueError("again")
        return "done"

    @workflow
    async def flow() -> str:
        return await flaky()

    assert await flow.options(workflow_id="r")() == "done"


def test_only_what_retry_on_names_is_retried(did: Effects) -> None:
    @step(retries=3, backoff=QUICK, retry_on=(ConnectionError,))
    def flaky() -> None:
        if did("flaky") == 1:
            raise ConnectionResetError("again")
        raise ValueError("not again")

    @workflow
    def flow() -> None:
        flaky()

    with pytest.raises(ValueError, match="not again"):
        go(flow)
    assert did.count("flaky") == 2


def test_options_change_retries_of_one_call(did: Effects) -> None:
    @step(backoff=QUICK)
    def flaky() -> int:
        if did("flaky") < 3:
            raise ValueError("again")
        return 7

    @workflow
    def flow() -> int:
        return flaky.options(retries=2)()

    assert go(flow) == 7


def test_an_exhausted_budget_raises_the_last_failure(did: Effects, log: Log) -> None:
    @step(retries=2, backoff=QUICK)
    def bad() -> None:
        raise ValueError(f"try {did('bad')}")

    @workflow
    def flow() -> None:
        bad()

    with pytest.raises(ValueError, match="try 3"):
        go(flow)
    fails = log("step_fail")
    assert [one["error"]["message"] for one in fails] == ["try 1", "try 2", "try 3"]
    assert [one["attempt"] for one in fails] == [1, 2, 3]
    assert fails[0]["error"]["type"].endswith("ValueError")
    assert fails[0]["error"]["args"] == ["try 1"]
    assert "test_attempts" in fails[0]["error"]["stack"]


# ---------------------------------------------------------------- time-outs


async def test_a_step_that_takes_too_long_is_timed_out() -> None:
    @step(timeout=0.02)
    async def slow() -> None:
        await asyncio.sleep(30)

    @workflow
    async def flow() -> None:
        await slow()

    with pytest.raises(StepTimeoutError) as caught:
        await flow.options(workflow_id="r")()
    assert isinstance(caught.value, TimeoutError)
    assert "slow" in str(caught.value)
    (record,) = history("r").steps
    assert record.status == "timeout"
    assert history("r").status == "failed"


async def test_a_time_out_that_is_not_the_steps_own_is_a_failure_or_a_cancellation() -> None:
    """Status ``timeout`` means the step's own ``timeout=`` only."""

    @step(timeout=30)
    async def inside() -> None:
        raise TimeoutError("from a library")

    @step(timeout=30)
    async def outside() -> None:
        await asyncio.sleep(30)

    @workflow
    async def flow() -> None:
        for call in (inside, outside):
            try:
                async with asyncio.timeout(0.02):
                    await call()
            except TimeoutError:
                pass

    await flow.options(workflow_id="r")()
    assert [one.status for one in history("r").steps] == ["failed", "cancelled"]


async def test_a_timed_out_step_is_retried(did: Effects) -> None:
    @step(timeout=0.02, retries=1, backoff=QUICK)
    async def slow() -> str:
        if did("slow") == 1:
            await asyncio.sleep(30)
        return "done"

    @workflow
    async def flow() -> str:
        return await slow()

    assert await flow.options(workflow_id="r")() == "done"
    assert [one.status for one in history("r").steps[0].attempts] == ["timeout", "completed"]


def test_a_sync_step_cannot_have_a_time_out() -> None:
    """A TypeError at decoration that names the alternatives."""
    with pytest.raises(TypeError, match="timeout") as caught:

        @step(timeout=1)
        def slow() -> None: ...

    assert "async" in str(caught.value)


def test_options_cannot_set_a_timeout_on_a_sync_step() -> None:
    @step
    def slow() -> None: ...

    with pytest.raises(TypeError, match="timeout"):
        slow.options(timeout=1)


# ---------------------------------------------------------------- skips


def test_a_skipped_step_returns_the_result_of_its_skip(
    did: Effects, log: Log, labels: Labels
) -> None:
    @step
    def work() -> int:
        did("work")
        skip("nothing to do", result=5)

    @step
    def bare() -> None:
        skip("not today")

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> list[object]:
        got: list[object] = [work()]
        bare()
        last()
        return got

    killed(lambda: go(flow), at="last")

    assert go(flow) == [5]
    assert did.all == ["work"]
    assert [one["reason"] for one in log("step_skip")] == ["nothing to do", "not today"]
    assert [one.status for one in history("r").steps] == ["skipped", "skipped", "completed"]


def test_no_except_exception_swallows_a_skip() -> None:
    @step
    def work() -> str:
        try:
            skip("no", result="skipped")
        except Exception:  # noqa: BLE001 - what a user writes
            return "swallowed"

    @workflow
    def flow() -> str:
        return work()

    assert go(flow) == "skipped"


# ---------------------------------------------------------------- idempotency


def test_the_idempotency_key_is_the_same_in_every_attempt_and_execution(did: Effects) -> None:
    @step(retries=1, backoff=QUICK)
    def work(number: int) -> None:
        count = did(f"{number} {current_step().idempotency_key}")
        if count == 1:
            raise ValueError("again")
        if count == 2:
            die_at("work")

    @workflow
    def flow() -> None:
        work(1)
        work(1)

    killed(lambda: go(flow), at="work")
    killed(lambda: go(flow), at="work")
    go(flow)
    go(flow, workflow_id="other")

    first, second = dict.fromkeys(did.all[:5]) if len(set(did.all[:5])) == 2 else (None, None)
    assert first != second
    assert did.count(str(first)) == 3
    assert len(set(did.all)) == 4


# ---------------------------------------------------------------- what stops a run


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_stops_the_process_is_logged_as_what_it_is(
    did: Effects, log: Log, kind: type[BaseException]
) -> None:
    """KeyboardInterrupt and SystemExit are recorded, re-raised unchanged, and never retried."""
    raised = kind(3)

    @step(retries=3, backoff=QUICK)
    def work() -> str:
        if did("work") == 1:
            raise raised
        return "done"

    @workflow
    def flow() -> str:
        return work()

    with pytest.raises(kind) as caught:
        go(flow)

    assert caught.value is raised
    (fail,) = log("step_fail")
    assert fail["error"]["type"].endswith(kind.__name__)
    assert fail["status"] in {"cancelled", "interrupted", "failed"}
    (end,) = log("workflow_end")
    assert end["status"] == fail["status"]
    assert end["error"]["type"].endswith(kind.__name__)

    assert go(flow) == "done"
    assert did.count("work") == 2


async def test_a_cancelled_run_is_cancelled_in_the_log(did: Effects, log: Log) -> None:
    @step(retries=3, backoff=QUICK)
    async def work() -> str:
        if did("work") == 1:
            await asyncio.sleep(30)
        return "done"

    @workflow
    async def flow() -> str:
        return await work()

    named = flow.options(workflow_id="r")
    task = asyncio.ensure_future(named())
    while not did.all:  # noqa: ASYNC110 - the effects are a file
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [one["status"] for one in log("step_fail")] == ["cancelled"]
    assert history("r").status == "cancelled"
    assert await named() == "done"


def test_a_step_cancelled_while_it_waits_for_its_next_try(did: Effects) -> None:
    @step(retries=3, backoff=Backoff(30, 1, 30))
    async def work() -> str:
        if did("work") == 1:
            raise ValueError("again")
        return "done"

    @workflow
    async def flow() -> str:
        async with asyncio.timeout(0.03):
            return await work()

    with pytest.raises(TimeoutError):
        go(flow)
    assert go(flow) == "done"
    assert did.count("work") == 2


# ---------------------------------------------------------------- not stored


def test_a_step_that_is_not_stored_runs_again(did: Effects, log: Log) -> None:
    @step(persist=False)
    def connect() -> object:
        did("connect")
        return object()

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> bool:
        connection = connect()
        last()
        return connection is not None

    killed(lambda: go(flow), at="last")

    assert go(flow) is True
    assert did.all == ["connect", "connect"]
    finishes = [one for one in log("step_finish") if one["step"] == "connect"]
    assert len(finishes) == 2
    for one in finishes:
        assert "result" not in one
        assert one["result_omitted"]
    assert [one.step_id for one in history("r").steps] == ["connect", "last"]


# ---------------------------------------------------------------- fields


def test_a_steps_agent_and_action_are_in_its_events(log: Log) -> None:
    @step(agent="writer", action="draft")
    def work() -> None: ...

    @step
    def bare() -> None: ...

    @workflow
    def flow() -> None:
        work()
        bare()
        annotate("done")

    go(flow)

    for one in log("step_start") + log("step_finish"):
        given = ("writer", "draft") if one["step"] == "work" else (None, None)
        assert (one["agent"], one["action"]) == given
        assert one["attempt"] == 1
        assert one["execution"] == 1


def test_decorated_functions_keep_their_names() -> None:
    @step
    def work() -> None:
        """Do it."""

    @workflow(name="other")
    def flow() -> None:
        """Do all of it."""

    assert work.__name__ == "work"  # type: ignore[attr-defined]
    assert work.__doc__ == "Do it."
    assert flow.__doc__ == "Do all of it."


def test_ignored_arguments_are_not_inputs(did: Effects) -> None:
    @step(ignore=("client",))
    def fetch(number: int, client: object) -> int:
        did("fetch")
        return number

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> int:
        got = fetch(7, object())
        last()
        return got

    killed(lambda: go(flow), at="last")

    assert go(flow) == 7
    assert did.count("fetch") == 1
