"""``send``: its words and its exit codes, whatever the collector answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from commands import LOGS, Cli, Done
from tapps_otel import configure, step, workflow

PARTIAL = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(rejected_spans=1, error_message="\x1b[2Jtoo old")
).SerializeToString()


class Handler(BaseHTTPRequestHandler):
    code, body = 200, b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.code)
        self.send_header("Content-Type", "application/x-protobuf" if self.code == 200 else "text")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


Answering = Callable[..., str]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """A collector that gives this answer to all: its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    def answer(code: int = 200, body: bytes = b"") -> str:
        monkeypatch.setattr(Handler, "code", code)
        monkeypatch.setattr(Handler, "body", body)
        return f"http://127.0.0.1:{server.server_port}"

    yield answer
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def to(cli: Cli) -> To:
    """Send to this address, by HTTP."""
    return lambda *arguments, endpoint: cli(
        "send", *arguments, "--endpoint", endpoint, "--protocol", "http/protobuf"
    )


To = Callable[..., Done]


@step
def work(n: int) -> int:
    return n


@workflow
def steps(count: int) -> int:
    return sum(work(n) for n in range(count))


@pytest.fixture(autouse=True)
def _runs() -> None:
    configure(durability="os")
    steps.options(workflow_id="a")(2)
    steps.options(workflow_id="b")(1)


def test_sent_spans_are_counted(to: To, answering: Answering) -> None:
    first, again = to("a", endpoint=answering()), to("a", endpoint=answering())

    assert (first.code, again.code) == (0, 0)
    assert first.out.startswith("sent    a  3 spans sent, to http://127.0.0.1:")
    assert again.out.startswith("sent    a  nothing new, 3 spans acknowledged before, to http://")


def test_each_run_is_a_line(to: To, answering: Answering) -> None:
    done = to("--all", endpoint=answering())
    since = to("--since", "1h", "--force", "--json", endpoint=answering())

    assert done.code == since.code == 0
    assert sorted(line.split()[1] for line in done.out.splitlines()) == ["a", "b"]
    assert {one["workflow_id"]: one["sent"] for one in json.loads(since.out)} == {"a": 3, "b": 2}


def test_refused_spans_are_reported_and_safe_to_show(to: To, answering: Answering) -> None:
    done = to("a", endpoint=answering(body=PARTIAL))

    assert done.code == 7
    assert "1 of 3 spans were rejected by the collector: " in done.out
    assert "\x1b" not in done.out + done.err


@pytest.mark.parametrize("code", [400, 401, 404, 500])
def test_a_refusal_ends_the_command_with_its_reason(
    to: To, answering: Answering, code: int
) -> None:
    done = to("--all", endpoint=answering(code, b"\x1b[31mno"))

    assert (done.code, done.out) == (7, "")
    assert f"it answered {code}" in done.err
    assert "\x1b" not in done.err
    assert not list(LOGS.glob("*.ledger"))


def test_an_absent_collector_is_reported(to: To, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        done = to("a", endpoint=f"http://127.0.0.1:{bound.getsockname()[1]}")

    assert done.code == 7
    assert "Connection refused" in done.err


def test_everything_before_the_damage_is_sent_and_the_damage_reported(
    to: To, answering: Answering
) -> None:
    path = LOGS / "a.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], lines[4].replace(b"work", b"WORK", 1), *lines[5:]]))
    done = to("a", endpoint=answering())
    every = to("--all", "--json", endpoint=answering())

    assert done.code == 6
    assert "a.jsonl" in done.err
    assert done.out.startswith("sent    a  1 span sent")
    assert every.code == 1
    assert {one["workflow_id"]: one["ok"] for one in json.loads(every.out)} == {
        "a": False,
        "b": True,
    }


def test_usage_and_unknown_runs(cli: Cli, to: To, answering: Answering) -> None:
    assert cli("send").code == 2
    assert cli("send", "a", "--all").code == 2
    assert cli("send", "a", "--protocol", "carrier-pigeon").code == 2
    assert "no collector is configured" in cli("send", "a").err
    assert to("../a", endpoint=answering()).code == 2
    assert to("nope", endpoint=answering()).code == 3


@pytest.mark.parametrize("value", ["1500", "1500.0"])
def test_a_time_out_in_milliseconds_is_recognized(
    to: To,
    answering: Answering,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As other languages have it: in seconds it would end after this test has."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", value)
    done = to("--all", endpoint=answering(503, b"come back later"))

    assert done.code == 7
    assert f"OTEL_EXPORTER_OTLP_TIMEOUT={value} is read as milliseconds" in caplog.text
    assert "cannot send spans to http://127.0.0.1:" in done.err
    assert "it answered 503" in done.err


@pytest.mark.slow
def test_it_tells_why_it_waits(
    to: To, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2.5")
    done = to("--all", "--json", endpoint=answering(503, b"\x1b[2Jlater"))
    told = [line for line in done.err.splitlines() if "waiting for the collector" in line]

    assert len(told) == 1  # however often it is asked
    assert " s: it answered 503" in told[0]
    assert "\x1b" not in done.err
