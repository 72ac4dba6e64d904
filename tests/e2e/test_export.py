"""Exported lines, sent to a real collector over HTTP: what arrives is what the log has."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

import jaeger_server
from capabilities import need
from commands import child
from export_formats import spans_of, trace_of
from otlp_collector import Collector, Program

FLOW = """
import asyncio, os, signal, sys
from tapps_otel import Backoff, annotate, skip, step, workflow

@step(retries=1, backoff=Backoff(0.01, 1, 0.01), agent="writer")
async def write(n: int) -> int:
    annotate("writing", n=n, text="ä \\u2028 \\x1b")
    await asyncio.sleep(0.01)
    if n == 2:
        raise ValueError(f"never: {n}")
    if n == 3 and sys.argv[1:] == ["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return n

@step
def leave() -> None:
    skip("not needed")

@workflow
async def report() -> list[object]:
    leave()
    await write(0)
    done = list(await asyncio.gather(write(1), write(2), return_exceptions=True))
    return [str(one) for one in done] + [await write(3)]

print(asyncio.run(report.options(workflow_id="r1")()))
"""
LOGS = ".tapps-agents/workflow-state/events"


def post(collector: Collector, line: str) -> int:
    request = urllib.request.Request(
        f"{collector.http}/v1/traces", line.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        status: int = answer.status
    return status


def test_a_collector_accepts_the_lines_and_has_the_spans_of_the_log(
    collector: Collector, program: Program
) -> None:
    killed = program(FLOW, "kill")
    done = program(FLOW)
    exported = child("export", "r1", "-f", "otlp-json")
    spans = {f"{f.span.context.span_id:016x}": f.span for f in spans_of("r1", LOGS)}

    assert (killed.code, done.code, exported.code) == (-9, 0, 0)
    assert [post(collector, line) for line in exported.out.splitlines()] == [200]
    arrived = collector.spans(len(spans))
    assert sorted(one.span_id for one in arrived) == sorted(spans)
    for one in arrived:
        (of_resource,) = encode_spans([spans[one.span_id]]).resource_spans
        (of_scope,) = of_resource.scope_spans
        (expected,) = of_scope.spans
        assert one.raw == expected.SerializeToString(deterministic=True)
        assert one.resource == spans[one.span_id].resource.attributes
        assert one.scope == (of_scope.scope.name, of_scope.scope.version)


@pytest.mark.stack
def test_jaegers_upload_reads_the_lines(program: Program, tmp_path: Path) -> None:
    need("stack")
    program(FLOW)
    (line,) = child("export", "r1", "-f", "otlp-json").out.splitlines()
    folder = tmp_path / "jaeger"
    folder.mkdir()
    with jaeger_server.running(folder, "memory") as jaeger:
        request = urllib.request.Request(
            f"{jaeger.query}/api/transform", line.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            (trace,) = json.load(answer)["data"]

    spans = {f"{f.span.context.span_id:016x}": f.span for f in spans_of("r1", LOGS)}
    assert {one["spanID"]: one["operationName"] for one in trace["spans"]} == {
        span_id: span.name for span_id, span in spans.items()
    }
    assert not [one for one in trace["spans"] if one.get("warnings")]


def test_a_killed_and_resumed_run_is_a_trace_of_two_processes(program: Program) -> None:
    program(FLOW, "kill")
    program(FLOW)
    done = child("export", "r1", "-f", "chrome-trace", "-o", "trace.json")
    trace = trace_of(Path("trace.json").read_text("utf-8"))

    assert (done.code, done.out) == (0, "")
    assert [name.split(",")[1] for name in trace.processes.values()] == [
        " execution 1",
        " execution 2",
    ]
    assert len(trace.named("workflow report")) == 2
    assert {one["name"] for one in trace.instants} >= {"writing", "exception"}
