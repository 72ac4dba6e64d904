"""OTLP JSON Lines: the same requests as are sent, readable by whatever reads the standard."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effort import examples, sample
from export_formats import exported, request_of, spans_of, strict
from logs import forge
from tapps_otel.audit.export import Export
from tapps_otel.audit.export.otlp_json import MOST_BYTES
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.store import Store
from tapps_otel.otel.mapping.content import pack
from tapps_otel.otel.transport.encoding import encoded, id_of

TRACE, SPAN = "4b" * 16, "0a" * 8
START = {"event_type": "workflow_start", "workflow": {"name": "w"}, "trace_id": TRACE}


def captured(name: object = "GET", **more: Any) -> dict[str, Any]:
    """A library's span."""
    span = {"event_type": "span", "name": name, "trace_id": TRACE, "span_id": SPAN}
    return {**span, "duration_ns": 5, "otel": {}, **more}


def sent(workflow_id: str = "r") -> list[bytes]:
    """The requests in which the run's spans are sent."""
    return [one.data for one in encoded([found.span for found in spans_of(workflow_id)])]


def lines(text: str) -> list[str]:
    return [f"{line}\n" for line in text[:-1].split("\n")]


def requests(text: str) -> list[bytes]:
    """The requests that the lines stand for."""
    return [request_of(line).SerializeToString() for line in lines(text)]


def test_a_line_is_the_request_that_is_sent(run: str) -> None:
    text = exported("otlp-json")

    assert requests(text) == sent()


def test_a_line_follows_the_standard(run: str) -> None:
    (line,) = lines(exported("otlp-json"))
    (of_resource,) = strict(line)["resourceSpans"]
    (of_scope,) = of_resource["scopeSpans"]
    span = of_scope["spans"][-1]

    assert span["name"] == "workflow report"
    assert len(span["traceId"]) == 32
    assert "parentSpanId" not in span
    assert isinstance(span["startTimeUnixNano"], str)
    assert span["kind"] == 1
    assert {"key": "tapps.execution", "value": {"intValue": "1"}} in span["attributes"]
    assert {one["status"].get("code") for one in of_scope["spans"]} == {None, 2}


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.binary(max_size=9)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aé\x1b"), inner),
    max_leaves=5,
)


@pytest.mark.slow
@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.dictionaries(st.text(min_size=1), VALUES),
    st.lists(st.tuples(st.text(), st.dictionaries(st.text(min_size=1), VALUES))),
    st.sampled_from([[0, None], [1, None], [2, "wrong\u2028\x07"]]),
)
def test_a_line_has_everything_of_its_spans_to_the_byte(
    attributes: dict[str, Any], events: Sequence[tuple[str, dict[str, Any]]], status: list[Any]
) -> None:
    otel = {
        "attributes": {name: pack(value) for name, value in attributes.items()},
        "events": [
            [name, 7, {key: pack(value) for key, value in of_event.items()}]
            for name, of_event in events
        ],
        "links": [{"trace_id": TRACE, "span_id": "ff" * 8, "attributes": {"why": 1}}],
        "status": status,
        "scope": {"name": "lib", "version": "2", "schema_url": "https://s", "attributes": {"a": 1}},
        "kind": 2,
        "trace_state": "a=b",
        "dropped": {"attributes": 3, "events": 2, "links": 1},
    }
    forge(Path("logs"), "r", [START, captured(otel=otel, parent_span_id="0b" * 8)])
    text = exported("otlp-json")

    assert requests(text) == sent()
    assert all(line.isprintable() for line in text[:-1].split("\n"))


def test_special_numbers_follow_the_standard() -> None:
    packed = {name: pack(float(name)) for name in ("nan", "inf", "-inf")}
    forge(Path("logs"), "r", [START, captured(otel={"attributes": packed})])
    text = exported("otlp-json")

    assert '{"doubleValue":"NaN"}' in text
    assert '{"doubleValue":"Infinity"}' in text
    assert '{"doubleValue":"-Infinity"}' in text
    assert math.isnan(spans_of()[0].span.attributes["nan"])  # type: ignore[index,arg-type]


def steps(count: int, text: str) -> list[dict[str, Any]]:
    """A run of steps that each fail with this text."""
    root = {"trace_id": TRACE, "span_id": "0c" * 8}
    events: list[dict[str, Any]] = [START | root]
    for n in range(1, count + 1):
        about = {"trace_id": TRACE, "span_id": f"{n:016x}", "parent_span_id": "0c" * 8}
        step = {**about, "step_id": f"s#{n}", "step": "s", "attempt": 1}
        error = {"type": "E", "message": text}
        events += [
            {**step, "event_type": "step_start"},
            {**step, "event_type": "step_fail", "status": "failed", "error": error,
             "duration_ns": 1},
        ]  # fmt: skip
    return [*events, {**root, "event_type": "workflow_end", "duration_ns": 9}]


@pytest.mark.slow
@pytest.mark.parametrize("text", sample(["x" * 30_000, "\u2028" * 30_000, "é" * 30_000], 1))
def test_no_line_is_too_long_for_a_collector(text: str) -> None:
    forge(Path("logs"), "r", steps(50, text))
    made = lines(exported("otlp-json"))

    assert len(made) > 1
    assert all(len(line.encode()) < MOST_BYTES for line in made)
    assert sorted(_ids("".join(made))) == sorted(id_of(found.span) for found in spans_of())


def _ids(text: str) -> list[str]:
    return [
        span.span_id.hex()
        for line in lines(text)
        for of_resource in request_of(line).resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def test_a_span_that_is_too_long_has_a_line_of_its_own() -> None:
    huge = {"attributes": {"x": "y" * MOST_BYTES}}
    store = Store(Path("logs"))
    store.blobs_folder("r").mkdir(parents=True)
    blob = Blobs(store.blobs_folder("r")).put(json.dumps(huge).encode())
    many = [captured(span_id=f"{n:016x}") for n in range(1, 4)]
    many[1] = captured(span_id=f"{2:016x}", otel_blob=blob)
    del many[1]["otel"]
    forge(Path("logs"), "r", [START, *many])
    made = lines(exported("otlp-json"))

    assert [len(line) >= MOST_BYTES for line in made] == [False, True, False]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (captured("\ud800"), "cannot be written"),
        (captured(otel={"dropped": {"events": -1}}), "cannot be written"),
        (captured(otel={"dropped": {"events": "x"}}), "seq 3: "),
        (captured(otel={"events": [["e", -1, {}]]}), "cannot be written"),
        (captured(otel={"events": [["e", 1e300, {}]]}), "cannot be written"),
        (captured(otel={"events": [[["e"], 1, {}]]}), "cannot be written"),
        (captured(otel={"scope": {"name": ["x"]}}), "seq 3: "),
        (captured(otel={"trace_state": 3}), "this span cannot be rebuilt"),
        (captured(trace_id="no hex"), "this span cannot be rebuilt"),
        (captured(span_id="0" * 16), "this span cannot be rebuilt"),
        (captured(otel={"kind": 77}), "this span cannot be rebuilt"),
    ],
)
def test_a_span_that_cannot_be_encoded_is_reported_and_the_others_are_written(
    bad: dict[str, Any], said: str
) -> None:
    good = [captured(f"good {n}", span_id=f"{n:016x}") for n in range(1, 6)]
    forge(Path("logs"), "r", [START, good[0], bad, *good[1:]])
    export = Export(Store(Path("logs")), "r", "otlp-json")
    text = "".join(export)

    assert [text.count(f'"good {n}"') for n in range(1, 6)] == [1] * 5
    (problem,) = export.problems
    assert problem.startswith("r.jsonl, seq 3: ")
    assert said in problem
    assert export.count == 5
    for line in lines(text):
        request_of(line)


@pytest.mark.parametrize(
    "value", [{"i": str(2**70)}, "\udfff", {"m": {"a": {"i": str(-(2**64))}}}, [{"i": str(2**63)}]]
)
def test_an_attribute_that_cannot_be_encoded_is_reported_and_the_span_is_written(
    value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    odd = captured("odd", otel={"attributes": {"bad\x1b": value, "fine": 1}})
    good = [captured("good", span_id=f"{n:016x}") for n in range(1, 6)]
    forge(Path("logs"), "r", [START, *good, odd])
    export = Export(Store(Path("logs")), "r", "otlp-json")
    text = "".join(export)

    assert text.count('"good"') == 5
    assert text.count('"odd"') == 1
    assert '"fine"' in text
    assert '"bad' not in text
    (problem,) = export.problems
    assert problem.startswith("r.jsonl, seq 7: ")
    assert "bad" in problem
    assert caplog.records == []


@pytest.mark.parametrize("depth", [30, 90, 150, 250, 400])
def test_endless_nesting_does_not_crash(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = {"m": {"a": value}}
    deep = captured("deep", otel={"attributes": {"x": value}})
    forge(Path("logs"), "r", [START, deep, captured("good", span_id="0b" * 8)])
    export = Export(Store(Path("logs")), "r", "otlp-json")
    text = "".join(export)

    assert '"good"' in text
    assert ('{"key":"a","value":{"intValue":"1"}}' in text) is not bool(export.problems)
