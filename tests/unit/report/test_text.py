from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapps_otel.report.text import (
    block,
    counted,
    few,
    json_text,
    markdown,
    plain,
    shorten,
    width,
    wrap,
)

ANY_TEXT = st.text(st.characters())  # surrogates too


@pytest.mark.slow
def test_no_unprintable_code_point_gets_through() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))

    assert plain(every).isprintable()
    assert all(line.isprintable() for line in block(every))
    assert json_text(every).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("draft of Zoë, 東京", "draft of Zoë, 東京"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb", r"a\u202eb"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
        ("two\nlines\tand\r", r"two\nlines\tand\r"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_only_unprintable_characters_are_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_other_objects_are_shown_as_text() -> None:
    assert plain(3) == "3"
    assert plain(["\x1b"]) == r"['\x1b']"


@given(ANY_TEXT)
def test_json_text_is_json_of_the_same_value(text: str) -> None:
    shown = json_text({"key " + text: [text]}, indent=2)

    assert json.loads(shown) == {"key " + text: [text]}
    assert all(line.isprintable() for line in shown.split("\n"))


def test_json_text_keeps_letters_of_all_languages() -> None:
    assert json_text(["Zoë", "東京"]) == '["Zoë","東京"]'


def test_a_block_is_split_only_at_newlines() -> None:
    assert block("one\ntwo\rthree\u2028four\n") == ["one", r"two\rthree\u2028four"]
    assert block("\tindented") == ["    indented"]


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("東京", 4), ("e\u0301", 1), ("", 0), ("✓", 1)]
)
def test_width_is_in_columns(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize(
    ("text", "columns", "short"),
    [("abcdef", 6, "abcdef"), ("abcdef", 4, "abc…"), ("東京都", 4, "東…"), ("ab", 0, "")],
)
def test_text_that_is_too_long_ends_with_an_ellipsis(text: str, columns: int, short: str) -> None:
    assert shorten(text, columns) == short


@given(ANY_TEXT, st.integers(1, 30))
def test_shortened_text_takes_no_more_columns(text: str, columns: int) -> None:
    assert width(shorten(plain(text), columns)) <= columns


def test_few_names_the_first_and_counts_the_rest() -> None:
    assert few(["a", "b"]) == "a, b"
    assert few(map(str, range(9)), 3) == "0, 1, 2 and 6 more"
    assert few(["a", "b", "c"], 3, total=10) == "a, b, c and 7 more"


def test_one_is_counted_without_a_plural() -> None:
    assert [counted(number, "run") for number in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("one two three", 8, ["one two", "three"]),
        ("one", 8, ["one"]),
        ("", 8, [""]),
        ("abcdefghij kl", 4, ["abcd", "efgh", "ij", "kl"]),
        ("東京東京 x", 5, ["東京", "東京", "x"]),
        ("a   b", 9, ["a   b"]),
    ],
)
def test_text_is_wrapped_at_spaces_where_it_can(text: str, columns: int, lines: list[str]) -> None:
    assert wrap(text, columns) == lines


@given(ANY_TEXT, st.integers(2, 30))
def test_wrapped_lines_fit(text: str, columns: int) -> None:
    assert all(width(line) <= columns for line in wrap(plain(text), columns))


def test_markdown_gets_no_markup_from_text() -> None:
    assert markdown("a|b <b> `c` *d* [e](f)\n&lt;") == (r"a\|b \<b\> \`c\` \*d\* \[e\](f)\\n\&lt;")
