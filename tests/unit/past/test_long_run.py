from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histories import Story, started
from logs import ID
from tapps_otel.log.event import raw_json
from tapps_otel.past import long_run
from tapps_otel.past.fold import StepHistory
from tapps_otel.past.long_run import LongFold, StepGroup, merged

MOST = 50


@pytest.fixture(autouse=True)
def few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_run, "_MOST", MOST)


def folded(story: Story, **options: object) -> LongFold:
    fold = LongFold(ID, **options)  # type: ignore[arg-type]
    for event in story.events:
        fold.feed(event)
        assert len(fold.history.by_id) <= 2 * MOST or options.get("keep_chosen")
    return fold


def long_story(count: int = 500) -> Story:
    story = started()
    for number in range(1, count + 1):
        story.step(f"{('parse', 'fetch')[number % 2]}#{number}")
    return story


def counts(fold: LongFold) -> dict[str, tuple[int, int]]:
    groups = merged(fold.summed_up, fold.history.by_id.values(), foreign=False)
    return {place: (one.count, one.kept) for place, one in groups.items()}


def test_finished_steps_of_a_long_run_are_summed_up() -> None:
    fold = folded(long_story())

    assert len(fold.history.by_id) <= 2 * MOST
    assert counts(fold) == {"fetch": (250, 250), "parse": (250, 250)}


def test_steps_that_are_not_done_are_kept_one_by_one() -> None:
    story = long_story(200)
    story.start("open")
    story.start("bad")
    story.fail("bad")
    story.start("outer")
    for number in range(1, 301):
        story.step(f"outer/inner#{number}")
    fold = folded(story)

    assert {"open", "bad", "outer"} <= set(fold.history.by_id)
    assert counts(fold)["outer/inner"][0] == 300
    assert merged(fold.summed_up, (), foreign=False)["outer/inner"].failed == 0


def finish_unstored(story: Story, step_id: str) -> None:
    fields = {"status": "completed", "result_omitted": "persist=False"}
    story.add("step_finish", step_id=step_id, **fields)


def test_a_step_that_runs_again_is_counted_once() -> None:
    story = long_story(200)
    for number in range(1, 301):
        story.start(f"open#{number}")
        finish_unstored(story, f"open#{number}")
    story.execution()
    for number in (1, 2, 3):
        story.start(f"open#{number}")
    finish_unstored(story, "open#1")
    fold = folded(story)

    assert counts(fold)["open"][:2] == (300, 0)
    assert fold.summed_up["open"].done_before(2) <= 297


def test_a_step_that_is_taken_back_was_done_by_the_earliest_execution() -> None:
    group = StepGroup("x", "x", count=5, done_in={3: 1, 1: 0, 2: 3}, kept=4)
    assert [group.done_before(number) for number in (2, 3, 4)] == [0, 3, 4]
    group.take_back()
    assert (group.count, group.done_in, group.kept) == (4, {3: 1, 1: 0, 2: 2}, 3)

    group = StepGroup("x", "x", count=4, done_in={1: 3}, kept=2)  # one has no result
    group.take_back()
    assert (group.count, group.done_in, group.kept) == (3, {1: 2}, 2)

    group = StepGroup("x", "x", count=1, failed=1)
    group.take_back()
    assert group.count == 1


def test_chosen_steps_are_removed_last() -> None:
    few = folded(long_story(), is_chosen=lambda step: step.step_id.endswith("00"))
    many = folded(long_story(), is_chosen=lambda step: step.name == "fetch")
    kept = folded(long_story(), is_chosen=lambda step: True, keep_chosen=True)

    assert [one for one in few.history.by_id if one.endswith("00")] == [
        f"parse#{number}00" for number in range(1, 6)
    ]
    assert not few.chosen
    chosen = sum(one.name == "fetch" for one in many.history.by_id.values())
    assert many.chosen["fetch"].count + chosen == 250
    assert len(kept.history.by_id) == 500


def test_values_are_kept_only_where_they_are_asked_for() -> None:
    story = started()
    for name in ("a", "b"):
        story.start(name, inputs=raw_json("x" * 5_000))
        story.finish(name, "y" * 5_000)
    fold = folded(story, keep_values=lambda event: event.step_id == "b")
    short, whole = fold.history.steps

    assert (len(short.inputs or b""), short.result) == (400, b"null")
    assert (len(whole.inputs or b""), len(whole.result or b"")) == (5_002, 5_002)
    assert short.stored


OUTCOMES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "b/c"]),
        st.sampled_from(["completed", "unstored", "skipped", "failed", "interrupted", "open"]),
        st.integers(0, 9),
        st.none() | st.sampled_from(["ann", "bob"]),
    ),
    max_size=30,
)


def told(steps: list[StepHistory]) -> StepGroup:
    """The sums of steps of one name in one place, computed one by one."""
    slowest = max(steps, key=lambda one: one.duration_ns)  # the first of equal ones
    done = [one for one in steps if one.status in {"completed", "skipped"}]
    still = [one for one in steps if one.status == "running"]
    return StepGroup(
        place=slowest.step_id.partition("#")[0],
        name=slowest.name,
        first_seq=min(one.attempts[0].start_seq for one in steps),
        agent=next((one.agent for one in steps if one.agent), None),
        count=len(steps),
        failed=len(steps) - len(done) - len(still),
        open=len(still),
        total_ns=sum(one.duration_ns for one in steps),
        slowest=slowest.step_id,
        slowest_ns=slowest.duration_ns,
        done_in=dict(Counter(one.last.execution for one in done)),
        kept=sum(one.stored for one in done),
    )


@given(OUTCOMES, st.integers(0, 30))
def test_sums_are_those_of_the_steps_one_by_one(
    outcomes: list[tuple[str, str, int, str | None]], first: int
) -> None:
    story = started()
    for number, (name, outcome, took, agent) in enumerate(outcomes, 1):
        if number == first:
            story.execution()
        step_id = f"{name}#{number}"
        story.start(step_id, agent=agent)
        if outcome == "completed":
            story.finish(step_id, duration_ns=took)
        elif outcome == "unstored":
            finish_unstored(story, step_id)
        elif outcome == "skipped":
            story.skip(step_id, result=raw_json(None), duration_ns=took)
        elif outcome != "open":
            story.fail(step_id, outcome, duration_ns=took)
    by_place: dict[str, list[StepHistory]] = {}
    for one in story.history.by_id.values():
        by_place.setdefault(one.step_id.partition("#")[0], []).append(one)

    expected = {place: told(steps) for place, steps in by_place.items()}

    steps = list(story.history.by_id.values())
    before = merged({}, steps[:10], foreign=False)
    assert merged(before, steps[10:], foreign=False) == expected
    assert before == merged({}, steps[:10], foreign=False)  # it was not changed
