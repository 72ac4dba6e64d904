"""Subclasses that override what is hooked, with and without a call of the base class's method."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tapps_agents_project import FIVE, Project, chain
from tapps_otel import history, list_runs
from tapps_otel.instrumentation import instrument, report, uninstrument

Story = Callable[..., list[str]]
Events = Callable[..., list[dict[str, Any]]]

GOOD = [
    "workflow_start",
    *(f"{what} {step} 1" for step in FIVE for what in ("step_start", "step_finish")),
    "workflow_end completed",
]


@pytest.fixture(autouse=True)
def _instrumented(_own_place: None) -> None:
    instrument("tapps_agents")


def own(project: Project, **methods: Any) -> Any:
    """An executor of a subclass with these methods; each test has a class of its own."""
    from tapps_agents.workflow.executor import WorkflowExecutor

    made = type("Own", (WorkflowExecutor,), methods)(project_root=project.root)
    made.load_workflow(project.root / "flow.yaml")
    made.auto_progression.max_retry_backoff = 0
    return made


async def in_batches(self: Any, **_: Any) -> Any:
    """An ``execute()`` of its own, by what the engine has for batches."""
    self.start()
    done: set[str] = set()
    while ready := self._find_ready_steps(done, set()):
        results = await self._execute_steps_parallel(ready, None)
        await self._process_parallel_results(results, done, set())
    return "any result"


async def by_marks(self: Any, **_: Any) -> Any:
    """An ``execute()`` of its own, which calls agents itself and marks their steps."""
    self.start()
    for step in self.workflow.steps:
        module = __import__(f"tapps_agents.agents.{step.agent}.agent", fromlist=["*"])
        await getattr(module, f"{step.agent.title()}Agent")().run(step.action)
        self.state.variables[f"{step.agent}_result"] = step.id
        self.mark_step_complete(step.id, [{"name": one, "path": one} for one in step.creates])
    return self.state


@pytest.mark.parametrize("execute", [in_batches, by_marks])
async def test_an_execute_without_super_has_a_true_log(
    project: Project, story: Story, execute: Callable[..., Any]
) -> None:
    project.write()
    await own(project, execute=execute).execute()

    assert story() == GOOD
    assert len(project.did.all) == 5
    (run,) = list_runs()
    assert run.status == "completed"


async def test_the_failure_of_an_execute_without_super_is_logged(
    project: Project, story: Story
) -> None:
    async def execute(self: Any) -> Any:
        self.start()
        self.mark_step_complete("s1")
        raise KeyError("of its own")

    project.write()
    with pytest.raises(KeyError, match="of its own"):
        await own(project, execute=execute).execute()

    assert story()[-1] == "workflow_end failed"


async def test_an_execute_that_calls_no_hooked_method_has_no_log_and_a_warning(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    async def execute(self: Any) -> Any:
        self.start()
        self.state.status = "completed"
        return self.state

    project.write()
    executor = own(project, execute=execute)
    for _ in range(2):
        assert (await executor.execute()).status == "completed"

    assert not [*list_runs()]
    assert caplog.text.count("Own executes workflows without tapps-agents' own methods") == 1


async def test_each_call_of_super_is_a_run(project: Project, caplog: Any) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor

    async def execute(self: Any, **given: Any) -> Any:
        self.workflow.id = "first"
        await WorkflowExecutor.execute(self, **given)
        self.workflow.id = "second"
        return await WorkflowExecutor.execute(self, **given)

    project.write()
    state = await own(project, execute=execute).execute()

    assert state.status == "completed"
    runs = [*list_runs()]
    assert {run.status for run in runs} == {"completed"}
    assert len(runs) == 2
    assert caplog.text == ""


async def test_an_override_of_an_override_is_one_run(project: Project, story: Story) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor

    class Middle(WorkflowExecutor):  # type: ignore[misc]
        execute = in_batches

    class Own(Middle):
        async def execute(self, **given: Any) -> Any:
            return await super().execute(**given)

    path = project.write()
    executor = Own(project_root=project.root)
    executor.load_workflow(path)
    assert await executor.execute() == "any result"

    assert story() == GOOD


async def test_a_start_without_super_begins_a_run_of_its_own(
    project: Project, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor
    from tapps_agents.workflow.models import WorkflowState

    monkeypatch.setenv("TAPPS_AGENTS_PRESERVE_WORKFLOW_ID", "true")

    def start(self: WorkflowExecutor, workflow: Any = None) -> Any:
        from datetime import datetime

        self.state = WorkflowState(
            workflow_id="demo",
            started_at=datetime.now(),  # noqa: DTZ005
            status="running",
        )
        return self.state

    project.write()
    for _ in range(2):
        await own(project, start=start).execute()

    assert story("demo") == story("demo.2") == GOOD


async def test_an_initialization_without_super_has_a_true_log(
    project: Project, story: Story
) -> None:
    def initialize(self: Any, workflow: Any, target_file: Any) -> None:
        self.start()

    project.write()
    await own(project, _initialize_execution=initialize).execute()

    assert story() == GOOD


def batches_of_its_own(executor: Any) -> Any:
    """A ``ParallelStepExecutor`` whose batches are not executed by tapps-agents."""
    from tapps_agents.workflow.models import StepExecution
    from tapps_agents.workflow.parallel_executor import ParallelStepExecutor, StepExecutionResult

    class Serial(ParallelStepExecutor):  # type: ignore[misc]
        async def execute_parallel(self, steps: Any, execute_fn: Any, **_: Any) -> Any:
            return [await self._one(step, execute_fn) for step in steps]

        async def _one(self, step: Any, execute_fn: Any) -> Any:
            from datetime import datetime

            now = datetime.now()  # noqa: DTZ005
            record = StepExecution(step.id, step.agent, step.action, started_at=now)
            try:
                made, error = await execute_fn(step), None
                record.status = "completed"
            except RuntimeError as failure:
                made, error, record.status = {}, failure, "failed"
            return StepExecutionResult(step, record, made, error, 1)

    executor.parallel_executor = Serial()
    return executor


async def test_batches_without_super_are_logged_when_they_have_ended(
    project: Project, story: Story, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    project.write()
    executor = batches_of_its_own(project.executor())
    assert (await executor.execute()).status == "completed"

    assert story() == GOOD
    started, finished = events()[1:3]
    assert (started["late"], finished["late"], finished["duration_ns"]) == (True, True, 0)
    assert finished["artifacts"][0]["name"] == "requirements.md"
    assert finished["result"]["analyst_result"] == {"by": "analyst"}
    assert caplog.text.count("Serial executes steps without tapps-agents' execute_parallel()") == 1


async def test_failures_in_batches_without_super_are_logged(project: Project, story: Story) -> None:
    async def fail() -> None:
        raise RuntimeError("no luck")

    project.write([one | {"metadata": {"retry": {"enabled": False}}} for one in chain()])
    project.does["planner"] = fail
    await batches_of_its_own(project.executor()).execute()

    assert story()[-3:] == ["step_start s2 1", "step_fail s2 1 failed", "workflow_end failed"]


async def test_uninstrument_restores_what_a_subclass_overrides(project: Project) -> None:
    project.write()
    executor = own(project, execute=by_marks)
    kind = type(executor)
    assert vars(kind)["execute"] is not by_marks
    assert report("tapps_agents").hooks[f"{__name__}.Own.execute"] == "on"
    uninstrument("tapps_agents")

    assert vars(kind)["execute"] is by_marks
    await executor.execute()
    assert not [*list_runs()]
    instrument("tapps_agents")
    assert own(project, execute=by_marks).state is None


def test_a_subclass_without_overrides_is_not_changed(project: Project) -> None:
    project.write()
    before = dict(vars(type(own(project))))

    assert "execute" not in before


def test_a_plain_function_as_execute_stays_one(project: Project) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor

    def execute(self: Any) -> Any:
        return asyncio.run(WorkflowExecutor.execute(self))

    project.write()

    assert own(project, execute=execute).execute().status == "completed"
    (run,) = list_runs()
    assert history(run.workflow_id).status == "completed"


def test_a_mark_without_super_is_not_logged_and_never_leaves_a_run_interrupted(
    project: Project, story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    def mark(self: Any, step_id: str) -> None:
        self.state.completed_steps.append(step_id)
        if len(self.state.completed_steps) == len(FIVE) - 1:
            self.state.status = "completed"

    project.write()
    executor = own(project, mark_step_complete=mark)
    executor.start()
    executor.skip_step("s1")
    for name in [*FIVE][1:]:
        executor.mark_step_complete(name)

    assert story() == ["workflow_start", "step_skip s1 0", "workflow_end completed"]
    said = "Own has a mark() that does not call that of tapps-agents: its calls are not logged"
    assert caplog.text.count(said) == 1


def test_each_method_that_is_not_logged_is_told(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    def mark(self: Any, step_id: str) -> None:
        self.state.completed_steps.append(step_id)

    def skip(self: Any, step_id: str) -> None:
        self.state.skipped_steps.append(step_id)

    project.write()
    executor = own(project, mark_step_complete=mark, skip_step=skip)
    executor.start()
    for name in ("s1", "s2"):
        executor.mark_step_complete(name)
        executor.skip_step(name)

    assert caplog.text.count("Own has a mark()") == caplog.text.count("Own has a skip()") == 1


@pytest.mark.parametrize("calls_super", [False, True])
def test_a_pause_of_a_subclass_is_logged_if_it_calls_that_of_its_base(
    project: Project, story: Story, caplog: pytest.LogCaptureFixture, *, calls_super: bool
) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor

    def pause(self: Any) -> None:
        if calls_super:
            WorkflowExecutor.pause_workflow(self)
        else:
            self.state.status = "paused"

    project.write()
    executor = own(project, pause_workflow=pause)
    executor.start()
    executor.mark_step_complete("s1")
    executor.pause_workflow()

    said = "Own has a pause() that does not call that of tapps-agents: its calls are not logged"
    assert (said in caplog.text) is not calls_super
    assert any("tapps.pause" in one for one in story()) is calls_super
    (run,) = list_runs()
    assert run.status != "interrupted"


def test_a_mark_with_super_is_logged_once(
    project: Project, story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor

    def mark(self: Any, step_id: str) -> None:
        WorkflowExecutor.mark_step_complete(self, step_id)

    project.write()
    executor = own(project, mark_step_complete=mark)
    executor.start()
    for name in FIVE:
        executor.mark_step_complete(name)

    assert story() == GOOD
    assert caplog.text == ""


async def test_cursor_mode_too(
    project: Project, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_AGENTS_MODE", "cursor")
    from tapps_agents.workflow.cursor_executor import CursorWorkflowExecutor
    from tapps_agents.workflow.parser import WorkflowParser

    class Own(CursorWorkflowExecutor):  # type: ignore[misc]
        async def run(self, **_: Any) -> Any:
            await self.start(workflow=WorkflowParser.parse_file(Path("flow.yaml")))

            async def execute(step: Any) -> dict[str, Any]:
                project.did(step.id)
                return {}

            await self.parallel_executor.execute_parallel(
                self.workflow.steps[:1], execute, state=self.state
            )
            self.state.status = "completed"

    project.write()
    await Own(project_root=project.root).run()

    assert story() == [
        "workflow_start", "step_start s1 1", "step_finish s1 1", "workflow_end completed",
    ]  # fmt: skip
