"""Reads ids, names and outcomes from LangGraph's calls: of turns as runs, of tasks as steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tapps_otel import settings
from tapps_otel.errors import TappsError
from tapps_otel.instrumentation.spec import Adapter
from tapps_otel.run import queries

if TYPE_CHECKING:
    from tapps_otel.instrumentation.langgraph.turn import Turn
    from tapps_otel.instrumentation.method_call import MethodCall
    from tapps_otel.log.store import RunSummary

__all__ = ["CHECKPOINT", "EDITED", "TASKS", "TURNS", "is_a", "place_of", "question_of"]

CHECKPOINT: Final = "tapps.langgraph.checkpoint"
EDITED: Final = "tapps.langgraph.state_edited"
_PUSHED: Final = "__pregel_push"  # begins the path of a task that a Send or a call has made
_ABANDONED: Final = frozenset({"paused", "answered", "failed", "interrupted"})


# -- what LangGraph raises


def is_a(error: BaseException | None, name: str) -> bool:
    """Whether an exception is of this class of LangGraph, which a version may lack."""
    from langgraph import errors

    kind = getattr(errors, name, None)
    return kind is not None and isinstance(error, kind)


def question_of(interrupt: BaseException | None) -> str | None:
    """What an interrupt asks, if it may be logged: it may be any part of the state."""
    asked = interrupt.args[0] if interrupt is not None and interrupt.args else ()
    if not (asked and settings.current().langgraph_questions):
        return None
    return "; ".join(str(one.value) for one in asked)


# -- turns


def _thread(call: MethodCall) -> str | None:
    turn: Turn = call.executor
    return turn.thread


def _name(call: MethodCall) -> str:
    return str(getattr(call.executor.executor, "name", None) or "LangGraph")


def _about(call: MethodCall) -> dict[str, Any]:
    turn: Turn = call.executor
    saver = getattr(turn.executor, "checkpointer", None)
    about: dict[str, Any] = {}
    if saver:
        about["checkpointer"] = type(saver).__name__
    if turn.checkpoint_id is not None:
        about["checkpoint_id"] = str(turn.checkpoint_id)
    return about


def _continues(call: MethodCall, last: RunSummary) -> str:
    turn: Turn = call.executor
    if turn.checkpoint_id is not None and turn.checkpoint_id != _head(last.workflow_id):
        return "fork"
    if turn.continues:
        return "new" if last.status in {"completed", "running"} else "resume"
    return "abandon_and_new" if last.status in _ABANDONED else "new"


def _head(workflow_id: str) -> str | None:
    """The checkpoint that a run's last execution has left; ``None`` if it has crashed."""
    try:
        history = queries.history(workflow_id)
    except TappsError:
        return None
    head = None
    for note in history.annotations:
        if note.seq < history.executions[-1].start_seq:
            continue
        # An edit of an earlier checkpoint begins another line of them.
        edited = note.name == EDITED and note.attributes.get("from", head) == head
        if edited or note.name == CHECKPOINT:
            head = note.attributes.get("checkpoint_id")
    return head


def _outcome(call: MethodCall) -> str:
    return "paused" if call.executor.is_paused else "completed"


def _raised(call: MethodCall) -> str | None:
    # A graph that was asked to stop at the next superstep, and can be continued.
    return "paused" if is_a(call.error, "GraphDrained") else None


TURNS: Final = Adapter(
    executor="langgraph",
    run_name=_name,
    about=_about,
    thread=_thread,
    continues=_continues,
    outcome=_outcome,
    raised=_raised,
    question=lambda call: call.executor.question,
    step_id=lambda _: "",
)


# -- tasks


def place_of(task: Any) -> str:
    """The id of a task's step in what encloses it: equal in each attempt, also after a resume.

    ``node@3`` in superstep 3, ``node@3.1`` for the second Send or call of it, and ``1:node@3`` in
    the second graph that a node calls.
    """
    config = task.config
    named = f"{task.name}@{config['metadata']['langgraph_step']}"
    index = _index(task.path)
    if index is not None:
        named = f"{named}.{index}"
    namespace = str(config["configurable"].get("checkpoint_ns", ""))
    nth = namespace.split("|")[-2] if "|" in namespace else ""
    return f"{nth}:{named}" if nth.isdigit() else named


def _index(path: Any) -> int | None:
    """The number of a task among those that were pushed by the same."""
    if not path or path[0] != _PUSHED:
        return None
    # The path of a task that another one calls has that one's path before its number.
    at = path[2] if len(path) > 2 and type(path[2]) is int else path[1]
    return at if isinstance(at, int) else _index(at)


def _status(call: MethodCall) -> str | None:
    words = {
        "GraphInterrupt": "paused",
        "ParentCommand": "completed",
        "NodeTimeoutError": "timeout",
    }
    return next((word for name, word in words.items() if is_a(call.error, name)), None)


TASKS: Final = Adapter(
    executor="langgraph",
    step_id=lambda call: place_of(call.executor),
    status=_status,
    question=lambda call: question_of(call.error),
)
