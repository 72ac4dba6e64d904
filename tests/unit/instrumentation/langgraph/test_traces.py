"""The trace of a thread's turn, and programs that are not changed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from commands import LAUNCHER, environment
from independent_checker import check
from langgraph_graphs import State, compiled, on_thread
from tapps_otel import configure, history

from langgraph.types import Command, interrupt  # isort: skip - what is above may skip this

EMPTY: dict[str, Any] = {"said": []}
LOGS = Path(".tapps-agents/workflow-state/events")


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Gets the spans of this test's own provider."""
    configure(durability="os", spans=True, announce="off")
    made = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "test"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(made))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield made
    provider.shutdown()


def library(name: str) -> None:
    with trace.get_tracer("library").start_as_current_span(name):
        pass


async def test_spans_of_libraries_are_under_their_node(exporter: InMemorySpanExporter) -> None:
    def sync_node(_: State) -> Any:
        library("from sync_node")
        return {}

    async def async_node(_: State) -> Any:
        library("from async_node")
        return {}

    def pooled(_: State) -> Any:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(copy_context().run, library, "from pooled").result()
        return {}

    graph = compiled(sync_node=sync_node, async_node=async_node, pooled=pooled)
    async for _ in graph.astream(EMPTY, on_thread("t"), stream_mode="updates"):
        library("of the consumer")

    spans: Any = exporter.get_finished_spans()
    steps = {one.context.span_id: one for one in spans if one.name.startswith("step ")}
    assert len(steps) == 3
    for one in spans:
        if one.name.startswith("from "):
            assert steps[one.parent.span_id].name == f"step {one.name.removeprefix('from ')}"
        if one.name == "of the consumer":
            assert one.parent is None


def test_a_pause_does_not_split_the_trace_and_is_no_error(exporter: InMemorySpanExporter) -> None:
    graph = compiled(ask=lambda _: {"said": [interrupt("go on?")]})
    graph.invoke(EMPTY, on_thread("t"))
    graph.invoke(Command(resume="yes"), on_thread("t"))

    spans: Any = exporter.get_finished_spans()
    assert len({one.context.trace_id for one in spans}) == 1
    assert StatusCode.ERROR not in {one.status.status_code for one in spans}


APP = """
import operator, os, signal, sys
from typing import Annotated, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph


class State(TypedDict):
    said: Annotated[list[str], operator.add]


def draft(state):
    return {"said": ["draft"]}


def publish(state):
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"said": ["published"]}


builder = StateGraph(State)
builder.add_node(draft)
builder.add_node(publish)
builder.add_edge(START, "draft")
builder.add_edge("draft", "publish")
with SqliteSaver.from_conn_string("chats.sqlite") as saver:
    graph = builder.compile(checkpointer=saver)
    state = {"said": []} if sys.argv[1] == "killed" else None
    config = {"configurable": {"thread_id": "chat-7"}}
    print(graph.invoke(state, config, durability="sync"))
"""


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LAUNCHER, sys.executable, *arguments],
        env=environment(
            OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="none"
        ),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.slow
def test_an_unmodified_program_that_is_killed_is_one_run_and_one_trace() -> None:
    Path("app.py").write_text(APP)

    assert launch("app.py", "killed").returncode == -signal.SIGKILL
    done = launch("app.py", "continued")

    assert done.stdout == "{'said': ['draft', 'published']}\n", done.stderr
    run = history("chat-7")
    assert [one.status for one in run.executions] == ["interrupted", "completed"]
    assert [(one.name, len(one.attempts)) for one in run.steps] == [("draft", 1), ("publish", 2)]
    traces = {event["trace_id"] for event in check(LOGS / "chat-7.jsonl") if "trace_id" in event}
    assert traces == {run.trace_id}
