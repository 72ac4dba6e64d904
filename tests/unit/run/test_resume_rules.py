"""The rules of resume beyond their cases: what counts, runs again, is reported."""

from __future__ import annotations

import asyncio
import functools
import logging
import runpy
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crashes import (
    CRASHED,
    Effects,
    Injected,
    appends,
    die,
    die_at,
    go,
    in_child,
    killed,
    label,
    on_append,
)
from tapps_otel import Backoff, bind, events, history, step, workflow
from tapps_otel.errors import (
    DivergenceError,
    InterruptedTooOftenError,
    RunEndedError,
    StepInterruptedError,
)
from waiting import until_async

QUICK = Backoff(0.001, 1, 0.001)

Text = Callable[..., str]
Labels = Callable[..., list[str]]
Log = Callable[..., list[dict[str, Any]]]


# ---------------------------------------------------------------- rule 1: content first


def test_a_stored_result_comes_without_event_span_or_body(did: Effects, labels: Labels) -> None:
    @step
    def work() -> str:
        did("work")
        return "done"

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> str:
        got = work()
        last()
        return got

    killed(lambda: go(flow), at="last")

    assert go(flow) == "done"
    assert did.all == ["work"]
    assert labels() == [
        "workflow_start",
        "step_start work",
        "step_finish work",
        "step_start last",
        "workflow_resume",
        "step_fail last",
        "step_start last",
        "step_finish last",
        "workflow_end",
    ]


def test_equal_calls_take_their_records_one_by_one(did: Effects) -> None:
    @step
    def draw() -> int:
        return did("draw")

    @workflow
    def flow() -> list[int]:
        return [draw(), draw(), draw()]

    killed(lambda: go(flow), after="step_finish draw#2")

    assert go(flow) == [1, 2, 3]
    assert [one.step_id for one in history("r").steps] == ["draw", "draw#2", "draw#3"]


def test_places_are_named_by_name_number_and_scope(did: Effects) -> None:
    @step(name="a/b#1%")
    def inner() -> None: ...

    @step
    def outer() -> None:
        inner()
        inner()

    @workflow
    def flow() -> None:
        outer()
        outer()

    go(flow)

    assert [one.step_id for one in history("r").steps] == [
        "outer",
        "outer/a%2Fb%231%25",
        "outer/a%2Fb%231%25#2",
        "outer#2",
        "outer#2/a%2Fb%231%25",
        "outer#2/a%2Fb%231%25#2",
    ]
    assert history("r").steps[1].name == "a/b#1%"


def test_an_interrupted_step_runs_as_the_next_attempt(did: Effects, log: Log) -> None:
    @step(agent="writer", action="write")
    def work() -> None:
        did("work")
        die_at("work")

    @workflow
    def flow() -> None:
        work()

    killed(lambda: go(flow), at="work")
    go(flow)

    (record,) = history("r").steps
    assert [(one.number, one.execution, one.status) for one in record.attempts] == [
        (1, 1, "interrupted"),
        (2, 2, "completed"),
    ]
    (fail,) = log("step_fail")
    assert fail["status"] == "interrupted"
    assert fail["execution"] == 2
    assert (fail["step"], fail["agent"], fail["action"]) == ("work", "writer", "write")


def test_order_counts_the_ordered_calls_of_a_name(log: Log) -> None:
    """``order`` n = the scope's n-th ordered call of that name; absent in tasks and threads."""

    @step
    async def a() -> None: ...

    @workflow
    async def flow() -> None:
        await a()
        await asyncio.gather(a(), a())
        await a()

    go(flow)

    assert [one.get("order") for one in log("step_start")] == [1, None, None, 2]


def test_code_may_be_edited_inside_a_step(did: Effects) -> None:
    """Counters restart at each attempt of the scope, so a step's inner code may change too."""
    plan = ["one", "two"]

    @step
    def inner(what: str) -> str:
        did(what)
        return what

    @step
    def outer() -> list[str]:
        got = [inner.options(key=what)(what) for what in plan]
        die_at("outer")
        return got

    @workflow
    def flow() -> list[str]:
        return outer()

    killed(lambda: go(flow), at="outer")
    plan.insert(0, "zero")

    assert go(flow) == ["zero", "one", "two"]
    assert did.all == ["one", "two", "zero"]


def test_numbers_are_not_given_twice_although_starts_come_late(did: Effects) -> None:
    """Threads take numbers in one order and may log their starts in another: killed when the
    second has finished and the first has not been logged, the next number is still a new one.
    """
    numbered, finished = threading.Event(), threading.Event()

    @step
    def work(value: int) -> int:
        numbered.set()
        did(f"work {value}")
        return value

    def late(number: int, event: Any) -> None:
        if label(event) == "step_start work":
            numbered.set()
            finished.wait(30)
            die()

    def seen(number: int, event: Any) -> None:
        if label(event) == "step_finish work#2":
            finished.set()

    @workflow
    def flow() -> list[int]:
        got: list[int] = []

        def run(value: int) -> None:
            got.append(work(value))

        threads = [threading.Thread(target=bind(run), args=(value,)) for value in (1, 2, 3)]
        for thread in threads:
            thread.start()
            assert numbered.wait(30)
        for thread in threads:
            thread.join()
        return sorted(got)

    def doomed() -> None:
        on_append(before=late, after=seen)
        go(flow)

    assert in_child(doomed).code == CRASHED

    assert go(flow) == [1, 2, 3]
    starts = [one for one in events("r") if one.event_type == "step_start"]
    tries = {(one.step_id, one.attempt) for one in starts}
    assert len(starts) == len(tries)  # the third may have been killed, too
    assert len({one.step_id for one in starts}) == 3
    assert did.count("work 2") == 1


# ---------------------------------------------------------------- rule 4: handled failures


def test_caused_by_names_what_left_the_scope(log: Log) -> None:
    @step
    def bad() -> None:
        raise ValueError("bad")

    @step
    def outer() -> None:
        bad()

    @workflow
    def flow() -> None:
        outer()

    with pytest.raises(ValueError, match="bad"):
        go(flow)

    by_id = {one.get("step_id"): one for one in log() if one["event_type"] != "step_start"}
    assert by_id["outer/bad"].get("caused_by", []) == []
    assert by_id["outer"]["caused_by"] == ["outer/bad"]
    assert "outer" in log("workflow_end")[0]["caused_by"]


@pytest.mark.parametrize("how", ["cause", "context", "group"])
def test_a_failure_behind_the_one_that_left_was_not_handled(
    did: Effects, log: Log, how: str
) -> None:
    """``caused_by``: itself, its cause, a group member, its context when the scope's own code
    raised: these run again although the workflow went on after them.
    """

    @step
    def bad() -> None:
        if did("bad") == 1:
            raise ValueError("bad")

    @step
    def note() -> None:
        did("note")

    @workflow
    def flow() -> None:
        try:
            bad()
        except ValueError as error:
            note()
            if how == "cause":
                raise RuntimeError("wrapped") from error
            if how == "group":
                raise ExceptionGroup("wrapped", [error]) from None
            raise RuntimeError("wrapped")  # noqa: B904 - its context is the case

    with pytest.raises((RuntimeError, ExceptionGroup), match="wrapped"):
        go(flow)
    assert log("workflow_end")[0]["caused_by"] == ["bad"]

    go(flow)
    assert did.all == ["bad", "note", "bad"]


def test_the_context_of_another_steps_exception_was_handled(did: Effects, log: Log) -> None:
    """Not the context of another step's exception: that one was handled, by calling it."""

    @step
    def charge() -> None:
        did("charge")
        raise ValueError("no money")

    @step
    def refund() -> None:
        if did("refund") == 1:
            raise ConnectionError("no refund")

    @workflow
    def flow() -> None:
        try:
            charge()
        except ValueError:
            refund()

    with pytest.raises(ConnectionError):
        go(flow)
    assert log("workflow_end")[0]["caused_by"] == ["refund"]

    go(flow)
    assert did.all == ["charge", "refund", "refund"]


def test_a_failure_raised_again_from_the_log_can_leave_the_scope(did: Effects, log: Log) -> None:
    """``caused_by``: also one that was raised again from the log; then it runs again."""
    switch = SimpleNamespace(handle=True)

    @step
    def charge() -> None:
        if did("charge") == 1:
            raise ValueError("no money")

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> str:
        try:
            charge()
        except ValueError:
            if not switch.handle:
                raise
        last()
        return "fine"

    killed(lambda: go(flow), at="last")
    switch.handle = False
    with pytest.raises(ValueError, match="no money"):
        go(flow)
    assert did.all == ["charge"]
    assert log("workflow_end")[0]["caused_by"] == ["charge"]

    assert go(flow) == "fine"
    assert did.all == ["charge", "charge"]


def test_a_failure_in_a_task_is_handled_by_an_ordered_call_alone(did: Effects) -> None:
    """An ordered call, if the failure was in a task or thread: a sibling's call shows nothing."""

    @step
    async def bad() -> None:
        if did("bad") == 1:
            raise ValueError("bad")

    @step
    async def inner() -> None:
        die_at("inner")

    async def later() -> None:
        await until_async(lambda: did.count("bad"))
        await inner()

    @workflow
    async def flow() -> None:
        await asyncio.gather(bad(), later(), return_exceptions=True)

    killed(lambda: go(flow), at="inner")
    go(flow)

    assert did.count("bad") == 2


# ---------------------------------------------------------------- rule 5: what runs again


def test_a_failed_step_gets_a_fresh_retry_budget(did: Effects) -> None:
    @step(retries=2, backoff=QUICK)
    def flaky() -> int:
        times = did("flaky")
        if times < 6:
            raise ValueError(f"time {times}")
        return times

    @workflow
    def flow() -> int:
        return flaky()

    with pytest.raises(ValueError, match="time 3"):
        go(flow)

    assert go(flow) == 6
    (record,) = history("r").steps
    assert [one.number for one in record.attempts] == [1, 2, 3, 4, 5, 6]


def test_a_step_killed_between_two_tries_is_resumed(did: Effects) -> None:
    @step(retries=1, backoff=QUICK)
    def flaky() -> int:
        if did("flaky") == 1:
            raise ValueError("once")
        return 7

    @workflow
    def flow() -> int:
        return flaky()

    killed(lambda: go(flow), after="step_fail flaky")

    assert go(flow) == 7
    assert did.count("flaky") == 2


@pytest.mark.parametrize("limit", [1, 3])
def test_a_step_that_is_interrupted_too_often_is_not_run_again(did: Effects, limit: int) -> None:
    """At most max_interruptions times in a row."""

    @step(max_interruptions=limit)
    def deadly() -> None:
        did("deadly")
        die_at("deadly")

    @workflow
    def flow() -> None:
        deadly()

    for _ in range(limit + 1):
        killed(lambda: go(flow), at="deadly")
    for _ in range(2):
        with pytest.raises(
            InterruptedTooOftenError, match=r"tapps-otel resolve r deadly"
        ) as caught:
            go(flow)
        assert caught.value.step_id == "deadly"
    assert did.count("deadly") == limit + 1


def test_an_interrupted_step_that_must_not_run_again_names_the_command(did: Effects) -> None:
    @step(on_interrupted="fail")
    def pay() -> None:
        did("pay")
        die_at("pay")

    @step
    def after() -> None:
        did("after")

    @workflow
    def flow() -> None:
        try:
            pay()
        except Exception:  # noqa: BLE001 - what a user writes
            after()

    killed(lambda: go(flow), at="pay")

    with pytest.raises(StepInterruptedError, match=r"tapps-otel resolve r pay"):
        go(flow)
    assert did.all == ["pay"]


# ---------------------------------------------------------------- rule 6: inside what runs again


def test_after_an_attempt_that_failed_by_itself_inner_steps_run_anew(did: Effects) -> None:
    """Its inner records do not count, and numbers count on."""

    @step
    def inner() -> int:
        return did("inner")

    @step(retries=1, backoff=QUICK)
    def outer() -> int:
        got = inner()
        if got == 1:
            raise ValueError("by itself")
        return got

    @workflow
    def flow() -> int:
        return outer()

    assert go(flow) == 2
    assert [one.step_id for one in history("r").steps] == ["outer", "outer/inner", "outer/inner#2"]


def test_after_a_failure_passed_through_inner_steps_count(did: Effects) -> None:
    @step
    def inner() -> int:
        return did("inner")

    @step
    def flaky() -> None:
        if did("flaky") == 1:
            raise ValueError("inside")

    @step(retries=1, backoff=QUICK)
    def outer() -> int:
        got = inner()
        flaky()
        return got

    @workflow
    def flow() -> int:
        return outer()

    assert go(flow) == 1
    assert did.all == ["inner", "flaky", "flaky"]


def test_a_failed_attempt_still_does_not_count_in_the_next_execution(did: Effects) -> None:
    """Killed between an attempt that failed by itself and the next one."""

    @step
    def inner() -> int:
        return did("inner")

    @step(retries=1, backoff=QUICK)
    def outer() -> int:
        got = inner()
        if did("outer") == 1:
            raise ValueError("by itself")
        return got

    @workflow
    def flow() -> int:
        return outer()

    killed(lambda: go(flow), after="step_fail outer")

    assert go(flow) == 2


def test_inner_steps_count_after_a_cancellation(did: Effects) -> None:
    @step
    async def inner() -> int:
        return did("inner")

    @step
    async def outer() -> int:
        got = await inner()
        if did("outer") == 1:
            await asyncio.sleep(30)
        return got

    @workflow
    async def flow() -> int:
        return await asyncio.wait_for(outer(), 0.05)

    with pytest.raises(TimeoutError):
        go(flow)
    assert history("r").steps[0].status == "cancelled"
    assert go(flow) == 1
    assert did.all == ["inner", "outer", "outer"]


# ---------------------------------------------------------------- rule 7: refusals


def test_a_refusal_is_not_retried_and_is_in_caused_by(did: Effects, log: Log) -> None:
    @step
    def save(at: int) -> None:
        did("save")

    @step(retries=5, backoff=QUICK)
    def outer() -> None:
        save(did("outer"))
        die_at("outer")

    @workflow
    def flow() -> None:
        outer()

    killed(lambda: go(flow), at="outer")
    with pytest.raises(DivergenceError):
        go(flow)

    end = log("workflow_end")[0]
    assert end["status"] == "failed"
    assert "outer" in end["caused_by"]
    assert did.count("outer") == 2


def test_a_refusal_in_a_task_reaches_the_workflows_end(did: Effects) -> None:
    """Swallowed in a gather, and nothing called after it: still raised."""

    @step
    async def inner(at: int) -> None:
        did("inner")

    @step
    async def outer() -> None:
        await inner(did("outer"))
        die_at("outer")

    @workflow
    async def flow() -> str:
        await asyncio.gather(outer(), return_exceptions=True)
        return "fine"

    killed(lambda: go(flow), at="outer")

    with pytest.raises(DivergenceError):
        go(flow)
    assert did.count("inner") == 1


# ---------------------------------------------------------------- rule 8: ends wait


def test_open_tasks_of_a_completed_run_are_ended_first(did: Effects, labels: Labels) -> None:
    began = asyncio.Event()

    @step
    async def background() -> None:
        began.set()
        await asyncio.sleep(30)

    @workflow
    async def flow() -> str:
        task = asyncio.create_task(background())
        await began.wait()
        assert not task.done()
        return "fine"

    assert go(flow) == "fine"
    assert labels()[-2:] == ["step_fail background", "workflow_end"]
    assert history("r").status == "completed"
    assert history("r").steps[0].status == "cancelled"


async def test_leftover_code_of_a_failed_run_does_not_run(
    did: Effects, labels: Labels, tmp_path: Any
) -> None:
    """Its next step call gets RunEndedError."""
    released = asyncio.Event()

    @step
    async def work(number: int) -> None:
        did(f"work {number}")

    async def later() -> None:
        await released.wait()
        await work(2)

    tasks = []

    @workflow
    async def flow() -> None:
        tasks.append(asyncio.create_task(later()))
        await asyncio.sleep(0)
        await work(1)
        raise ValueError("over")

    with pytest.raises(ValueError, match="over"):
        await flow.options(workflow_id="r")()
    released.set()
    (outcome,) = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(outcome, RunEndedError | asyncio.CancelledError)
    assert did.all == ["work 1"]


async def test_leftover_code_of_a_completed_run_is_plain(
    did: Effects, labels: Labels, caplog: pytest.LogCaptureFixture
) -> None:
    """After a completed run a call is plain, with one warning."""
    released = threading.Event()

    @step
    def work(number: int) -> int:
        did(f"work {number}")
        return number

    got: list[int] = []

    def later() -> None:
        released.wait(10)
        got.append(work(2))
        got.append(work(3))

    threads = []

    @workflow
    async def flow() -> None:
        threads.append(threading.Thread(target=bind(later)))
        threads[0].start()
        work(1)

    await flow.options(workflow_id="r")()
    before = labels()
    with caplog.at_level(logging.WARNING, "tapps_otel"):
        released.set()
        threads[0].join(10)

    assert got == [2, 3]
    assert labels() == before
    assert before[-1] == "workflow_end"
    warnings = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1


# ---------------------------------------------------------------- rule 9: what is said


def test_a_changed_definition_is_reported_and_the_result_reused(
    did: Effects, reported: Text, caplog: pytest.LogCaptureFixture
) -> None:
    switch = SimpleNamespace(new=False)

    @step(name="work")
    def old() -> str:
        did("work")
        return "old"

    @step(name="work")
    def new() -> str:
        did("work")
        return "new"

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> str:
        got = (new if switch.new else old)()
        last()
        return got

    killed(lambda: go(flow), at="last")
    switch.new = True
    with caplog.at_level(logging.WARNING, "tapps_otel"):
        assert go(flow) == "old"

    assert did.all == ["work"]
    assert "work" in reported()
    assert "work" in caplog.text


def test_a_change_under_another_decorator_is_reported(did: Effects, reported: Text) -> None:
    switch = SimpleNamespace(new=False)

    def logged(fn: Callable[[], str]) -> Callable[[], str]:
        @functools.wraps(fn)
        def around() -> str:
            did("work")
            return fn()

        return around

    @step(name="work")
    @logged
    def old() -> str:
        return "old"

    @step(name="work")
    @logged
    def new() -> str:
        return "new"

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> str:
        got = (new if switch.new else old)()
        last()
        return got

    killed(lambda: go(flow), at="last")
    switch.new = True

    assert go(flow) == "old"
    assert did.all == ["work"]
    assert "code changed" in reported() or "definition_changed" in reported()


@pytest.mark.parametrize("source", ["", "(", "def work(:\n", 'x = """\n', "    \n\0\n"])
def test_a_step_whose_file_has_changed_under_it_runs(source: str, tmp_path: Path) -> None:
    file = tmp_path / "edited.py"
    file.write_text("from tapps_otel import step\n\n@step\ndef work() -> str:\n    return 'done'\n")
    made = runpy.run_path(str(file))
    file.write_text(f"\n\n{source}")

    @workflow
    def flow() -> str:
        result: str = made["work"]()
        return result

    assert go(flow) == "done"


def test_another_docstring_or_comment_is_not_a_change(did: Effects, reported: Text) -> None:
    switch = SimpleNamespace(new=False)

    def versions() -> tuple[Any, Any]:
        @step
        def work() -> str:
            """Say old things."""
            return "same"

        old = work

        @step  # type: ignore[no-redef]
        def work() -> str:
            """Say new things."""
            # thought about
            return "same"

        return old, work

    old, new = versions()

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> str:
        got = str((new if switch.new else old)())
        last()
        return got

    killed(lambda: go(flow), at="last")
    switch.new = True

    assert go(flow) == "same"
    assert reported() == ""


def test_nothing_is_reported_for_an_uninterrupted_run(reported: Text) -> None:
    @step
    def work() -> None: ...

    @workflow
    def flow() -> None:
        work()

    go(flow)
    assert reported() == ""


def test_unused_records_inside_a_step_are_reported(did: Effects, reported: Text) -> None:
    """Said when a *scope* completes: also when that scope is a step."""
    plan = ["one", "two"]

    @step
    def inner(what: str) -> None:
        did(what)

    @step
    def outer() -> None:
        for what in plan:
            inner(what)
        die_at("outer")

    @workflow
    def flow() -> None:
        outer()

    killed(lambda: go(flow), at="outer")
    plan.remove("two")
    go(flow)

    assert "outer/inner#2" in reported()
    assert did.all == ["one", "two"]


# ---------------------------------------------------------------- injected in process


def test_a_run_is_resumed_after_an_exception_at_any_event(did: Effects) -> None:
    @step
    def work() -> str:
        if did("work") == 1:
            raise Injected
        return "done"

    @workflow
    def flow() -> str:
        return work()

    with pytest.raises(Injected):
        go(flow)
    assert history("r").status in {"failed", "interrupted"}

    assert go(flow) == "done"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", ["step_start work", "step_finish work"])
def test_an_exception_in_the_middle_of_an_event_leaves_no_step_open(
    did: Effects, labels: Labels, when: str, at: str
) -> None:
    """As Ctrl-C does, which mostly comes while a sync is waited for: ends still wait."""

    @step
    def work() -> int:
        return did("work")

    @workflow
    def flow() -> int:
        return work()

    def thrown(number: int, event: Any) -> None:
        if label(event) == at and not did.count("thrown"):
            did("thrown")
            raise Injected

    with appends(**{when: thrown}), pytest.raises(Injected):
        go(flow)
    seen = labels()
    ends = [one for one in seen if one in {"step_finish work", "step_fail work"}]
    assert len(ends) == seen.count("step_start work")
    assert seen[-1] == "workflow_end"

    go(flow)
    assert did.count("work") == 1


def test_a_written_event_counts_even_if_an_exception_follows_at_once(did: Effects) -> None:
    """An exception right after a step's finish was written, swallowed; then a retry in the same
    execution: the step is done, and not run again.
    """

    @step
    def inner() -> int:
        return did("inner")

    @step(timeout=0.05, retries=1, backoff=QUICK)
    async def outer() -> None:
        try:
            inner()
        except Injected:
            await asyncio.sleep(30)

    @workflow
    async def flow() -> None:
        await outer()

    thrown: list[int] = []

    def throw(number: int, event: Any) -> None:
        if label(event) == "step_finish outer/inner" and not thrown:
            thrown.append(number)
            raise Injected

    with appends(after=throw):
        go(flow)

    assert thrown
    assert did.all == ["inner"]
    assert [one.status for one in history("r").steps] == ["completed", "completed"]


def test_events_of_a_resumed_run_count_on(did: Effects) -> None:
    @step
    def work() -> None:
        die_at("work")

    @workflow
    def flow() -> None:
        work()

    killed(lambda: go(flow), at="work")
    go(flow)

    seen = list(events("r"))
    assert [one.seq for one in seen] == list(range(1, len(seen) + 1))
    assert [one.execution for one in seen if one.event_type.startswith("workflow")] == [1, 2, 2]
    assert seen[0].event_type == "workflow_start"
    assert {one.workflow_id for one in seen} == {"r"}
    assert len({one.trace_id for one in seen if one.trace_id is not None}) == 1
