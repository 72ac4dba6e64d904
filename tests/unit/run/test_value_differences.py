"""Where a value that was read back differs from the one that was written, and how."""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tapps_otel.run.codecs.comparison import first_difference


@dataclass
class Page:
    name: str
    parts: list[Any]


@dataclass
class Other:
    name: str


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<incomparable>"


class Word(enum.StrEnum):
    X = "x"


def zoned(*, fold: int = 0, zone: dt.tzinfo | None = None) -> dt.datetime:
    return dt.datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=zone)


def lacking() -> Page:
    page = Page("a", [])
    del page.parts
    return page


LENGTH, UTC = "its length would be another", dt.UTC
NAMED = dt.timezone(dt.timedelta(0), "WET")
BERLIN, PARIS = ZoneInfo("Europe/Berlin"), ZoneInfo("Europe/Paris")


@pytest.mark.parametrize(
    ("was", "back", "place", "what"),
    [
        (1, 2, "$", "1 would come back as 2"),
        (1, "1", "$", "a int would come back as a str"),
        ([1], (1,), "$", "a list would come back as a tuple"),
        ([1], [1, 2], "$", LENGTH),
        ({"a": 1}, {}, "$", LENGTH),
        (deque([1], 3), deque([1], 4), "$", "its maxlen would be another"),
        (defaultdict(int), defaultdict(list), "$", "its default_factory would be another"),
        ([1, [2, 3]], [1, [2, 4]], "$[1][1]", "3 would come back as 4"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "$.a.b", "1 would come back as 2"),
        ({"a": 1}, {"b": 1}, "$['a']", "'a' would come back as 'b'"),
        (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), "$['a']", "'a' would come back as 'b'"),
        (
            Page("a", []),
            Other("a"),
            "$",
            f"a {__name__}.Page would come back as a {__name__}.Other",
        ),
        (Page("a", [1]), Page("b", [1]), "$.name", "'a' would come back as 'b'"),
        (Page("a", [1]), Page("a", [2]), "$.parts[0]", "1 would come back as 2"),
        (Page("a", []), lacking(), "$.parts", "it would not come back"),
        (lacking(), Page("a", []), "$.parts", "it would not come back"),
        (Incomparable(), Incomparable(), "$", ""),
        (zoned(), zoned(fold=1), "$", ""),
        (zoned(zone=UTC), zoned(zone=NAMED), "$", ""),
        (zoned(zone=BERLIN), zoned(zone=PARIS), "$", ""),
        (re.compile("a"), re.compile("a", re.IGNORECASE), "$", ""),
        (b"a", b"b", "$", "b'a' would come back as b'b'"),
    ],
)
def test_the_first_difference_has_a_place_and_a_reason(
    was: Any, back: Any, place: str, what: str
) -> None:
    """Where no reason is given here, it shows both values."""
    assert first_difference(was, back) == (
        place,
        what or f"{was!r:.80} would come back as {back!r:.80}",
    )


@pytest.mark.parametrize(
    ("was", "back"),
    [
        (Word.X, "x"),
        (True, 1),
        ([Word.X, {"a": 1.0}], ["x", {"a": 1.0}]),
        (Page("a", [1]), Page("a", [1])),
        (zoned(fold=1, zone=BERLIN), zoned(fold=1, zone=ZoneInfo("Europe/Berlin"))),
        (zoned(zone=UTC), zoned(zone=dt.timezone(dt.timedelta(0)))),
        (dt.time(1, tzinfo=NAMED), dt.time(1, tzinfo=NAMED)),
        (deque([1], 3), deque([1], 3)),
        (re.compile("a"), re.compile("a")),
        (None, None),
    ],
)
def test_equal_values_have_no_difference(was: Any, back: Any) -> None:
    assert first_difference(was, back) is None
