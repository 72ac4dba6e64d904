"""Collectors in the test's process that refuse requests with certain spans, over gRPC and HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Choosy", "choosy"]

Poison = Callable[[Any], bool]
_TOO_LARGE = {"grpc": grpc.StatusCode.RESOURCE_EXHAUSTED, "http/protobuf": 413}


class Choosy:
    """What a collector was sent, and what it accepts.

    :ivar endpoint: its address
    :ivar protocol: that it speaks
    :ivar poison: which spans it refuses; ``None`` for every request, even one without spans
    :ivar accepted: names of the spans that it accepted
    :ivar ids: their ids
    :ivar bodies: all that it was sent
    :ivar requests: how many requests it was sent
    :ivar paths: those of its address that requests went to, by HTTP
    """

    def __init__(self, protocol: str, poison: Poison | None, status: Any) -> None:
        self.protocol, self.poison, self.status = protocol, poison, status or _TOO_LARGE[protocol]
        size = "" if status else "message larger than max: "  # by gRPC the status tells less
        self.reason = f"{size}no, not that one"
        self.endpoint = ""
        self.paths: set[str] = set()
        self.accepted: list[str] = []
        self.ids: list[str] = []
        self.bodies = b""
        self.requests = 0
        self._lock = threading.Lock()

    def take(self, body: bytes) -> bool:
        """Accept a request, or refuse it."""
        spans = [
            span
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
        with self._lock:
            self.requests += 1
            self.bodies += body
            if self.poison is None or any(map(self.poison, spans)):
                return False
            self.accepted += [span.name for span in spans]
            self.ids += [span.span_id.hex() for span in spans]
            return True

    @property
    def env(self) -> dict[str, str]:
        """The standard variables that make a program send to it."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
        }


@contextmanager
def choosy(protocol: str, poison: Poison | None, status: Any = None) -> Iterator[Choosy]:
    """Run a collector that refuses requests with such a span.

    :param status: with which it refuses; by default, that of a request that is too large
    """
    made = Choosy(protocol, poison, status)
    if protocol == "grpc":
        with _over_grpc(made):
            yield made
    else:
        with _over_http(made):
            yield made


@contextmanager
def _over_grpc(collector: Choosy) -> Iterator[None]:
    def export(body: bytes, context: Any) -> bytes:
        if not collector.take(body):
            context.abort(collector.status, collector.reason)
        return b""

    handler = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService",
        {"Export": grpc.unary_unary_rpc_method_handler(export)},
    )
    options = [("grpc.max_receive_message_length", 64 << 20)]
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler], options=options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    collector.endpoint = f"http://127.0.0.1:{port}"
    try:
        yield
    finally:
        server.stop(None).wait()


@contextmanager
def _over_http(collector: Choosy) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken = collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            collector.paths.add(self.path)
            body = b"" if taken else collector.reason.encode()
            self.send_response(200 if taken else collector.status)
            self.send_header("Content-Type", "application/x-protobuf" if taken else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    collector.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
