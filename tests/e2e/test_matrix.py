"""Every provider, every state of a collector, every way to the end: all spans once, or a sentence.

The setting ``otlp_endpoint`` names the collector. What is missing there after the last command is
named by it, with what sends it; and that command does.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

import programs
import tapps_otel
from choosy_collector import Choosy, choosy
from commands import Done, child, environment
from effort import sample

pytestmark = pytest.mark.slow

SDK = """
from opentelemetry.sdk.trace import TracerProvider
provider = TracerProvider()
"""
PROVIDERS = {
    "none": ("", ""),
    "SDK before": (SDK + "trace.set_tracer_provider(provider)", ""),
    "SDK after": ("", SDK + "trace.set_tracer_provider(provider)"),
    "wrapped": (SDK + "import wrapt\ntrace.set_tracer_provider(wrapt.ObjectProxy(provider))", ""),
    "no-op": ("trace.set_tracer_provider(trace.NoOpTracerProvider())", ""),
}
COLLECTORS = ["up", "down", "refusing a span", "hanging"]
WAYS = ["plain", "killed and sent", "killed and resumed"]
PROGRAM = """
import os, signal
from opentelemetry import trace
from tapps_otel import step, workflow

@step
def work(n: int) -> int:
    return n

@step
def bad() -> None: ...

@step
def last() -> None:
    if os.environ.get("KILL"):
        os.kill(os.getpid(), signal.SIGKILL)

@workflow
def flow() -> None:
    work(1)
    bad()
    work(2)
    last()

@workflow
def other() -> None: ...

BEFORE
if "AFTER":
    other.options(workflow_id="other")()  # sets a provider up
    AFTER
flow.options(workflow_id="r")()
"""
STARTS = {"workflow_start", "workflow_resume", "step_start"}
IMPATIENT = {
    "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    "TAPPS_OTEL_ANNOUNCE": "off",  # a marker is sent at once, and a kill may lose the ledger's line
}


@contextmanager
def collector_in(state: str) -> Iterator[Choosy]:
    """A collector in this state."""
    poison = (lambda span: span.name == "step bad") if "refusing" in state else (lambda _: False)
    with choosy("http/protobuf", poison) as made, socket.socket() as taken:
        if state in {"down", "hanging"}:
            taken.bind(("127.0.0.1", 0))
            made.endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        if state == "hanging":
            taken.listen()  # and accepts nobody
        yield made


def program(collector: Choosy, state: str, **env: str) -> Done:
    """Run the program; a collector that answers is given time for that."""
    answers = state not in {"down", "hanging"}
    done = programs.run(
        [sys.executable, "program.py"],
        env=environment(
            **IMPATIENT,
            TAPPS_OTEL_OTLP_ENDPOINT=collector.endpoint,
            TAPPS_OTEL_OTLP_PROTOCOL=collector.protocol,
            TAPPS_OTEL_SHUTDOWN_TIMEOUT="30" if answers else "0.5",
            **env,
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def send(collector: Choosy) -> Done:
    return child("send", "r", **IMPATIENT, **collector.env)


def started() -> tuple[set[str | None], set[str | None]]:
    """The spans and the traces that the log names."""
    events = [one for one in tapps_otel.events("r") if one.event_type in STARTS]
    return {one.span_id for one in events}, {one.trace_id for one in events}


def check(collector: Choosy, last: Done) -> None:
    spans, traces = started()
    missing = spans - set(collector.ids)
    arrived = [one for one in collector.ids if one in spans]
    said = last.out + last.err

    assert len(traces) == 1
    assert len(arrived) == len(set(arrived))
    if missing:
        assert "tapps-otel send" in said or "refused" in said or "cannot send spans to" in said
    else:
        assert "refused" not in said
    with choosy("http/protobuf", lambda _: False) as back:
        assert send(back).code == 0
        assert sorted(back.ids) == sorted(map(str, spans))


@pytest.mark.parametrize(
    ("way", "provider", "state"), sample(product(WAYS, PROVIDERS, COLLECTORS), 6)
)
def test_every_span_arrives_once_or_is_named(way: str, provider: str, state: str) -> None:
    before, after = PROVIDERS[provider]
    text = PROGRAM.replace("BEFORE", before).replace('"AFTER"', repr(after))
    text = text.replace("AFTER", after.replace("\n", "\n    ") or "pass")
    Path("program.py").write_text(text, "utf-8")
    with collector_in(state) as collector:
        if way == "plain":
            done = program(collector, state)
        else:
            killed = program(collector, state, KILL="1")
            assert killed.code == -signal.SIGKILL, killed.err
            done = send(collector) if "sent" in way else program(collector, state)
        assert done.code == (7 if "sent" in way and state != "up" else 0), done.err
        check(collector, done)
        if state == "up" and (provider != "no-op" or "sent" in way):
            assert set(started()[0]) <= set(collector.ids)
        if state == "refusing a span":
            assert "step bad" not in collector.accepted
