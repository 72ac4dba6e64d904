"""An executor of somebody's own, instrumented by a short spec."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
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


class Pool:
    """A home-made executor: every task in a thread of a pool."""

    def run(self, plan: list[Task], name: str = "build") -> list[Any]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(self.work, plan))

    def work(self, task: Task) -> Any:
        return task.does()


class Loop:
    """The same with tasks of an event loop."""

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


def test_steps_in_the_threads_of_a_pool_are_steps_of_the_run(story: Story) -> None:
    instrument(Pool, SPEC)

    assert Pool().run([Task("a", lambda: 1), Task("b", lambda: 2)]) == [1, 2]

    told = story("build")
    assert (told[0], told[-1]) == ("workflow_start", "workflow_end completed")
    assert sorted(told[1:-1]) == [
        "step_finish a 1", "step_finish b 1", "step_start a 1", "step_start b 1",
    ]  # fmt: skip
    assert history("build").workflow == {"name": "pool", "executor": "pool"}


async def test_coroutines_are_steps_too(story: Story) -> None:
    instrument(Loop, SPEC)

    assert await Loop().run([Task("a"), Task("b")]) == "done"

    told = story("loop")
    assert sorted(told[1:-1]) == [
        "step_finish a 1", "step_finish b 1", "step_start a 1", "step_start b 1",
    ]  # fmt: skip


def test_an_exception_passes_unchanged_and_ends_step_and_run(story: Story) -> None:
    instrument(Pool, SPEC)

    with pytest.raises(ValueError, match=r"^boom$") as caught:
        Pool().run([Task("a", boom)])

    assert not hasattr(caught.value, "__notes__")
    assert story("build")[1:] == ["step_start a 1", "step_fail a 1 failed", "workflow_end failed"]


async def test_a_word_that_is_not_ours_is_a_failure_that_keeps_it(events: Any) -> None:
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


def test_files_that_a_step_made_are_summarised(events: Any) -> None:
    instrument(Pool, SPEC)
    Path("out.txt").write_text("made")
    Path("folder").mkdir()
    Pool().run([Task("a", makes=["out.txt", "folder"])])

    made, folder = events("build")[2]["artifacts"]
    assert (made["name"], made["bytes"]) == ("out.txt", 4)
    assert folder["media_type"] == "inode/directory"


def test_a_second_run_under_an_id_gets_a_name_of_its_own(story: Story) -> None:
    instrument(Pool, SPEC)
    for _ in range(3):
        Pool().run([Task("a")])

    assert story("build") == story("build.2") == story("build.3")


def test_a_run_that_says_so_goes_on_in_its_log(story: Story) -> None:
    instrument(Pool, ExecutorSpec(**{**vars(SPEC), "resumes": lambda seen: True}))
    with pytest.raises(ValueError, match="boom"):
        Pool().run([Task("a"), Task("b", boom)])
    Pool().run([Task("b")])

    assert story("build")[-4:] == [
        "workflow_resume", "step_start b 2", "step_finish b 2", "workflow_end completed",
    ]  # fmt: skip


def test_code_of_a_step_can_ask_where_it_is_and_call_steps(story: Story) -> None:
    @step
    def inner() -> int:
        return 3

    def outer() -> str:
        assert inner() == 3
        return str(current_step().step_id)

    instrument(Pool, ExecutorSpec(**{**vars(SPEC), "skipped": lambda seen: None}))

    assert Pool().run([Task("a/b", outer)]) == ["a%2Fb"]
    assert "step_finish a%2Fb/inner 1" in story("build")


def test_an_executor_inside_a_step_of_another_has_a_run_of_its_own(events: Any) -> None:
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
def test_a_reader_that_raises_costs_the_log_and_nothing_else(
    word: str, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(Pool, ExecutorSpec(**{**vars(SPEC), word: lambda seen: 1 / 0}))

    assert Pool().run([Task("a", lambda: 1)]) == [1]
    assert "this run goes on without a log: ZeroDivisionError" in caplog.text


def test_a_step_that_cannot_be_read_goes_on_unlogged(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(Pool, ExecutorSpec(**{**vars(SPEC), "step_id": lambda seen: seen.arguments["no"]}))

    assert Pool().run([Task("a", lambda: 1)]) == [1]
    assert story("build") == ["workflow_start", "workflow_end completed"]
    assert "a step goes on without a log: KeyError" in caplog.text


def test_a_log_that_cannot_be_opened_costs_the_log_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    instrument(Pool, SPEC)
    Path(".tapps-agents").write_text("a file where the folder should be")

    assert Pool().run([Task("a", lambda: 1)]) == [1]
    assert "this run goes on without a log" in caplog.text


def test_uninstrument_puts_the_very_functions_back() -> None:
    before = dict(vars(Pool))
    instrument(Pool, SPEC)
    instrument(Pool, SPEC)
    assert vars(Pool)["run"] is not before["run"]

    uninstrument(Pool)

    assert dict(vars(Pool)) == before


def test_a_method_that_is_not_there_leaves_the_class_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = dict(vars(Pool))
    report = instrument(Pool, ExecutorSpec(**{**vars(SPEC), "step": "no_such"}))

    assert dict(vars(Pool)) == before
    assert not report.ok
    assert report.problem is not None
    assert "has no Pool.no_such" in report.problem
    assert "no_such" in caplog.text


def test_the_report_follows_what_is_imported(tmp_path: Path) -> None:
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


def test_with_the_switch_off_nothing_is_wrapped() -> None:
    configure(enabled=False)
    before = dict(vars(Pool))
    report = instrument(Pool, SPEC)

    assert dict(vars(Pool)) == before
    assert set(report.hooks.values()) == {"off"}


def test_switched_off_later_runs_are_as_without_us() -> None:
    instrument(Pool, SPEC)
    configure(enabled=False)

    assert Pool().run([Task("a", lambda: 1)]) == [1]
    assert not Path(".tapps-agents").exists()


def test_a_name_that_nobody_knows_is_refused() -> None:
    with pytest.raises(LookupError, match="no executor 'celery' is known here, only tapps_agents"):
        instrument("celery")


def test_importing_it_brings_nothing_heavy() -> None:
    code = (
        "import sys, tapps_otel.instrumentation\n"
        "print([m for m in ('wrapt', 'pydantic', 'opentelemetry', 'msgspec') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
