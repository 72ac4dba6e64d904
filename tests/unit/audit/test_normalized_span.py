"""A span means the same, whether it is read from OTLP's bytes or from its JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from effort import examples
from otlp_files import as_json
from tapps_otel.audit.normalized_span import NormalizedSpan, differences, normalized
from tapps_otel.audit.otlp_json import read_spans

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
TIMES = st.integers(0, (1 << 64) - 1)
COUNTS = st.integers(0, (1 << 32) - 1)
TEXT = st.text(max_size=8)
ONE = st.one_of(
    st.builds(AnyValue),
    st.builds(AnyValue, string_value=TEXT),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, int_value=INT64),
    st.builds(AnyValue, double_value=st.floats()),
    st.builds(AnyValue, bytes_value=st.binary(max_size=8)),
)


def pairs(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[list[KeyValue]]:
    return st.dictionaries(TEXT, values, max_size=3).map(
        lambda made: [KeyValue(key=key, value=value) for key, value in made.items()]
    )


VALUES = st.recursive(
    ONE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: AnyValue(array_value=ArrayValue(values=v))),
        pairs(inner).map(lambda v: AnyValue(kvlist_value=KeyValueList(values=v))),
    ),
    max_leaves=6,
)
ATTRIBUTES = pairs(VALUES)
SPAN_ID = st.binary(min_size=8, max_size=8)
IDS = {"trace_id": st.binary(min_size=16, max_size=16), "span_id": SPAN_ID}
EVENTS = st.builds(
    Span.Event,
    time_unix_nano=TIMES,
    name=TEXT,
    attributes=ATTRIBUTES,
    dropped_attributes_count=COUNTS,
)
LINKS = st.builds(Span.Link, attributes=ATTRIBUTES, **IDS)
SPANS = st.builds(
    Span,
    trace_state=TEXT,
    parent_span_id=st.one_of(st.just(b""), SPAN_ID),
    flags=COUNTS,
    name=TEXT,
    kind=st.integers(0, 5),
    start_time_unix_nano=TIMES,
    end_time_unix_nano=TIMES,
    attributes=ATTRIBUTES,
    events=st.lists(EVENTS, max_size=3),
    links=st.lists(LINKS, max_size=2),
    status=st.builds(Status, code=st.integers(0, 2), message=TEXT),
    dropped_events_count=COUNTS,
    **IDS,
)
OF_SCOPE = st.builds(
    ScopeSpans,
    scope=st.builds(InstrumentationScope, name=TEXT, version=TEXT, attributes=ATTRIBUTES),
    spans=st.lists(SPANS, min_size=1, max_size=2),
    schema_url=TEXT,
)
REQUESTS = st.builds(
    ExportTraceServiceRequest,
    resource_spans=st.lists(
        st.builds(
            ResourceSpans,
            resource=st.builds(Resource, attributes=ATTRIBUTES),
            scope_spans=st.lists(OF_SCOPE, max_size=2),
            schema_url=TEXT,
        ),
        min_size=1,
        max_size=2,
    ),
)


def from_bytes(request: ExportTraceServiceRequest) -> list[NormalizedSpan]:
    return [
        normalized(of_resource, of_scope, span)
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def from_json(*requests: Any) -> list[NormalizedSpan]:
    text = "".join(json.dumps(one) + "\n" for one in requests)
    return list(read_spans(io.BytesIO(text.encode()), "x", lambda *_: True, []))


@pytest.mark.slow
@settings(max_examples=examples(200), deadline=None)
@given(REQUESTS)
def test_protobuf_and_json_are_normalized_alike(request: ExportTraceServiceRequest) -> None:
    read, written = from_json(as_json(request)), from_bytes(request)

    assert [one.digest() for one in read] == [one.digest() for one in written]
    assert [list(differences(*both)) for both in zip(read, written, strict=True)] == [[]] * len(
        written
    )


FIELDS = sorted({field.name for field in Span.DESCRIPTOR.fields} - {"trace_id", "span_id"})


@pytest.mark.slow
@settings(max_examples=examples(300), deadline=None)
@given(SPANS, SPANS, st.sampled_from(FIELDS))
def test_one_different_field_is_described(one: Span, another: Span, field: str) -> None:
    mixed = Span()
    mixed.CopyFrom(one)
    mixed.ClearField(field)  # type: ignore[arg-type]
    only = Span()
    only.CopyFrom(another)
    for name in {known.name for known in Span.DESCRIPTOR.fields} - {field}:
        only.ClearField(name)
    mixed.MergeFrom(only)
    first, second = (normalized(ResourceSpans(), ScopeSpans(), span) for span in (one, mixed))

    assert bool(list(differences(first, second))) is (first.digest() != second.digest())


def test_a_response_of_jaeger_has_the_request_in_its_result() -> None:
    span = {"traceId": "AB" * 16, "spanId": "cd" * 8, "name": "x"}
    request = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}

    assert from_json({"result": request}) == from_json(request)
    assert from_json(request)[0].trace_id == "ab" * 16
