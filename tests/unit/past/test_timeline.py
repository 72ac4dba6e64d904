"""A run as intervals of time: what ran, waited, was killed and was waited for."""

from __future__ import annotations

from typing import Any

import pytest

from histories import AT
from tapps_otel.past.fold import WORKFLOW_TYPE
from tapps_otel.past.timeline import LogState, TimelineAttempt, make_timeline
from tapps_otel.past.usage import Usage
from timelines import SECOND, TimedStory, crashed_and_resumed


def seconds(start_ns: int, end_ns: int) -> tuple[float, float]:
    return (start_ns - AT) / SECOND, (end_ns - AT) / SECOND


def span(one: TimelineAttempt) -> tuple[float, float]:
    return seconds(one.start_ns, one.end_ns)


def critical(one: TimelineAttempt) -> list[tuple[float, float]]:
    return [seconds(*part) for part in one.critical]


def test_a_killed_execution_ends_with_its_last_sign_of_life() -> None:
    first, second = crashed_and_resumed().timeline().executions

    assert (first.status, first.killed) == ("interrupted", True)
    assert seconds(first.start_ns, first.end_ns) == (0, 4)
    assert (second.status, second.killed) == ("completed", False)
    assert seconds(second.start_ns, second.end_ns) == (6, 10)
    assert (first.duration_ns, second.duration_ns) == (4 * SECOND, 4 * SECOND)


def test_the_time_between_two_executions_is_downtime() -> None:
    timeline = crashed_and_resumed().timeline()
    (down,) = timeline.downtimes

    assert (down.after, down.why, down.duration_ns) == (1, "interrupted", 2 * SECOND)
    assert (timeline.down_ns, timeline.running_ns) == (2 * SECOND, 8 * SECOND)
    assert seconds(timeline.start_ns, timeline.end_ns) == (0, 10)


def test_the_killed_step_is_the_innermost_that_was_cut_off() -> None:
    story = TimedStory()
    story.execution()
    story.start("outer")
    story.at(1).start("outer/inner")
    timeline = story.at(3).timeline()

    ((step, attempt),) = timeline.interrupted
    assert step.step_id == "outer/inner"
    assert (attempt.status, attempt.end_seq) == ("interrupted", 0)
    assert [one.depth for one in timeline.steps] == [0, 1]

    ((step, attempt),) = crashed_and_resumed().timeline().interrupted
    assert (step.step_id, attempt.number, span(attempt)) == ("draft", 1, (2, 4))


def test_steps_that_were_done_before_the_last_execution_are_not_run_again() -> None:
    timeline = crashed_and_resumed().timeline()

    assert [step.step_id for step in timeline.not_run_again] == ["scan", "check"]
    assert [step.step_id for step in timeline.steps] == ["scan", "draft", "check"]


def test_the_critical_path_is_what_the_run_waited_for() -> None:
    timeline = crashed_and_resumed().timeline()
    scan, draft, check = timeline.steps

    assert critical(scan.attempts[0]) == [(0, 2)]
    assert [critical(one) for one in draft.attempts] == [[(2, 4)], [(6, 10)]]
    assert check.critical_ns == 0
    assert [(one.name, one.step_ids, one.critical_ns) for one in timeline.costs] == [
        ("draft", ("draft",), 6 * SECOND),
        ("scan", ("scan",), 2 * SECOND),
    ]
    assert all(one.critical == [] for one in timeline.executions)


def test_a_scope_is_waited_for_where_nothing_inside_it_runs() -> None:
    story = TimedStory()
    story.execution()
    story.at(1).start("outer")
    story.at(2).start("outer/inner")
    story.at(4).finish("outer/inner")
    story.at(5).finish("outer")
    story.at(6).end(duration_ns=6 * SECOND)
    timeline = story.timeline()
    outer, inner = timeline.steps

    assert critical(outer.attempts[0]) == [(1, 2), (4, 5)]
    assert critical(inner.attempts[0]) == [(2, 4)]
    assert [seconds(*part) for part in timeline.executions[0].critical] == [(0, 1), (5, 6)]


def test_inner_steps_belong_to_the_attempt_that_they_began_in() -> None:
    story = TimedStory()
    story.execution()
    story.start("outer")
    story.start("outer/inner")
    story.at(1).finish("outer/inner")
    story.at(2).fail("outer", retry_in_ns=SECOND)
    story.at(3).start("outer")
    story.at(5).start("outer/inner")
    story.at(6).finish("outer/inner")
    story.finish("outer")
    story.end(duration_ns=6 * SECOND)
    outer, inner = story.timeline().steps

    assert [critical(one) for one in outer.attempts] == [[(1, 2)], [(3, 5)]]
    assert [critical(one) for one in inner.attempts] == [[(0, 1)], [(5, 6)]]


def test_the_wait_before_a_retry_ends_with_it() -> None:
    story = TimedStory()
    story.execution()
    story.start("draft")
    story.at(1).fail("draft", retry_in_ns=9 * SECOND)
    story.at(3).start("draft")
    story.at(4).finish("draft")
    (step,) = story.timeline().steps

    assert [one.wait_ns for one in step.attempts] == [2 * SECOND, 0]
    assert step.duration_ns == 2 * SECOND
    assert seconds(step.start_ns, step.end_ns) == (0, 4)
    assert step.status == "completed"


def test_a_wait_that_the_process_did_not_survive_ends_with_it() -> None:
    story = TimedStory()
    story.execution()
    story.start("draft")
    story.at(1).fail("draft", retry_in_ns=9 * SECOND)
    story.at(3).add("annotation", name="note")
    story.at(20).execution()
    story.start("draft")
    (step,) = story.timeline().steps

    assert step.attempts[0].wait_ns == 2 * SECOND


def test_what_is_open_in_a_run_in_progress_ends_now() -> None:
    story = TimedStory()
    story.execution()
    story.at(1).start("draft")
    timeline = story.timeline(now_ns=AT + 5 * SECOND, log=LogState("r.jsonl", 2))
    (step,) = timeline.steps

    assert (step.status, span(step.attempts[0])) == ("running", (1, 5))
    assert not timeline.executions[0].killed
    assert timeline.interrupted == []
    assert timeline.log == LogState("r.jsonl", 2)


@pytest.mark.parametrize("second", [1, 4])
def test_a_clock_that_goes_back_makes_no_negative_time(second: int) -> None:
    story = TimedStory()
    story.at(5).execution()
    story.start("scan")
    story.at(6).finish("scan", duration_ns=-SECOND)
    story.at(second).execution()
    story.start("draft")
    story.at(second + 1).finish("draft")
    story.end(duration_ns=SECOND)
    timeline = story.timeline()

    assert timeline.downtimes == []
    assert timeline.running_ns >= 0
    assert all(one.duration_ns >= 0 for step in timeline.steps for one in step.attempts)
    assert seconds(timeline.start_ns, timeline.end_ns) == (second, 6)


def test_invalid_times_are_placed_where_their_execution_began() -> None:
    story = TimedStory()
    story.execution()
    story.start("scan", timestamp="yesterday")
    story.at(2).end(duration_ns=2 * SECOND)
    story.execution(timestamp="1e300")
    timeline = story.timeline()

    assert timeline.steps[0].start_ns == AT
    assert seconds(timeline.start_ns, timeline.end_ns) == (0, 2)


def test_a_log_without_a_start_has_a_timeline() -> None:
    story = TimedStory()
    story.start("a/b")
    story.at(1).finish("a/b")
    story.start("a/b")
    story.fail("a/b", retry_in_ns=SECOND)
    story.skip("")
    timeline = story.timeline()

    assert timeline.executions == []
    assert timeline.downtimes == []
    assert timeline.costs == []
    assert [(step.step_id, step.depth) for step in timeline.steps] == [("a/b", 0), ("", 0)]
    assert TimedStory().timeline().steps == []


def test_a_step_that_ends_after_its_scope_is_cut_there() -> None:
    story = TimedStory()
    story.execution()
    story.start("thread")
    story.at(2).end(duration_ns=2 * SECOND)
    story.at(5).finish("thread")
    timeline = story.timeline()

    assert timeline.executions[0].critical == []
    assert timeline.end_ns == AT + 5 * SECOND


def test_a_timeline_has_what_the_history_has() -> None:
    story = TimedStory()
    story.execution(trace_id="ab" * 16, workflow={"name": "article"}, process={"pid": 7})
    story.add("annotation", name=WORKFLOW_TYPE, attributes={"from": "build", "to": "rework"})
    story.add("log_gap", attributes={"dropped": 3})
    story.at(1).start("draft", agent="ann", action="write", span_id="cd" * 8)
    story.at(2).fail("draft", reason="no time", artifacts=[{"path": "x", "sha256": "0f"}])
    story.step("done")
    story.at(4).end("failed", error={"type": "E", "message": "no"}, duration_ns=4 * SECOND)
    history = story.history
    timeline = make_timeline(history)
    step, record = timeline.steps[0], history.by_id["draft"]

    assert (timeline.error, timeline.trace_id) == ({"type": "E", "message": "no"}, "ab" * 16)
    assert (timeline.dropped, timeline.types) == (3, ["build", "rework"])
    for made, source in [
        (timeline, history),
        (step, record),
        (step.attempts[0], record.last),
        (timeline.executions[0], history.executions[0]),
    ]:
        assert same_fields(made, source) == []
    assert (step.agent, step.action, step.attempts[0].reason) == ("ann", "write", "no time")
    assert step.attempts[0].artifacts == ({"path": "x", "sha256": "0f"},)
    assert step.attempts[0].span_id == "cd" * 8
    assert step.attempts[0].error == record.last.error


def same_fields(made: Any, source: Any) -> list[str]:
    """Fields of both that differ, except those that a timeline computes anew."""
    computed = {"steps", "executions", "attempts", "status", "start_ns", "end_ns", "critical"}
    names = [name for name in made.__struct_fields__ if name not in computed]
    return [
        name
        for name in names
        if hasattr(source, name) and getattr(made, name) != getattr(source, name)
    ]


def test_the_usage_of_a_timeline_is_that_of_its_attempts() -> None:
    story = TimedStory()
    story.execution()
    story.step("draft")
    history = story.history
    history.usage = Usage(calls=3)
    history.by_id["draft"].last.usage = Usage(calls=2)
    timeline = make_timeline(history)

    assert timeline.usage == Usage(calls=3)
    assert timeline.steps[0].usage == Usage(calls=2)
