"""Graphs of LangGraph that are killed, and continued by LangGraph's own means."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crashes import Effects, die, killed
from independent_checker import check
from langgraph_graphs import State, chain, on_thread, saved
from tapps_otel import configure, history, instrument, list_runs, step, uninstrument

from langgraph.checkpoint.sqlite import SqliteSaver  # isort: skip - see langgraph_graphs
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # isort: skip
from langgraph.func import entrypoint, task  # isort: skip
from langgraph.graph import START, StateGraph  # isort: skip
from langgraph.types import Send  # isort: skip

LOGS = Path(".tapps-agents/workflow-state/events")
DATABASE = "checkpoints.sqlite"
EMPTY: dict[str, Any] = {"said": []}


@pytest.fixture
def effects(tmp_path: Path) -> Iterator[Effects]:
    configure(durability="os", spans=False)
    instrument("langgraph")
    yield Effects(tmp_path / "effects")
    uninstrument("langgraph")
    for path in LOGS.glob("*.jsonl"):
        check(path)


def mortal(effects: Effects, name: str, *, deadly: bool = False) -> Callable[[Any], Any]:
    """A node that notes that it was called, and then says its name or ends the process."""

    def node(_: Any) -> Any:
        effects.note(name)
        if deadly:
            die()
        return {"said": [name]}

    return node


def line(effects: Effects, deadly: str | None = None) -> Any:
    return chain(**{name: mortal(effects, name, deadly=name == deadly) for name in "abc"})


def fan(effects: Effects, deadly: str | None = None) -> Any:
    graph = StateGraph(State)
    graph.add_node("w", lambda state: mortal(effects, state, deadly=state == deadly)(state))
    graph.add_node("z", mortal(effects, "z"))
    graph.add_conditional_edges(START, lambda _: [Send("w", name) for name in "abc"], ["w"])
    graph.add_edge("w", "z")
    return graph


class Functional:
    """An entrypoint that calls three tasks one after the other, as a builder of a graph."""

    def __init__(self, effects: Effects, deadly: str | None = None) -> None:
        self._effects, self._deadly = effects, deadly

    def compile(self, checkpointer: Any) -> Any:
        @task  # type: ignore[untyped-decorator]
        def say(name: str) -> list[str]:
            said: list[str] = mortal(self._effects, name, deadly=name == self._deadly)(0)["said"]
            return said

        @entrypoint(checkpointer=checkpointer)  # type: ignore[untyped-decorator]
        def flow(_: Any) -> Any:
            return {"said": [word for name in "abc" for word in say(name).result()]}

        return flow


SHAPES: dict[str, Any] = {"line": line, "fan": fan, "functional": Functional}


def call(builder: Any, state: Any, durability: str = "sync") -> Any:
    with saved(builder, DATABASE) as graph:
        return graph.invoke(state, on_thread("t"), durability=durability)


def tries() -> dict[str, int]:
    """How often the log says that each step was tried."""
    return {one.step_id: len(one.attempts) for one in history("t").steps}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_graph_that_is_killed_in_a_node_is_continued_as_the_next_execution(
    effects: Effects, shape: str
) -> None:
    make = SHAPES[shape]
    killed(lambda: call(make(effects, "b"), EMPTY))
    assert history("t").status == "interrupted"

    assert call(make(effects), None)["said"][:3] == ["a", "b", "c"]

    after = history("t")
    assert [one.status for one in after.executions] == ["interrupted", "completed"]
    assert {event["trace_id"] for event in check(LOGS / "t.jsonl") if "trace_id" in event} == {
        after.trace_id
    }
    assert effects.count("b") == 2
    assert len(effects.all) <= sum(tries().values())  # each start was in the log before
    if shape == "line":
        assert tries() == {"a@1": 1, "b@2": 2, "c@3": 1}
        assert effects.all == ["a", "b", "b", "c"]


def test_an_async_graph_that_is_killed_is_continued_as_the_next_execution(
    effects: Effects,
) -> None:
    async def go(builder: Any, state: Any) -> Any:
        async with AsyncSqliteSaver.from_conn_string(DATABASE) as saver:
            graph = builder.compile(checkpointer=saver)
            return await graph.ainvoke(state, on_thread("t"), durability="sync")

    killed(lambda: asyncio.run(go(line(effects, "b"), EMPTY)))

    assert asyncio.run(go(line(effects), None)) == {"said": ["a", "b", "c"]}
    assert effects.all == ["a", "b", "b", "c"]
    assert tries() == {"a@1": 1, "b@2": 2, "c@3": 1}
    assert [one.status for one in history("t").executions] == ["interrupted", "completed"]


def test_a_resume_that_is_killed_again_is_continued_again(effects: Effects) -> None:
    killed(lambda: call(line(effects, "b"), EMPTY))
    killed(lambda: call(line(effects, "b"), None))
    killed(lambda: call(line(effects, "c"), None))

    assert call(line(effects), None) == {"said": ["a", "b", "c"]}
    assert effects.all == ["a", "b", "b", "b", "c", "c"]
    assert tries() == {"a@1": 1, "b@2": 3, "c@3": 2}
    assert [one.status for one in history("t").executions][:3] == ["interrupted"] * 3


@pytest.mark.parametrize("event", ["step_start b@2", "step_finish b@2", "workflow_end"])
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_graph_that_is_killed_beside_an_event_of_its_log_is_continued(
    effects: Effects, event: str, side: Any
) -> None:
    at: dict[str, Any] = {side: event}
    killed(lambda: call(line(effects), EMPTY), **at)

    assert call(line(effects), None) == {"said": ["a", "b", "c"]}
    assert {one.status for one in list_runs()} == {"completed"}
    assert effects.count("a") == 1


def test_what_ran_twice_because_a_checkpoint_was_late_stands_twice_in_the_log(
    effects: Effects,
) -> None:
    """With the default durability, LangGraph saves while the next node is executed already."""
    begun = threading.Event()

    class Lagging(SqliteSaver):  # type: ignore[misc]
        def put(self, config: Any, checkpoint: Any, metadata: Any, versions: Any) -> Any:
            if metadata["step"] > 0:
                threading.Event().wait()
            done = super().put(config, checkpoint, metadata, versions)
            if metadata["step"] == 0:
                begun.set()
            return done

        def put_writes(self, *_: Any, **__: Any) -> None:
            threading.Event().wait()

    def doomed() -> None:
        def b(_: State) -> Any:
            assert begun.wait(60)
            die()

        with Lagging.from_conn_string(DATABASE) as saver:
            graph = chain(a=mortal(effects, "a"), b=b).compile(checkpointer=saver)
            graph.invoke(EMPTY, on_thread("t"), durability="async")

    killed(doomed)
    call(line(effects), None)

    assert effects.count("a") == 2
    (again,) = (one for one in history("t").steps if one.step_id == "a@1")
    assert [one.status for one in again.attempts] == ["completed", "completed"]


def test_a_step_in_a_node_that_is_killed_does_not_run_again(effects: Effects) -> None:
    @step
    def pay(amount: int) -> str:
        effects.note("paid")
        return f"paid {amount}"

    def shop(*, deadly: bool) -> Any:
        def buy(_: State) -> Any:
            receipt = pay(7)
            if deadly:
                die()
            return {"said": [receipt]}

        return chain(buy=buy)

    killed(lambda: call(shop(deadly=True), EMPTY))

    assert call(shop(deadly=False), None) == {"said": ["paid 7"]}
    assert effects.all == ["paid"]


def test_what_langgraph_has_lost_is_in_the_log(effects: Effects) -> None:
    """With ``durability="exit"`` it has nothing of a process that was killed."""
    killed(lambda: call(line(effects, "c"), EMPTY, "exit"))

    with pytest.raises(Exception, match="no input"):
        call(line(effects), None)

    assert [one.status for one in history("t").executions] == ["interrupted", "failed"]
    assert tries() == {"a@1": 1, "b@2": 1, "c@3": 1}
    assert call(line(effects), EMPTY) == {"said": ["a", "b", "c"]}
    assert {one.workflow_id: one.status for one in list_runs()} == {
        "t": "cancelled",
        "t.2": "completed",
    }
