"""What a review found: ends that were not written, lines that no reader took, memory that grew."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from crashes import Effects, go, in_child
from tapps_otel import Run, annotate, bind, configure, history, skip, step, workflow
from tapps_otel.errors import StepInputError, StepInterruptedError


def statuses() -> dict[str, str]:
    """Of every step of the run ``r``."""
    return {one.step_id: one.status for one in history("r").steps}


# ---------------------------------------------------------------- ends


async def test_a_sync_block_ends_the_tasks_that_are_open_in_it() -> None:
    with Run.open("x", workflow_id="r") as run:
        task = asyncio.create_task(run.acall("sleep", asyncio.sleep, 10))
        await asyncio.sleep(0.01)

    with pytest.raises(asyncio.CancelledError):
        await task
    assert statuses() == {"sleep": "cancelled"}


def test_what_is_open_inside_a_step_left_open_is_ended_with_it(
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
    def busy() -> None:
        time.sleep(0.1)

    with Run.open("x", workflow_id="r") as run:
        with run.begin("outer").current():
            thread = threading.Thread(target=bind(run.call), args=("busy", busy))
            thread.start()
        time.sleep(0.03)
    thread.join()

    assert labels()[-3:] == ["step_finish outer/busy", "step_fail outer", "workflow_end"]


def test_a_run_entered_in_one_context_may_be_left_in_another() -> None:
    """As by a generator whose halves run in different threads."""
    run = Run.open("x", workflow_id="r")
    contextvars.Context().run(run.__enter__)
    contextvars.Context().run(run.__exit__, None, None, None)

    assert history("r").status == "completed"


def test_an_exception_that_cannot_be_looked_at_is_logged_all_the_same() -> None:
    class Evil:
        @property
        def __class__(self) -> Any:
            raise ZeroDivisionError

        @__class__.setter
        def __class__(self, _: Any) -> None: ...

    @step
    def work() -> None:
        error = ValueError("original")
        error.evil = Evil()  # type: ignore[attr-defined]
        raise error

    @workflow
    def flow() -> None:
        work()

    with pytest.raises(ValueError, match="original"):
        go(flow)
    assert statuses() == {"work": "failed"}


def test_a_child_forked_beside_a_busy_thread_does_not_wait_for_it() -> None:
    @step
    def busy() -> None:
        time.sleep(0.3)

    @workflow
    def flow() -> int:
        thread = threading.Thread(target=bind(busy))
        thread.start()
        time.sleep(0.05)
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            raise SystemExit(7)
        thread.join()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def call() -> int:
        try:
            return int(go(flow))
        except SystemExit as exit_:
            os._exit(int(str(exit_.code)))

    assert in_child(call).value == 7


def test_a_busy_payment_at_ctrl_c_is_interrupted_not_cancelled(did: Effects) -> None:
    """Nobody knows whether it was made."""

    @step(on_interrupted="fail")
    def pay() -> None:
        did("pay")
        time.sleep(0.3)

    @workflow
    def flow() -> None:
        thread = threading.Thread(target=bind(pay))
        thread.start()
        time.sleep(0.05)
        if did.count("pay") == 1 and not did.count("ctrl-c"):
            did("ctrl-c")
            signal.signal(signal.SIGINT, signal.default_int_handler)
            threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        else:
            thread.join()

    def call() -> dict[str, str]:
        with pytest.raises(KeyboardInterrupt):
            go(flow)
        return statuses()

    assert in_child(call).value == {"pay": "interrupted"}

    @workflow(name="flow")
    def again() -> None:
        pay()

    with pytest.raises(StepInterruptedError):
        go(again)
    assert did.count("pay") == 1


@pytest.mark.parametrize("place", ["enter_root", "leave", "complete", "_end_event"])
def test_ctrl_c_at_the_edges_of_a_run_leaves_it_free_to_go_on(did: Effects, place: str) -> None:
    """In the same process: the lease is let go of wherever the interruption comes."""

    @step
    def work() -> int:
        return did("work")

    @workflow
    def flow() -> int:
        return work()

    def interrupt(frame: Any, kind: str, _: object) -> Any:
        if (
            kind == "call"
            and frame.f_code.co_name == place
            and "recorder" in frame.f_globals["__name__"]
        ):
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


# ---------------------------------------------------------------- lines that readers take


@pytest.mark.parametrize("call", [skip, annotate])
def test_what_is_no_string_is_not_written_as_one(call: Callable[..., None]) -> None:
    @step
    def work() -> None:
        call(5)

    @workflow
    def flow() -> None:
        work()

    with pytest.raises(TypeError, match="must be a string"):
        go(flow)
    assert statuses() == {"work": "failed"}


def test_nor_a_key() -> None:
    @step(key=lambda number: number)
    def work(number: int) -> None: ...

    @workflow
    def flow() -> None:
        work(5)

    with pytest.raises(TypeError, match="key of step 'work' must be a string"):
        go(flow)
    assert history("r").status == "failed"


@pytest.mark.parametrize("word", ["name", "agent", "action"])
def test_nor_a_name(word: str) -> None:
    with pytest.raises(TypeError, match="must be a string"):
        step(**{word: 5})(lambda: None)  # type: ignore[call-overload]


def test_retry_on_is_checked_at_once() -> None:
    with pytest.raises(TypeError, match="tuple of exception classes"):
        step(retries=1, retry_on=[ValueError])  # type: ignore[call-overload]


async def test_an_annotation_after_the_end_is_no_error(log: Callable[..., list[Any]]) -> None:
    async def left_over() -> None:
        await asyncio.sleep(0.01)
        annotate("late")

    @workflow
    async def flow() -> None:
        tasks.append(asyncio.create_task(left_over()))

    tasks: list[asyncio.Task[None]] = []
    await flow.options(workflow_id="r")()
    await tasks[0]
    assert not log("annotation")


# ---------------------------------------------------------------- values


@dataclass
class Page:
    number: int


def test_a_skip_without_a_result_comes_back_whatever_the_annotation_says(did: Effects) -> None:
    @step
    def work() -> Page:
        skip("not today")

    @workflow
    def flow() -> Page | None:
        found = work()
        if did("flow") == 1:
            raise ValueError("once")
        return found

    with pytest.raises(ValueError, match="once"):
        go(flow)
    assert go(flow) is None
    assert statuses() == {"work": "skipped"}


@pytest.mark.parametrize("annotation", [Any, Iterable[int]])
def test_an_iterator_among_the_inputs_is_refused_and_not_used_up(annotation: Any) -> None:
    def total(numbers: Any) -> int:
        return sum(numbers)

    total.__annotations__ = {"numbers": annotation, "return": int}
    work = step(total)
    numbers = (number for number in range(4))

    @workflow
    def flow() -> int:
        with pytest.raises(StepInputError, match="iterator"):
            work(numbers)
        return work.options(key="k")(numbers)

    assert go(flow) == 6


def test_capturing_inputs_changes_nothing_for_a_call_with_a_key() -> None:
    configure(capture_inputs=True)

    @step(key="k")
    def work(lock: Any) -> str:
        return "done"

    @workflow
    def flow() -> str:
        return work(threading.Lock())

    assert go(flow) == "done"


# ---------------------------------------------------------------- memory and time


def test_functions_that_were_called_as_steps_are_not_kept() -> None:
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


def test_outer_steps_that_failed_are_not_kept() -> None:
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


def test_many_failures_in_tasks_are_read_in_time() -> None:
    """It took a minute when every start looked at every failure before it."""

    @step
    async def work(number: int) -> None:
        await asyncio.sleep(0)
        raise ValueError(number)

    @workflow
    async def flow() -> None:
        window = asyncio.Semaphore(10)

        async def one(number: int) -> None:
            async with window:
                await work(number)

        await asyncio.gather(*map(one, range(6000)), return_exceptions=True)

    go(flow)
    began = time.perf_counter()
    history("r")
    assert time.perf_counter() - began < 1.5
