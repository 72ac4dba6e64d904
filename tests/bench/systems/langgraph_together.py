"""LangGraph with SQLite checkpoints and ``durability="sync"``: nodes of 8 threads, and of one turn.

Each thread runs a graph of its own. The nodes of one turn (``Send``) are tasks of one event loop.
"""

from __future__ import annotations

import asyncio
import operator
import sqlite3
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from .common import CHUNK, Arguments, Floor, answer, arguments, result, together, wall_of_threads
from .langgraph_steps import build

THREADS = 8
WARM = 20


class Many(TypedDict):
    """How many nodes there are, and how many have ended."""

    n: int
    done: Annotated[int, operator.add]


def fan_out(saver: AsyncSqliteSaver) -> Any:
    """A graph that runs a node ``n`` times in one turn."""

    async def work(state: dict[str, int]) -> dict[str, int]:
        return {"done": len(result(state["i"])) > 0}

    def send(state: Many) -> list[Send]:
        return [Send("work", {"i": i}) for i in range(state["n"])]

    graph = StateGraph(Many)
    graph.add_node("work", work)
    graph.add_conditional_edges(START, send, ["work"])
    graph.add_edge("work", END)
    return graph.compile(checkpointer=saver)


async def in_gather(n: int, database: Path) -> float:
    """Nodes of one turn; their wall time."""
    async with AsyncSqliteSaver.from_conn_string(str(database)) as saver:
        graph = fan_out(saver)

        async def run(name: str, count: int) -> float:
            config = {"configurable": {"thread_id": name}}
            began = time.perf_counter()
            await graph.ainvoke({"n": count, "done": 0}, config, durability="sync")
            return time.perf_counter() - began

        await run("warm", WARM)
        return await run("timed", n)


def in_threads(n: int, saver: SqliteSaver) -> float:
    """Graphs of ``n`` nodes, one in each thread; their wall time."""

    def run(name: str, count: int) -> None:
        config = {"configurable": {"thread_id": name}, "recursion_limit": count + 10}
        build(count, None, saver).invoke({"i": 0, "last": {}}, config, durability="sync")

    run("warm", WARM)
    return wall_of_threads(THREADS, lambda i: run(f"timed-{i}", n))


def measure(args: Arguments) -> dict[str, float]:
    """What the option says."""
    floor, database = Floor(args.folder), args.folder / "langgraph.sqlite"
    floor.write(CHUNK)
    if args.option == "threads":
        count = args.n // THREADS * THREADS
        saver = SqliteSaver(sqlite3.connect(database, check_same_thread=False))
        seconds = in_threads(count // THREADS, saver)
    else:
        seconds, count = asyncio.run(in_gather(args.n, database)), args.n
    floor.write(CHUNK)
    return together(seconds, count, floor)


if __name__ == "__main__":
    answer("langgraph", "langgraph-checkpoint-sqlite", **measure(arguments()))
