"""Where two JSON values differ."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapps_otel.past.changes import changes

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
