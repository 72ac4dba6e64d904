"""Metrics as a real collector sees them, and no harm without one."""

from __future__ import annotations

import socket

import pytest

from capabilities import need
from otlp_collector import LONG, Collector, Program

REPORT = """
import sys
from tapps_otel import Backoff, step, workflow

tried = []

@step(retries=1, backoff=Backoff(0, 1, 0))
def flaky(n: int) -> int:
    tried.append(n)
    if len(tried) == 1:
        raise ValueError("not yet")
    return n

@workflow
def report(n: int) -> int:
    return flaky(n) + flaky(n + 1)

print(report.options(workflow_id="r1")(3))
"""
RUN = "tapps.run.duration"
ATTEMPTS = "tapps.step.attempts"
APPEND = "tapps.log.append.duration"
SENT = "tapps.send.spans"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_programs_metrics_arrive(collector: Collector, program: Program, protocol: str) -> None:
    env = {**collector.env(protocol), "OTEL_METRICS_EXPORTER": "otlp"}
    done = program(REPORT, **env)
    spans = collector.spans(4)
    found = {metric.name: metric for metric in collector.metrics(RUN, ATTEMPTS, APPEND, SENT)}

    assert (done.code, done.out, done.err) == (0, "7\n", "")
    assert found[ATTEMPTS].value == 3
    assert found[ATTEMPTS].unit == "{attempt}"
    assert found[RUN].attributes == {
        "tapps.workflow.name": "report",
        "tapps.status": "completed",
    }
    assert found[APPEND].value == 8
    assert found[SENT].value == len(spans) + 1  # the marker; the last batch, at the exit, is in it
    assert found[RUN].resource == spans[0].resource


def test_the_endpoint_of_metrics_is_enough(collector: Collector, program: Program) -> None:
    done = program(
        REPORT,
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{collector.http}/v1/metrics",
        OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="http/protobuf",
    )
    found = {metric.name: metric.value for metric in collector.metrics(RUN, ATTEMPTS)}

    assert (done.code, done.out, done.err) == (0, "7\n", "")
    assert (found[RUN], found[ATTEMPTS]) == (1, 3)
    assert collector.spans(0) == []


def test_the_endpoint_of_all_signals_gets_no_metrics(
    collector: Collector, program: Program
) -> None:
    done = program(REPORT, **collector.env())
    collector.spans(4)

    assert done.err == ""
    assert collector.metrics() == []


def test_the_programs_own_meter_provider_is_left_alone(
    collector: Collector, program: Program, hole: tuple[str, list[socket.socket]]
) -> None:
    address, came = hole
    own = """
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
import sys
reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=sys.argv.pop()))
theirs = MeterProvider([reader], resource=Resource({"service.name": "shop"}))
metrics.set_meter_provider(theirs)
"""
    done = program(
        f"{own}{REPORT}assert metrics.get_meter_provider() is theirs\n",
        f"{collector.http}/v1/metrics",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=address,
    )
    found = {metric.name: metric for metric in collector.metrics(RUN, ATTEMPTS)}

    assert (done.code, done.out, done.err) == (0, "7\n", "")
    assert found[ATTEMPTS].value == 3
    assert found[ATTEMPTS].resource["service.name"] == "shop"
    assert not came  # what the environment names was not set up beside it


def test_a_forked_child_reports_its_own_numbers(collector: Collector, program: Program) -> None:
    need("fork")
    source = f"""{REPORT}
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if child == 0:
    report.options(workflow_id="r2")(4)
    sys.exit(0)
print(os.getpid(), child, os.waitpid(child, 0)[1])
"""
    done = program(source, OTEL_METRICS_EXPORTER="otlp", **collector.env("http/protobuf"))
    collector.spans(7)
    parent, child, status = map(int, done.out.splitlines()[-1].split())
    told = {
        metric.resource["process.pid"]: metric.value
        for metric in collector.metrics(RUN, ATTEMPTS)
        if metric.name == ATTEMPTS
    }

    assert (done.code, status, done.err) == (0, 0, "")
    assert told == {parent: 3, child: 2}


# ---------------------------------------------------------------- dead and hanging collectors


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_hanging_collector_of_metrics_delays_the_exit_no_longer_than_allowed(
    program: Program, hole: tuple[str, list[socket.socket]], protocol: str
) -> None:
    address, came = hole
    env = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,  # spans hang, too: together, not one after another
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_TIMEOUT": LONG,
        "OTEL_METRIC_EXPORT_INTERVAL": "1",  # it hangs already while the steps run
    }
    done = program(REPORT, TAPPS_OTEL_SHUTDOWN_TIMEOUT="1", **env)
    said = [line for line in done.err.splitlines() if "not sent" in line]

    assert came
    assert (done.code, done.out) == (0, "7\n")
    assert len(said) == 2
    assert said[1].startswith("the last metrics were not sent to 127.0.0.1:")
    assert "Traceback" not in done.err


def test_hanging_metrics_do_not_keep_spans_from_being_sent(
    collector: Collector, program: Program, hole: tuple[str, list[socket.socket]]
) -> None:
    address, came = hole
    done = program(REPORT, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=address, **collector.env())
    spans = collector.spans(4)

    assert came
    assert (done.code, done.out, len(spans)) == (0, "7\n", 4)
    assert "spans were not sent" not in done.err


def test_a_dead_collector_of_metrics_harms_no_run(program: Program) -> None:
    with socket.socket() as bound:  # a port that refuses: bound, and not listening
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        done = program(REPORT, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=address)

    assert (done.code, done.out) == (0, "7\n")
    assert done.err.count("the last metrics were not sent to 127.0.0.1:") == 1
    assert "Traceback" not in done.err
