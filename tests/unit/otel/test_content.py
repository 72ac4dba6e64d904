"""What a span holds, as a function of events: values that every collector accepts."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from effort import examples
from tapps_otel import clock
from tapps_otel.log.event import Event
from tapps_otel.otel.mapping import content
from tapps_otel.otel.mapping.content import attribute, pack, text, unpack

T0 = 1_760_000_000_123_456_789


def event(event_type: str, **fields: Any) -> Event:
    fields = {"timestamp": clock.timestamp(T0), "execution": 1, **fields}
    return Event(event_type=event_type, workflow_id="w1", **fields)


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ("plain", "plain"),
        (True, True),
        (1.5, 1.5),
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        ("a\ud800b", "a?b"),
        (["a", "b"], ("a", "b")),
        ([1, 2**70], ("1", "1180591620717411303424")),
        ([], ()),
        ([1, "a"], '[1,"a"]'),
        ([1, True], "[1,true]"),
        ({"a": {"b": 1}}, '{"a":{"b":1}}'),
        ([[1]], "[[1]]"),
    ],
)
def test_a_value_becomes_what_every_collector_accepts(value: object, made: object) -> None:
    assert attribute(value) == made
    assert type(attribute(value)) is type(made)


def test_an_enum_counts_as_its_number() -> None:
    class Level(IntEnum):
        HIGH = 3

    assert attribute(Level.HIGH) == 3


def test_long_text_is_cut_with_a_note() -> None:
    cut = text("x" * 40_000)

    assert cut.startswith("x" * 32_768 + "...")
    assert cut.endswith("7232 characters left out")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.slow
@settings(max_examples=examples(50))
@given(st.dictionaries(st.text(), JSON), st.text(st.characters()))
def test_no_event_makes_a_span_that_cannot_be_sent(attributes: dict[str, Any], odd: str) -> None:
    start = event("step_start", step_id=odd, step=odd, agent=odd, attempt=1, attributes=attributes)
    error = {"type": odd, "message": odd, "stack": odd}
    end = event("step_fail", status="failed", error=error, artifacts=[attributes])
    held = content.start_attributes(start, odd) | content.end_attributes(end, 1)
    status = content.status_of(end)
    span = ReadableSpan(
        content.span_name(start),
        context=SpanContext(1, 1, is_remote=False),
        resource=Resource({}),
        attributes=held,
        start_time=T0,
        end_time=T0,
    )
    (encoded,) = encode_spans([span]).resource_spans[0].scope_spans[0].spans
    (status[1] or "").encode()
    for _, of_event in content.end_events(end):
        for value in of_event.values():
            str(value).encode()

    assert len(encoded.attributes) == len(held)  # what cannot be encoded is left out in silence


@pytest.mark.slow
@settings(max_examples=examples(50))
@given(st.dictionaries(st.text(), JSON | st.binary() | st.lists(st.binary())))
def test_packed_values_are_read_back_exactly(value: dict[str, Any]) -> None:
    try:
        line = msgspec.json.encode(pack(value))
    except UnicodeEncodeError:  # lone surrogates: the log escapes them by another way
        return
    back = unpack(msgspec.json.decode(line))

    assert repr(back) == repr(_tuples(value))


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(one) for one in value)
    if isinstance(value, dict):
        return {name: _tuples(one) for name, one in value.items()}
    return value


@pytest.mark.parametrize("bad", [{}, {"x": 1}, {"b": 1}, {"b": "*"}, {"i": "x"}, {"m": {"a": {}}}])
def test_a_malformed_packed_value_is_refused(bad: object) -> None:
    with pytest.raises(ValueError):
        unpack(bad)


def test_packed_floats_are_finite() -> None:
    assert pack([math.inf, -math.inf, 0.5]) == [{"f": "inf"}, {"f": "-inf"}, 0.5]


# ---------------------------------------------------------------- spans


def test_names_are_those_of_the_workflow_and_the_step() -> None:
    start = event("workflow_start", workflow={"name": "article"})

    assert content.span_name(start) == "workflow article"
    assert content.span_name(event("step_start", step_id="a/b#2", step="b")) == "step b"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("app.flows:build", {"code.function.name": "app.flows.build"}),
        ("/srv/build.py:main", {"code.file.path": "/srv/build.py", "code.function.name": "main"}),
        ("", {}),
    ],
)
def test_a_workflow_names_the_place_of_its_code(path: str, code: dict[str, str]) -> None:
    start = event("workflow_start", workflow={"name": "build", "path": path})
    held = content.start_attributes(start, "build")

    assert {name: held[name] for name in held if name.startswith("code.")} == code


def test_ours_win_over_the_users_attributes() -> None:
    mine = {"tapps.workflow.id": "other", "team": "red", "": 1, "none": None}
    held = content.start_attributes(event("workflow_start", attributes=mine), "build")

    assert held["tapps.workflow.id"] == "w1"
    assert held["team"] == "red"
    assert not {"", "none"} & held.keys()


def test_users_attributes_are_on_the_span_or_on_the_event() -> None:
    mine = {"rows": 3}

    assert "rows" not in content.event_attributes(event("step_start", attributes=mine))
    assert content.event_attributes(event("annotation", name="note", attributes=mine)) == {
        "tapps.annotation.name": "note",
        "rows": 3,
    }


def test_a_retry_has_its_wait() -> None:
    failed = event("step_fail", seq=7, status="failed", retry_in_ns=1_500_000_000)

    assert content.event_attributes(failed) == {
        "tapps.seq": 7,
        "tapps.status": "failed",
        "tapps.retry_in": 1.5,
    }


@pytest.mark.parametrize("status", ["completed", "skipped", "paused", "running"])
def test_other_statuses_leave_the_spans_status_unset(status: str) -> None:
    assert content.status_of(event("step_finish", status=status)) == (0, None)


def test_a_failure_without_a_message_is_described_by_its_status() -> None:
    end = event("step_fail", status="interrupted")

    assert content.status_of(end) == (content.ERROR, "interrupted")
    assert content.end_attributes(end, 1)["error.type"] == "interrupted"


def test_many_artifacts_do_not_displace_the_events() -> None:
    end = event("step_finish", status="completed", artifacts=[{"name": str(i)} for i in range(99)])
    names = [name for name, _ in content.end_events(end)]

    assert names == ["tapps.artifact"] * 32 + ["step_finish"]
    assert content.end_attributes(end, 1)["tapps.artifacts"] == 99


def test_times_are_those_of_the_log() -> None:
    assert content.time_of(event("annotation")) == T0
    assert content.time_of(event("annotation", timestamp=clock.timestamp(T0 + 1))) == T0 + 1
    assert content.end_ns(event("step_finish", duration_ns=5), T0) == T0 + 5
    assert content.end_ns(event("step_skip"), T0 - 9) == T0
    assert content.end_ns(event("step_skip"), T0 + 9) == T0 + 9


@pytest.mark.parametrize("stamp", ["", "2025-10-09T08:53:20Z", "2025-10-09T08:53:20.12345678xZ"])
def test_a_malformed_time_is_refused(stamp: str) -> None:
    content.time_of(event("annotation", timestamp="2025-10-09T08:53:20.000000000Z"))

    with pytest.raises(ValueError):
        content.time_of(event("annotation", timestamp=stamp))
