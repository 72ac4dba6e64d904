"""The form of inputs that their digests are made of: with another one, done steps run again."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import pathlib
import re
import uuid
from collections import deque

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapps_otel.run.codecs.canonical import canonical


class Colour(enum.Enum):
    RED = "r"


@dataclasses.dataclass
class Point:
    x: int
    label: str = "p"


class Login(pydantic.BaseModel):
    name: str
    token: pydantic.SecretStr


SHA_OF_T = "8ca5d81566f88badd698137ac629cbf93ccc107c0cd967b7964f7d82088f6ebf"  # of '"t"'

FORMS: list[tuple[object, str]] = [
    (None, "null"),
    (True, "true"),
    (1, "1"),
    (1.0, "1.0"),
    (1e22, "1e+22"),
    (10**30, "1" + "0" * 30),
    ("\u00e9\ud800", r'"\u00e9\ud800"'),
    ([1, (2,)], "[1,[2]]"),
    ({2, 1}, "[1,2]"),
    (frozenset({1}), "[1]"),
    (deque([2, 1]), "[2,1]"),
    ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
    ({(1, 2): 3, (0,): 4}, '{"$items":[["[0]",4],["[1,2]",3]]}'),
    ({2: {3: 4}}, '{"$items":[["2",{"$items":[["3",4]]}]]}'),
    ([{None: 1}], '[{"$items":[["null",1]]}]'),
    (b"ab", '{"$class":"bytes","$value":"ab"}'),
    (1 + 2j, '{"$class":"complex","$value":[1.0,2.0]}'),
    (Colour.RED, '{"$class":"Colour","$value":"RED"}'),
    (Point(1), '{"$class":"Point","label":"p","x":1}'),
    (
        Login(name="ann", token=pydantic.SecretStr("t")),
        '{"$class":"Login","name":"ann","token":{"$class":"SecretStr","$sha256":"'
        + SHA_OF_T
        + '"}}',
    ),
    (
        dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        '{"$class":"datetime","$value":"2026-01-02T03:04:05+00:00"}',
    ),
    (dt.date(2026, 1, 2), '"2026-01-02"'),
    (dt.timedelta(seconds=1.5), '"PT1.5S"'),
    (uuid.UUID(int=5), '"00000000-0000-0000-0000-000000000005"'),
    (decimal.Decimal("1.50"), '"1.50"'),
    (pathlib.PurePosixPath("a/b"), '"a/b"'),
    (re.compile("a", re.IGNORECASE), '{"$class":"re.Pattern","$value":{"flags":34,"pattern":"a"}}'),
    (np.int64(3), "3"),
    (np.float64(1.5), "1.5"),
    (np.bool_(True), "true"),
]


class Text(enum.StrEnum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


# JSON's own values, and others that look like them.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4) | st.sampled_from([Text.A, Number.ONE, Colour.RED, "\x7f", 1e16, 1e-5])
    | st.dates() | st.uuids() | st.binary(max_size=2) | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4)
    | st.tuples(inner, inner)
    | st.sets(st.integers() | st.text(max_size=2), max_size=3)
    | st.dictionaries(st.text(max_size=2) | st.sampled_from([Text.A, 1, None]), inner, max_size=4)
    | st.builds(Point, st.integers()),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_the_form_is_the_same_by_the_quick_way_and_by_the_slow_one(value: object) -> None:
    """A tuple goes the slow way, and has the form of a list."""
    assert canonical([value]) == canonical((value,))


def test_each_character_has_the_form_that_json_gives_it() -> None:
    characters = [chr(number) for number in range(0x180)]
    assert canonical(characters).decode() == json.dumps(characters, separators=(",", ":"))


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_what_json_has_not_has_no_form(odd: float) -> None:
    for value in (odd, [odd], {"a": odd}, [1, {"a": [odd, None]}]):
        with pytest.raises(ValueError):
            canonical(value)


@pytest.mark.parametrize(
    ("value", "form"), FORMS, ids=[str(number) for number in range(len(FORMS))]
)
def test_the_form_stays_as_it_was(value: object, form: str) -> None:
    assert canonical(value).decode() == form
