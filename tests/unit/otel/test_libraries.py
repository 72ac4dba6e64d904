"""Runs in programs whose tracing another library has set up: each with the real library.

They are in the extra `providers`. A library sets the process's provider up, so each gets a process
of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from choosy_collector import choosy
from commands import LOGS
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.run_spans import RunSpans
from waiting import until

# Each names `memory`, an exporter, to the library. None of them may reach a server.
SET_UP = {
    "openinference.instrumentation": """
from openinference.instrumentation import TracerProvider
provider = TracerProvider()
provider.add_span_processor(processor)
trace.set_tracer_provider(provider)
""",
    "phoenix.otel": """
from phoenix.otel import register
register(endpoint="http://127.0.0.1:9/v1/traces", verbose=False).add_span_processor(processor)
""",
    "logfire": """
import logfire
logfire.configure(
    send_to_logfire=False,
    console=False,
    inspect_arguments=False,
    additional_span_processors=[processor],
)
""",
    "langfuse": """
from langfuse import Langfuse
Langfuse(
    public_key="a", secret_key="b", base_url="http://127.0.0.1:9", flush_at=999, flush_interval=999
)
trace.get_tracer_provider().add_span_processor(processor)
""",
    "azure.monitor.opentelemetry": """
from azure.monitor.opentelemetry import configure_azure_monitor
key = "00000000-0000-0000-0000-000000000000"
configure_azure_monitor(
    connection_string=f"InstrumentationKey={key};IngestionEndpoint=http://127.0.0.1:9/",
    span_processors=[processor],
    disable_metrics=True,
    disable_logging=True,
    enable_live_metrics=False,
)
""",
}
PROGRAM = """
import atexit, json, os, sys
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

memory = InMemorySpanExporter()
processor = SimpleSpanProcessor(memory)

@atexit.register  # first, so that it is called last
def show():
    shown = [
        {
            "name": span.name,
            "status": span.attributes.get("tapps.status"),
            "trace_id": span.context.trace_id,
            "span_id": span.context.span_id,
            "parent": span.parent and span.parent.span_id,
            "attributes": dict(span.attributes),
        }
        for span in memory.get_finished_spans()
    ]
    print(json.dumps(shown))
    sys.stdout.flush()
    os._exit(0)  # no library has to find out that its server is not there

SET_UP
from tapps_otel import step, workflow

@step
def first():
    return 1

@step
def second():
    if sys.argv[1] == "dies":
        processor.force_flush()
        show()
    trace.get_current_span().set_attribute("openinference.span.kind", "AGENT")
    return 2

@workflow
def main():
    return first() + second()

main.options(workflow_id="r")()
"""


class Ran(NamedTuple):
    spans: list[dict[str, Any]]
    said: str

    @property
    def names(self) -> list[tuple[str, str | None]]:
        return [(one["name"], one["status"]) for one in self.spans]


def need(library: str) -> None:
    """Skip the test where a library is missing."""
    try:
        found = importlib.util.find_spec(library)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"needs {library}: install the extra 'providers'")


def ran(library: str, what: str, **env: str) -> Ran:
    program = PROGRAM.replace("SET_UP", SET_UP[library])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, what],
        # By default, Azure Monitor drops spans of a quick program at random.
        env=os.environ
        | {"AZURE_MONITOR_DISABLE_STATSBEAT": "1", "OTEL_TRACES_SAMPLER": "always_on"}
        | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Ran(json.loads(done.stdout.splitlines()[-1]), done.stderr)


@pytest.mark.parametrize("library", SET_UP)
def test_a_run_that_dies_and_is_resumed_is_one_whole_trace(library: str) -> None:
    need(library)
    died, resumed = ran(library, "dies"), ran(library, "ends")
    spans = died.spans + resumed.spans
    ids = [span["span_id"] for span in spans]

    assert died.names == [("workflow main started", None), ("step first", "completed")]
    assert sorted(resumed.names, key=repr) == [
        ("step second", "completed"),
        ("step second", "interrupted"),
        ("workflow main started", None),
        ("workflow main", "completed"),
        ("workflow main", "interrupted"),
    ]
    assert len({span["trace_id"] for span in spans}) == 1
    assert len(set(ids)) == len(ids)
    assert sum(span["parent"] is None for span in spans) == 1
    assert {span["parent"] for span in spans} - {None} <= set(ids)
    assert "tapps_otel" not in died.said + resumed.said  # no warning
    check_attributes({span["span_id"]: span["attributes"] for span in spans})


def check_attributes(sent: dict[int, dict[str, Any]]) -> None:
    """Check that the log has what was sent, but for what Logfire adds as it sends."""
    for found in RunSpans(Store(LOGS.absolute()), "r"):
        attributes = sent[found.span.context.span_id]
        own = {name: attributes[name] for name in attributes if not name.startswith("logfire.")}
        log = json.loads(json.dumps(dict(found.span.attributes or {})))
        assert own == {name: log[name] for name in log if not name.startswith("logfire.")}


@pytest.mark.parametrize("library", SET_UP)
def test_a_configured_endpoint_gets_the_spans_beside_the_library(library: str) -> None:
    need(library)
    with choosy("http/protobuf", lambda _: False) as collector:
        done = ran(
            library,
            "ends",
            TAPPS_OTEL_OTLP_ENDPOINT=collector.endpoint,
            TAPPS_OTEL_OTLP_PROTOCOL=collector.protocol,
        )

    assert sorted(collector.accepted) == sorted(span["name"] for span in done.spans)
    assert {"step first", "step second", "workflow main"} <= set(collector.accepted)
    assert "tapps_otel" not in done.said


# ---------------------------------------------------------------- servers

WEB = """
import sys
from tapps_otel import step, workflow

@step
def work(number):
    return number

@workflow
def flow(number):
    return work(number)

def wsgi(environ, start_response):
    flow.options(workflow_id="request")(1)
    start_response("200 OK", [])
    return [b"done"]

async def asgi(scope, receive, send):
    flow.options(workflow_id="request")(1)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})

if "gunicorn" in sys.modules:
    flow.options(workflow_id="before-the-fork")(0)
"""
SERVERS = {
    "gunicorn": ("--preload", "--bind=unix:web", "web:wsgi"),
    "uvicorn": ("--workers=2", "--lifespan=off", "--uds=web", "web:asgi"),
}


@pytest.mark.parametrize("server", SERVERS)
def test_all_spans_of_a_servers_workers_are_sent(server: str) -> None:
    need(server)
    Path("web.py").write_text(WEB)
    with choosy("http/protobuf", lambda _: False) as collector:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", server, *SERVERS[server]],
            env=os.environ
            | collector.env
            | {"HOME": str(Path.cwd()), "OTEL_BSP_SCHEDULE_DELAY": "600000"}
            | {"TAPPS_OTEL_ANNOUNCE": "off", "TAPPS_OTEL_SHUTDOWN_TIMEOUT": "30"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(asked)
        finally:
            process.terminate()
        process.wait()
    fork = ["step work", "workflow flow"] if server == "gunicorn" else []

    assert sorted(collector.accepted) == sorted(["step work", "workflow flow", *fork])


def asked() -> bool:
    """Whether the server is up, and has answered."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect("web")
        except OSError:
            return False
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while more := connection.recv(1000):
            answer += more
    return answer.endswith(b"done")
