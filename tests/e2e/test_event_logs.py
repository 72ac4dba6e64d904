"""Events as log records, as a collector gets them."""

from __future__ import annotations

import socket

import tapps_otel
from otlp_collector import Program, Sink, serving

REPORT = """
import os
from tapps_otel import step, workflow

@step
def write(n: int) -> int:
    return n

@workflow
def report(n: int) -> int:
    return write(n) + write(n + 1)

report.options(workflow_id="r1")(3)
"""
EVENTS = 6


def test_a_programs_events_arrive_before_it_exits(program: Program) -> None:
    with serving(Sink()) as sink:
        endpoint = f"http://127.0.0.1:{sink.server_address[1]}"
        done = program(
            REPORT,
            OTEL_LOGS_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{endpoint}/v1/logs",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            TAPPS_OTEL_LOG_DIR="logs",
        )
        records = list(sink.log_records)
    written = list(tapps_otel.events("r1", log_dir="logs"))

    assert (done.code, done.err) == (0, "")
    assert [(one.event_name, one.span_id.hex(), one.time_unix_nano) for one in records] == [
        (one.event_type, one.span_id, one.time_ns) for one in written
    ]


def test_without_a_collector_the_exit_is_bounded_and_the_audit_log_whole(
    program: Program,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        done = program(
            REPORT,
            OTEL_LOGS_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_TIMEOUT="900",
            TAPPS_OTEL_SHUTDOWN_TIMEOUT="0.5",
            TAPPS_OTEL_LOG_DIR="logs",
        )

    assert done.code == 0
    assert "log records of events were not sent" in done.err
    assert len(list(tapps_otel.events("r1", log_dir="logs"))) == EVENTS
    assert tapps_otel.verify("r1", log_dir="logs").ok
