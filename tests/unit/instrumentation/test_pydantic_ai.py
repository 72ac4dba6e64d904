"""Pydantic AI, watched by its own spans, with its own test models."""

from __future__ import annotations

import signal
import subprocess

import pytest

from commands import LOGS, run_program
from tapps_otel import history, list_runs, timeline
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.run_spans import RunSpans

pytest.importorskip("pydantic_ai", reason="pydantic-ai-slim is not installed")

PROGRAM = """
import os, signal, sys
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

helper = Agent(TestModel(custom_output_text="rain"), name="helper")
agent = Agent(TestModel(call_tools=["forecast"]), name="weather")


@agent.tool_plain
async def forecast(city: str) -> str:
    if "die" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    if "fail" in sys.argv:
        raise ValueError("no network")
    return (await helper.run(f"What about {city}?")).output


first = agent.run_sync("What is the weather?", conversation_id="chat-1")
again = agent.run_sync("And now?", message_history=first.all_messages())
print(first.output, again.output)
"""
ONE_LINE = "from tapps_otel import instrument; instrument('pydantic_ai')\n"


WAYS = pytest.mark.parametrize("zero_code", [False, True], ids=["one line", "zero code"])


def run(*arguments: str, zero_code: bool) -> subprocess.CompletedProcess[str]:
    text = PROGRAM if zero_code else ONE_LINE + PROGRAM
    return run_program(text, *arguments, zero_code=zero_code)


@WAYS
def test_the_turns_of_a_conversation_are_runs(zero_code: bool) -> None:
    done = run(zero_code=zero_code)
    plain = run_program(PROGRAM)

    assert done.stdout == plain.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert {one.workflow_id: one.status for one in list_runs()} == {
        "chat-1": "completed",
        "chat-1.2": "completed",
    }
    found = history("chat-1")
    assert found.name == "weather"
    assert [(one.step_id, one.agent, one.status) for one in found.steps] == [
        ("chat test", "weather", "completed"),
        ("execute_tool forecast", "weather", "completed"),
        ("execute_tool forecast/invoke_agent helper", "helper", "completed"),
        ("execute_tool forecast/invoke_agent helper/chat test", "helper", "completed"),
        ("chat test#2", "weather", "completed"),
    ]
    assert found.usage.calls == 3
    assert sum(one.usage.input_tokens for one in found.steps) == found.usage.input_tokens


@WAYS
def test_killed_in_a_tool_call(zero_code: bool) -> None:
    done = run("die", zero_code=zero_code)
    found = timeline("chat-1")
    spans = RunSpans(Store(LOGS), "chat-1")
    names = [one.span.name for one in spans]

    assert done.returncode == -signal.SIGKILL
    assert found.status == "interrupted"
    assert [(one.step_id, one.status) for one in found.steps] == [
        ("chat test", "completed"),
        ("execute_tool forecast", "interrupted"),
    ]
    assert sorted(names) == ["chat test", "execute_tool forecast", "invoke_agent weather"]


def test_a_tool_that_fails_is_a_failed_step() -> None:
    run("fail", zero_code=False)

    assert history("chat-1").status == "failed"
    assert history("chat-1").by_id["execute_tool forecast"].status == "failed"


def test_what_people_and_models_wrote_is_not_logged() -> None:
    run(zero_code=False)

    logged = (LOGS / "chat-1.jsonl").read_text()
    assert "What is the weather" not in logged
    assert "rain" not in logged


def test_the_program_may_have_what_was_written_logged() -> None:
    run_program(ONE_LINE + PROGRAM.replace("helper =", "Agent.instrument_all()\nhelper =", 1))

    assert "What is the weather" in (LOGS / "chat-1.jsonl").read_text()
    assert history("chat-1").status == "completed"
