"""Graphs that are used in ways that go wrong: they do what they do without a log."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread
from typing import Any

import pytest

from langgraph_graphs import State, chain, compiled, on_thread, saved, says
from tapps_otel import history, list_runs, uninstrument, workflow

from langgraph.checkpoint.memory import InMemorySaver  # isort: skip - what is above may skip this
from langgraph.graph import START, StateGraph  # isort: skip
from langgraph.types import Command, interrupt  # isort: skip

EMPTY: dict[str, Any] = {"said": []}


class Stop(BaseException):
    """What is no exception, and none of Python's."""


def statuses() -> dict[str, str]:
    return {one.workflow_id: one.status for one in list_runs()}


def raises(error: BaseException) -> Callable[[State], Any]:
    def node(_: State) -> Any:
        raise error

    return node


def outcome(graph: Any, state: Any, thread: str) -> str:
    """What a call returns or raises, in words."""
    try:
        return repr(graph.invoke(state, on_thread(thread)))
    except Exception as error:  # noqa: BLE001 - whatever it is
        return f"{type(error).__name__}: {error}"


# -- what nodes raise and return


@pytest.mark.parametrize(
    ("call", "kind", "status"),
    [
        ("invoke", SystemExit, "interrupted"),
        ("invoke", Stop, "failed"),
        ("ainvoke", SystemExit, "cancelled"),  # asyncio cancels what else is in progress
        ("ainvoke", Stop, "failed"),
    ],
)
def test_what_is_no_exception_passes_unchanged(
    call: str, kind: type[BaseException], status: str
) -> None:
    error = kind("now")
    graph = compiled(a=says("a"), stop=raises(error))
    run: Any = graph.invoke
    if call == "ainvoke":
        run = lambda *args: asyncio.run(graph.ainvoke(*args))  # noqa: E731

    with pytest.raises(kind) as caught:
        run(EMPTY, on_thread("t"))

    assert caught.value is error
    assert history("t").status == status
    assert history("t").steps[0].status == "completed"
    assert history("t").steps[1].status != "completed"


def test_a_run_that_was_stopped_is_continued() -> None:
    broken = [Stop()]

    def once(_: State) -> Any:
        if broken:
            raise broken.pop()
        return {"said": ["b"]}

    graph = compiled(a=says("a"), b=once)
    with pytest.raises(Stop):
        graph.invoke(EMPTY, on_thread("t"))

    assert graph.invoke(None, on_thread("t")) == {"said": ["a", "b"]}
    assert len(history("t").executions) == 2
    assert statuses() == {"t": "completed"}


def test_a_state_that_cannot_be_stored_fails_as_without_a_log() -> None:
    def story(number: int) -> str:
        builder = chain(a=lambda _: {"said": [print]}, b=says("b"))
        with saved(builder, f"{number}.sqlite") as graph:
            return outcome(graph, {"said": [object]}, "t")

    watched = story(1)
    (status,) = statuses().values()
    uninstrument("langgraph")

    assert watched == story(2)
    assert (status == "failed") == ("Error" in watched)


def test_a_node_that_returns_what_the_graph_refuses_is_a_failed_run() -> None:
    graph = compiled(a=lambda _: 7)

    watched = outcome(graph, EMPTY, "t")
    uninstrument("langgraph")

    assert watched == outcome(graph, EMPTY, "u")
    assert "InvalidUpdateError" in watched
    assert history("t").status == "failed"


@pytest.mark.parametrize(
    "thread", ["", 7, "a/b", "../up", "ä" * 300, "x.events", "\ud800"], ids=ascii
)
def test_any_thread_id_is_taken(thread: Any) -> None:
    graph = chain(a=says("a")).compile()

    assert graph.invoke(EMPTY, on_thread(thread)) == {"said": ["a"]}
    (run,) = list_runs()
    assert run.status == "completed"


# -- streams that are left


def test_a_stream_that_is_dropped_is_cancelled() -> None:
    stream = compiled(a=says("a"), b=says("b")).stream(EMPTY, on_thread("t"))
    next(stream)

    del stream
    gc.collect()

    assert statuses() == {"t": "cancelled"}


def test_an_async_stream_that_is_dropped_is_cancelled() -> None:
    async def leave() -> None:
        async for _ in compiled(a=says("a"), b=says("b")).astream(EMPTY, on_thread("t")):
            break

    asyncio.run(leave())

    assert statuses() == {"t": "cancelled"}


def test_a_stream_may_be_finished_by_another_thread() -> None:
    stream = compiled(a=says("a"), b=says("b")).stream(EMPTY, on_thread("t"), stream_mode="updates")
    seen = [next(stream)]

    rest = Thread(target=lambda: seen.extend(stream))
    rest.start()
    rest.join()

    assert seen == [{"a": {"said": ["a"]}}, {"b": {"said": ["b"]}}]
    assert statuses() == {"t": "completed"}


def test_an_error_of_the_consumer_is_not_the_run_s() -> None:
    def consume() -> None:
        for _ in compiled(a=says("a"), b=says("b")).stream(EMPTY, on_thread("t")):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    gc.collect()

    assert history("t").status == "cancelled"
    assert [one.status for one in history("t").steps] == ["completed"]


# -- several at once


def test_two_answers_at_once_to_one_pause_are_two_runs() -> None:
    both = Barrier(2, timeout=60)

    def ask(_: State) -> Any:
        answer = interrupt("go on?")
        both.wait()
        return {"said": [answer]}

    graph = compiled(ask=ask)
    graph.invoke(EMPTY, on_thread("t"))
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(graph.invoke, Command(resume=word), on_thread("t")) for word in "xy"]
        said = sorted(one.result()["said"][0] for one in answers)

    assert said == ["x", "y"]
    assert statuses() == {"t": "completed", "t.2": "completed"}
    assert (len(history("t").executions), len(history("t.2").executions)) == (2, 1)


def test_an_input_while_a_turn_is_in_progress_is_a_run_of_its_own() -> None:
    graph: Any = None

    def again(state: State) -> Any:
        if not state["said"]:
            with ThreadPoolExecutor(1) as pool:  # as another request of the same conversation
                return pool.submit(graph.invoke, {"said": ["inner"]}, on_thread("t")).result()
        return {"said": []}

    graph = chain(again=again).compile()

    assert graph.invoke(EMPTY, on_thread("t")) == {"said": ["inner"]}
    assert statuses() == {"t": "completed", "t.2": "completed"}


async def test_many_threads_and_turns_at_once_keep_apart() -> None:
    graph = compiled(a=says("a"), b=says("b"))

    async def chat(name: str) -> None:
        for _ in range(3):
            await graph.ainvoke(EMPTY, on_thread(name))

    await asyncio.gather(*[chat(f"t-{n}") for n in range(8)])

    assert set(statuses().values()) == {"completed"}
    assert len(statuses()) == 24
    assert {len(history(run).steps) for run in statuses()} == {2}


# -- graphs and workflows of this package


def test_a_workflow_that_is_resumed_invokes_its_graph_again() -> None:
    broken = [OSError("no disk")]
    graph = compiled(a=says("a"))

    @workflow(name="outer")
    def outer() -> list[str]:
        said: list[str] = graph.invoke(EMPTY, on_thread("t"))["said"]
        if broken:
            raise broken.pop()
        return said

    with pytest.raises(OSError, match="no disk"):
        outer.options(workflow_id="outer-1")()

    assert outer.resume("outer-1") == ["a", "a"]
    assert statuses() == {"outer-1": "completed", "t": "completed", "t.2": "completed"}


def test_a_graph_that_calls_itself_on_its_own_thread_is_two_runs() -> None:
    graph: Any = None

    def outer(state: State) -> Any:
        return {"said": inner.invoke(EMPTY, on_thread("t"))["said"]}

    inner = chain(i=says("i")).compile(checkpointer=InMemorySaver())
    builder = StateGraph(State)
    builder.add_node("outer", outer)
    builder.add_edge(START, "outer")
    graph = builder.compile(checkpointer=InMemorySaver())

    assert graph.invoke(EMPTY, on_thread("t")) == {"said": ["i"]}
    assert set(statuses().values()) == {"completed"}
