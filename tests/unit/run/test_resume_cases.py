"""The cases of the rules of resume: each docstring is the case and its outcome."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crashes import Effects, die_at, go, killed
from tapps_otel import (
    Backoff,
    answer,
    cancel,
    configure,
    fork,
    history,
    pause,
    step,
    workflow,
)
from tapps_otel.errors import (
    BlobDamagedError,
    DivergenceError,
    RunPausedError,
    StepFailedError,
    StepInterruptedError,
    StepResultError,
    StepTimeoutError,
)
from tapps_otel.run.resolving import resolve
from waiting import until, until_async

QUICK = Backoff(0.001, 1, 0.001)

Text = Callable[..., str]
Labels = Callable[..., list[str]]


class Tick:
    """A clock, to the library: another value at every call and in every process."""

    def __init__(self, did: Effects) -> None:
        self._did = did

    def __call__(self) -> int:
        return self._did("tick")


@pytest.fixture
def now(tmp_path: Any) -> Tick:
    return Tick(Effects(tmp_path / "ticks"))


# ---------------------------------------------------------------- failures, and other branches


def test_a_call_that_has_got_a_key_is_new(did: Effects) -> None:
    """work("a"), killed; resumed as work.options(key="k")("a"): it runs; no DivergenceError."""

    @step
    def work(what: str) -> None:
        did(what)

    @step
    def after() -> None:
        die_at("after")

    @workflow
    def flow() -> None:
        (work.options(key="k") if did.count("a") else work)("a")
        after()

    killed(lambda: go(flow), at="after")
    go(flow)

    assert did.all == ["a", "a"]


def test_a_branch_that_followed_an_unhandled_failure_is_no_longer_due(
    did: Effects, reported: Text
) -> None:
    """try: work() except: note("failed"); raise, later note("ok"); fail, resume, killed after
    work, resume: it continues; work once more only; no DivergenceError.
    """

    @step
    def work() -> str:
        if did("work") == 1:
            raise ValueError("first")
        return "done"

    @step
    def note(what: str) -> None:
        did(what)

    @workflow
    def flow() -> str:
        try:
            done = work()
        except ValueError:
            note("failed")
            raise
        note("ok")
        return done

    with pytest.raises(ValueError, match="first"):
        go(flow)
    killed(lambda: go(flow), after="step_finish work")

    assert go(flow) == "done"
    assert did.all == ["work", "failed", "work", "ok"]
    assert reported() == ""


def test_the_other_branch_of_a_cancelled_step_is_no_longer_due(
    did: Effects, reported: Text
) -> None:
    """Step cancelled by asyncio.timeout, fallback branch done, killed; on resume the step
    succeeds: it continues in the other branch, also in later executions.
    """

    @step
    async def slow() -> str:
        if did("slow") == 1:
            await asyncio.sleep(30)
        return "slow"

    @step
    async def note(what: str) -> str:
        did(what)
        die_at(what)
        return what

    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(0.02):
                await slow()
        except TimeoutError:
            await note("fallback")
            return await note("after fallback")
        await note("ok")
        return await note("last")

    killed(lambda: go(flow), at="after fallback")
    killed(lambda: go(flow), at="last")

    assert go(flow) == "last"
    assert did.all == ["slow", "fallback", "after fallback", "slow", "ok", "last", "last"]
    assert reported() == ""


def test_the_branch_of_a_cancelled_step_is_still_found_by_content(did: Effects) -> None:
    """No longer due means no guard and no warning; content may still claim."""

    @step
    async def slow() -> None:
        did("slow")
        await asyncio.sleep(30)

    @step
    async def note(what: str) -> None:
        did(what)
        die_at(what)

    @workflow
    async def flow() -> None:
        try:
            async with asyncio.timeout(0.02):
                await slow()
        except TimeoutError:
            await note("fallback")
        await note("last")

    killed(lambda: go(flow), at="last")
    go(flow)

    assert did.all == ["slow", "fallback", "last", "slow", "last"]


# ---------------------------------------------------------------- the guard


def test_an_open_background_step_does_not_switch_the_guard_off(did: Effects, now: Tick) -> None:
    """Background step open, then save(now()): DivergenceError."""
    switch = SimpleNamespace(dead=True)

    @step
    async def background() -> None:
        did("background")
        if switch.dead:
            await asyncio.sleep(30)

    @step
    async def save(at: int) -> None:
        did("save")

    @step
    async def last() -> None:
        die_at("last")

    @workflow
    async def flow() -> None:
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        await save(now())
        await last()
        await task

    killed(lambda: go(flow), at="last")
    switch.dead = False

    with pytest.raises(DivergenceError):
        go(flow)
    assert did.count("save") == 1


def test_a_step_that_is_not_stored_does_not_switch_the_guard_off(did: Effects, now: Tick) -> None:
    """A persist=False step re-run, then save(now()): DivergenceError."""

    @step(persist=False)
    def token() -> str:
        did("token")
        return "secret"

    @step
    def save(at: int) -> None:
        did("save")

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> None:
        token()
        save(now())
        last()

    killed(lambda: go(flow), at="last")

    with pytest.raises(DivergenceError):
        go(flow)
    assert did.all == ["token", "save", "token"]


def test_a_clock_in_the_inputs_is_refused(did: Effects, now: Tick) -> None:
    """save(now()) ordered, completed, killed after it: DivergenceError, nothing ran."""

    @step
    def save(at: int) -> None:
        did("save")

    @step
    def last() -> None:
        did("last")
        die_at("last")

    @workflow
    def flow() -> None:
        save(now())
        last()

    killed(lambda: go(flow), after="step_finish save")

    with pytest.raises(DivergenceError) as caught:
        go(flow)

    assert did.all == ["save"]
    assert caught.value.step_id == "save"
    text = str(caught.value)
    assert 'on_divergence="rerun"' in text
    assert "save" in text
    assert "key" in text


def test_the_guard_can_be_turned_to_running_it_again(
    did: Effects, now: Tick, reported: Text
) -> None:
    """on_divergence="rerun": it runs as a new step, and unused records are reported."""

    @step
    def save(at: int) -> int:
        did("save")
        return at

    def flow() -> int:
        return save(now())

    first = workflow(name="flow")(flow)
    second = workflow(name="flow", on_divergence="rerun")(flow)
    killed(lambda: go(first), after="step_finish save")

    assert go(second) == 2
    assert [one.step_id for one in history("r").steps] == ["save", "save#2"]
    assert did.count("save") == 2
    assert "save" in reported()


def test_a_refused_run_is_resumed_with_the_earlier_inputs(did: Effects) -> None:
    """A DivergenceError leaves a run that can be resumed: nothing is stuck for ever."""
    switch = SimpleNamespace(at=1)

    @step
    def save(at: int) -> int:
        did(f"save {at}")
        return at

    @workflow
    def flow() -> int:
        return save(switch.at)

    killed(lambda: go(flow), after="step_finish save")
    switch.at = 2
    with pytest.raises(DivergenceError):
        go(flow)
    with pytest.raises(DivergenceError):
        go(flow)
    switch.at = 1

    assert go(flow) == 1
    assert did.all == ["save 1"]


def test_a_clock_inside_a_step_is_refused_and_not_retried(did: Effects, now: Tick) -> None:
    """save(now()) inside a step with retries: DivergenceError, nothing ran."""

    @step
    def save(at: int) -> None:
        did("save")

    @step(retries=3, backoff=QUICK)
    def outer() -> None:
        did("outer")
        save(now())
        die_at("saved")

    @workflow
    def flow() -> None:
        outer()

    killed(lambda: go(flow), at="saved")

    with pytest.raises(DivergenceError) as caught:
        go(flow)
    assert did.all == ["outer", "save", "outer"]
    assert caught.value.step_id == "outer/save"


@pytest.mark.parametrize("returns", [False, True])
def test_no_except_exception_swallows_a_refusal(did: Effects, now: Tick, *, returns: bool) -> None:
    """And inside try/except Exception: raised by every later call and at the workflow's end."""

    @step
    def save(at: int) -> None:
        did("save")

    @step
    def last() -> None:
        did("last")

    @workflow
    def flow() -> str:
        try:
            save(now())
        except Exception:  # noqa: BLE001 - what a user writes
            did("swallowed")
        if not returns:
            last()
        return "fine"

    killed(lambda: go(flow), after="step_finish save")

    with pytest.raises(DivergenceError):
        go(flow)
    assert did.all == ["save", "swallowed"]
    assert history("r").status == "failed"


def test_a_scope_with_finished_steps_inside_has_something_to_lose(did: Effects, now: Tick) -> None:
    """outer(now()) interrupted with finished steps inside: DivergenceError."""

    @step
    def inner() -> None:
        did("inner")

    @step
    def outer(at: int) -> None:
        did("outer")
        inner()
        die_at("outer")

    @workflow
    def flow() -> None:
        outer(now())

    killed(lambda: go(flow), at="outer")

    with pytest.raises(DivergenceError):
        go(flow)
    assert did.all == ["outer", "inner"]


def test_an_interrupted_scope_with_nothing_finished_has_nothing_to_lose(
    did: Effects, now: Tick
) -> None:
    """The counter-case: outer(now()) interrupted before anything in it was done just runs."""

    @step
    def outer(at: int) -> int:
        did("outer")
        die_at("outer")
        return at

    @workflow
    def flow() -> int:
        return outer(now())

    killed(lambda: go(flow), at="outer")

    assert go(flow) == 2
    assert did.count("outer") == 2


def test_a_payment_is_never_made_twice(did: Effects, now: Tick) -> None:
    """pay(now()) interrupted with on_interrupted="fail": StepInterruptedError or DivergenceError:
    never paid twice.
    """

    @step(on_interrupted="fail")
    def pay(at: int) -> None:
        did("pay")
        die_at("pay")

    @workflow
    def flow() -> None:
        pay(now())

    killed(lambda: go(flow), at="pay")

    for _ in range(2):
        with pytest.raises((StepInterruptedError, DivergenceError)):
            go(flow)
    assert did.count("pay") == 1


def test_an_unresolved_payment_inside_a_retried_step_stays_unpaid(did: Effects) -> None:
    """outer encloses pay (on_interrupted="fail"), killed in pay; resumed twice; outer with
    retries: pay never runs again unresolved.
    """

    @step(on_interrupted="fail")
    def pay() -> None:
        did("pay")
        die_at("pay")

    @step(retries=2, backoff=QUICK)
    def outer() -> None:
        did("outer")
        pay()

    @workflow
    def flow() -> None:
        outer()

    killed(lambda: go(flow), at="pay")

    for _ in range(2):
        with pytest.raises(StepInterruptedError) as caught:
            go(flow)
        assert caught.value.step_id == "outer/pay"
    assert did.all == ["outer", "pay", "outer", "outer"]


# ---------------------------------------------------------------- retries and progress


@pytest.mark.parametrize("passed_through", [False, True])
def test_a_retry_with_a_fresh_id_has_no_guard(
    did: Effects, now: Tick, reported: Text, *, passed_through: bool
) -> None:
    """Retry of an outer step with a fresh random id each try, never crashed: no guard,
    completes.
    """

    @step
    def inner(run_id: int) -> int:
        did("inner")
        return run_id

    @step
    def flaky() -> None:
        if did("flaky") < 3:
            raise ValueError("again")

    @step(retries=3, backoff=QUICK)
    def outer() -> int:
        given = inner(now())
        if passed_through:
            flaky()
        elif did("outer") < 3:
            raise ValueError("again")
        return given

    @workflow
    def flow() -> int:
        return outer()

    assert go(flow) == 3
    assert did.count("inner") == 3
    assert reported() == ""


def test_a_step_killed_in_each_of_its_parts_completes(did: Effects) -> None:
    """An outer step with 8 parts, killed once in each part: completes (progress counts anew)."""

    @step
    def part(number: int) -> int:
        if did(f"part {number}") == 1:
            die_at("part")
        return number

    @step
    def outer() -> int:
        return sum(part(number) for number in range(8))

    @workflow
    def flow() -> int:
        return outer()

    for _ in range(8):
        killed(lambda: go(flow), at="part")

    assert go(flow) == 28
    assert did.all == [f"part {number}" for number in range(8) for _ in range(2)]


def test_a_retry_after_a_timeout_reuses_finished_steps(did: Effects) -> None:
    """An outer step with timeout=, retried after its time-out: its finished inner step is not
    run again.
    """

    @step
    async def inner() -> str:
        did("inner")
        return "inner"

    @step(timeout=0.05, retries=1, backoff=QUICK)
    async def outer() -> str:
        got = await inner()
        if did("outer") == 1:
            await asyncio.sleep(30)
        return got

    @workflow
    async def flow() -> str:
        return await outer()

    assert go(flow) == "inner"
    assert did.all == ["inner", "outer", "outer"]
    assert [one.status for one in history("r").steps[0].attempts] == ["timeout", "completed"]


def test_a_step_cancelled_by_a_sibling_reuses_finished_steps(did: Effects) -> None:
    """An outer step cancelled by a failing sibling: its finished inner step is not run again."""

    @step
    async def inner() -> str:
        did("inner")
        return "inner"

    @step
    async def outer() -> str:
        got = await inner()
        if did("outer") == 1:
            await asyncio.sleep(30)
        return got

    @step
    async def bad() -> str:
        await until_async(lambda: did.count("outer"))
        if did("bad") == 1:
            raise ValueError("bad")
        return "bad"

    @workflow
    async def flow() -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outer()), group.create_task(bad())]
        return [task.result() for task in tasks]

    with pytest.raises(ExceptionGroup):
        go(flow)
    assert {one.step_id: one.status for one in history("r").steps} == {
        "outer": "cancelled",
        "outer/inner": "completed",
        "bad": "failed",
    }

    assert go(flow) == ["inner", "bad"]
    assert did.count("inner") == 1
    assert did.count("outer") == 2
    assert did.count("bad") == 2


# ---------------------------------------------------------------- failures that were handled


def test_a_handled_failure_is_raised_again_without_running(did: Effects, labels: Labels) -> None:
    """charge fails, refund done, mail fails the run; resume: charge not run again, refund
    neither; mail runs.
    """

    @step
    def charge() -> None:
        did("charge")
        raise ValueError("no money")

    @step
    def refund(why: str) -> None:
        did(f"refund {why}")

    @step
    def mail() -> str:
        if did("mail") == 1:
            raise ConnectionError("no mail")
        return "sent"

    @workflow
    def flow() -> str:
        try:
            charge()
        except ValueError as error:
            refund(str(error))
        return mail()

    with pytest.raises(ConnectionError, match="no mail"):
        go(flow)
    before = len(labels())

    assert go(flow) == "sent"
    assert did.all == ["charge", "refund no money", "mail", "mail"]
    assert labels()[before:] == [
        "workflow_resume",
        "step_start mail",
        "step_finish mail",
        "workflow_end",
    ]


def test_any_later_call_shows_that_a_failure_was_handled(did: Effects) -> None:
    """send fails, handled, then only a gather; killed: send not run again."""

    @step
    async def send() -> None:
        did("send")
        raise ValueError("no")

    @step
    async def one() -> None:
        did("one")
        die_at("one")

    @step
    async def other() -> None:
        did("other")

    @workflow
    async def flow() -> str:
        try:
            await send()
        except ValueError:
            did("handled")
        await asyncio.gather(one(), other())
        return "fine"

    killed(lambda: go(flow), at="one")

    assert go(flow) == "fine"
    assert did.count("send") == 1
    assert did.count("handled") == 2


def test_a_failure_that_nothing_followed_runs_again(did: Effects) -> None:
    """The counter-case: killed right after the failure, it is not known whether it was handled."""

    @step
    def send() -> None:
        if did("send") == 1:
            raise ValueError("no")

    @step
    def last() -> None:
        did("last")

    @workflow
    def flow() -> None:
        try:
            send()
        except ValueError:
            did("handled")
        last()

    killed(lambda: go(flow), before="step_start last")
    go(flow)

    assert did.all == ["send", "handled", "send", "last"]


def test_a_failed_background_task_runs_again(did: Effects) -> None:
    """A background task fails while ordered calls continue; the workflow fails by it: it runs
    again.
    """

    @step
    async def background() -> str:
        if did("background") == 1:
            raise ValueError("background")
        return "background"

    @step
    async def ordered(number: int) -> None:
        did(f"ordered {number}")

    @workflow
    async def flow() -> str:
        task = asyncio.create_task(background())
        await until_async(lambda: did.count("background"))
        await ordered(1)
        await ordered(2)
        return await task

    with pytest.raises(ValueError, match="background"):
        go(flow)

    assert go(flow) == "background"
    assert did.all == ["background", "ordered 1", "ordered 2", "background"]


def test_a_run_ends_after_everything_inside_has(did: Effects, labels: Labels) -> None:
    """gather with one failing child; siblings and threads still at work: siblings end before
    workflow_end; nothing unrecorded runs; nothing finished twice.
    """

    began = threading.Event()

    @step
    async def bad() -> None:
        await until_async(lambda: did.count("sibling") and began.is_set())
        if did("bad") == 1:
            raise ValueError("bad")

    @step
    async def sibling() -> None:
        if did("sibling") == 1:
            await asyncio.sleep(30)

    @step
    def threaded() -> None:
        began.set()
        until(lambda: did.count("bad"))
        time.sleep(0.01)  # the end waits for it
        did("threaded")

    @workflow
    async def flow() -> None:
        await asyncio.gather(bad(), sibling(), asyncio.to_thread(threaded))

    with pytest.raises(ValueError, match="bad"):
        go(flow)

    assert labels()[-1] == "workflow_end"
    assert sorted(labels()) == [
        "step_fail bad",
        "step_fail sibling",
        "step_finish threaded",
        "step_start bad",
        "step_start sibling",
        "step_start threaded",
        "workflow_end",
        "workflow_start",
    ]
    assert {one.step_id: one.status for one in history("r").steps} == {
        "bad": "failed",
        "sibling": "cancelled",
        "threaded": "completed",
    }

    go(flow)
    assert {what: did.count(what) for what in did.all} == {"bad": 2, "sibling": 2, "threaded": 1}


def test_an_attempt_ends_after_everything_inside_has(did: Effects, labels: Labels) -> None:
    """A retried step with a failed gather: the attempt ends after its siblings and threads."""

    began = threading.Event()

    @step
    async def bad() -> None:
        await until_async(lambda: did.count("sibling") and began.is_set())
        if did("bad") == 1:
            raise ValueError("bad")

    @step
    async def sibling() -> None:
        if did("sibling") == 1:
            await asyncio.sleep(30)

    @step
    def threaded() -> None:
        began.set()
        until(lambda: did.count("bad"))
        time.sleep(0.01)  # the end waits for it
        did("threaded")

    @step(retries=1, backoff=QUICK)
    async def outer() -> None:
        await asyncio.gather(bad(), sibling(), asyncio.to_thread(threaded))

    @workflow
    async def flow() -> None:
        await outer()

    go(flow)

    assert {what: did.count(what) for what in did.all} == {"bad": 2, "sibling": 2, "threaded": 1}
    first = labels().index("step_fail outer")
    assert set(labels()[2:first]) == {
        "step_start outer/bad",
        "step_start outer/sibling",
        "step_start outer/threaded",
        "step_fail outer/bad",
        "step_fail outer/sibling",
        "step_finish outer/threaded",
    }


class ApiError(Exception):
    """As many libraries write them: an ``__init__`` that cannot be called with ``args``."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"api said {code}")
        self.code = code
        self.hint = hint


def test_a_handled_exception_is_itself_after_resume(did: Effects) -> None:
    """Exception class with its own __init__ and attributes, handled by e.code: same branch
    after resume.
    """

    @step
    def call_api() -> None:
        did("call")
        raise ApiError(404, hint="look elsewhere")

    @step
    def branch(code: int, hint: str) -> str:
        did("branch")
        return f"{code} {hint}"

    @step
    def last() -> None:
        die_at("last")

    seen: list[ApiError] = []

    @workflow
    def flow() -> str:
        got = "nothing"
        try:
            call_api()
        except ApiError as error:
            seen.append(error)
            got = branch(error.code, error.hint)
        last()
        return got

    killed(lambda: go(flow), at="last")

    assert go(flow) == "404 look elsewhere"
    assert did.all == ["call", "branch"]
    assert type(seen[0]) is ApiError
    assert seen[0].args == ("api said 404",)
    assert str(seen[0]) == "api said 404"


def test_a_handled_exception_of_a_lost_class_is_a_step_failed_error(did: Effects) -> None:
    """Raised again as its class if that is loaded, else StepFailedError."""
    switch = SimpleNamespace(first=True)

    @step
    def call_api() -> None:
        did("call")
        raise type("GoneError", (Exception,), {})("what it said")

    @step
    def branch() -> None:
        did("branch")
        die_at("branch")

    seen: list[Exception] = []

    @workflow
    def flow() -> None:
        try:
            call_api()
        except Exception as error:  # noqa: BLE001 - any class
            seen.append(error)
        branch()

    killed(lambda: go(flow), at="branch")
    switch.first = False
    go(flow)

    (error,) = seen
    assert isinstance(error, StepFailedError)
    assert error.type.endswith("GoneError")
    assert "what it said" in str(error)
    assert did.all == ["call", "branch", "branch"]


def test_a_handled_failure_stays_although_its_step_was_repaired(
    did: Effects, reported: Text, caplog: pytest.LogCaptureFixture
) -> None:
    """Handled failure, code of that step then repaired: raised again, with the warning."""
    switch = SimpleNamespace(repaired=False)

    @step(name="charge")
    def broken() -> None:
        did("charge")
        raise ValueError("no money")

    @step(name="charge")
    def repaired() -> None:
        did("charge")

    @step
    def refund() -> None:
        did("refund")

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> str:
        charge = repaired if switch.repaired else broken
        try:
            charge()
        except ValueError:
            refund()
        last()
        return "fine"

    killed(lambda: go(flow), at="last")
    switch.repaired = True
    with caplog.at_level(logging.WARNING, "tapps_otel"):
        assert go(flow) == "fine"

    assert did.all == ["charge", "refund"]
    assert "charge" in reported()
    assert "charge" in caplog.text


# ---------------------------------------------------------------- keys


def test_an_item_inserted_before_others_runs_alone(did: Effects, reported: Text) -> None:
    """Keys: an item inserted before others: only the new item runs."""
    items = ["b", "c"]

    @step
    def process(item: str) -> str:
        did(item)
        return item.upper()

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> list[str]:
        done = [process.options(key=item)(item) for item in items]
        last()
        return done

    killed(lambda: go(flow), at="last")
    items.insert(0, "a")

    assert go(flow) == ["A", "B", "C"]
    assert did.all == ["b", "c", "a"]
    assert reported() == ""


def test_the_same_inputs_under_another_key_run(did: Effects) -> None:
    """Keys: same inputs under another key: the other key runs."""
    keys = ["a"]

    @step
    def process(item: int) -> int:
        return did("process")

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> list[int]:
        done = [process.options(key=key)(7) for key in keys]
        last()
        return done

    killed(lambda: go(flow), at="last")
    keys.append("b")
    assert go(flow) == [1, 2]


def test_a_key_matches_with_any_inputs(did: Effects, now: Tick) -> None:
    """A call with a key is matched by name and key alone, outside the guard."""

    @step
    def process(at: int) -> int:
        did("process")
        return at

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> int:
        got = process.options(key="today")(now())
        last()
        return got

    killed(lambda: go(flow), at="last")

    assert go(flow) == 1
    assert did.all == ["process"]


def test_another_key_is_outside_the_guard(did: Effects) -> None:
    """The key changed where the code came the same way: it runs, nothing is refused."""
    switch = SimpleNamespace(key="a")

    @step
    def process(item: int) -> str:
        did(switch.key)
        return str(switch.key)

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> str:
        got = process.options(key=switch.key)(1)
        last()
        return got

    killed(lambda: go(flow), at="last")
    switch.key = "b"

    assert go(flow) == "b"


# ---------------------------------------------------------------- edited code

Call = tuple[str, int]
ALPHA, BETA, GAMMA, DELTA = ("alpha", 1), ("beta", 1), ("gamma", 1), ("delta", 1)


class Edited:
    """A workflow whose code is the list ``plan``."""

    def __init__(self, did: Effects, plan: list[Call]) -> None:
        self.plan = plan

        def named(name: str) -> Any:
            @step(name=name)
            def body(value: int) -> str:
                did(f"{name} {value}")
                return f"{name} {value}"

            return body

        self._steps = {name: named(name) for name in ("alpha", "beta", "gamma", "delta")}

        @step
        def last() -> None:
            die_at("last")

        def flow() -> list[str]:
            done = [self._steps[name](value) for name, value in self.plan]
            last()
            return done

        self.flow = workflow(name="flow")(flow)
        self.lenient = workflow(name="flow", on_divergence="rerun")(flow)


@pytest.mark.parametrize(
    ("before", "after", "ran", "gone"),
    [
        pytest.param([ALPHA, BETA], [ALPHA, GAMMA, BETA], [GAMMA], [], id="insert"),
        pytest.param([ALPHA, BETA], [GAMMA, ALPHA, BETA], [GAMMA], [], id="insert first"),
        pytest.param([ALPHA, BETA], [ALPHA, BETA, GAMMA], [GAMMA], [], id="append"),
        pytest.param([ALPHA, BETA], [BETA], [], ["alpha"], id="remove"),
        pytest.param([ALPHA, BETA], [ALPHA, DELTA], [DELTA], ["beta"], id="rename"),
        pytest.param([ALPHA, BETA, GAMMA], [GAMMA, ALPHA, BETA], [], [], id="reorder"),
        pytest.param([ALPHA, BETA], [ALPHA, ALPHA, BETA], [ALPHA], [], id="insert an equal call"),
        pytest.param([ALPHA, ALPHA], [ALPHA], [], ["alpha#2"], id="remove an equal call"),
        pytest.param(
            [("alpha", 1), ("alpha", 2)],
            [("alpha", 1), ("alpha", 2), ("alpha", 3)],
            [("alpha", 3)],
            [],
            id="append a call of the same name",
        ),
        pytest.param(
            [("alpha", 1), ("alpha", 2)],
            [("alpha", 2), ("alpha", 1)],
            [],
            [],
            id="reorder calls of one name",
        ),
    ],
)
def test_only_new_steps_of_edited_code_run(
    did: Effects,
    reported: Text,
    *,
    before: list[Call],
    after: list[Call],
    ran: list[Call],
    gone: list[str],
) -> None:
    """Code edits: insert, append, remove, rename, reorder steps; insert an equal call: only what
    is new runs; what is gone is warned of.
    """
    code = Edited(did, before)
    killed(lambda: go(code.flow), at="last")
    did.forget()
    code.plan = after

    assert go(code.flow) == [f"{name} {value}" for name, value in after]
    assert did.all == [f"{name} {value}" for name, value in ran]
    assert bool(reported()) == bool(gone)
    for step_id in gone:
        assert step_id in reported()


def test_a_call_inserted_before_others_of_its_name_is_refused(did: Effects) -> None:
    """Insert a call before others of the same name: DivergenceError that names rerun; with it,
    only the new call runs.
    """
    code = Edited(did, [("alpha", 1), ("alpha", 2)])
    killed(lambda: go(code.flow), at="last")
    did.forget()
    code.plan.insert(0, ("alpha", 0))

    with pytest.raises(DivergenceError, match='on_divergence="rerun"'):
        go(code.flow)
    assert did.all == []

    assert go(code.lenient) == ["alpha 0", "alpha 1", "alpha 2"]
    assert did.all == ["alpha 0"]


# ---------------------------------------------------------------- tasks


def test_a_clock_in_gathered_calls_is_reported_at_the_end(
    did: Effects, now: Tick, reported: Text, caplog: pytest.LogCaptureFixture
) -> None:
    """Clock in gathered calls: all run again, reported at the end."""

    @step
    async def fetch(at: int) -> None:
        did("fetch")

    @step
    async def last() -> None:
        die_at("last")

    @workflow
    async def flow() -> None:
        await asyncio.gather(*(fetch(now()) for _ in range(3)))
        await last()

    killed(lambda: go(flow), at="last")
    with caplog.at_level(logging.WARNING, "tapps_otel"):
        go(flow)

    assert did.count("fetch") == 6
    for step_id in ("fetch", "fetch#2", "fetch#3"):
        assert f'"{step_id}"' in reported() or step_id in reported()
    warnings = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert len([one for one in warnings if "fetch" in one.getMessage()]) == 1


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.permutations(["plain", "task", "wait"], 2))
)
def test_a_call_is_found_from_any_task(
    did: Effects, reported: Text, first: str, second: str
) -> None:
    """asyncio.wait_for around a step, resumed on another Python version (3.11 makes a task of
    it, 3.12 does not): found by content.
    """
    switch = SimpleNamespace(how=first)

    @step
    async def fetch(value: int) -> int:
        did("fetch")
        return value

    @step
    async def last() -> None:
        die_at("last")

    async def call(value: int) -> int:
        if switch.how == "task":
            return await asyncio.create_task(fetch(value))
        if switch.how == "wait":
            return await asyncio.wait_for(fetch(value), 5)
        return await fetch(value)

    @workflow
    async def flow() -> list[int]:
        done = [await call(1), await call(2), await call(1)]
        await last()
        return done

    killed(lambda: go(flow), at="last")
    switch.how = second

    assert go(flow) == [1, 2, 1]
    assert did.count("fetch") == 3
    assert reported() == ""


def test_threads_of_a_failed_run_are_waited_for(did: Effects, labels: Labels) -> None:
    """A bound thread in the middle of a step when the workflow fails: its end is logged first."""
    from tapps_otel import bind

    began = threading.Event()

    @step
    def threaded() -> None:
        began.set()
        until(lambda: did.count("flow"))
        time.sleep(0.01)  # the end waits for it
        did("threaded")

    @workflow
    def flow() -> None:
        thread = threading.Thread(target=bind(threaded))
        thread.start()
        assert began.wait(30)
        if did("flow") == 1:
            raise ValueError("flow")
        thread.join()

    with pytest.raises(ValueError, match="flow"):
        go(flow)
    assert labels()[-2:] == ["step_finish threaded", "workflow_end"]


def test_a_thread_that_was_waited_for_is_not_run_again(did: Effects) -> None:
    """And what it finished is found on resume."""
    from tapps_otel import bind

    @step
    def threaded() -> int:
        did("threaded")
        return 7

    @workflow
    def flow() -> int:
        got: list[int] = []

        def run() -> None:
            got.append(threaded())

        thread = threading.Thread(target=bind(run))
        thread.start()
        until(lambda: did.count("threaded"))
        if did("flow") == 1:
            raise ValueError("flow")
        thread.join()
        return got[0]

    with pytest.raises(ValueError, match="flow"):
        go(flow)

    assert go(flow) == 7
    assert did.count("threaded") == 1


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


# ---------------------------------------------------------------- however a run was stopped

done = Effects(Path("effects"))  # in the folder of each test
given = SimpleNamespace(at=1)


@step
def charge() -> None:
    done("charge")


@step
def order(at: int) -> bool:
    charge()
    die_at("before the question")
    told: bool = pause("Publish?", type=bool)
    die_at("after the answer")
    return told


@workflow
def orders() -> bool:
    return order(given.at)


def kill(at: str) -> None:
    killed(lambda: go(orders), at=at)


def wait(workflow_id: str = "r") -> None:
    with pytest.raises(RunPausedError):
        go(orders, workflow_id=workflow_id)


def fork_it(run: str, into: str) -> None:
    fork(run, from_step="order/pause", new_workflow_id=into)


STOPS: dict[str, list[Callable[[], object]]] = {
    "killed": [lambda: kill("before the question")],
    "killed, cancelled": [lambda: kill("before the question"), lambda: cancel("r")],
    "paused, cancelled": [wait, lambda: cancel("r")],
    "answered": [wait, lambda: answer("r", True)],
    "answered, cancelled": [wait, lambda: answer("r", True), lambda: cancel("r")],
    "answered, killed": [wait, lambda: answer("r", True), lambda: kill("after the answer")],
    "forked": [wait, lambda: fork_it("r", "new")],
    "forked twice": [
        wait,
        lambda: fork_it("r", "one"),
        lambda: wait("one"),
        lambda: fork_it("one", "new"),
    ],
    "cancelled, forked": [wait, lambda: cancel("r"), lambda: fork_it("r", "new")],
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("changed", [False, True])
def test_what_had_finished_inside_a_stopped_step_is_not_done_again(
    stop: str, monkeypatch: pytest.MonkeyPatch, *, changed: bool
) -> None:
    """outer(now()) with finished steps inside, whatever has stopped it: DivergenceError."""
    for act in STOPS[stop]:
        act()
    run = "new" if "forked" in stop else "r"
    if changed:
        monkeypatch.setattr(given, "at", 2)
        with pytest.raises(DivergenceError, match="finished steps inside"):
            go(orders, workflow_id=run)
    elif "answered" in stop:
        assert go(orders, workflow_id=run) is True
    else:
        wait(run)
        answer(run, True)
        assert go(orders, workflow_id=run) is True

    assert done.all == ["charge"]


def in_pay_killed(flow: Callable[[], Any]) -> None:
    killed(lambda: go(flow), at="paid")


def in_pay_killed_and_cancelled(flow: Callable[[], Any]) -> None:
    in_pay_killed(flow)
    cancel("r")


def in_pay_interrupted(flow: Callable[[], Any]) -> None:
    given.then = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        go(flow)


def in_pay_cancelled(flow: Callable[[], Any]) -> None:
    given.limit = 0
    with pytest.raises(TimeoutError):
        go(flow)


def in_pay_out_of_time(flow: Callable[[], Any]) -> None:
    given.timeout = 0.01
    with pytest.raises(StepTimeoutError):
        go(flow)


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize(
    "stop",
    [
        in_pay_killed,
        in_pay_killed_and_cancelled,
        in_pay_interrupted,
        in_pay_cancelled,
        in_pay_out_of_time,
    ],
)
def test_a_payment_is_not_made_twice_however_it_was_stopped(
    did: Effects, monkeypatch: pytest.MonkeyPatch, stop: Callable[..., None], *, changed: bool
) -> None:
    """pay(now()) with on_interrupted="fail", stopped in it: refused, until it is resolved."""
    monkeypatch.setattr(sys.modules[__name__], "given", SimpleNamespace(at=1))

    @step(on_interrupted="fail")
    async def pay(at: int) -> str:
        did("pay")
        die_at("paid")
        vars(given).get("then", lambda: None)()
        await asyncio.sleep(60)
        return "receipt"

    @workflow
    async def flow() -> str:
        async with asyncio.timeout(vars(given).get("limit")):
            return await pay.options(timeout=vars(given).get("timeout"))(given.at)

    stop(flow)
    given.limit, given.at = None, 2 if changed else 1

    with pytest.raises((StepInterruptedError, DivergenceError)):
        go(flow)
    assert did.all == ["pay"]

    resolve("r", "pay", result=b'"by hand"')
    given.at = 1
    assert go(flow) == "by hand"
    assert did.all == ["pay"]


def in_handler_killed(flow: Callable[[], Any]) -> None:
    killed(lambda: go(flow), at="in the handler")


def in_handler_interrupted(flow: Callable[[], Any]) -> None:
    given.then = lambda: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        go(flow)


def in_handler_terminated(flow: Callable[[], Any]) -> None:
    configure(handle_sigterm=True)
    given.then = lambda: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        go(flow)


def in_handler_paused(flow: Callable[[], Any]) -> None:
    given.then = lambda: pause("Continue?", type=bool)
    with pytest.raises(RunPausedError):
        go(flow)
    answer("r", True)


def in_handler_paused_and_answered_late(flow: Callable[[], Any]) -> None:
    in_handler_paused(flow)
    killed(lambda: go(flow), at="after the handler")


def in_handler_cancelled(flow: Callable[[], Any]) -> None:
    given.then, given.limit = None, 0.01
    with pytest.raises(TimeoutError):
        go(flow)


@pytest.mark.parametrize(
    "stop",
    [
        in_handler_killed,
        in_handler_interrupted,
        in_handler_terminated,
        in_handler_paused,
        in_handler_paused_and_answered_late,
        in_handler_cancelled,
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_handled_failure_stays_however_its_handler_was_stopped(
    did: Effects, monkeypatch: pytest.MonkeyPatch, stop: Callable[..., None], *, nested: bool
) -> None:
    """`charge` fails, `refund` done, stopped in the handler; resumed: charge not run again."""
    monkeypatch.setattr(sys.modules[__name__], "given", SimpleNamespace(then=lambda: None))

    @step
    async def charge() -> None:
        did("charge")
        raise ValueError("declined")

    @step
    async def refund() -> None:
        did("refund")

    async def handling() -> str:
        try:
            await charge()
        except ValueError:
            await refund()
            die_at("in the handler")
            if given.then is None:
                await asyncio.sleep(60)
            given.then()
        die_at("after the handler")
        return "refunded"

    enclosing = step(name="enclosing")(handling)

    @workflow
    async def flow() -> str:
        async with asyncio.timeout(vars(given).get("limit")):
            return await (enclosing if nested else handling)()

    stop(flow)
    given.limit = None
    if "paused" not in stop.__name__:
        given.then = lambda: None

    assert go(flow) == "refunded"
    assert did.all == ["charge", "refund"]


# ---------------------------------------------------------------- what must not happen twice


def resolved(call: Callable[[], Any], times: int) -> Any:
    """Resume a run; after each refusal resolve the step that it names: it did not do its work."""
    for _ in range(times):
        with pytest.raises(StepInterruptedError) as caught:
            call()
        resolve("r", caught.value.step_id)
    return call()


@pytest.mark.parametrize("kind", ["inputs of the step around", "own inputs", "key", "branch"])
def test_a_payment_whose_outcome_is_unknown_is_found_wherever_it_is_called(
    did: Effects, now: Tick, kind: str
) -> None:
    """Killed in pay; resumed at another place, or with other inputs: refused until resolved."""

    @step(on_interrupted="fail")
    def pay(what: object) -> None:
        did("pay")
        die_at("paid")

    @step
    def around(at: object) -> None:
        pay("40")

    @workflow
    def flow() -> None:
        at = now()
        if kind == "inputs of the step around":
            around(at)
        elif kind == "own inputs":
            pay(at)
        elif kind == "key":
            pay.options(key=str(at))("40")
        elif at == 1:
            pay("default account")
        else:
            around(at)

    killed(lambda: go(flow), at="paid")
    resolved(lambda: go(flow), 1)

    assert did.all == ["pay", "pay"]
    assert history("r").status == "completed"


def test_a_payment_inside_a_retried_step_is_found_by_its_next_try(did: Effects) -> None:
    """outer(retries=1) > middle > pay, killed in pay; then outer fails before it: refused."""

    @step(on_interrupted="fail")
    def pay() -> None:
        did("pay")
        die_at("paid")

    @step
    def middle() -> None:
        pay()

    @step(retries=1, backoff=QUICK)
    def outer() -> None:
        if did.count("pay") and did("outer") == 1:
            raise ValueError("busy")
        middle()

    @workflow
    def flow() -> None:
        outer()

    killed(lambda: go(flow), at="paid")

    with pytest.raises(StepInterruptedError, match=r"tapps-otel resolve r outer/middle/pay"):
        go(flow)
    assert did.count("pay") == 1


def test_of_payments_side_by_side_none_begins_before_all_are_resolved(did: Effects) -> None:
    """gather(pay(0), pay(1), pay(2)), killed: one answer for each, and no payment is cut off."""

    @step(on_interrupted="fail")
    async def pay(number: int) -> int:
        did(f"pay {number}")
        await asyncio.sleep(0)
        if len(did.all) == 3:
            die_at("paid")
        return number

    @workflow
    async def flow() -> list[int]:
        return list(await asyncio.gather(*(pay(number) for number in range(3))))

    killed(lambda: go(flow), at="paid")
    with pytest.raises(StepInterruptedError, match=r"Then do that for 'pay#2', 'pay#3', too"):
        go(flow)

    assert resolved(lambda: go(flow), 3) == [0, 1, 2]
    assert sorted(did.all) == sorted([f"pay {number}" for number in range(3)] * 2)


def test_a_payment_that_ran_out_of_time_and_was_handled_holds_up_no_other(did: Effects) -> None:
    """for order in orders: try: pay(order, timeout) except: review(order); killed: it goes on."""

    @step(on_interrupted="fail", timeout=0.01)
    async def pay(number: int) -> None:
        did(f"pay {number}")
        if number == 0:
            await asyncio.sleep(60)

    @step
    async def review(number: int) -> None:
        did(f"review {number}")
        die_at("reviewed")

    @workflow
    async def flow() -> None:
        for number in range(3):
            try:
                await pay(number)
            except StepTimeoutError:
                await review(number)

    killed(lambda: go(flow), at="reviewed")
    go(flow)

    assert did.all == ["pay 0", "review 0", "review 0", "pay 1", "pay 2"]


def test_a_payment_whose_result_cannot_be_stored_is_not_made_again(did: Effects) -> None:
    kind: Any = float

    def make() -> Any:
        def pay() -> Any:
            did("pay")
            return float("nan")

        pay.__annotations__["return"] = kind
        paying = step(name="pay", on_interrupted="fail")(pay)

        @workflow
        def flow() -> Any:
            return paying()

        return flow

    with pytest.raises(StepResultError):
        go(make())
    kind = object
    with pytest.raises(StepInterruptedError, match="has run, its result could not be stored"):
        go(make())
    resolve("r", "pay", result=b'"receipt"')

    assert go(make()) == "receipt"
    assert did.all == ["pay"]


def test_what_had_finished_beside_a_refused_step_is_not_done_again(did: Effects) -> None:
    """customer = charge, mail; supplier = pay; killed in both: charge is done once."""

    @step(on_interrupted="fail")
    async def pay() -> None:
        did("pay")
        await asyncio.sleep(0)
        die_at("paid")

    @step
    async def charge() -> None:
        did("charge")

    @step
    async def mail(number: int) -> None:
        await asyncio.sleep(0)

    @step
    async def customer() -> None:
        await charge()
        for number in range(9):
            await mail(number)

    @step
    async def supplier() -> None:
        await asyncio.sleep(0)
        await pay()

    @workflow
    async def flow() -> None:
        await asyncio.gather(customer(), supplier())

    killed(lambda: go(flow), at="paid")
    resolved(lambda: go(flow), 1)

    assert sorted(did.all) == ["charge", "pay", "pay"]


def test_nothing_is_done_again_once_a_missing_value_is_back(did: Effects, log_dir: Path) -> None:
    """outer = charge, fetch (a blob), killed; the blob is missing for one resume."""

    @step
    def charge() -> None:
        did("charge")

    @step
    def fetch() -> str:
        did("fetch")
        return "x" * 100_000

    @step
    def outer() -> int:
        charge()
        found = len(fetch())
        die_at("fetched")
        return found

    @workflow
    def flow() -> int:
        return outer()

    killed(lambda: go(flow), at="fetched")
    (blob,) = (log_dir / "r.blobs").iterdir()
    blob.rename(log_dir / "away")
    with pytest.raises(BlobDamagedError):
        go(flow)
    (log_dir / "away").rename(blob)

    assert go(flow) == 100_000
    assert did.all == ["charge", "fetch"]


@pytest.mark.parametrize("killed_between", [False, True])
def test_a_random_id_in_each_try_is_no_divergence_after_a_failure(
    did: Effects, now: Tick, *, killed_between: bool
) -> None:
    """outer(retries) > middle(uuid4()) > prepare, reach (fails): resumed, it completes."""

    @step
    def prepare(at: int) -> None:
        did("prepare")

    @step
    def reach() -> None:
        if is_down:
            raise ConnectionError("down")

    @step
    def middle(at: int) -> None:
        prepare(at)
        reach()

    @step(retries=1, backoff=QUICK)
    def outer() -> None:
        middle(now())

    @workflow
    def flow() -> None:
        outer()

    is_down = True
    if killed_between:
        killed(lambda: go(flow), after="step_fail outer")
    else:
        with pytest.raises(ConnectionError):
            go(flow)
    is_down = False
    go(flow)

    assert history("r").status == "completed"
    assert did.count("prepare") == (2 if killed_between else 3)


def test_a_failure_object_that_two_steps_raise_is_handled_in_one_of_them(did: Effects) -> None:
    closed = ConnectionError("closed")

    @step
    def charge() -> None:
        did("charge")
        raise closed

    @step
    def refund() -> None:
        did("refund")

    @step
    def mail() -> None:
        if did("mail") == 1:
            raise closed

    @workflow
    def flow() -> None:
        try:
            charge()
        except ConnectionError:
            refund()
        mail()

    with pytest.raises(ConnectionError):
        go(flow)
    go(flow)

    assert did.all == ["charge", "refund", "mail", "mail"]
