"""What a fork takes over of a run."""

from __future__ import annotations

from histories import Story, started
from tapps_otel.past.fold import DIGEST
from tapps_otel.past.forks import Taken, taken_over


def before(story: Story, step_id: str) -> Taken:
    """What a fork takes over that begins before a step, which starts now."""
    story.start(step_id)
    return taken_over(story.history, step_id)


def test_steps_that_had_finished_are_taken_over() -> None:
    story = started()
    story.step("draft")
    story.skip("check")
    story.start("wait")
    taken = before(story, "send")

    assert taken.done == {"draft", "check"}
    assert (taken.begun, taken.handled, taken.open) == ({}, [], [])
    assert taken.before == len(story.events)


def test_a_step_that_failed_is_taken_over_if_its_scope_had_continued() -> None:
    story = started()
    story.start("charge", order=1)
    story.fail("charge")
    story.start("refund", order=1)
    story.finish("refund")
    taken = before(story, "mail")

    assert taken.done == {"charge", "refund"}
    assert [step.step_id for step in taken.handled] == ["charge"]


def test_what_encloses_the_step_or_a_finished_one_runs_again() -> None:
    story = started()
    for outer in ("around", "beside", "empty"):
        story.start(outer)
    story.step("around/done")
    story.step("beside/done")
    taken = before(story, "around/step")

    assert taken.done == {"around/done", "beside/done"}
    assert taken.begun.keys() == {"around", "beside"}
    assert [step.step_id for step in taken.open] == ["beside", "around"]


def test_innermost_steps_end_first() -> None:
    story = started()
    story.start("a")
    story.start("a/b")
    story.step("a/b/c")
    taken = before(story, "a/b/d")

    assert [step.step_id for step in taken.open] == ["a/b", "a"]


def test_what_an_interrupted_step_had_finished_is_taken_over_with_it() -> None:
    story = started()
    story.start("outer")
    story.step("outer/part")
    story.fail("outer", "cancelled")
    taken = before(story, "next")

    assert taken.done == {"outer/part"}
    assert taken.begun.keys() == {"outer"}
    assert taken.open == []  # its end is copied


def test_what_a_step_that_waits_had_finished_is_taken_over_with_it() -> None:
    story = started()
    story.start("outer")
    story.step("outer/part")
    story.fail("outer", "paused")
    taken = before(story, "next")

    assert taken.done == {"outer/part"}
    assert taken.begun.keys() == {"outer"}
    assert taken.open == []


def test_what_a_step_had_finished_that_failed_by_an_inner_one_is_taken_over() -> None:
    story = started()
    story.start("outer")
    story.step("outer/part")
    story.fail("outer", caused_by=["outer/other"])
    taken = before(story, "next")

    assert taken.done == {"outer/part"}
    assert [step.step_id for step in taken.open] == ["outer"]
    assert [one.seq for one in story.events if taken.takes(one)] == [2, 3, 4]


def test_inner_steps_of_a_step_that_failed_by_itself_are_not_taken_over() -> None:
    story = started()
    story.start("outer")
    story.step("outer/part")
    story.fail("outer")
    taken = before(story, "next")

    assert taken.done == set()


def test_events_of_these_steps_are_taken_and_digests_of_their_files() -> None:
    story = started()
    story.step("done")
    story.add("annotation", step_id="done", name="note")
    story.start("other")
    taken = before(story, "step")
    story.add("annotation", step_id="done", name="note")
    story.add("annotation", step_id="done", name=DIGEST)
    story.add("annotation", step_id="other", name=DIGEST)
    story.finish("step")

    assert [one.seq for one in story.events if taken.takes(one)] == [2, 3, 4, 8]


def test_an_id_with_any_number_of_slashes_takes_a_bounded_time() -> None:
    story = started()
    taken = before(story, "/".join(["deep"] * 100_000))

    assert taken.done == set()
