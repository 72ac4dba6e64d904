"""A real collector (rotel) on loopback, over gRPC and HTTP, and the spans that it exported.

The collector receives what the program under test sends, and forwards it to a small OTLP server in
the test process, so that a test sees each span as the collector understood it.
"""

from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from capabilities import CAPABILITIES, Capability
from ports import free_ports

PATIENCE = 30  # seconds, at most, for what takes a fraction of one
LONG = "900"  # seconds that an exporter may wait for an answer: longer than any test


# ---------------------------------------------------------------- the program


def agent() -> Path | None:
    """Return the path of the collector's program, which the wheel ``rotel`` contains."""
    spec = find_spec("rotel")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "rotel-agent"


def agent_env() -> dict[str, str]:
    """Return an environment in which it finds libpython: wheels for 3.12 and newer link to it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("ROTEL_")}
    library = sysconfig.get_config_var("LIBDIR")
    known = env.get("LD_LIBRARY_PATH")
    return env | {"LD_LIBRARY_PATH": f"{library}:{known}" if known else str(library)}


def agent_runs() -> bool:
    program = agent()
    if program is None or not program.exists():
        return False
    done = subprocess.run(
        [program, "--help"], env=agent_env(), capture_output=True, timeout=20, check=False
    )
    return done.returncode == 0


CAPABILITIES.setdefault(
    "rotel", Capability(agent_runs, "pip install rotel (it needs glibc 2.34 or newer)")
)


# ---------------------------------------------------------------- what it exported


@dataclass(frozen=True)
class Collected:
    """A span as the collector exported it. ``raw`` are its OTLP bytes."""

    name: str
    trace_id: str
    span_id: str
    parent_span_id: str
    start_ns: int
    end_ns: int
    status: int
    message: str
    attributes: dict[str, Any]
    events: list[tuple[str, int, dict[str, Any]]]
    links: list[tuple[str, str, dict[str, Any]]]
    resource: dict[str, Any]
    scope: tuple[str, str]
    raw: bytes = field(repr=False)


def is_marker(span: Collected) -> bool:
    return "tapps.marker" in span.attributes


def once(spans: Sequence[Collected]) -> list[Collected]:
    """Deduplicate spans: one may be sent again after a kill, but never with other content."""
    by_id: dict[str, Collected] = {}
    for span in spans:
        known = by_id.setdefault(span.span_id, span)
        assert (known.raw, known.resource, known.scope) == (span.raw, span.resource, span.scope)
    return list(by_id.values())


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return mapping(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def mapping(pairs: Any) -> dict[str, Any]:
    def one(pair: KeyValue) -> tuple[str, Any]:
        return pair.key, plain(pair.value)

    return dict(map(one, pairs))


def collected(span: Span, resource: dict[str, Any], scope: tuple[str, str]) -> Collected:
    return Collected(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        status=span.status.code,
        message=span.status.message,
        attributes=mapping(span.attributes),
        events=[(e.name, e.time_unix_nano, mapping(e.attributes)) for e in span.events],
        links=[
            (link.trace_id.hex(), link.span_id.hex(), mapping(link.attributes))
            for link in span.links
        ],
        resource=resource,
        scope=scope,
        raw=span.SerializeToString(deterministic=True),
    )


@dataclass(frozen=True)
class Measured:
    """A data point as the collector exported it: a sum's value or a histogram's count."""

    name: str
    unit: str
    attributes: dict[str, Any]
    value: float
    resource: dict[str, Any]
    scope: str


def measured(metric: Metric, resource: dict[str, Any], scope: str) -> list[Measured]:
    kind = str(metric.WhichOneof("data"))
    return [
        Measured(
            name=metric.name,
            unit=metric.unit,
            attributes=mapping(point.attributes),
            value=point.count if kind == "histogram" else getattr(point, point.WhichOneof("value")),
            resource=resource,
            scope=scope,
        )
        for point in getattr(metric, kind).data_points
    ]


class Sink(ThreadingHTTPServer):
    """Receives OTLP over HTTP from the collector, and keeps it in the order of arrival."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Request)
        self.came = threading.Condition()
        self.spans: list[Collected] = []
        self.bodies: list[bytes] = []  # requests with spans, as received
        self.metrics: list[Measured] = []
        self.log_records: list[LogRecord] = []

    def take_metrics(self, request: ExportMetricsServiceRequest) -> None:
        with self.came:
            for of_resource in request.resource_metrics:
                resource = mapping(of_resource.resource.attributes)
                for of_scope in of_resource.scope_metrics:
                    for metric in of_scope.metrics:
                        self.metrics += measured(metric, resource, of_scope.scope.name)
            self.came.notify_all()

    def take_logs(self, request: ExportLogsServiceRequest) -> None:
        with self.came:
            for of_resource in request.resource_logs:
                for of_scope in of_resource.scope_logs:
                    self.log_records += of_scope.log_records
            self.came.notify_all()

    @property
    def log_bodies(self) -> list[str]:
        return [one.body.string_value for one in self.log_records]

    def take(self, request: ExportTraceServiceRequest) -> None:
        with self.came:
            for of_resource in request.resource_spans:
                resource = mapping(of_resource.resource.attributes)
                for of_scope in of_resource.scope_spans:
                    scope = of_scope.scope.name, of_scope.scope.version
                    self.spans += [collected(one, resource, scope) for one in of_scope.spans]
            self.came.notify_all()


class Request(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path.endswith("/v1/metrics"):
            self.server.take_metrics(ExportMetricsServiceRequest.FromString(body))
        elif self.path.endswith("/v1/logs"):
            self.server.take_logs(ExportLogsServiceRequest.FromString(body))
        else:
            self.server.bodies.append(body)
            self.server.take(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(sink: Sink) -> Iterator[Sink]:
    """Let it accept requests in a thread of its own."""
    thread = threading.Thread(target=sink.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield sink
    finally:
        sink.shutdown()
        sink.server_close()
        thread.join()


# ---------------------------------------------------------------- the collector


@dataclass
class Collector:
    """A running collector.

    :ivar grpc: its address for programs that speak gRPC
    :ivar http: its address for programs that speak HTTP
    """

    grpc: str
    http: str
    sink: Sink
    output: Path

    def env(self, protocol: str = "grpc") -> dict[str, str]:
        """Return the standard variables that make a program export to it."""
        return {
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.grpc if protocol == "grpc" else self.http,
        }

    def spans(self, number: int) -> list[Collected]:
        """Wait for this number of spans, not counting markers, and return them.

        When a program has ended, all its spans have been sent: one too many is seen as well.
        """
        return [span for span in self._came(number, markers=False) if not is_marker(span)]

    def markers(self, number: int) -> list[Collected]:
        """Wait for this number of markers (spans that only report a start), and return them."""
        return [span for span in self._came(number, markers=True) if is_marker(span)]

    def _came(self, number: int, *, markers: bool) -> list[Collected]:
        def enough() -> bool:
            return sum(is_marker(span) is markers for span in self.sink.spans) >= number

        with self.sink.came:
            if not self.sink.came.wait_for(enough, PATIENCE):
                pytest.fail(
                    f"fewer than {number} spans arrived: "
                    f"{[span.name for span in self.sink.spans]}\n{self.output.read_text()}"
                )
        self._settle()
        return [span for span in self.sink.spans if span.scope[0] != "settle"]

    def metrics(self, *names: str) -> list[Measured]:
        """Wait until all of these metrics have arrived, and return those of this package."""
        with self.sink.came:
            if not self.sink.came.wait_for(
                lambda: {metric.name for metric in self.sink.metrics} >= set(names), PATIENCE
            ):
                pytest.fail(
                    f"these metrics arrived: {self.sink.metrics}\n{self.output.read_text()}"
                )
            return [metric for metric in self.sink.metrics if metric.scope == "tapps_otel"]

    def _settle(self) -> None:
        """Send one more span and wait for it: everything sent before has then arrived, too."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor

        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(
            SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{self.http}/v1/traces"))
        )
        span = provider.get_tracer("settle").start_span("settle")
        span.end()
        wanted = f"{span.get_span_context().span_id:016x}"
        with self.sink.came:
            assert self.sink.came.wait_for(
                lambda: any(one.span_id == wanted for one in self.sink.spans), PATIENCE
            )
        provider.shutdown()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_agent(folder: Path, sink: Sink) -> tuple[subprocess.Popen[bytes], Collector]:
    """Start it and wait until it listens, on other ports if another program took one."""
    output = folder / "output"
    for _ in range(5):
        grpc, http = free_ports(2)
        with output.open("wb") as out:
            process = subprocess.Popen(
                [
                    str(agent()), "start", "--exporter", "otlp", "--disable-batching",
                    "--otlp-exporter-endpoint", f"http://127.0.0.1:{sink.server_port}",
                    "--otlp-exporter-protocol", "http",
                    "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}",
                    "--otlp-http-endpoint", f"127.0.0.1:{http}",
                    "--pid-file", str(folder / "pid"), "--log-file", str(folder / "log"),
                    "--debug-log", "traces",
                ],
                env=agent_env(),
                stdout=out,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        if listens(process, grpc, http):
            return process, Collector(
                f"http://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}", sink, output
            )
        process.kill()
        process.wait()
    pytest.fail(f"the collector does not start:\n{output.read_text()}")


def listens(process: subprocess.Popen[bytes], *ports: int) -> bool:
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        if all(answers(port) for port in ports):
            return True
        time.sleep(0.01)
    return False


# ---------------------------------------------------------------- programs


@dataclass
class Ended:
    """How a program ended: its exit code, and its output."""

    code: int
    out: str
    err: str


Program = Callable[..., Ended]
KILLED = -signal.SIGKILL
