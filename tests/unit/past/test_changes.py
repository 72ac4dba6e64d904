"""Where two JSON values differ."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapps_otel.past.changes import Change, changes

Places = list[tuple[str, str | None, str | None]]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=12,
)


def places(before: Any, after: Any) -> Places:
    found = changes(json.dumps(before).encode(), json.dumps(after).encode())
    return [(one.path, one.before, one.after) for one in found]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ({"a": 1}, {"a": 2}, [("$.a", "1", "2")]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, [("$.a.b[1]", "2", "3")]),
        ({"a": 1}, {"b": 1}, [("$.a", "1", None), ("$.b", None, "1")]),
        ({"a b": 1}, {"a b": None}, [('$["a b"]', "1", "null")]),
        ([1, 2, 3], [1, 9, 2, 3], [("$[1]", None, "9")]),
        ([1, 2, 3], [1, 3], [("$[1]", "2", None)]),
        ([1, 1], [1], [("$[1]", "1", None)]),
        (1, True, [("$", "1", "true")]),
        (1, 1.0, [("$", "1", "1.0")]),
        ("ä", "b", [("$", '"ä"', '"b"')]),
        ([], {}, [("$", "[]", "{}")]),
        ([1], [1.0], [("$[0]", "1", "1.0")]),
    ],
)
def test_the_places_that_differ(before: Any, after: Any, expected: Places) -> None:
    assert places(before, after) == expected


@given(VALUES, VALUES)
def test_equal_values_have_no_changes_and_others_have(before: Any, after: Any) -> None:
    assert places(before, before) == []
    assert bool(places(before, after)) == (json.dumps(before, sort_keys=True)
                                           != json.dumps(after, sort_keys=True))  # fmt: skip


def test_what_is_missing_is_a_change() -> None:
    assert changes(None, None) == ()
    assert [(one.before, one.after) for one in changes(None, b"[1]")] == [(None, "[1]")]


def test_the_answer_is_bounded() -> None:
    found = places([0] * 5000, [1] * 5000)
    (long,) = places("x" * 100_000, "y" * 100_000)

    assert len(found) == 20
    assert all(text is not None and len(text) < 500 for text in long[1:])


def test_values_nested_too_deep_differ_as_a_whole() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    (one,) = changes(deep, b"1")

    assert (one.path, one.after) == ("$", "1")


def test_values_of_which_one_is_missing_or_unreadable_are_one_change() -> None:
    assert changes(b'"\xff"', None) == (Change("$", '"\ufffd"', None),)
    deep = b"[" * 100_000
    assert changes(deep, b"1") == (Change("$", "[" * 400 + "...", "1"),)
    assert changes(b"1", deep) == (Change("$", "1", "[" * 400 + "..."),)


def test_equal_numbers_of_other_kinds_at_the_end_of_lists_are_changes() -> None:
    assert places([0, 1, 2], [5, 5, True, 2.0]) == [
        ("$[0]", "0", "5"),
        ("$[1]", None, "5"),
        ("$[1]", "1", "true"),
        ("$[2]", "2", "2.0"),
    ]


@pytest.mark.parametrize("length", [398, 399])
def test_text_is_shown_up_to_400_characters(length: int) -> None:
    text = "x" * length
    shown = f'"{text}"' if length == 398 else f'"{text}...'

    assert places(text, 0) == [("$", shown, "0")]


def test_long_names_are_quoted_and_cut() -> None:
    assert places({"x" * 399: 1}, {}) == [("$." + "x" * 399, "1", None)]
    assert places({"x" * 401: 1}, {}) == [('$["' + "x" * 400 + '"]', "1", None)]


def at(path: str, value: Any) -> Any:
    """What a value has at a path; `ABSENT` for nothing."""
    for name, quoted in re.findall(r"\.(\w+)|\[([^\]]*)\]", path):
        key = name or json.loads(quoted)
        if isinstance(value, list) if isinstance(key, int) else isinstance(value, dict):
            there = range(len(value)) if isinstance(key, int) else value
            if key in there:
                value = value[key]
                continue
        return ABSENT
    return value


ABSENT = object()
NAMED = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("ab "), inner),
    max_leaves=12,
)


@given(NAMED, NAMED)
def test_a_change_tells_what_the_first_value_has_at_its_path(before: Any, after: Any) -> None:
    for path, was, _ in places(before, after):
        found = at(path, before)
        if was is not None:
            assert json.dumps(found) == was
        elif not path.endswith("]"):  # into a list, an item may be inserted anywhere
            assert found is ABSENT
