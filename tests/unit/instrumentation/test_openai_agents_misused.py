"""OpenAI Agents continued from a state, several at once, and used in ways that go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from independent_checker import check
from tapps_otel import configure, history, instrument, list_runs, step, uninstrument, workflow

pytest.importorskip("agents", reason="needs openai-agents: pip install openai-agents")

from agents import (  # isort: skip - what is above may skip this
    Agent,
    ModelResponse,
    RunConfig,
    Runner,
    RunState,
    Usage,
    function_tool,
    set_trace_processors,
    trace,
)
from agents.models.interface import Model  # isort: skip
from openai.types.responses import (  # isort: skip
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

LOGS = Path("logs")
set_trace_processors([])  # nothing is sent to the provider of the models


class Script(Model):  # type: ignore[misc]
    """A model that calls a tool once, and then says what the tool returned."""

    async def get_response(self, *args: Any, **named: Any) -> ModelResponse:
        asked = named["input"] if "input" in named else args[1]
        done = [one for one in asked if isinstance(one, dict) and "output" in one]
        if done:
            text = ResponseOutputText(text=done[-1]["output"], type="output_text", annotations=[])
            answer: Any = ResponseOutputMessage(
                id="m1", type="message", role="assistant", status="completed", content=[text]
            )
        else:
            answer = ResponseFunctionToolCall(
                call_id="c1", name="work", arguments="{}", type="function_call"
            )
        return ModelResponse(output=[answer], usage=Usage(), response_id=None)

    async def stream_response(self, *args: Any, **named: Any) -> Any:
        made = await self.get_response(*args, **named)
        response = Response(
            id="r", created_at=0, model="m", object="response", output=made.output,
            parallel_tool_calls=False, tool_choice="none", tools=[],
        )  # fmt: skip
        yield ResponseCompletedEvent(
            type="response.completed", response=response, sequence_number=0
        )


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    configure(log_dir=LOGS, durability="os", spans=False, metrics=False)
    instrument("openai_agents")
    yield
    uninstrument("openai_agents")
    for path in LOGS.glob("*.jsonl"):
        check(path)


def desk(work: Callable[[], Any], **options: Any) -> Agent[Any]:
    """An agent with one tool."""

    async def tool() -> str:
        found = work()
        return str(await found if asyncio.iscoroutine(found) else found)

    made = function_tool(name_override="work", failure_error_function=None, **options)(tool)
    return Agent(name="desk", model=Script(), tools=[made])


def turn(group: str | None = "chat") -> RunConfig:
    return RunConfig(workflow_name="talk", group_id=group)


def statuses() -> dict[str, str]:
    return {one.workflow_id: one.status for one in list_runs()}


def executions(run: str) -> list[str]:
    return [one.status for one in history(run).executions]


# -- continued from a state


async def asked(agent: Agent[Any], config: RunConfig) -> RunState[Any]:
    """The state of a run that waits for an approval, which is given."""
    state = (await Runner.run(agent, "go", run_config=config)).to_state()
    for one in state.get_interruptions():
        state.approve(one)
    return state


@pytest.mark.parametrize("group", ["chat", None])
async def test_a_state_that_is_continued_is_the_next_execution(group: str | None) -> None:
    agent = desk(lambda: "done", needs_approval=True)
    state = await asked(agent, turn(group))

    result = await Runner.run(agent, state, run_config=turn(group))

    assert result.final_output == "done"
    ((run, status),) = statuses().items()
    assert status == "completed"
    assert executions(run) == ["completed", "completed"]
    assert [one.step_id for one in history(run).steps] == [
        "desk", "desk/work", "desk#2", "desk#2/work",
    ]  # fmt: skip


async def test_a_stream_that_continues_a_state_is_the_next_execution() -> None:
    agent = desk(lambda: "done", needs_approval=True)
    state = await asked(agent, turn())

    result = Runner.run_streamed(agent, state, run_config=turn())
    async for _ in result.stream_events():
        pass

    assert result.final_output == "done"
    assert statuses() == {"chat": "completed"}
    assert executions("chat") == ["completed", "completed"]


async def test_a_continued_state_that_fails_is_a_failed_execution() -> None:
    def fail() -> str:
        raise OSError("no disk")

    agent = desk(fail, needs_approval=True)
    state = await asked(agent, turn())
    with pytest.raises(Exception, match="no disk"):
        await Runner.run(agent, state, run_config=turn())

    assert executions("chat") == ["completed", "failed"]
    assert "no disk" in str(history("chat").error)


async def test_a_state_that_is_continued_after_another_turn_is_a_run_of_its_own() -> None:
    agent = desk(lambda: "done", needs_approval=True)
    state = await asked(agent, turn())
    await Runner.run(desk(lambda: "other"), "hello", run_config=turn())

    await Runner.run(agent, state, run_config=turn())

    assert statuses() == dict.fromkeys(("chat", "chat.2", "chat.3"), "completed")


async def test_two_runs_in_one_trace_are_one_run() -> None:
    with trace("both", group_id="chat"):
        for _ in range(2):
            await Runner.run(desk(lambda: "done"), "go")

    assert executions("chat") == ["completed"]
    assert [one.step_id for one in history("chat").steps] == [
        "desk", "desk/work", "desk#2", "desk#2/work",
    ]  # fmt: skip


# -- several at once, and many


async def test_turns_at_once_in_one_group_are_runs_of_their_own() -> None:
    met = asyncio.Barrier(3)

    async def work() -> str:
        await met.wait()
        return "met"

    agent = desk(work)
    done = await asyncio.gather(*(Runner.run(agent, "go", run_config=turn()) for _ in range(3)))

    assert [one.final_output for one in done] == ["met"] * 3
    assert statuses() == dict.fromkeys(("chat", "chat.2", "chat.3"), "completed")
    assert {len(history(run).steps) for run in statuses()} == {2}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_group_of_2000_turns() -> None:
    for _ in range(2000):
        with trace("talk", group_id="chat"):
            pass

    assert history("chat.2000").status == "completed"
    assert len(list(list_runs())) == 2000


async def test_a_turn_after_one_whose_log_is_damaged_is_logged() -> None:
    await Runner.run(desk(lambda: "done"), "go", run_config=turn())
    damaged = LOGS / "chat.jsonl"
    damaged.write_bytes(damaged.read_bytes().replace(b"talk", b"walk"))

    await Runner.run(desk(lambda: "done"), "go", run_config=turn())

    assert history("chat.2").status == "completed"
    damaged.unlink()


@pytest.mark.parametrize("group", ["../up", "a/b", "ä" * 300, "x.events"], ids=ascii)
async def test_any_group_id_is_taken(group: str) -> None:
    await Runner.run(desk(lambda: "done"), "go", run_config=turn(group))

    assert list(statuses().values()) == ["completed"]


# -- tools that end a run, and streams that are left


class Stop(BaseException):
    """What is no exception."""


async def test_what_is_no_exception_passes_and_ends_the_run() -> None:
    error = Stop("now")

    def stop() -> str:
        raise error

    with pytest.raises(Stop) as caught:
        await Runner.run(desk(stop), "go", run_config=turn())

    assert caught.value is error
    assert "running" not in statuses().values()


async def test_a_cancelled_call_ends_its_run() -> None:
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(Runner.run(desk(hang), "go", run_config=turn()))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert len(statuses()) == 1
    assert "running" not in statuses().values()


async def test_a_cancelled_stream_ends_its_run() -> None:
    result = Runner.run_streamed(desk(lambda: "done"), "go", run_config=turn())
    async for _ in result.stream_events():
        result.cancel()

    assert list(statuses()) == ["chat"]
    assert "running" not in statuses().values()


# -- the hook


async def test_instrumented_twice_a_run_is_logged_once() -> None:
    instrument("openai_agents")
    await Runner.run(desk(lambda: "done"), "go", run_config=turn())

    assert statuses() == {"chat": "completed"}
    assert len(history("chat").steps) == 2


async def test_instrumented_while_running_the_rest_of_that_run_is_left_alone() -> None:
    uninstrument("openai_agents")

    def late() -> str:
        instrument("openai_agents")
        return "late"

    assert (await Runner.run(desk(late), "go", run_config=turn())).final_output == "late"
    assert statuses() == {}
    await Runner.run(desk(lambda: "done"), "go", run_config=turn())
    assert statuses() == {"chat": "completed"}


async def test_taken_back_while_running_the_run_ends() -> None:
    def take_back() -> str:
        uninstrument("openai_agents")
        return "taken back"

    await Runner.run(desk(take_back), "go", run_config=turn())
    await Runner.run(desk(lambda: "done"), "go", run_config=turn())

    assert statuses() == {"chat": "completed"}


async def test_a_log_that_cannot_be_opened_harms_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    LOGS.write_text("a file, not a folder")

    result = await Runner.run(desk(lambda: "done"), "go", run_config=turn())

    assert result.final_output == "done"
    assert "without a log" in caplog.text


# -- together with workflows of this package


async def test_agents_inside_a_workflow_are_a_run_of_their_own() -> None:
    @workflow(name="outer")
    async def outer() -> str:
        result = await Runner.run(desk(lambda: "done"), "go", run_config=turn())
        return str(result.final_output)

    assert await outer.options(workflow_id="outer-1")() == "done"
    assert statuses() == {"outer-1": "completed", "chat": "completed"}
    assert history("chat").trace_id == history("outer-1").trace_id


async def test_a_step_in_a_tool_is_a_step_of_the_tool() -> None:
    @step
    async def pay(amount: int) -> str:
        return f"paid {amount}"

    result = await Runner.run(desk(lambda: pay(7)), "go", run_config=turn())

    assert result.final_output == "paid 7"
    assert [one.step_id for one in history("chat").steps] == ["desk", "desk/work", "desk/work/pay"]


async def test_a_workflow_in_a_tool_is_a_run_of_its_own() -> None:
    @workflow(name="inner")
    async def inner() -> str:
        return "inner"

    named = inner.options(workflow_id="inner-1")
    result = await Runner.run(desk(named), "go", run_config=turn())

    assert result.final_output == "inner"
    assert statuses() == {"chat": "completed", "inner-1": "completed"}
    assert history("inner-1").trace_id == history("chat").trace_id
