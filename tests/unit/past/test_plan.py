"""The plan: which records a scope offers to its next attempt, and where a resume continues."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histories import Story, started
from tapps_otel.past.fold import RESOLVED
from tapps_otel.past.plan import Past, Plan, open_steps, resume_points


def past_of(plan: Plan, scope: str | None) -> Past:
    found = plan.past(scope)
    assert found is not None
    return found


def ids(story: Story, scope: str | None) -> list[str]:
    """The records that the scope's next attempt finds."""
    return [record.step_id for record in past_of(story.plan, scope).records]


# ---------------------------------------------------------------- records of a scope


def test_a_scope_without_steps_has_no_past() -> None:
    story = started()
    assert story.plan.past(None) is None
    story.step("draft")

    assert story.plan.past("draft") is None
    assert story.plan.past("unknown") is None
    assert story.plan.past(None) is not None


def test_a_scope_offers_its_own_steps_in_the_order_of_their_first_start() -> None:
    story = started()
    for step_id in ("b", "a", "b/x", "a/y", "b/x#2", "b/x/z", "b"):
        story.start(step_id)

    assert ids(story, None) == ["b", "a"]
    assert ids(story, "b") == ["b/x", "b/x#2"]
    assert ids(story, "b/x") == ["b/x/z"]
    assert ids(story, "a") == ["a/y"]


def test_numbers_are_used_once_also_where_a_crash_left_a_gap() -> None:
    story = started()
    for step_id in ("draft", "draft#4", "draft#2", "check", "outer/draft#9"):
        story.start(step_id)

    assert past_of(story.plan, None).used == {"draft": 4, "check": 1}
    assert past_of(story.plan, "outer").used == {"draft": 9}


def test_inner_records_count_again_after_an_interruption() -> None:
    story = started()
    story.start("outer")
    story.step("outer/part")
    story.fail("outer", "interrupted")

    assert ids(story, "outer") == ["outer/part"]


def test_after_a_failure_by_itself_only_later_inner_records_count() -> None:
    story = started()
    story.start("outer")
    story.step("outer/part")
    story.step("outer/twice")
    story.fail("outer")
    story.start("outer")
    story.step("outer/part#2")
    story.step("outer/twice")

    past = past_of(story.plan, "outer")
    assert [record.step_id for record in past.records] == ["outer/twice", "outer/part#2"]
    assert past.used == {"part": 2, "twice": 1}


def test_the_past_of_a_scope_is_a_list_of_its_own() -> None:
    story = started()
    story.step("draft")
    plan = story.plan
    past_of(plan, None).records.clear()

    assert [record.step_id for record in past_of(plan, None).records] == ["draft"]


def test_a_new_step_joins_the_records_of_its_scope() -> None:
    story = started()
    story.step("outer")
    plan = story.plan
    story.step("outer/part")
    plan.add(story.record("outer/part"))

    assert [record.step_id for record in past_of(plan, "outer").records] == ["outer/part"]


def test_a_step_is_freed_with_all_steps_inside() -> None:
    story = started()
    for step_id in ("a", "a/b", "a/b/c", "x", "x/y"):
        story.start(step_id)
    story.fail("a/b")
    history = story.history
    plan = Plan(history)
    plan.forget("a")
    plan.forget("unknown")

    assert list(history.by_id) == ["x", "x/y"]
    assert "a/b" not in history.scopes
    assert (plan.past("a"), plan.past("a/b")) == (None, None)
    assert plan.past("x") is not None


def test_a_scopes_list_can_be_freed_while_its_steps_stay() -> None:
    story = started()
    story.step("a")
    plan = story.plan
    plan.forget_scope(None)
    plan.forget_scope("unknown")

    assert plan.past(None) is None


# ---------------------------------------------------------------- what a record has to lose


def loss(story: Story, step_id: str) -> str | None:
    history = story.history
    return Plan(history).loss(history.by_id[step_id])


def test_a_completed_step_has_a_stored_result_to_lose() -> None:
    story = started()
    story.step("draft")
    story.skip("check")

    assert loss(story, "draft") == "a stored result"
    assert loss(story, "check") is None


def test_a_completed_step_without_a_stored_result_has_nothing_to_lose() -> None:
    story = started()
    story.start("draft")
    story.add("step_finish", step_id="draft", result_omitted="persist=False")

    assert loss(story, "draft") is None


def test_a_step_that_failed_by_itself_has_nothing_to_lose() -> None:
    story = started()
    story.start("outer")
    story.step("outer/part")
    story.fail("outer")

    assert loss(story, "outer") is None


@pytest.mark.parametrize("status", ["failed", "timeout"])
def test_after_a_failure_other_inputs_are_no_surprise(status: str) -> None:
    story = started()
    story.start("outer")
    story.step("outer/part")
    story.fail("outer", status, caused_by=["outer/other"])

    assert loss(story, "outer") is None


@pytest.mark.parametrize("status", ["cancelled", "paused", "interrupted"])
def test_a_step_that_was_stopped_has_its_finished_inner_steps_to_lose(status: str) -> None:
    story = started()
    story.start("outer")
    story.step("outer/part")
    story.start("outer/other")
    story.fail("outer/other")
    story.fail("outer", status, caused_by=["outer/other"])

    assert loss(story, "outer") == "finished steps inside"


def test_a_step_in_progress_has_its_finished_inner_steps_to_lose() -> None:
    story = started()
    story.start("a")
    assert loss(story, "a") is None
    story.start("a/b")
    assert loss(story, "a") is None
    story.step("a/b/c")

    assert loss(story, "a") == loss(story, "a/b") == "finished steps inside"  # they are open
    story.fail("a/b", "interrupted")
    story.fail("a", "interrupted")
    assert loss(story, "a") == loss(story, "a/b") == "finished steps inside"


def test_inner_steps_that_no_longer_count_are_nothing_to_lose() -> None:
    story = started()
    story.start("a")
    story.step("a/b")
    story.fail("a")
    story.start("a")
    story.start("a/c")
    assert loss(story, "a") is None
    story.finish("a/c")

    assert loss(story, "a") == "finished steps inside"


# ---------------------------------------------------------------- what must not happen twice


def unsettled(story: Story, name: str = "pay") -> list[str]:
    history = story.history
    execution = history.executions[-1].number
    return [step.step_id for step in Plan(history).unsettled(name, execution)]


@pytest.mark.parametrize("status", ["cancelled", "timeout", "interrupted", None])
def test_of_a_step_that_was_stopped_it_is_not_known_what_it_did(status: str | None) -> None:
    story = started()
    story.start("outer")
    for step_id in ("pay", "pay#2", "outer/pay"):
        story.start(step_id)
        if status is not None:
            story.fail(step_id, status)
    assert unsettled(story) == []  # the execution that has seen it goes on
    story.execution()

    assert unsettled(story) == ["pay", "pay#2", "outer/pay"]
    assert unsettled(story, "other") == []
    story.add("annotation", name=RESOLVED, step_id="pay#2")
    assert unsettled(story) == ["pay", "outer/pay"]


@pytest.mark.parametrize("error", ["StepResultError", "StepInputError", "ValueError"])
def test_of_a_step_whose_result_was_lost_it_is_not_known_either(error: str) -> None:
    story = started()
    story.start("pay")
    story.fail("pay", error={"type": f"tapps_otel.errors.{error}", "message": "", "stack": None})
    story.execution()

    assert unsettled(story) == ([] if error == "ValueError" else ["pay"])


def test_a_try_that_is_to_be_repeated_settles_itself() -> None:
    story = started()
    story.start("pay")
    story.fail("pay", "timeout", retry_in_ns=1)
    story.execution()

    assert unsettled(story) == []


def test_a_call_that_an_executor_had_not_taken_did_nothing() -> None:
    worker = {
        "tapps.worker.host": "h",
        "tapps.worker.pid": 1,
        "tapps.worker.duration": 0.1,
        "tapps.worker.wait": 0.1,
    }
    story = started()
    for step_id, attributes in (("pay", {}), ("pay#2", worker)):
        story.start(step_id, attributes={"tapps.engine": "ProcessPool"})
        story.fail(step_id, "cancelled", attributes=attributes)
    story.execution()

    assert unsettled(story) == ["pay#2"]


# ---------------------------------------------------------------- where a resume continues


def test_open_steps_are_those_without_end_innermost_first() -> None:
    story = started()
    for step_id in ("a", "a/b", "x", "a/b/c", "y"):
        story.start(step_id)
    story.finish("y")
    story.fail("x")

    assert [step.step_id for step in open_steps(story.history)] == ["a/b/c", "a/b", "a"]


def test_a_resume_continues_at_what_is_open_or_failed_and_not_handled() -> None:
    story = started()
    story.step("done")
    story.skip("skipped")
    story.start("handled", order=1)
    story.fail("handled")
    story.start("open", order=1)
    story.start("failed", order=1)
    story.fail("failed", "timeout")
    story.start("interrupted")
    story.fail("interrupted", "interrupted")
    history = story.history
    history.by_id["failed"].handled = False  # nothing was called after it, in a real run

    found = [step.step_id for step in resume_points(history)]
    assert found == ["open", "failed", "interrupted"]


# ---------------------------------------------------------------- any run

step_ids = st.lists(
    st.lists(st.sampled_from(["a", "b", "b#2"]), min_size=1, max_size=3).map("/".join), max_size=12
)


@given(step_ids)
def test_every_step_is_a_record_of_its_scope_and_of_no_other(chosen: list[str]) -> None:
    story = started()
    for step_id in chosen:
        story.start(step_id)
    history = story.history
    plan = Plan(history)
    found = [
        record.step_id
        for scope in {None, *(step.parent for step in history.steps)}
        if (past := plan.past(scope)) is not None
        for record in past.records
        if record.parent == scope
    ]

    assert sorted(found) == sorted(history.by_id)
