"""OpenAI Agents, watched by its own tracing, with models that answer from a list."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from commands import LOGS, run_program
from independent_checker import check
from tapps_otel import history, list_runs, timeline

pytest.importorskip("agents", reason="openai-agents is not installed")

PROGRAM = """
import asyncio, os, signal, sys
from agents import (
    Agent, GuardrailFunctionOutput, ModelResponse, RunConfig, Runner, Usage, function_tool,
    input_guardrail, set_trace_processors,
)
from agents.models.interface import Model
from openai.types.responses import (
    Response, ResponseCompletedEvent, ResponseFunctionToolCall, ResponseOutputMessage,
    ResponseOutputText,
)


class Script(Model):
    def __init__(self, *answers):
        self.answers = list(answers)

    async def get_response(self, *args, **named):
        answer = self.answers.pop(0)
        if answer is None:
            raise RuntimeError("the model is down")
        return ModelResponse(output=[answer], usage=Usage(), response_id=None)

    async def stream_response(self, *args, **named):
        answer = await self.get_response()
        response = Response(
            id="r", created_at=0, model="m", object="response", output=answer.output,
            parallel_tool_calls=False, tool_choice="none", tools=[],
        )
        yield ResponseCompletedEvent(
            type="response.completed", response=response, sequence_number=0
        )


def say(text):
    content = [ResponseOutputText(text=text, type="output_text", annotations=[])]
    return ResponseOutputMessage(
        id="m", type="message", role="assistant", status="completed", content=content
    )


def call(name, arguments="{}"):
    return ResponseFunctionToolCall(
        call_id=f"call {name}", name=name, arguments=arguments, type="function_call"
    )


@function_tool
def forecast(city: str) -> str:
    if "die" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    return "rain"


@input_guardrail
async def polite(context, agent, text):
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered="rude" in str(text))


def ask(text, *answers):
    travel = Agent(name="travel", model=Script(say("Take an umbrella.")))
    desk = Agent(
        name="desk",
        model=Script(*answers),
        tools=[forecast],
        handoffs=[travel],
        input_guardrails=[polite],
    )
    config = RunConfig(workflow_name="trips", group_id="chat-1")
    return Runner.run_sync(desk, text, run_config=config).final_output
"""
TRIP = """
tool = call("forecast", '{"city": "Oslo"}')
print(ask("What to pack?", tool, call("transfer_to_travel")))
"""
QUIET = "set_trace_processors([])\n"  # nothing is sent to the provider of the models
ONE_LINE = "from tapps_otel import instrument; instrument('openai_agents')\n"


WAYS = pytest.mark.parametrize("zero_code", [False, True], ids=["one line", "zero code"])


def trip(*arguments: str, zero_code: bool) -> subprocess.CompletedProcess[str]:
    text = PROGRAM + ("" if zero_code else QUIET + ONE_LINE) + TRIP
    return run_program(text, *arguments, zero_code=zero_code, OPENAI_API_KEY="")


def run(text: str) -> subprocess.CompletedProcess[str]:
    return run_program(text, OPENAI_API_KEY="")


@WAYS
def test_agents_tools_and_hand_offs_are_steps(zero_code: bool) -> None:
    done = trip(zero_code=zero_code)
    found = history("chat-1")

    assert (done.returncode, done.stdout) == (0, "Take an umbrella.\n")
    assert (found.name, found.status) == ("trips", "completed")
    assert [(one.step_id, one.action, one.status) for one in found.steps] == [
        ("desk", "agent", "completed"),
        ("desk/polite", "guardrail", "completed"),
        ("desk/forecast", "function", "completed"),
        ("desk/handoff", "handoff", "completed"),
        ("travel", "agent", "completed"),
    ]
    assert "Oslo" not in (LOGS / "chat-1.jsonl").read_text()


@WAYS
def test_killed_in_a_tool_call(zero_code: bool) -> None:
    done = trip("die", zero_code=zero_code)
    found = timeline("chat-1")

    assert done.returncode == -signal.SIGKILL
    assert found.status == "interrupted"
    assert [(one.step_id, one.status) for one in found.steps] == [
        ("desk", "interrupted"),
        ("desk/polite", "completed"),
        ("desk/forecast", "interrupted"),
    ]


TURNS = """
for text, answer in (("hello", say("yes")), ("rude", say("yes")), ("hello", None)):
    try:
        ask(text, answer)
    except Exception as error:
        print(type(error).__name__)
"""


def test_each_turn_of_a_conversation_is_a_run() -> None:
    done = run(PROGRAM + QUIET + ONE_LINE + TURNS)

    assert done.stdout == "InputGuardrailTripwireTriggered\nRuntimeError\n"
    assert {one.workflow_id: one.status for one in list_runs()} == {
        "chat-1": "completed",
        "chat-1.2": "failed",
        "chat-1.3": "failed",
    }
    assert "tripwire triggered: polite" in (history("chat-1.2").error or {})["message"]
    assert "the model is down" in (history("chat-1.3").error or {})["message"]


def test_taken_back_nothing_is_logged() -> None:
    taken = "from tapps_otel import uninstrument; uninstrument('openai_agents')\n"
    done = run(PROGRAM + QUIET + ONE_LINE + taken + TRIP)

    assert done.stdout == "Take an umbrella.\n"
    assert list(list_runs()) == []


STREAM = """
from tapps_otel import current_run

def current():
    try:
        return current_run()
    except LookupError:
        return None


async def stream():
    result = Runner.run_streamed(Agent(name="desk", model=Script(say("yes"))), "hello")
    async for _ in result.stream_events():
        print("inside", current())
    print("after", current())

asyncio.run(stream())
"""


def test_the_consumer_of_a_stream_is_outside_its_run() -> None:
    done = run(PROGRAM + QUIET + ONE_LINE + STREAM)
    (found,) = list_runs()

    assert set(done.stdout.splitlines()) == {"inside None", "after None"}
    assert (found.status, found.workflow) == ("completed", "Agent workflow")
    assert [one.step_id for one in history(found.workflow_id).steps] == ["desk"]


def test_spans_of_libraries_are_under_their_step() -> None:
    tracer = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from tapps_otel import JsonlSpanProcessor
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(JsonlSpanProcessor())
"""
    inside = 'trace.get_tracer("http").start_span("GET").end()\n    return "rain"'
    run(tracer + PROGRAM.replace('return "rain"', inside) + QUIET + ONE_LINE + TRIP)
    events = check(LOGS / "chat-1.jsonl")
    by_span = {one.get("span_id"): one.get("step_id") for one in events if "step_id" in one}
    (span,) = [one for one in events if one["event_type"] == "span"]

    assert by_span[span["parent_span_id"]] == "desk/forecast"


def test_a_module_of_the_same_name_is_not_taken_for_it() -> None:
    Path("agents.py").write_text("mine = 1\n")
    done = run(ONE_LINE + "import agents\nprint(agents.mine, instrument('openai_agents'))\n")

    assert "1 openai_agents: not instrumented: agents has no add_trace_processor" in done.stdout
