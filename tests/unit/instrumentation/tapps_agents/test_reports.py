"""Timeline, history, trace and graph of their own shape, from our log."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from crashes import in_child
from tapps_agents_project import FIVE, Project, chain
from tapps_otel import configure, history
from tapps_otel.instrumentation import instrument
from tapps_otel.instrumentation.tapps_agents import resume, timeline_markdown, timeline_of
from tapps_otel.past.fold import AttemptHistory, ExecutionHistory, RunHistory, StepHistory


@pytest.fixture(autouse=True)
def _instrumented(_own_place: None) -> None:
    instrument("tapps_agents")


def the_run() -> str:
    folder = Path(".tapps-agents/workflow-state/events")
    return next(path.stem for path in folder.glob("*.jsonl") if ".events" not in path.name)


def run(project: Project) -> Any:
    executor = project.executor()
    executor.auto_progression.max_retry_backoff = 0
    asyncio.run(executor.execute())
    return executor


async def fail() -> None:
    raise RuntimeError("no | luck <b>")


async def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# ---------------------------------------------------------------- timeline


def test_the_timeline_is_theirs(project: Project) -> None:
    from tapps_agents.workflow.timeline import format_timeline_markdown, generate_timeline

    project.write()
    executor = run(project)
    theirs = generate_timeline(executor.state, executor.workflow)
    ours = timeline_of(history(the_run()))

    assert ours.keys() == theirs.keys()
    assert ours["steps"][0].keys() == theirs["steps"][0].keys()
    for key in ("workflow_id", "workflow_name", "status"):
        assert ours[key] == theirs[key]
    for mine, other in zip(ours["steps"], theirs["steps"], strict=True):
        for key in ("step_id", "agent", "action", "status", "error"):
            assert mine[key] == other[key]
        assert mine["started_at"][:16] == other["started_at"][:16]
    assert timeline_markdown(theirs) == format_timeline_markdown(theirs)


def test_their_own_shape_of_a_failed_run_is_written_the_same() -> None:
    pytest.importorskip("tapps_agents")
    from tapps_agents.workflow.timeline import format_timeline_markdown

    row = {
        "step_id": "s1", "agent": "analyst", "action": "a", "started_at": "2026-01-01T00:00:00",
        "completed_at": None, "duration_seconds": 75.0, "duration_formatted": "1.2m",
        "status": "failed", "error": "boom",
    }  # fmt: skip
    made = {
        "workflow_id": "x", "workflow_name": "X", "started_at": "2026-01-01T00:00:00",
        "completed_at": None, "total_duration_seconds": None, "total_duration_formatted": "N/A",
        "status": "failed", "steps": [row, row | {"status": "skipped"}],
    }  # fmt: skip

    assert timeline_markdown(made) == format_timeline_markdown(made)


def test_a_timeline_shows_every_try_without_any_snapshot(project: Project) -> None:
    project.write()
    project.does["architect"] = fail
    run(project)
    for path in Path(".tapps-agents/workflow-state").rglob("*.json"):
        path.unlink()
    text = timeline_markdown(timeline_of(history(the_run())))

    assert text.count("| s3 | architect | design_system |") == 4
    assert "- **Failed**: 4" in text
    assert r"- **s3** (architect/design_system): no \| luck &lt;b>" in text


def test_a_run_that_was_killed_and_resumed_has_one_timeline(project: Project) -> None:
    project.write()
    project.does["architect"] = die
    assert in_child(lambda: run(project)).code == -signal.SIGKILL
    project.does.clear()
    assert timeline_of(history(the_run()))["completed_at"] is None
    asyncio.run(resume(project.executor(), the_run()))
    made = timeline_of(history(the_run()))

    assert [(one["step_id"], one["status"]) for one in made["steps"]] == [
        ("s1", "completed"), ("s2", "completed"), ("s3", "interrupted"),
        *((name, "completed") for name in ("s3", "s4", "s5")),
    ]  # fmt: skip
    assert made["status"] == "completed"


def test_hostile_names_make_no_markup() -> None:
    attempt = AttemptHistory(
        1, 1, 2, "2026-01-01T00:00:00.000000000Z", status="completed", end_seq=3
    )
    step = StepHistory("s", "a|b\n# x", "<img src=x>", "[x](javascript:1)", attempt)
    hostile = RunHistory(
        "r",
        name="\x1b]0;owned\x07",
        executions=[ExecutionHistory(1, "2026-01-01T00:00:00.000000000Z", 1, {})],
        by_id={"s": step},
    )
    text = timeline_markdown(timeline_of(hostile))

    assert r"| a\|b\n# x | &lt;img src=x> | \[x](javascript:1) |" in text
    assert "\x1b" not in text


# ---------------------------------------------------------------- the bridge


@pytest.fixture
def _bridged(project: Project) -> None:
    configure(executor_bridge=True)


@pytest.mark.usefixtures("_bridged")
def test_their_history_shows_the_truth(project: Project) -> None:
    project.write([one | {"metadata": {"skip_on_fail": True}, "requires": []} for one in chain()])
    project.does["architect"] = fail
    executor = run(project)
    told = executor.event_log.get_execution_history(executor.state.workflow_id)

    assert told["status"] == "completed"
    kinds = [one["event_type"] for one in told["steps"]["s3"]]
    assert kinds == ["step_start", "step_fail"] * 4 + ["step_skip"]
    assert told["steps"]["s3"][1]["error"] == "no | luck <b>"
    assert [one["seq"] for one in told["events"]] == sorted(one["seq"] for one in told["events"])


@pytest.mark.usefixtures("_bridged")
def test_their_trace_has_durations(project: Project) -> None:
    project.write()
    executor = run(project)
    told = executor.event_log.get_execution_trace(executor.state.workflow_id)

    assert [one["step_id"] for one in told["steps"]] == list(FIVE)
    assert all(one["duration_ms"] > 0 for one in told["steps"])  # None, as they write it
    assert told["steps"][0]["artifact_paths"] == ["requirements.md"]


@pytest.mark.usefixtures("_bridged")
def test_their_graph_is_drawn(project: Project) -> None:
    project.write()
    executor = run(project)
    graph = executor.event_log.generate_execution_graph(executor.state.workflow_id)

    assert {node.label for node in graph.nodes} | {node.id for node in graph.nodes} >= set(FIVE)


@pytest.mark.usefixtures("_bridged")
def test_their_observers_hear_of_everything_and_their_file_of_the_start(project: Project) -> None:
    project.write()
    heard: list[str] = []
    executor = project.executor()
    executor.event_log.subscribe(lambda event: heard.append(event.event_type))
    asyncio.run(executor.execute())

    assert heard[0] == "workflow_start"
    assert heard[-1] == "workflow_end"
    assert heard.count("step_finish") == 5
    (own,) = Path(".tapps-agents/workflow-state/events").glob("*.events.jsonl")
    assert len(own.read_text().splitlines()) == 1


@pytest.mark.usefixtures("_bridged")
def test_a_run_that_died_is_not_shown_as_running(project: Project) -> None:
    project.write()
    project.does["architect"] = die
    assert in_child(lambda: run(project)).code == -signal.SIGKILL
    executor = project.executor()

    assert executor.event_log.get_execution_history(the_run())["status"] == "interrupted"
    project.does.clear()
    asyncio.run(resume(executor, the_run()))
    told = executor.event_log.get_execution_history(the_run())
    assert told["status"] == "completed"
    assert len(executor.event_log.read_events(the_run(), limit=2)) == 2


@pytest.mark.usefixtures("_bridged")
def test_where_our_log_has_nothing_theirs_is_read(project: Project) -> None:
    project.write()
    log = project.executor().event_log
    log.emit_event(event_type="workflow_start", workflow_id="other")

    assert [one.event_type for one in log.read_events("other")] == ["workflow_start"]


def test_without_asking_their_log_is_as_without_us(project: Project) -> None:
    project.write()
    executor = run(project)
    told = executor.event_log.read_events(executor.state.workflow_id)

    assert [one.event_type for one in told].count("artifact_created") == 5
