"""Unchanged programs of agent frameworks, killed in a tool and continued, as Jaeger shows them.

Each is what the framework's own documentation would show, with a library that makes spans in the
tool. The framework's own means continue it: a checkpointer, a saved state, saved messages.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import tapps_otel
from commands import LAUNCHER, LOGS, child, environment
from independent_checker import check
from stack import Span, Stack

pytestmark = pytest.mark.stack

TOOL = """
import os, signal, sqlite3
from pathlib import Path


def look_up(city):
    pages = sqlite3.connect("pages.sqlite")
    (found,) = pages.cursor().execute("SELECT 'rain'").fetchone()
    if not Path("killed").exists():
        Path("killed").touch()
        for _ in range(100):  # what is killed takes longer than what continues it
            pages.cursor().execute("PRAGMA page_size")
        os.kill(os.getpid(), signal.SIGKILL)
    pages.close()
    return found
"""
LANGGRAPH = """
import operator
from typing import Annotated, TypedDict
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph


class State(TypedDict):
    messages: Annotated[list[str], operator.add]


def model(state):
    return {"messages": ["search"]}


def search(state):
    return {"messages": [look_up("Oslo")]}


builder = StateGraph(State)
builder.add_node("model", model)
builder.add_node("search", search)
builder.add_edge(START, "model")
builder.add_edge("model", "search")
with SqliteSaver.from_conn_string("checkpoints.sqlite") as saver:
    graph = builder.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "THREAD"}}
    state = None if graph.get_state(config).next else {"messages": ["What is the weather?"]}
    print(graph.invoke(state, config, durability="sync")["messages"][-1])
"""
OPENAI_AGENTS = """
import asyncio
from agents import (
    Agent, ModelResponse, RunConfig, Runner, RunState, Usage, function_tool, set_trace_processors,
)
from agents.models.interface import Model
from openai.types.responses import (
    ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText,
)


class Script(Model):
    async def get_response(self, *args, **named):
        asked = named["input"]
        if isinstance(asked, str) or asked[-1].get("type") != "function_call_output":
            answer = ResponseFunctionToolCall(
                call_id="c1", name="search", arguments='{"city": "Oslo"}', type="function_call"
            )
        else:
            text = ResponseOutputText(text=asked[-1]["output"], type="output_text", annotations=[])
            answer = ResponseOutputMessage(
                id="m1", type="message", role="assistant", status="completed", content=[text]
            )
        return ModelResponse(output=[answer], usage=Usage(), response_id=None)

    def stream_response(self, *args, **named):
        raise NotImplementedError


@function_tool(needs_approval=True)
def search(city: str) -> str:
    return look_up(city)


async def main():
    agent = Agent(name="desk", model=Script(), tools=[search])
    config = RunConfig(workflow_name="trips", group_id="THREAD")
    saved = Path("state.json")
    if saved.exists():
        state = await RunState.from_string(agent, saved.read_text())
    else:
        result = await Runner.run(agent, "What is the weather?", run_config=config)
        state = result.to_state()
        saved.write_text(state.to_string())
    for one in state.get_interruptions():
        state.approve(one)
    print((await Runner.run(agent, state, run_config=config)).final_output)


asyncio.run(main())
"""
PYDANTIC_AI = """
import asyncio
from pydantic_ai import Agent, ModelMessagesTypeAdapter
from pydantic_ai.models.test import TestModel

agent = Agent(TestModel(), name="weather")


@agent.tool_plain
def search(city: str) -> str:
    return look_up(city)


async def main():
    saved = Path("messages.json")
    past = ModelMessagesTypeAdapter.validate_json(saved.read_bytes()) if saved.exists() else None
    prompt = None if past else "What is the weather?"
    async with agent.iter(prompt, message_history=past, conversation_id="THREAD") as run:
        async for _ in run:
            saved.write_bytes(ModelMessagesTypeAdapter.dump_json(run.all_messages()))
    print(run.result.output)


asyncio.run(main())
"""
DURABLE = """
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel
from tapps_otel import step, workflow

search = step(name="search")(look_up)
agent = Agent(TestModel(), name="weather", tools=[search])


@workflow(name="trip")
def trip(wish: str) -> str:
    return agent.run_sync(wish).output


print(trip.options(workflow_id="THREAD")("to Oslo"))
"""
PROGRAMS = {
    "langgraph": ("langgraph.checkpoint.sqlite", LANGGRAPH),
    "openai_agents": ("agents", OPENAI_AGENTS),
    "pydantic_ai": ("pydantic_ai", PYDANTIC_AI),
    "durable": ("pydantic_ai", DURABLE),
}
# In a program that is started as always: the tool's library is instrumented by the program.
ONE_LINE = """
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
SQLite3Instrumentor().instrument()
from tapps_otel import instrument; instrument("{name}")
"""
STARTS = {"workflow_start", "workflow_resume", "step_start"}
WAYS = pytest.mark.parametrize("zero_code", [False, True], ids=["one line", "zero code"])


class Killed:
    """A program that was killed in its tool, and started once more.

    :ivar said: what it printed then
    """

    def __init__(self, framework: str, thread: str, stack: Stack, *, zero_code: bool) -> None:
        module, text = PROGRAMS[framework]
        if find_spec(module.partition(".")[0]) is None:
            pytest.skip(f"needs {framework}")
        name = "pydantic_ai" if framework == "durable" else framework
        before = "" if zero_code else ONE_LINE.format(name=name)
        Path("app.py").write_text(before + TOOL + text.replace("THREAD", thread), "utf-8")
        self._command = [*([LAUNCHER] if zero_code else []), sys.executable, "app.py"]
        self._env = environment(
            **stack.env(),
            OTEL_TRACES_EXPORTER="otlp,tapps_jsonl",
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
            OPENAI_API_KEY="",
        )
        assert self._start().returncode == -9
        self.said = self._start().stdout

    def _start(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command, env=self._env, capture_output=True, text=True, timeout=100, check=False
        )


def whole_trace(stack: Stack, run_id: str) -> list[Span]:
    """All spans of a run in Jaeger, once all are there: a whole trace, without warnings."""
    child("send", run_id, **stack.env())
    events = check(LOGS / f"{run_id}.jsonl")
    kinds = STARTS | {"span_start", "span"}
    spans = stack.spans(
        events[0]["trace_id"], {one["span_id"] for one in events if one["event_type"] in kinds}
    )

    assert {one["trace_id"] for one in events if "trace_id" in one} == {events[0]["trace_id"]}
    assert len({span.span_id for span in spans}) == len(spans)
    assert len([span for span in spans if span.parent is None]) == 1
    assert {span.parent for span in spans} - {None} <= {span.span_id for span in spans}
    assert [span.warnings for span in spans if span.warnings] == []
    against = child("verify", run_id, "--against", stack.jaeger_url)
    assert (against.code, against.err) == (0, "")
    assert "added on the way" not in against.out
    return spans


def above(spans: list[Span], name: str) -> list[str]:
    """The names of the spans that those of this name are under, in the order of their names."""
    names = {span.span_id: span.name for span in spans}
    return sorted(names[span.parent] for span in spans if span.name == name and span.parent)


@WAYS
def test_langgraph_continues_from_its_checkpoint(shared_stack: Stack, zero_code: bool) -> None:
    run_id = f"langgraph-{zero_code}"
    done = Killed("langgraph", run_id, shared_stack, zero_code=zero_code)
    run = tapps_otel.history(run_id)
    spans = whole_trace(shared_stack, run_id)

    assert done.said == "rain\n"
    assert [one.status for one in run.executions] == ["interrupted", "completed"]
    assert [(one.step_id, [a.status for a in one.attempts]) for one in run.steps] == [
        ("model@1", ["completed"]),
        ("search@2", ["interrupted", "completed"]),
    ]
    assert above(spans, "SELECT").count("step search") == 2


@WAYS
def test_openai_agents_continue_from_a_saved_state(shared_stack: Stack, zero_code: bool) -> None:
    run_id = f"agents-{zero_code}"
    done = Killed("openai_agents", run_id, shared_stack, zero_code=zero_code)
    run = tapps_otel.history(run_id)
    spans = whole_trace(shared_stack, run_id)

    assert done.said == "rain\n"
    assert [one.status for one in run.executions] == ["completed", "interrupted", "completed"]
    assert [(one.step_id, one.status) for one in run.steps] == [
        ("desk", "completed"),  # it asks for an approval
        ("desk/search", "completed"),
        ("desk#2", "interrupted"),
        ("desk#2/search", "interrupted"),
        ("desk#3", "completed"),
        ("desk#3/search", "completed"),
    ]
    assert above(spans, "SELECT") == ["step search"] * 2


@WAYS
def test_pydantic_ai_continues_from_its_messages(shared_stack: Stack, zero_code: bool) -> None:
    first = f"pydantic-{zero_code}"
    done = Killed("pydantic_ai", first, shared_stack, zero_code=zero_code)

    assert done.said == '{"search":"rain"}\n'
    for run_id, status in ((first, "interrupted"), (f"{first}.2", "completed")):
        assert tapps_otel.history(run_id).status == status
        spans = whole_trace(shared_stack, run_id)
        assert above(spans, "SELECT") == ["execute_tool search"]


@WAYS
def test_pydantic_ai_in_a_workflow_resumes(shared_stack: Stack, zero_code: bool) -> None:
    run_id = f"durable-{zero_code}"
    done = Killed("durable", run_id, shared_stack, zero_code=zero_code)
    run = tapps_otel.history(run_id)
    spans = whole_trace(shared_stack, run_id)

    assert done.said == '{"look_up":"rain"}\n'
    assert [one.status for one in run.executions] == ["interrupted", "completed"]
    assert [(one.step_id, [a.status for a in one.attempts]) for one in run.steps] == [
        ("search", ["interrupted", "completed"])
    ]
    assert above(spans, "SELECT") == ["step search"] * 2
    assert above(spans, "invoke_agent weather") == ["workflow trip"] * 2
