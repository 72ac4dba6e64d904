"""Graphs of the real LangGraph for tests; these are skipped where it is not installed."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any, TypedDict

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # 0.6 uses what newer parts of it announce to change
    pytest.importorskip(
        "langgraph.checkpoint.sqlite",
        reason="needs LangGraph: pip install langgraph langgraph-checkpoint-sqlite",
    )
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.graph import END, START, StateGraph

__all__ = ["VERSION", "State", "chain", "compiled", "on_thread", "saved", "says"]

VERSION = tuple(map(int, version("langgraph").split(".")[:2]))


class State(TypedDict):
    """What the nodes said, in the order in which LangGraph took it."""

    said: Annotated[list[str], operator.add]


Node = Callable[..., Any]


def says(word: str) -> Node:
    """A node that says a word."""
    return lambda _: {"said": [word]}


def chain(**nodes: Any) -> Any:
    """A graph builder whose nodes follow each other."""
    graph = StateGraph(State)
    before = START
    for name, node in nodes.items():
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    graph.add_edge(before, END)
    return graph


def compiled(**nodes: Any) -> Any:
    """The same, compiled with a checkpointer in memory."""
    return chain(**nodes).compile(checkpointer=InMemorySaver())


def on_thread(name: str, **more: Any) -> dict[str, Any]:
    """The config of a call on a thread."""
    return {"configurable": {"thread_id": name, **more}}


@contextmanager
def saved(builder: Any, path: str = "checkpoints.sqlite") -> Iterator[Any]:
    """A graph with a checkpointer that survives the process."""
    with SqliteSaver.from_conn_string(path) as saver:
        yield builder.compile(checkpointer=saver)
