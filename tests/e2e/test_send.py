"""A killed run's trace, sent from its log: whole, once, and identical in every way."""

from __future__ import annotations

import itertools
import json
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import programs
import tapps_otel
from commands import LOGS, Done, child, environment
from otlp_collector import KILLED, LONG, Collected, Collector, Ended, Program, once
from programs import PACKAGES
from stack import Stack
from tapps_otel import WorkflowEvent

SIX = """
import os, signal
from pathlib import Path
from tapps_otel import annotate, step, workflow

@step(agent="counter", action="count")
def count(n: int) -> int:
    annotate("counting", n=n)
    if n == 4 and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return n

@workflow
def six() -> int:
    return sum(count(n) for n in range(1, 7))

print(six.options(workflow_id="r1")())
"""
STARTS = {"workflow_start", "workflow_resume", "step_start"}
TRACED = {"OTEL_TRACES_EXPORTER": "console"}  # spans are made, and sent nowhere


def log() -> list[WorkflowEvent]:
    return list(tapps_otel.events("r1"))


def send(collector: Collector, *arguments: str, protocol: str = "grpc") -> tuple[Done, Any]:
    """The output of the command, as text and as JSON."""
    done = child("send", "r1", "--json", *arguments, **collector.env(protocol))
    return done, json.loads(done.out)


def spans_of(events: Sequence[WorkflowEvent], execution: int) -> set[str]:
    return {e.span_id or "" for e in events if e.event_type in STARTS and e.execution == execution}


def assert_whole(spans: Sequence[Collected]) -> None:
    ids = {span.span_id for span in spans}

    assert len(ids) == len(spans)
    assert len({span.trace_id for span in spans}) == 1
    assert [span.name for span in spans if not span.parent_span_id] == ["workflow six"]
    assert {span.parent_span_id for span in spans} - {""} <= ids


def assert_as_the_log_says(spans: Sequence[Collected], events: Sequence[WorkflowEvent]) -> None:
    """Ids, times and events are those of the log; open spans end with the execution."""
    last = {e.execution: e.time_ns for e in events if not e.late and e.status != "interrupted"}
    for span in spans:
        own = [e for e in events if e.span_id == span.span_id and e.status != "interrupted"]
        start, end = own[0], own[-1]
        assert start.event_type in STARTS
        assert (span.trace_id, span.parent_span_id) == (start.trace_id, start.parent_span_id or "")
        assert span.start_ns == start.time_ns
        assert [at["tapps.seq"] for name, _, at in span.events if name != "exception"] == [
            e.seq for e in own
        ]
        if end.duration_ns is None:
            assert span.end_ns == last[start.execution]
            assert span.status == 2
            assert span.attributes["error.type"] == "interrupted"
        else:
            assert span.end_ns == start.time_ns + end.duration_ns
            assert span.status == 0


# ---------------------------------------------------------------- after a kill

# How the process that was killed, and the one that resumed, were set up.
WAYS: dict[str, Callable[[Collector, str], dict[str, str]]] = {
    "collector up": lambda collector, _: collector.env(),
    "collector down": lambda _, refusing: {"OTEL_EXPORTER_OTLP_ENDPOINT": refusing},
    "no SDK": lambda collector, _: {**collector.env(), "OTEL_SDK_DISABLED": "true"},
    "nothing set": lambda *_: {},
    "unsampled": lambda collector, _: {**collector.env(), "OTEL_TRACES_SAMPLER": "always_off"},
}


PROTOCOLS = ("grpc", "http/protobuf")


@pytest.fixture
def env(way: str, collector: Collector, refusing: str) -> dict[str, str]:
    return WAYS[way](collector, refusing)


@pytest.mark.parametrize(
    ("way", "protocol"),
    [*zip(WAYS, itertools.cycle(PROTOCOLS)), ("collector up", PROTOCOLS[1])],
)
def test_a_killed_runs_trace_is_sent_whole_and_once(
    collector: Collector,
    another: Callable[[], Collector],
    program: Program,
    env: dict[str, str],
    protocol: str,
) -> None:
    killed = program(SIX, **env)
    events = log()

    # Killed in step 4 of 6, and not resumed: the log is enough for the whole trace.
    first, said = send(collector, protocol=protocol)
    spans = once(collector.spans(5))
    (cut,) = [s for s in spans if s.name == "step count" and s.status == 2]

    assert killed.code == KILLED
    assert (first.code, said["ok"]) == (0, True)
    assert said["sent"] + said["confirmed"] == 5
    assert {s.span_id for s in spans} == spans_of(events, 1)
    assert cut.attributes["tapps.step.id"] == "count#4"
    assert_whole(spans)
    assert_as_the_log_says(spans, events)

    # A second send has nothing to send.
    came = len(collector.spans(5))
    second, said = send(collector, protocol=protocol)

    assert (second.code, said["sent"], said["confirmed"]) == (0, 0, 5)
    assert len(collector.spans(5)) == came

    # Resumed: the same trace, a second execution, and a link to what was cut short.
    resumed = program(SIX, **env)
    events = log()
    third, said = send(collector, protocol=protocol)
    spans = once(collector.spans(9))  # no id with two contents
    (run,) = [s for s in spans if s.parent_span_id and s.name == "workflow six"]

    assert (resumed.code, resumed.out) == (0, "21\n")
    assert (third.code, said["ok"], said["sent"] + said["confirmed"]) == (0, True, 9)
    assert {s.span_id for s in spans} == spans_of(events, 1) | spans_of(events, 2)
    assert_whole(spans)
    assert_as_the_log_says(spans, events)
    assert [(span_id, at["tapps.link"]) for _, span_id, at in run.links] == [
        (cut.span_id, "interrupted")
    ]
    assert send(collector, protocol=protocol)[1]["sent"] == 0

    # Another collector gets the same bytes.
    fresh = another()
    fourth, said = send(fresh, "--force")

    assert (fourth.code, said["sent"]) == (0, 9)
    assert contents(fresh.spans(9)) == contents(spans)


def contents(spans: Sequence[Collected]) -> dict[str, Any]:
    return {s.span_id: (s.raw, s.resource, s.scope) for s in spans}


def test_what_one_collector_confirmed_another_has_not(
    collector: Collector, another: Callable[[], Collector], program: Program
) -> None:
    program(SIX)
    send(collector)
    fresh = another()

    assert send(fresh)[1]["sent"] == 5
    assert contents(fresh.spans(5)) == contents(collector.spans(5))


# ---------------------------------------------------------------- sent by a resume


def test_a_resume_sends_interrupted_spans_by_itself(
    collector: Collector, program: Program, refusing: str
) -> None:
    program(SIX, OTEL_EXPORTER_OTLP_ENDPOINT=refusing)
    done = program(SIX, **collector.env())
    spans = once(collector.spans(9))

    assert (done.code, done.out, done.err) == (0, "21\n", "")
    assert_whole(spans)
    assert_as_the_log_says(spans, log())
    assert send(collector)[1]["sent"] == 0


def test_a_hanging_collector_does_not_delay_a_resume(
    program: Program, hole: tuple[str, list[socket.socket]]
) -> None:
    program(SIX)
    done = program(SIX, OTEL_EXPORTER_OTLP_ENDPOINT=hole[0], OTEL_EXPORTER_OTLP_TIMEOUT=LONG)

    assert (done.code, done.out) == (0, "21\n")
    assert "spans of earlier executions were not all sent" in done.err
    assert "`tapps-otel send r1` sends them later" in done.err
    assert "Traceback" not in done.err


FOREIGN = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
theirs = TracerProvider()
theirs.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[1])))
trace.set_tracer_provider(theirs)
"""


def test_the_programs_own_provider_gets_interrupted_spans(
    collector: Collector, program: Program
) -> None:
    endpoint = f"{collector.http}/v1/traces"
    program(FOREIGN + SIX, endpoint)
    done = program(FOREIGN + SIX, endpoint)
    spans = once(collector.spans(9))
    sent = send(collector, protocol="http/protobuf")[1]["sent"]

    assert (done.code, done.out, done.err) == (0, "21\n", "")
    assert_whole(spans)
    assert_as_the_log_says(spans, log())
    # Only what we saw confirmed counts: all come again, to the byte the same.
    assert sent == 9
    assert contents(once(collector.spans(18))) == contents(spans)


# ---------------------------------------------------------------- markers


WAITING = SIX.replace(
    "        os.kill(os.getpid(), signal.SIGKILL)",
    "        while not Path('go').exists(): time.sleep(0.01)",
).replace("import os, signal", "import time")


def test_a_run_is_seen_before_it_ends(collector: Collector) -> None:
    Path("waiting.py").write_text(WAITING, "utf-8")
    env = environment(**collector.env(), OTEL_BSP_SCHEDULE_DELAY="60000")
    with programs.Popen([sys.executable, "waiting.py"], env=env) as going_on:
        try:
            (marker,) = collector.markers(1)  # it waits for that
            spans = collector.spans(0)
        finally:
            Path("go").touch()
    start = log()[0]

    assert going_on.returncode == 0
    assert not [span for span in spans if span.name == "workflow six"]
    assert marker.name == "workflow six started"
    assert (marker.trace_id, marker.parent_span_id) == (start.trace_id, start.span_id)
    assert (marker.start_ns, marker.end_ns) == (start.time_ns, start.time_ns + 1)
    assert marker.attributes == {
        "tapps.marker": True,
        "tapps.workflow.id": "r1",
        "tapps.execution": 1,
    }


@pytest.mark.parametrize(("announce", "count"), [("off", 0), ("workflow", 1), ("steps", 7)])
def test_how_much_is_announced_is_set_by_the_user(
    collector: Collector, program: Program, announce: str, count: int
) -> None:
    Path("killed").touch()  # so that no process is killed
    program(SIX, **collector.env(), TAPPS_OTEL_ANNOUNCE=announce)
    collector.spans(7)
    markers = collector.markers(count)

    assert len(markers) == count
    assert {m.parent_span_id for m in markers} <= {s.span_id for s in collector.spans(7)}


# ---------------------------------------------------------------- nothing lost, nothing twice


def test_all_runs_are_sent_but_one_that_is_damaged(collector: Collector, program: Program) -> None:
    source = SIX.replace('print(six.options(workflow_id="r1")())', "").replace(
        "not Path", "False and not Path"
    ) + ("for name in ('r1', 'r2', 'r3'): six.options(workflow_id=name)()\n")
    program(source)
    path = LOGS / "r2.jsonl"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"counting"', b'"Counting"', 1))

    done = child("send", "--all", "--json", **collector.env())
    reports = {one["workflow_id"]: one for one in json.loads(done.out)}

    assert done.code == 1
    assert {name: one["ok"] for name, one in reports.items()} == {
        "r1": True,
        "r2": False,
        "r3": True,
    }
    assert "r2.jsonl" in reports["r2"]["problems"][0]
    assert {s.attributes["tapps.workflow.id"] for s in collector.spans(14)} >= {"r1", "r3"}


def test_a_log_that_was_cut_after_it_was_sent_is_reported(
    collector: Collector, program: Program
) -> None:
    Path("killed").touch()
    program(SIX)
    send(collector)
    path = LOGS / "r1.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    done = child("send", "r1", **collector.env())

    assert done.code == 6
    assert "r1.ledger" in done.err
    assert "cut or rewritten" in done.err
    assert len(collector.spans(7)) == 7


def test_a_run_in_progress_is_sent_up_to_its_last_ended_span(
    collector: Collector, program: Program
) -> None:
    source = SIX.replace(
        'Path("killed").touch()\n        os.kill(os.getpid(), signal.SIGKILL)',
        "import subprocess, sys; Path('said').write_bytes(subprocess.run([sys.executable, '-m', "
        "'tapps_otel', 'send', 'r1', '--json', '--endpoint', sys.argv[1]], "
        "capture_output=True).stdout)",
    )
    done: Ended = program(source, collector.grpc, PYTHONPATH=str(PACKAGES))
    said = json.loads(Path("said").read_text("utf-8"))

    assert done.code == 0
    assert (said["sent"], said["running"], said["ok"]) == (3, True, True)
    assert send(collector)[1]["sent"] == 4
    assert_whole(collector.spans(7))


def test_a_killed_send_is_continued(collector: Collector, program: Program) -> None:
    # A torn line of the ledger is ignored, and its spans are sent again.
    Path("killed").touch()
    program(SIX)
    send(collector)
    ledger = LOGS / "r1.ledger"
    data = ledger.read_bytes()
    ledger.write_bytes(data[: data.index(b"\n") // 2])

    again = send(collector)[1]

    assert (again["sent"], again["ok"]) == (7, True)
    assert len(once(collector.spans(14))) == 7  # the same spans, to the byte
    assert send(collector)[1]["sent"] == 0


# ---------------------------------------------------------------- spans that are too large

LARGE = """
from opentelemetry import trace
from tapps_otel import step, workflow

@step
def small() -> None: ...

@step
def large() -> None:
    trace.get_current_span().set_attribute("text", "x" * 5_000_000)

@workflow
def flow() -> None:
    small()
    large()
    small()

flow.options(workflow_id="r1")()
"""


def test_a_span_that_is_too_large_costs_no_other(collector: Collector, program: Program) -> None:
    ended = program(LARGE, TAPPS_OTEL_SHUTDOWN_TIMEOUT="30", **collector.env())
    done, report = send(collector)
    names = [span.name for span in once(collector.spans(3))]

    assert "(step large): OUT_OF_RANGE" in ended.err
    assert sorted(names) == ["step small", "step small", "workflow flow"]
    assert (done.code, report["sent"], report["confirmed"], report["refused"]) == (7, 0, 3, 1)


@pytest.mark.stack
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_span_above_the_limit_of_the_stacks_collector_costs_no_other(
    shared_stack: Stack, program: Program, protocol: str
) -> None:
    program(LARGE.replace("5_000_000", "25_000_000"))  # without OpenTelemetry
    program(LARGE.replace("5_000_000", "25_000_000").replace("r1", "r2"), **TRACED)
    done = child("send", "--all", "--json", **shared_stack.env(protocol))
    report = {one["workflow_id"]: one for one in json.loads(done.out)}

    assert done.code == 7
    assert (report["r1"]["sent"], report["r1"]["refused"]) == (4, 0)
    assert (report["r2"]["sent"], report["r2"]["refused"]) == (3, 1)
    assert "too large" in report["r2"]["problems"][0] or "larger" in report["r2"]["problems"][0]
