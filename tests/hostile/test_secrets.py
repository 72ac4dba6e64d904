"""Secrets in settings: nothing that this package says, writes or sends about itself has them."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import programs
from commands import child, environment
from effort import sample
from tapps_otel import Run, settings
from tapps_otel.cli import main
from tapps_otel.cli.app import app
from tapps_otel.errors import SettingsError
from tapps_otel.masking import mask, public_url

pytestmark = pytest.mark.slow

SECRET = "Xk9canary7"  # a part of every password, token and key below
WORKFLOW = """
from tapps_otel import configure, step, workflow
from tapps_otel.errors import TappsError
@step
def one() -> int: return 1
@workflow
def flow(fail: bool = False) -> int:
    if fail: raise ValueError("of the user")
    return one()
"""
PROGRAM = """
import logging, traceback
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(levelname)s %(message)s")
logging.getLogger("urllib3").setLevel(logging.INFO)  # it logs the path of each request itself
try:
    print(repr(configure(metrics=True)), str(configure()))
    flow.options(workflow_id="r")()
    flow.options(workflow_id="f")(True)
except (TappsError, ValueError):
    traceback.print_exc()
"""


class _Echo(BaseHTTPRequestHandler):
    """Refuses every request, and repeats what it was given."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = f"no: {self.path} {self.headers}".encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


HEADERS = json.dumps({"authorization": f"Bearer {SECRET}", "x-key": f"{SECRET}-2"})
ENDPOINT = f"http://{SECRET}user:pass{SECRET}@127.0.0.1:PORT"
KEY = f"{SECRET:A<43}="  # the base64 of 32 bytes
GOOD = {
    "TAPPS_OTEL_ENCRYPTION_KEYS": f"canary:{KEY}",
    "TAPPS_OTEL_OTLP_ENDPOINT": ENDPOINT,
    "TAPPS_OTEL_OTLP_PROTOCOL": "http/protobuf",
    "TAPPS_OTEL_OTLP_HEADERS": HEADERS,
}
VARIANTS = {
    "settings": GOOD,
    "gRPC": {**GOOD, "TAPPS_OTEL_OTLP_PROTOCOL": "grpc"},
    "standard variables": {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{ENDPOINT}/v1/traces?key={SECRET}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"authorization=Bearer%20{SECRET},{SECRET}",
    },
    "headers in the form of OTEL_EXPORTER_OTLP_HEADERS": {
        **GOOD,
        "TAPPS_OTEL_OTLP_HEADERS": f"authorization=Bearer {SECRET}",
    },
    "headers that are numbers": {**GOOD, "TAPPS_OTEL_OTLP_HEADERS": f'{{"{SECRET}": 5}}'},
    "a header with a newline": {
        **GOOD,
        "TAPPS_OTEL_OTLP_HEADERS": json.dumps({"x": f"{SECRET}\n{SECRET}"}),
    },
    "gRPC with a newline": {
        **GOOD,
        "TAPPS_OTEL_OTLP_PROTOCOL": "grpc",
        "TAPPS_OTEL_OTLP_HEADERS": json.dumps({"x": f"{SECRET}\n{SECRET}"}),
    },
    "another scheme": {**GOOD, "TAPPS_OTEL_OTLP_ENDPOINT": f"ftp://a:{SECRET}@127.0.0.1/"},
    "no address": {**GOOD, "TAPPS_OTEL_OTLP_ENDPOINT": f"http://u:{SECRET}@[:PORT"},
    "a password with a slash": {
        **GOOD,
        "TAPPS_OTEL_OTLP_ENDPOINT": f"http://u:{SECRET}/{SECRET}@127.0.0.1:PORT",
    },
    "encryption keys that are none": {**GOOD, "TAPPS_OTEL_ENCRYPTION_KEYS": f"a:{KEY}, b:{SECRET}"},
    "encryption keys without ids": {**GOOD, "TAPPS_OTEL_ENCRYPTION_KEYS": KEY},
    "a store that is down": {**GOOD, "TAPPS_OTEL_STORE": f"postgresql://u:{SECRET}@127.0.0.1:1/x"},
    "Jaeger": {**GOOD, "TAPPS_OTEL_JAEGER_URL": f"http://u:{SECRET}@127.0.0.1:PORT"},
}
PROGRAMS = ["run program.py:flow --id again", "resume f", "demo -y"]
COMMANDS = [
    "run nothing:flow", "resume r", "list", "list --json", "show r", "show r --json",
    "show r one", "watch r --no-wait", "diff r r",
    "timeline r", "timeline r --json", "timeline r --html page.html",
    "open r", "verify r", "verify r --against http://u:{SECRET}@127.0.0.1:PORT",
    "verify r --against http://u:{SECRET}@[",
    "repair r", "resolve r one --rerun", "answer r --json true", "cancel r",
    "send r", "send --all --json",
    "send r --endpoint http://u:{SECRET}@127.0.0.1:PORT",
    "send r --protocol grpc --endpoint u:{SECRET}@127.0.0.1:1",
    "export r -f otlp-json -o spans.json", "export r -f chrome-trace -o trace.json",
    "export r -f csv -o table.csv", "prune --older-than 90d --dry-run",
    "fork r --from one", "pack r run.zip", "unpack run.zip",
    "migrate", "push r", "pull r",
    "schema", "doctor", "doctor --json", "docs",
]  # fmt: skip


def test_every_command_is_driven() -> None:
    assert {one.split()[0] for one in [*COMMANDS, *PROGRAMS]} == {
        one.name for one in app.registered_commands
    }


def _environment(variant: str, port: int) -> dict[str, str]:
    found = {name: text.replace("PORT", str(port)) for name, text in VARIANTS[variant].items()}
    return {**found, "TAPPS_OTEL_SHUTDOWN_TIMEOUT": "1", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}


def _assert_unknown(text: str, where: str) -> None:
    found = re.search(f".{{0,200}}{SECRET}", text)
    assert found is None, f"{where}: {found}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    sample(["settings", "gRPC with a newline", "standard variables", "another scheme"], 2),
)
def test_no_program_says_or_writes_a_secret(variant: str, port: int) -> None:
    env = environment(**_environment(variant, port))
    env |= {"OTEL_TRACES_EXPORTER": "console,otlp", "OTEL_METRICS_EXPORTER": "console"}
    done = programs.run(
        [sys.executable, "-c", f"{WORKFLOW}{PROGRAM}"],
        env=env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert "Settings(" in done.stdout or "SettingsError" in done.stderr
    _assert_unknown(done.stdout + done.stderr, "the program")
    _assert_files()


@pytest.mark.slow
@pytest.mark.parametrize("command", sample(PROGRAMS, 2))
def test_no_command_that_runs_steps_says_or_writes_a_secret(command: str, port: int) -> None:
    Path("program.py").write_text(WORKFLOW)
    child("run", "program.py:flow", "--id", "f", "--input", "fail=true")
    done = child(*command.split(), **_environment("settings", port))

    assert "Traceback" not in done.err.replace("Traceback (most recent call last):\n  File", "")
    _assert_unknown(done.out + done.err, command)
    _assert_files()


@pytest.mark.slow
@pytest.mark.parametrize("variant", sample(VARIANTS, 3))
def test_no_command_says_or_writes_a_secret(
    variant: str,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Run.open("flow", workflow_id="r") as run:
        run.call("one", lambda: 1)
    for name, value in _environment(variant, port).items():
        monkeypatch.setenv(name, value)
    for command in COMMANDS:
        monkeypatch.setattr(settings, "_current", None)
        arguments = command.replace("{SECRET}", SECRET).replace("PORT", str(port)).split()
        with caplog.at_level(logging.DEBUG, "tapps_otel"), pytest.raises(SystemExit):
            main(arguments)
        said = capsys.readouterr()
        assert "unexpected" not in said.err
        _assert_unknown(said.out + said.err + caplog.text, command)
    _assert_files()


def _assert_files() -> None:
    for path in Path().rglob("*"):
        if path.is_file():
            _assert_unknown(path.read_bytes().decode(errors="replace"), str(path))


@pytest.mark.parametrize(
    "given",
    [
        {"otlp_headers": f"authorization=Bearer {SECRET}"},
        {"otlp_headers": {"authorization": [SECRET]}},
        {"otlp_headers": {SECRET: 5}},
        {"otlp_endpoint": [SECRET]},
        {"jaeger_url": f"http://u:{SECRET}@host:16686"},
        {"otlp_header": SECRET},
    ],
)
def test_an_error_of_configure_has_no_secret_and_leads_to_none(given: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.configure(**given)  # type: ignore[arg-type]

    _assert_unknown(str(caught.value), "the error")
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


def test_settings_show_names_of_headers_and_addresses_without_users() -> None:
    found = settings.configure(
        otlp_headers={"authorization": f"Bearer {SECRET}"},
        otlp_endpoint=f"https://u:{SECRET}@collector:4318/in?key={SECRET}",
    )

    assert found.otlp_headers == {"authorization": f"Bearer {SECRET}"}
    assert "otlp_headers={'authorization': '***'}" in repr(found)
    assert "otlp_endpoint='https://collector:4318/in'" in str(found)
    _assert_unknown(f"{found!r} {found}", "settings")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:4318/v1", "http://host:4318/v1"),
        ("http://u:p@host/x?k=v#f", "http://host/x"),
        ("http://u:p/a@ss@host", "http://host"),
        ("u:p@host:4317", "host:4317"),
        ("host:4317", "host:4317"),
        ("http://u:p@[::1", "http://[::1"),
    ],
)
def test_an_address_is_shown_without_user_and_query(url: str, shown: str) -> None:
    assert public_url(url) == shown


def test_the_longest_secret_is_replaced_first() -> None:
    assert mask("it is Bearer abcd-efgh, ab", {"abcd", "Bearer abcd-efgh", "ab"}) == "it is ***, ab"
