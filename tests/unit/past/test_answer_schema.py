"""Answers are checked as pydantic, which wrote the schema, would check them."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import sys
import uuid
import zoneinfo
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    UUID4,
    AnyUrl,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    TypeAdapter,
    ValidationError,
)

from tapps_otel.past import answer_schema
from tapps_otel.past.answer_schema import find_misfit, in_words
from tapps_otel.run.question_types import AnswerType


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Number(enum.Enum):
    ONE = 1
    TWO = 2


class Mixed(enum.Enum):
    ONE = 1
    A = "a"


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
    # Keys.
    dict[int, int], dict[float, int], dict[bool, int], dict[int | bool, Any], dict[Colour, int],
    dict[Level, Any], dict[Literal["a", "b"], int], dict[Annotated[int, Gt(1)], int],
    dict[Number, int], dict[Mixed, int], dict[Literal[1, 2], int], dict[Literal[1, "a"], int],
    dict[Literal[True], int], list[dict[Number, int]], dict[str, dict[Mixed, int]],
    dict[dt.date, int], dict[Annotated[str, Field(pattern="^a")], int],
    dict[Annotated[str, Field(pattern="^a", max_length=1)], int], dict[AnyUrl, int],
    # Texts.
    AnyUrl, ipaddress.IPv4Address, ipaddress.IPv6Network, UUID4, Base64Bytes, Json[int],
    zoneinfo.ZoneInfo, dict[str, ipaddress.IPv6Address], list[AnyUrl | int],
    # Numbers and sets.
    Annotated[float, MultipleOf(0.1)], Annotated[float, MultipleOf(0.3)], Level, Literal[1, 2],
    Literal[True],
    Annotated[set[int], MinLen(2)], Annotated[set[float], MaxLen(1)], frozenset[str | bool],
    Annotated[set[tuple[int, ...]], MinLen(2), MaxLen(2)], Annotated[set[bool | int], MinLen(2)],
]  # fmt: skip
TEXTS = [
    "https://example.org/a", "1.2.3.4", "::1", "fe80::/10", "Europe/Paris", "YWI=", "12",
    "00000000-0000-4000-8000-000000000001", "00000000-0000-1000-8000-000000000001",
]  # fmt: skip
KEYS = ["a", "b", "ab", "red", "1", "2", "1.5", "-7", "true", "2026-02-03", "https://example.org/"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.sampled_from([0.1, 0.3, -0.6, 0.35, 1.0, 2.5, 0.7, 1e300, 10**400])
    | st.sampled_from(["", "a", "b", "ab", "red", *TEXTS]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(st.sampled_from([0, 1, 1.0, True, "a"]), max_size=3)
        | st.dictionaries(st.sampled_from(["title", "number", "parts", *KEYS]), inner, max_size=3)
    ),
    max_leaves=6,
)


def schema_of(kind: Any) -> dict[str, Any]:
    """The schema that a question of this type has in the log."""
    return AnswerType(kind).schema or {}


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
        (UUID4, "00000000-0000-4000-8000-000000000001", "00000000-0000-1000-8000-000000000001"),
        (AnyUrl, "https://example.org", "nope"),
        (ipaddress.IPv4Address, "1.2.3.4", "1.2.3"),
        (ipaddress.IPv6Address, "::1", "1.2.3.4"),
        (ipaddress.IPv4Network, "10.0.0.0/8", "10.0.0.1/8"),
        (ipaddress.IPv6Interface, "::1/64", "::1/640"),
        (zoneinfo.ZoneInfo, "Europe/Paris", "Europe/Nowhere"),
        (Base64Bytes, "YWI=", "YWI"),
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
        (Annotated[set[int], MinLen(2)], [1, 1], "$", "expected at least 2 items, not 1"),
        (
            Annotated[set[tuple[int, ...]], MinLen(2)],
            [[1, 2], [1, 2]],
            "$",
            "expected at least 2 items, not 1",
        ),
        (
            Annotated[str, Field(pattern="^[ab]*$")],
            "abc",
            "$",
            'expected a match of "^[ab]*$", not "abc"',
        ),
        (dict[int, str], {"x": "y"}, "$.x", 'this name does not fit: expected an integer, not "x"'),
        (
            dict[Colour, int],
            {"grey": 1},
            "$.grey",
            'this name does not fit: expected one of "red", "blue", not "grey"',
        ),
        (dict[Number, int], {"1": 1}, "$.1", 'this name does not fit: expected none, not "1"'),
        (
            dict[Annotated[str, Field(pattern="^a")], int],
            {"b": 1},
            "$.b",
            'expected a name that matches "^a"',
        ),
        (Json[int], '"x"', "$", 'expected an integer, not "x"'),
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
        {"required": [[1], {}], "patternProperties": [], "propertyNames": 3},
        {"multipleOf": 0, "uniqueItems": "yes"},
    ],
)
@pytest.mark.parametrize("value", ["red", {"a": 1}, 4])
def test_a_schema_of_another_kind_refuses_nothing(schema: dict[str, Any], value: Any) -> None:
    found = find_misfit(schema, value)

    assert (found is None) == (schema.get("type") != "string" or isinstance(value, str))


OF_TYPE: dict[str, list[Any]] = {
    "null": [None],
    "boolean": [True, False],
    "integer": [1, 0],
    "number": [1, 0, 1.5],
    "string": ["", "a"],
    "array": [[], [1]],
    "object": [{}, {"a": 1}],
}


@pytest.mark.parametrize("kind", OF_TYPE)
@pytest.mark.parametrize("value", [None, True, False, 0, 1, 1.5, "", "a", [], [1], {}, {"a": 1}])
def test_a_value_fits_the_types_of_json_that_it_is_of(kind: str, value: Any) -> None:
    fits = any(type(one) is type(value) and one == value for one in OF_TYPE[kind])

    assert (find_misfit({"type": kind}, value) is None) == fits


@pytest.mark.parametrize(
    ("schema", "right", "wrong", "problem"),
    [
        ({"minimum": 2}, 2, 1, "expected at least 2, not 1"),
        ({"maximum": 2}, 2, 3, "expected at most 2, not 3"),
        ({"exclusiveMinimum": 2}, 3, 2, "expected more than 2, not 2"),
        ({"exclusiveMaximum": 2}, 1, 2, "expected less than 2, not 2"),
        ({"multipleOf": 3}, 6, 7, "expected a multiple of 3, not 7"),
        ({"multipleOf": 3}, 0, 4, "expected a multiple of 3, not 4"),
        ({"multipleOf": 3}, 9.0, 9.5, "expected a multiple of 3, not 9.5"),
        ({"multipleOf": 1.5}, 3, 4, "expected a multiple of 1.5, not 4"),
        ({"minLength": 2}, "ab", "a", "expected at least 2 characters, not 1"),
        ({"maxLength": 2}, "ab", "abc", "expected at most 2 characters, not 3"),
        ({"minItems": 2}, [1, 2], [1], "expected at least 2 items, not 1"),
        ({"maxItems": 2}, [1, 2], [1, 2, 3], "expected at most 2 items, not 3"),
        ({"minProperties": 1}, {"a": 1}, {}, "expected at least 1 fields, not 0"),
        ({"maxProperties": 1}, {"a": 1}, {"a": 1, "b": 1}, "expected at most 1 fields, not 2"),
        ({"const": "ä" * 79}, "ä" * 79, "b", f'expected "{"ä" * 79}..., not "b"'),
        ({"const": "ä" * 78}, "ä" * 78, [1, 2], f'expected "{"ä" * 78}", not [1, 2]'),
        ({"enum": [1, "b"]}, "b", "c", 'expected one of 1, "b", not "c"'),
    ],
)
def test_the_limits_of_a_schema_are_kept_and_named(
    schema: dict[str, Any], right: Any, wrong: Any, problem: str
) -> None:
    assert find_misfit(schema, right) is None
    assert find_misfit(schema, wrong) == ("$", problem)


def test_the_items_of_a_set_are_counted_once() -> None:
    schema = {"uniqueItems": True, "minItems": 6}

    assert find_misfit(schema, [{"a": 1}, {"a": 2}, [1], [2], 1, 2]) is None
    assert find_misfit(schema, [{"a": [1]}, {"a": [1]}, [1], [1], 1, 2]) == (
        "$",
        "expected at least 6 items, not 4",
    )


def test_a_multiple_beyond_floats_is_left_to_the_code_that_asks() -> None:
    assert find_misfit({"multipleOf": 0.5}, 10**400) is None


def test_without_a_schema_anything_fits() -> None:
    assert find_misfit(None, object()) is None
    assert in_words(None) == in_words({}) == ""


def test_a_text_that_matches_its_pattern_fits() -> None:
    assert find_misfit(schema_of(Annotated[str, Field(pattern="^[ab]*$")]), "ab") is None


def test_choices_that_are_nested_too_deep_are_left_out_of_the_words() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(sys.getrecursionlimit()):
        schema = {"anyOf": [schema, {"type": "null"}]}

    assert in_words(schema) == "null"


def test_a_schema_that_refers_to_itself_has_an_end() -> None:
    again = {"$ref": "#/$defs/again"}

    assert find_misfit({**again, "$defs": {"again": again}}, 1) == ("$", "it is nested too deep")


@given(number=st.integers(-10_000, 10_000), of=st.sampled_from([0.1, 0.01, 0.3, 2.5, 1e-7]))
def test_multiples_are_those_of_pydantic(number: int, of: float) -> None:
    kind = Annotated[float, MultipleOf(of)]

    assert find_misfit(schema_of(kind), number * of) is None
    assert find_misfit(schema_of(kind), (number + 0.5) * of) is not None


def test_an_exact_multiple_is_one_of_decimals_too() -> None:
    kind = Annotated[Decimal, MultipleOf(Decimal("0.1"))]

    assert find_misfit(schema_of(kind), 0.3) is None


def branching(*others: dict[str, Any]) -> dict[str, Any]:
    again = {"$ref": "#/$defs/again"}
    return {**again, "$defs": {"again": {"anyOf": [*others, again, again]}}}


@pytest.mark.parametrize(
    "schema",
    [
        branching(),
        branching({"type": "null"}),
        {**branching(), "$defs": {"again": {"allOf": [{"$ref": "#/$defs/again"}] * 2}}},
        {"propertyNames": branching(), **branching()},
        {"enum": list(range(100_000)), **branching({"enum": list(range(100_000))})},
    ],
)
def test_a_schema_that_branches_without_end_is_given_up(
    schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = 0
    original = answer_schema._Checker._spend

    def counted(checker: Any, number: int) -> None:
        nonlocal checks
        checks += 1
        assert checks < 20_000
        original(checker, number)

    monkeypatch.setattr(answer_schema._Checker, "_spend", counted)

    assert find_misfit(schema, {"a": 1}) in {None, ("$", "it is nested too deep")}


@pytest.mark.slow
def test_large_answers_are_checked_to_their_ends() -> None:
    assert find_misfit(schema_of(list[Page]), [{"title": "x"}] * 50_000) is None
    found = find_misfit(schema_of(list[Page]), [*[{"title": "x"}] * 50_000, {"title": 1}])
    assert found is not None
    assert found[0] == "$[50000].title"


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
