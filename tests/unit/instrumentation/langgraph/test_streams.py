"""Streams of graphs: what is inside a run, what is outside, and what the consumer gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from langgraph_graphs import VERSION, State, chain, compiled, on_thread, says
from tapps_otel import current_run, current_step, history, list_runs, uninstrument

from langgraph.checkpoint.memory import InMemorySaver  # isort: skip - what is above may skip this
from langgraph.config import get_stream_writer  # isort: skip
from langgraph.types import Command, interrupt  # isort: skip

EMPTY: dict[str, Any] = {"said": []}
MODES = ["values", "updates", "messages", "custom", "debug", "checkpoints", "tasks"]


def here() -> str | None:
    """Which run and step the calling code belongs to."""
    try:
        return f"{current_run().workflow_id} {current_step().step_id}"
    except LookupError:
        return None


def where(_: State) -> Any:
    return {"said": [str(here())]}


def test_the_consumer_of_a_stream_is_outside_the_run() -> None:
    seen = []

    for item in compiled(a=where, b=where).stream(EMPTY, on_thread("t"), stream_mode="updates"):
        assert here() is None
        seen += [update["said"] for update in item.values()]

    assert seen == [["t a@1"], ["t b@2"]]


async def test_the_consumer_of_an_async_stream_is_outside_the_run() -> None:
    seen = []

    graph = compiled(a=where, b=where)
    async for item in graph.astream(EMPTY, on_thread("t"), stream_mode="updates"):
        assert here() is None
        seen += [update["said"] for update in item.values()]

    assert seen == [["t a@1"], ["t b@2"]]


def test_interleaved_streams_keep_apart() -> None:
    graph = compiled(a=where, b=where)
    streams = [graph.stream(EMPTY, on_thread(name), stream_mode="updates") for name in "xy"]

    items = [item for pair in zip(*streams, strict=True) for item in pair]
    assert [next(iter(one.values()))["said"] for one in items] == [
        ["x a@1"],
        ["y a@1"],
        ["x b@2"],
        ["y b@2"],
    ]
    for stream in streams:
        assert list(stream) == []
    assert {one.workflow_id: one.status for one in list_runs()} == {
        "x": "completed",
        "y": "completed",
    }


def test_a_stream_that_is_left_early_is_cancelled_and_can_be_continued() -> None:
    graph = compiled(a=says("a"), b=says("b"))

    stream = graph.stream(EMPTY, on_thread("t"), stream_mode="updates")
    assert next(stream) == {"a": {"said": ["a"]}}
    stream.close()
    assert history("t").status == "cancelled"

    assert graph.invoke(None, on_thread("t")) == {"said": ["a", "b"]}
    assert [one.status for one in history("t").executions] == ["cancelled", "completed"]


async def test_an_async_stream_that_is_left_early_is_cancelled() -> None:
    graph = compiled(a=says("a"), b=says("b"))

    stream = graph.astream(EMPTY, on_thread("t"), stream_mode="updates")
    assert await anext(stream) == {"a": {"said": ["a"]}}
    await stream.aclose()

    assert history("t").status == "cancelled"


def test_a_stream_that_is_never_begun_is_no_run() -> None:
    compiled(a=says("a")).stream(EMPTY, on_thread("t"))

    assert list(list_runs()) == []


# -- results are those of a graph that is not watched


def speak(_: State) -> Any:
    get_stream_writer()({"progress": 1})
    return {"said": ["spoken"]}


def ask(_: State) -> Any:
    return {"said": [interrupt("go on?")]}


def talkative() -> Any:
    inner = chain(speak=speak).compile()
    builder = chain(a=says("a"), inner=inner, ask=ask)
    return builder.compile(checkpointer=InMemorySaver())


def story_of(items: Iterator[Any]) -> list[Any]:
    """What a stream gives, without the ids and times that differ between two runs."""
    return [_without_ids(one) for one in items]


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        dropped = {"id", "timestamp", "config", "parent_config", "checkpoint", "metadata"}
        return {k: _without_ids(v) for k, v in value.items() if k not in dropped}
    if isinstance(value, list | tuple):
        return [_without_ids(one) for one in value]
    if isinstance(value, str) and ":" in value:
        return value.split(":")[0]  # a namespace ends with the task's id
    return value if isinstance(value, str | int | float | None) else type(value).__name__


@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize("mode", [*MODES, MODES])
def test_a_watched_stream_gives_what_an_unwatched_gives(mode: Any, subgraphs: bool) -> None:
    def both_turns() -> list[Any]:
        graph = talkative()
        options: Any = {"stream_mode": mode, "subgraphs": subgraphs}
        asked = story_of(graph.stream(EMPTY, on_thread("t"), **options))
        return asked + story_of(graph.stream(Command(resume="yes"), on_thread("t"), **options))

    watched = both_turns()
    assert history("t").status == "completed"
    uninstrument("langgraph")

    assert both_turns() == watched


@pytest.mark.parametrize("mode", [*MODES, MODES])
async def test_a_watched_async_stream_gives_what_an_unwatched_gives(mode: Any) -> None:
    async def both_turns() -> list[Any]:
        graph, found = talkative(), []
        for state in (EMPTY, Command(resume="yes")):
            items = graph.astream(state, on_thread("t"), stream_mode=mode, subgraphs=True)
            found += [_without_ids(item) async for item in items]
        return found

    watched = await both_turns()
    assert history("t").status == "completed"
    uninstrument("langgraph")

    assert await both_turns() == watched


async def test_events_of_langchain_are_those_of_an_unwatched_graph() -> None:
    async def names() -> list[tuple[str, str]]:
        found: AsyncIterator[Any] = talkative().astream_events(EMPTY, on_thread("t"), version="v2")
        return [(one["event"], one["name"]) async for one in found]

    watched = await names()
    assert history("t").status == "paused"
    uninstrument("langgraph")

    assert await names() == watched


@pytest.mark.skipif(VERSION < (1, 2), reason="needs langgraph 1.2: pip install -U langgraph")
@pytest.mark.filterwarnings("ignore")  # LangGraph calls it experimental
def test_a_stream_of_typed_events_is_a_run_too() -> None:
    run = compiled(a=says("a")).stream_events(EMPTY, on_thread("t"), version="v3")

    assert run.output == {"said": ["a"]}
    assert history("t").status == "completed"


async def test_batches_are_runs_side_by_side() -> None:
    configs: Any = [on_thread(name) for name in "xyz"]

    outcomes = await compiled(a=says("a")).abatch([EMPTY] * 3, configs)

    assert outcomes == [{"said": ["a"]}] * 3
    assert sorted(one.workflow_id for one in list_runs()) == ["x", "y", "z"]
