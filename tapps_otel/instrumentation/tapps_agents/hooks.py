"""What each watched function of tapps-agents tells. Loaded with the first of their modules."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

from tapps_otel import settings
from tapps_otel.instrumentation.execution import attempt_here, call_of, is_enabled
from tapps_otel.instrumentation.guarding import Wrapper, guarded
from tapps_otel.instrumentation.spec import Seen
from tapps_otel.instrumentation.tapps_agents import bridge, definition
from tapps_otel.instrumentation.tapps_agents.adapter import READING
from tapps_otel.instrumentation.tapps_agents.batch import Batch
from tapps_otel.instrumentation.tapps_agents.execution import (
    TappsCarrying,
    by_hand,
    carry,
    end_by_hand,
    here,
)
from tapps_otel.instrumentation.tapps_agents.executor_state import bond_of
from tapps_otel.instrumentation.tapps_agents.restore import correct, prepare
from tapps_otel.instrumentation.watching import see

__all__ = ["WRAPPERS"]


# -- a run


def _execute(execute: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    """Around ``execute()``, and around Cursor's ``run()``, which it may call."""
    around = here()
    if (around is not None and not around.opened) or not is_enabled():
        return execute(*args, **kwargs)
    return carry(partial(execute, *args, **kwargs), see(execute, executor, args, kwargs))


def _initialize(initialize: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    carrying = _to_open()
    if carrying is None:
        return initialize(*args, **kwargs)
    failed = True
    try:
        target = initialize(*args, **kwargs)
        failed = False
    finally:
        carrying.begin_on(executor, failed=failed)
    return target


async def _initialize_cursor(initialize: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    carrying = _to_open()
    if carrying is None:
        return await initialize(*args, **kwargs)
    failed = True
    try:
        target = await initialize(*args, **kwargs)
        failed = False
    finally:
        carrying.begin_on(executor, failed=failed)
    return target


def _to_open() -> TappsCarrying | None:
    carrying = here()
    return None if carrying is None or carrying.opened else carrying


def _start(start: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    bond = bond_of(executor)
    if bond.kept is not None and executor.state is bond.kept:
        return bond.kept
    end_by_hand(executor, "cancelled")
    try:
        return start(*args, **kwargs)
    finally:
        bond.fresh = executor.state


async def _start_cursor(start: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    bond = bond_of(executor)
    if bond.kept is not None and executor.state is bond.kept:
        return bond.kept
    end_by_hand(executor, "cancelled")
    try:
        return await start(*args, **kwargs)
    finally:
        bond.fresh = executor.state


def _load_workflow(load: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    workflow = load(*args, **kwargs)
    with guarded("a workflow's source is not logged"):
        path = see(load, executor, args, kwargs).arguments["workflow_path"]
        bond_of(executor).loaded = definition.load(Path(path), workflow)
    return workflow


def _load_last_state(load: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    """If that is asked for: what is completed comes from the log, and without a snapshot all."""
    if not (is_enabled() and settings.current().executor_state_from_log):
        return load(*args, **kwargs)
    try:
        state = load(*args, **kwargs)
    except (ValueError, OSError):  # torn, or not there
        with guarded("no state could be made from a log"):
            made = prepare(executor)
            if made is not None:
                return made
        raise
    with guarded("the log does not say what is completed"):
        correct(executor, state)
    return state


# -- steps


def _execute_parallel(execute: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    carrying = here()
    if carrying is None or carrying.run is None:
        return execute(*args, **kwargs)
    return _execute_batch(execute, carrying, see(execute, executor, args, kwargs))


async def _execute_batch(execute: Any, carrying: TappsCarrying, seen: Seen) -> Any:
    given = dict(seen.arguments)
    batch = Batch(carrying, given.pop("execute_fn"))
    results: Any = ()
    try:
        results = await execute(given.pop("steps"), batch, **given)
    finally:
        batch.settle(results)
    return results


def _find_handler(find: Any, _: Any, args: Any, kwargs: Any) -> Any:
    handler = find(*args, **kwargs)
    if handler is None:
        attempt, carrying = attempt_here(), here()
        # Cursor's executor asks a skill then; the other one does nothing, and calls it done.
        if attempt is not None and carrying is not None and not carrying.in_cursor_mode:
            agent, action = (*args, *kwargs.values(), None, None)[:2]
            attempt.skip_reason = f"no handler for agent {agent!r} and action {action!r}"
    return handler


def _can_execute_step(check: Any, _: Any, args: Any, kwargs: Any) -> Any:
    can, reason = found = check(*args, **kwargs)
    attempt = attempt_here()
    if not can and attempt is not None:
        attempt.skip_reason = str(reason)
    return found


async def _process_results(process: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    stop = await process(*args, **kwargs)
    carrying = bond_of(executor).carrying
    if carrying is not None and carrying.run is not None:
        with guarded("a skip is not logged"):
            given = see(process, executor, args, kwargs).arguments
            for result in given["results"]:
                if result.error and result.step.id in given["completed_step_ids"]:
                    seen = Seen(executor, {"step": result.step})
                    reason = _last_decision(executor, result)
                    carrying.run.skip_step(*call_of(READING, seen), reason)
    return stop


def _last_decision(executor: Any, result: Any) -> str:
    """Why their executor goes on after a failure."""
    history = executor.auto_progression.get_progression_history(result.step.id)
    return history[-1].reason if history else f"it failed and is passed over: {result.error}"


# -- calls by hand, and calls of other threads


def _mark_step_complete(mark: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    seen = see(mark, executor, args, kwargs)
    step_id = seen.arguments.get("step_id") or getattr(executor.state, "current_step", None)
    done = mark(*args, **kwargs)
    attempt = attempt_here()
    if attempt is not None and attempt.spec.name == step_id:
        return done  # their own code, inside that step, which ends by itself
    with guarded("a step that was marked complete is not logged"):
        given = seen.arguments.get("artifacts") or ()
        made = {str(one.get("name", at)): one for at, one in enumerate(given)}
        described = Seen(executor, {"step": _step_of(executor, step_id)}, made)
        call = call_of(READING, described)
        _tell(executor, lambda run: run.mark_step(*call, READING.artifacts(described)))
    return done


def _skip_step(skip: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    seen = see(skip, executor, args, kwargs)
    step_id = seen.arguments.get("step_id") or getattr(executor.state, "current_step", None)
    done = skip(*args, **kwargs)
    with guarded("a skip is not logged"):
        call = call_of(READING, Seen(executor, {"step": _step_of(executor, step_id)}))
        _tell(executor, lambda run: run.skip_step(*call, "skipped by hand"))
    return done


def _pause_workflow(pause: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    done = pause(*args, **kwargs)
    bond = bond_of(executor)
    if bond.carrying is not None or bond.by_hand is not None:
        with guarded("a pause is not logged"):
            _tell(executor, lambda run: run.annotate("tapps.pause", {}))
    return done


def _tell(executor: Any, tell: Any) -> None:
    """Tell the run that is being carried out, else the one that is driven by hand."""
    carrying = bond_of(executor).carrying
    if carrying is None:
        by_hand(executor, tell)
    elif carrying.run is not None:
        tell(carrying.run)


def _step_of(executor: Any, step_id: str | None) -> Any:
    return next(step for step in executor.workflow.steps if step.id == step_id)


# -- their own event log, if it is to be served by ours


def _emit_event(emit: Any, log: Any, args: Any, kwargs: Any) -> Any:
    if bridge.is_asked_for():
        with guarded("their event log is written as without us"):
            event = bridge.emit(log, see(emit, log, args, kwargs))
            if event is not None:
                return event
    return emit(*args, **kwargs)


def _read_events(read: Any, log: Any, args: Any, kwargs: Any) -> Any:
    if bridge.is_asked_for():
        given = see(read, log, args, kwargs).arguments
        found = bridge.read_ours(log, given["workflow_id"], given["limit"])
        if found is not None:
            return found
    return read(*args, **kwargs)


WRAPPERS: Final[dict[str, Wrapper]] = {
    "executor.WorkflowExecutor.execute": _execute,
    "executor.WorkflowExecutor._initialize_execution": _initialize,
    "executor.WorkflowExecutor._process_parallel_results": _process_results,
    "executor.WorkflowExecutor.start": _start,
    "executor.WorkflowExecutor.load_workflow": _load_workflow,
    "executor.WorkflowExecutor.load_last_state": _load_last_state,
    "executor.WorkflowExecutor.mark_step_complete": _mark_step_complete,
    "executor.WorkflowExecutor.skip_step": _skip_step,
    "executor.WorkflowExecutor.pause_workflow": _pause_workflow,
    "parallel_executor.ParallelStepExecutor.execute_parallel": _execute_parallel,
    "agent_handlers.registry.AgentHandlerRegistry.find_handler": _find_handler,
    "event_log.WorkflowEventLog.emit_event": _emit_event,
    "event_log.WorkflowEventLog.read_events": _read_events,
    "cursor_executor.CursorWorkflowExecutor.run": _execute,
    "cursor_executor.CursorWorkflowExecutor._initialize_run": _initialize_cursor,
    "cursor_executor.CursorWorkflowExecutor._process_parallel_results": _process_results,
    "cursor_executor.CursorWorkflowExecutor._can_execute_step": _can_execute_step,
    "cursor_executor.CursorWorkflowExecutor.start": _start_cursor,
    "cursor_executor.CursorWorkflowExecutor.skip_step": _skip_step,
    "cursor_executor.CursorWorkflowExecutor.pause_workflow": _pause_workflow,
}
