"""The Trace Event Format, read as strictly as a viewer might."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tapps_otel
from effort import examples
from export_formats import Trace, exported, spans_of, trace_of
from logs import forge
from tapps_otel import clock
from tapps_otel.audit.export import Export
from tapps_otel.log.store import Store
from tapps_otel.otel.transport.encoding import id_of

TRACE = "4b" * 16
T0 = 1_764_000_000_000_000_000
DAY = 86_400 * 10**9  # ns that a trace's time 0 is before its run


def test_every_span_is_a_slice_with_its_times_and_ids(run: str) -> None:
    trace = trace_of(exported("chrome-trace"))
    spans = {id_of(found.span): found.span for found in spans_of()}
    zero = next(iter(tapps_otel.events(run))).time_ns - DAY

    assert {one.args["span_id"] for one in trace.slices} == set(spans)
    for one in trace.slices:
        span = spans[one.args["span_id"]]
        assert one.name == span.name
        assert (zero + one.start, zero + one.end) == (span.start_time, span.end_time)
        assert clock.parse_timestamp(one.args["start"]) == span.start_time
        assert one.args["tapps.workflow.id"] == run


def test_parallel_steps_have_lanes_with_what_they_call(run: str) -> None:
    trace = trace_of(exported("chrome-trace"))
    writes = {one.args["span_id"]: one.tid for one in trace.named("step write")}

    assert len(set(writes.values())) == 3
    for one in (*trace.named("step polish"), *trace.named("step flaky")):
        assert one.tid == writes[one.args["parent_span_id"]]
    assert list(trace.threads.values()) == ["lane 1", "lane 2", "lane 3"]
    assert [one.category for one in trace.named("workflow report")] == ["workflow"]
    assert trace.named("workflow report")[0].tid == min(trace.threads)


def test_failures_and_span_events_are_shown(run: str) -> None:
    trace = trace_of(exported("chrome-trace"))
    failed = [one for one in trace.slices if one.args["status"] == "ERROR"]

    assert [one.name for one in failed] == ["step flaky"] * 2
    assert failed[0].args["error"] == "=never: 1"
    assert failed[0].args["error.type"] == "ValueError"
    assert sorted(one["name"] for one in trace.instants) == ["exception"] * 2 + ["polished"] * 3
    assert {one["args"].get("times") for one in trace.instants} == {None, 0, 1, 2}


def test_every_execution_is_a_process(run: str) -> None:
    path = Path("logs/r.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-4]))
    asyncio.run(tapps_otel.resume("r"))
    trace = trace_of(exported("chrome-trace"))
    first, second = trace.named("workflow report")

    assert first.pid != second.pid
    assert [name.split(",")[:2] for name in trace.processes.values()] == [
        ["r", " execution 1"],
        ["r", " execution 2"],
    ]
    assert (first.args["tapps.status"], second.args["tapps.status"]) == ("interrupted", "completed")
    cut_short = [one for one in trace.slices if one.args["tapps.status"] == "interrupted"]
    assert second.args["link 1"] in {
        f"{one.args['trace_id']}:{one.args['span_id']}" for one in cut_short
    }


# ---------------------------------------------------------------- whatever the log says


def captured(number: int, start: int, end: int, parent: int, **more: Any) -> dict[str, Any]:
    return {
        "event_type": "span",
        "name": f"call {number}",
        "trace_id": TRACE,
        "span_id": f"{number + 1:016x}",
        "parent_span_id": f"{parent + 1:016x}",
        "timestamp": clock.timestamp(T0 + end),
        "duration_ns": end - start,
        "otel": {},
        **more,
    }


def started(number: int, start: int, parent: int) -> dict[str, Any]:
    ids = {"span_id": f"{number + 1:016x}", "parent_span_id": f"{parent + 1:016x}"}
    step = {"trace_id": TRACE, "step": "s", "step_id": f"s#{number}", "attempt": 1, **ids}
    return {"event_type": "step_start", "timestamp": clock.timestamp(T0 + start), **step}


def ended(number: int, duration: int, parent: int) -> dict[str, Any]:
    about = started(number, 0, parent)
    return about | {"event_type": "step_finish", "duration_ns": duration, "status": "completed"}


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Steps and captured spans in any order, with any times, parents and executions."""
    events = [{"event_type": "workflow_start", "timestamp": clock.timestamp(T0)}]
    numbers, times = st.integers(0, 7), st.integers(0, 30)
    once = set[tuple[str, int]]()
    for _ in range(draw(st.integers(0, 14))):
        kind = draw(st.sampled_from(["start", "end", "captured"]))
        number, time, parent = draw(numbers), draw(times), draw(numbers)
        if kind == "captured":
            made = captured(number, time, time + draw(times), parent)
        elif (kind, number) in once:  # a second one, or a start after the end, would be damage
            continue
        else:
            once |= {(kind, number), ("start", number)}
            made = (started if kind == "start" else ended)(number, time, parent)
        events.append(made | {"execution": draw(st.sampled_from([1, 1, 1, 2]))})
    return events


@pytest.mark.slow
@settings(
    max_examples=examples(200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(histories())
def test_any_timing_can_be_drawn_by_a_viewer(events: list[dict[str, Any]]) -> None:
    forge(Path("logs"), "r", events)
    trace = trace_of(exported("chrome-trace"))

    assert sorted(one.args["span_id"] for one in trace.slices) == sorted(
        id_of(found.span) for found in spans_of()
    )


def read_one(**otel: Any) -> Trace:
    start = {"event_type": "workflow_start", "timestamp": clock.timestamp(T0)}
    forge(Path("logs"), "r", [start, captured(1, 5, 7, 0, otel=otel)])
    text = exported("chrome-trace")

    assert all(line.isprintable() for line in text.split("\n"))
    return trace_of(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"f": "nan"}, "nan"),
        ({"f": "-inf"}, "-inf"),
        ({"i": str(2**80)}, str(2**80)),
        (2**53 + 1, str(2**53 + 1)),
        (2**53 - 1, 2**53 - 1),
        (True, True),
        (None, None),
        ({"b": "AP8="}, "00ff"),
        ({"m": {"a": [1, {"m": {"b": "\ud800"}}]}}, {"a": [1, {"b": "?"}]}),
        ("\x1b]0;x\x07</script>\u2028", "\x1b]0;x\x07</script>\u2028"),
    ],
)
def test_values_can_be_read_by_every_viewer(value: Any, shown: Any) -> None:
    trace = read_one(attributes={"x": value}, events=[["e", T0 + 6, {"x": value}]])

    assert trace.slices[0].args["x"] == shown
    assert trace.instants[0]["args"]["x"] == shown


def test_huge_text_is_cut_and_marked() -> None:
    args = read_one(attributes={"x": "y" * 500_000}).slices[0].args

    assert len(args["x"]) < 33_000
    assert args["x"].endswith("characters left out")


def test_a_span_from_before_the_run_began_is_not_before_zero() -> None:
    start = {"event_type": "workflow_start", "timestamp": clock.timestamp(T0)}
    forge(Path("logs"), "r", [start, captured(1, -1_500, 7, 0)])
    text = exported("chrome-trace")

    assert '"ts":86399999998.500,"dur":1.507' in text
    assert trace_of(text).slices[0].start == DAY - 1_500


@pytest.mark.parametrize(
    "otel",
    [
        {"events": [["e", "now", {}]]},
        {"events": [["e", 1.5, {}]]},
        {"events": [[["e"], 1, {}]]},
    ],
)
def test_a_span_that_cannot_be_encoded_is_reported_and_the_others_are_written(otel: Any) -> None:
    start = {"event_type": "workflow_start", "timestamp": clock.timestamp(T0)}
    events = [captured(n, n, n + 1, 0, otel=otel if n == 2 else {}) for n in range(1, 5)]
    forge(Path("logs"), "r", [start, *events])
    export = Export(Store(Path("logs")), "r", "chrome-trace")
    trace = trace_of("".join(export))

    assert [one.name for one in trace.slices] == ["call 1", "call 3", "call 4"]
    (problem,) = export.problems
    assert problem.startswith("r.jsonl, seq 3: span 0000000000000003 cannot be written: ")


@pytest.mark.parametrize("depth", [30, 150, 300, 450])
def test_endless_nesting_does_not_crash(depth: int) -> None:
    deep = json.loads('{"m":{"a":' * depth + "1" + "}}" * depth)
    start = {"event_type": "workflow_start", "timestamp": clock.timestamp(T0)}
    events = [captured(1, 1, 2, 0, otel={"attributes": {"x": deep}}), captured(2, 2, 3, 0)]
    forge(Path("logs"), "r", [start, *events])
    export = Export(Store(Path("logs")), "r", "chrome-trace")
    text = "".join(export)

    assert '"call 2"' in text
    assert ('"call 1"' in text) is not bool(export.problems)


def test_a_run_without_spans_is_an_empty_trace() -> None:
    forge(Path("logs"), "r", [])

    assert exported("chrome-trace") == "[\n]\n"
