"""The shapes of LangGraph's documentation: people in the loop, time travel, subgraphs, functions.

Each is run with a log and without one, and gives the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest

from langgraph_graphs import VERSION, State, chain, compiled, on_thread, says
from tapps_otel import history, list_runs, uninstrument

from langgraph.checkpoint.memory import InMemorySaver  # isort: skip - what is above may skip this
from langgraph.func import entrypoint, task  # isort: skip
from langgraph.graph import END, START, StateGraph  # isort: skip
from langgraph.store.base import BaseStore  # isort: skip
from langgraph.store.memory import InMemoryStore  # isort: skip
from langgraph.types import Command, interrupt  # isort: skip

EMPTY: dict[str, Any] = {"said": []}
T = on_thread("t")
Shape = Callable[[], list[Any]]


def asked(graph: Any, state: Any) -> list[Any]:
    """What a call asks, in the order of the questions."""
    graph.invoke(state, T)
    found = (one.value for one in graph.get_state(T).interrupts)
    return sorted(found, key=repr)


# -- people in the loop


def approve_or_reject() -> list[Any]:
    def review(_: State) -> Any:
        return Command(goto="send" if interrupt("send it?") == "yes" else "drop")

    graph = StateGraph(State)
    graph.add_node("review", review, destinations=("send", "drop"))
    graph.add_node("send", says("sent"))
    graph.add_node("drop", says("dropped"))
    graph.add_edge(START, "review")
    made = graph.compile(checkpointer=InMemorySaver())
    found = []
    for answer in ("yes", "no"):
        found += [asked(made, EMPTY), made.invoke(Command(resume=answer), T)["said"]]
    return found


def ask_until_it_is_valid() -> list[Any]:
    def age(_: State) -> Any:
        question = "how old?"
        while not str(answer := interrupt(question)).isdigit():
            question = f"{answer} is not a number; how old?"
        return {"said": [answer]}

    graph = compiled(age=age)
    return [
        asked(graph, EMPTY),
        asked(graph, Command(resume="old")),
        graph.invoke(Command(resume="7"), T),
    ]


def two_questions_at_once() -> list[Any]:
    def asks(name: str) -> Any:
        return lambda _: {"said": [f"{name}: {interrupt(name)}"]}

    graph = StateGraph(State)
    for name in ("left", "right"):
        graph.add_node(name, asks(name))
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    made = graph.compile(checkpointer=InMemorySaver())
    questions = asked(made, EMPTY)
    answers = {one.id: one.value.upper() for one in made.get_state(T).interrupts}
    return [questions, sorted(made.invoke(Command(resume=answers), T)["said"])]


def an_edited_state() -> list[Any]:
    made = chain(a=says("a"), b=says("b")).compile(
        checkpointer=InMemorySaver(), interrupt_before=["b"]
    )
    first = made.invoke(EMPTY, T)
    made.update_state(T, {"said": ["edited"]})
    return [first, made.invoke(None, T)]


# -- time travel


def _before(graph: Any, node: str) -> Any:
    return next(one for one in graph.get_state_history(T) if one.next == (node,)).config


def a_replay_from_a_checkpoint() -> list[Any]:
    graph = compiled(a=says("a"), b=says("b"), c=says("c"))
    return [graph.invoke(EMPTY, T), graph.invoke(None, _before(graph, "b")), graph.invoke(EMPTY, T)]


def a_branch_from_an_edited_checkpoint() -> list[Any]:
    graph = compiled(a=says("a"), b=says("b"))
    first = graph.invoke(EMPTY, T)
    edited = graph.update_state(_before(graph, "b"), {"said": ["instead"]}, as_node="a")
    return [first, graph.invoke(None, edited), graph.get_state(T).values]


def a_question_again_from_a_checkpoint() -> list[Any]:
    graph = compiled(a=says("a"), ask=lambda _: {"said": [interrupt("go on?")]})
    graph.invoke(EMPTY, T)
    found = [graph.invoke(Command(resume="yes"), T)]
    graph.invoke(None, _before(graph, "ask"))
    return [*found, graph.invoke(Command(resume="no"), T)]


# -- subgraphs


def a_question_in_a_subgraph() -> list[Any]:
    inner = chain(i=says("i"), ask=lambda _: {"said": [interrupt("inside?")]}).compile()
    graph = compiled(a=says("a"), inner=inner, b=says("b"))
    questions = asked(graph, EMPTY)
    (waiting,) = graph.get_state(T, subgraphs=True).tasks
    return [questions, waiting.state.next, graph.invoke(Command(resume="yes"), T)]


class Other(TypedDict):
    """A state that shares no key with that of the graph around it."""

    word: str


def a_subgraph_with_another_state() -> list[Any]:
    builder = StateGraph(Other)
    builder.add_node("shout", lambda state: {"word": state["word"].upper()})
    builder.add_edge(START, "shout")
    inner = builder.compile()

    def call(_: State) -> Any:
        return {"said": [inner.invoke({"word": "hello"})["word"]]}

    return [compiled(call=call).invoke(EMPTY, T)]


def a_subgraph_that_remembers() -> list[Any]:
    builder = chain(count=lambda state: {"said": [str(len(state["said"]))]})
    inner = builder.compile(checkpointer=True)
    graph = compiled(inner=lambda _: {"said": [inner.invoke(EMPTY)["said"][-1]]})
    return [graph.invoke(EMPTY, T), graph.invoke(EMPTY, T)]


# -- the functional API


@task  # type: ignore[untyped-decorator]
def write(topic: str) -> str:
    return f"about {topic}"


def an_entrypoint_that_remembers() -> list[Any]:
    @entrypoint(checkpointer=InMemorySaver())  # type: ignore[untyped-decorator]
    def total(number: int, *, previous: Any = None) -> Any:
        kept = number + (previous or 0)
        return entrypoint.final(value=previous, save=kept)

    return [total.invoke(number, T) for number in (1, 2, 3)]


def a_question_in_a_task() -> list[Any]:
    @task  # type: ignore[untyped-decorator]
    def ask(text: str) -> Any:
        return interrupt(f"publish {text}?")

    @entrypoint(checkpointer=InMemorySaver())  # type: ignore[untyped-decorator]
    def flow(topic: str) -> str:
        text = write(topic).result()
        return f"{text}: {ask(text).result()}"

    return [asked(flow, "rain"), flow.invoke(Command(resume="yes"), T)]


def a_failed_entrypoint_that_is_continued() -> list[Any]:
    calls: list[str] = []
    broken = [OSError("no disk")]

    @task  # type: ignore[untyped-decorator]
    def slow(topic: str) -> str:
        calls.append(topic)
        return f"about {topic}"

    @task  # type: ignore[untyped-decorator]
    def publish(text: str) -> str:
        if broken:
            raise broken.pop()
        return f"{text}: published"

    @entrypoint(checkpointer=InMemorySaver())  # type: ignore[untyped-decorator]
    def flow(topic: str) -> Any:
        return publish(slow(topic).result()).result()

    with pytest.raises(OSError, match="no disk"):
        flow.invoke("rain", T)
    return [flow.invoke(None, T), calls]


# -- what else they share


class Counted(TypedDict):
    """A state whose numbers are added."""

    count: Annotated[int, operator.add]


def a_store_across_threads() -> list[Any]:
    def visit(_: Counted, *, store: BaseStore) -> Any:
        seen = store.get(("visits",), "ann")
        visits = (seen.value["n"] if seen else 0) + 1
        store.put(("visits",), "ann", {"n": visits})
        return {"count": visits}

    builder = StateGraph(Counted)
    builder.add_node("visit", visit)
    builder.add_edge(START, "visit")
    graph = builder.compile(checkpointer=InMemorySaver(), store=InMemoryStore())
    return [graph.invoke({"count": 0}, on_thread(name)) for name in ("t", "u", "t")]


# Each shape, and the statuses of the executions of each of its runs.
SHAPES: dict[Shape, dict[str, list[str]]] = {
    approve_or_reject: {"t": ["paused", "completed"], "t.2": ["paused", "completed"]},
    ask_until_it_is_valid: {"t": ["paused", "paused", "completed"]},
    two_questions_at_once: {"t": ["paused", "completed"]},
    an_edited_state: {"t": ["paused", "completed"]},
    a_replay_from_a_checkpoint: {"t": ["completed"], "t.2": ["completed"], "t.3": ["completed"]},
    a_branch_from_an_edited_checkpoint: {"t": ["completed"], "t.2": ["completed"]},
    a_question_again_from_a_checkpoint: {
        "t": ["paused", "completed"],
        **(
            {"t.2": ["paused", "completed"]}
            if VERSION >= (1, 2)
            else {"t.2": ["completed"], "t.3": ["completed"]}  # these take the old answer again
        ),
    },
    a_question_in_a_subgraph: {"t": ["paused", "completed"]},
    a_subgraph_with_another_state: {"t": ["completed"]},
    a_subgraph_that_remembers: {"t": ["completed"], "t.2": ["completed"]},
    an_entrypoint_that_remembers: {"t": ["completed"], "t.2": ["completed"], "t.3": ["completed"]},
    a_question_in_a_task: {"t": ["paused", "completed"]},
    a_failed_entrypoint_that_is_continued: {"t": ["failed", "completed"]},
    a_store_across_threads: {"t": ["completed"], "t.2": ["completed"], "u": ["completed"]},
}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_a_shape_of_the_documentation_gives_the_same_without_a_log(shape: Shape) -> None:
    watched = shape()
    runs = {
        run.workflow_id: [one.status for one in history(run.workflow_id).executions]
        for run in list_runs()
    }
    uninstrument("langgraph")

    assert shape() == watched
    assert runs == SHAPES[shape]
