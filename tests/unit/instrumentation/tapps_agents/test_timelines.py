"""tapps-agents' timeline, made from the log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tapps_agents_project import Project, chain, only_run
from tapps_otel import history
from tapps_otel.instrumentation import instrument
from tapps_otel.instrumentation.tapps_agents import resume, timeline_markdown, timeline_of
from tapps_otel.past.fold import AttemptHistory, ExecutionHistory, RunHistory, StepHistory


@pytest.fixture(autouse=True)
def _instrumented(_own_place: None) -> None:
    instrument("tapps_agents")


async def fail_with_markup() -> None:
    raise RuntimeError("no | luck <b>")


def test_a_timeline_equals_that_of_tapps_agents(project: Project) -> None:
    from tapps_agents.workflow.timeline import format_timeline_markdown, generate_timeline

    project.write()
    executor = project.run()
    theirs = generate_timeline(executor.state, executor.workflow)
    ours = timeline_of(history(only_run()))

    assert ours.keys() == theirs.keys()
    assert ours["steps"][0].keys() == theirs["steps"][0].keys()
    for key in ("workflow_id", "workflow_name", "status"):
        assert ours[key] == theirs[key]
    for mine, other in zip(ours["steps"], theirs["steps"], strict=True):
        for key in ("step_id", "agent", "action", "status", "error"):
            assert mine[key] == other[key]
        assert mine["started_at"][:16] == other["started_at"][:16]
    assert timeline_markdown(theirs) == format_timeline_markdown(theirs)


def test_the_markdown_of_a_failed_run_equals_that_of_tapps_agents() -> None:
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


def test_every_attempt_is_a_row_without_any_snapshot(project: Project) -> None:
    project.write()
    project.does["architect"] = fail_with_markup
    project.run()
    for path in Path(".tapps-agents/workflow-state").rglob("*.json"):
        path.unlink()
    text = timeline_markdown(timeline_of(history(only_run())))

    assert text.count("| s3 | architect | design_system |") == 4
    assert "- **Failed**: 4" in text
    assert r"- **s3** (architect/design_system): no \| luck &lt;b>" in text


def test_timeouts_and_interruptions_have_signs_and_counts_of_their_own(project: Project) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    project.write([one | {"metadata": {"retry": {"enabled": False}}} for one in chain()])
    project.kill_in("planner")
    executor = project.executor()
    executor.parallel_executor.default_timeout_seconds = 0.2
    project.does["planner"] = hang
    asyncio.run(resume(executor, only_run()))
    text = timeline_markdown(timeline_of(history(only_run())))

    assert "| ⚡ interrupted |" in text
    assert "| ⏱️ timeout |" in text
    assert "- **Interrupted**: 1" in text
    assert "- **Timeout**: " in text
    failed = text.partition("## Failed Steps")[2]
    assert "- **s2** (planner/create_stories): " in failed
    assert "without ending this step" not in failed


def test_a_killed_and_resumed_run_has_one_timeline(project: Project) -> None:
    project.write()
    project.kill_in("architect")
    assert timeline_of(history(only_run()))["completed_at"] is None
    asyncio.run(resume(project.executor(), only_run()))
    made = timeline_of(history(only_run()))

    assert [(one["step_id"], one["status"]) for one in made["steps"]] == [
        ("s1", "completed"), ("s2", "completed"), ("s3", "interrupted"),
        *((name, "completed") for name in ("s3", "s4", "s5")),
    ]  # fmt: skip
    assert made["status"] == "completed"


def test_hostile_names_are_escaped() -> None:
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
