"""One line and its event: encoding, decoding, the chain."""

from __future__ import annotations

import json
import math
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from effort import examples
from logs import event, start
from tapps_otel.log.event import (
    TRAILER,
    decode,
    encode,
    genesis,
    line_start,
    loads,
    raw_json,
    trailing_sha,
)


def line(**fields: Any) -> bytes:
    return encode(event("annotation", **fields), genesis("r"))[0]


def test_a_line_begins_and_ends_as_the_format_requires() -> None:
    made, sha = encode(start(), genesis("r"))

    assert made.startswith(b'{"v":1,"seq":0,"event_type":"workflow_start",')
    assert made.endswith(b',"sha":"' + sha + b'"}\n')
    assert len(made) - made.rindex(b',"sha":"') == TRAILER


def test_the_sha_is_of_the_sha_before_and_the_bytes_before_the_last_75() -> None:
    made, sha = encode(start(), genesis("r"))
    first = sha256(b"r").hexdigest().encode()

    assert sha == sha256(first + made[:-75]).hexdigest().encode()
    assert trailing_sha(made) == trailing_sha(made[:-1]) == sha


def test_the_prefix_of_a_line_is_known_from_its_seq() -> None:
    one = start()
    one.seq = 7

    assert encode(one, genesis("r"))[0].startswith(line_start(7))


@pytest.mark.parametrize("cut", range(2, TRAILER + 1))
def test_a_line_that_lacks_part_of_its_trailer_has_no_sha(cut: int) -> None:
    assert trailing_sha(line()[:-cut]) is None


def test_a_sha_with_a_wrong_digit_is_not_a_sha() -> None:
    made = line()

    assert trailing_sha(made[:-10] + b"G" + made[-9:]) is None


def test_unset_fields_are_left_out_of_the_line() -> None:
    assert list(json.loads(line())) == [
        "v", "seq", "event_type", "workflow_id", "timestamp", "execution", "sha"
    ]  # fmt: skip


def test_an_agent_that_is_unknown_is_null() -> None:
    made = encode(event("step_start", agent=None), genesis("r"))[0]

    assert json.loads(made)["agent"] is None
    assert decode(made).agent is None
    assert decode(line()).agent is UNSET


@pytest.mark.parametrize("nothing", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("text", ["plain", "lone \ud800 surrogate"])
def test_a_number_without_json_form_is_null_in_both_encoders(nothing: float, text: str) -> None:
    made = line(attributes={"a": nothing, "b": [nothing], "c": text})

    assert decode(made).attributes == {"a": None, "b": [None], "c": text}
    assert bytes(raw_json([nothing, text])).startswith(b"[null,")


def test_a_lone_surrogate_stays_what_it_is() -> None:
    made = line(name="a\ud800b", result=raw_json({"k\udfff": "\ud800"}))

    assert made.isascii()
    assert decode(made).name == "a\ud800b"
    assert json.loads(bytes(decode(made).result)) == {"k\udfff": "\ud800"}  # type: ignore[arg-type]


def test_large_integers_stay_exact() -> None:
    assert decode(line(attributes={"n": 10**40})).attributes == {"n": 10**40}
    assert bytes(raw_json(2**64 + 1)) == b"18446744073709551617"


def test_raw_json_with_a_newline_is_refused_since_it_would_break_the_line() -> None:
    with pytest.raises(ValueError, match="raw JSON contains a newline"):
        line(result=Raw(b'{\n"pretty": 1}'))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(300), deadline=None)
@given(json_values, st.text(st.characters(exclude_categories=[])))
def test_decoding_reverses_encoding(value: Any, text: str) -> None:
    made = line(attributes={"value": value}, name=text, result=raw_json(value))
    found = decode(made)

    assert made.count(b"\n") == 1
    assert found.attributes == {"value": value}
    assert found.name == text
    assert json.loads(bytes(found.result)) == value  # type: ignore[arg-type]
    assert loads(made)["result"] == value


@settings(max_examples=examples(300), deadline=None)
@given(
    st.binary(max_size=200)
    | st.text(max_size=100).map(str.encode)
    | json_values.map(lambda value: json.dumps(value).encode())
)
def test_decoding_anything_raises_nothing_but_value_error(data: bytes) -> None:
    for read in (decode, loads):
        try:
            read(data)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - it may pass, too
