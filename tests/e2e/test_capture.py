"""The log holds the whole trace: calls of real libraries, also in a subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import tapps_otel
from commands import LAUNCHER, LOGS
from independent_checker import check
from otlp_collector import Collected, Collector, Ended, Program, once
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.send import client_of, send_run

LIBRARIES = """
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.instrumentation.urllib import URLLibInstrumentor
SQLite3Instrumentor().instrument()
URLLibInstrumentor().instrument()
"""

FLOW = """
import sqlite3, subprocess, sys
from urllib.request import urlopen
from tapps_otel import child_env, step, workflow

@step
def fetch(url: str) -> str:
    with urlopen(url) as page:
        return page.read().decode()

@step
def count() -> int:
    books = sqlite3.connect(":memory:")
    (found,) = books.cursor().execute("SELECT 41 + 1").fetchone()
    books.close()
    return found

@step
def delegate(command: list[str]) -> int:
    return subprocess.run(command, env=child_env()).returncode

@workflow
def report(url: str, command: list[str]) -> list:
    return [count(), fetch(url), delegate(command)]

print(report.options(workflow_id="r1")(sys.argv[1], sys.argv[2:]))
"""

CHILD = """
import sqlite3, sys
from urllib.request import urlopen
books = sqlite3.connect(":memory:")
books.cursor().execute("PRAGMA page_size")
books.close()
urlopen(sys.argv[1] + "child").close()
"""

# A child with a provider of its own, which is set up by hand.
BY_HAND = (
    """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tapps_otel import JsonlSpanExporter
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
provider.add_span_processor(BatchSpanProcessor(JsonlSpanExporter()))
trace.set_tracer_provider(provider)
"""
    + LIBRARIES
    + CHILD
)

# A child with a run of its own in the same trace.
WITH_A_RUN = (
    "from tapps_otel import Run\n"
    + LIBRARIES
    + "with Run.open('inner', workflow_id='r2'):\n"
    + "".join(f"    {line}\n" for line in CHILD.splitlines())
)

# Killed in the middle of a request, a query or a call of a model.
DOOMED = """
import os, sqlite3, sys
from urllib.request import urlopen
from opentelemetry import trace
from tapps_otel import step, workflow

def die() -> None:
    os.kill(os.getpid(), 9)

@step
def fetch() -> None:
    urlopen(f"{sys.argv[2]}?kill={os.getpid()}")

@step
def count() -> None:
    books = sqlite3.connect(":memory:")
    books.create_function("die", 0, die)
    books.cursor().execute("SELECT die()")

@step
def ask() -> None:
    about = {"gen_ai.request.model": "a-model"}
    with trace.get_tracer("a.model").start_as_current_span("chat a-model", attributes=about):
        die()

@workflow
def doomed() -> None:
    {"fetch": fetch, "count": count, "ask": ask}[sys.argv[1]]()

doomed.options(workflow_id="r1")()
"""

INSTRUMENT = [LAUNCHER]
OTHERS = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
DECLARED = """
file_format: "1.0"
tracer_provider:
  processors:
    - batch: {{exporter: {{otlp_grpc: {{endpoint: "{endpoint}", tls: {{insecure: true}}}}}}}}
    - batch: {{exporter: {{tapps_jsonl: {{only_runs: true}}}}}}
"""
RUN = {"workflow report", "step count", "step fetch", "step delegate"}


@pytest.fixture
def site() -> Iterator[str]:
    """A web site of one page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, _, pid = self.path.partition("?kill=")
            if pid:
                os.kill(int(pid), 9)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    serving.join()


def contents(spans: list[Collected]) -> dict[str, tuple[object, ...]]:
    """All that a collector received of each span."""
    assert len({span.span_id for span in spans}) == len(spans)
    return {span.span_id: (span.raw, span.resource, span.scope) for span in spans}


def sent_from_the_files(collector: Collector, count: int, *runs: str) -> list[Collected]:
    for run in runs:
        client = client_of(endpoint=collector.grpc)
        report = send_run(Store(Path(LOGS).absolute()), run, client)
        client.close()
        assert (report.problems, report.rejected) == ([], 0)
    return collector.spans(count)


def assert_the_files_hold_the_trace(
    live: list[Collected], done: Ended, another: Callable[[], Collector], *runs: str
) -> None:
    again = sent_from_the_files(another(), len(live), *runs)

    assert (done.code, done.out, done.err) == (0, "[42, 'ok', 0]\n", "")
    assert contents(again) == contents(live)
    assert len({span.trace_id for span in live}) == 1
    assert [span.name for span in live if not span.parent_span_id] == ["workflow report"]
    assert {span.parent_span_id for span in live} - {""} <= {span.span_id for span in live}
    for path in Path(LOGS).glob("*.jsonl"):
        check(path)


def under(live: list[Collected], name: str) -> list[str]:
    """The children of the span of this name."""
    (above,) = [span for span in live if span.name == name]
    return sorted(span.name for span in live if span.parent_span_id == above.span_id)


def test_the_trace_sent_from_the_files_is_the_live_one(
    collector: Collector, another: Callable[[], Collector], program: Program, site: str
) -> None:
    env = {**collector.env(), **OTHERS, "OTEL_TRACES_EXPORTER": "otlp,tapps_jsonl"}
    command = [*INSTRUMENT, sys.executable, "-c", CHILD, site]
    done = program(LIBRARIES + FLOW, site, *command, **env)
    live = once(collector.spans(8))

    assert_the_files_hold_the_trace(live, done, another, "r1")
    assert under(live, "step count") == ["SELECT"]
    assert under(live, "step fetch") == ["GET"]
    assert under(live, "step delegate") == ["GET", "PRAGMA"]
    assert [run.status for run in tapps_otel.list_runs()] == ["completed"]
    assert len(list(Path(LOGS).glob("r1+*.jsonl"))) == 1  # the child's: the log is its parent's


def test_the_sdks_own_configuration_works_too(
    collector: Collector, another: Callable[[], Collector], site: str, tmp_path: Path
) -> None:
    env = {**collector.env(), **OTHERS, "OTEL_TRACES_EXPORTER": "otlp,tapps_jsonl"}
    child = [sys.executable, "-c", CHILD, site]  # it inherits the launcher
    done = launched(tmp_path, FLOW, site, *child, **env)
    live = once(collector.spans(8))

    assert_the_files_hold_the_trace(live, done, another, "r1")
    assert under(live, "step delegate") == ["GET", "PRAGMA"]


def test_a_configuration_file_names_it_with_its_options(
    collector: Collector, another: Callable[[], Collector], program: Program, site: str
) -> None:
    Path("otel.yaml").write_text(DECLARED.format(endpoint=collector.grpc), "utf-8")
    done = program(LIBRARIES + FLOW, site, sys.executable, "-c", "", OTEL_CONFIG_FILE="otel.yaml")
    live = once(collector.spans(6))

    assert_the_files_hold_the_trace(live, done, another, "r1")
    assert {span.name for span in live} == {*RUN, "SELECT", "GET"}


def test_a_child_with_a_provider_of_its_own_joins_by_its_exporter(
    collector: Collector, another: Callable[[], Collector], program: Program, site: str
) -> None:
    env = {**collector.env(), "OTEL_TRACES_EXPORTER": "otlp,tapps_jsonl"}
    env["OTEL_EXPORTER_OTLP_INSECURE"] = "true"
    done = program(LIBRARIES + FLOW, site, sys.executable, "-c", BY_HAND, site, **env)
    live = once(collector.spans(8))

    assert_the_files_hold_the_trace(live, done, another, "r1")
    assert under(live, "step delegate") == ["GET", "PRAGMA"]


def test_a_run_of_a_child_is_one_of_its_own_in_the_same_trace(
    collector: Collector, another: Callable[[], Collector], program: Program, site: str
) -> None:
    env = {**collector.env(), "OTEL_TRACES_EXPORTER": "otlp,tapps_jsonl"}
    done = program(LIBRARIES + FLOW, site, sys.executable, "-c", WITH_A_RUN, site, **env)
    live = once(collector.spans(9))

    assert_the_files_hold_the_trace(live, done, another, "r1", "r2")
    assert under(live, "step delegate") == ["workflow inner"]
    assert under(live, "workflow inner") == ["GET", "PRAGMA"]
    assert sorted(run.workflow_id for run in tapps_otel.list_runs()) == ["r1", "r2"]


@pytest.mark.parametrize("launch", ["program", "launcher"])
@pytest.mark.parametrize(
    ("where", "name"), [("fetch", "GET"), ("count", "SELECT"), ("ask", "chat a-model")]
)
def test_what_a_process_was_killed_in_arrives_as_interrupted_below_its_step(
    collector: Collector, program: Program, site: str, tmp_path: Path, *,
    where: str, name: str, launch: str,
) -> None:  # fmt: skip
    env = {**collector.env(), **OTHERS, "OTEL_TRACES_EXPORTER": "otlp,tapps_jsonl"}
    if launch == "program":
        done = program(LIBRARIES + DOOMED, where, site, **env)
    else:
        done = launched(tmp_path, DOOMED, where, site, **env)
    sent = tapps_otel.send("r1", endpoint=collector.grpc)
    spans = once(collector.spans(3))

    assert done.code == -9
    assert (sent.ok, sent.sent) == (True, 3)
    assert {span.name: span.status for span in spans} == {
        "workflow doomed": 2, f"step {where}": 2, name: 2
    }  # fmt: skip
    assert under(spans, f"step {where}") == [name]
    (cut,) = (span for span in spans if span.name == name)
    assert cut.attributes["tapps.status"] == "interrupted"
    assert cut.message == "execution 1 ended without ending this span"


def launched(folder: Path, source: str, *arguments: str, **env: str) -> Ended:
    """Run a program under ``opentelemetry-instrument``."""
    path = folder / "program.py"
    path.write_text(source, "utf-8")
    done = subprocess.run(
        [*INSTRUMENT, sys.executable, str(path), *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
