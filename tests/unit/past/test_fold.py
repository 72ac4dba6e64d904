"""The fold: what a run's events add up to."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from histories import AT, Story, started
from logs import ID
from tapps_otel import clock
from tapps_otel.log.event import EVENT_TYPES, Encrypted, Event, raw_json
from tapps_otel.names import ATTR
from tapps_otel.past.fold import (
    DIGEST,
    GATE,
    RESOLVED,
    ChildRun,
    Fold,
    ForkOrigin,
    Gate,
    ParentStep,
    Pause,
    collector_paused,
    fold,
    fork_origin,
)

# ---------------------------------------------------------------- executions


def test_a_start_tells_what_the_run_is() -> None:
    story = Story()
    story.execution(
        workflow={"name": "article", "path": "flow.py"},
        inputs=raw_json({"n": 1}),
        trace_id="a" * 32,
        span_id="b" * 16,
        process={"pid": 7},
        otel={"flags": 1},
    )
    history = story.history

    assert (history.workflow_id, history.name, history.status) == (ID, "article", "running")
    assert (history.inputs, history.inputs_blob, history.seq) == (b'{"n":1}', None, 1)
    assert history.trace_id == "a" * 32
    (execution,) = history.executions
    assert (execution.number, execution.start_seq, execution.started_ns) == (1, 1, AT + 1)
    assert (execution.span_id, execution.flags, execution.process) == ("b" * 16, 1, {"pid": 7})
    assert (execution.status, execution.end_seq, execution.duration_ns) == ("running", 0, None)


def test_nothing_is_known_of_a_run_without_events() -> None:
    history = fold(ID, [])

    assert (history.status, history.seq, history.steps, history.executions) == (
        "running",
        0,
        [],
        [],
    )
    assert (history.trace_id, history.result, history.name) == (None, None, "")
    assert not history.foreign


def test_large_inputs_are_known_by_the_name_of_their_file() -> None:
    story = Story()
    story.execution(inputs_blob="c" * 64)

    assert (story.history.inputs, story.history.inputs_blob) == (None, "c" * 64)


@pytest.mark.parametrize("flags", [True, "1", None, 1.0])
def test_trace_flags_that_are_no_integer_are_unknown(flags: object) -> None:
    story = Story()
    story.execution(otel={"flags": flags})

    assert story.history.executions[0].flags is None


def test_an_execution_without_end_is_interrupted_once_another_begins() -> None:
    story = started()
    assert [one.status for one in story.history.executions] == ["running"]
    story.execution()

    assert [one.status for one in story.history.executions] == ["interrupted", "running"]
    assert story.history.status == "running"


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "interrupted", "paused"])
def test_the_status_is_that_of_the_last_end(status: str) -> None:
    story = started()
    seq = story.end(status, duration_ns=5)
    history = story.history

    assert (history.status, history.executions[0].status) == (status, status)
    assert (history.executions[0].end_seq, history.executions[0].duration_ns) == (seq, 5)


def test_an_end_without_status_or_start_is_a_failure() -> None:
    story = Story()
    story.add("workflow_end")

    assert (story.history.status, story.history.executions) == ("failed", [])


def test_a_resume_clears_the_error_and_keeps_name_and_inputs() -> None:
    story = Story()
    story.execution(workflow={"name": "old"}, inputs=raw_json(1))
    story.end("failed", error={"type": "E", "message": "m"})
    assert story.history.error == {"type": "E", "message": "m"}
    story.execution(workflow={"name": "new"}, inputs=raw_json(2))
    history = story.history

    assert (history.status, history.error, history.name) == ("running", None, "old")
    assert (history.workflow, history.inputs) == ({"name": "new"}, b"1")
    assert [one.status for one in history.executions] == ["failed", "running"]


def test_a_resume_that_does_not_name_its_workflow_keeps_the_known_one() -> None:
    story = Story()
    story.execution(workflow={"name": "article"})
    story.execution()

    assert story.history.workflow == {"name": "article"}


def test_the_result_of_a_completed_run_is_read_as_json() -> None:
    story = started()
    story.end(result=raw_json([1, "two"]))
    assert (story.history.result, story.history.result_json) == ([1, "two"], b'[1,"two"]')
    story.end(result_blob="d" * 64)

    assert (story.history.result, story.history.result_blob) == (None, "d" * 64)


def test_a_run_of_an_executor_is_foreign() -> None:
    story = Story()
    story.execution(workflow={"name": "w", "executor": "x"})

    assert story.history.foreign


def test_an_execution_was_alive_at_its_latest_own_event() -> None:
    story = started()
    story.add("span", timestamp="2026-01-01T00:00:00.000000000Z")
    story.add("span", timestamp="2025-12-31T00:00:00.000000000Z")  # clocks may go back
    story.add("span", timestamp="2027-01-01T00:00:00.000000000Z", late=True)
    story.add("annotation", timestamp="2028-01-01T00:00:00.000000000Z", execution=2)
    history = story.history

    assert history.executions[0].last_timestamp == "2026-01-01T00:00:00.000000000Z"
    assert history.last_timestamp == "2028-01-01T00:00:00.000000000Z"


@pytest.mark.parametrize("text", ["", "yesterday", "2025-99-99T00:00:00.000000000Z"])
def test_a_time_that_cannot_be_read_is_1970(text: str) -> None:
    story = Story()
    story.execution(timestamp=text)
    story.start("draft", timestamp=text)

    assert story.history.executions[0].started_ns == 0
    assert story.record("draft").last.started_ns == 0


# ---------------------------------------------------------------- steps and attempts


def test_a_step_is_known_by_what_its_start_says() -> None:
    story = started()
    seq = story.start(
        "outer/draft#2",
        order=3,
        agent="writer",
        action="write",
        key="k",
        definition="0" * 16,
        inputs=raw_json([1]),
        span_id="e" * 16,
    )
    step = story.record("outer/draft#2")

    assert (step.step_id, step.name, step.parent) == ("outer/draft#2", "draft", "outer")
    assert (step.agent, step.action, step.key) == ("writer", "write", "k")
    assert (step.definition, step.inputs) == ("0" * 16, b"[1]")
    assert (step.status, step.last.number, step.last.order) == ("running", 1, 3)
    assert (step.last.start_seq, step.last.end_seq, step.last.execution) == (seq, 0, 1)
    assert (step.last.span_id, step.last.started_ns) == ("e" * 16, AT + seq)
    assert not step.stored


def test_a_start_that_says_nothing_is_an_attempt_all_the_same() -> None:
    story = started()
    story.add("step_start")
    step = story.record("")

    assert (step.name, step.agent, step.action, step.inputs_digest) == ("", None, None, None)
    assert (step.last.number, step.last.order, step.last.span_id) == (1, None, None)
    assert (step.key, step.definition, step.inputs, step.parent) == (None, None, None, None)


def test_an_end_tells_how_the_attempt_went() -> None:
    story = started()
    story.start("draft")
    seq = story.finish("draft", 5, duration_ns=9, artifacts=[{"name": "a"}])
    step = story.record("draft")

    assert (step.status, step.result, step.stored) == ("completed", b"5", True)
    assert (step.last.end_seq, step.last.duration_ns) == (seq, 9)
    assert step.last.artifacts == ({"name": "a"},)
    assert step.attempts == [step.last]


def test_a_large_result_is_stored_in_a_file() -> None:
    story = started()
    story.start("draft")
    story.add("step_finish", step_id="draft", result_blob="f" * 64)
    step = story.record("draft")

    assert (step.result, step.result_blob, step.stored) == (None, "f" * 64, True)


@pytest.mark.parametrize(("fields", "why"), [({"result_omitted": "secret"}, "secret"), ({}, "")])
def test_a_result_that_was_left_out_is_not_stored(fields: dict[str, Any], why: str) -> None:
    story = started()
    story.start("draft")
    story.add("step_finish", step_id="draft", **fields)
    step = story.record("draft")

    assert (step.status, step.result_omitted, step.stored) == ("completed", why, False)


def test_a_skip_is_stored_with_its_reason_also_of_a_step_that_never_started() -> None:
    story = started()
    story.start("draft")
    story.skip("draft", reason="not needed")
    seq = story.skip("check", reason="nor that")
    draft, check = story.record("draft"), story.record("check")

    assert (draft.status, draft.stored, draft.last.reason) == ("skipped", True, "not needed")
    assert (check.status, check.stored, check.last.number) == ("skipped", True, 0)
    assert (check.last.start_seq, check.last.end_seq) == (seq, seq)


def test_a_failure_keeps_what_was_raised() -> None:
    story = started()
    story.start("draft")
    story.fail("draft", "timeout", caused_by=["draft/in"], retry_in_ns=7)
    step = story.record("draft")

    assert (step.status, step.stored) == ("timeout", False)
    assert step.last.error == {"type": "builtins.ValueError", "message": "no"}
    assert (step.last.caused_by, step.last.retry_in_ns) == (("draft/in",), 7)


def test_a_failure_without_status_or_step_is_one() -> None:
    story = started()
    story.add("step_fail")
    step = story.record("")

    assert (step.status, step.last.error, step.last.caused_by) == ("failed", None, ())


def test_another_attempt_begins_with_an_open_outcome() -> None:
    story = started()
    story.start("draft", definition="a" * 16)
    story.add("step_finish", step_id="draft", result_blob="f" * 64)
    story.execution()
    story.start("draft", definition="b" * 16)
    step = story.record("draft")

    assert [one.number for one in step.attempts] == [1, 2]
    assert [one.status for one in step.attempts] == ["completed", "running"]
    assert (step.status, step.result, step.result_blob, step.stored) == (
        "running",
        None,
        None,
        False,
    )
    assert step.definition == "b" * 16


def test_steps_stand_in_the_order_of_their_first_start() -> None:
    story = started()
    for step_id in ("b", "a", "c", "a", "b"):
        story.start(step_id)

    assert [step.step_id for step in story.history.steps] == ["b", "a", "c"]


# ---------------------------------------------------------------- rule 4: handled failures


def failed(order: int | None = 1) -> Story:
    """A run in which ``draft`` has failed for good."""
    story = started()
    story.start("draft", order=order)
    story.fail("draft")
    return story


def test_a_failure_is_handled_once_its_scope_makes_another_call() -> None:
    story = failed()
    assert not story.record("draft").handled
    story.start("note", order=1)

    assert story.record("draft").handled
    assert not story.record("note").handled


@pytest.mark.parametrize("status", ["failed", "timeout"])
def test_failures_and_time_outs_can_be_handled(status: str) -> None:
    story = started()
    story.start("draft", order=1)
    story.fail("draft", status)
    story.start("note", order=1)

    assert story.record("draft").handled


@pytest.mark.parametrize("status", ["cancelled", "interrupted"])
def test_what_ended_from_outside_is_never_handled(status: str) -> None:
    story = started()
    story.start("draft", order=1)
    story.fail("draft", status)
    story.start("note", order=1)

    assert not story.record("draft").handled


def test_a_call_in_a_task_shows_that_an_ordered_failure_was_handled() -> None:
    story = failed()
    story.start("note")

    assert story.record("draft").handled


def test_only_an_ordered_call_shows_that_a_failure_in_a_task_was_handled() -> None:
    story = failed(order=None)
    story.start("sibling")
    assert not story.record("draft").handled
    story.start("note", order=1)

    assert story.record("draft").handled


def test_a_call_of_another_scope_shows_nothing() -> None:
    story = failed()
    story.start("outer/note", order=1)

    assert not story.record("draft").handled


def test_a_failure_that_is_retried_is_not_final() -> None:
    story = started()
    story.start("draft", order=1)
    story.fail("draft", retry_in_ns=0)
    story.start("note", order=1)

    assert not story.record("draft").handled


def test_only_the_execution_that_saw_the_failure_can_have_handled_it() -> None:
    for order in (1, None):
        story = failed(order)
        story.execution()
        story.start("note", order=1)

        assert not story.record("draft").handled


def test_a_failure_that_ended_the_run_was_not_handled() -> None:
    story = failed()
    story.start("note", order=1)
    story.end("failed", caused_by=["draft", "unknown"])

    assert not story.record("draft").handled


def test_a_failure_that_left_its_scope_was_not_handled() -> None:
    story = started()
    story.start("outer", order=1)
    story.start("outer/draft", order=1)
    story.fail("outer/draft")
    story.start("outer/note", order=1)
    assert story.record("outer/draft").handled
    story.fail("outer", caused_by=["outer/draft"])

    assert not story.record("outer/draft").handled


def test_after_the_end_of_a_scope_no_call_shows_a_failure_in_it_to_be_handled() -> None:
    story = started()
    story.start("outer", order=1)
    story.start("outer/draft", order=1)
    story.fail("outer/draft")
    story.fail("outer", retry_in_ns=1)
    story.start("outer/note", order=1)
    assert not story.record("outer/draft").handled
    story = failed()
    story.end("failed")
    story.start("note", order=1)  # code that the run left behind

    assert not story.record("draft").handled


def test_a_failed_step_that_ends_well_after_all_is_no_failure() -> None:
    """A third-party executor may skip what has failed."""
    for order in (1, None):
        story = started()
        story.start("other")
        story.start("draft", order=order)
        story.fail("draft")
        story.fail("other")
        story.skip("draft")
        story.start("note", order=2)

        assert not story.record("draft").handled
        assert story.record("other").handled


def test_a_handled_failure_that_runs_again_is_not_handled_by_the_next_call() -> None:
    for order in (1, None):
        story = failed(order)
        story.start("note", order=1)
        assert story.record("draft").handled
        story.start("draft", order=2)
        story.start("note#2", order=2)

        assert not story.record("draft").handled


def test_another_attempt_of_a_handled_failure_is_judged_anew() -> None:
    story = failed()
    story.start("note", order=1)
    story.execution()
    story.start("draft", order=1)

    assert not story.record("draft").handled


# ---------------------------------------------------------------- rule 3: no longer due


@pytest.mark.parametrize("status", ["failed", "timeout", "cancelled"])
def test_what_started_after_a_bad_end_is_not_due_once_the_step_runs_again(status: str) -> None:
    story = started()
    story.step("before", order=1)
    story.start("work", order=1)
    story.fail("work", status)
    story.step("note", order=1)
    story.execution()
    assert story.history.scope(None).due(story.record("note"))
    story.start("work", order=1)
    story.step("after", order=1)
    scope = story.history.scope(None)

    assert scope.due(story.record("before"))
    assert not scope.due(story.record("note"))
    assert scope.due(story.record("work"))
    assert scope.due(story.record("after"))


def test_after_an_interruption_or_a_retried_failure_all_stays_due() -> None:
    story = started()
    for step_id, status, fields in (("a", "interrupted", {}), ("b", "failed", {"retry_in_ns": 1})):
        story.start(step_id, order=1)
        story.fail(step_id, status, **fields)
        story.step(f"after-{step_id}", order=1)
        story.start(step_id, order=1)
    scope = story.history.scope(None)

    assert scope.due(story.record("after-a"))
    assert scope.due(story.record("after-b"))


def test_an_open_step_that_starts_again_leaves_all_due() -> None:
    story = started()
    story.start("work", order=1)
    story.step("note", order=1)
    story.execution()
    story.start("work", order=1)

    assert story.history.scope(None).not_due == []


def test_a_retry_need_not_ask_for_what_the_try_before_asked_for() -> None:
    story = started()
    story.start("outer", order=1)
    story.step("outer/part", order=1)
    story.fail("outer", retry_in_ns=1)
    story.start("outer", order=1)
    story.step("outer/part#2", order=1)
    scope = story.history.scope("outer")

    assert not scope.due(story.record("outer/part"))
    assert scope.due(story.record("outer/part#2"))


def test_the_next_execution_asks_for_the_same_again() -> None:
    story = started()
    story.start("outer", order=1)
    story.step("outer/part", order=1)
    story.fail("outer", "interrupted")
    story.execution()
    story.start("outer", order=1)

    assert story.history.scope("outer").due(story.record("outer/part"))


# ---------------------------------------------------------------- rule 6: inner records


def test_a_step_that_failed_by_itself_loses_its_inner_records() -> None:
    story = started()
    story.start("outer", order=1)
    story.step("outer/part", order=1)
    seq = story.fail("outer")

    assert story.history.scope("outer").reset_seq == seq


@pytest.mark.parametrize(
    ("status", "caused_by"),
    [
        ("failed", ["outer/part"]),
        ("timeout", []),
        ("cancelled", []),
        ("interrupted", []),
    ],
)
def test_a_step_that_ended_otherwise_keeps_its_inner_records(
    status: str, caused_by: list[str]
) -> None:
    story = started()
    story.start("outer", order=1)
    story.step("outer/part", order=1)
    story.fail("outer", status, caused_by=caused_by)

    assert story.history.scope("outer").reset_seq == 0


# ---------------------------------------------------------------- rule 5: interruptions


def test_interruptions_in_a_row_are_counted() -> None:
    story = started()
    for count in (1, 2, 3):
        story.start("draft")
        story.fail("draft", "interrupted")
        assert story.record("draft").interruptions == count
    story.start("draft")
    story.fail("draft", "failed")

    assert story.record("draft").interruptions == 0


def test_a_step_that_completes_was_interrupted_for_the_last_time() -> None:
    story = started()
    story.start("draft")
    story.fail("draft", "interrupted")
    story.step("draft")

    assert story.record("draft").interruptions == 0


def test_progress_inside_counts_anew_for_every_step_around_it() -> None:
    story = started()
    for step_id in ("a", "a/b", "a/b/c", "x"):
        story.start(step_id)
        story.fail(step_id, "interrupted")
    story.step("a/b/missing/d")  # also where the log lacks a step in between

    found = {step.step_id: step.interruptions for step in story.history.steps}
    assert found == {"a": 0, "a/b": 0, "a/b/c": 1, "x": 1, "a/b/missing/d": 0}


def test_a_resolved_step_may_run_again_until_it_does() -> None:
    story = started()
    story.start("pay")
    story.fail("pay", "interrupted")
    story.add("annotation", name=RESOLVED, step_id="pay")
    assert (story.record("pay").resolved, story.record("pay").interruptions) == (True, 0)
    story.start("pay")

    assert not story.record("pay").resolved


def test_annotations_are_kept_and_only_one_of_them_resolves() -> None:
    story = started()
    story.start("pay")
    story.fail("pay", "interrupted")
    seq = story.add("annotation", name="note", step_id="pay", attributes={"a": 1})
    story.add("annotation", name=RESOLVED, step_id="unknown")
    story.add("annotation", name=RESOLVED)
    story.add("annotation")
    history = story.history
    first, *others = history.annotations

    assert (first.seq, first.name, first.step_id, first.attributes) == (
        seq,
        "note",
        "pay",
        {"a": 1},
    )
    assert [(one.name, one.step_id) for one in others] == [
        (RESOLVED, "unknown"),
        (RESOLVED, None),
        ("", None),
    ]
    assert not history.by_id["pay"].resolved
    assert history.by_id["pay"].interruptions == 1


# ---------------------------------------------------------------- the log's own events


def test_repairs_and_dropped_events_are_counted() -> None:
    story = started()
    story.add("log_repair")
    story.add("log_repair")
    for dropped in (3, 4, "many", None):
        story.add("log_gap", attributes={"dropped": dropped})
    story.add("log_gap")

    assert (story.history.repairs, story.history.dropped) == (2, 7)


def test_events_of_unknown_types_change_nothing_but_the_seq() -> None:
    story = started()
    seq = story.add("step_dance", step_id="draft")

    assert (story.history.seq, story.history.steps) == (seq, [])


def test_the_garbage_collector_is_as_before_after_a_fold() -> None:
    assert gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


# ---------------------------------------------------------------- any events at all

texts = st.sampled_from(["", "a", "a/b", "a/b#2", "c#3", "/", "a/"])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "step_id": texts,
    "step": texts,
    "attempt": st.integers(),
    "order": st.integers(0, 3),
    "key": texts,
    "status": st.sampled_from(["failed", "timeout", "cancelled", "interrupted", "completed", ""]),
    "retry_in_ns": st.integers(),
    "caused_by": st.lists(texts, max_size=3),
    "name": st.sampled_from([RESOLVED, "note"]),
    "error": st.just({"type": "E", "message": "m"}),
    "result": st.just(raw_json(1)),
    "late": st.booleans(),
    "attributes": st.just({"dropped": 1}),
}
event_lists = st.lists(
    st.tuples(st.sampled_from(sorted(EVENT_TYPES)), st.fixed_dictionaries({}, optional=FIELDS)),
    max_size=30,
)


@given(event_lists)
def test_any_events_fold_to_a_history_that_agrees_with_them(
    made: list[tuple[str, dict[str, Any]]],
) -> None:
    story = Story()
    for kind, fields in made:
        story.add(kind, **({"execution": 1} | fields))
    history = story.history
    starts = [event for event in story.events if event.event_type == "step_start"]
    ended = {event.step_id or "" for event in story.events if event.event_type in _ENDS}

    assert history.seq == len(story.events)
    assert len(history.executions) == sum(kind in _BEGINNINGS for kind, _ in made)
    assert sum(len(step.attempts) for step in history.steps) >= len(starts)
    for step in history.steps:
        assert step.last is step.attempts[-1]
        seqs = [one.start_seq for one in step.attempts]
        assert seqs == sorted(set(seqs))
        assert all(one.end_seq >= one.start_seq for one in step.attempts if one.end_seq)
        assert not step.handled or step.status in {"failed", "timeout", "completed", "skipped", ""}
        assert not step.stored or step.step_id in ended


_ENDS = {"step_finish", "step_fail", "step_skip"}
_BEGINNINGS = {"workflow_start", "workflow_resume"}


@given(event_lists)
def test_a_fold_can_be_looked_at_after_every_event(made: list[tuple[str, dict[str, Any]]]) -> None:
    events: list[Event] = []
    folded = Fold(ID)
    story = Story()
    for kind, fields in made:
        story.add(kind, **fields)
    for event in story.events:
        folded.feed(event)
        events.append(event)

        assert folded.history == fold(ID, events)


# ---------------------------------------------------------------- annotations of steps


def test_a_gate_belongs_to_the_step_that_evaluated_it() -> None:
    story = started()
    story.step("review")
    found = {"passed": False, "score": 5.5, "failures": ["too short", "no tests"]}
    story.add("annotation", step_id="review", name=GATE, attributes=found)
    story.step("deploy")
    story.add("annotation", step_id="deploy", name=GATE, attributes={"condition": "x > 1"})

    first, second = (story.record(name).last.gate for name in ("review", "deploy"))
    assert first == Gate(passed=False, score=5.5, reasons=("too short", "no tests"))
    assert second == Gate(passed=False, score=None, reasons=("x > 1",))


def test_a_digest_that_comes_later_completes_its_artifact() -> None:
    story = started()
    story.start("build")
    story.finish("build", artifacts=[{"path": "a.bin"}, {"path": "b.bin"}])
    for attempt in (1, 2):  # of the second, the log knows nothing
        found = {"path": "b.bin", "sha256": "c" * 64 if attempt == 1 else "d" * 64}
        story.add("annotation", step_id="build", attempt=attempt, name=DIGEST, attributes=found)

    assert story.record("build").last.artifacts == (
        {"path": "a.bin"},
        {"path": "b.bin", "sha256": "c" * 64},
    )


def test_the_run_that_a_step_calls_is_known() -> None:
    story = started()
    story.start("order", attributes={"tapps.child.workflow_id": "order-17"})
    story.start("plain", attributes={"tapps.child.workflow_id": 17})

    assert story.record("order").child == ChildRun("order-17")
    assert story.record("plain").child is None


def test_a_result_that_is_no_plain_json_is_still_read() -> None:
    story = started()
    story.end(result=Raw(b'{"big": 1e999}'))
    assert story.history.result is not None


PARENT = {"workflow_id": "outer", "step_id": "call"}
FORK = {"workflow_id": "old", "step_id": "pay", "seq": 7}


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        (PARENT, ParentStep("outer", "call")),
        ({**PARENT, "log_dir": "/logs"}, ParentStep("outer", "call", "/logs")),
        ({**PARENT, "log_dir": 7}, ParentStep("outer", "call")),
        ({**PARENT, "step_id": 7}, None),
        ({"workflow_id": "outer"}, None),
        ("outer", None),
    ],
)
def test_the_step_that_calls_a_run_is_known(parent: Any, expected: ParentStep | None) -> None:
    story = Story()
    story.execution(workflow={"name": "w", "parent": parent})
    assert story.history.parent == expected

    story.execution(workflow={"name": "w"})  # it was resumed by itself
    assert story.history.parent == expected
    story.execution(workflow={"name": "w", "parent": {"workflow_id": "other", "step_id": "s"}})
    assert story.history.parent == ParentStep("other", "s")


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("old", ForkOrigin("old")),
        (FORK, ForkOrigin("old", "pay", 7)),
        (
            {**FORK, "ancestors": ["older", "oldest"]},
            ForkOrigin("old", "pay", 7, ("older", "oldest")),
        ),
        ({**FORK, "ancestors": "older"}, ForkOrigin("old", "pay", 7)),
        ({**FORK, "seq": "7"}, None),
        (7, None),
    ],
)
def test_where_a_run_was_forked_from_is_known(origin: Any, expected: ForkOrigin | None) -> None:
    assert fork_origin({"forked_from": origin}) == expected
    story = Story()
    story.execution(workflow={"name": "w", "forked_from": origin})
    story.execution(workflow={"name": "w"})

    assert story.history.forked_from == expected


def test_a_pause_waits_until_it_is_answered() -> None:
    story = started()
    schema = {"type": "boolean"}
    story.start("ask", question="go?", answer_schema=schema, until=clock.timestamp(AT + 50))
    story.end("paused", question="go?")
    record = story.record("ask")

    assert record.pause == Pause("go?", schema, clock.timestamp(AT + 50))
    assert record.waits
    assert record.last.question == "go?"
    assert [record.pause.is_due(AT + now) for now in (49, 50)] == [False, True]
    assert (story.history.status, story.history.question) == ("paused", "go?")

    story.finish("ask", True, answered={"by": "ann"})
    record = story.record("ask")
    assert (record.answered, record.waits) == ({"by": "ann"}, False)
    assert story.history.status == "answered"

    story.execution()
    story.start("ask", question="and now?")
    record = story.record("ask")
    assert (record.answered, record.pause) == (None, Pause("and now?"))
    story.finish("ask", True, answered={"by": "bob"})
    assert story.history.status == "running"


def test_a_timer_is_a_pause_without_a_question() -> None:
    story = started()
    story.start("wait", until=clock.timestamp(AT))

    assert story.record("wait").pause == Pause(None, None, clock.timestamp(AT))
    assert not Pause("go?").is_due(AT)


def test_interruptions_of_a_worker_count_if_they_are_its_own() -> None:
    story = started()

    def interrupted(**attributes: Any) -> int:
        story.start("work", attributes={ATTR.ENGINE: "pool"})
        if attributes.pop("resumed", False):
            story.execution()
        story.fail("work", "interrupted", **({"attributes": attributes} if attributes else {}))
        return story.record("work").interruptions

    assert interrupted() == 1
    assert interrupted(other=1) == 2
    assert interrupted(**{ATTR.BROKEN_WITH: 3}) == 2  # it had other steps, too
    assert interrupted(resumed=True) == 2  # its driver has died
    assert story.record("work").last.engine == "pool"


@pytest.mark.parametrize(("by", "stored"), [("rerun", False), ("result", True), (None, True)])
def test_a_completed_step_is_resolved_to_run_again(by: str | None, stored: bool) -> None:
    story = started()
    story.step("pay")
    attributes = {} if by is None else {"attributes": {"by": by}}
    story.add("annotation", step_id="pay", name=RESOLVED, **attributes)

    assert story.record("pay").stored == stored


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"passed": True, "score": 0.5}, Gate(True, 0.5)),
        ({"passed": 1, "score": "high"}, Gate(False)),
        ({"condition": "x > 1"}, Gate(False, None, ("x > 1",))),
        ({"failures": ["a", 2], "condition": "x > 1"}, Gate(False, None, ("a", "2"))),
        ({"failures": "a"}, Gate(False)),
    ],
)
def test_a_gate_is_what_its_attributes_tell(attributes: dict[str, Any], expected: Gate) -> None:
    story = started()
    story.step("draft")
    story.add("annotation", step_id="draft", name=GATE, attributes=attributes)

    assert story.record("draft").last.gate == expected


def test_values_that_are_encrypted_are_locked() -> None:
    story = Story()
    hidden = Encrypted("k1", b"xx")
    story.execution(encrypted=hidden)
    story.start("draft", encrypted=hidden)
    story.add("step_finish", step_id="draft", status="completed", encrypted=hidden)
    story.end("completed", encrypted=hidden)
    history = story.history
    record = history.by_id["draft"]

    places = [history.inputs_locked, record.inputs_locked, record.result_locked]
    assert [one.place for one in places if one is not None] == [
        "seq 1 (workflow_start)",
        "seq 2 (step_start of step 'draft')",
        "seq 3 (step_finish of step 'draft')",
    ]
    assert record.stored
    assert history.result_locked is not None
    assert str(history.result_locked).startswith("encrypted with key k1: ")
    assert history.error_locked is None

    story.execution()
    story.end("failed", encrypted=hidden)
    history = story.history
    assert history.result_locked is None
    assert history.error_locked is not None


def test_of_events_beside_the_log_only_spans_count() -> None:
    story, found = started(), Fold(ID)
    story.step("draft")
    for event in story.events:
        found.feed_beside(event)

    assert found.history.by_id == {}
