"""A node of LangGraph: without a checkpointer, with its SQLite one, and that one with our log.

Runs come in turns, so that all see the same moods of the disk. The node does nothing; what it costs
is LangGraph itself, a checkpoint that is on disk (``durability="sync"``), and what we add.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from typing import Any

from langgraph.checkpoint.sqlite import SqliteSaver

from tapps_otel import configure, instrument, uninstrument

from .common import Arguments, answer, arguments
from .langgraph_steps import build

STEPS = 250
"""Nodes of one run: many, so that what a run costs once is less than a hundredth of each node."""

WAYS = {  # the name of each: whether it has a checkpointer, and the durability of our log
    "bare": (False, None),
    "saved": (True, None),
    "unsynced": (True, "os"),
    "synced": (True, "commit"),
}


def _run(saver: SqliteSaver | None, durability: Any, thread: str) -> float:
    """Time of a node, in seconds."""
    if durability is not None:
        configure(durability=durability)
        instrument("langgraph")
    graph = build(STEPS, None, saver)
    config = {"configurable": {"thread_id": thread}, "recursion_limit": STEPS + 10}
    options = {"durability": "sync"} if saver else {}
    began = time.perf_counter()
    graph.invoke({"i": 0, "last": {}}, config, **options)
    took = time.perf_counter() - began
    uninstrument("langgraph")
    return took / STEPS


def measure(args: Arguments) -> dict[str, float]:
    """The median time of a node, each way, and what is added to it."""
    configure(log_dir=args.folder / "log", spans=False)
    database = sqlite3.connect(args.folder / "langgraph.sqlite", check_same_thread=False)
    saver = SqliteSaver(database)
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(-1, max(1, args.n // STEPS)):  # the first is for warming up
        for way, (saved, durability) in WAYS.items():
            found = _run(saver if saved else None, durability, f"{way}-{turn}")
            if turn >= 0:
                took[way].append(found)

    def added(way: str, to: str) -> float:
        pairs = zip(took[way], took[to], strict=True)
        return statistics.median(with_it - without for with_it, without in pairs) * 1e6

    return {
        **{f"{way}_us": statistics.median(took[way]) * 1e6 for way in WAYS},
        "checkpoint_us": added("saved", "bare"),
        "added_us": added("synced", "saved"),
        "added_unsynced_us": added("unsynced", "saved"),
    }


if __name__ == "__main__":
    answer("langgraph", "langgraph-checkpoint-sqlite", **measure(arguments()))
