"""Runs of third-party executors: these decide what runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from crashes import Effects, die, in_child
from tapps_otel import Attempt, Run, clock, configure, history, settings, step, verify
from tapps_otel.errors import RunBusyError
from tapps_otel.log.files import Files, use
from tapps_otel.log.run_numbers import RunNumbers
from tapps_otel.log.store import RunSummary, Store
from tapps_otel.report.history import outlook
from tapps_otel.run.external_attempt import ExternalAttemptRecorder, ExternalStep
from tapps_otel.run.external_run import ExternalRunRecorder
from tapps_otel.run.external_start import (
    ExternalWorkflow,
    annotate_turn,
    resume_run,
    start_run,
    start_turn,
)

Log = Callable[..., list[dict[str, Any]]]
Labels = Callable[..., list[str]]

FLOW = ExternalWorkflow("flow", {"executor": "engine", "root": "/project"})
DRAFT = ExternalStep("draft", agent="writer", action="write", definition="0123456789abcdef")


@pytest.fixture
def store(log_dir: Path) -> Store:
    return Store(log_dir)


def anew(store: Store, workflow_id: str = "r") -> ExternalRunRecorder:
    return start_run(store, workflow_id, FLOW, settings.current())


def on(store: Store, workflow_id: str = "r") -> ExternalRunRecorder:
    return resume_run(store, workflow_id, FLOW, settings.current())


def fail(run: ExternalRunRecorder) -> None:
    run.begin_step("draft", DRAFT).fail(ValueError("no"))


def test_a_step_has_no_result_and_may_be_started_again(store: Store, log: Log) -> None:
    run = anew(store)
    for _ in range(2):
        run.begin_step("draft", DRAFT).finish()
    run.end("completed")

    start, *steps, end = log()
    assert start["workflow"] == {"name": "flow", **FLOW.about}
    assert [(one["event_type"], one["attempt"]) for one in steps] == [
        ("step_start", 1), ("step_finish", 1), ("step_start", 2), ("step_finish", 2),
    ]  # fmt: skip
    assert steps[0]["definition"] == "0123456789abcdef"
    fields = {name for one in [*steps, end] for name in one}
    assert not fields & {"result", "result_omitted", "inputs_digest", "order", "key", "caused_by"}


def test_attempts_count_on_over_executions(store: Store, log: Log) -> None:
    run = anew(store)
    fail(run)
    run.end("failed")
    again = on(store)
    fail(again)
    again.begin_step("draft", DRAFT).finish()
    again.end("completed")

    assert [one["attempt"] for one in log() if "attempt" in one] == [1, 1, 2, 2, 3, 3]
    assert history("r").status == "completed"


def test_a_skip_may_follow_a_failure_or_come_alone(store: Store, log: Log) -> None:
    run = anew(store)
    fail(run)
    run.skip_step("draft", DRAFT, "its failure does not matter")
    run.skip_step("print", ExternalStep("print"), "nothing to print")
    run.end("completed")

    skips = log("step_skip")
    assert (skips[0]["agent"], skips[0]["action"]) == ("writer", "write")
    assert [(one["step_id"], one["attempt"]) for one in skips] == [("draft", 1), ("print", 0)]
    assert all("duration_ns" not in one for one in skips)
    assert {one["span_id"] for one in skips} == {log()[0]["span_id"]}
    found = history("r").by_id
    assert (found["draft"].status, found["print"].status) == ("skipped", "skipped")
    assert found["draft"].last.reason == "its failure does not matter"
    assert found["draft"].last.error is not None


@pytest.mark.parametrize(
    ("said", "status", "attributes"),
    [
        ("completed", "completed", None),
        ("paused", "paused", None),
        ("cancelled", "cancelled", None),
        ("failed", "failed", None),
        ("blocked", "failed", {"tapps.executor.status": "blocked"}),
    ],
)
def test_an_end_has_the_executors_word_or_keeps_it(
    store: Store, log: Log, said: str, status: str, attributes: dict[str, str] | None
) -> None:
    anew(store).end(said)

    end = log()[-1]
    assert (end["status"], end.get("attributes")) == (status, attributes)
    assert ("error" in end) is (status == "failed")


def test_a_failed_end_always_has_a_reason(store: Store, log: Log) -> None:
    anew(store).end("failed", "the third step is stuck")

    assert log()[-1]["error"] == {
        "type": "WorkflowFailed", "message": "the third step is stuck", "stack": None,
    }  # fmt: skip


def test_a_second_end_changes_nothing(store: Store) -> None:
    run = anew(store)
    run.end("completed")
    run.end("failed")

    assert history("r").status == "completed"


def test_what_begins_after_the_end_is_late(store: Store, log: Log) -> None:
    run = anew(store)
    run.end("completed")
    run.begin_step("draft", DRAFT).finish()

    assert [one.get("late") for one in log()] == [None, None, True, True]
    assert history("r").status == "completed"


def test_a_long_reason_of_an_executor_is_shortened(store: Store, log: Log) -> None:
    run = anew(store)
    run.skip_step("draft", DRAFT, "x" * 2_000_000)
    run.end("failed", "y" * 2_000_000)

    skip, end = log()[1:]
    assert "characters left out" in skip["reason"]
    assert "characters left out" in end["error"]["message"]


def test_what_does_not_fit_into_an_event_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="too large"):
        anew(store, "x" * 100_000)
    large = ExternalWorkflow("flow", {"executor": "engine", "steps": ["x" * 600_000]})
    with pytest.raises(ValueError, match="too large"):
        start_run(store, "r", large, settings.current())
    run = anew(store, "other")
    with pytest.raises(ValueError, match="too long"):
        run.begin_step("x" * 100_000, DRAFT)
    run.end("completed")
    assert history("other").steps == []


# ---------------------------------------------------------------- ids


def test_a_taken_id_gets_a_number(store: Store, log: Log) -> None:
    for _ in range(3):
        anew(store).end("completed")

    assert log(None, "r.2")[0]["workflow_id"] == "r.2"
    assert [one.workflow_id for one in store.runs()] == ["r.3", "r.2", "r"]


def test_a_live_runs_id_gets_a_number_too(store: Store) -> None:
    first = anew(store)
    second = anew(store)
    assert (first.workflow_id, second.workflow_id) == ("r", "r.2")
    with pytest.raises(RunBusyError):
        on(store)
    first.end("completed")
    second.end("completed")


def test_the_name_of_traces_of_no_run_counts_as_taken(store: Store) -> None:
    run = anew(store, "traces")
    run.end("completed")

    assert run.workflow_id == "traces.2"


HOSTILE = ["../../x", "/etc/passwd", "", "a\nb", "\ud800", "x" * 500, "r.events", "-rf", "ü"]


@pytest.mark.parametrize("workflow_id", HOSTILE)
def test_any_id_is_in_the_events_and_names_a_safe_file(store: Store, workflow_id: str) -> None:
    run = anew(store, workflow_id)
    fail(run)
    run.end("failed")
    again = on(store, workflow_id)
    again.end("completed")

    (path,) = store.folder.glob("*.jsonl")
    assert path.parent == store.folder
    assert path.name.isascii()
    assert {json.loads(line)["workflow_id"] for line in path.read_bytes().splitlines()} == {
        workflow_id
    }
    assert history(path.stem).status == "completed"
    verify(path.stem).raise_if_bad()


def test_two_ids_that_look_alike_have_two_logs(store: Store) -> None:
    anew(store, "a/b").end("completed")
    anew(store, "a-b").end("completed")
    anew(store, "a\\b").end("completed")

    assert len(list(store.folder.glob("*.jsonl"))) == 3


def test_a_torn_log_is_declared_under_the_runs_own_id(store: Store) -> None:
    anew(store, "a/b").end("failed")
    (path,) = store.folder.glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"v":1,"se')
    on(store, "a/b").end("completed")

    repair = json.loads(path.read_bytes().splitlines()[3])
    assert (repair["event_type"], repair["workflow_id"]) == ("log_repair", "a/b")


class Counted(Files):
    """Files that count how often one is opened.

    :param runs: how many runs of the id ``r`` seem to have a log
    """

    def __init__(self, runs: int = 1) -> None:
        self.calls, self._runs = 0, runs

    def open_read(self, path: Path) -> BinaryIO:
        self.calls += 1
        number = re.fullmatch(r"r\.(\d+)\.jsonl", path.name)
        if number and int(number[1]) <= self._runs:
            path = path.with_name("r.jsonl")
        return super().open_read(path)


def test_the_next_of_100_000_runs_costs_as_little_as_the_second(store: Store) -> None:
    anew(store).end("completed")
    numbers = RunNumbers(store, "r")
    with use(second := Counted()):
        assert numbers.next() == 2
    with use(lost := Counted(100_000)):
        assert numbers.next() == 100_001
    numbers.note(100_000)
    with use(noted := Counted(100_000)):
        assert numbers.next() == 100_001

    assert noted.calls <= second.calls
    assert lost.calls < 50  # the note is a hint: without it the number is found by halving


def test_the_number_of_a_run_is_noted(store: Store) -> None:
    for _ in range(3):
        anew(store).end("completed")
    (store.folder / "r.2.jsonl").unlink()
    with use(counted := Counted()):
        anew(store).end("completed")

    assert [one.workflow_id for one in store.runs()] == ["r.4", "r.3", "r"]
    assert counted.calls == 2


@pytest.mark.parametrize("noted", [b"", b"two", b"-7", b"1", b"2"])
def test_a_note_that_is_wrong_or_too_low_does_not_matter(store: Store, noted: bytes) -> None:
    for _ in range(5):
        anew(store).end("completed")
    (store.folder / "r.runs").write_bytes(noted)
    run = anew(store)
    run.end("completed")

    assert run.workflow_id == "r.6"
    assert (store.folder / "r.runs").read_bytes() == b"6"


def test_a_note_that_cannot_be_written_costs_nothing(store: Store) -> None:
    anew(store).end("completed")
    (store.folder / "r.runs").mkdir()
    run = anew(store)
    run.end("completed")

    assert run.workflow_id == "r.2"


# ---------------------------------------------------------------- a crash


def test_an_interrupted_step_is_recorded_and_the_executor_starts_it_again(
    store: Store, log: Log
) -> None:
    def doomed() -> None:
        run = anew(store)
        run.begin_step("draft", DRAFT).finish()
        run.begin_step("print", ExternalStep("print"))
        die()

    in_child(doomed)
    before = history("r")
    assert "at print; 1 completed step will not run again" in str([*outlook(before, None)][-1])
    run = on(store)
    run.begin_step("print", ExternalStep("print")).finish()
    run.end("completed")

    assert [
        (one["event_type"], one["step_id"], one.get("status")) for one in log() if "step_id" in one
    ][3:] == [
        ("step_fail", "print", "interrupted"), ("step_start", "print", "running"),
        ("step_finish", "print", "completed"),
    ]  # fmt: skip


def test_steps_of_ours_inside_a_step_that_was_cut_short_are_not_run_again(
    store: Store, did: Effects
) -> None:
    @step
    def inner(name: str) -> str:
        did(name)
        return name

    def carry_out(run: ExternalRunRecorder, *, whole: bool) -> None:
        with Attempt(run.begin_step("draft", DRAFT)):
            inner("a")
            if not whole:
                die()
            inner("b")
        run.end("completed")

    in_child(lambda: carry_out(anew(store), whole=False))
    carry_out(on(store), whole=True)

    assert did.all == ["a", "b"]


# ---------------------------------------------------------------- by hand


def test_a_step_that_was_marked_takes_no_time(store: Store, log: Log) -> None:
    run = anew(store)
    Path("made.txt").write_text("made")
    run.mark_step("draft", DRAFT, ["made.txt"])
    run.end("completed")

    start, finish = log()[1:3]
    assert (start["late"], finish["late"], finish["duration_ns"]) == (True, True, 0)
    assert finish["timestamp"] == start["timestamp"]
    assert finish["artifacts"][0]["bytes"] == 4


def test_a_closed_log_is_reacquired_as_the_same_execution(store: Store, labels: Labels) -> None:
    run = anew(store)
    run.mark_step("draft", DRAFT)
    run.close()
    assert run.reacquire_log()
    with pytest.raises(RunBusyError):
        on(store)
    run.mark_step("print", ExternalStep("print"))
    run.end("completed")

    assert "workflow_resume" not in labels()
    assert len(history("r").executions) == 1


def test_a_log_that_another_execution_wrote_to_is_not_reacquired(store: Store) -> None:
    run = anew(store)
    run.close()
    other = on(store)
    other.close()

    assert not run.reacquire_log()
    assert other.reacquire_log()
    other.end("completed")


def left_in_progress(store: Store) -> ExternalAttemptRecorder:
    """A step whose run has given its log back."""
    run = anew(store)
    attempt = run.begin_step("draft", DRAFT)
    run.close()
    return attempt


def test_a_step_that_ends_after_its_run_was_resumed_is_not_logged(
    store: Store, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = left_in_progress(store)
    other = on(store)
    caplog.clear()
    attempt.finish()
    other.end("completed")

    (said,) = caplog.records
    assert said.getMessage() == (
        "run 'r' was resumed while steps of its execution 1 were in progress: what these do from "
        "now on is not logged"
    )
    assert log("step_finish") == []


def test_a_step_that_ends_while_another_process_looks_at_its_run_is_logged(
    store: Store, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = left_in_progress(store)
    held = store.lease("r")
    monkeypatch.setattr(clock, "sleep", lambda _: held.release())
    attempt.finish()

    assert [one["step_id"] for one in log("step_finish")] == ["draft"]


def test_a_log_with_an_annotation_of_another_process_is_reacquired(store: Store, log: Log) -> None:
    run = anew(store)
    run.close()
    config = settings.current()
    annotate_turn(store, "r", "edited", {"by": "ann", "why": "password=hunter22"}, config)

    assert run.reacquire_log()
    run.end("completed")
    [note] = log("annotation")
    assert (note["name"], note["late"], note["execution"]) == ("edited", True, 1)
    assert note["attributes"]["by"] == "ann"
    assert "hunter22" not in note["attributes"]["why"]
    assert "span_id" not in note


def test_only_the_last_run_of_a_thread_is_annotated(store: Store, log: Log) -> None:
    config = settings.current()
    annotate_turn(store, "r", "edited", {}, config)  # there is none
    assert not [*store.folder.glob("*.jsonl")]
    anew(store).end("completed")
    anew(store).end("completed")
    annotate_turn(store, "r", "edited", {}, config)

    assert log("annotation") == []
    assert [one["name"] for one in log("annotation", "r.2")] == ["edited"]


# ---------------------------------------------------------------- turns of a thread


def turn(store: Store, word: str, asked: list[RunSummary] | None = None) -> ExternalRunRecorder:
    def decide(last: RunSummary) -> str:
        if asked is not None:
            asked.append(last)
        return word

    return start_turn(store, "r", FLOW, settings.current(), decide)


def test_a_turn_may_resume_the_one_before(store: Store) -> None:
    asked: list[RunSummary] = []
    turn(store, "resume", asked).end("paused")
    turn(store, "resume", asked).end("completed")

    assert [(one.workflow_id, one.status) for one in asked] == [("r", "paused")]
    assert len(history("r").executions) == 2


@pytest.mark.parametrize(
    ("word", "status", "forked_from"),
    [("new", "paused", None), ("fork", "paused", "r"), ("abandon_and_new", "cancelled", None)],
)
def test_a_turn_may_be_a_new_run(
    store: Store, log: Log, word: str, status: str, forked_from: str | None
) -> None:
    turn(store, word).end("paused")
    turn(store, word).end("completed")

    assert history("r").status == status
    about = log(None, "r.2")[0]["workflow"]
    assert (about["thread"], about.get("forked_from")) == ("r", forked_from)


def test_a_turn_needs_a_word_that_is_known(store: Store) -> None:
    turn(store, "new").end("paused")

    with pytest.raises(ValueError, match="cannot continue by 'on': it must be one of 'new'"):
        turn(store, "on")


# ---------------------------------------------------------------- beside ours


def test_it_is_not_one_of_ours(store: Store) -> None:
    anew(store).end("failed")
    with pytest.raises(Exception, match="belongs to workflow 'flow' of the executor"):
        Run.open("flow", workflow_id="r")


def test_it_keeps_the_rules_of_the_settings_with_which_it_began(store: Store, log: Log) -> None:
    config = settings.current()
    configure(redact=False)
    run = start_run(store, "r", FLOW, config)
    run.skip_step("draft", DRAFT, "password=hunter22")
    run.end("completed")

    assert "hunter22" not in log("step_skip")[0]["reason"]


def test_inside_a_run_of_ours_it_is_in_its_trace(store: Store, log: Log) -> None:
    def inside() -> None:
        anew(store, "inner").end("completed")

    with Run.open("outer", workflow_id="r") as run:
        run.call("engine", inside)

    outer, inner = log(), log(None, "inner")
    assert inner[0]["trace_id"] == outer[0]["trace_id"]
    assert inner[0]["parent_span_id"] == outer[1]["span_id"]
    assert log("annotation")[0]["attributes"] == {"workflow_id": "inner"}
