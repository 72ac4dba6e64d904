"""Matching by itself: which record a call takes, and what the guard finds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histories import Story, started
from tapps_otel.past.fold import StepHistory
from tapps_otel.run.matching import Matcher


class Content(NamedTuple):
    """What a call is matched by."""

    name: str
    digest: str | None = None
    key: str | None = None


def recorded(*steps: tuple[str, Content], orders: Iterable[int | None] = ()) -> Story:
    """A run that was interrupted after these steps had completed."""
    story = started()
    given = iter(orders)
    for step_id, one in steps:
        fields = {"step": one.name, "inputs_digest": one.digest}
        if one.key is not None:
            fields["key"] = one.key
        story.step(step_id, order=next(given, None), **fields)
    return story


def matcher_of(story: Story) -> Matcher:
    return Matcher(story.plan.past(None))


def step_id(record: StepHistory | None) -> str | None:
    return None if record is None else record.step_id


A, B = Content("a", "1"), Content("b", "1")


# ---------------------------------------------------------------- claiming


def test_a_scope_without_a_past_offers_nothing() -> None:
    matcher = Matcher(None)

    assert matcher.fresh
    assert matcher.claim(*A) is None
    assert matcher.claim_id("a") is None
    assert matcher.guard("a", 1, lambda _: "something") is None
    assert list(matcher.unasked()) == []
    assert [matcher.next_number("a"), matcher.next_number("a"), matcher.next_number("b")] == [
        1,
        2,
        1,
    ]


def test_a_scope_with_a_past_is_not_fresh() -> None:
    assert not matcher_of(recorded(("a", A))).fresh


def test_calls_in_the_recorded_order_take_their_records() -> None:
    matcher = matcher_of(recorded(("a", A), ("b", B), ("a#2", A)))

    assert [step_id(matcher.claim(*one)) for one in (A, B, A, A)] == ["a", "b", "a#2", None]


def test_calls_in_another_order_take_their_records_by_content() -> None:
    matcher = matcher_of(recorded(("a", A), ("b", B), ("a#2", A)))

    assert [step_id(matcher.claim(*one)) for one in (B, A, A)] == ["b", "a", "a#2"]


@pytest.mark.parametrize(
    "call",
    [Content("a", "2"), Content("b", "1"), Content("a", "1", "k"), Content("a", None)],
    ids=["inputs", "name", "key", "no digest"],
)
def test_a_call_with_other_content_takes_nothing(call: Content) -> None:
    assert matcher_of(recorded(("a", A))).claim(*call) is None


def test_a_call_with_a_key_is_matched_by_name_and_key_alone() -> None:
    keyed = recorded(("a", Content("a", "1", "k")), ("b", B))

    assert step_id(matcher_of(keyed).claim("a", "changed", "k")) == "a"
    assert matcher_of(keyed).claim("b", "1", "k") is None
    assert matcher_of(keyed).claim("a", "1", "other") is None
    assert matcher_of(keyed).claim("a", "1", None) is None
    later = matcher_of(keyed)
    assert later.claim(*B) is not None  # not the first record: by look-up from here on
    assert step_id(later.claim("a", "changed", "k")) == "a"


def test_of_equal_calls_one_takes_the_record_of_its_own_code() -> None:
    story = started()
    for place, definition in (("a", "old"), ("a#2", "new")):
        story.step(place, step="a", inputs_digest="1", definition=definition)
    matcher = matcher_of(story)

    assert step_id(matcher.claim("a", "1", None, "new")) == "a#2"
    assert step_id(matcher.claim("a", "1", None, "newest")) == "a"


def test_a_record_is_taken_by_its_place_once() -> None:
    matcher = matcher_of(recorded(("a", A), ("a#2", A)))

    assert step_id(matcher.claim_id("a")) == "a"
    assert matcher.claim_id("a") is None
    assert matcher.claim_id("c") is None
    assert step_id(matcher.claim(*A)) == "a#2"
    assert matcher.claim(*A) is None


contents = st.builds(
    Content,
    st.sampled_from("ab"),
    st.sampled_from(["1", "2", None]),
    st.sampled_from([None, None, "k", "l"]),
)


@given(st.lists(contents, max_size=8), st.lists(contents | st.integers(0, 9), max_size=14))
def test_each_call_takes_the_first_unclaimed_record_with_its_content(
    past: list[Content], calls: list[Content | int]
) -> None:
    """Against the rule written down plainly. A number is a call by place."""
    story = recorded(*((f"s#{n}", one) for n, one in enumerate(past, 2)))
    matcher = matcher_of(story)
    left = {f"s#{n}": one for n, one in enumerate(past, 2)}
    for call in calls:
        if isinstance(call, int):
            found = matcher.claim_id(f"s#{call}")
            expected = f"s#{call}" if f"s#{call}" in left else None
        else:
            found = matcher.claim(*call)
            expected = next((place for place, one in left.items() if fits(one, call)), None)

        assert step_id(found) == expected
        left.pop(expected or "", None)
    assert [record.step_id for record in matcher.unasked()] == list(left)


def fits(record: Content, call: Content) -> bool:
    if record.name != call.name or record.key != call.key:
        return False
    return call.key is not None or record.digest == call.digest


# ---------------------------------------------------------------- the guard


def everything(_: StepHistory) -> str:
    return "all of it"


def test_the_guard_finds_the_record_of_the_same_ordered_call() -> None:
    matcher = matcher_of(recorded(("a", A), ("a#2", A), ("b", B), orders=(1, 2, 1)))
    found = matcher.guard("a", 2, everything)

    assert found is not None
    assert (found[0].step_id, found[1]) == ("a#2", "all of it")
    assert matcher.guard("a", 3, everything) is None
    assert matcher.guard("c", 1, everything) is None


def test_the_guard_passes_over_what_has_nothing_to_lose() -> None:
    matcher = matcher_of(recorded(("a", A), orders=(1,)))

    assert matcher.guard("a", 1, lambda _: None) is None


def test_the_guard_skips_a_claimed_record() -> None:
    matcher = matcher_of(recorded(("a", A), ("b", B), orders=(1, 1)))
    assert matcher.guard("b", 1, everything) is not None  # the places are known from here on
    matcher.claim(*B)

    assert matcher.guard("b", 1, everything) is None
    assert matcher.guard("a", 1, everything) is not None
    matcher.claim(*A)
    assert matcher.guard("a", 1, everything) is None


def test_the_guard_passes_over_calls_in_tasks_and_calls_with_a_key() -> None:
    matcher = matcher_of(
        recorded(("a", A), ("a#2", Content("a", "1", "k")), ("b", B), orders=(None, 1, 1))
    )

    assert matcher.guard("a", 1, everything) is None


def test_the_guard_looks_at_each_record_of_that_order() -> None:
    """Two executions can each have made the n-th call of a name."""
    matcher = matcher_of(recorded(("a", A), ("a#2", Content("a", "2")), orders=(1, 1)))
    found = matcher.guard("a", 1, lambda one: "it" if one.step_id == "a#2" else None)

    assert found is not None
    assert found[0].step_id == "a#2"


def no_longer_due() -> Story:
    """``work`` failed, ``note`` was called after it, and ``work`` has run again."""
    story = started()
    story.start("work", order=1)
    story.fail("work")
    story.step("note", order=1)
    story.execution()
    story.start("work", order=1)
    return story


def test_the_guard_and_the_warning_skip_records_that_are_no_longer_due() -> None:
    matcher = matcher_of(no_longer_due())

    assert matcher.guard("note", 1, everything) is None
    assert list(matcher.unasked()) == []
    assert step_id(matcher.claim("note", "of note", None)) == "note"  # content still may


# ---------------------------------------------------------------- the rest


def test_a_new_number_is_one_above_the_highest_in_use() -> None:
    matcher = matcher_of(recorded(("a", A), ("a#5", A), ("b", B)))

    assert [matcher.next_number(name) for name in "aabc"] == [6, 7, 2, 1]


def test_unasked_are_completed_records_that_no_call_took() -> None:
    story = recorded(("a", A), ("b", B))
    story.start("open")
    story.start("failed")
    story.fail("failed")
    matcher = matcher_of(story)
    matcher.claim(*A)

    assert [record.step_id for record in matcher.unasked()] == ["b"]
