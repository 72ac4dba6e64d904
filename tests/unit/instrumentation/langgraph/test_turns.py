"""Turns of a thread as runs: how they begin, pause, continue and end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from types import FrameType
from typing import Any

import pytest

from commands import Cli
from langgraph_graphs import VERSION, State, chain, compiled, on_thread, saved, says
from tapps_otel import configure, events, history, list_runs, step, workflow
from tapps_otel.instrumentation import instrument, report, uninstrument

from langgraph.errors import GraphRecursionError  # isort: skip - what is above may skip this
from langgraph.graph import END, START, StateGraph  # isort: skip
from langgraph.types import Command, interrupt  # isort: skip

Story = Callable[..., list[str]]
EMPTY: dict[str, Any] = {"said": []}


def statuses() -> dict[str, str]:
    return {one.workflow_id: one.status for one in list_runs()}


def asks(*questions: str) -> Callable[[State], Any]:
    return lambda _: {"said": [interrupt(question) for question in questions]}


def attempts(run: str) -> list[tuple[str, int, str]]:
    return [(s.step_id, a.number, a.status) for s in history(run).steps for a in s.attempts]


# -- runs


@pytest.mark.parametrize("call", ["invoke", "ainvoke"])
async def test_a_turn_is_a_run_and_each_node_a_step(story: Story, call: str) -> None:
    graph = compiled(a=says("a"), b=says("b"))

    outcome = getattr(graph, call)(EMPTY, on_thread("t"))

    assert (await outcome if call == "ainvoke" else outcome) == {"said": ["a", "b"]}
    assert story("t") == [
        "workflow_start",
        "step_start a@1 1",
        "step_finish a@1 1",
        "step_start b@2 1",
        "step_finish b@2 1",
        "annotation tapps.langgraph.checkpoint",
        "workflow_end completed",
    ]
    assert history("t").workflow["executor"] == "langgraph"


@pytest.mark.parametrize("call", ["invoke", "stream"])
def test_a_call_that_a_callback_makes_of_its_graph_is_a_run_of_its_own(call: str) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    graph = compiled(a=says("a"))

    class Calls(BaseCallbackHandler):  # type: ignore[misc] # Any where it is not installed
        def on_chain_start(self, *_: Any, **__: Any) -> None:
            if "inner" not in statuses():
                list(getattr(graph, call)(EMPTY, on_thread("inner")))

    config = {**on_thread("outer"), "callbacks": [Calls()]}
    assert graph.invoke(EMPTY, config) == {"said": ["a"]}

    assert statuses() == {"outer": "completed", "inner": "completed"}
    assert attempts("outer") == attempts("inner") == [("a@1", 1, "completed")]


def test_a_call_without_its_input_is_no_run() -> None:
    with pytest.raises(TypeError, match="input"):
        compiled(a=says("a")).invoke()

    assert statuses() == {}


def test_each_input_on_a_thread_is_a_run_of_its_own() -> None:
    graph = compiled(a=says("a"))

    for _ in range(3):
        graph.invoke(EMPTY, on_thread("chat-7"))

    assert statuses() == {"chat-7": "completed", "chat-7.2": "completed", "chat-7.3": "completed"}


def test_without_a_thread_a_run_gets_an_id_of_its_own() -> None:
    chain(a=says("a")).compile(name="letters").invoke(EMPTY)

    (run,) = list_runs()
    assert run.workflow_id.startswith("letters")
    assert run.status == "completed"


def test_nothing_of_the_state_is_logged() -> None:
    compiled(a=says("secret-1")).invoke({"said": ["secret-2"]}, on_thread("t"))

    assert "secret" not in "".join(map(str, events("t")))


def test_a_state_that_cannot_be_serialised_is_not_touched() -> None:
    graph = chain(a=lambda _: {"said": [object]}).compile()

    assert graph.invoke({"said": [print]}, on_thread("t")) == {"said": [print, object]}
    assert statuses() == {"t": "completed"}


def test_switched_off_nothing_is_logged() -> None:
    configure(enabled=False)

    assert compiled(a=says("a")).invoke(EMPTY, on_thread("t")) == {"said": ["a"]}
    configure(enabled=True)
    assert statuses() == {}


# -- pauses


def test_an_interrupt_is_a_pause_and_its_answer_the_next_execution() -> None:
    graph = compiled(a=says("a"), ask=asks("go on?"))

    graph.invoke(EMPTY, on_thread("t"))
    paused = history("t")
    assert (paused.status, paused.question) == ("paused", None)
    assert graph.invoke(Command(resume="yes"), on_thread("t")) == {"said": ["a", "yes"]}

    assert [one.status for one in history("t").executions] == ["paused", "completed"]
    assert attempts("t") == [
        ("a@1", 1, "completed"),
        ("ask@2", 1, "paused"),
        ("ask@2", 2, "completed"),
    ]
    assert statuses() == {"t": "completed"}


def test_its_question_is_logged_if_a_setting_asks_for_that() -> None:
    configure(langgraph_questions=True)

    compiled(ask=asks("go on?")).invoke(EMPTY, on_thread("t"))

    assert history("t").question == "go on?"


def test_two_interrupts_in_one_node_are_three_attempts() -> None:
    graph = compiled(ask=asks("first?", "second?"))

    graph.invoke(EMPTY, on_thread("t"))
    graph.invoke(Command(resume="1"), on_thread("t"))
    assert graph.invoke(Command(resume="2"), on_thread("t")) == {"said": ["1", "2"]}

    assert [status for _, _, status in attempts("t")] == ["paused", "paused", "completed"]
    assert len(history("t").executions) == 3


@pytest.mark.parametrize("where", ["interrupt_before", "interrupt_after"])
def test_a_static_breakpoint_is_a_pause(where: str) -> None:
    nodes: Any = {"a": says("a"), "b": says("b"), "c": says("c")}
    graph = compiled(**nodes)

    graph.invoke(EMPTY, on_thread("t"), **{where: ["b"]})
    assert history("t").status == "paused"
    assert graph.invoke(None, on_thread("t")) == {"said": ["a", "b", "c"]}

    assert [one.status for one in history("t").executions] == ["paused", "completed"]
    assert [a[2] for a in attempts("t")] == ["completed"] * 3


def test_a_new_input_over_a_paused_run_ends_it_and_begins_another() -> None:
    graph = compiled(ask=asks("go on?"))

    graph.invoke(EMPTY, on_thread("t"))
    graph.invoke(EMPTY, on_thread("t"))

    assert statuses() == {"t": "cancelled", "t.2": "paused"}


def test_show_gives_the_python_line_to_resume_with(cli: Cli) -> None:
    with saved(chain(ask=asks("go on?"))) as graph:
        graph.invoke(EMPTY, on_thread("t"))

    shown = " ".join(cli("show", "t").out.split())
    assert "graph.invoke(None, {'configurable': {'thread_id': 't'}})" in shown
    assert "Command(resume=ANSWER)" in shown
    assert "where its executor decides" in shown
    refused = cli("resume", "t")
    assert refused.code != 0
    assert "graph.invoke(None" in " ".join(refused.err.split())


def test_without_a_checkpointer_show_promises_no_resume(cli: Cli) -> None:
    with pytest.raises(ZeroDivisionError):
        chain(a=lambda _: 1 / 0).compile().invoke(EMPTY, on_thread("t"))

    assert "without a checkpointer" in " ".join(cli("show", "t").out.split())


# -- failures


def test_a_failed_run_is_continued_by_none() -> None:
    broken = [True]

    def b(_: State) -> Any:
        if broken:
            raise OSError(broken.pop())
        return {"said": ["b"]}

    graph = compiled(a=says("a"), b=b)
    with pytest.raises(OSError, match="True"):
        graph.invoke(EMPTY, on_thread("t"))
    assert history("t").status == "failed"

    assert graph.invoke(None, on_thread("t")) == {"said": ["a", "b"]}
    assert attempts("t") == [
        ("a@1", 1, "completed"),
        ("b@2", 1, "failed"),
        ("b@2", 2, "completed"),
    ]
    assert [one.status for one in history("t").executions] == ["failed", "completed"]


def test_a_resume_that_langgraph_refuses_is_a_failed_run() -> None:
    with pytest.raises(Exception, match="no input") as caught:
        compiled(a=says("a")).invoke(None, on_thread("t"))

    assert type(caught.value).__name__ == "EmptyInputError"
    assert "EmptyInputError" in str(history("t").error)
    assert history("t").status == "failed"


def test_the_recursion_limit_is_why_a_run_failed() -> None:
    graph = StateGraph(State)
    graph.add_node("a", says("a"))
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda _: "a", ["a", END])

    with pytest.raises(GraphRecursionError):
        graph.compile().invoke(EMPTY, {**on_thread("t"), "recursion_limit": 3})

    failed = history("t")
    assert failed.status == "failed"
    assert "Recursion limit of 3" in str(failed.error)
    assert [one.step_id for one in failed.steps] == ["a@1", "a@2", "a@3"]


def test_what_is_no_exception_passes_and_ends_the_run() -> None:
    def stop(_: State) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compiled(stop=stop).invoke(EMPTY, on_thread("t"))

    assert history("t").status in {"cancelled", "interrupted"}
    assert history("t").steps[0].status in {"cancelled", "interrupted"}


def test_ctrl_c_while_langgraph_takes_what_a_node_gave_interrupts_the_run() -> None:
    done: list[str] = []

    def note(_: State) -> Any:
        done.append("a")
        return {"said": ["a"]}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        module = str(frame.f_globals["__name__"])
        if frame.f_code.co_name != "invoke" or not module.startswith("langgraph.pregel"):
            return None
        if event == "line" and done:
            raise KeyboardInterrupt
        return trace

    with tracing(trace), pytest.raises(KeyboardInterrupt):
        compiled(a=note, b=says("b")).invoke(EMPTY, on_thread("t"))

    assert history("t").status == "interrupted"
    assert attempts("t") == [("a@1", 1, "completed")]


@contextmanager
def tracing(trace: Any) -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.skipif(VERSION < (1, 2), reason="needs langgraph 1.2: pip install -U langgraph")
def test_a_graph_that_was_asked_to_stop_is_paused() -> None:
    from langgraph.errors import GraphDrained
    from langgraph.runtime import RunControl

    control = RunControl()

    def last(_: State) -> Any:
        control.request_drain()
        return {"said": ["last"]}

    graph = compiled(last=last, b=says("b"))
    with pytest.raises(GraphDrained):
        graph.invoke(EMPTY, on_thread("t"), control=control)
    assert history("t").status == "paused"

    assert graph.invoke(None, on_thread("t")) == {"said": ["last", "b"]}
    assert [one.status for one in history("t").executions] == ["paused", "completed"]


# -- several turns, and many


def test_two_turns_at_once_on_a_thread_are_two_runs() -> None:
    both = Barrier(2, timeout=60)

    def meet(_: State) -> Any:
        both.wait()
        return {"said": ["met"]}

    graph = chain(meet=meet).compile()
    with ThreadPoolExecutor(2) as pool:
        turns = [pool.submit(graph.invoke, EMPTY, on_thread("t")) for _ in range(2)]
        assert [one.result() for one in turns] == [{"said": ["met"]}] * 2

    assert statuses() == {"t": "completed", "t.2": "completed"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thread_of_2000_turns() -> None:
    graph = chain(a=says("a")).compile()

    for _ in range(2000):
        graph.invoke(EMPTY, on_thread("t"))

    assert history("t.2000").status == "completed"
    assert len(list(list_runs())) == 2000


# -- time travel, and edits


def test_a_turn_from_an_earlier_checkpoint_is_a_fork() -> None:
    graph = compiled(a=says("a"), b=says("b"))
    graph.invoke(EMPTY, on_thread("t"))
    before_b = next(one for one in graph.get_state_history(on_thread("t")) if one.next == ("b",))

    assert graph.invoke(None, before_b.config) == {"said": ["a", "b"]}

    fork = history("t.2")
    assert fork.workflow["forked_from"] == "t"
    assert fork.workflow["checkpoint_id"] == before_b.config["configurable"]["checkpoint_id"]
    assert [one.name for one in fork.steps] == ["b"]
    assert history("t").status == "completed"


def test_the_checkpoint_that_a_paused_run_has_left_continues_it() -> None:
    graph = compiled(a=says("a"), ask=asks("go on?"))
    graph.invoke(EMPTY, on_thread("t"))

    graph.invoke(Command(resume="yes"), graph.get_state(on_thread("t")).config)

    assert statuses() == {"t": "completed"}


def test_after_an_edit_of_the_last_checkpoint_that_run_is_continued() -> None:
    graph = compiled(a=says("a"), ask=asks("go on?"))
    graph.invoke(EMPTY, on_thread("t"))

    last = graph.get_state(on_thread("t")).config
    edited = graph.update_state(last, {"said": ["edited"]}, as_node="a")
    graph.invoke(None, edited)

    assert statuses() == {"t": "paused"}


def test_an_edited_state_is_an_annotation_of_the_last_run(story: Story) -> None:
    graph = compiled(a=says("a"), ask=asks("go on?"))
    graph.invoke(EMPTY, on_thread("t"))

    edited = graph.update_state(on_thread("t"), {"said": ["edited"]}, as_node="a")
    assert story("t")[-1] == "annotation tapps.langgraph.state_edited"
    assert history("t").status == "paused"

    graph.invoke(None, edited)  # from the edited checkpoint, which is the last
    assert statuses() == {"t": "paused"}
    assert len(history("t").executions) == 2


async def test_an_edit_of_an_earlier_checkpoint_begins_a_fork() -> None:
    graph = compiled(a=says("a"), b=says("b"))
    await graph.ainvoke(EMPTY, on_thread("t"))
    before_b = next(one for one in graph.get_state_history(on_thread("t")) if one.next == ("b",))

    edited = await graph.aupdate_state(before_b.config, {"said": ["edited"]}, as_node="a")
    (note,) = (one for one in history("t").annotations if one.name.endswith("state_edited"))
    assert note.attributes["from"] == before_b.config["configurable"]["checkpoint_id"]
    assert "edited" in (await graph.ainvoke(None, edited))["said"]

    assert history("t.2").workflow["forked_from"] == "t"


# -- together with workflows of this package


def test_a_graph_inside_a_workflow_is_a_run_of_its_own(story: Story) -> None:
    @workflow(name="outer")
    def outer() -> list[str]:
        said: list[str] = compiled(a=says("a")).invoke(EMPTY, on_thread("t"))["said"]
        return said

    assert outer.options(workflow_id="outer-1")() == ["a"]
    assert "annotation tapps.run" in story("outer-1")
    assert history("t").status == "completed"
    assert history("t").trace_id == history("outer-1").trace_id


def test_a_workflow_inside_a_node_is_a_run_of_its_own() -> None:
    @workflow(name="inner")
    def inner() -> str:
        return "inner"

    graph = compiled(a=lambda _: {"said": [inner.options(workflow_id="inner-1")()]})

    assert graph.invoke(EMPTY, on_thread("t")) == {"said": ["inner"]}
    assert (history("t").status, history("inner-1").status) == ("completed", "completed")


def test_a_step_in_a_node_is_done_once_whatever_the_node_does() -> None:
    calls: list[str] = []

    @step
    def pay(amount: int) -> str:
        calls.append("paid")
        return f"paid {amount}"

    def buy(_: State) -> Any:
        receipt = pay(7)
        return {"said": [receipt, interrupt("ship it?")]}

    graph = compiled(buy=buy)
    graph.invoke(EMPTY, on_thread("t"))

    assert graph.invoke(Command(resume="yes"), on_thread("t")) == {"said": ["paid 7", "yes"]}
    assert calls == ["paid"]


# -- the hooks


def test_instrumenting_twice_logs_once() -> None:
    instrument("langgraph")

    compiled(a=says("a")).invoke(EMPTY, on_thread("t"))

    assert statuses() == {"t": "completed"}
    assert len(history("t").steps) == 1


def test_taken_back_while_running_the_graph_continues() -> None:
    def take_back(_: State) -> Any:
        uninstrument("langgraph")
        return {"said": ["taken back"]}

    graph = compiled(a=take_back, b=says("b"))

    assert graph.invoke(EMPTY, on_thread("t")) == {"said": ["taken back", "b"]}
    assert history("t").status == "completed"
    graph.invoke(EMPTY, on_thread("u"))
    assert statuses() == {"t": "completed"}


def test_instrumented_while_running_the_rest_of_that_run_is_left_alone() -> None:
    uninstrument("langgraph")

    def begin(_: State) -> Any:
        instrument("langgraph")
        return {"said": ["begun"]}

    graph = compiled(a=begin, b=says("b"))

    assert graph.invoke(EMPTY, on_thread("t")) == {"said": ["begun", "b"]}
    assert statuses() == {}
    graph.invoke(EMPTY, on_thread("t"))
    assert statuses() == {"t": "completed"}


@pytest.mark.parametrize(
    ("module", "path", "lost"),
    [
        ("_loop", "SyncPregelLoop.__enter__", "cache"),
        ("_loop", "SyncPregelLoop.__exit__", "checkpoint"),
        ("_runner", "run_with_retry", "steps"),
    ],
)
def test_a_missing_function_costs_only_what_depends_on_it(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    module: str,
    path: str,
    lost: str,
) -> None:
    from tapps_otel.instrumentation.langgraph import functions

    uninstrument("langgraph")
    hooked = {
        (f"{name}_gone" if name.endswith(f"{module}:{path}") else name): what
        for name, what in functions.HOOKED.items()
    }
    monkeypatch.setattr(functions, "HOOKED", hooked)
    with caplog.at_level(logging.WARNING):
        instrument("langgraph")

    assert f"has no {path}_gone" in caplog.text
    assert report("langgraph").hooks[f"langgraph.pregel.{module}.{path}_gone"] == "missing"
    assert compiled(a=says("a")).invoke(EMPTY, on_thread("t")) == {"said": ["a"]}
    assert history("t").status == "completed"
    assert len(history("t").steps) == (0 if lost == "steps" else 1)
    assert len(history("t").annotations) == (0 if lost == "checkpoint" else 1)
