"""Lanes: what overlaps stands apart, and what belongs together stands together."""

from __future__ import annotations

from itertools import combinations, count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effort import examples
from tapps_otel.audit.export import lanes as module
from tapps_otel.audit.export.lanes import Lanes

Span = tuple[str, str | None, int, int]
Placed = dict[str, int]


def new() -> Lanes:
    numbers = count(1)
    return Lanes(lambda: next(numbers))


def assert_nests(spans: list[Span], placed: Placed) -> None:
    """In each lane, any two spans are apart, or one is inside the other."""
    for one, other in combinations(spans, 2):
        (a, b), (c, d) = one[2:], other[2:]
        apart = b <= c or d <= a
        inside = (a <= c and d <= b) or (c <= a and b <= d)
        assert apart or inside or placed[one[0]] != placed[other[0]], (one, other)


@st.composite
def anything(draw: st.DrawFn) -> list[Span]:
    """Spans with any times and any parents, in any order."""
    spans: list[Span] = []
    for number in range(draw(st.integers(0, 12))):
        start = draw(st.integers(0, 20))
        parent = draw(st.none() | st.integers(0, 12).map(str))
        spans.append((str(number), parent, start, start + draw(st.integers(0, 10))))
    return draw(st.permutations(spans))


@pytest.mark.slow
@settings(max_examples=examples(400))
@given(anything(), st.data())
def test_spans_of_one_lane_nest_in_any_order(spans: list[Span], data: st.DataObject) -> None:
    lanes, placed = new(), {}
    for span_id, parent, *_ in data.draw(st.permutations(spans)):
        if data.draw(st.booleans()):
            lanes.begin(span_id, parent)
    for span_id, parent, start, end in spans:
        placed[span_id] = lanes.place(span_id, parent, start, end)

    assert_nests(spans, placed)


def play(*moments: str) -> Placed:
    """A run in steps of 10 ns: ``+a`` starts ``a``, ``+a/b`` a step in it, ``-a`` ends it."""
    lanes, placed, began = new(), {}, {}
    for at, moment in enumerate(moments):
        name, parent = moment[1:], moment[1:].rpartition("/")[0] or None
        if moment[0] == "+":
            began[name] = 10 * at
            lanes.begin(name, parent)
        else:
            placed[name] = lanes.place(name, parent, began[name], 10 * at)
    return placed


def test_sequential_spans_share_a_lane() -> None:
    placed = play("+r", "+r/a", "+r/a/x", "-r/a/x", "-r/a", "+r/b", "-r/b", "-r")

    assert set(placed.values()) == {1}


def test_parallel_steps_have_a_lane_each_with_what_they_call() -> None:
    placed = play(
        "+r", "+r/a", "+r/b", "+r/a/x", "+r/b/x", "-r/a/x", "+r/a/y", "-r/b/x", "+r/b/y",
        "-r/a/y", "-r/b/y", "-r/a", "-r/b", "+r/c", "-r/c", "-r",
    )  # fmt: skip

    assert {name: lane for name, lane in placed.items() if lane == 1}.keys() == {
        "r", "r/a", "r/a/x", "r/a/y", "r/c",
    }  # fmt: skip
    assert {placed[name] for name in ("r/b", "r/b/x", "r/b/y")} == {2}


def test_a_free_lane_is_reused() -> None:
    pairs = [
        moment for n in range(50) for moment in (f"+r/a{n}", f"+r/b{n}", f"-r/a{n}", f"-r/b{n}")
    ]
    placed = play("+r", *pairs, "-r")

    assert set(placed.values()) == {1, 2}


def test_a_span_that_outlives_its_parent_gets_another_lane() -> None:
    placed = play("+r", "+r/a", "+r/a/x", "-r/a", "-r/a/x", "-r")

    assert placed["r/a"] != placed["r/a/x"]


def test_a_span_without_a_start_shares_its_parents_lane() -> None:
    lanes = new()
    lanes.begin("step", None)

    assert lanes.place("inner call", "call", 12, 13) == lanes.place("call", "step", 11, 14)
    assert lanes.place("other call", "step", 16, 18) == lanes.place("step", None, 10, 20) == 1


def test_memory_does_not_grow_with_the_spans() -> None:
    lanes = new()
    lanes.begin("root", None)
    for n in range(1000):
        lanes.begin(str(n), "root")
        lanes.place(f"{n}/call", str(n), 10 * n + 1, 10 * n + 2)
        lanes.place(f"{n}/late", f"gone {n}", 10 * n + 3, 10 * n + 14)
        lanes.place(str(n), "root", 10 * n, 10 * n + 9)

    assert sum(len(lane.hulls) for lane in lanes._lanes.values()) <= 3 * module._MOST_HULLS
    assert len(lanes._planned) == 1
    assert lanes.place("root", None, 0, 10_020) == 1


def test_spans_stay_apart_beyond_the_searched_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_LANES", 5)
    spans: list[Span] = [(str(n), None, n, 100 + n) for n in range(50)]
    lanes = new()
    placed = {one[0]: lanes.place(*one) for one in spans}

    assert_nests(spans, placed)
    assert len(lanes._lanes) == 5
