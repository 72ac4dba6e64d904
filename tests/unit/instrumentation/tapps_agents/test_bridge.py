"""tapps-agents' event log, served from this package's log by the setting ``executor_bridge``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tapps_agents_project import FIVE, Project, chain, fail, only_run
from tapps_otel import configure
from tapps_otel.instrumentation import instrument
from tapps_otel.instrumentation.tapps_agents import resume


@pytest.fixture(autouse=True)
def _instrumented(_own_place: None) -> None:
    instrument("tapps_agents")


@pytest.fixture
def _bridged(project: Project) -> None:
    configure(executor_bridge=True)


@pytest.mark.usefixtures("_bridged")
def test_the_history_shows_failures_and_skips(project: Project) -> None:
    project.write([one | {"metadata": {"skip_on_fail": True}, "requires": []} for one in chain()])
    project.does["architect"] = fail
    executor = project.run()
    shown = executor.event_log.get_execution_history(executor.state.workflow_id)

    assert shown["status"] == "completed"
    kinds = [one["event_type"] for one in shown["steps"]["s3"]]
    assert kinds == ["step_start", "step_fail"] * 4 + ["step_skip"]
    assert shown["steps"]["s3"][1]["error"] == "no luck"
    assert [one["seq"] for one in shown["events"]] == sorted(one["seq"] for one in shown["events"])


@pytest.mark.usefixtures("_bridged")
def test_the_trace_has_durations(project: Project) -> None:
    project.write()
    executor = project.run()
    shown = executor.event_log.get_execution_trace(executor.state.workflow_id)

    assert [one["step_id"] for one in shown["steps"]] == list(FIVE)
    assert all(one["duration_ms"] > 0 for one in shown["steps"])  # its own log has no durations
    assert shown["steps"][0]["artifact_paths"] == ["requirements.md"]


@pytest.mark.usefixtures("_bridged")
def test_the_graph_has_every_step(project: Project) -> None:
    project.write()
    executor = project.run()
    graph = executor.event_log.generate_execution_graph(executor.state.workflow_id)

    assert {node.label for node in graph.nodes} | {node.id for node in graph.nodes} >= set(FIVE)


@pytest.mark.usefixtures("_bridged")
def test_observers_get_every_event_and_the_file_only_the_start(project: Project) -> None:
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
def test_a_killed_run_is_interrupted(project: Project) -> None:
    project.write()
    project.kill_in("architect")
    executor = project.executor()

    assert executor.event_log.get_execution_history(only_run())["status"] == "interrupted"
    asyncio.run(resume(executor, only_run()))
    shown = executor.event_log.get_execution_history(only_run())
    assert shown["status"] == "completed"
    assert len(executor.event_log.read_events(only_run(), limit=2)) == 2


@pytest.mark.usefixtures("_bridged")
def test_events_of_other_runs_come_from_the_file(project: Project) -> None:
    project.write()
    log = project.executor().event_log
    log.emit_event(event_type="workflow_start", workflow_id="other")

    assert [one.event_type for one in log.read_events("other")] == ["workflow_start"]


def test_without_the_setting_the_file_is_written_and_read(project: Project) -> None:
    project.write()
    executor = project.run()
    shown = executor.event_log.read_events(executor.state.workflow_id)

    assert [one.event_type for one in shown].count("artifact_created") == 5
