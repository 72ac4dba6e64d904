"""What an executor leaves running when a step or the run ends: it runs on and is recorded."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from logs import Unsynced
from tapps_otel import (
    ExecutorSpec,
    annotate,
    configure,
    current_step,
    history,
    instrument,
    list_runs,
    step,
    verify,
)
from tapps_otel.errors import LeaseLostError
from tapps_otel.log import files
from tapps_otel.log.lease import Lease, holder
from tapps_otel.report.history import outlook

LOGS = Path(".tapps-agents/workflow-state/events")
Story = Callable[..., list[str]]
Events = Callable[..., list[dict[str, Any]]]


class Engine:
    """An executor that keeps the tasks which its steps leave running."""

    def __init__(self) -> None:
        self.left: list[asyncio.Task[Any]] = []
        self.did: list[str] = []

    async def run(self, work: Any, name: str = "r") -> Any:
        return await work()

    async def work(self, name: str, does: Any = None) -> Any:
        if does is not None:
            await does()
        self.did.append(name)

    def leave(self, name: str, does: Any = None) -> None:
        self.left.append(asyncio.create_task(self.work(name, does)))


SPEC = ExecutorSpec(
    executor="engine",
    run="run",
    step="work",
    run_id=lambda call: call.arguments["name"],
    step_id=lambda call: call.arguments["name"],
)
RESUMES = ExecutorSpec(**{**vars(SPEC), "resumes": lambda call: True})


async def pause() -> None:
    await asyncio.sleep(0)


async def test_a_task_that_outlives_its_step_goes_on_and_ends_later(story: Story) -> None:
    instrument(Engine, SPEC)
    engine = Engine()

    async def outer() -> None:
        engine.leave("inner", pause)
        await asyncio.sleep(0)

    async def work() -> None:
        await engine.work("outer", outer)
        await engine.left[0]

    await engine.run(work)

    assert engine.did == ["outer", "inner"]
    assert story("r") == [
        "workflow_start", "step_start outer 1", "step_start outer/inner 1", "step_finish outer 1",
        "step_finish outer/inner 1", "workflow_end completed",
    ]  # fmt: skip


async def test_what_a_run_leaves_behind_is_recorded_after_its_end(
    story: Story, events: Events
) -> None:
    instrument(Engine, SPEC)
    engine = Engine()

    async def work() -> None:
        engine.leave("open", pause)
        await asyncio.sleep(0)
        engine.leave("not begun")

    await engine.run(work)
    assert story("r")[-1] == "workflow_end completed"
    assert holder(LOGS / "r.lease") is None
    await asyncio.gather(*engine.left)

    assert sorted(engine.did) == ["not begun", "open"]
    assert story("r")[2:] == [
        "workflow_end completed", "step_finish open 1", "step_start not begun 1",
        "step_finish not begun 1",
    ]  # fmt: skip
    assert [one.get("late") for one in events("r")] == [None] * 3 + [True] * 3
    (run,) = list_runs()
    assert (run.status, run.seq) == ("completed", 6)
    assert history("r").status == "completed"
    assert {one.status for one in history("r").steps} == {"completed"}
    verify("r").raise_if_bad()


async def test_a_failure_after_the_end_is_recorded_and_raised(story: Story) -> None:
    instrument(Engine, SPEC)
    engine = Engine()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("too late")

    async def work() -> None:
        engine.leave("a", fail)
        await asyncio.sleep(0)
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        await engine.run(work)
    with pytest.raises(ValueError, match=r"^too late$"):
        await engine.left[0]

    assert story("r")[2:] == ["workflow_end failed", "step_fail a 1 failed"]
    assert next(list_runs()).status == "failed"


class Threads:
    """An executor whose step leaves a thread behind, which does a step, too."""

    def __init__(self) -> None:
        self.gate, self.did = threading.Event(), list[str]()

    def run(self, name: str = "r") -> Any:
        return self.work("outer")

    def work(self, name: str) -> Any:
        self.did.append(name)
        if name == "outer":
            begun, context = threading.Event(), copy_context()
            thread = threading.Thread(target=context.run, args=(self._inside, begun))
            thread.start()
            begun.wait()
            return thread
        return None

    def _inside(self, begun: threading.Event) -> None:
        self.work("early")
        begun.set()
        self.gate.wait()
        self.work("late")


def test_a_thread_that_outlives_the_run_is_not_waited_for(story: Story) -> None:
    instrument(Threads, SPEC)
    threads = Threads()

    thread = threads.run()
    assert story("r")[-1] == "workflow_end completed"
    threads.gate.set()
    thread.join()

    assert threads.did == ["outer", "early", "late"]
    assert story("r")[2:] == [
        "step_start outer/early 1", "step_finish outer/early 1", "step_finish outer 1",
        "workflow_end completed", "step_start outer/late 1", "step_finish outer/late 1",
    ]  # fmt: skip


async def test_steps_of_ours_that_outlive_the_run_are_recorded_too(
    story: Story, events: Events
) -> None:
    @step
    async def ours(number: int) -> int:
        await asyncio.sleep(0)
        return number + 1

    instrument(Engine, SPEC)
    engine = Engine()
    results: list[Any] = []

    async def call() -> None:
        await asyncio.sleep(0)
        results.append(await ours(1))
        results.append(current_step().step_id)
        annotate("seen", what="late")

    async def work() -> None:
        engine.leave("a", call)
        await asyncio.sleep(0)

    await engine.run(work)
    await engine.left[0]

    assert results == [2, "a"]
    assert story("r")[2:] == [
        "workflow_end completed", "step_start a/ours 1", "step_finish a/ours 1",
        "annotation seen", "step_finish a 1",
    ]  # fmt: skip
    assert events("r")[4]["result"] == 2


async def test_nested_steps_are_no_ground_for_a_remark(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(Engine, RESUMES)
    engine = Engine()

    async def fail() -> None:
        raise ValueError("no")

    async def inner() -> None:
        await engine.work("inner")
        if len(engine.did) == 1:
            await engine.work("bad", fail)

    async def work() -> None:
        await engine.work("outer", inner)

    with pytest.raises(ValueError, match="no"):
        await engine.run(work)
    engine.did = ["something"]
    await engine.run(work)

    assert not [line for line in story("r") if line.startswith("annotation")]
    assert not caplog.records


async def test_nested_steps_of_an_executor_inside_one_of_ours_are_none_either(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine()

    @step
    async def ours() -> None:
        await engine.work("inner")

    instrument(Engine, SPEC)
    await engine.run(ours)

    assert story("r")[1:5] == [
        "step_start ours 1", "step_start ours/inner 1", "step_finish ours/inner 1",
        "step_finish ours 1",
    ]  # fmt: skip
    assert not caplog.records


async def test_a_step_of_ours_does_not_cancel_the_steps_of_an_executor(story: Story) -> None:
    engine = Engine()

    @step
    async def ours() -> None:
        engine.leave("inner", pause)
        await asyncio.sleep(0)

    instrument(Engine, SPEC)
    await engine.run(ours)
    await engine.left[0]

    assert engine.did == ["inner"]
    assert story("r")[-3:] == [
        "step_finish ours 1", "workflow_end completed", "step_finish ours/inner 1",
    ]  # fmt: skip


async def test_two_attempts_at_once_each_get_their_own_end(story: Story) -> None:
    instrument(Engine, SPEC)
    engine = Engine()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("the first")

    async def work() -> None:
        engine.leave("a", fail)
        await asyncio.sleep(0)
        await engine.work("a")
        with pytest.raises(ValueError, match="the first"):
            await engine.left[0]

    await engine.run(work)

    assert story("r")[1:-1] == [
        "step_start a 1", "step_start a 2", "step_finish a 2", "step_fail a 1 failed",
    ]  # fmt: skip
    found = history("r").by_id["a"]
    assert [one.status for one in found.attempts] == ["failed", "completed"]
    assert found.status == "completed"


async def test_a_worker_of_an_earlier_run_serves_the_one_in_progress(story: Story) -> None:
    instrument(Engine, SPEC)
    engine = Engine()
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def serve() -> None:
        while (name := await queue.get()) != "stop":
            await engine.work(name)
            queue.task_done()

    async def first() -> None:
        engine.left.append(asyncio.create_task(serve()))
        await queue.put("a")
        await queue.join()

    async def second() -> None:
        await queue.put("b")
        await queue.join()

    await engine.run(first, "one")
    await engine.run(second, "two")
    await queue.put("stop")
    await engine.left[0]

    assert story("one")[1:-1] == ["step_start a 1", "step_finish a 1"]
    assert story("two")[1:-1] == ["step_start b 1", "step_finish b 1"]


# ---------------------------------------------------------------- the log is another's now


async def test_after_a_resume_the_resumed_run_is_left_alone(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(Engine, RESUMES)
    engine = Engine()

    async def nested() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await engine.work("b")

    async def work() -> None:
        engine.leave("a", nested)
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await engine.run(work)
    await engine.run(pause)
    await engine.left[0]

    assert engine.did == ["b", "a"]
    assert story("r")[2:] == [
        "workflow_end failed", "workflow_resume", "step_fail a 1 interrupted",
        "workflow_end completed",
    ]  # fmt: skip
    assert caplog.text.count("was resumed while steps of its execution 1 were in progress") == 1


async def test_while_the_resumed_run_is_in_progress_too(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(Engine, RESUMES)
    engine = Engine()

    async def work() -> None:
        engine.leave("a", pause)
        await asyncio.sleep(0)
        raise ValueError("no")

    async def again() -> None:
        await engine.left[0]

    with pytest.raises(ValueError, match="no"):
        await engine.run(work)
    await engine.run(again)

    assert engine.did == ["a"]
    assert story("r")[-2:] == ["step_fail a 1 interrupted", "workflow_end completed"]
    assert "was resumed while steps" in caplog.text


async def test_what_a_resume_finds_open_in_several_attempts_is_interrupted(story: Story) -> None:
    instrument(Engine, RESUMES)
    engine = Engine()

    async def forever() -> None:
        await asyncio.Event().wait()

    async def work() -> None:
        engine.leave("a", forever)
        engine.leave("a", forever)
        await asyncio.sleep(0)

    await engine.run(work)
    assert "a" in str(next(outlook(history("r"), None)))
    await engine.run(pause)

    assert story("r")[5:7] == ["step_fail a 1 interrupted", "step_fail a 2 interrupted"]
    assert [one.status for one in history("r").by_id["a"].attempts] == ["interrupted"] * 2
    for task in engine.left:
        task.cancel()
    assert await asyncio.gather(*engine.left, return_exceptions=True)


class Held(Unsynced):
    """Files of which another process holds the lease for a number of attempts to take it."""

    def __init__(self, times: int) -> None:
        self.times = times

    def lock(self, descriptor: int) -> bool:
        self.times -= 1
        return self.times < 0 and super().lock(descriptor)


@pytest.mark.parametrize(("times", "logged"), [(3, True), (10**6, False)])
async def test_a_lease_that_is_held_for_a_moment_is_waited_for(
    story: Story, caplog: pytest.LogCaptureFixture, times: int, logged: bool
) -> None:
    instrument(Engine, SPEC)
    engine = Engine()

    async def work() -> None:
        engine.leave("a")

    await engine.run(work)
    with files.use(Held(times)):
        await engine.left[0]

    assert engine.did == ["a"]
    assert (story("r")[2:] != []) is logged
    assert ("events of run 'r' are not logged" in caplog.text) is not logged


async def test_spans_of_a_completed_run_are_continued_behind(story: Story) -> None:
    """Another holder of the lease has added to the log since."""
    instrument(Engine, SPEC)
    engine = Engine()

    async def work() -> None:
        engine.leave("a", pause)
        await asyncio.sleep(0)

    await engine.run(work)
    append_annotation(LOGS / "r.jsonl")
    await engine.left[0]

    assert story("r")[2:] == ["workflow_end completed", "annotation other", "step_finish a 1"]


def append_annotation(path: Path) -> None:
    from logs import event
    from tapps_otel.log.writer import LogWriter

    lease = Lease(path.with_suffix(".lease"), "r")
    writer = LogWriter(path, "r", durability="os")
    writer.append(event("annotation", name="other", workflow_id="r"))
    writer.close()
    lease.release()


@pytest.mark.parametrize("durability", ["commit", "os"])
async def test_a_log_that_is_gone_costs_only_the_log(
    caplog: pytest.LogCaptureFixture, durability: Any
) -> None:
    configure(durability=durability)
    instrument(Engine, SPEC)
    engine = Engine()

    async def call() -> None:
        await asyncio.sleep(0)
        await engine.work("b")

    async def work() -> None:
        engine.leave("a", call)
        await asyncio.sleep(0)

    await engine.run(work)
    (LOGS / "r.jsonl").unlink()
    await engine.left[0]

    assert engine.did == ["b", "a"]
    assert not (LOGS / "r.jsonl").exists()
    assert caplog.text.count("events of run 'r' are not logged") == 1


# ---------------------------------------------------------------- the run is another process's


@pytest.mark.parametrize("on_log_failure", ["continue", "stop"])
async def test_a_run_that_another_process_takes_costs_only_the_log_unless_it_is_to_stop(
    caplog: pytest.LogCaptureFixture, on_log_failure: Any
) -> None:
    configure(durability="commit", on_log_failure=on_log_failure)
    instrument(Engine, SPEC)
    engine = Engine()
    others: list[Lease] = []

    async def clean() -> None:
        shutil.rmtree(LOGS)
        others.append(Lease(LOGS / "r.lease", "r"))

    async def work() -> None:
        await engine.work("a", clean)
        await engine.work("b")
        await engine.work("c")

    if on_log_failure == "stop":
        with pytest.raises(LeaseLostError):
            await engine.run(work)
        assert engine.did == ["a"]
    else:
        await engine.run(work)
        assert engine.did == ["a", "b", "c"]
        assert caplog.text.count("what these do from now on is not logged") == 1
    assert holder(LOGS / "r.lease") is not None
    others[0].release()
