"""The way from a run to its trace: ``open``, and the link that ``show`` gives."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from commands import Cli
from tapps_otel import events, settings
from tapps_otel.errors import SettingsError
from tapps_otel.otel.transport import jaeger

Serve = Callable[..., str]


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The stack's address is one where nobody listens, whatever runs on this machine."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setattr(jaeger, "STACK_URL", url)
        yield url


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that answers every request so; its address."""
    servers = []

    def start(code: int, kind: str, body: bytes) -> str:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def trace_id(cli: Cli) -> str:
    """Of the run r1."""
    cli("run", "flow.py:small", "--id", "r1")
    return str(next(events("r1")).trace_id)


JAEGER = (200, "application/json", b'{"data":["service"],"total":1}')


def test_open_prints_the_link_of_the_runs_trace(
    cli: Cli, serve: Serve, trace_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(*JAEGER)
    monkeypatch.setenv("TAPPS_OTEL_JAEGER_URL", f"{url}/")
    monkeypatch.setattr(settings, "_current", None)
    done = cli("open", "r1")

    assert (done.code, done.out, done.err) == (0, f"{url}/trace/{trace_id}\n", "")


def test_open_without_a_setting_uses_this_projects_stack(
    cli: Cli, serve: Serve, trace_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(*JAEGER)
    monkeypatch.setattr(jaeger, "STACK_URL", url)

    assert cli("open", "r1").out == f"{url}/trace/{trace_id}\n"
    assert f"\njaeger    {url}/trace/{trace_id}\n" in cli("show", "r1").out


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, "text/html", b"<html>some page</html>"), "what answers there (200) is not a Jaeger"),
        ((500, "text/plain", b"oops"), "what answers there (500) is not a Jaeger"),
        ((401, "text/plain", b""), "it answered 401: it requires credentials"),
        ((500, "application/json", b'{"data":null,"errors":[]}'), "it answered 500"),
    ],
)
def test_another_server_is_reported_with_the_link(
    cli: Cli, serve: Serve, trace_id: str, answer: tuple[int, str, bytes], said: str
) -> None:
    url = serve(*answer)
    settings.configure(jaeger_url=url)
    done = cli("open", "r1")

    assert (done.code, done.out) == (1, f"{url}/trace/{trace_id}\n")
    assert f"error: {url}: {said}\n" in done.err
    assert "TAPPS_OTEL_JAEGER_URL" in done.err


def test_a_server_that_does_not_answer_is_reported(
    cli: Cli, nobody: str, trace_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = cli("open", "r1")
    monkeypatch.setattr(jaeger, "_WAIT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.configure(jaeger_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        hanging = cli("open", "r1")

    assert (refused.code, hanging.code) == (1, 1)
    assert f"error: {nobody}: nothing answers there\n" in refused.err
    assert "it does not answer in time\n" in hanging.err


def test_an_unknown_run_has_no_link(cli: Cli) -> None:
    assert (cli("open", "nobody").code, cli("open", "../r1").code) == (3, 2)


def test_show_has_the_link_to_a_configured_jaeger(cli: Cli, nobody: str, trace_id: str) -> None:
    before = cli("show", "r1").out
    settings.configure(jaeger_url=nobody)

    assert "jaeger" not in before
    assert f"\njaeger    {nobody}/trace/{trace_id}\n" in cli("show", "r1").out
    assert json.loads(cli("show", "r1", "--json").out)["trace_url"] == f"{nobody}/trace/{trace_id}"


@pytest.mark.parametrize(
    "url",
    [
        "localhost:16686",
        "ftp://localhost",
        "javascript:alert(1)",
        "http://user:password@jaeger",
        "http://jaeger/?q=1",
        "http://jaeger/#x",
        "http://jaeger/\x1b]0;title\x07",
        "http://jaeger\n",
        "http://",
    ],
)
def test_an_address_that_is_not_a_plain_link_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="jaeger_url"):
        settings.configure(jaeger_url=url)


@pytest.mark.parametrize("url", ["http://j:1", "https://[::1]:16686/", "https://a.b/jaeger/ui"])
def test_addresses_with_a_path_are_accepted(url: str) -> None:
    link = jaeger.trace_url(str(jaeger.url_of(settings.configure(jaeger_url=url))), "a" * 32)

    assert link == f"{url.rstrip('/')}/trace/{'a' * 32}"


@pytest.mark.parametrize("odd", [None, "", "a" * 31, "A" * 32, "../" * 11, "a" * 31 + "\n"])
def test_an_invalid_trace_id_has_no_link(odd: str | None) -> None:
    assert jaeger.trace_url("http://jaeger", odd) is None
