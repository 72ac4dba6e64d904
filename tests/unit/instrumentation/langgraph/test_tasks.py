"""Nodes and tasks as steps: attempts, fan-outs, subgraphs, caches, time-outs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from langgraph_graphs import VERSION, State, chain, compiled, on_thread, says
from tapps_otel import history

from langgraph.cache.memory import InMemoryCache  # isort: skip - what is above may skip this
from langgraph.checkpoint.memory import InMemorySaver  # isort: skip
from langgraph.func import entrypoint, task  # isort: skip
from langgraph.graph import END, START, StateGraph  # isort: skip
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, interrupt  # isort: skip

Story = Callable[..., list[str]]
EMPTY: dict[str, Any] = {"said": []}
AT_ONCE = {"initial_interval": 0.0, "jitter": False, "retry_on": Exception}
newest = pytest.mark.skipif(
    VERSION < (1, 2), reason="needs langgraph 1.2: pip install -U langgraph"
)


def steps(run: str = "t") -> list[tuple[str, list[str]]]:
    return [(one.step_id, [a.status for a in one.attempts]) for one in history(run).steps]


class Broken:
    """A node that fails the first times."""

    def __init__(self, times: int = 1) -> None:
        self.left = times

    def __call__(self, _: State) -> Any:
        if self.left:
            self.left -= 1
            raise OSError("broken")
        return {"said": ["mended"]}


# -- attempts


@pytest.mark.parametrize("call", ["invoke", "ainvoke"])
async def test_a_retry_is_an_attempt_of_the_same_step(call: str) -> None:
    graph = StateGraph(State)
    graph.add_node("a", Broken(2), retry_policy=RetryPolicy(**AT_ONCE))
    graph.add_edge(START, "a")

    outcome = getattr(graph.compile(), call)(EMPTY, on_thread("t"))

    assert (await outcome if call == "ainvoke" else outcome) == {"said": ["mended"]}
    assert steps() == [("a@1", ["failed", "failed", "completed"])]


def test_each_send_is_a_step_of_its_own() -> None:
    graph = StateGraph(State)
    graph.add_node("w", lambda state: {"said": [state]})
    graph.add_conditional_edges(START, lambda _: [Send("w", n) for n in "xyz"], ["w"])

    assert graph.compile().invoke(EMPTY, on_thread("t")) == {"said": ["x", "y", "z"]}

    assert sorted(steps()) == [(f"w@1.{n}", ["completed"]) for n in range(3)]
    assert {one.name for one in history("t").steps} == {"w"}


def test_nodes_of_a_subgraph_are_inside_the_node_that_calls_it() -> None:
    inner = chain(i=says("i")).compile()

    def twice(_: State) -> Any:
        return {"said": inner.invoke(EMPTY)["said"] + inner.invoke(EMPTY)["said"]}

    assert compiled(own=inner, twice=twice).invoke(EMPTY, on_thread("t"))["said"] == ["i", "i", "i"]

    assert steps() == [
        ("own@1", ["completed"]),
        ("own@1/i@1", ["completed"]),
        ("twice@2", ["completed"]),
        ("twice@2/i@1", ["completed"]),
        ("twice@2/1:i@1", ["completed"]),
    ]


def test_a_subgraph_with_a_thread_of_its_own_is_a_run_of_its_own() -> None:
    inner = compiled(i=says("i"))

    compiled(own=lambda _: inner.invoke(EMPTY, on_thread("child"))).invoke(EMPTY, on_thread("t"))

    assert steps() == [("own@1", ["completed"])]
    assert steps("child") == [("i@1", ["completed"])]
    assert history("child").trace_id == history("t").trace_id


def test_an_interrupt_in_a_subgraph_pauses_every_step_around_it() -> None:
    inner = chain(ask=lambda _: {"said": [interrupt("go on?")]}).compile()
    graph = compiled(outer=inner)

    graph.invoke(EMPTY, on_thread("t"))
    assert graph.invoke(Command(resume="yes"), on_thread("t")) == {"said": ["yes"]}

    both = ["paused", "completed"]
    assert steps() == [("outer@1", both), ("outer@1/ask@1", both)]


def test_a_command_for_the_parent_is_no_failure() -> None:
    def leave(_: State) -> Any:
        return Command(graph=Command.PARENT, goto="next", update={"said": ["left"]})

    graph = StateGraph(State)
    graph.add_node("sub", chain(leave=leave).compile())
    graph.add_node("next", says("next"))
    graph.add_edge(START, "sub")

    assert graph.compile().invoke(EMPTY, on_thread("t")) == {"said": ["left", "next"]}
    assert steps() == [
        ("sub@1", ["completed"]),
        ("sub@1/leave@1", ["completed"]),
        ("next@2", ["completed"]),
    ]
    assert history("t").status == "completed"


@pytest.mark.parametrize("call", ["invoke", "ainvoke"])
async def test_a_cached_task_is_skipped(call: str) -> None:
    graph = StateGraph(State)
    graph.add_node("a", says("a"), cache_policy=CachePolicy())
    graph.add_edge(START, "a")
    cached = graph.compile(cache=InMemoryCache())

    for _ in range(2):
        outcome = getattr(cached, call)(EMPTY, on_thread("t"))
        assert (await outcome if call == "ainvoke" else outcome) == {"said": ["a"]}

    assert [one.status for one in history("t").steps] == ["completed"]
    assert [one.status for one in history("t.2").steps] == ["skipped"]


@newest
async def test_a_time_out_of_a_node_is_a_time_out() -> None:
    from langgraph.errors import NodeTimeoutError

    async def hang(_: State) -> Any:
        await asyncio.Event().wait()

    graph = StateGraph(State)
    graph.add_node("hang", hang, timeout=0.01)
    graph.add_edge(START, "hang")

    with pytest.raises(NodeTimeoutError):
        await graph.compile().ainvoke(EMPTY, on_thread("t"))

    assert steps() == [("hang@1", ["timeout"])]


@newest
async def test_a_time_out_that_is_retried_is_a_time_out_too() -> None:
    tries: list[int] = []

    async def hang(_: State) -> Any:
        tries.append(len(tries))
        if len(tries) < 3:
            await asyncio.Event().wait()
        return {"said": ["in time"]}

    graph = StateGraph(State)
    graph.add_node("hang", hang, timeout=0.01, retry_policy=RetryPolicy(**AT_ONCE))
    graph.add_edge(START, "hang")

    assert await graph.compile().ainvoke(EMPTY, on_thread("t")) == {"said": ["in time"]}
    assert steps() == [("hang@1", ["timeout", "timeout", "completed"])]


async def test_a_cancelled_call_cancels_its_steps_and_its_run() -> None:
    begun = asyncio.Event()

    async def hang(_: State) -> Any:
        begun.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(compiled(hang=hang).ainvoke(EMPTY, on_thread("t")))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert steps() == [("hang@1", ["cancelled"])]
    assert history("t").status == "cancelled"


@newest
def test_the_handler_of_a_node_s_errors_is_a_step() -> None:
    graph = StateGraph(State)
    graph.add_node("a", Broken(), error_handler=lambda _: {"said": ["handled"]})
    graph.add_edge(START, "a")
    graph.add_edge("a", END)

    assert graph.compile().invoke(EMPTY, on_thread("t")) == {"said": ["handled"]}

    (failed, handler) = steps()
    assert failed == ("a@1", ["failed"])
    assert handler[1] == ["completed"]
    assert history("t").status == "completed"


# -- the functional API


@task  # type: ignore[untyped-decorator]
def double(number: int) -> int:
    return 2 * number


@task  # type: ignore[untyped-decorator]
async def adouble(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_a_task_is_a_step_inside_its_entrypoint() -> None:
    @entrypoint(checkpointer=InMemorySaver())  # type: ignore[untyped-decorator]
    def flow(count: int) -> list[int]:
        doubled = [one.result() for one in [double(n) for n in range(count)]]
        return [*doubled, interrupt("more?")]

    flow.invoke(2, on_thread("t"))
    assert flow.invoke(Command(resume=9), on_thread("t")) == [0, 2, 9]

    assert history("t").status == "completed"
    assert sorted(steps()) == [
        ("flow@0", ["paused", "completed"]),
        ("flow@0/double@0.0", ["completed"]),
        ("flow@0/double@0.1", ["completed"]),
    ]


async def test_async_tasks_run_side_by_side_inside_their_entrypoint() -> None:
    @entrypoint()  # type: ignore[untyped-decorator]
    async def flow(count: int) -> list[int]:
        found: list[int] = await asyncio.gather(*[adouble(n) for n in range(count)])
        return found

    assert await flow.ainvoke(3, on_thread("t")) == [0, 2, 4]
    assert sorted(steps())[1:] == [(f"flow@0/adouble@0.{n}", ["completed"]) for n in range(3)]


def test_an_entrypoint_may_return_before_its_task() -> None:
    returned = threading.Event()

    @task  # type: ignore[untyped-decorator]
    def late() -> None:
        assert returned.wait(60)

    @entrypoint()  # type: ignore[untyped-decorator]
    def flow(_: Any) -> str:
        late()
        returned.set()
        return "done"

    assert flow.invoke(1, on_thread("t")) == "done"
    assert sorted(steps()) == [
        ("flow@0", ["completed"]),
        ("flow@0/late@0.0", ["completed"]),
    ]
    assert history("t").status == "completed"
