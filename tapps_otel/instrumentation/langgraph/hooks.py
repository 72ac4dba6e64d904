"""The wrappers of LangGraph's functions, imported with the first of its modules that has one."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakMethod

from tapps_otel import settings
from tapps_otel.instrumentation.execution import is_enabled, step_spec, store_under
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.instrumentation.langgraph.adapter import (
    CHECKPOINT,
    EDITED,
    TURNS,
    is_a,
    place_of,
    question_of,
)
from tapps_otel.instrumentation.langgraph.attempts import Attempts
from tapps_otel.instrumentation.langgraph.invocation import Invocation, is_consumed
from tapps_otel.instrumentation.langgraph.turn import (
    NESTED,
    Turn,
    current_turn,
    effective_configurable,
)
from tapps_otel.instrumentation.method_call import MethodCall
from tapps_otel.instrumentation.stages import RunStage
from tapps_otel.instrumentation.streams import stream, stream_async
from tapps_otel.run.external_start import annotate_turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from tapps_otel.instrumentation.guarding import Original, Wrapper

__all__ = ["WRAPPERS"]

_editing: ContextVar[bool] = ContextVar("tapps_otel_langgraph_editing", default=False)


# -- turns


def _invoke(original: Original, graph: Any, args: Any, kwargs: Any) -> Any:
    with Invocation(graph):
        return original(*args, **kwargs)


async def _ainvoke(original: Original, graph: Any, args: Any, kwargs: Any) -> Any:
    with Invocation(graph):
        return await original(*args, **kwargs)


def _stream(original: Original, graph: Any, args: Any, kwargs: Any) -> Any:
    stage = _stage_of(graph, args, kwargs)
    work = original(*args, **kwargs)
    return work if stage is None or is_consumed(graph, stage) else stream(work, stage)


def _astream(original: Original, graph: Any, args: Any, kwargs: Any) -> Any:
    stage = _stage_of(graph, args, kwargs)
    work = original(*args, **kwargs)
    return work if stage is None or is_consumed(graph, stage) else stream_async(work, stage)


def _stage_of(graph: Any, args: Any, kwargs: Any) -> RunStage | None:
    """The run that a call of a graph is; ``None`` if it is not logged, or a part of a task."""
    if not is_enabled():
        return None
    state, config = (*args, None, None)[:2]
    configurable = effective_configurable(graph, kwargs.get("config", config))
    if NESTED in configurable:
        return None
    turn = Turn(graph, kwargs.get("input", state), configurable)
    return RunStage(TURNS, turn, MethodCall(turn, {}))


def _leave_loop(original: Original, loop: Any, args: Any, kwargs: Any) -> Any:
    try:
        return original(*args, **kwargs)
    finally:
        _note_loop(loop, *args)


async def _aleave_loop(original: Original, loop: Any, args: Any, kwargs: Any) -> Any:
    try:
        return await original(*args, **kwargs)
    finally:
        _note_loop(loop, *args)


def _note_loop(loop: Any, _: Any, error: BaseException | None, __: Any) -> None:
    """Note how a turn's loop has ended: paused or not, and at which checkpoint."""
    turn = current_turn()
    if turn is None or turn.run is None or loop.is_nested:
        return
    with guarded("the pause or the checkpoint of a run is not logged"):
        if is_a(error, "GraphInterrupt"):
            turn.is_paused = True
            turn.question = question_of(error)
        reached = loop.checkpoint_config["configurable"].get("checkpoint_id")
        if loop.checkpointer and reached:
            turn.run.annotate(CHECKPOINT, {"checkpoint_id": reached})


# -- tasks


def _run_task(original: Original, _: Any, args: Any, kwargs: Any) -> Any:
    with _logged(args[0]):
        return original(*args, **kwargs)


async def _arun_task(original: Original, _: Any, args: Any, kwargs: Any) -> Any:
    with _logged(args[0]):
        return await original(*args, **kwargs)


def _logged(task: Any) -> AbstractContextManager[None]:
    """A context in which the attempts of a task are logged, if they are to be."""
    turn = current_turn()
    # LangGraph's own task before the first node only writes the input into the state.
    return nullcontext() if turn is None or task.name == "__start__" else Attempts(task, turn)


def _enter_loop(original: Original, loop: Any, args: Any, kwargs: Any) -> Any:
    entered = original(*args, **kwargs)
    if loop.cache is not None:  # else each superstep would pay for what finds nothing
        match: Any = WeakMethod(loop.match_cached_writes)
        loop.match_cached_writes = lambda: _note_cached(match()())
    return entered


async def _aenter_loop(original: Original, loop: Any, args: Any, kwargs: Any) -> Any:
    entered = await original(*args, **kwargs)
    if loop.cache is not None:
        match: Any = WeakMethod(loop.amatch_cached_writes)

        async def amatch() -> Sequence[Any]:
            return _note_cached(await match()())

        loop.amatch_cached_writes = amatch
    return entered


def _note_cached(tasks: Sequence[Any]) -> Sequence[Any]:
    turn = current_turn()
    if tasks and turn is not None and turn.run is not None:
        with guarded("a cached task is not logged"):
            for task in tasks:
                turn.run.skip_step(place_of(task), step_spec(task.name), "its result is cached")
    return tasks


# -- edits of the state


def _update_state(original: Original, graph: Any, args: Any, kwargs: Any) -> Any:
    with _edit() as is_outermost:
        after = original(*args, **kwargs)
    if is_outermost:
        _note_edit(graph, kwargs.get("config", args[0] if args else None), after)
    return after


async def _aupdate_state(original: Original, graph: Any, args: Any, kwargs: Any) -> Any:
    with _edit() as is_outermost:
        after = await original(*args, **kwargs)
    if is_outermost:
        _note_edit(graph, kwargs.get("config", args[0] if args else None), after)
    return after


@contextmanager
def _edit() -> Iterator[bool]:
    """Tell whether this is the user's call: for a subgraph, a graph calls its own function."""
    is_outermost = not _editing.get()
    token = _editing.set(True)
    try:
        yield is_outermost
    finally:
        _editing.reset(token)


def _note_edit(graph: Any, before: Any, after: Any) -> None:
    """Annotate the last turn of a thread: its state was edited from outside."""
    if not is_enabled():
        return
    with guarded("an edit of a state is not logged"):
        edited = Turn(graph, None, effective_configurable(graph, before))
        if edited.thread is None:
            return
        attributes = {"checkpoint_id": after["configurable"].get("checkpoint_id")}
        if edited.checkpoint_id is not None:
            attributes |= {"from": edited.checkpoint_id}
        turn = current_turn()
        if turn is not None and turn.run is not None and turn.thread == edited.thread:
            turn.run.annotate(EDITED, attributes)
            return
        annotate_turn(store_under(None), edited.thread, EDITED, attributes, settings.current())


WRAPPERS: Final[dict[str, Wrapper]] = {
    "Pregel.invoke": _invoke,
    "Pregel.ainvoke": _ainvoke,
    "Pregel.stream": _stream,
    "Pregel.astream": _astream,
    "Pregel.bulk_update_state": _update_state,
    "Pregel.abulk_update_state": _aupdate_state,
    "run_with_retry": _run_task,
    "arun_with_retry": _arun_task,
    "SyncPregelLoop.__exit__": _leave_loop,
    "AsyncPregelLoop.__aexit__": _aleave_loop,
    "SyncPregelLoop.__enter__": _enter_loop,
    "AsyncPregelLoop.__aenter__": _aenter_loop,
}
