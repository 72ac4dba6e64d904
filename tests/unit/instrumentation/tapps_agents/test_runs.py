"""Runs of the real tapps-agents, and the log of each."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tapps_agents_project import FIVE, Project, chain, fail, is_parallel, version
from tapps_otel import configure, history, list_runs, step
from tapps_otel.instrumentation import instrument
from tapps_otel.log import files
from tapps_otel.log.files import FaultyFiles
from tapps_otel.log.lease import Lease

Story = Callable[..., list[str]]
Events = Callable[..., list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _instrumented(_own_place: None) -> None:
    instrument("tapps_agents")


def good(*steps: str) -> list[str]:
    return [f"{what} {step} 1" for step in steps for what in ("step_start", "step_finish")]


async def hang() -> None:
    await asyncio.Event().wait()


def fails_once() -> Callable[[], Any]:
    tried = []

    async def once() -> None:
        tried.append(1)
        if len(tried) == 1:
            raise RuntimeError("no luck")

    return once


def about(name: str, story: list[str]) -> list[str]:
    """The lines of a story that are about one step."""
    return [one for one in story if f" {name} " in one]


def steps_with(name: str, **fields: Any) -> list[dict[str, Any]]:
    """The five steps without requirements, one of them with other fields."""
    free = [one | {"requires": []} for one in chain()]
    return [one | fields if one["id"] == name else one for one in free]


# ---------------------------------------------------------------- how a run ends


async def test_a_good_run(project: Project, story: Story, events: Events) -> None:
    path = project.write()
    state = await project.executor().execute()

    assert state.status == "completed"
    assert story() == ["workflow_start", *good(*FIVE), "workflow_end completed"]
    first, *_ = all_events = events()
    assert first["workflow_id"] == state.workflow_id
    about = first["workflow"]
    assert (about["name"], about["executor"], about["source"]) == (
        "Demo",
        "tapps-agents",
        path.name,
    )
    assert (about["root"], about["mode"]) == (str(project.root), "headless")
    assert (about["definition"]["version"], about["definition"]["type"]) == ("1", "greenfield")
    assert [one["id"] for one in about["steps"]] == list(FIVE)
    started, finished = all_events[1], all_events[2]
    assert (started["agent"], started["action"]) == ("analyst", "gather_requirements")
    assert len(started["definition"]) == 16
    assert not {"inputs_digest", "order"} & {*started, *finished}
    assert finished["result"]["analyst_result"] == {"by": "analyst"}
    (made,) = finished["artifacts"]
    assert (made["name"], made["path"], made["bytes"]) == ("requirements.md",) * 2 + (19,)
    (folder,) = all_events[4]["artifacts"]
    assert (folder["media_type"], "sha256" in folder) == ("inode/directory", False)


async def test_a_step_that_always_fails(project: Project, story: Story, events: Events) -> None:
    project.write()
    project.does["architect"] = fail
    state = await project.executor().execute()

    assert state.status == "failed"
    tries = [
        f"step_{what}" for n in range(1, 5) for what in (f"start s3 {n}", f"fail s3 {n} failed")
    ]
    assert story() == ["workflow_start", *good("s1", "s2"), *tries, "workflow_end failed"]
    failed, end = events()[-2:]
    assert failed["error"]["type"] == "RuntimeError"
    assert failed["error"]["message"] == "no luck"
    assert end["error"] == {"type": "WorkflowFailed", "message": state.error, "stack": None}


async def test_a_step_that_fails_once(project: Project, story: Story) -> None:
    project.write()
    project.does["architect"] = fails_once()
    await project.executor().execute()

    assert story()[5:9] == [
        "step_start s3 1", "step_fail s3 1 failed", "step_start s3 2", "step_finish s3 2",
    ]  # fmt: skip
    assert story()[-1] == "workflow_end completed"


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"skip_on_fail": True}, "Step failed but configured to skip on failure"),
        ({"error_recoverable": True}, "Step failed but error is recoverable, continuing"),
    ],
    ids=["skip", "continue"],
)
async def test_a_failure_that_is_skipped(
    project: Project, story: Story, events: Events, metadata: dict[str, Any], reason: str
) -> None:
    project.write(steps_with("s3", metadata={"retry": {"enabled": False}} | metadata))
    project.does["architect"] = fail
    state = await project.executor().execute()

    assert state.status == "completed"
    assert about("s3", story()) == ["step_start s3 1", "step_fail s3 1 failed", "step_skip s3 1"]
    skip = next(one for one in events() if one["event_type"] == "step_skip")
    assert (skip["reason"], "duration_ns" in skip) == (reason, False)
    assert skip["span_id"] == events()[0]["span_id"]
    found = history(state.workflow_id).by_id["s3"]
    assert (found.status, found.handled) == ("skipped", False)


async def test_a_failure_without_auto_progression(
    project: Project, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_AGENTS_AUTO_PROGRESSION", "false")
    project.write()
    project.does["architect"] = fail
    await project.executor().execute()

    assert story()[5:] == ["step_start s3 1", "step_fail s3 1 failed", "workflow_end failed"]


async def test_a_step_without_a_handler_is_skipped(
    project: Project, story: Story, events: Events
) -> None:
    project.write(steps_with("s3", agent="nobody"))
    state = await project.executor().execute()

    assert about("s3", story()) == ["step_start s3 1", "step_skip s3 1"]
    (skip,) = (one for one in events() if one["event_type"] == "step_skip")
    assert skip["reason"] == "no handler for agent 'nobody' and action 'design_system'"
    assert state.status == "completed"


async def test_a_step_that_times_out(project: Project, story: Story) -> None:
    project.write(steps_with("s3", metadata={"retry": {"enabled": False}}))
    project.does["architect"] = hang
    executor = project.executor()
    executor.parallel_executor.default_timeout_seconds = 0.05
    state = await executor.execute()

    assert state.status == "failed"
    assert about("s3", story()) == ["step_start s3 1", "step_fail s3 1 timeout"]
    assert story()[-1] == "workflow_end failed"


async def test_a_time_out_that_the_batch_retries(project: Project, story: Story) -> None:
    retry = {"max_attempts": 2, "initial_backoff_seconds": 0.01, "enabled": False}
    project.write(steps_with("s3", metadata={"retry": retry}))
    project.does["architect"] = hang
    executor = project.executor()
    executor.parallel_executor.default_timeout_seconds = 0.05
    await executor.execute()

    assert about("s3", story()) == [
        "step_start s3 1", "step_fail s3 1 timeout", "step_start s3 2", "step_fail s3 2 timeout",
    ]  # fmt: skip


async def test_a_run_that_is_cancelled(project: Project, story: Story) -> None:
    project.write()
    reached = asyncio.Event()

    async def wait() -> None:
        reached.set()
        await hang()

    project.does["architect"] = wait
    task = asyncio.ensure_future(project.executor().execute())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert story()[5:] == ["step_start s3 1", "step_fail s3 1 cancelled", "workflow_end cancelled"]


async def test_a_pause_ends_the_run_as_paused(project: Project, story: Story) -> None:
    project.write()
    executor = project.executor()

    async def pause() -> None:
        executor.pause_workflow()

    project.does["planner"] = pause
    state = await executor.execute()

    assert state.status == "paused"
    assert story() == [
        "workflow_start", *good("s1"), "step_start s2 1", "annotation tapps.pause",
        "step_finish s2 1", "workflow_end paused",
    ]  # fmt: skip


async def test_more_steps_than_allowed(project: Project, events: Events) -> None:
    project.write()
    await project.executor().execute(max_steps=2)

    end = events()[-1]
    assert (end["status"], end["error"]["message"]) == (
        "failed",
        "Max steps exceeded (2). Aborting.",
    )
    assert events()[0]["inputs"] == {"max_steps": 2}


async def test_a_run_that_fails_at_its_start(
    project: Project, story: Story, events: Events
) -> None:
    project.write()
    (project.root / ".tapps-agents" / "config.yaml").write_text(
        "beads: {enabled: true, required: true}\n"
    )
    with pytest.raises(Exception, match=r"(?i)beads"):
        await project.executor().execute()

    assert story() == ["workflow_start", "workflow_end failed"]
    assert events()[-1]["error"]["type"].endswith("BeadsRequiredError")


async def test_agents_may_return_anything(project: Project, events: Events) -> None:
    configure(executor_variables=True)
    project.write()

    async def odd() -> Any:
        loop: dict[str, Any] = {}
        loop["self"] = loop
        return loop

    async def odder() -> Any:
        return {"at": object(), "nan": float("nan"), 3: {1, 2}, "lone": "\ud800"}

    project.does["planner"], project.does["analyst"] = odd, odder
    state = await project.executor().execute()

    finished = [one["step_id"] for one in events() if one["event_type"] == "step_finish"]
    assert finished == list(FIVE)[: len(finished)]
    assert finished[:2] == ["s1", "s2"]
    assert events()[-1]["status"] == state.status


# ---------------------------------------------------------------- ids


async def test_executors_that_are_equal_and_cannot_be_hashed_have_logs_of_their_own(
    project: Project,
) -> None:
    from tapps_agents.workflow.executor import WorkflowExecutor

    class Equal(WorkflowExecutor):  # type: ignore[misc]
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

    path = project.write()
    names = set()
    for _ in range(2):
        executor = Equal(project_root=project.root)
        executor.load_workflow(path)
        state = await executor.execute()
        assert state.status == "completed"
        names |= {one.workflow_id for one in list_runs()}

    assert len(names) == 2
    assert {history(name).status for name in names} == {"completed"}


async def test_start_and_execute_make_one_run(project: Project, story: Story) -> None:
    project.write()
    executor = project.executor()
    executor.start()
    state = await executor.execute()

    assert story(state.workflow_id)[0] == "workflow_start"
    assert story()[-1] == "workflow_end completed"  # there is only one


async def test_two_runs_under_one_id(
    project: Project, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_AGENTS_PRESERVE_WORKFLOW_ID", "true")
    project.write()
    executor = project.executor()
    await executor.execute()
    await project.executor().execute()

    assert story("demo") == story("demo.2")
    assert events_id("demo.2") == "demo.2"


def events_id(name: str) -> Any:
    path = Path(".tapps-agents/workflow-state/events", f"{name}.jsonl")
    return json.loads(path.read_text().splitlines()[-1])["workflow_id"]


async def test_two_live_runs_under_one_id(
    project: Project, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_AGENTS_PRESERVE_WORKFLOW_ID", "true")
    project.write()
    await asyncio.gather(project.executor().execute(), project.executor().execute())

    assert story("demo") == story("demo.2")


@pytest.mark.parametrize("workflow_id", ["../../x", "/etc/x", "a\0b", "x" * 120, "ü" * 20, ".."])
async def test_a_log_of_a_hostile_id_stays_in_its_folder(
    project: Project, events: Events, workflow_id: str
) -> None:
    project.write(workflow_id=workflow_id)
    before = set(project.root.parent.iterdir())
    executor = project.executor()
    executor.event_log = Unlogged()  # that of tapps-agents writes outside the folder
    state = await executor.execute()

    (path,) = Path(".tapps-agents/workflow-state/events").glob("*.jsonl")
    assert path.stem.isascii()
    assert events(path.stem)[0]["workflow_id"] == state.workflow_id
    assert history(path.stem).status == "completed"
    assert set(project.root.parent.iterdir()) == before


class Unlogged:
    """An event log that writes nowhere."""

    def emit_event(self, **_: Any) -> None: ...


# ---------------------------------------------------------------- failures of the log


async def test_a_run_without_a_log_is_reported(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    configure(log_dir=project.root / "taken")
    (project.root / "taken").write_text("a file")
    project.write()
    state = await project.executor().execute()

    assert state.status == "completed"
    assert "this run continues without a log" in caplog.text


@pytest.mark.parametrize("call", ["write", "sync"])
@pytest.mark.parametrize("nth", [1, 4, 6])
async def test_a_failing_log_does_not_affect_the_run(
    project: Project, call: str, nth: int, caplog: pytest.LogCaptureFixture
) -> None:
    configure(durability="commit")
    project.write()
    with files.use(FaultyFiles(call, nth, times=3)):
        state = await project.executor().execute()

    assert state.status == "completed"
    assert len(project.did.all) == 5
    assert "cannot write to the log" in caplog.text or "without a log" in caplog.text


@pytest.mark.parametrize(
    "broken",
    [
        *("MethodCall.bind", "current_tapps_execution", "executor_state", "is_enabled", "execute"),
        *("Batch", "current_attempt", "end_manual_run", "_opening", "_execute_batch"),
        *("bridge.is_on", "definition.describe_loaded", "describe_step"),
    ],
)
async def test_a_failing_hook_does_not_affect_the_run(
    project: Project, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a mistake in a hook")

    project.write()
    project.executor()  # its modules, and with them the hooks, are imported
    monkeypatch.setattr(f"tapps_otel.instrumentation.tapps_agents.hooks.{broken}", break_)

    executor = project.executor()
    assert (await executor.execute()).status == "completed"
    assert len(project.did.all) == 5
    executor.skip_step("s1")
    executor.mark_step_complete("s2")
    executor.pause_workflow()
    assert (executor.state.skipped_steps, executor.state.completed_steps[-1]) == (["s1"], "s2")


async def test_a_call_with_wrong_arguments_raises_type_error(project: Project) -> None:
    async def execute() -> None:
        with pytest.raises(TypeError, match="execute_parallel"):
            await executor.parallel_executor.execute_parallel(no="such")

    project.write()
    executor = project.executor()
    project.does["analyst"] = execute

    assert (await executor.execute()).status == "completed"


async def test_with_stop_no_step_runs_unlogged(project: Project) -> None:
    configure(on_log_failure="stop")
    project.write()
    executor = project.executor()
    executor.auto_progression.auto_retry_enabled = False
    with files.use(FaultyFiles("write", 4)):  # of the second step's start
        state = await executor.execute()

    assert state.status == "failed"
    assert project.did.all == ["analyst"]


async def test_disabled_nothing_is_logged(project: Project) -> None:
    configure(enabled=False)
    project.write()
    state = await project.executor().execute()

    assert state.status == "completed"
    logs = Path(".tapps-agents/workflow-state/events").glob("*.jsonl")
    assert all(path.name.endswith(".events.jsonl") for path in logs)


async def test_a_batch_outside_a_run_is_not_logged(project: Project) -> None:
    from tapps_agents.workflow.parallel_executor import ParallelStepExecutor

    path = project.write()
    executor = project.executor(path)
    state = executor.start()

    async def execute(step: Any) -> dict[str, Any]:
        return {"x": step.id}

    (result,) = await ParallelStepExecutor().execute_parallel(
        executor.workflow.steps[:1], execute, state=state
    )
    assert result.artifacts == {"x": "s1"}
    assert not list(Path().rglob("events/demo-*[0-9].jsonl"))


# ---------------------------------------------------------------- parallel and nested


FAN = [
    {"id": "a", "agent": "analyst", "action": "gather_requirements"},
    {"id": "b", "agent": "planner", "action": "create_stories"},
    {"id": "c", "agent": "architect", "action": "design_system"},
]


def meeting(count: int) -> Callable[[], Any]:
    """A coroutine function that returns when this many calls of it are waiting."""
    here = asyncio.Event()
    come = []

    async def meet() -> None:
        come.append(1)
        if len(come) == count:
            here.set()
        await here.wait()

    return meet


async def test_steps_that_run_in_parallel(project: Project, story: Story) -> None:
    project.write(FAN)
    project.does = dict.fromkeys(("analyst", "planner", "architect"), meeting(3))
    executor = project.executor()
    if not is_parallel():  # since 3.5.40 the engine has only one step ready at a time
        executor._find_ready_steps = lambda done, running: [
            one for one in executor.workflow.steps if one.id not in done | running
        ]
    state = await executor.execute()

    assert state.status == "completed"
    lines = story()
    assert [one.split()[0] for one in lines[1:-1]] == ["step_start"] * 3 + ["step_finish"] * 3


async def test_a_step_that_fails_beside_others(project: Project, story: Story) -> None:
    project.write(FAN)
    meet = meeting(3)

    async def fail_together() -> None:
        await meet()
        await fail()

    project.does = {"analyst": meet, "planner": fail_together, "architect": meet}
    executor = project.executor()
    executor.auto_progression.auto_retry_enabled = False
    if not is_parallel():
        executor._find_ready_steps = lambda done, running: [
            one for one in executor.workflow.steps if one.id not in done | running
        ]
    await executor.execute()

    lines = story()
    assert {"step_finish a 1", "step_fail b 1 failed", "step_finish c 1"} <= set(lines)
    assert lines[-1] == "workflow_end failed"


async def test_step_functions_in_an_agent_are_inside_its_step(
    project: Project, story: Story
) -> None:
    @step
    def look() -> int:
        return 3

    async def call() -> int:
        return look()

    project.write()
    project.does["planner"] = call
    await project.executor().execute()

    assert story()[3:7] == [
        "step_start s2 1", "step_start s2/look 1", "step_finish s2/look 1", "step_finish s2 1",
    ]  # fmt: skip


async def test_a_run_inside_a_step_has_its_own_log(project: Project, events: Events) -> None:
    project.write(chain(dict([*FIVE.items()][:1])), workflow_id="inner")
    inner = project.executor()
    inner.load_workflow(project.write(chain(dict([*FIVE.items()][:1])), workflow_id="inner"))

    async def nest() -> None:
        project.does.clear()
        await inner.execute()

    outer = project.executor(project.write())
    project.does["planner"] = nest
    state = await outer.execute()

    outside, inside = events(state.workflow_id), events(inner.state.workflow_id)
    assert outside[-1]["status"] == inside[-1]["status"] == "completed"
    assert inside[0]["trace_id"] == outside[0]["trace_id"]
    parent = next(one for one in outside if one.get("step_id") == "s2")
    assert inside[0]["parent_span_id"] == parent["span_id"]


# ---------------------------------------------------------------- without execute()


def test_a_manual_run(project: Project, story: Story, events: Events) -> None:
    project.write()
    executor = project.executor()
    state = executor.start()
    for name, (_, _, creates) in FIVE.items():
        project.make(creates)
        if name == "s3":
            executor.skip_step(name)
        else:
            executor.mark_step_complete(name, [{"name": creates, "path": creates}])

    assert state.status == "completed"
    assert story() == [
        "workflow_start", *good("s1", "s2"), "step_skip s3 0", *good("s4", "s5"),
        "workflow_end completed",
    ]  # fmt: skip
    started, finished = events()[1:3]
    assert (started["late"], finished["late"], finished["duration_ns"]) == (True, True, 0)
    assert finished["artifacts"][0]["name"] == "requirements.md"
    assert {one["execution"] for one in events()} == {1}


def test_the_lease_is_free_between_manual_calls(project: Project, story: Story) -> None:
    project.write()
    first = project.executor()
    first.start()
    first.mark_step_complete("s1")
    other = project.executor()
    other.load_last_state()
    other.mark_step_complete("s2")
    first.mark_step_complete("s3")

    assert story() == [
        "workflow_start", *good("s1"), "workflow_resume", *good("s2"),
        "workflow_resume", *good("s3"),
    ]  # fmt: skip


def test_a_new_start_cancels_the_manual_run_before_it(project: Project, story: Story) -> None:
    project.write()
    executor = project.executor()
    executor.start()
    executor.mark_step_complete("s1")
    executor.start()

    assert story()[-1] == "workflow_end cancelled"


async def test_a_run_inside_a_step_of_an_unlogged_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, story: Story
) -> None:
    monkeypatch.setenv("TAPPS_AGENTS_PRESERVE_WORKFLOW_ID", "true")
    inner = project.executor(project.write(chain(dict([*FIVE.items()][:1])), workflow_id="inner"))
    outer = project.executor(project.write(workflow_id="outer"))

    async def nest() -> None:
        project.does.clear()
        await inner.execute()

    project.does["planner"] = nest
    outer.start()
    project.make("requirements.md")
    outer.mark_step_complete("s1", [{"name": "requirements.md", "path": "requirements.md"}])
    held = Lease(Path(".tapps-agents/workflow-state/events/outer.lease"), "outer")
    await outer.execute()
    held.release()

    assert story("inner") == ["workflow_start", *good("s1"), "workflow_end completed"]
    assert story("outer") == ["workflow_start", *good("s1")]


# ---------------------------------------------------------------- in Cursor mode


@pytest.fixture
def cursor(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in Cursor mode, which needs a git repository."""
    monkeypatch.setenv("TAPPS_AGENTS_MODE", "cursor")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    return project


def free_steps() -> list[dict[str, Any]]:
    """The first three steps, without requirements."""
    return [one | {"requires": []} for one in chain()[:3]]


def without_next(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*steps[:-1], {name: one for name, one in steps[-1].items() if name != "next"}]


async def test_cursor_mode(cursor: Project, story: Story) -> None:
    cursor.write(without_next(free_steps()))
    state = await cursor.executor().execute()

    assert state.status == "completed"
    first, *lines, last = story(state.workflow_id)
    assert (first, last) == ("workflow_start", "workflow_end completed")
    assert sorted(lines) == sorted(good("s1", "s2", "s3"))


async def test_a_failure_in_cursor_mode(cursor: Project, events: Events, story: Story) -> None:
    if version() < (3, 6):
        pytest.skip("in Cursor mode tapps-agents calls no agents before 3.6.0")
    cursor.write(without_next(free_steps()))
    cursor.does["planner"] = fail
    state = await cursor.executor().execute()

    assert state.status == "blocked"
    end = events()[-1]
    assert (end["status"], end["attributes"]) == ("failed", {"tapps.executor.status": "blocked"})
    assert story()[-3:] == ["step_start s2 1", "step_fail s2 1 failed", "workflow_end failed"]


async def test_a_step_that_is_skipped_in_cursor_mode(cursor: Project, events: Events) -> None:
    if version() < (3, 6):
        pytest.skip("tapps-agents checks requirements in Cursor mode from 3.6.0 on")
    cursor.write(without_next(chain()[:3]))
    await cursor.executor().execute()

    skips = [one for one in events() if one["event_type"] == "step_skip"]
    assert [(one["step_id"], one["reason"]) for one in skips][:1] == [
        ("s2", "Dependency 'requirements.md' not executed")
    ]
