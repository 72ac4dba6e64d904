"""HTTP requests have the credentials that were configured for them, whatever is in ~/.netrc."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from commands import child
from tapps_otel import configure, step, workflow

FLOW = """
from tapps_otel import step, workflow

@step
def work() -> None: ...

@workflow
def flow() -> None:
    work()
"""


class Server(ThreadingHTTPServer):
    """Keeps the credentials of each request, by its path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.came: list[tuple[str, str | None]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self, body: bytes) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.came.append((self.path, self.headers["Authorization"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b'{"data":[]}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def netrc(tmp_path: Path) -> dict[str, str]:
    """The variable that names a netrc file with credentials for every host."""
    path = tmp_path / "netrc"
    path.write_text("default login stranger password Xk9canary7\n", "utf-8")
    path.chmod(0o600)
    return {"NETRC": str(path)}


@pytest.fixture
def run() -> str:
    """The id of a run that was sent nowhere, and the file of its workflow."""
    Path("flow.py").write_text(FLOW, "utf-8")

    @step
    def work() -> None: ...

    @workflow
    def flow() -> None:
        work()

    configure(durability="os")
    flow.options(workflow_id="r")()
    return "r"


def variables(server: Server, address: str = "", **more: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}127.0.0.1:{server.server_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        **more,
    }


HEADER = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20mine"}
BASIC = f"Basic {base64.b64encode(b'me:secret').decode()}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        (("", HEADER), "Bearer mine"),
        (("me:secret@", HEADER), "Bearer mine"),
        (("me:secret@", {}), BASIC),
        (("", {}), None),
    ],
    ids=["a header", "a header, and the address", "the address", "nothing"],
)
def test_spans_are_sent_with_configured_credentials(
    server: Server, netrc: dict[str, str], run: str, configured: Any, expected: str | None
) -> None:
    address, headers = configured
    env = {**variables(server, address), **headers, **netrc}
    sent = child("send", run, **env)
    live = child("run", "flow.py:flow", **env)
    known = child("doctor", **env)

    assert (sent.code, live.code, known.code) == (0, 0, 0)
    assert len(server.came) > 2
    assert set(server.came) == {("/v1/traces", expected)}


@pytest.mark.slow
def test_metrics_are_sent_with_configured_credentials(
    server: Server, netrc: dict[str, str], run: str
) -> None:
    env = variables(server, OTEL_METRICS_EXPORTER="otlp", OTEL_TRACES_EXPORTER="none")
    child("run", "flow.py:flow", **env, **HEADER, **netrc)
    child("run", "flow.py:flow", **env, **netrc)

    assert set(server.came) == {("/v1/metrics", "Bearer mine"), ("/v1/metrics", None)}


@pytest.mark.slow
def test_a_jaeger_is_asked_without_credentials_of_others(
    server: Server, netrc: dict[str, str], run: str
) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    child("send", run, **variables(server))
    server.came.clear()
    child("open", run, TAPPS_OTEL_JAEGER_URL=url, **netrc)
    child("verify", run, "--against", url, **netrc)
    child("doctor", TAPPS_OTEL_JAEGER_URL=url, **netrc)

    assert len(server.came) > 2
    assert {credentials for _, credentials in server.came} == {None}
