"""Answers are checked as pydantic, which wrote the schema, would check them."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tapps_otel.past.answer_schema import find_misfit, in_words


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Page(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Annotated[str, MinLen(1), MaxLen(3)]
    number: Annotated[int, Ge(0), Le(9)] = 1
    parts: list[Page] = []


KINDS: list[Any] = [
    None, bool, int, float, str, list[int], dict[str, int], int | str, int | None,
    Literal["a", "b"], Literal[1, True], Literal["a"], Colour, Page, list[Page],
    tuple[int, str], Annotated[list[int], MinLen(1), MaxLen(2)], set[int],
    Annotated[dict[str, int], MinLen(1)], Annotated[int, Gt(0), Lt(5)],
    Annotated[int, MultipleOf(3)], Annotated[str, Field(pattern="^[ab]*$")],
    Annotated[Page | int, "either"], dict[str, list[Literal["a"]]],
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.sampled_from(["", "a", "b", "ab", "red"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["title", "number", "parts", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def schema_of(kind: Any) -> dict[str, Any]:
    return TypeAdapter(kind).json_schema()


@given(kind=st.sampled_from(KINDS), value=JSON)
def test_what_pydantic_accepts_fits_and_nothing_else(kind: Any, value: Any) -> None:
    try:
        TypeAdapter(kind).validate_json(TypeAdapter(Any).dump_json(value), strict=True)
    except ValidationError:
        accepted = False
    else:
        accepted = True

    assert (find_misfit(schema_of(kind), value) is None) == accepted


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (dt.datetime, "2026-01-02T03:04:05Z", "yesterday"),
        (dt.date, "2026-01-02", "2026-02-30"),
        (dt.time, "03:04:05", "25:00"),
        (dt.timedelta, "PT3S", "3 s"),
        (uuid.UUID, str(uuid.UUID(int=1)), "1"),
    ],
)
def test_texts_have_the_form_that_is_expected(kind: Any, right: str, wrong: str) -> None:
    assert find_misfit(schema_of(kind), right) is None
    found = find_misfit(schema_of(kind), wrong)
    assert found is not None
    assert wrong in found[1]


@pytest.mark.parametrize(
    ("kind", "value", "path", "problem"),
    [
        (bool, 1, "$", "expected true or false, not 1"),
        (Page, {"title": "x", "parts": [{}]}, "$.parts[0].title", "it is missing"),
        (Page, {"title": "x", "nmber": 2}, "$.nmber", "there is no such field"),
        (Page, {"title": "long"}, "$.title", "expected at most 3 characters, not 4"),
        (list[int], [1, "2"], "$[1]", 'expected an integer, not "2"'),
        (set[int], [1, 1], "$[1]", "it is there twice"),
        (int | str, [], "$", "expected an integer or a string, not []"),
        (Page | int, {"title": "x", "number": 12}, "$.number", "expected at most 9, not 12"),
        (Colour, "green", "$", 'expected one of "red", "blue", not "green"'),
    ],
)
def test_the_place_that_does_not_fit_is_named(
    kind: Any, value: Any, path: str, problem: str
) -> None:
    assert find_misfit(schema_of(kind), value) == (path, problem)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/gone"},
        {"$ref": 3},
        {"type": ["string"]},
        {"enum": "red"},
        {"anyOf": {}},
        {"properties": [], "required": 3, "minProperties": "1"},
        {"type": "string", "pattern": "(?<=never)["},
        {"type": "string", "format": "hostname"},
        {"type": "unheard of"},
        {"allOf": [True, {}]},
        {"maximum": "3"},
    ],
)
@pytest.mark.parametrize("value", ["red", {"a": 1}, 4])
def test_a_schema_of_another_kind_refuses_nothing(schema: dict[str, Any], value: Any) -> None:
    found = find_misfit(schema, value)

    assert (found is None) == (schema.get("type") != "string" or isinstance(value, str))


def test_without_a_schema_anything_fits() -> None:
    assert find_misfit(None, object()) is None
    assert in_words(None) == in_words({}) == ""


def test_a_schema_that_refers_to_itself_has_an_end() -> None:
    again = {"$ref": "#/$defs/again"}

    assert find_misfit({**again, "$defs": {"again": again}}, 1) == ("$", "it is nested too deep")


def test_fields_may_be_ruled_out_altogether() -> None:
    found = find_misfit({"additionalProperties": False}, {"a": 1})

    assert found == ("$.a", "there is no such field")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (bool, "true or false"),
        (Literal["a"], '"a"'),
        (Colour, 'one of "red", "blue"'),
        (int | None, "an integer or null"),
        (list[int], "a list"),
        (Literal[tuple(range(12))], "one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."),
    ],
)
def test_what_is_expected_is_said_in_words(kind: Any, words: str) -> None:
    assert in_words(schema_of(kind)) == words


def test_a_model_is_named() -> None:
    schema = schema_of(Page)

    assert in_words(schema.get("$defs", {}).get("Page", schema)) == "an object (Page)"
