"""A program whose steps run in workers of an engine, and what it leaves behind.

It is a script, so its steps are those of ``__main__``: workers find them by its path.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from capabilities import need
from crashes import Effects
from independent_checker import check
from otlp_collector import Collected, Sink, is_marker, serving
from tapps_otel import events

__all__ = [
    "assert_one_trace",
    "collecting",
    "did",
    "ended",
    "is_alive",
    "is_server",
    "of_type",
    "processes_of",
    "spans_of_log",
    "started",
    "starts",
    "workers",
    "write_program",
]

PROGRAM = """
import multiprocessing, os, sqlite3, sys, time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tapps_otel import Redaction, bind, configure, step, workflow

@dataclass
class Page:
    name: str

def note(what):
    with open("effects", "a", buffering=1) as file:
        file.write(f"{what}\\n")

@step
def draft(page: Page) -> Page:
    note(f"draft {page.name}")
    return Page(page.name.upper())

@step
def slow(number: int) -> int:
    note(f"slow {number} {os.getpid()}")
    while not Path("go").exists():
        time.sleep(0.01)
    note(f"done {number}")
    return os.getpid()

@step(on_interrupted="fail")
def pay() -> int:
    note("pay")
    os._exit(9)

@step
def ask(number: int) -> int:
    from opentelemetry import trace
    with trace.get_tracer("library").start_as_current_span(f"ask {number}"):
        return number

def pool(kind):
    if kind == "loky":
        from loky import get_reusable_executor
        return get_reusable_executor(2)
    if kind == "dask":
        from distributed import Client, LocalCluster
        cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        return Client(cluster).get_executor(pure=False)
    if kind.startswith("tcp:"):
        from distributed import Client
        return Client(kind).get_executor(pure=False)
    if kind == "ray":
        import ray
        from tapps_otel.engines.ray import RayExecutor
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        return RayExecutor(num_cpus=1)
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(kind))

@workflow
def flow(kind: str) -> list[str]:
    with bind(pool(kind)) as bound:
        pages = list(bound.map(draft, [Page("a"), Page("b"), Page("c")]))
        slow_ones = list(bound.map(slow, range(5)))
    return [page.name for page in pages]

@workflow
def one_of_four(kind: str) -> int:
    context = multiprocessing.get_context(kind)
    with bind(ProcessPoolExecutor(4, mp_context=context)) as bound:
        return bound.submit(slow, 0).result()

@workflow
def changed(kind: str) -> list[str]:
    with bind(pool(kind)) as bound:
        first = bound.submit(draft, Page("First")).result()
    source = Path(__file__).read_text()
    Path(__file__).write_text(source.replace("name.upper()", "name.lower()"))
    with bind(pool(kind)) as bound:
        rest = list(bound.map(draft, [Page("Second"), Page("Third")]))
    return [page.name for page in [first, *rest]]

@workflow
def paying(kind: str) -> int:
    with bind(pool(kind)) as bound:
        return bound.submit(pay).result()

@workflow
def asking(kind: str) -> int:
    with bind(pool(kind)) as bound:
        return sum(bound.map(ask, range(4)))

@step
def ask_much(number: int) -> int:
    from opentelemetry import trace
    for at in range(number):
        with trace.get_tracer("library").start_as_current_span(f"long {at}") as span:
            span.set_attribute("text", "x" * 50_000)
    return number

@step
def ask_for_card() -> str:
    from opentelemetry import trace
    with trace.get_tracer("library").start_as_current_span("ask") as span:
        span.set_attribute("card", "visa4111")
        span.set_attribute("text", "it is PAN4111")
    return "paid"

@workflow
def asking_for_card(kind: str) -> str:
    with bind(pool(kind)) as bound:
        return bound.submit(ask_for_card).result()

@workflow
def asking_much(kind: str) -> int:
    with bind(pool(kind)) as bound:
        return bound.submit(ask_much, 40).result()

def own_provider():
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)

if "OWN_PROVIDER" in os.environ:
    own_provider()

def without_first(span):
    return None if span.name == "ask 0" else span

if __name__ == "__main__":
    what, kind = sys.argv[1:]
    filters = {"function": without_first, "lambda": lambda span: without_first(span)}
    configure(span_filter=filters.get(os.environ.get("FILTER")))
    configure(redact=Redaction(keys=["card"], patterns=["PAN[0-9]+"]))
    try:
        print(globals()[what].options(workflow_id="r")(kind))
    except KeyboardInterrupt:
        sys.exit(130)
"""
did = Effects(Path("effects"))  # in the working directory


def write_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the program into the working directory; its runs go into the folder ``logs``."""
    need("fork")
    monkeypatch.setenv("TAPPS_OTEL_LOG_DIR", "logs")
    Path("program.py").write_text(PROGRAM)


@contextmanager
def started(*arguments: str, env: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[str]]:
    """Run the program in a process group of its own, which is killed in the end."""
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "program.py", *arguments],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def ended(*arguments: str, env: Mapping[str, str] = {}, patience: float = 90) -> str:
    """Run the program to its end, and return what it printed."""
    with started(*arguments, env=env) as child:
        out, err = child.communicate(timeout=patience)
        assert child.returncode == 0, err
    return out


def workers() -> list[int]:
    """Process ids of the workers that execute slow steps."""
    return [int(line.split()[2]) for line in did.all if line.startswith("slow")]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def of_type(event_type: str) -> list[dict[str, Any]]:
    return [one for one in check(Path("logs/r.jsonl")) if one["event_type"] == event_type]


def starts(name: str) -> list[tuple[str, int]]:
    return [
        (one["step_id"], one["attempt"]) for one in of_type("step_start") if one["step"] == name
    ]


def spans_of_log() -> list[Any]:
    return [one for one in events("r") if one.event_type == "span"]


@contextmanager
def collecting() -> Iterator[tuple[Sink, dict[str, str]]]:
    with serving(Sink()) as sink:
        yield (
            sink,
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink.server_address[1]}",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_BSP_SCHEDULE_DELAY": "600000",
                "TAPPS_OTEL_SHUTDOWN_TIMEOUT": "30",
            },
        )


def assert_one_trace(spans: list[Collected]) -> None:
    """One trace, one root, no parent missing, the library's spans under their steps."""
    ours = [one for one in spans if not is_marker(one)]
    by_id = {one.span_id: one for one in ours}
    assert len({one.trace_id for one in ours}) == 1
    roots = [one for one in ours if one.parent_span_id not in by_id]
    assert [one.name for one in roots] == ["workflow asking"]
    assert sorted(one.name for one in ours if one.scope[0] == "library") == [
        f"ask {number}" for number in range(4)
    ]
    for one in ours:
        if one.scope[0] == "library":
            assert by_id[one.parent_span_id].name == "step ask"


def processes_of(session: int) -> set[int]:
    """All processes of a session."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            found.add(int(path.parent.name))
    return found


def is_server(pid: int) -> bool:
    """Whether it serves multiprocessing: those end by themselves, some later."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"resource_tracker" in command or b"forkserver" in command
