"""Killed runs of the real tapps-agents resume from their logs, without the steps that are done."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tapps_otel
from crashes import in_child, killed
from tapps_agents_project import (
    FIVE,
    LOGS,
    Project,
    chain,
    fail,
    is_parallel,
    kill_process,
    only_run,
)
from tapps_otel import configure, history
from tapps_otel.errors import (
    LogDamagedError,
    RunBusyError,
    RunConflictError,
    RunNotFoundError,
    SettingsError,
)
from tapps_otel.instrumentation import instrument
from tapps_otel.instrumentation.tapps_agents import resume

Story = Callable[..., list[str]]
Events = Callable[..., list[dict[str, Any]]]

STATES = Path(".tapps-agents/workflow-state")
FIRST = ["analyst", "planner", "architect"]
REST = ["architect", "ops", "documenter"]


@pytest.fixture(autouse=True)
def _instrumented(_own_place: None) -> None:
    instrument("tapps_agents")


def resumed(project: Project, name: str | None = None, **options: Any) -> Any:
    return asyncio.run(resume(project.executor(), name or only_run(), **options))


# ---------------------------------------------------------------- what a crash may leave


def keep(_: str) -> None: ...


def delete(_: str) -> None:
    for path in STATES.rglob("*.json"):
        path.unlink()


def corrupt(_: str) -> None:
    for path in STATES.rglob("*.json"):
        path.write_text(path.read_text()[: path.stat().st_size // 2])


def tear(name: str) -> None:
    delete(name)
    with (LOGS / f"{name}.jsonl").open("ab") as file:
        file.write(b'{"v":1,"seq":7,"event_ty')


@pytest.mark.parametrize("damage", [keep, delete, corrupt, tear])
def test_killed_in_the_third_of_five_steps(
    project: Project, story: Story, events: Events, damage: Callable[[str], None]
) -> None:
    name = project.kill_in()
    assert project.did.all == FIRST
    damage(name)
    state = resumed(project)

    assert project.did.all == [*FIRST, *REST]
    assert (state.status, state.workflow_id) == ("completed", name)
    found = [one for one in story() if not one.startswith("log_repair")]
    assert found[-9:] == [
        "workflow_resume", "step_fail s3 1 interrupted",
        "step_start s3 2", "step_finish s3 2",
        *(f"{what} {one} 1" for one in ("s4", "s5") for what in ("step_start", "step_finish")),
        "workflow_end completed",
    ]  # fmt: skip
    assert {one["workflow_id"] for one in events()} == {name}
    assert len({one["trace_id"] for one in events() if "trace_id" in one}) == 1


def test_a_step_whose_artifact_is_missing_runs_again(project: Project, story: Story) -> None:
    project.kill_in()
    shutil.rmtree("stories")
    state = resumed(project)

    assert state.status == "completed"
    assert project.did.all == [*FIRST, "planner", *REST]
    assert "step_start s2 2" in story()


def test_a_changed_artifact_is_logged_as_a_warning(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.kill_in()
    Path("requirements.md").write_text("edited")
    resumed(project)

    assert project.did.all == [*FIRST, *REST]
    assert "artifact requirements.md of step s1 has changed since" in caplog.text


def test_finished_siblings_do_not_run_again(project: Project, story: Story, events: Events) -> None:
    if not is_parallel():
        pytest.skip("tapps-agents runs one step at a time since 3.5.40")
    first = {"id": "a", "agent": "analyst", "action": "gather_requirements"}
    after = {"requires": ["requirements.md"]}
    project.write(
        [
            first | {"creates": ["requirements.md"]},
            after | {"id": "b", "agent": "planner", "action": "create_stories"},
            after | {"id": "c", "agent": "architect", "action": "design_system"},
            after | {"id": "d", "agent": "ops", "action": "security_scan"},
            {"id": "e", "agent": "documenter", "action": "generate_docs", "requires": ["x"]},
        ]
    )

    async def die_when_the_others_are_done() -> None:
        while not {"step_finish b 1", "step_finish d 1"} <= set(story()):  # noqa: ASYNC110 - a file
            await asyncio.sleep(0)
        await kill_process()

    project.does["architect"] = die_when_the_others_are_done
    assert in_child(project.run).code == -signal.SIGKILL
    assert {"step_finish b 1", "step_finish d 1"} <= set(story())
    project.does.clear()
    before = project.did.all
    resumed(project)

    assert project.did.all == [*before, "architect"]


# ---------------------------------------------------------------- which runs resume


def test_the_state_of_a_completed_run_comes_from_its_log(project: Project, story: Story) -> None:
    project.write()
    first = project.run().state
    before = story()
    state = resumed(project)

    assert (state.status, state.workflow_id) == ("completed", first.workflow_id)
    assert state.completed_steps == list(FIVE)
    assert story() == before
    assert len(project.did.all) == 5


def test_a_completed_run_needs_no_file_of_its_project(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    run_path = project.write()
    project.run()
    run_path.unlink()
    (project.root / "requirements.md").unlink()
    caplog.clear()
    state = asyncio.run(tapps_otel.resume(only_run()))

    assert state.completed_steps == list(FIVE)
    assert set(state.artifacts) == {creates for _, _, creates in FIVE.values()}
    assert "again" not in caplog.text


def test_a_failed_run_resumes_at_the_failed_step(project: Project, story: Story) -> None:
    project.write([one | {"metadata": {"retry": {"enabled": False}}} for one in chain()])
    project.does["architect"] = fail
    assert project.run().state.status == "failed"
    project.does.clear()
    state = resumed(project)

    assert state.status == "completed"
    assert project.did.all == [*FIRST, *REST]
    assert "step_start s3 2" in story()


def test_a_paused_run_resumes(project: Project, story: Story) -> None:
    project.write()
    executor = project.executor()

    async def pause() -> None:
        executor.pause_workflow()

    project.does["planner"] = pause
    assert asyncio.run(executor.execute()).status == "paused"
    project.does.clear()

    assert resumed(project).status == "completed"
    assert project.did.all == ["analyst", "planner", *REST]


def test_an_executor_can_resume_its_own_run(project: Project) -> None:
    project.write([one | {"metadata": {"retry": {"enabled": False}}} for one in chain()])

    project.does["architect"] = fail
    executor = project.executor()
    asyncio.run(executor.execute())
    project.does.clear()
    state = asyncio.run(resume(executor, only_run()))

    assert state.status == "completed"
    assert project.did.all == [*FIRST, *REST]
    asyncio.run(executor.execute())  # starts a new run
    assert len(project.did.all) == 11


def test_a_run_in_progress_is_not_resumed_by_another_process(project: Project) -> None:
    project.write()

    async def try_it() -> None:
        outcome = in_child(lambda: asyncio_refused(project))
        assert outcome.value == "RunBusyError", outcome

    project.does["planner"] = try_it

    assert project.run().state.status == "completed"


def asyncio_refused(project: Project) -> str:
    asyncio.set_event_loop(None)
    asyncio._set_running_loop(None)
    try:
        resumed(project)
    except RunBusyError as error:
        return type(error).__name__
    return "nothing"


def test_a_missing_run_is_refused(project: Project) -> None:
    project.write()
    with pytest.raises(RunNotFoundError, match="no run 'nothing'"):
        resumed(project, "nothing")


def test_a_run_of_another_kind_is_refused(project: Project) -> None:
    from tapps_otel import Run

    project.write()
    with Run.open("build", workflow_id="b1"):
        pass
    with Run.open("Demo", workflow_id="b2") as other:
        other.call("x", lambda: 1)
    with pytest.raises(RunConflictError, match="run 'b1' is a run of 'build', not of tapps-agents"):
        resumed(project, "b1")
    project.run()
    mine = next(path.stem for path in LOGS.glob("demo-*.jsonl") if ".events" not in path.name)
    with pytest.raises(RunConflictError):
        Run.open("Demo", workflow_id=mine)


def test_a_damaged_log_is_refused(project: Project) -> None:
    name = project.kill_in()
    path = LOGS / f"{name}.jsonl"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"Demo", b"Dumo"))
    with pytest.raises(LogDamagedError):
        resumed(project)
    assert project.did.all == FIRST
    path.write_bytes(good)


def test_disabled_nothing_can_be_resumed(project: Project) -> None:
    project.kill_in()
    configure(enabled=False)
    with pytest.raises(SettingsError, match="switched off"):
        resumed(project)


# ---------------------------------------------------------------- a workflow that has changed


def test_changed_steps_are_refused_with_a_diff(project: Project, story: Story) -> None:
    project.kill_in()
    before = story()
    project.write([one | ({"action": "audit"} if one["id"] == "s4" else {}) for one in chain()])
    with pytest.raises(RunConflictError) as caught:
        resumed(project)

    said = str(caught.value)
    assert '-  action: "security_scan"\n+  action: "audit"' in said
    assert f"tapps-otel resume {only_run()} --accept-change" in said
    assert story() == before
    assert resumed(project, accept_change=True).status == "completed"
    assert project.did.all == [*FIRST, *REST]
    assert history(only_run()).workflow["steps"][3]["action"] == "audit"


def test_a_file_with_equal_steps_is_unchanged(project: Project) -> None:
    project.kill_in()
    path = project.root / "flow.yaml"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=3))

    assert resumed(project).status == "completed"


def test_the_logged_steps_are_those_that_were_loaded(project: Project) -> None:
    """The file and the object may change between loading and running."""
    path = project.write()
    executor = project.executor()
    project.write(chain()[:2])
    executor.workflow.steps[0].notes = "changed in memory"
    asyncio.run(executor.execute(max_steps=2))

    found = history(only_run()).workflow
    assert [one["id"] for one in found["steps"]] == list(FIVE)
    assert "notes" not in found["steps"][0]
    assert path.name == found["source"]


def test_a_missing_workflow_file_is_refused(project: Project) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor

    name = project.kill_in()
    (project.root / "flow.yaml").unlink()
    with pytest.raises(RunConflictError, match=r"cannot be loaded from .*flow.yaml"):
        asyncio.run(resume(WorkflowExecutor(project_root=project.root), name))


def test_a_missing_workflow_is_loaded_from_the_logged_file(project: Project) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor

    name = project.kill_in()
    state = asyncio.run(resume(WorkflowExecutor(project_root=project.root), name))

    assert state.status == "completed"
    assert project.did.all == [*FIRST, *REST]


# ---------------------------------------------------------------- variables


def test_variables_come_from_a_snapshot(project: Project) -> None:
    project.kill_in()
    state = resumed(project)

    assert state.variables["planner_result"] == {"by": "planner"}


def test_variables_come_from_the_log_with_the_setting(project: Project) -> None:
    configure(executor_variables=True)
    name = project.kill_in()
    delete(name)
    state = resumed(project)

    assert state.variables["planner_result"] == {"by": "planner"}


def test_lost_variables_are_logged_as_a_warning(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    name = project.kill_in()
    delete(name)
    resumed(project)

    assert "analyst_result, planner_result" in caplog.text
    assert "TAPPS_OTEL_EXECUTOR_VARIABLES=1" in caplog.text


def test_inputs_need_no_snapshot(project: Project) -> None:
    project.write()
    project.does["architect"] = kill_process
    Path("target.py").write_text("x = 1")

    def asked() -> None:
        executor = project.executor()
        executor.user_prompt = "make it so"
        asyncio.run(executor.execute(target_file="target.py"))

    assert in_child(asked).code == -signal.SIGKILL
    project.does.clear()
    delete("")
    state = resumed(project)

    assert state.variables["user_prompt"] == "make it so"
    assert state.variables["target_file"] == str(project.root / "target.py")


def test_a_second_run_of_an_id_ignores_the_snapshots_of_the_first(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_AGENTS_PRESERVE_WORKFLOW_ID", "true")
    project.write()
    project.run()
    project.does["architect"] = kill_process
    assert in_child(project.run).code == -signal.SIGKILL
    project.does.clear()
    state = resumed(project, "demo.2")

    assert state.workflow_id == "demo.2"
    assert "planner_result" not in state.variables
    assert (history("demo").status, history("demo.2").status) == ("completed", "completed")


# ---------------------------------------------------------------- loaded states


def load_and_execute(project: Project) -> Any:
    executor = project.executor()
    executor.load_last_state()
    return asyncio.run(executor.execute())


def test_load_last_state_starts_a_new_run(project: Project) -> None:
    project.kill_in()
    load_and_execute(project)

    assert project.did.all == [*FIRST, "analyst", "planner", *REST]


@pytest.mark.parametrize("damage", [keep, delete, corrupt])
def test_load_last_state_resumes_with_the_setting(
    project: Project, story: Story, damage: Callable[[str], None]
) -> None:
    name = project.kill_in()
    damage(name)
    configure(executor_state_from_log=True)
    state = load_and_execute(project)

    assert (state.status, state.workflow_id) == ("completed", name)
    assert project.did.all == [*FIRST, *REST]
    assert story()[-1] == "workflow_end completed"


def test_a_loaded_state_of_a_preserved_id_continues_its_log(
    project: Project, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_AGENTS_PRESERVE_WORKFLOW_ID", "true")
    project.kill_in()
    load_and_execute(project)

    assert project.did.all == [*FIRST, "analyst", "planner", *REST]
    assert {"workflow_resume", "step_finish s1 2", "step_finish s2 2", "step_finish s3 2"} <= set(
        story("demo")
    )


# ---------------------------------------------------------------- hostile ids and Cursor mode


def test_a_run_with_a_hostile_id_resumes(project: Project) -> None:
    project.write(workflow_id="../../x")
    project.does["architect"] = kill_process

    def doomed() -> None:
        executor = project.executor()
        executor.state_manager = None
        executor.save_state = lambda: None
        asyncio.run(executor.execute())

    assert in_child(doomed).code == -signal.SIGKILL
    project.does.clear()
    name = only_run()
    state = resumed(project, name)

    assert state.workflow_id.startswith("../../x-")
    assert project.did.all == [*FIRST, *REST]
    assert resumed(project, state.workflow_id).status == "completed"


def test_a_run_in_cursor_mode_resumes(
    project: Project, monkeypatch: pytest.MonkeyPatch, story: Story
) -> None:
    if is_parallel():
        pytest.skip("its Cursor mode calls skills, not agents")
    monkeypatch.setenv("TAPPS_AGENTS_MODE", "cursor")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    project.write([one | {"requires": []} for one in chain()])
    project.kill_in("architect")
    name = only_run()
    state = resumed(project)

    assert (state.status, state.workflow_id) == ("completed", name)
    assert project.did.all == [*FIRST, *REST]
    assert story()[-1] == "workflow_end completed"


# ---------------------------------------------------------------- killed at every event


@pytest.mark.parametrize("number", range(1, 13))
def test_a_run_killed_after_any_event_completes(project: Project, number: int) -> None:
    project.write()
    killed(project.run, after=number)
    done = [one for one in history(only_run()).steps if one.status == "completed"]
    if number == 12:
        assert history(only_run()).status == "completed"
    before = project.did.all
    state = resumed(project)

    assert state.status == "completed"
    rest = [agent for agent, *_ in [*FIVE.values()][len(done) :]]
    assert project.did.all == [*before, *rest]
