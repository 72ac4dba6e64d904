"""A run's log against what a real collector passed on, and against a real Jaeger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from capabilities import need
from commands import LOGS, Done, child
from jaeger_server import STORAGES, Jaeger, running
from otlp_collector import KILLED, Collector, Program
from otlp_files import as_json, keep
from tapps_otel import send, verify

FLOW = """
import os, signal, sys
from opentelemetry import trace
from tapps_otel import annotate, step, workflow

@step(agent="writer")
def work(n: int) -> int:
    annotate("half", share=n / 2, marks=[1, 2], big=9007199254740993, words=["ä", "[1]"])
    trace.get_current_span().set_attribute("mine", [True, False])
    with trace.get_tracer("library").start_as_current_span("SELECT"):
        pass
    if len(sys.argv) > 1 and n == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return n

@step
def fail() -> None:
    raise ValueError("no")

@workflow
def report() -> int:
    try:
        fail()
    except ValueError:
        pass
    return work(1) + work(2)

print(report.options(workflow_id="r")())
"""
LOG = LOGS / "r.jsonl"


def cut(lines: int) -> None:
    """Remove whole lines from the log's end."""
    LOG.write_bytes(b"".join(LOG.read_bytes().splitlines(keepends=True)[:-lines]))


# ---------------------------------------------------------------- a collector and a file


def kept_of(collector: Collector, number: int) -> Path:
    """What came out of the collector, as a file exporter writes it."""
    collector.spans(number)
    requests = (ExportTraceServiceRequest.FromString(one) for one in collector.sink.bodies)
    return keep(Path("spans.jsonl"), map(as_json, requests))


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_run_agrees_with_what_a_collector_accepted(
    collector: Collector, program: Program, protocol: str
) -> None:
    done = program(FLOW, **collector.env(protocol))
    against = kept_of(collector, 4 + 2)  # its spans, the library's
    report = verify("r", against=against)

    assert done.out == "3\n"
    assert report.problems == ()
    assert report.against is not None
    assert (report.against.spans, report.against.equal) == (4, 4)
    cut(1)
    found = verify("r", against=against).problems
    assert any("the log's end was cut off" in one for one in found)


def test_a_killed_run_agrees_with_what_was_sent_of_it(
    collector: Collector, program: Program
) -> None:
    killed = program(FLOW, "2", **collector.env(), OTEL_BSP_SCHEDULE_DELAY="1")
    sent = send("r", endpoint=collector.grpc)
    first = verify("r", against=kept_of(collector, sent.sent + sent.confirmed))
    done = program(FLOW, **collector.env())
    second = verify("r", against=kept_of(collector, 4 + 2))

    assert (killed.code, done.code) == (KILLED, 0)
    assert first.problems == second.problems == ()
    assert first.against is not None
    assert second.against is not None
    assert (first.against.equal, second.against.equal) == (4, 6)
    assert [head.execution for head in second.against.heads] == [1, 2]


def test_what_a_sampler_left_out_is_not_missing(collector: Collector, program: Program) -> None:
    program(FLOW, **collector.env(), OTEL_TRACES_SAMPLER="always_off")
    report = verify("r", against=kept_of(collector, 0))

    assert report.ok
    assert "4 spans are not there, as a sampler dropped them" in report.notes


# ---------------------------------------------------------------- Jaeger


@pytest.fixture(params=STORAGES)
def jaeger(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Jaeger]:
    need("stack")
    with running(tmp_path_factory.mktemp("jaeger"), request.param) as made:
        yield made


@pytest.mark.stack
def test_a_run_agrees_with_a_real_jaeger_and_a_cut_log_does_not(
    jaeger: Jaeger, program: Program
) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp, "OTEL_BSP_SCHEDULE_DELAY": "1"}
    killed = program(FLOW, "2", **env)
    done = program(FLOW, **env)
    send("r", endpoint=jaeger.otlp)
    whole = verify("r", against=jaeger.query)
    whole_log = LOG.read_bytes()
    cut(1)
    less = verify("r", against=jaeger.query)
    said = child("verify", "r", "--against", f"{jaeger.query}/")

    assert (killed.code, done.code) == (KILLED, 0)
    assert whole.problems == ()
    assert whole.against is not None
    assert (whole.against.spans, whole.against.equal) == (6, 6)
    assert len(whole.against.heads) == 2
    assert any("the log's end was cut off" in one for one in less.problems)
    assert (said.code, said.err) == (1, "")
    LOG.write_bytes(whole_log)
    assert verify("r", against=jaeger.query).ok


@pytest.mark.stack
def test_what_is_not_in_jaeger_is_missing_and_sent_later(jaeger: Jaeger, program: Program) -> None:
    program(FLOW)
    unknown = verify("r", against=jaeger.query)
    send("r", endpoint=jaeger.otlp)

    assert unknown.problems[0].startswith("4 spans are not there, of 4: step fail (span ")
    assert verify("r", against=jaeger.query).ok


@pytest.mark.stack
def test_an_address_without_the_prefix_is_not_a_jaeger(jaeger: Jaeger, program: Program) -> None:
    program(FLOW)
    address = jaeger.query.removesuffix("/traces")
    done: Done = child("verify", "r", "--against", address)

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: cannot read spans from {address}: it answered ")
    assert "with its path prefix if it has one" in done.err
