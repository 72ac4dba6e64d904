"""LangGraph with its SQLite checkpointer and ``durability="sync"``: one graph step that is on disk.

The state holds the last result only: a state that collects them is written whole after every step.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

from .common import Arguments, Floor, against, answer, arguments, folder_bytes, result

WARM = 20


class State(TypedDict):
    """How far the run is, and what the last step returned."""

    i: int
    last: dict[str, object]


def build(n: int, floor: Floor | None, saver: SqliteSaver) -> Any:
    """A graph of one node that calls itself ``n`` times."""

    def work(state: State) -> State:
        if floor is not None:
            floor.tick(state["i"])
        return {"i": state["i"] + 1, "last": result(state["i"])}

    def go_on(state: State) -> str:
        return "work" if state["i"] < n else END

    graph = StateGraph(State)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_conditional_edges("work", go_on, ["work", END])
    return graph.compile(checkpointer=saver)


def run(n: int, floor: Floor | None, saver: SqliteSaver) -> float:
    """Wall time of one run of ``n`` steps."""
    graph = build(n, floor, saver)
    config = {"configurable": {"thread_id": f"bench-{n}"}, "recursion_limit": n + 10}
    began = time.perf_counter()
    graph.invoke({"i": 0, "last": {}}, config, durability="sync")
    return time.perf_counter() - began


def stored(saver: SqliteSaver, database: Path) -> int:
    """The size of the database, its write-ahead log moved into it first."""
    saver.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder_bytes([database])


def measure(args: Arguments) -> dict[str, float]:
    """Mean time of a durable step."""
    database = args.folder / "langgraph.sqlite"
    saver = SqliteSaver(sqlite3.connect(database, check_same_thread=False))
    run(WARM, None, saver)
    before, floor = stored(saver, database), Floor(args.folder)
    numbers = against(run(args.n, floor, saver), args.n, floor)
    return {**numbers, "bytes_per_step": (stored(saver, database) - before) / args.n}


if __name__ == "__main__":
    answer("langgraph", "langgraph-checkpoint-sqlite", **measure(arguments()))
