"""Runs where something else than the library has its own ideas: exceptions, loops, signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crashes import Effects, die_at, go, in_child, killed
from tapps_otel import Backoff, bind, history, step, workflow
from tapps_otel.errors import DivergenceError, StepFailedError

QUICK = Backoff(0.001, 1, 0.001)

Labels = Callable[..., list[str]]


# ---------------------------------------------------------------- exceptions of others


class Slotted(Exception):  # noqa: N818 - it is what it is
    """Keeps its attributes where ``__dict__`` does not show them."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(f"slotted {code}")
        self.code = code


def _lookup() -> None:
    raise KeyError("k")


def _open() -> None:
    Path("/nothing/here").read_text()


def _decode() -> None:
    b"\xff".decode()


def _parse() -> None:
    json.loads("{")


def _call() -> None:
    raise subprocess.CalledProcessError(3, ["make", "all"])


def _import() -> None:
    raise ImportError("not here", name="nothing", path="/x")


def _slotted() -> None:
    raise Slotted(7)


def _nothing() -> None:
    raise ValueError


def _raised_by(body: Callable[[], None]) -> Exception:
    try:
        body()
    except Exception as error:  # noqa: BLE001 - any
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (_lookup, []),
        (_open, ["errno", "strerror", "filename"]),
        (_decode, ["start", "reason"]),
        (_parse, ["lineno", "pos", "doc"]),
        (_call, ["returncode", "cmd"]),
        (_import, ["name", "path"]),
        (_slotted, ["code"]),
        (_nothing, []),
    ],
)
def test_a_handled_exception_says_the_same_after_resume(
    did: Effects, body: Callable[[], None], names: list[str]
) -> None:
    """Same class, text and attributes; or, where that cannot be, a StepFailedError that names
    both: never an exception of the class that has lost what it said.
    """
    raising = step(name="raising")(body)
    seen: list[Exception] = []

    def told(error: Exception) -> list[Any]:
        return [type(error).__name__, str(error), *(getattr(error, name) for name in names)]

    @step
    def note() -> None:
        did("note")
        die_at("note")

    @workflow
    def flow() -> None:
        try:
            raising()
        except Exception as error:  # noqa: BLE001 - any
            seen.append(error)
        note()

    original = _raised_by(body)
    killed(lambda: go(flow), at="note")
    go(flow)

    (error,) = seen
    if isinstance(error, StepFailedError):
        assert error.type.endswith(type(original).__name__)
        assert str(original) in str(error)
    else:
        assert told(error) == told(original)
        assert [repr(one) for one in error.args] == [repr(one) for one in original.args]


def test_a_handled_group_says_what_it_was(did: Effects) -> None:
    """An exception group has no JSON: a StepFailedError stands for it."""

    @step
    def raising() -> None:
        did("raising")
        raise ExceptionGroup("two", [ValueError("a"), KeyError("b")])

    @step
    def note() -> None:
        die_at("note")

    seen: list[Exception] = []

    @workflow
    def flow() -> None:
        try:
            raising()
        except Exception as error:  # noqa: BLE001 - any
            seen.append(error)
        note()

    killed(lambda: go(flow), at="note")
    go(flow)

    assert did.all == ["raising"]
    (error,) = seen
    assert isinstance(error, StepFailedError | ExceptionGroup)
    assert "two" in str(error)


def test_an_exception_whose_text_cannot_be_made_is_logged_all_the_same(did: Effects) -> None:
    class Evil(Exception):  # noqa: N818 - it is
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @step
    def work() -> str:
        if did("work") == 1:
            raise Evil
        return "done"

    @workflow
    def flow() -> str:
        return work()

    with pytest.raises(Evil):
        go(flow)
    assert history("r").status == "failed"
    assert go(flow) == "done"


def test_a_gathered_failure_that_is_a_value_was_handled(did: Effects) -> None:
    """return_exceptions=True, then an ordered call: the failure stays."""

    @step
    async def bad() -> None:
        did("bad")
        raise ValueError("bad")

    @step
    async def good() -> str:
        did("good")
        return "good"

    @step
    async def note() -> None:
        die_at("note")

    @workflow
    async def flow() -> list[str]:
        got = await asyncio.gather(bad(), good(), return_exceptions=True)
        await note()
        return [str(one) for one in got]

    killed(lambda: go(flow), at="note")

    assert go(flow) == ["bad", "good"]
    assert sorted(did.all) == ["bad", "good"]


def test_a_wrapped_failure_has_passed_through(did: Effects) -> None:
    """An outer step that raises its own exception *from* an inner step's keeps what is done."""

    @step
    def done() -> None:
        did("done")

    @step
    def flaky() -> None:
        if did("flaky") == 1:
            raise ValueError("inside")

    @step(retries=1, backoff=QUICK)
    def outer() -> None:
        done()
        try:
            flaky()
        except ValueError as error:
            raise RuntimeError("wrapped") from error

    @workflow
    def flow() -> None:
        outer()

    go(flow)
    assert did.all == ["done", "flaky", "flaky"]


# ---------------------------------------------------------------- keys


def test_equal_keys_take_their_records_one_by_one(did: Effects) -> None:
    @step
    def draw() -> int:
        return did("draw")

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> list[int]:
        got = [draw.options(key="k")(), draw.options(key="k")(), draw()]
        last()
        return got

    killed(lambda: go(flow), at="last")

    assert go(flow) == [1, 2, 3]


# ---------------------------------------------------------------- loops


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

    @step
    async def slow() -> str:
        await asyncio.sleep(0.05)
        did("slow")
        return "slow"

    @step
    async def bad() -> None:
        await asyncio.sleep(0.01)
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
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)
            did("stubborn")
        return "done all the same"

    @step
    async def bad() -> None:
        await asyncio.sleep(0.01)
        if did("bad") == 1:
            raise ValueError("bad")

    @workflow
    async def flow() -> str:
        got = await asyncio.gather(stubborn(), bad())
        return got[0]

    with pytest.raises(ValueError, match="bad"):
        go(flow)
    assert labels()[-2:] == ["step_finish stubborn", "workflow_end"]

    assert go(flow) == "done all the same"
    assert did.count("stubborn") == 1


def test_code_that_swallows_its_cancellation_begins_nothing_more(
    did: Effects, labels: Labels
) -> None:
    """A sibling that goes on after it was cancelled: nothing unrecorded runs."""

    @step
    async def work(number: int) -> None:
        did(f"work {number}")
        if number == 1:
            await asyncio.sleep(30)

    @step
    async def bad() -> None:
        await asyncio.sleep(0.01)
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
        time.sleep(0.02)
        did(f"work {number}")
        return number

    @step(retries=1, backoff=QUICK)
    def outer() -> None:
        threads = [threading.Thread(target=bind(work), args=(one,)) for one in (1, 2)]
        for thread in threads:
            thread.start()
        if did("outer") == 1:
            while "step_start outer/work#2" not in labels():
                time.sleep(0.001)
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
def test_ctrl_c_leaves_a_run_that_goes_on(did: Effects, labels: Labels, *, is_async: bool) -> None:
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
