"""Executors of other classes, instrumented by a short spec."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tapps_otel import configure, current_step, history, step
from tapps_otel.instrumentation import ExecutorSpec, instrument, uninstrument


@dataclass
class Task:
    name: str
    does: Callable[[], Any] = lambda: None
    makes: list[str] = field(default_factory=list)


Story = Callable[..., list[str]]
LOGS = Path(".tapps-agents/workflow-state/events")


class Pool:
    """An executor that runs every task in a thread of a pool."""

    def run(self, plan: list[Task], name: str = "build") -> list[Any]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(self.work, plan))

    def work(self, task: Task) -> Any:
        return task.does()


class Loop:
    """An executor that runs every task on an event loop."""

    async def run(self, plan: list[Task], name: str = "loop") -> str:
        async with asyncio.TaskGroup() as group:
            for task in plan:
                group.create_task(self.work(task))
        return "done" if plan else "stuck"

    async def work(self, task: Task) -> Any:
        await asyncio.sleep(0)
        return task.does()


SPEC = ExecutorSpec(
    executor="pool",
    run="run",
    step="work",
    run_id=lambda seen: seen.arguments["name"],
    step_id=lambda seen: seen.arguments["task"].name,
    agent=lambda seen: "thread",
    artifacts=lambda seen: seen.arguments["task"].makes,
    outcome=lambda seen: "completed" if seen.result != "stuck" else "stuck",
    skipped=lambda seen: seen.result if isinstance(seen.result, str) else None,
)


def boom() -> None:
    raise ValueError("boom")


def test_steps_in_threads_of_a_pool_belong_to_the_run(story: Story) -> None:
    instrument(Pool, SPEC)

    assert Pool().run([Task("a", lambda: 1), Task("b", lambda: 2)]) == [1, 2]

    lines = story("build")
    assert (lines[0], lines[-1]) == ("workflow_start", "workflow_end completed")
    assert sorted(lines[1:-1]) == [
        "step_finish a 1", "step_finish b 1", "step_start a 1", "step_start b 1",
    ]  # fmt: skip
    assert history("build").workflow == {"name": "pool", "executor": "pool"}


async def test_coroutines_are_steps(story: Story) -> None:
    instrument(Loop, SPEC)

    assert await Loop().run([Task("a"), Task("b")]) == "done"

    lines = story("loop")
    assert sorted(lines[1:-1]) == [
        "step_finish a 1", "step_finish b 1", "step_start a 1", "step_start b 1",
    ]  # fmt: skip


def test_an_exception_passes_unchanged_and_ends_step_and_run(story: Story) -> None:
    instrument(Pool, SPEC)

    with pytest.raises(ValueError, match=r"^boom$") as caught:
        Pool().run([Task("a", boom)])

    assert not hasattr(caught.value, "__notes__")
    assert story("build")[1:] == ["step_start a 1", "step_fail a 1 failed", "workflow_end failed"]


async def test_an_unknown_outcome_is_a_failure_with_an_attribute(events: Any) -> None:
    instrument(Loop, SPEC)

    assert await Loop().run([]) == "stuck"

    end = events("loop")[-1]
    assert (end["status"], end["attributes"]) == ("failed", {"tapps.executor.status": "stuck"})
    assert end["error"]["type"] == "WorkflowFailed"


def test_a_step_that_did_nothing_is_skipped_with_its_reason(events: Any) -> None:
    instrument(Pool, SPEC)
    Pool().run([Task("a", lambda: "nothing to do")])

    skip = events("build")[2]
    assert (skip["event_type"], skip["reason"]) == ("step_skip", "nothing to do")


def test_artifacts_are_summarized(events: Any) -> None:
    instrument(Pool, SPEC)
    Path("out.txt").write_text("made")
    Path("folder").mkdir()
    Pool().run([Task("a", makes=["out.txt", "folder"])])

    made, folder = events("build")[2]["artifacts"]
    assert (made["name"], made["bytes"]) == ("out.txt", 4)
    assert folder["media_type"] == "inode/directory"


def test_a_second_run_of_an_id_gets_a_number(story: Story) -> None:
    instrument(Pool, SPEC)
    for _ in range(3):
        Pool().run([Task("a")])

    assert story("build") == story("build.2") == story("build.3")


def test_a_call_that_resumes_continues_the_log(story: Story) -> None:
    instrument(Pool, ExecutorSpec(**{**vars(SPEC), "resumes": lambda seen: True}))
    with pytest.raises(ValueError, match="boom"):
        Pool().run([Task("a"), Task("b", boom)])
    Pool().run([Task("b")])

    assert story("build")[-4:] == [
        "workflow_resume", "step_start b 2", "step_finish b 2", "workflow_end completed",
    ]  # fmt: skip


def test_a_step_can_use_current_step_and_call_steps(story: Story) -> None:
    @step
    def inner() -> int:
        return 3

    def outer() -> str:
        assert inner() == 3
        return str(current_step().step_id)

    instrument(Pool, ExecutorSpec(**{**vars(SPEC), "skipped": lambda seen: None}))

    assert Pool().run([Task("a/b", outer)]) == ["a%2Fb"]
    assert "step_finish a%2Fb/inner 1" in story("build")


def test_an_executor_inside_a_step_has_its_own_run(events: Any) -> None:
    instrument(Pool, SPEC)
    Pool().run([Task("a", lambda: Pool().run([Task("b")], "inside"))])

    outer, inner = events("build"), events("inside")
    assert inner[0]["trace_id"] == outer[0]["trace_id"]
    assert inner[0]["parent_span_id"] == outer[1]["span_id"]
    note = outer[2]
    assert (note["name"], note["step_id"], note["attributes"]) == (
        "tapps.run", "a", {"workflow_id": "inside"},
    )  # fmt: skip


@pytest.mark.parametrize("word", ["run_id", "inputs", "about"])
def test_a_reader_that_raises_costs_only_the_log(
    word: str, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(Pool, ExecutorSpec(**{**vars(SPEC), word: lambda seen: 1 / 0}))

    assert Pool().run([Task("a", lambda: 1)]) == [1]
    assert "this run continues without a log: ZeroDivisionError" in caplog.text


def test_a_step_without_a_readable_id_is_not_logged(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(Pool, ExecutorSpec(**{**vars(SPEC), "step_id": lambda seen: seen.arguments["no"]}))

    assert Pool().run([Task("a", lambda: 1)]) == [1]
    assert story("build") == ["workflow_start", "workflow_end completed"]
    assert "a step continues without a log: KeyError" in caplog.text


def test_a_log_that_cannot_be_opened_costs_only_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    instrument(Pool, SPEC)
    Path(".tapps-agents").write_text("a file where the folder should be")

    assert Pool().run([Task("a", lambda: 1)]) == [1]
    assert "this run continues without a log" in caplog.text


def test_uninstrument_restores_the_functions() -> None:
    before = dict(vars(Pool))
    instrument(Pool, SPEC)
    instrument(Pool, SPEC)
    assert vars(Pool)["run"] is not before["run"]

    uninstrument(Pool)

    assert dict(vars(Pool)) == before


def make_class(base: type[Any] = object) -> type[Any]:
    class Local(base):  # type: ignore[misc]
        def run(self, plan: list[Task], name: str = "local") -> list[Any]:
            return [self.work(task) for task in plan]

        def work(self, task: Task) -> Any:
            return task.does()

    return Local


def test_a_class_that_a_function_made_is_instrumented(story: Story) -> None:
    first, second = make_class(), make_class()
    report = instrument(first, SPEC)
    assert report.ok
    assert set(report.hooks.values()) == {"on"}

    for kind, name in ((first, "first"), (second, "second")):
        assert kind().run([Task("a", lambda: 1)], name) == [1]
    assert "step_finish a 1" in story("first")
    assert not (LOGS / "second.jsonl").exists()

    instrument(second, SPEC)
    uninstrument(first)
    second().run([Task("a")], "second")
    first().run([Task("a")], "first-again")
    assert "step_finish a 1" in story("second")
    assert not (LOGS / "first-again.jsonl").exists()


def test_a_class_that_its_name_no_longer_leads_to_is_instrumented(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Pool
    monkeypatch.setitem(globals(), "Pool", make_class())
    instrument(given, SPEC)
    given().run([Task("a")])

    assert "step_finish a 1" in story("build")


def test_a_class_and_its_name_are_the_same_target() -> None:
    assert instrument(Pool, SPEC) is instrument(f"{__name__}:Pool", SPEC)


def test_a_missing_method_leaves_the_class_unchanged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = dict(vars(Pool))
    report = instrument(Pool, ExecutorSpec(**{**vars(SPEC), "step": "no_such"}))

    assert dict(vars(Pool)) == before
    assert not report.ok
    assert report.problem is not None
    assert "has no Pool.no_such" in report.problem
    assert "no_such" in caplog.text


def test_the_report_changes_when_the_module_is_imported(tmp_path: Path) -> None:
    Path("later_executor.py").write_text(
        "class Later:\n def run(self): ...\n def work(self): ...\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        report = instrument("later_executor:Later", SPEC)
        assert set(report.hooks.values()) == {"pending"}
        importlib.import_module("later_executor")

        assert set(report.hooks.values()) == {"on"}
        uninstrument("later_executor:Later")
        assert set(report.hooks.values()) == {"off"}
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("later_executor", None)


def test_disabled_nothing_is_wrapped() -> None:
    configure(enabled=False)
    before = dict(vars(Pool))
    report = instrument(Pool, SPEC)

    assert dict(vars(Pool)) == before
    assert set(report.hooks.values()) == {"off"}


def test_disabled_later_nothing_is_logged() -> None:
    instrument(Pool, SPEC)
    configure(enabled=False)

    assert Pool().run([Task("a", lambda: 1)]) == [1]
    assert not Path(".tapps-agents").exists()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(
        LookupError,
        match="no executor 'celery' is supported by name, only langgraph, tapps_agents",
    ):
        instrument("celery")  # type: ignore[call-overload]


def test_the_import_is_cheap() -> None:
    code = (
        "import sys, tapps_otel.instrumentation\n"
        "print([m for m in ('wrapt', 'pydantic', 'opentelemetry', 'msgspec') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


class Lazy:
    """An executor whose methods are plain functions that return coroutines."""

    def run(self, plan: list[Task], name: str = "lazy") -> Any:
        return self._run(plan)

    async def _run(self, plan: list[Task]) -> list[Any]:
        return [await self.work(task) for task in plan]

    def work(self, task: Task) -> Any:
        return self._work(task)

    async def _work(self, task: Task) -> Any:
        await asyncio.sleep(0)
        return task.does()


async def test_a_method_that_returns_a_coroutine_ends_with_it(story: Story) -> None:
    instrument(Lazy, SPEC)
    made = Lazy().run([Task("a", lambda: current_step().step_id), Task("b")])

    assert story("lazy") == ["workflow_start"]
    assert await asyncio.create_task(made) == ["a", None]
    assert story("lazy")[1:] == [
        "step_start a 1", "step_skip a 1", "step_start b 1", "step_finish b 1",
        "workflow_end completed",
    ]  # fmt: skip


async def test_an_exception_of_that_coroutine_ends_the_run(story: Story) -> None:
    instrument(Lazy, SPEC)

    with pytest.raises(ValueError, match=r"^boom$"):
        await Lazy().run([Task("a", boom)])
    assert story("lazy")[1:] == ["step_start a 1", "step_fail a 1 failed", "workflow_end failed"]


class Later:
    def run(self, name: str = "later") -> Any:
        with ThreadPoolExecutor() as pool:
            return pool.submit(self.work, Task("a"))

    def work(self, task: Task) -> None: ...


def test_a_returned_future_is_logged_as_a_warning(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(Later, SPEC)

    assert Later().run().result() is None
    assert story("later")[-1] == "workflow_end completed"
    assert "Later.run returned a Future: what it does after its call has returned" in caplog.text


class Stream:
    def run(self, name: str = "stream") -> Any:
        yield 1

    async def run_async(self, name: str = "stream") -> Any:
        yield 1

    def work(self, task: Task) -> None: ...


@pytest.mark.parametrize("run", ["run", "run_async"])
def test_a_generator_is_refused(run: str, caplog: pytest.LogCaptureFixture) -> None:
    before = dict(vars(Stream))
    report = instrument(Stream, ExecutorSpec(**{**vars(SPEC), "run": run}))

    assert dict(vars(Stream)) == before
    assert not report.ok
    assert f"Stream.{run}: it is a generator" in str(report)
    assert "Its runs are not logged" in caplog.text


class Strange:
    """A method that cannot be inspected: it has no signature, and takes no weak reference."""

    __slots__ = ()

    def __get__(self, instance: object, _: object = None) -> Strange:
        return self

    def __call__(self, *args: Any) -> str:
        if args:
            raise ValueError(*args)
        return "done"

    __signature__ = "none"


class Odd:
    run = Strange()

    def work(self, task: Task) -> None: ...


def test_a_call_that_cannot_be_inspected_is_made_and_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    instrument(Odd, SPEC)

    assert [Odd().run(), Odd().run()] == ["done", "done"]
    with pytest.raises(ValueError, match=r"^theirs$"):
        Odd().run("theirs")
    assert caplog.text.count("Odd.run are not logged") == 1


def test_a_class_that_cannot_be_changed_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    report = instrument(list, ExecutorSpec(**{**vars(SPEC), "run": "append", "step": "pop"}))

    assert not report.ok
    assert "list.append" in caplog.text


def test_a_reader_with_a_wrong_type_does_not_block_the_run(events: Any) -> None:
    instrument(Pool, ExecutorSpec(**{**vars(SPEC), "skipped": lambda seen: seen.result}))

    assert Pool().run([Task("a", lambda: 1)]) == [1]
    assert events("build")[2]["reason"] == "1"


BREAKABLE = [
    *("current_execution", "is_enabled", "MethodCall.bind", "finish_step", "open_run"),
    *("_execute", "_try", "_try_async", "_warn_of_unfinished", "fail_step", "execution_of"),
    *("Execution.__enter__", "Execution.open", "Execution.begin_step", "Execution.pass_on"),
    *("Execution.end", "Execution.end_with_error"),
]


@pytest.mark.parametrize("broken", BREAKABLE)
async def test_a_failing_hook_costs_only_the_log(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a mistake in a hook")

    calls: list[str] = []
    plan = [Task("a", lambda: calls.append("a")), Task("b", lambda: calls.append("b"))]
    for kind in (Pool, Loop, Lazy):
        instrument(kind, SPEC)
    monkeypatch.setattr(f"tapps_otel.instrumentation.spec_hooks.{broken}", fail)

    assert Pool().run(plan) == [None, None]
    assert await Loop().run(plan) == "done"
    assert await Lazy().run(plan) == [None, None]
    assert sorted(calls) == ["a"] * 3 + ["b"] * 3
    with pytest.raises(ValueError, match=r"^boom$"):
        Pool().run([Task("c", boom)])
    with pytest.raises(ValueError, match=r"^boom$"):
        await Lazy().run([Task("c", boom)])
    with pytest.raises(ExceptionGroup, match="unhandled") as caught:
        await Loop().run([Task("c", boom)])
    assert [str(one) for one in caught.value.exceptions] == ["boom"]


class Thing: ...


@pytest.mark.parametrize("failing", ["step", "run"])
async def test_no_task_that_failed_is_kept_alive(failing: str) -> None:
    async def fail() -> None:
        raise ValueError

    class Engine:
        async def run(self, work: Callable[[], Any], name: str = "r") -> Any:
            return await work()

        async def work(self, task: Task) -> Any:
            return await task.does()

    instrument(Engine, SPEC)
    gc.collect()
    gc.disable()
    try:
        engine = Engine()

        async def leave() -> weakref.ref[Any]:
            made = engine.work(Task("a", fail)) if failing == "step" else engine.run(fail, "x")
            task = asyncio.create_task(made)
            await asyncio.wait([task])
            assert task.exception()
            return weakref.ref(task)

        kept = await (engine.run(leave) if failing == "step" else leave())
    finally:
        gc.enable()

    assert kept() is None


@pytest.mark.parametrize("kind", [Pool, Loop, Lazy])
async def test_no_exception_is_kept_alive(kind: type[Any]) -> None:
    made: list[weakref.ref[Thing]] = []

    def fail() -> None:
        thing = Thing()
        made.append(weakref.ref(thing))
        raise ValueError(thing)

    instrument(kind, SPEC)
    gc.collect()
    gc.disable()
    try:
        executor: Any = kind()
        with contextlib.suppress(ValueError):
            done = executor.work(Task("a", fail))
            await done
    finally:
        gc.enable()

    assert made[0]() is None
