"""The testing kit: runs of a test's own, simulated crashes, and `assert_resumes`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tapps_otel import (
    Backoff,
    annotate,
    apause,
    clock,
    current_step,
    history,
    pause,
    settings,
    step,
    workflow,
)
from tapps_otel.errors import RunNotFoundError, RunPausedError
from tapps_otel.testing import (
    Crash,
    Runs,
    SetClock,
    answering,
    assert_resumes,
    crash_at,
    isolated_runs,
)

bodies: list[str] = []


@pytest.fixture(autouse=True)
def _no_bodies() -> None:
    bodies.clear()


@step
def double(number: int) -> int:
    bodies.append(f"double {number}")
    return 2 * number


@workflow
def total(numbers: list[int]) -> int:
    return sum(double(number) for number in numbers)


# ---------------------------------------------------------------- the fixture


def test_runs_are_in_a_folder_of_the_test(runs: Runs) -> None:
    assert total.options(workflow_id="monday")([1, 2]) == 6

    assert [run.workflow_id for run in runs] == ["monday"]
    assert runs["monday"].status == "completed"
    assert runs.events("monday")[0].event_type == "workflow_start"
    assert (runs.log_dir / "monday.jsonl").exists()
    runs.check()


def test_a_named_run_of_another_test_is_not_there(runs: Runs) -> None:
    with pytest.raises(RunNotFoundError):
        runs["monday"]
    assert list(runs) == []


def test_child_processes_log_there_too(runs: Runs) -> None:
    program = (
        "from tapps_otel import workflow\n"
        "@workflow\n"
        "def child() -> int:\n"
        "    return 1\n"
        "child.options(workflow_id='of-a-child')()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    assert runs["of-a-child"].status == "completed"


def test_waits_take_no_time_and_are_known(runs: Runs) -> None:
    @step(retries=2, backoff=Backoff(3600, 2, 7200, jitter=0))
    def flaky() -> int:
        if current_step().number < 3:
            raise ConnectionError("reset")
        return current_step().number

    @workflow
    async def flow() -> int:
        return flaky()

    assert asyncio.run(flow()) == 3
    assert runs.clock.waits == [3600, 7200]
    [run] = runs
    first, last = run.steps[0].attempts[0], run.steps[0].attempts[-1]
    assert last.started_ns - first.started_ns >= 10_800 * 10**9


def test_clock_and_ids_can_be_set(tmp_path: Path) -> None:
    logs = []
    for name in ("a", "b"):
        with isolated_runs(tmp_path / name) as runs:
            runs.clock.set("2026-01-02T03:04:05")
            runs.seed(7)
            total([1])
            [run] = runs
            events = runs.events(run.workflow_id)
            keep = {"timestamp", "trace_id", "span_id", "seq", "workflow_id"}
            logs.append([event.model_dump(include=keep) for event in events])

    assert logs[0] == logs[1]
    assert logs[0][0]["timestamp"] == "2026-01-02T03:04:05.000000000Z"
    assert logs[0][0]["workflow_id"].startswith("total-20260102T030405-")


def test_everything_is_as_before_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_OTEL_LOG_DIR", "before")
    before = settings.current(), clock.time_ns, clock.sleep
    with pytest.raises(ZeroDivisionError), isolated_runs(tmp_path):
        raise ZeroDivisionError

    assert (settings.current(), clock.time_ns, clock.sleep) == before
    assert os.environ["TAPPS_OTEL_LOG_DIR"] == "before"


def test_a_set_clock_advances_when_it_is_told() -> None:
    set_clock = SetClock()
    set_clock.set("2026-01-01T00:00:00+01:00")
    before = set_clock.monotonic_ns()
    set_clock.advance(1.5)
    set_clock.sleep(0.5)

    assert clock.timestamp(set_clock.time_ns()) == "2025-12-31T23:00:02.000000000Z"
    assert set_clock.monotonic_ns() - before == 2 * 10**9


# ---------------------------------------------------------------- crashes


def test_a_crash_leaves_the_log_of_a_killed_run(runs: Runs) -> None:
    named = total.options(workflow_id="r")
    with crash_at("step_finish", 2):
        named([1, 2, 3])

    assert [event.event_type for event in runs.events("r")][-1] == "step_finish"
    assert history("r").status == "interrupted"
    assert bodies == ["double 1", "double 2"]
    bodies.clear()
    assert named([1, 2, 3]) == 12
    assert bodies == ["double 3"]
    runs.check()


@pytest.mark.parametrize(
    "event_type", ["workflow_start", "step_start", "step_finish", "annotation", "workflow_end"]
)
def test_every_type_of_event_can_be_the_last(runs: Runs, event_type: str) -> None:
    @workflow
    def flow() -> int:
        annotate("note")
        return double(1)

    with crash_at(event_type):
        flow.options(workflow_id="r")()
    assert runs.events("r")[-1].event_type == event_type
    assert flow.options(workflow_id="r")() == 2


def test_tasks_begin_no_step_after_a_crash(runs: Runs) -> None:
    @step
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        bodies.append(f"work {number}")
        await late(number)
        return number

    @step
    async def late(number: int) -> None:
        bodies.append(f"late {number}")

    @workflow
    async def flow() -> list[int]:
        return list(await asyncio.gather(*(work(number) for number in range(3))))

    with crash_at("step_start", 3):
        asyncio.run(flow.options(workflow_id="r")())

    assert not any(one.startswith("late") for one in bodies)
    assert asyncio.run(flow.options(workflow_id="r")()) == [0, 1, 2]


def test_a_crash_that_never_comes_fails_the_test(runs: Runs) -> None:
    with (
        pytest.raises(AssertionError, match=r"1 events of type 'step_finish' were written, not 2"),
        crash_at("step_finish", 2),
    ):
        total([1])


def test_what_fails_before_the_crash_is_raised(runs: Runs) -> None:
    with pytest.raises(ZeroDivisionError), crash_at("step_finish"):
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="counted from 1"), crash_at("step_finish", 0):
        pass


def test_no_handler_of_exceptions_catches_a_crash(runs: Runs) -> None:
    assert not issubclass(Crash, Exception)


# ---------------------------------------------------------------- assert_resumes


def test_a_workflow_that_resumes_passes_and_gives_its_result() -> None:
    assert assert_resumes(total, [1, 2, 3]) == 12


@pytest.mark.slow
def test_an_async_workflow_with_tasks_nested_steps_and_child_runs_passes() -> None:
    @step
    async def outer(number: int) -> int:
        return await inner(number) + await inner(number + 1)

    @step
    async def inner(number: int) -> int:
        return number

    @workflow
    async def child(number: int) -> int:
        return await inner(number)

    @workflow
    async def flow() -> int:
        found = await asyncio.gather(outer(1), outer(2), child.options(workflow_id="c")(3))
        return sum(found)

    assert assert_resumes(flow) == 11


def test_a_failing_workflow_must_fail_alike() -> None:
    @step
    def fail() -> None:
        raise LookupError("nothing there")

    @workflow
    def flow() -> None:
        double(1)
        fail()

    with pytest.raises(LookupError, match="nothing there"):
        assert_resumes(flow)


@pytest.mark.parametrize("question", [None, "Really?"])
def test_a_workflow_that_waits_must_wait_for_the_same(question: str | None) -> None:
    @workflow
    def flow() -> None:
        double(1)
        if question is None:
            pause(until=60, name="wait")
        else:
            pause(question, type=bool, until=60, name="wait")

    with pytest.raises(RunPausedError) as caught:
        assert_resumes(flow)
    assert [(one.step_id, one.question) for one in caught.value.questions] == [("wait", question)]


@pytest.mark.slow
@pytest.mark.parametrize("answers", [{"ok": True, "left": 1}, {"ok": False}])
def test_a_workflow_that_is_answered_resumes_wherever_it_is_killed(answers: dict[str, Any]) -> None:
    @workflow
    async def flow() -> list[int | None]:
        await apause(until=3600, name="timer")
        if not await apause("Go on?", type=bool, name="ok"):
            return []
        sides = ("left", "right")
        return list(
            await asyncio.gather(
                *(apause(f"{side}?", type=int, until=60, name=side) for side in sides)
            )
        )

    with answering(answers):
        assert assert_resumes(flow) == ([1, None] if answers["ok"] else [])


def test_a_workflow_that_asks_something_else_after_a_resume_is_reported() -> None:
    asked: list[int] = []

    @workflow
    def flow() -> None:
        asked.append(1)
        pause("Really?", name=f"wait {len(asked)}")

    with pytest.raises(AssertionError, match="'flow' does not resume: "):
        assert_resumes(flow)


def test_a_step_that_appends_to_what_it_is_given_is_told() -> None:
    @step
    def collect(number: int, into: list[int]) -> None:
        into.append(number)

    @workflow
    def flow() -> int:
        found: list[int] = []
        collect(1, found)
        collect(2, found)
        return sum(found)

    with pytest.raises(AssertionError, match=r"collect' changed what it was given \(into\)"):
        assert_resumes(flow)


def test_a_workflow_that_depends_on_what_its_process_remembers_is_told() -> None:
    seen: list[int] = []

    @step
    def look() -> int:
        seen.append(1)
        return 1

    @workflow
    def flow() -> int:
        seen.clear()
        look()
        return double(len(seen))

    with pytest.raises(AssertionError, match=r"killed after event \d+ .*step_finish"):
        assert_resumes(flow)


def test_a_clock_among_the_inputs_is_told() -> None:
    @workflow
    def flow() -> int:
        return double(clock.monotonic_ns()) * 0

    with pytest.raises(AssertionError, match="DivergenceError"):
        assert_resumes(flow)


def test_a_step_that_may_not_be_repeated_may_refuse() -> None:
    @step(on_interrupted="fail")
    def pay() -> str:
        return "paid"

    @workflow
    def flow() -> str:
        return pay()

    assert assert_resumes(flow) == "paid"


def test_arguments_are_not_shared_between_the_runs() -> None:
    @workflow
    def flow(numbers: list[int]) -> int:
        return double(numbers.pop())

    numbers = [1, 2]
    assert assert_resumes(flow, numbers) == 4
    assert numbers == [1, 2]


def test_what_is_no_workflow_is_refused() -> None:
    with pytest.raises(TypeError, match="@workflow"):
        assert_resumes(len, [1])


def test_of_a_long_workflow_some_events_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    from tapps_otel.testing import resuming

    monkeypatch.setattr(resuming, "_MOST", 5)
    assert resuming._points(100) == [1, 25, 50, 75, 100]
    assert assert_resumes(total, list(range(10))) == 90
