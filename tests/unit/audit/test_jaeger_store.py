"""Addresses that give no answer, or one that is no Jaeger's. A real Jaeger is asked in e2e."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from commands import LOGS, Cli
from crashes import go
from logs import start, write
from tapps_otel import step, verify, workflow
from tapps_otel.audit import jaeger_store
from tapps_otel.errors import SpansError


@step
def work() -> int:
    return 1


@workflow
def small() -> int:
    return work()


class Answering(BaseHTTPRequestHandler):
    """Gives one answer to everybody."""

    code: ClassVar[int] = 200
    headers_to_send: ClassVar[dict[str, str]] = {}
    body: ClassVar[bytes] = b""
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.code)
        for name, value in self.headers_to_send.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[tuple[str, type[Answering]]]:
    """A server of this test's own, and what it answers."""

    class Own(Answering):
        asked: ClassVar[list[str]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Own
    server.shutdown()
    server.server_close()
    thread.join()


def refusal(address: str) -> str:
    go(small)
    with pytest.raises(SpansError) as caught:
        verify("r", against=address)
    return str(caught.value)


HINT = "Give the address of a Jaeger, with its path prefix if it has one"


@pytest.mark.parametrize(
    ("code", "headers", "body", "said"),
    [
        (
            200,
            {"Content-Type": "text/html; charset=utf-8"},
            b"<html>",
            "200 with a web page. " + HINT,
        ),
        (502, {"Content-Type": "text/html"}, b"<html>", "it answered 502 with a web page. " + HINT),
        (404, {}, b"404 page not found\n", "404: 404 page not found. " + HINT),
        (
            302,
            {"Location": "https://login.example"},
            b"",
            "302, see https://login.example. " + HINT,
        ),
        (500, {}, b'{"error": "boom"}', 'it answered 500: {"error": "boom"}. ' + HINT),
        (401, {}, b"", "it answered 401: "),
        (200, {"Content-Type": "application/json"}, b'{"data": []}', "has no `resourceSpans`"),
        (200, {}, b"\xff\xfe", "line 1 is not OTLP JSON"),
    ],
)
def test_an_answer_of_another_server_is_an_error(
    answering: tuple[str, type[Answering]],
    code: int,
    headers: dict[str, str],
    body: bytes,
    said: str,
) -> None:
    address, answer = answering
    answer.code, answer.headers_to_send, answer.body = code, headers, body
    text = refusal(address)

    assert text.startswith(f"cannot read spans from {address}: ")
    assert said in text


def test_all_spans_of_an_unknown_trace_are_missing(
    answering: tuple[str, type[Answering]],
) -> None:
    address, answer = answering
    answer.code, answer.body = 404, b'{"error":{"httpCode":404,"message":"No traces found"}}'
    go(small)
    (problem,) = verify("r", against=f"{address}/jaeger/").problems
    (asked,) = answer.asked

    assert problem.startswith("2 spans are not there, of 2: ")
    assert asked.startswith("/jaeger/api/v3/traces/")


def test_a_response_that_is_too_long_is_refused(
    answering: tuple[str, type[Answering]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaeger_store, "_MOST_BYTES", 1 << 20)
    address, answer = answering
    answer.body = b" " * ((1 << 20) + 1)

    assert refusal(address).endswith("its response has more than 1 MiB")


def test_a_hanging_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaeger_store, "_READ_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:  # it never accepts
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"

        assert refusal(address) == f"cannot read spans from {address}: it does not answer in time"


def test_no_server_is_a_plain_error(cli: Cli) -> None:
    go(small)
    with socket.socket() as bound:  # bound and not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        done = cli("verify", "r", "--against", address)

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: cannot read spans from {address}: Failed to establish")
    assert "Connection" in done.err


@pytest.mark.parametrize("address", ["http://", "http://a:b:c", "http://[::1", "HTTP://x:99999999"])
def test_an_invalid_address_is_an_error(address: str) -> None:
    assert "cannot read spans from " in refusal(address)


def test_a_password_is_not_shown() -> None:
    text = refusal("http://me:secret@127.0.0.1:1/x")

    assert "secret" not in text
    assert text.startswith("cannot read spans from http://127.0.0.1:1/x: ")


def test_a_logs_trace_id_cannot_change_the_address(
    answering: tuple[str, type[Answering]],
) -> None:
    address, answer = answering
    LOGS.mkdir(parents=True)
    write(LOGS / "r.jsonl", [start("r", trace_id="../../etc?x=", span_id="1" * 16)])
    report = verify("r", against=address)

    assert answer.asked == []
    assert report.against is not None
    assert report.against.spans == 0
