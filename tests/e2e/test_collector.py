"""Runs as a real collector sees them: whole traces, also after a kill, and no harm without one."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tapps_otel
from capabilities import need
from otlp_collector import KILLED, LONG, Collected, Collector, Ended, Program, once
from tapps_otel import WorkflowEvent

ORDER = """
import asyncio, os, signal, sys
from pathlib import Path
from tapps_otel import Backoff, annotate, step, workflow

@step
def fetch(n: int) -> list[int]:
    return list(range(n))

@step(retries=2, backoff=Backoff(0.01, 1, 0.01))
def flaky(n: int) -> int:
    done = Path(f"tried-{n}")
    if not done.exists():
        done.touch()
        raise ValueError(f"not yet: {n}")
    return n

@step(agent="writer", action="write")
async def write(n: int) -> int:
    return await polish(n) + flaky(n)

@step
async def polish(n: int) -> int:
    annotate("polished", times=2)
    if len(sys.argv) > 1 and n == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(0)
    return n

@step
def rank(n: int) -> int:
    return -n

@workflow
async def report(n: int) -> list[int]:
    parts = fetch(n)
    written = await asyncio.gather(*[write(part) for part in parts])
    ranked = [await asyncio.to_thread(rank, part) for part in written]
    return sorted(ranked)

print(asyncio.run(report.options(workflow_id="r1")(3)))
"""
STARTS = {"workflow_start", "workflow_resume", "step_start"}
RESULT = "[-4, -2, 0]\n"


def log() -> list[WorkflowEvent]:
    return list(tapps_otel.events("r1"))


def executions(events: Sequence[WorkflowEvent]) -> dict[int, WorkflowEvent]:
    """The first event of each execution."""
    begun = ("workflow_start", "workflow_resume")
    return {e.execution: e for e in events if e.event_type in begun}


def seqs(span: Collected) -> list[int]:
    return [at["tapps.seq"] for name, _, at in span.events if name != "exception"]


def assert_whole(spans: Sequence[Collected]) -> None:
    """One trace, one root, no missing parent, no id twice."""
    ids = [span.span_id for span in spans]

    assert len({span.trace_id for span in spans}) == 1
    assert len(set(ids)) == len(ids)
    assert [span.name for span in spans if not span.parent_span_id] == ["workflow report"]
    assert {span.parent_span_id for span in spans} - {""} <= set(ids)


def assert_as_the_log_says(spans: Sequence[Collected], events: Sequence[WorkflowEvent]) -> None:
    """Ids, parents, times and events of each span are those of the log."""
    for span in spans:
        own = [e for e in events if e.span_id == span.span_id]
        start = next(
            e for e in own if e.event_type in {"workflow_start", "workflow_resume", "step_start"}
        )
        end = next(e for e in own if e.duration_ns is not None)

        assert (start.trace_id, start.parent_span_id or "") == (span.trace_id, span.parent_span_id)
        assert span.start_ns == start.time_ns
        assert span.end_ns == start.time_ns + (end.duration_ns or 0)
        assert seqs(span) == [e.seq for e in own]
        assert [at for _, at, _ in span.events] == sorted(at for _, at, _ in span.events)
        assert span.attributes["tapps.status"] == end.status


# ---------------------------------------------------------------- whole traces


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_uncrashed_run_is_one_whole_trace(
    collector: Collector, program: Program, protocol: str
) -> None:
    done = program(ORDER, **collector.env(protocol))
    events = log()
    starts = [e for e in events if e.event_type in {"workflow_start", "step_start"}]
    spans = collector.spans(len(starts))

    assert (done.code, done.out, done.err) == (0, RESULT, "")
    assert {span.span_id for span in spans} == {e.span_id for e in starts}
    assert_whole(spans)
    assert_as_the_log_says(spans, events)
    assert sorted(seq for span in spans for seq in seqs(span)) == [e.seq for e in events]


def test_the_content_of_a_trace(collector: Collector, program: Program) -> None:
    program(ORDER, **collector.env())
    events = log()
    spans = collector.spans(1 + 1 + 3 * (1 + 1 + 2) + 3)
    (run,) = [span for span in spans if not span.parent_span_id]
    failed = [span for span in spans if span.status == 2]
    begun = events[0]

    assert run.attributes["tapps.workflow.id"] == "r1"
    assert run.attributes["tapps.seq.last"] == events[-1].seq
    assert run.attributes["tapps.log.sha"] == events[-1].sha
    assert run.attributes["code.function.name"] == "report"
    assert run.resource == begun.resource
    assert run.resource["service.name"] == "program"
    assert {"host.name", "process.pid"} <= run.resource.keys()
    assert run.scope == (begun.otel["scope"]["name"], begun.otel["scope"]["version"])  # type: ignore[index]
    assert {span.name for span in failed} == {"step flaky"}
    assert {span.attributes["error.type"] for span in failed} == {"ValueError"}
    assert {span.message for span in failed} == {"not yet: 0", "not yet: 1", "not yet: 2"}
    assert {span.attributes.get("tapps.agent.name") for span in spans} == {None, "writer"}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_killed_run_resumes_in_its_trace(
    collector: Collector, program: Program, protocol: str
) -> None:
    env = {**collector.env(protocol), "OTEL_BSP_SCHEDULE_DELAY": "1"}
    killed = program(ORDER, "2", **env)
    before = log()
    done = program(ORDER, **env)
    events = log()
    first, second = executions(events).values()
    starts = [e for e in events if e.event_type in STARTS]
    spans = once(collector.spans(len(starts)))
    of_second = [s for s in spans if s.attributes["tapps.execution"] == 2]
    (run,) = [s for s in of_second if s.name.startswith("workflow")]
    ended = {e.step_id for e in before if e.event_type == "step_finish"}
    open_ids = {
        e.span_id for e in before if e.event_type == "step_start" and e.step_id not in ended
    }
    cut_short = {s.span_id for s in spans if s.attributes.get("error.type") == "interrupted"}

    assert killed.code == KILLED
    assert (done.code, done.out, done.err) == (0, RESULT, "")
    assert_whole(spans)
    assert {s.span_id for s in spans} == {e.span_id for e in starts}
    assert (run.span_id, run.parent_span_id) == (second.span_id, first.span_id)
    assert {(trace, at["tapps.link"]) for trace, _, at in run.links} == {
        (first.trace_id, "interrupted")
    }
    assert run.links
    assert {span_id for _, span_id, _ in run.links} <= open_ids
    assert cut_short == {first.span_id, *open_ids}
    assert_as_the_log_says(of_second, events)


def test_spans_of_libraries_are_children_of_the_step(
    collector: Collector, program: Program
) -> None:
    source = """
from opentelemetry import trace
from tapps_otel import step, workflow

@step
def query() -> int:
    with trace.get_tracer("library").start_as_current_span("SELECT"):
        return 1

@workflow
def report() -> int:
    with trace.get_tracer("mine").start_as_current_span("between"):
        return query()

print(report.options(workflow_id="r1")())
"""
    done = program(source, **collector.env())
    spans = {span.name: span for span in collector.spans(4)}
    run, query = spans["workflow report"], spans["step query"]

    assert done.out == "1\n"
    assert spans["SELECT"].parent_span_id == query.span_id
    assert spans["between"].parent_span_id == query.parent_span_id == run.span_id
    assert [(s, at) for _, s, at in query.links] == [
        (spans["between"].span_id, {"tapps.link": "caller"})
    ]


def test_a_forked_childs_run_arrives_too(collector: Collector, program: Program) -> None:
    need("fork")
    source = """
import os, sys, warnings
from tapps_otel import step, workflow
warnings.simplefilter("ignore", DeprecationWarning)

@step
def work() -> int:
    return os.getpid()

@workflow
def report() -> int:
    return work()

report.options(workflow_id="r1")()
child = os.fork()
if child == 0:
    report.options(workflow_id="r2")()
    sys.exit(0)
print(os.getpid(), child, os.waitpid(child, 0)[1])
"""
    done = program(source, **collector.env())
    spans = collector.spans(4)
    parent, child, status = map(int, done.out.split())
    pids = {(s.attributes["tapps.workflow.id"], s.resource["process.pid"]) for s in spans}

    assert (done.code, status, len(spans)) == (0, 0, 4)
    assert pids == {("r1", parent), ("r2", child)}


# ---------------------------------------------------------------- third-party set-up


OWN_PROVIDER = (
    """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
import sys
theirs = TracerProvider(resource=Resource({"service.name": "shop"}))
theirs.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=sys.argv.pop())))
trace.set_tracer_provider(theirs)
"""
    + ORDER
    + "assert trace.get_tracer_provider() is theirs\n"
)


def test_the_programs_own_provider_is_left_alone(
    collector: Collector, program: Program, hole: tuple[str, list[socket.socket]]
) -> None:
    address, came = hole
    done = program(OWN_PROVIDER, f"{collector.http}/v1/traces", OTEL_EXPORTER_OTLP_ENDPOINT=address)
    events = log()
    spans = collector.spans(sum(e.event_type.endswith("_start") for e in events))

    assert (done.code, done.out, done.err) == (0, RESULT, "")
    assert {span.resource["service.name"] for span in spans} == {"shop"}
    assert events[0].resource == {"service.name": "shop"}
    assert_whole(spans)
    assert_as_the_log_says(spans, events)
    assert not came  # what the environment names was not set up beside it


def config(endpoint: str) -> dict[str, str]:
    """A file of the SDK's declarative configuration."""
    Path("otel.yaml").write_text(
        f"""
file_format: "1.0"
resource:
  attributes:
    - name: service.name
      value: declared
tracer_provider:
  processors:
    - batch:
        exporter:
          otlp_http:
            endpoint: {endpoint}/v1/traces
            timeout: {LONG}000
""",
        "utf-8",
    )
    return {"OTEL_CONFIG_FILE": "otel.yaml"}


def test_a_file_of_declarative_configuration_is_followed(
    collector: Collector, program: Program, hole: tuple[str, list[socket.socket]]
) -> None:
    env = config(collector.http)
    done = program(ORDER, **env, OTEL_EXPORTER_OTLP_ENDPOINT=hole[0])  # the file goes before it
    events = log()
    spans = collector.spans(sum(e.event_type.endswith("_start") for e in events))

    assert (done.code, done.out, done.err) == (0, RESULT, "")
    assert {span.resource["service.name"] for span in spans} == {"declared"}
    assert_whole(spans)
    assert_as_the_log_says(spans, events)
    assert not hole[1]


def test_a_malformed_configuration_file_harms_no_run(program: Program) -> None:
    Path("otel.yaml").write_text("tracer_provider: [", "utf-8")
    done = program(ORDER, OTEL_CONFIG_FILE="otel.yaml")

    assert (done.code, done.out) == (0, RESULT)
    assert "OpenTelemetry failed (OTEL_CONFIG_FILE=otel.yaml)" in done.err


@pytest.mark.parametrize(
    ("env", "sampled"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, None),  # no SDK made these ids
        ({"OTEL_TRACES_SAMPLER": "always_off"}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_without_spans_the_log_has_ids_and_resume_works(
    collector: Collector, program: Program, env: dict[str, str], sampled: bool | None
) -> None:
    killed = program(ORDER, "1", **collector.env(), **env)
    done = program(ORDER, **collector.env(), **env)
    events = log()
    first, second = executions(events).values()
    starts = [e for e in events if e.event_type.endswith("_start")]

    assert killed.code == KILLED
    assert (done.code, done.out, done.err) == (0, RESULT, "")
    assert {len(e.trace_id or "") for e in starts} == {32}
    assert {e.trace_id for e in events if e.span_id} == {first.trace_id}
    assert len({e.span_id for e in starts}) == len(starts)
    assert second.parent_span_id == first.span_id
    flags = {(e.otel or {}).get("flags") for e in (first, second)}
    assert {None if flag is None else bool(flag & 1) for flag in flags} == {sampled}
    assert collector.spans(0) == []


# ---------------------------------------------------------------- dead and hanging collectors


def assert_unharmed(done: Ended) -> None:
    """The work is done without waiting for the collector; one warning counts unsent spans."""
    events = log()
    total = sum(e.event_type in {"workflow_start", "step_start"} for e in events)
    said = [line for line in done.err.splitlines() if "not sent" in line]

    assert (done.code, done.out) == (0, RESULT)
    assert events[-1].status == "completed"
    assert len(said) == 1
    assert said[0].startswith(f"{total} of {total} spans were not sent to 127.0.0.1:")
    assert said[0].endswith("the log has them: `tapps-otel send --all` sends them later.")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_dead_collector_harms_no_run(program: Program, protocol: str) -> None:
    with socket.socket() as bound:  # a port that refuses: bound, and not listening
        bound.bind(("127.0.0.1", 0))
        env = {
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{bound.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": LONG,
        }
        done = program(ORDER, **env)

    assert_unharmed(done)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_hanging_collector_harms_no_run(
    program: Program, hole: tuple[str, list[socket.socket]], protocol: str
) -> None:
    address, came = hole
    env = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
        "OTEL_EXPORTER_OTLP_TIMEOUT": LONG,
        "OTEL_BSP_SCHEDULE_DELAY": "1",  # it hangs already while the steps run
    }
    done = program(ORDER, **env)

    assert came
    assert_unharmed(done)


def test_a_hanging_collector_of_a_configuration_file_harms_no_run(
    program: Program, hole: tuple[str, list[socket.socket]]
) -> None:
    done = program(ORDER, **config(hole[0]))

    assert hole[1]
    assert (done.code, done.out) == (0, RESULT)
    assert "spans were not all sent in 2 s; the log has them" in done.err


def test_the_wait_at_exit_is_set_by_the_user(
    program: Program, hole: tuple[str, list[socket.socket]]
) -> None:
    source = "from tapps_otel import configure; configure(shutdown_timeout=0)\n" + ORDER
    done = program(source, OTEL_EXPORTER_OTLP_ENDPOINT=hole[0], OTEL_EXPORTER_OTLP_TIMEOUT=LONG)

    assert_unharmed(done)


def test_the_console_exporter_is_one_too(program: Program, tmp_path: Path) -> None:
    done: Any = program(ORDER, OTEL_TRACES_EXPORTER="console")

    assert done.code == 0
    assert '"name": "workflow report"' in done.out
