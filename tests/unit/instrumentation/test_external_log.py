"""Executors that report what they do as events with keys."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tapps_otel import (
    ExternalLog,
    annotate,
    configure,
    current_run,
    history,
    list_runs,
    step,
    workflow,
)
from tapps_otel.errors import LogWriteError
from tapps_otel.log import files
from tapps_otel.log.files import FaultyFiles

Story = Callable[..., list[str]]
Events = Callable[..., list[dict[str, Any]]]
LOGS = Path(".tapps-agents/workflow-state/events")


@pytest.fixture
def log() -> ExternalLog:
    return ExternalLog("crew")


def test_runs_and_steps_are_found_by_their_keys(log: ExternalLog, events: Events) -> None:
    log.run_begin(1, name="research", run_id="r", about={"crew": "a"}, inputs={"topic": "x"})
    log.step_begin(("task", 1), parent=1, name="task", agent="writer", attributes={"n": 1})
    log.step_begin("tool", parent=("task", 1), name="search", action="tool")
    log.step_end("tool", result={"hits": 3}, attributes={"tokens": 7})
    log.step_end(("task", 1))
    log.run_end(1)

    start, task, tool, found, done, end = events("r")
    assert start["workflow"] == {"name": "research", "executor": "crew", "crew": "a"}
    assert start["inputs"] == {"topic": "x"}
    assert (task["step_id"], task["agent"], task["attributes"]) == ("task", "writer", {"n": 1})
    assert (tool["step_id"], tool["parent_span_id"]) == ("task/search", task["span_id"])
    assert (found["result"], found["attributes"]) == ({"hits": 3}, {"tokens": 7})
    assert (done["event_type"], end["status"]) == ("step_finish", "completed")


def test_a_repeated_name_is_a_new_step_and_a_repeated_id_an_attempt(
    log: ExternalLog, story: Story
) -> None:
    log.run_begin("run", run_id="r")
    for key in range(2):
        log.step_begin(key, parent="run", name="search")
        log.step_end(key)
    for key in range(2):
        log.step_begin(key, parent="run", name="task", step_id="task-1")
        log.step_end(key, error=None if key else "no luck")
    log.run_end("run")

    assert story("r")[1:-1] == [
        "step_start search 1", "step_finish search 1",
        "step_start search#2 1", "step_finish search#2 1",
        "step_start task-1 1", "step_fail task-1 1 failed",
        "step_start task-1 2", "step_finish task-1 2",
    ]  # fmt: skip
    assert history("r").by_id["task-1"].name == "task"


def test_a_resumed_turn_gives_new_steps_new_numbers(log: ExternalLog, story: Story) -> None:
    for _ in range(2):
        log.run_begin("run", thread="chat", continues=lambda last: "resume")
        log.step_begin("a", parent="run", name="search")
        log.step_end("a")
        log.run_end("run", status="paused", question="more?")

    assert story("chat")[4:7] == [
        "workflow_resume",
        "step_start search#2 1",
        "step_finish search#2 1",
    ]
    assert history("chat").question == "more?"


def test_an_alias_stands_for_its_parent(log: ExternalLog, story: Story) -> None:
    log.run_begin("run", run_id="r")
    log.step_begin("a", parent="run", name="a")
    log.alias("generation", "a")
    log.alias("response", "generation")
    log.step_begin("b", parent="response", name="b")
    log.run_end("run")
    log.step_end("b")

    assert story("r")[1:] == [
        "step_start a 1", "step_start a/b 1", "workflow_end completed", "step_finish a/b 1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "status", "error"),
    [
        ({}, "completed", None),
        ({"error": ValueError("no")}, "failed", "ValueError"),
        ({"error": "no"}, "failed", "StepFailed"),
        ({"status": "timeout"}, "timeout", "StepFailed"),
        ({"status": "skipped", "error": "cached"}, "skipped", None),
        ({"status": "paused", "question": "ok?"}, "paused", None),
    ],
)
def test_a_step_ends_as_its_executor_says(
    log: ExternalLog, events: Events, how: dict[str, Any], status: str, error: str | None
) -> None:
    log.run_begin("run", run_id="r")
    log.step_begin("a", parent="run", name="a")
    log.step_end("a", **how)
    log.step_end("a", status="failed")  # a second end changes nothing
    log.run_end("run")

    end = events("r")[2]
    assert (end["status"], end.get("error", {}).get("type")) == (status, error)
    assert len(events("r")) == 4


def test_an_attached_step_is_current_until_it_ends(log: ExternalLog, story: Story) -> None:
    @step
    def ours() -> int:
        annotate("here")
        return 1

    log.run_begin("run", run_id="r", attach=True)
    log.step_begin("a", parent="run", name="a", attach=True)
    assert ours() == 1
    log.step_end("a")
    log.run_end("run")

    assert ours() == 1  # outside: a plain call
    assert story("r")[1:-1] == [
        "step_start a 1", "step_start a/ours 1", "annotation here", "step_finish a/ours 1",
        "step_finish a 1",
    ]  # fmt: skip


@workflow
def flow() -> str:
    return current_run().workflow_id


def test_events_may_come_from_any_thread(log: ExternalLog, story: Story) -> None:
    def tell(number: int) -> None:
        log.step_begin(number, parent="run", name=f"s{number}", attach=True)
        log.step_end(number)

    log.run_begin("run", run_id="r")
    threads = [threading.Thread(target=tell, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # What is attached stays so in its context, where it does not end there.
    here = contextvars.copy_context()
    here.run(log.step_begin, "x", parent="run", name="x", attach=True)
    ending = threading.Thread(target=log.step_end, args=("x",))
    ending.start()
    ending.join()
    log.run_end("run")
    assert here.run(flow.options(workflow_id="own")) == "own"  # no step of what has ended

    assert sorted(story("r")[1:-1]) == sorted(
        f"{kind} {name} 1"
        for name in [*(f"s{number}" for number in range(8)), "x"]
        for kind in ("step_start", "step_finish")
    )


def test_a_run_whose_end_was_never_told_is_cancelled_by_the_next(log: ExternalLog) -> None:
    log.run_begin("run", run_id="r")
    log.run_begin("run", run_id="r")
    log.run_end("run")

    assert {run.workflow_id: run.status for run in list_runs()} == {
        "r": "cancelled",
        "r.2": "completed",
    }


def test_unknown_keys_are_ignored(log: ExternalLog, caplog: pytest.LogCaptureFixture) -> None:
    log.step_begin("a", parent="nobody", name="a")
    log.step_end("a")
    log.alias("b", "nobody")
    log.alias("b", "b")
    log.run_end("nobody")

    assert not LOGS.exists()
    assert not caplog.records


def test_what_is_kept_is_bounded(log: ExternalLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapps_otel.instrumentation.external_log._MOST_LEFT", 10)
    for run in range(3):
        log.run_begin(run)
        for number in range(20):
            log.step_begin((run, number), parent=run, name="a")
            log.alias((run, number, "alias"), run)
        log.run_end(run)

    assert len(log._left) == 10
    assert {*log._runs, *log._steps, *log._aliases} == set()


def test_switched_off_nothing_is_logged(log: ExternalLog) -> None:
    configure(enabled=False)
    log.run_begin("run")
    log.step_begin("a", parent="run", name="a")
    log.step_end("a")
    log.run_end("run")

    assert not LOGS.exists()


@pytest.mark.parametrize(
    "broken", ["start_run", "ExternalStep", "checked_attributes", "to_json", "ExternalLog._find"]
)
def test_nothing_is_raised_into_the_executor(
    log: ExternalLog,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(f"tapps_otel.instrumentation.external_log.{broken}", fail)
    log.run_begin("run")
    log.step_begin("a", parent="run", name="a", attributes={"b": object()})
    log.step_end("a", attributes={"b": object()})
    log.alias("b", "a")
    log.run_end("run")

    assert "a mistake" in caplog.text


def test_with_stop_a_step_that_cannot_be_logged_is_refused() -> None:
    configure(on_log_failure="stop")
    log = ExternalLog("crew", log_dir="logs")
    with files.use(FaultyFiles("write", nth=2)):
        log.run_begin("run")
        with pytest.raises(LogWriteError):
            log.step_begin("a", parent="run", name="a")
        log.run_end("run")


@pytest.mark.parametrize("chosen", ["stop", "continue"])
def test_what_was_chosen_when_the_run_began_decides_whether_its_steps_are_refused(
    chosen: Any,
) -> None:
    configure(on_log_failure=chosen)
    log = ExternalLog("crew", log_dir="logs")
    with files.use(FaultyFiles("write", nth=2)):
        log.run_begin("run")
        configure(on_log_failure="continue" if chosen == "stop" else "stop")
        with pytest.raises(LogWriteError) if chosen == "stop" else nullcontext():
            log.step_begin("a", parent="run", name="a")
        log.run_end("run")
