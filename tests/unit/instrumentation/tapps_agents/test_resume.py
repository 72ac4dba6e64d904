"""Killed runs of the real tapps-agents resume from their logs, without the steps that are done."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
from argparse import Namespace
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
    version,
)
from tapps_otel import configure, history
from tapps_otel.errors import (
    EncryptionKeyError,
    LogDamagedError,
    RunBusyError,
    RunConflictError,
    RunNotFoundError,
    SettingsError,
)
from tapps_otel.instrumentation import instrument
from tapps_otel.instrumentation.tapps_agents import adapter, resume
from tapps_otel.instrumentation.tapps_agents.definition import rebuild

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


def test_a_step_whose_folder_was_emptied_runs_again(project: Project, story: Story) -> None:
    project.kill_in()
    shutil.rmtree("stories")
    Path("stories").mkdir()
    resumed(project)

    assert project.did.all == [*FIRST, "planner", *REST]


def test_a_folder_that_was_empty_from_the_start_is_as_it_was(project: Project) -> None:
    async def leave_it_empty() -> Any:
        shutil.rmtree("stories")
        return {}

    project.does["planner"] = leave_it_empty
    project.kill_in()
    resumed(project)

    assert project.did.all == [*FIRST, *REST]


def test_what_a_later_step_changed_has_not_changed_since(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    async def edit() -> None:
        Path("requirements.md").write_text("edited by the planner")

    project.does["planner"] = edit
    project.kill_in()
    resumed(project)

    assert project.did.all == [*FIRST, *REST]
    assert "changed since" not in caplog.text


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


# ---------------------------------------------------------------- encryption


def test_an_encrypted_run_resumes_with_its_variables(project: Project) -> None:
    configure(encryption_keys={"k": b"x" * 32})
    name = project.kill_in()
    delete(name)
    state = resumed(project)

    assert b"planner_result" not in re.sub(
        rb'"attributes":{[^}]*}', b"", (LOGS / f"{name}.jsonl").read_bytes()
    )
    assert state.variables["planner_result"] == {"by": "planner"}
    assert project.did.all == [*FIRST, *REST]


@pytest.mark.parametrize("from_log", [True, False])
def test_an_encrypted_run_is_refused_without_its_key(project: Project, from_log: bool) -> None:
    configure(encryption_keys={"k": b"x" * 32}, executor_state_from_log=from_log)
    name = project.kill_in()
    before = (LOGS / f"{name}.jsonl").read_bytes()
    configure(encryption_keys=None)
    with pytest.raises(EncryptionKeyError, match=r"key 'k'"):
        load_and_execute(project) if from_log else resumed(project)

    assert project.did.all == FIRST
    assert (LOGS / f"{name}.jsonl").read_bytes() == before


# ---------------------------------------------------------------- variables


def test_variables_come_from_the_log(project: Project) -> None:
    name = project.kill_in()
    delete(name)
    state = resumed(project)

    assert state.variables["planner_result"] == {"by": "planner"}
    assert project.did.all == [*FIRST, *REST]


def test_variables_of_a_step_whose_end_was_not_saved_come_from_the_log(project: Project) -> None:
    """tapps-agents saves its state some time after a step has ended."""
    project.write()
    killed(project.run, after="step_finish s2")
    state = resumed(project)

    assert state.variables["planner_result"] == {"by": "planner"}
    assert project.did.all == ["analyst", "planner", *REST]


def test_each_step_logs_the_variables_that_it_changed(project: Project, events: Events) -> None:
    project.write()
    project.run()
    results = [one.get("result", {}) for one in events() if one["event_type"] == "step_finish"]

    assert [{*one} & {"analyst_result", "planner_result"} for one in results] == [
        {"analyst_result"}, {"planner_result"}, set(), set(), set()
    ]  # fmt: skip


def test_without_the_setting_variables_come_from_a_snapshot(project: Project) -> None:
    configure(executor_variables=False)
    project.kill_in()
    state = resumed(project)

    assert state.variables["planner_result"] == {"by": "planner"}
    assert project.did.all == [*FIRST, *REST]


def test_a_step_whose_variables_are_lost_runs_again(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    configure(executor_variables=False)
    name = project.kill_in()
    delete(name)
    state = resumed(project)

    assert state.variables["planner_result"] == {"by": "planner"}
    assert project.did.all == [*FIRST, "analyst", "planner", *REST]
    assert "step s1 runs again: neither the log nor a snapshot has" in caplog.text
    assert "analyst_result" in caplog.text


@pytest.mark.parametrize("value", [object(), float("nan"), "x" * (5 << 20)])
def test_a_variable_that_the_log_does_not_hold_is_named(
    project: Project, events: Events, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer() -> Any:
        return {"by": "ops", "value": value}

    project.write([*chain()[:3], chain()[3] | {"next": "s5"}, chain()[4]])
    project.does |= {"ops": answer, "documenter": kill_process}
    assert in_child(project.run).code == -signal.SIGKILL
    project.does.clear()
    ended = next(one for one in events() if one.get("step_id") == "s4" and "attributes" in one)
    assert ended["attributes"]["tapps.executor.variables_omitted"] == ["ops_result"]
    delete("")
    state = resumed(project)

    assert state.variables["ops_result"] == {"by": "ops"}
    assert project.did.all == [*FIRST, "ops", "documenter", "ops", "documenter"]
    assert "step s4 runs again: neither the log nor a snapshot has" in caplog.text


def test_a_step_whose_large_variables_were_damaged_runs_again(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer() -> Any:
        return {"by": "planner", "plan": "x" * 100_000}

    project.does["planner"] = answer
    name = project.kill_in()
    (blob,) = (LOGS / f"{name}.blobs").iterdir()
    blob.unlink()
    resumed(project)

    assert project.did.all == [*FIRST, "planner", *REST]
    assert "the variables that step s2 left cannot be read" in caplog.text


def test_the_target_that_a_step_chose_is_kept(project: Project, tmp_path: Path) -> None:
    """tapps-agents sets it to the one it was started with whenever it begins."""
    project.write()
    Path("target.py").touch()
    executor = project.executor()

    async def choose() -> None:
        executor.state.variables["target_file"] = "chosen.py"

    project.does |= {"planner": choose, "architect": kill_process}
    outcome = in_child(lambda: asyncio.run(executor.execute(target_file="target.py")))
    assert outcome.code == -signal.SIGKILL
    project.does.clear()

    assert resumed(project).variables["target_file"] == "chosen.py"


def test_runs_of_one_second_keep_their_prompts(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the same id in tapps-agents, and so the same snapshots."""
    monkeypatch.setenv("TAPPS_AGENTS_PRESERVE_WORKFLOW_ID", "true")
    project.write()
    project.does["architect"] = kill_process
    for prompt in ("first", "second"):

        def ask(prompt: str = prompt) -> None:
            executor = project.executor()
            executor.user_prompt = prompt
            asyncio.run(executor.execute())

        assert in_child(ask).code == -signal.SIGKILL
    project.does.clear()
    first, second = resumed(project, "demo"), resumed(project, "demo.2")

    assert first.variables["user_prompt"] == "first"
    assert second.variables["user_prompt"] == "second"
    assert project.did.all == [*FIRST, *FIRST, *REST, *REST]


def test_a_snapshot_of_another_start_is_not_used(project: Project) -> None:
    configure(executor_variables=False)
    name = project.kill_in()
    for path in STATES.rglob(f"{name}-*.json"):
        state = json.loads(path.read_text())
        state["started_at"] = "2026-01-01T00:00:00.000001"
        state["variables"]["analyst_result"] = "of another run"
        path.write_text(json.dumps(state))
    state = resumed(project)

    assert state.variables["analyst_result"] == {"by": "analyst"}
    assert project.did.all == [*FIRST, "analyst", "planner", *REST]


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
    assert state.started_at.isoformat() == history("demo.2").workflow["state"]["started_at"]
    assert (history("demo").status, history("demo.2").status) == ("completed", "completed")


# ---------------------------------------------------------------- loaded states


def load_and_execute(project: Project) -> Any:
    executor = project.executor()
    executor.load_last_state()
    return asyncio.run(executor.execute())


def test_a_damaged_log_of_another_run_does_not_hide_that_of_a_loaded_state(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_AGENTS_PRESERVE_WORKFLOW_ID", "true")
    project.kill_in()
    kept = {path: path.read_bytes() for path in STATES.rglob("*.json")}
    project.run()
    damaged = LOGS / "demo.2.jsonl"
    data = damaged.read_bytes()
    damaged.write_bytes(data.replace(b"Demo", b"Dema", 1))
    for path in STATES.rglob("*.json"):
        path.unlink()
    for path, data in kept.items():
        path.write_bytes(data)
    configure(executor_state_from_log=True)
    state = load_and_execute(project)
    damaged.unlink()  # every log that is left is checked

    assert state.status == "completed"
    assert [one.status for one in history("demo").executions] == ["interrupted", "completed"]


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


@pytest.mark.parametrize("by_id", [True, False])
def test_the_resume_command_of_tapps_agents_resumes_with_the_setting(
    project: Project, by_id: bool
) -> None:
    from tapps_agents.cli.commands.top_level import handle_workflow_resume_command

    name = project.kill_in()
    configure(executor_state_from_log=True)
    arguments = Namespace(workflow_id=name if by_id else None, validate=True, max_steps=50)
    handle_workflow_resume_command(arguments)

    assert project.did.all == [*FIRST, *REST]
    assert history(name).status == "completed"


def test_a_loaded_state_of_a_changed_workflow_is_refused(project: Project, story: Story) -> None:
    """Else all of its steps would run again."""
    project.kill_in()
    before = story()
    project.write([one | ({"action": "audit"} if one["id"] == "s4" else {}) for one in chain()])
    configure(executor_state_from_log=True)
    with pytest.raises(RunConflictError, match="its workflow has changed"):
        load_and_execute(project)

    assert project.did.all == FIRST
    assert story() == before


def test_a_loaded_state_of_a_second_run_continues_the_log_of_that_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the same id in tapps-agents."""
    monkeypatch.setenv("TAPPS_AGENTS_PRESERVE_WORKFLOW_ID", "true")
    project.write()
    project.run()
    project.does["architect"] = kill_process
    assert in_child(project.run).code == -signal.SIGKILL
    project.does.clear()
    load_and_execute(project)

    assert [len(history(name).executions) for name in ("demo", "demo.2")] == [1, 2]
    assert history("demo.2").status == "completed"


def resume_command(name: str) -> None:
    from tapps_agents.cli.commands.top_level import handle_workflow_resume_command

    handle_workflow_resume_command(Namespace(workflow_id=name, validate=True, max_steps=50))


def test_a_headless_state_is_refused_in_cursor_mode(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = project.kill_in()
    monkeypatch.setenv("TAPPS_AGENTS_MODE", "cursor")
    configure(executor_state_from_log=True)
    with pytest.raises(RunConflictError, match="executed in headless mode, and this process is in"):
        load_and_execute(project)
    with pytest.raises(SystemExit):
        resume_command(name)

    assert f"tapps-otel resume {name} --accept-change" in capsys.readouterr().err
    assert project.did.all == FIRST
    assert only_run() == name


# ---------------------------------------------------------------- runs that are driven by hand


def drive(project: Project, *, load: bool = False, marked: tuple[str, ...]) -> None:
    executor = project.executor()
    if load:
        executor.load_last_state()
    else:
        executor.start()
    for name in marked:
        executor.state.variables[f"of_{name}"] = {"made in": name}
        project.make(FIVE[name][2])
        executor.mark_step_complete(name, [{"name": FIVE[name][2], "path": FIVE[name][2]}])


def test_variables_of_a_run_that_is_driven_by_hand_come_from_its_log(
    project: Project, events: Events
) -> None:
    project.write()
    assert in_child(lambda: drive(project, marked=("s1", "s2"))).code == 0
    finished = [one for one in events() if one["event_type"] == "step_finish"]
    assert finished[1]["result"] == {"of_s2": {"made in": "s2"}}
    delete("")
    state = resumed(project)

    assert project.did.all == REST
    assert state.variables["of_s1"] == {"made in": "s1"}
    assert state.variables["of_s2"] == {"made in": "s2"}


def test_variables_that_another_process_loads_and_changes_are_logged(project: Project) -> None:
    project.write()
    assert in_child(lambda: drive(project, marked=("s1",))).code == 0
    assert in_child(lambda: drive(project, load=True, marked=("s2",))).code == 0
    delete("")
    state = resumed(project)

    assert project.did.all == REST
    assert {"of_s1", "of_s2"} <= state.variables.keys()


# ---------------------------------------------------------------- workflows without a file


def test_a_workflow_that_another_object_parsed_is_made_from_the_log(project: Project) -> None:
    """So does tapps-agents' command line, of its presets too."""
    from tapps_agents.workflow.executor import WorkflowExecutor
    from tapps_agents.workflow.parser import WorkflowParser

    path = project.write([one | {"metadata": {"timeout": 5}} for one in chain()])
    parsed = WorkflowParser.parse_file(path)
    path.unlink()
    project.does["architect"] = kill_process
    executor = WorkflowExecutor(project_root=project.root)
    outcome = in_child(lambda: asyncio.run(executor.execute(workflow=parsed)))
    assert outcome.code == -signal.SIGKILL
    project.does.clear()
    state = asyncio.run(tapps_otel.resume(only_run()))

    assert state.status == "completed"
    assert project.did.all == [*FIRST, *REST]
    assert rebuild(history(only_run()).workflow) == parsed


def test_a_workflow_made_in_code_is_made_from_the_log(project: Project) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor
    from tapps_agents.workflow.models import Workflow, WorkflowSettings, WorkflowStep, WorkflowType

    made = Workflow(
        id="made", name="Made", description="", version="7", type=WorkflowType.BROWNFIELD,
        settings=WorkflowSettings(quality_gates=False),
        steps=[WorkflowStep(**{"requires": [], **one}) for one in chain()],
    )  # fmt: skip
    project.does["architect"] = kill_process
    executor = WorkflowExecutor(project_root=project.root)
    outcome = in_child(lambda: asyncio.run(executor.execute(workflow=made)))
    assert outcome.code == -signal.SIGKILL
    project.does.clear()
    assert asyncio.run(tapps_otel.resume(only_run())).status == "completed"

    found = history(only_run()).workflow
    assert (found["definition"]["version"], found["definition"]["type"]) == ("7", "brownfield")
    assert rebuild(found) == made


def test_a_workflow_too_large_for_the_log_must_be_given(project: Project) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor
    from tapps_agents.workflow.parser import WorkflowParser

    path = project.write([one | {"notes": "x" * 50_000} for one in chain()])
    parsed = WorkflowParser.parse_file(path)
    project.does["architect"] = kill_process
    executor = WorkflowExecutor(project_root=project.root)
    outcome = in_child(lambda: asyncio.run(executor.execute(workflow=parsed)))
    assert outcome.code == -signal.SIGKILL
    project.does.clear()
    with pytest.raises(RunConflictError, match="too large to be in the log"):
        asyncio.run(tapps_otel.resume(only_run()))
    executor = WorkflowExecutor(project_root=project.root)
    executor.workflow = parsed

    assert asyncio.run(resume(executor, only_run())).status == "completed"


def test_a_changed_type_is_refused(project: Project) -> None:
    project.kill_in()
    path = project.root / "flow.yaml"
    path.write_text(path.read_text().replace("greenfield", "brownfield"))
    with pytest.raises(RunConflictError, match=r"-type: greenfield\n\+type: brownfield"):
        resumed(project)

    assert resumed(project, accept_change=True).status == "completed"
    assert history(only_run()).workflow["definition"]["type"] == "brownfield"


# ---------------------------------------------------------------- versions


def test_another_version_of_tapps_agents_is_logged_as_a_warning(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as then:
        then.setattr(adapter, "engine_version", lambda: "3.5.38")
        name = project.kill_in()
    resumed(project)

    now = ".".join(map(str, version()))
    assert f"run {name} was executed by tapps-agents 3.5.38 and resumes under" in caplog.text
    assert f"tapps-agents {now}" in caplog.text


def test_the_error_of_a_blocked_run_says_which_steps_cannot_start(project: Project) -> None:
    first, second = chain({name: FIVE[name] for name in ("s1", "s2")})
    project.write([first, second | {"requires": ["nothing.md"]}])
    project.run()
    error = history(only_run()).error or {}

    assert "Workflow blocked" in error["message"]
    assert "step s2 requires nothing.md, which no step has made" in error["message"]


def test_the_error_of_a_blocked_run_says_that_next_is_missing(project: Project) -> None:
    if is_parallel():
        pytest.skip("this version needs no next")
    first, second = chain({name: FIVE[name] for name in ("s1", "s2")})
    del first["next"]
    project.write([first, second])
    project.run()
    error = history(only_run()).error or {}

    assert "step s2 is not the `next` of a completed step" in error["message"]


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


@pytest.fixture
def cursor_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    """The log of a run in Cursor mode that was killed in its third step."""
    if is_parallel():
        pytest.skip("its Cursor mode calls skills, not agents")
    monkeypatch.setenv("TAPPS_AGENTS_MODE", "cursor")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    project.write([one | {"requires": []} for one in chain()])
    return project.kill_in("architect")


@pytest.mark.parametrize("loaded", [False, True])
def test_a_run_in_cursor_mode_resumes(
    project: Project, cursor_run: str, story: Story, *, loaded: bool
) -> None:
    configure(executor_state_from_log=loaded)
    state = load_and_execute(project) if loaded else resumed(project)

    assert (state.status, state.workflow_id) == ("completed", cursor_run)
    assert project.did.all == [*FIRST, *REST]
    assert story()[-1] == "workflow_end completed"


def test_a_run_in_cursor_mode_resumes_headless_only_if_told(
    project: Project, cursor_run: str, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_AGENTS_MODE", "headless")
    before = story()
    with pytest.raises(RunConflictError, match="executed in cursor mode, and this process is in"):
        resumed(project)
    assert story() == before

    assert resumed(project, accept_change=True).status == "completed"
    assert project.did.all == [*FIRST, *REST]
    assert history(cursor_run).workflow["mode"] == "headless"


def test_a_loaded_run_in_cursor_mode_is_refused_headless(
    project: Project, cursor_run: str, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_AGENTS_MODE", "headless")
    configure(executor_state_from_log=True)
    before = story()
    with pytest.raises(RunConflictError, match="executed in cursor mode, and this process is in"):
        load_and_execute(project)

    assert project.did.all == FIRST
    assert story() == before


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
