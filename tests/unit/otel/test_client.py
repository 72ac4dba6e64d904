"""Requests to a collector: every answer is checked, and retried or refused."""

from __future__ import annotations

import gzip
import socket
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from tapps_otel.errors import SendError, SettingsError
from tapps_otel.otel.transport.client import Answer, Client, connect
from tapps_otel.otel.transport.destination import GRPC, HTTP, Destination

REQUEST = b"\x0a\x00"  # one empty ResourceSpans
PARTIAL = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(rejected_spans=3, error_message="too old")
).SerializeToString()
PROTOBUF = {"Content-Type": "application/x-protobuf"}
Reply = tuple[int, dict[str, str], bytes]
OK: Reply = (200, PROTOBUF, b"")


# ---------------------------------------------------------------- HTTP


class Server(ThreadingHTTPServer):
    """Answers each request with the next of its replies, the last one repeatedly."""

    daemon_threads = True

    def __init__(self, replies: Sequence[Reply]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = list(replies)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def destination(self) -> Destination:
        return Destination(HTTP, f"http://127.0.0.1:{self.server_port}/v1/traces")


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        replies = self.server.replies
        code, headers, answer = replies.pop(0) if len(replies) > 1 else replies[0]
        self.send_response(code)
        for name, value in {"Content-Length": str(len(answer)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    started: list[tuple[Server, threading.Thread]] = []

    def start(*replies: Reply) -> Server:
        server = Server(replies)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def client() -> Iterator[Callable[[Destination], Client]]:
    made: list[Client] = []

    def make(destination: Destination) -> Client:
        made.append(connect(destination))
        return made[-1]

    yield make
    for one in made:
        one.close()


Make = Callable[[Destination], Client]


def test_an_accepted_request_has_an_empty_answer(serve: Serve, client: Make) -> None:
    server = serve(OK)
    to = replace(server.destination, headers=(("Authorization", "Bearer x"),))

    assert client(to).send(REQUEST) == Answer(0, "")
    ((path, headers, body),) = server.requests
    assert (path, body) == ("/v1/traces", REQUEST)
    assert headers["Content-Type"] == "application/x-protobuf"
    assert headers["Authorization"] == "Bearer x"


@pytest.mark.parametrize(("how", "back"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_a_body_is_compressed_as_configured(
    serve: Serve, client: Make, how: str, back: Callable[[bytes], bytes]
) -> None:
    server = serve(OK)
    client(replace(server.destination, compression=how)).send(REQUEST)
    ((_, headers, body),) = server.requests

    assert headers["Content-Encoding"] == how
    assert back(body) == REQUEST


def test_a_partial_success_is_reported(serve: Serve, client: Make) -> None:
    assert client(serve((200, PROTOBUF, PARTIAL)).destination).send(REQUEST) == (3, "too old")


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_retryable_answers_are_retried(serve: Serve, client: Make, code: int) -> None:
    server = serve((code, {"Retry-After": "0"}, b"busy"), OK)

    assert client(server.destination).send(REQUEST) == Answer()
    assert [body for _, _, body in server.requests] == [REQUEST] * 2


@pytest.mark.parametrize("wait", ["0", "-5", "nan", "1e-300", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_collector_cannot_ask_for_a_flood_of_requests(
    serve: Serve, client: Make, wait: str
) -> None:
    server = serve((503, {"Retry-After": wait}, b""))

    with pytest.raises(SendError, match="it answered 503"):
        client(server.destination).send(REQUEST, patience=1)
    assert len(server.requests) <= 2


def test_retries_end_with_the_patience(serve: Serve, client: Make) -> None:
    server = serve((503, {"Retry-After": "60", "Content-Type": "text/plain"}, b"come back later"))

    with pytest.raises(SendError, match="it answered 503: come back later"):
        client(server.destination).send(REQUEST, patience=1)
    assert len(server.requests) == 1  # it asks for more than there is


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((400, {}, b"bad span"), "it answered 400: bad span"),
        ((400, PROTOBUF, Status(message="bad span").SerializeToString()), "400: bad span"),
        ((401, {}, b""), "401; are the credentials in OTEL_EXPORTER_OTLP_HEADERS?"),
        ((403, {}, b""), "403; are the credentials"),
        ((404, {"Content-Type": "text/html"}, b"<h1>no</h1>"), "404; is this the path of an OTLP"),
        ((413, {}, b""), "it answered 413"),
        ((301, {"Location": "http://127.0.0.1:1/"}, b""), "it answered 301"),
        ((500, {}, b"\x00\xff\x1b[2J"), "it answered 500"),
        (
            (200, {"Content-Type": "text/html"}, b"<html>"),
            "a web page: this is not an OTLP receiver",
        ),
        ((200, PROTOBUF, b"\xff\xff\xff"), "its answer is not OTLP"),
    ],
)
def test_refusals_are_not_retried(serve: Serve, client: Make, reply: Reply, said: str) -> None:
    server = serve(reply)

    with pytest.raises(SendError) as caught:
        client(server.destination).send(REQUEST)
    assert said in str(caught.value)
    assert caught.value.destination == server.destination.endpoint
    assert len(server.requests) == 1


def test_an_endless_answer_is_not_read_to_its_end(serve: Serve, client: Make) -> None:
    server = serve((400, {"Content-Type": "text/plain"}, b"x" * 10_000_000))

    with pytest.raises(SendError) as caught:
        client(server.destination).send(REQUEST)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", ["secret \u20ac", "secret\nof two lines"])
def test_a_header_that_cannot_be_sent_is_reported_without_its_value(
    serve: Serve, client: Make, value: str
) -> None:
    server = serve(OK)
    with pytest.raises(SendError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        client(replace(server.destination, headers=(("x", value),))).send(REQUEST)

    assert "secret" not in str(caught.value)
    assert server.requests == []


# ---------------------------------------------------------------- gRPC


class Trouble(grpc.RpcMethodHandler):  # type: ignore[misc]
    """Answers with a status, or with a response."""

    def __init__(self, answers: list[Any]) -> None:
        self.request_streaming = self.response_streaming = False
        self.request_deserializer = self.response_serializer = None
        self.stream_unary = self.unary_stream = self.stream_stream = None
        self.unary_unary = self._answer
        self.answers = answers
        self.requests: list[tuple[bytes, dict[str, str]]] = []

    def _answer(self, request: bytes, context: Any) -> bytes:
        self.requests.append((request, dict(context.invocation_metadata())))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, bytes):
            return answer
        code, text, trailing = answer
        context.set_trailing_metadata(trailing)
        context.abort(code, text)
        raise AssertionError


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handler: Trouble) -> None:
        self.handler = handler

    def service(self, details: Any) -> Any:
        ours = details.method.endswith("TraceService/Export")
        return self.handler if ours else None


@pytest.fixture
def grpc_server() -> Iterator[Callable[..., tuple[Destination, Trouble]]]:
    servers = []

    def start(*answers: Any) -> tuple[Destination, Trouble]:
        handler = Trouble(list(answers))
        server = grpc.server(ThreadPoolExecutor(2), handlers=[Service(handler)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return Destination(GRPC, f"127.0.0.1:{port}"), handler

    yield start
    for server in servers:
        server.stop(None).wait()


Grpc = Callable[..., tuple[Destination, Trouble]]


def status(code: grpc.StatusCode, text: str = "", wait: int | None = None) -> Any:
    trailing = ()
    if wait is not None:
        info = Status()
        info.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=wait)))
        trailing = (("grpc-status-details-bin", info.SerializeToString()),)  # type: ignore[assignment]
    return code, text, trailing


def test_grpc_sends_its_headers_and_reads_partial_success(grpc_server: Grpc, client: Make) -> None:
    to, handler = grpc_server(PARTIAL)

    assert client(replace(to, headers=(("Api-Key", "k"),))).send(REQUEST) == (3, "too old")
    ((request, metadata),) = handler.requests
    assert (request, metadata["api-key"]) == (REQUEST, "k")


@pytest.mark.parametrize(
    "busy",
    [
        status(grpc.StatusCode.UNAVAILABLE, wait=0),
        status(grpc.StatusCode.ABORTED, wait=0),
        status(grpc.StatusCode.RESOURCE_EXHAUSTED, wait=0),
    ],
)
def test_grpc_retries_retryable_codes(grpc_server: Grpc, client: Make, busy: Any) -> None:
    to, handler = grpc_server(busy, b"")

    assert client(to).send(REQUEST) == Answer()
    assert len(handler.requests) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(grpc.StatusCode.INVALID_ARGUMENT, "bad span"), "INVALID_ARGUMENT: bad span"),
        (status(grpc.StatusCode.UNAUTHENTICATED, "who?"), "UNAUTHENTICATED: who?"),
        (status(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large"), "RESOURCE_EXHAUSTED"),
        (status(grpc.StatusCode.UNIMPLEMENTED), "is this an OTLP receiver for traces?"),
    ],
)
def test_grpc_does_not_retry_refusals(
    grpc_server: Grpc, client: Make, answer: Any, said: str
) -> None:
    to, handler = grpc_server(answer)

    with pytest.raises(SendError) as caught:
        client(to).send(REQUEST)
    assert said in str(caught.value)
    assert len(handler.requests) == 1


# ---------------------------------------------------------------- no answer


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def to_port(protocol: str, port: int) -> Destination:
    address = f"127.0.0.1:{port}"
    return Destination(protocol, address if protocol == GRPC else f"http://{address}/v1/traces")


@pytest.mark.parametrize("protocol", [GRPC, HTTP])
def test_a_hanging_collector_is_given_up(client: Make, silent: int, protocol: str) -> None:
    with pytest.raises(SendError, match=r"it does not answer in time|UNAVAILABLE"):
        client(to_port(protocol, silent)).send(REQUEST, patience=0.3)


@pytest.mark.parametrize("protocol", [GRPC, HTTP])
def test_a_refused_connection_is_reported(client: Make, protocol: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        to = to_port(protocol, bound.getsockname()[1])
        with pytest.raises(SendError, match=r"[Cc]onnection refused"):
            client(to).send(REQUEST, patience=0.3)


@pytest.mark.parametrize("protocol", [GRPC, HTTP])
def test_giving_up_ends_the_retries(client: Make, protocol: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        made = client(to_port(protocol, bound.getsockname()[1]))
        made.give_up()
        with pytest.raises(SendError):
            made.send(REQUEST, patience=3600)


@pytest.mark.parametrize("protocol", [GRPC, HTTP])
def test_a_missing_certificate_is_reported(tmp_path: Path, protocol: str) -> None:
    to = replace(to_port(protocol, 1), certificate=str(tmp_path / "ca.pem"), secure=True)

    with pytest.raises(SettingsError, match=r"ca\.pem: cannot read the certificate or key"):
        connect(to)


def test_a_port_of_the_other_protocol_is_recognized(
    serve: Serve, grpc_server: Grpc, client: Make
) -> None:
    port = serve(OK).server_port
    by_grpc = replace(grpc_server(b"")[0], endpoint=f"127.0.0.1:{port}")
    by_http = Destination(HTTP, f"http://{grpc_server(b'')[0].endpoint}/v1/traces")

    with pytest.raises(SendError, match=r"port of OTLP/HTTP \(4318\)\? Set .* to http/protobuf"):
        client(by_grpc).send(REQUEST, patience=0.3)
    with pytest.raises(SendError, match=r"port of OTLP/gRPC \(4317\)\? Set .* to grpc"):
        client(by_http).send(REQUEST, patience=0.3)


def test_a_server_that_closes_the_connection_may_speak_grpc(client: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def close_each() -> None:
            with suppress(OSError):  # closed by the test
                while True:
                    server.accept()[0].close()

        thread = threading.Thread(target=close_each)
        thread.start()
        with pytest.raises(SendError, match=r"port of OTLP/gRPC \(4317\)"):
            client(to_port(HTTP, server.getsockname()[1])).send(REQUEST, patience=0.3)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
