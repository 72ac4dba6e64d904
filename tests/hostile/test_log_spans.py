"""Spans from forged logs: each is rebuilt or reported, and what is rebuilt can be sent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logs import AT, ID, Unsynced, event, start, write
from tapps_otel import clock
from tapps_otel.log import files
from tapps_otel.log.event import Event, decode, encode
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.run_spans import Found, RunSpans
from tapps_otel.otel.transport.encoding import encoded

TRACE, ROOT, STEP = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "system", Unsynced)


def story() -> list[Event]:
    """A run with a step and a library's span."""
    run: dict[str, Any] = {"trace_id": TRACE, "span_id": ROOT}
    ids: dict[str, Any] = {"trace_id": TRACE, "span_id": STEP}
    step: dict[str, Any] = {**ids, "step_id": "draft", "step": "draft", "attempt": 1}
    otel = {"scope": {"name": "tapps_otel", "version": "1"}}
    resource = {"service.name": "s"}
    return [
        start(**run, otel=otel, resource=resource),
        event("step_start", 1, **step, parent_span_id=ROOT),
        event("annotation", 2, **ids, name="note"),
        event(
            "span",
            3,
            trace_id=TRACE,
            span_id="1111111111111111",
            parent_span_id=STEP,
            name="GET",
            duration_ns=5,
            otel={"kind": 2, "scope": {"name": "http"}, "attributes": {"n": 1}},
        ),
        event("step_finish", 4, **step, status="completed", duration_ns=1000),
        event(
            "workflow_end", 5, trace_id=TRACE, span_id=ROOT, status="completed", duration_ns=2000
        ),
    ]


def spans(folder: Path, events: Iterable[Event]) -> tuple[list[Found], list[str]]:
    """Return what is rebuilt from a log of these events, and the problems with the rest."""
    path = folder / f"{ID}.jsonl"
    path.unlink(missing_ok=True)
    write(path, events)
    source = RunSpans(Store(folder), ID)
    return list(source), source.problems


def changed(original: Event, **fields: Any) -> Event:
    """The event with other values for fields, as a reader of the line sees it."""
    made: dict[str, Any] = json.loads(encode(original, b"0" * 64)[0])
    made.update(fields)
    del made["sha"]
    return decode(json.dumps(made).encode())


def test_the_story_is_three_spans(tmp_path: Path) -> None:
    found, problems = spans(tmp_path, story())

    assert [one.span.name for one in found] == ["GET", "step draft", "workflow article"]
    assert not problems


# ---------------------------------------------------------------- ids, times, numbers


@pytest.mark.parametrize("field", ["trace_id", "span_id", "parent_span_id"])
@pytest.mark.parametrize("value", ["", "not hex at all!!", "0" * 16, "0" * 32, "é" * 16, "1" * 100])
def test_invalid_ids_are_reported_with_their_place(tmp_path: Path, field: str, value: str) -> None:
    events = story()
    events[1] = changed(events[1], **{field: value})
    found, problems = spans(tmp_path, events)

    assert [one.span.name for one in found if one.span.name != "step draft"] == [
        "GET",
        "workflow article",
    ]
    reported = [one for one in problems if one.startswith(("r.jsonl, seq 2: ", "r.jsonl, seq 5: "))]
    assert len(found) + len(reported) == 3


def test_no_span_ends_before_it_starts_although_times_run_backwards(tmp_path: Path) -> None:
    events = [
        changed(one, timestamp=clock.timestamp(AT - at * 1_000_000_000))
        for at, one in enumerate(story())
    ]
    found, problems = spans(tmp_path, events[:4])  # two are cut short

    assert len(found) == 3
    assert not problems
    assert all((one.span.end_time or 0) >= (one.span.start_time or 0) for one in found)
    assert all(list(encoded([one.span])) for one in found)


@pytest.mark.parametrize("duration", [-1, -(1 << 62), 1 << 63, 1 << 80])
def test_an_invalid_duration_is_reported(tmp_path: Path, duration: int) -> None:
    events = story()
    events[4] = changed(events[4], duration_ns=duration)
    found, problems = spans(tmp_path, events)

    assert all((one.span.end_time or 0) >= (one.span.start_time or 0) for one in found)
    assert len(found) == 3 or problems


def test_a_span_of_ten_thousand_events_is_limited_as_by_the_sdk(tmp_path: Path) -> None:
    """The last 128 stay, and the span says how many went; the log has them all."""
    events = story()
    notes = [event("annotation", n, trace_id=TRACE, span_id=STEP, name="n") for n in range(10_000)]
    found, problems = spans(tmp_path, [*events[:2], *notes, *events[4:]])
    (step,) = [one.span for one in found if one.span.name == "step draft"]

    assert not problems
    assert len(step.events) == 128
    assert step.dropped_events == 10_002 - 128
    assert step.events[-1].name == "step_finish"


def test_two_spans_of_one_id_are_not_both_sent(tmp_path: Path) -> None:
    events = story()
    found, _ = spans(tmp_path, [*events[:2], events[1], *events[2:]])

    assert [one.span.name for one in found].count("step draft") == 1


# ---------------------------------------------------------------- anything at all

texts = st.text(max_size=8)
floats = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "attributes", "events", "links", "status", "name", "dropped", "kind", "scope", "flags",
    "trace_state", "parent_is_remote", "limits", "end_time", "resource_schema",
]  # fmt: skip
artifacts = st.dictionaries(st.sampled_from(["name", "path", "sha256", "bytes"]), values)
notes = st.dictionaries(st.sampled_from(KEYS), values, max_size=4)
odd = st.fixed_dictionaries(
    {},
    optional={
        "otel": notes,
        "resource": st.dictionaries(texts, values, max_size=3),
        "attributes": st.dictionaries(texts, values, max_size=3),
        "error": st.dictionaries(
            st.sampled_from(["type", "message", "stack", "attributes"]), values, max_size=3
        ),
        "artifacts": st.lists(
            st.dictionaries(st.sampled_from(["name", "path", "sha256", "bytes"]), values),
            max_size=2,
        ),
        "workflow": st.dictionaries(st.sampled_from(["name", "path", "function"]), values),
        "process": st.dictionaries(st.sampled_from(["tapps_otel", "pid"]), values),
        "duration_ns": st.integers(),
        "status": st.text(max_size=10),
        "step": st.text(max_size=10),
        "timestamp": st.text(max_size=30) | st.just(clock.timestamp(AT)),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(fields=st.lists(odd, min_size=6, max_size=6))
def test_any_log_gives_spans_that_can_be_sent_or_reports_the_problem(
    tmp_path: Path, fields: list[dict[str, Any]]
) -> None:
    events = []
    for one, changes in zip(story(), fields, strict=True):
        try:
            events.append(changed(one, **changes))
        except ValueError:  # no line of a log at all
            events.append(one)
    found, problems = spans(tmp_path, events)
    requests = list(encoded([one.span for one in found]))  # here it would raise
    sent = [span for request in requests for span in request.spans]

    assert sent == [one.span for one in found]
    assert all(bool(request.data) is not bool(request.problem) for request in requests)
    assert len({one.span.context.span_id for one in found}) == len(found)
    assert len(found) + len(problems) >= 3
