"""How runs and steps end: what is open inside, tasks and threads, Ctrl-C, forks."""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import Cli
from crashes import Effects, die_at, go, in_child, killed
from tapps_otel import (
    Backoff,
    Run,
    bind,
    current_run,
    history,
    list_runs,
    step,
    timeline,
    workflow,
)
from tapps_otel.errors import DivergenceError, StepInterruptedError
from tapps_otel.log import lease
from tapps_otel.run.scope import CLOSING
from waiting import until, until_async

QUICK = Backoff(0.001, 1, 0.001)

Labels = Callable[..., list[str]]


def statuses() -> dict[str, str]:
    """Of every step of the run ``r``."""
    return {one.step_id: one.status for one in history("r").steps}


# ---------------------------------------------------------------- what is open inside


async def test_a_sync_block_ends_the_tasks_that_are_open_in_it() -> None:
    began = asyncio.Event()

    async def wait() -> None:
        began.set()
        await asyncio.sleep(30)

    with Run.open("x", workflow_id="r") as run:
        task = asyncio.create_task(run.acall("sleep", wait))
        await began.wait()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert statuses() == {"sleep": "cancelled"}


def test_open_steps_inside_an_open_step_end_with_it(
    labels: Callable[..., list[str]],
) -> None:
    with Run.open("x", workflow_id="r") as run:
        outer = run.begin("outer")
        with outer.current():
            run.begin("inner")

    assert labels()[-3:] == ["step_fail outer/inner", "step_fail outer", "workflow_end"]


def test_a_step_left_open_waits_for_the_thread_inside_it(
    labels: Callable[..., list[str]],
) -> None:
    began = threading.Event()

    def busy() -> None:
        began.set()
        until(lambda: run._recorder.root.state is CLOSING)

    with Run.open("x", workflow_id="r") as run:
        with run.begin("outer").current():
            thread = threading.Thread(target=bind(run.call), args=("busy", busy))
            thread.start()
        assert began.wait(30)
    thread.join()

    assert labels()[-3:] == ["step_finish outer/busy", "step_fail outer", "workflow_end"]


def test_a_run_entered_in_one_context_may_be_left_in_another() -> None:
    """As by a generator whose halves run in different threads."""
    run = Run.open("x", workflow_id="r")
    contextvars.Context().run(run.__enter__)
    contextvars.Context().run(run.__exit__, None, None, None)

    assert history("r").status == "completed"


def test_a_forked_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    began, child_ended = threading.Event(), threading.Event()

    @step
    def busy() -> None:
        began.set()
        child_ended.wait(30)

    @workflow
    def flow() -> int:
        thread = threading.Thread(target=bind(busy))
        thread.start()
        assert began.wait(30)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            raise SystemExit(7)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        child_ended.set()
        thread.join()
        return code

    def call() -> int:
        try:
            return int(go(flow))
        except SystemExit as exit_:
            os._exit(int(str(exit_.code)))

    assert in_child(call).value == 7


def test_a_busy_payment_at_ctrl_c_is_interrupted_not_cancelled(did: Effects) -> None:
    """It is not known whether it was made."""
    began, interrupted = threading.Event(), threading.Event()

    @step(on_interrupted="fail")
    def pay() -> None:
        did("pay")
        began.set()
        interrupted.wait(30)

    @workflow
    def flow() -> None:
        threading.Thread(target=bind(pay)).start()
        assert began.wait(30)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        recorder = current_run()._recorder

        def interrupt() -> None:
            until(lambda: recorder.root.state is CLOSING and recorder.root._waiter is not None)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()

    def call() -> dict[str, str]:
        with pytest.raises(KeyboardInterrupt):
            go(flow)
        found = statuses()
        interrupted.set()
        return found

    assert in_child(call).value == {"pay": "interrupted"}

    @workflow(name="flow")
    def again() -> None:
        pay()

    with pytest.raises(StepInterruptedError):
        go(again)
    assert did.count("pay") == 1


@pytest.mark.parametrize(
    "place", ["run_state.enter_root", "run_state.leave", "ending.complete", "ending.event"]
)
def test_the_lease_is_released_after_ctrl_c_at_the_edges_of_a_run(did: Effects, place: str) -> None:
    """In the same process: the run is resumed after it."""

    @step
    def work() -> int:
        return did("work")

    @workflow
    def flow() -> int:
        return work()

    def interrupt(frame: Any, kind: str, _: object) -> Any:
        name = f"{frame.f_globals['__name__']}.{frame.f_code.co_name}"
        if kind == "call" and name == f"tapps_otel.run.{place}":
            sys.settrace(None)
            raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            go(flow)
    finally:
        sys.settrace(before)

    assert go(flow) == 1
    assert did.count("work") == 1


# ---------------------------------------------------------------- event loops


def test_an_async_step_of_a_sync_workflow(did: Effects) -> None:
    """By ``asyncio.run``: a loop that begins and ends inside the run."""

    @step
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        did(f"work {number}")
        return number

    @step
    def last() -> None:
        die_at("last")

    async def both() -> list[int]:
        return list(await asyncio.gather(work(1), work(2)))

    @workflow
    def flow() -> list[int]:
        got = [asyncio.run(work(0)), *asyncio.run(both())]
        last()
        return got

    killed(lambda: go(flow), at="last")

    assert go(flow) == [0, 1, 2]
    assert sorted(did.all) == ["work 0", "work 1", "work 2"]


def test_a_loop_in_another_thread_is_waited_for(did: Effects, labels: Labels) -> None:
    """An async step that runs in a thread's own loop when the run fails."""

    began = threading.Event()

    @step
    async def slow() -> str:
        began.set()
        await until_async(lambda: "step_fail bad" in labels())
        did("slow")
        return "slow"

    @step
    async def bad() -> None:
        await until_async(began.is_set)
        if did("bad") == 1:
            raise ValueError("bad")

    @workflow
    async def flow() -> str:
        got = await asyncio.gather(bad(), asyncio.to_thread(lambda: asyncio.run(slow())))
        return got[1]

    with pytest.raises(ValueError, match="bad"):
        go(flow)
    assert labels()[-1] == "workflow_end"
    assert {"step_finish slow", "step_fail slow"} & set(labels())

    assert go(flow) == "slow"
    assert did.count("slow") == 1


def test_a_task_that_does_not_want_to_be_cancelled_is_waited_for(
    did: Effects, labels: Labels
) -> None:
    @step
    async def stubborn() -> str:
        try:
            did("began")
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            did("stubborn")
        return "done"

    @step
    async def bad() -> None:
        await until_async(lambda: did.count("began"))
        if did("bad") == 1:
            raise ValueError("bad")

    @workflow
    async def flow() -> str:
        got = await asyncio.gather(stubborn(), bad())
        return got[0]

    with pytest.raises(ValueError, match="bad"):
        go(flow)
    assert labels()[-2:] == ["step_finish stubborn", "workflow_end"]

    assert go(flow) == "done"
    assert did.count("stubborn") == 1


def test_code_that_swallows_its_cancellation_begins_nothing_more(
    did: Effects, labels: Labels
) -> None:
    """A sibling that continues after it was cancelled: nothing unrecorded runs."""

    @step
    async def work(number: int) -> None:
        did(f"work {number}")
        if number == 1:
            await asyncio.sleep(30)

    @step
    async def bad() -> None:
        await until_async(lambda: did.count("work 1"))
        raise ValueError("bad")

    async def sibling() -> None:
        for number in (1, 2, 3):
            try:
                await work(number)
            except asyncio.CancelledError:
                did("swallowed")

    @workflow
    async def flow() -> None:
        await asyncio.gather(sibling(), bad())

    with pytest.raises(ValueError, match="bad"):
        go(flow)
    seen = labels()
    assert seen[-1] == "workflow_end"
    for number in (2, 3):
        assert did.count(f"work {number}") == seen.count(f"step_start work#{number}")
    assert len([one for one in seen if one.startswith("step_start")]) == len(
        [one for one in seen if one.startswith(("step_fail", "step_finish"))]
    )


def test_a_workflow_may_call_itself(did: Effects) -> None:
    @workflow
    def factorial(number: int) -> int:
        did(f"factorial {number}")
        if number == 1:
            die_at("bottom")
            return 1
        return number * factorial(number - 1)

    killed(lambda: go(factorial, 4), at="bottom")

    assert go(factorial, 4) == 24
    assert [one.step_id for one in history("r").steps] == [
        "factorial",
        "factorial/factorial",
        "factorial/factorial/factorial",
    ]


# ---------------------------------------------------------------- threads


def test_a_refusal_in_a_thread_is_not_swallowed(did: Effects) -> None:
    @step
    def inner(at: int) -> None:
        did("inner")

    @step
    def outer() -> None:
        inner(did("outer"))
        die_at("outer")

    def quiet() -> None:
        try:
            outer()
        except Exception:  # noqa: BLE001 - what a user writes
            did("swallowed")

    @workflow
    def flow() -> str:
        thread = threading.Thread(target=bind(quiet))
        thread.start()
        thread.join()
        return "fine"

    killed(lambda: go(flow), at="outer")

    with pytest.raises(DivergenceError):
        go(flow)
    assert did.count("inner") == 1


def test_steps_of_two_threads_in_one_nested_step(did: Effects, labels: Labels) -> None:
    """A step ends after the threads in it, and what they did is found again."""

    @step
    def work(number: int) -> int:
        until(lambda: "step_start outer/work#2" in labels())
        did(f"work {number}")
        return number

    @step(retries=1, backoff=QUICK)
    def outer() -> None:
        threads = [threading.Thread(target=bind(work), args=(one,)) for one in (1, 2)]
        for thread in threads:
            thread.start()
        if did("outer") == 1:
            until(lambda: "step_start outer/work#2" in labels())
            raise ValueError("left them")
        for thread in threads:
            thread.join()

    @workflow
    def flow() -> None:
        outer()

    go(flow)

    first = labels().index("step_fail outer")
    assert sorted(labels()[2:first]) == [
        "step_finish outer/work",
        "step_finish outer/work#2",
        "step_start outer/work",
        "step_start outer/work#2",
    ]


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("is_async", [False, True])
def test_a_run_is_resumed_after_ctrl_c(did: Effects, labels: Labels, *, is_async: bool) -> None:
    @step
    def done() -> None:
        did("done")

    @step
    def work() -> str:
        if did("work") == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        return "work"

    @step
    async def async_work() -> str:
        if did("work") == 1:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(10)
        return "work"

    @workflow
    def flow() -> str:
        done()
        return work()

    @workflow
    async def async_flow() -> str:
        done()
        return await async_work()

    used: Any = async_flow if is_async else flow

    def interrupted() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            go(used)

    outcome = in_child(interrupted)
    assert outcome.code == 0, outcome.error
    assert labels()[-1] == "workflow_end"
    assert history("r").steps[-1].status in {"interrupted", "cancelled"}
    assert history("r").status in {"interrupted", "cancelled"}

    assert go(used) == "work"
    assert did.all == ["done", "work", "work"]


async def test_a_task_that_died_without_ending_its_step_is_not_waited_for(labels: Labels) -> None:
    """As after two Ctrl-C: the second one may come anywhere in the task."""

    class Lost(BaseException):
        pass

    with Run.open("x", workflow_id="r") as run:

        async def die() -> None:
            attempt = run.begin("lost")
            attempt._recorder.by_hand = False  # as a step's own call would leave it
            raise Lost

        task = asyncio.create_task(die())
        with pytest.raises(Lost):
            await task
        async with asyncio.timeout(30):
            await run._recorder.root.drain_async()

    assert labels() == ["workflow_start", "step_start lost", "step_fail lost", "workflow_end"]
    assert statuses() == {"lost": "interrupted"}


# ---------------------------------------------------------------- looked at meanwhile


def by_show(cli: Cli) -> str:
    return str(json.loads(cli("show", "r", "--json").out)["status"])


def by_list(cli: Cli) -> str:
    return str(json.loads(cli("list", "--json").out)[0]["status"])


@pytest.mark.parametrize(
    ("look", "nth"),
    [
        pytest.param(lambda _: history("r").status, 1, id="history"),
        pytest.param(lambda _: next(iter(list_runs())).status, 1, id="list_runs"),
        pytest.param(by_list, 1, id="list"),
        # These look first whether there is such a run.
        pytest.param(lambda _: timeline("r").status, 2, id="timeline"),
        pytest.param(by_show, 2, id="show"),
    ],
)
def test_a_run_that_ends_while_it_is_looked_at_was_not_interrupted(
    look: Callable[[Cli], str], nth: int, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends just before the nth time that somebody asks which process executes it."""
    run = Run.open("x", workflow_id="r")
    run.__enter__()
    ask = lease.holder

    def after_the_end(path: Path) -> Any:
        asked.append(path)
        if len(asked) == nth:
            run.__exit__(None, None, None)
        return ask(path)

    asked: list[Path] = []
    monkeypatch.setattr(lease, "holder", after_the_end)

    assert look(cli) == "completed"
    assert len(asked) >= nth
