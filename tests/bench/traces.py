"""``python -m tests.bench.traces``: what a trace store gets of a run that is killed and resumed.

The same six steps by this project, DBOS and Burr: killed with SIGKILL in step 4, then resumed.
Everyone sends to the same kind of collector, whose spans are counted after the kill and after the
resume. Nobody is put at a disadvantage: spans are sent a tenth of a second after their end, and the
kill comes half a second into step 4, so that whatever has ended has been sent.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from .envs import OWN, interpreter, missing
from .runner import surroundings

STEPS = 6
KILLED_IN = 4
STEP_S = 0.6
PATIENCE = 60.0
QUIET_S = 1.0  # after this time without a request, all have arrived


class Collector(ThreadingHTTPServer):
    """Receives OTLP over HTTP and keeps the spans, without duplicates."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self._spans: dict[tuple[bytes, bytes], Span] = {}
        self._last = time.monotonic()
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Return the address to export to."""
        return f"http://127.0.0.1:{self.server_port}"

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Keep the spans of a request."""
        with self._lock:
            self._last = time.monotonic()
            for of_resource in request.resource_spans:
                for of_scope in of_resource.scope_spans:
                    for span in of_scope.spans:
                        self._spans[span.span_id, span.SerializeToString()] = span

    def settled(self) -> list[Span]:
        """Wait until no request arrives any more, and return the spans."""
        while (left := self._last + QUIET_S - time.monotonic()) > 0:
            time.sleep(left)
        with self._lock:
            return list(self._spans.values())


class Request(BaseHTTPRequestHandler):
    """A request of an exporter."""

    server: Collector

    def do_POST(self) -> None:
        """Keep its spans."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            self.server.take(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def collector() -> Iterator[Collector]:
    """A running collector."""
    made = Collector()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


@dataclass(frozen=True)
class System:
    """A system that runs workflows: a module of ``systems`` and the Python to run it."""

    name: str
    module: str
    env: str
    sends: bool = False  # whether what was killed can be sent from its log


SYSTEMS = (
    System("tapps_otel", "own_trace", OWN, sends=True),
    System("DBOS", "dbos_trace", "dbos"),
    System("Burr", "burr_trace", "burr"),
)


def program(system: System, folder: Path, endpoint: str) -> subprocess.Popen[bytes]:
    """Start or resume the workflow."""
    env = {
        **surroundings(system.env, folder),
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "TAPPS_OTEL_LOG_DIR": str(folder / "log"),
    }
    command = [interpreter(system.env), "-m", f"bench.systems.{system.module}", str(STEP_S)]
    return subprocess.Popen(list(map(str, command)), cwd=folder, env=env)


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until this holds; the process must not end before."""
    until = time.monotonic() + PATIENCE
    while not what():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the workflow did not come so far: {process.args!r}")
        time.sleep(0.01)


def play(system: System, folder: Path) -> dict[str, str]:
    """Kill the run, send its spans where that is possible, resume it, and look after each."""
    with collector() as receiver:
        began = time.monotonic()
        process = program(system, folder, receiver.endpoint)
        wait_for((folder / f"began-{KILLED_IN}").exists, process)
        time.sleep(STEP_S * 0.8)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        rows = after_kill("", receiver.settled())
        if system.sends:
            send = [sys.executable, "-m", "tapps_otel", "send", "--all", "--endpoint"]
            subprocess.run(
                [*send, receiver.endpoint, "--protocol", "http/protobuf"],
                env=os.environ | {"TAPPS_OTEL_LOG_DIR": str(folder / "log")},
                check=True,
                stdout=subprocess.DEVNULL,
            )
            rows |= after_kill("then `send`: ", receiver.settled())
        process = program(system, folder, receiver.endpoint)
        if process.wait(PATIENCE):
            raise RuntimeError(f"the resume failed: {process.args!r}")
        took = time.monotonic() - began
        return rows | after_resume(receiver.settled(), took)


def is_marker(span: Span) -> bool:
    """Tell whether a span only reports the start of another."""
    return any(one.key == "tapps.marker" for one in span.attributes)


def steps(spans: Sequence[Span]) -> list[Span]:
    """Return the spans of steps, which all systems name after the step's function."""
    return [span for span in spans if span.name.endswith("work")]


def lost_parents(spans: Sequence[Span]) -> int:
    """Count the spans whose parent is missing."""
    known = {span.span_id for span in spans}
    return sum(bool(span.parent_span_id) and span.parent_span_id not in known for span in spans)


def count(number: int, what: str) -> str:
    """``3 spans``."""
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def after_kill(when: str, spans: Sequence[Span]) -> dict[str, str]:
    """Describe the spans of the first execution."""
    markers = [span for span in spans if is_marker(span)]
    spans = [span for span in spans if not is_marker(span)]
    failed = [span for span in steps(spans) if span.status.code == Status.STATUS_CODE_ERROR]
    roots = [span for span in spans if not span.parent_span_id]
    whole = "the run's span, " if roots else "not the run, " if not markers else "a marker, "
    seen = f"{whole}{count(len(steps(spans)), 'step')}"
    orphans = lost_parents(spans)
    if orphans:
        seen += f", {count(orphans, 'span')} without parent"
    return {
        f"{when or 'killed: '}what is there": seen,
        f"{when or 'killed: '}the interrupted step": "an error" if failed else "missing",
    }


def after_resume(spans: Sequence[Span], took: float) -> dict[str, str]:
    """Describe the spans of both executions."""
    spans = [span for span in spans if not is_marker(span)]
    traces = {span.trace_id for span in spans}
    good = [span for span in steps(spans) if span.status.code != Status.STATUS_CODE_ERROR]
    links = sum(len(span.links) for span in spans)
    begins = min(span.start_time_unix_nano for span in spans if not span.parent_span_id)
    seen = (max(span.end_time_unix_nano for span in spans) - begins) / 1e9
    return {
        "resumed: traces": f"{len(traces)}, {count(links, 'link')}",
        "resumed: spans without parent": str(lost_parents(spans)),
        f"resumed: steps shown, of {STEPS}": f"{len(good)}{_again(len(good) - STEPS)}",
        "resumed: the trace starts": "with the run" if seen > took / 2 else "with the resume",
    }


def _again(number: int) -> str:
    return f": {number} that did not run again" if number > 0 else ""


def table(found: dict[str, dict[str, str]]) -> list[str]:
    """The table of tapps_otel/docs/spans.md."""
    rows = dict.fromkeys(row for of_system in found.values() for row in of_system)
    lines = [f"| | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    for row in rows:
        cells = (of_system.get(row, "-") for of_system in found.values())
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def main() -> int:
    """The command."""
    argparse.ArgumentParser(prog="python -m tests.bench.traces", description=__doc__).parse_args()
    found = {}
    for system in SYSTEMS:
        how = missing(system.env, ())
        if how:
            print(f"{system.name} is left out; to have it: {how}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            found[system.name] = play(system, Path(folder))
    print("\n".join(table(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
