"""How two runs differ: which steps correspond, what differs in them, and which comes first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histories import Story
from tapps_otel.log.event import raw_json
from tapps_otel.past.changes import Change
from tapps_otel.past.difference import RunDiff, StepDiff, compare


def run(*steps: str, end: str | None = "completed") -> Story:
    """A run of steps; ``name=inputs`` is a step with these inputs."""
    story = Story()
    story.execution(workflow={"name": "w"}, inputs=raw_json({}))
    for step in steps:
        step_id, _, inputs = step.partition("=")
        story.step(step_id, inputs_digest=inputs or "i")
    if end is not None:
        story.end(end)
    return story


def diff(a: Story, b: Story) -> RunDiff:
    return compare(a.history, b.history)


def told(found: RunDiff) -> list[tuple[str | None, str | None, tuple[str, ...]]]:
    def name(one: StepDiff, side: str) -> str | None:
        found = getattr(one, side)
        return None if found is None else str(found.step_id)

    return [(name(one, "a"), name(one, "b"), one.differs) for one in found.steps]


ALONE = ("presence",)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (["x", "y"], ["x", "y"], []),
        (["x", "y"], ["x", "z"], [("y", None, ALONE), (None, "z", ALONE)]),
        (["x=1", "x#2=2"], ["x=0", "x#2=1", "x#3=2"], [(None, "x", ALONE)]),
        (["x=1"], ["x=2"], [("x", "x", ("inputs",))]),
        (["x=1", "x#2=2"], ["x=2", "x#2=1"], []),
        (["x", "x#2", "x#3"], ["x", "x#2"], [("x#3", None, ALONE)]),
    ],
)
def test_steps_are_matched_by_content_and_then_by_order(
    a: list[str], b: list[str], expected: list[Any]
) -> None:
    found = diff(run(*a), run(*b))

    assert told(found) == expected
    assert found.equal == (not expected)
    assert found.same + len([one for one in found.steps if one.a]) == len(a)


def test_steps_with_keys_are_matched_by_them() -> None:
    sides = []
    for inputs in (("1", "2"), ("3", "4")):
        story = Story()
        story.execution()
        story.step("page", key="p1", inputs_digest=inputs[0])
        story.step("page#2", key=f"p{inputs[1]}", inputs_digest=inputs[1])
        sides.append(story)

    assert told(diff(*sides)) == [
        ("page", "page", ("inputs",)),
        ("page#2", None, ALONE),
        (None, "page#2", ALONE),
    ]


def test_steps_of_other_keys_are_not_matched_by_their_inputs() -> None:
    a, b = run(end=None), run(end=None)
    a.step("page", key="p1", inputs_digest="i")
    b.step("page", key="p2", inputs_digest="i")

    assert told(diff(a, b)) == [("page", None, ALONE), (None, "page", ALONE)]


def test_of_a_step_that_only_one_run_has_the_inner_ones_are_counted() -> None:
    other = run("x", end=None)
    other.start("outer")
    other.step("outer/a")
    other.step("outer/a/b")
    other.finish("outer")
    other.end()
    (only,) = diff(run("x"), other).steps

    assert only.b is not None
    assert (only.name, only.b.inside, only.b.position) == ("outer", 2, 2)


def test_the_outcome_of_an_inner_step_comes_before_that_of_the_outer_one() -> None:
    sides = []
    for result in (1, 2):
        story = Story()
        story.execution()
        story.start("outer")
        story.start("outer/a")
        story.finish("outer/a", {"n": result})
        story.finish("outer", result)
        story.step("last", inputs_digest=str(result))
        story.end()
        sides.append(story)
    found = diff(*sides)

    assert told(found) == [
        ("outer/a", "outer/a", ("result",)),
        ("outer", "outer", ("result",)),
        ("last", "last", ("inputs",)),
    ]
    assert found.first is found.steps[0]
    assert [(one.path, one.before, one.after) for one in found.first.result] == [("$.n", "1", "2")]


def test_attempts_errors_and_statuses() -> None:
    a, b = run(end=None), run(end=None)
    for story, tries, message in ((a, 1, "no"), (b, 2, "never")):
        for _ in range(tries):
            story.start("x", inputs_digest="i")
            story.fail("x", error={"type": "E", "message": message})
        story.start("y", inputs_digest="i")
    a.finish("y")
    b.fail("y", "timeout")
    a.end("completed", result=raw_json(1))
    b.end("failed", error={"type": "E", "message": "never"})
    found = diff(a, b)

    assert told(found) == [("x", "x", ("error", "attempts")), ("y", "y", ("status",))]
    assert found.differs == ("status", "error")
    assert (found.a.status, found.b.status) == ("completed", "failed")


def test_code_agents_and_artifacts() -> None:
    sides = []
    for sha, definition, agent in (("1", "d1", "p"), ("2", "d2", "q")):
        story = run(end=None)
        story.start("x", inputs_digest="i", definition=definition, agent=agent, action=agent * 2)
        story.finish("x", artifacts=[{"path": "x.txt", "sha256": sha}])
        story.skip("y", reason=f"because {sha}")
        sides.append(story)

    assert told(diff(*sides)) == [
        ("x", "x", ("code", "agent", "action", "artifacts")),
        ("y", "y", ("reason",)),
    ]


def test_code_and_inputs_that_one_log_lacks_are_not_compared() -> None:
    a, b = run(end=None), run(end=None)
    a.step("x", inputs_digest="i")
    b.step("x", inputs_digest="i", definition="d", inputs=raw_json(1))

    assert diff(a, b).same == diff(b, a).same == 1


def test_results_that_were_not_stored_are_not_compared() -> None:
    a, b = run(end=None), run(end=None)
    a.start("x", inputs_digest="i")
    a.add("step_finish", step_id="x", status="completed", result_omitted="persist=False")
    b.start("x", inputs_digest="i")
    b.finish("x", 3)

    assert told(diff(a, b)) == []


def test_large_results_are_compared_by_their_digests() -> None:
    sides = []
    for blob in ("aa", "bb"):
        story = run(end=None)
        story.start("x", inputs_digest="i")
        story.add("step_finish", step_id="x", status="completed", result_blob=blob)
        sides.append(story)

    assert told(diff(*sides)) == [("x", "x", ("result",))]


@pytest.mark.parametrize("other", [{"type": "F", "message": "no"}, {"type": "E", "message": "?"}])
def test_errors_differ_by_their_class_and_by_their_message(other: dict[str, Any]) -> None:
    sides = []
    for error in ({"type": "E", "message": "no", "stack": "x"}, {**other, "stack": "y"}):
        story = run(end=None)
        story.start("x", inputs_digest="i")
        story.fail("x", error=error)
        story.end("failed", error=error)
        sides.append(story)
    found = diff(*sides)

    assert (found.differs, told(found)) == (("error",), [("x", "x", ("error",))])
    assert found.b.error == {**other, "stack": "y"}
    again = run(end=None)
    again.start("x", inputs_digest="i")
    again.fail("x", error={"type": "E", "message": "no", "stack": "at another line"})
    again.end("failed", error={"type": "E", "message": "no"})
    assert diff(sides[0], again).equal


def test_what_ended_the_reading_of_a_log_is_at_its_side() -> None:
    found = compare(run("x").history, run("x").history, damage=("torn", None))

    assert (found.a.damage, found.b.damage) == ("torn", None)
    found = compare(run("x").history, run("x").history, damage=(None, "torn"))
    assert (found.a.damage, found.b.damage) == (None, "torn")


def test_a_side_sums_its_run_up() -> None:
    story = run("x", "x#2", end=None)
    story.execution()
    story.start("bad", inputs_digest="i")
    story.fail("bad", "timeout", reason="slow")
    story.end("failed")
    side = diff(Story(), story).b
    bad = next(one.b for one in diff(Story(), story).steps if one.name == "bad")

    assert (side.workflow_id, side.name, side.status) == (story.history.workflow_id, "w", "failed")
    assert (side.executions, side.steps) == (2, 3)
    assert side.duration_ns == len(story.events) - 1  # a nanosecond each
    assert bad is not None
    assert (bad.step_id, bad.status, bad.attempts, bad.position) == ("bad", "timeout", 1, 3)
    assert (bad.reason, bad.inside) == ("slow", 0)
    assert bad.error == {"type": "builtins.ValueError", "message": "no"}


def test_the_names_whose_times_differ_most_come_first() -> None:
    sides = []
    for x, y, z in ((5, 100, 7), (900, 90, 7)):
        story = run(end=None)
        for name, took in (("x", x), ("x#2", 1), ("y", y), ("z", z)):
            story.start(name, inputs_digest="i")
            story.finish(name, duration_ns=took)
        sides.append(story)
    sides[1].step("new")

    assert [(one.name, one.a_ns, one.b_ns) for one in diff(*sides).times] == [
        ("x", 6, 901),
        ("y", 100, 90),
        ("z", 7, 7),
        ("new", 0, 0),
    ]


def test_changed_values_are_listed_of_the_first_200_steps() -> None:
    sides = []
    for value in (1, 2):
        story = run(end=None)
        for number in range(1, 202):
            story.start(f"x#{number}", inputs_digest=f"{number}", inputs=raw_json(value))
            story.finish(f"x#{number}", value)
        sides.append(story)
    *detailed, last = diff(*sides).steps

    assert len(detailed) == 200
    assert {one.inputs + one.result for one in detailed} == {
        (Change("$", "1", "2"), Change("$", "1", "2"))
    }
    assert (last.inputs, last.result, last.differs) == ((), (), ("inputs", "result"))


def test_inputs_and_results_of_the_workflow() -> None:
    a, b = Story(), Story()
    a.execution(workflow={"name": "w"}, inputs=raw_json({"city": "Oslo"}))
    b.execution(workflow={"name": "v"}, inputs=raw_json({"city": "Rome"}))
    a.end(result=raw_json([1]))
    b.end(result=raw_json([1, 2]))
    found = diff(a, b)

    assert found.differs == ("workflow", "inputs", "result")
    assert [one.path for one in found.inputs + found.result] == ["$.city", "$[1]"]


def test_times_are_no_difference() -> None:
    a, b = run(end=None), run(end=None)
    for story, took in ((a, 5), (b, 900)):
        story.start("x", inputs_digest="i")
        story.finish("x", duration_ns=took)
    found = diff(a, b)

    assert found.equal
    assert [(one.name, one.a_ns, one.b_ns) for one in found.times] == [("x", 5, 900)]


def test_runs_without_a_start_or_without_steps() -> None:
    assert diff(Story(), Story()).equal
    found = diff(Story(), run("x"))
    assert told(found) == [(None, "x", ALONE)]
    assert (found.a.executions, found.a.duration_ns) == (0, 0)


STEPS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "a/x", "a/x/y", "b/z"]), st.sampled_from("123")),
    max_size=14,
)


@given(STEPS, STEPS)
def test_every_step_is_in_one_pair(a: list[tuple[str, str]], b: list[tuple[str, str]]) -> None:
    stories = [run(*(f"{name}={inputs}" for name, inputs in steps)) for steps in (a, b)]
    found, back = diff(*stories), diff(*reversed(stories))

    assert diff(stories[0], stories[0]).equal
    assert len(found.steps) == len(back.steps)
    assert found.same == back.same
    sides = [one.a for one in found.steps if one.a] + [one.b for one in found.steps if one.b]
    paired = sum(1 + one.inside for one in sides) + 2 * found.same
    assert paired == found.a.steps + found.b.steps
