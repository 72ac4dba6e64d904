"""The wrappers of tapps-agents' functions, imported with the first module that has one of them."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tapps_otel import settings
from tapps_otel.errors import DecryptionError, RunConflictError
from tapps_otel.instrumentation import registry
from tapps_otel.instrumentation.execution import current_attempt, describe_step, is_enabled
from tapps_otel.instrumentation.guarding import Original, Wrapper, guarded
from tapps_otel.instrumentation.method_call import MethodCall
from tapps_otel.instrumentation.tapps_agents import bridge, definition
from tapps_otel.instrumentation.tapps_agents.adapter import ADAPTER
from tapps_otel.instrumentation.tapps_agents.batch import Batch
from tapps_otel.instrumentation.tapps_agents.execution import (
    TappsExecution,
    current_tapps_execution,
    end_manual_run,
    end_variables,
    execute,
    record_manual_call,
    warn_once,
)
from tapps_otel.instrumentation.tapps_agents.executor_state import TARGET, executor_state
from tapps_otel.instrumentation.tapps_agents.restore import correct_state, restore_last_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapps_otel.run.external_run import ExternalRunRecorder

__all__ = ["OVERRIDE_WRAPPERS", "WRAPPERS"]


# -- a run


def _make(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    """For an executor's ``__init__()``: its class may have methods of its own."""
    with guarded("what a subclass overrides is not logged"):
        registry.cover(TARGET, type(executor))
    return original(*args, **kwargs)


def _execute(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    """For ``execute()``, and for the Cursor executor's ``run()``, which it may call."""
    outer = current_tapps_execution()
    is_inner = outer is not None and not outer.opened and not outer.is_override
    if is_inner or not is_enabled():
        return original(*args, **kwargs)
    if outer is not None and outer.is_override:
        outer.calls_base = True
    call = MethodCall.bind(original.function, executor, args, kwargs)
    return execute(partial(original, *args, **kwargs), call)


def _execute_override(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    """For a subclass's ``execute()`` or ``run()``.

    If it calls that of its base class, each such call is a run. Else its own call is one, which
    begins with the first of its calls that is logged.
    """
    outer = current_tapps_execution()
    is_inner = outer is not None and not outer.opened and outer.call.executor is executor
    if is_inner or not original.is_async or not is_enabled():
        return original(*args, **kwargs)
    call = MethodCall.bind(original.function, executor, args, kwargs)
    return execute(partial(original, *args, **kwargs), call, is_override=True)


def _initialize(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    with _opening(executor):
        return original(*args, **kwargs)


async def _initialize_cursor(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    with _opening(executor):
        return await original(*args, **kwargs)


@contextmanager
def _opening(executor: Any) -> Iterator[None]:
    """Open the run afterwards, if this is the start of an execution."""
    execution = current_tapps_execution()
    if execution is None or execution.opened:
        yield
        return
    _correct_loaded_state(executor)
    failed, before = True, executor.state
    try:
        with _target_kept(executor):
            yield
        failed = False
    finally:
        if executor.state is not before:  # also by a start() of a subclass
            executor_state(executor).new_state = executor.state
        execution.open_on(executor, failed=failed)


def _correct_loaded_state(executor: Any) -> None:
    """Correct a state that was given to the executor, if a setting asks for that.

    :raises RunConflictError: its run may not be resumed by this executor
    """
    known, state = executor_state(executor), executor.state
    is_loaded = state is not None and state is not known.own_state
    is_corrected = state is known.restored_state
    if is_loaded and not is_corrected and settings.current().executor_state_from_log:
        with _restoring("a loaded state could not be corrected from its log"):
            correct_state(executor, state)


def _restoring(what: str) -> guarded:
    """Guard what restores a state, but not its refusals: all steps would run again."""
    return guarded(what, passes=(RunConflictError, DecryptionError))


@contextmanager
def _target_kept(executor: Any) -> Iterator[None]:
    """Keep the target file that a step of a restored run chose: beginning again resets it."""
    state = _restored_state(executor)
    target = None if state is None else state.variables.get("target_file")
    yield
    if target is not None:
        state.variables["target_file"] = target


def _start(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    restored = _restored_state(executor)
    if restored is not None:
        return restored
    with _starting(executor):
        return original(*args, **kwargs)


async def _start_cursor(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    _take_over(executor)
    restored = _restored_state(executor)
    if restored is not None:
        return restored
    with _starting(executor):
        return await original(*args, **kwargs)


def _take_over(executor: Any) -> None:
    """Give a Cursor executor the restored state of the executor that made it to execute a run."""
    execution = current_tapps_execution()
    if execution is None or execution.opened or execution.call.executor is executor:
        return
    _correct_loaded_state(execution.call.executor)
    state = _restored_state(execution.call.executor)
    if state is not None:
        executor.state = executor_state(executor).restored_state = state


def _restored_state(executor: Any) -> Any:
    """The executor's state, if it was made from a log: no new one may replace it."""
    state = executor_state(executor).restored_state
    return state if state is executor.state else None


@contextmanager
def _starting(executor: Any) -> Iterator[None]:
    end_manual_run(executor)
    execution = current_tapps_execution()
    if execution is not None and not execution.opened:
        execution.executor = executor  # in Cursor mode, not the one that was called
    try:
        yield
    finally:
        known = executor_state(executor)
        known.own_state = known.new_state = executor.state


def _load_workflow(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    workflow = original(*args, **kwargs)
    with guarded("the source of a workflow is not logged"):
        call = MethodCall.bind(original.function, executor, args, kwargs)
        path = Path(call.arguments["workflow_path"])
        executor_state(executor).loaded = definition.describe_loaded(path, workflow)
    return workflow


def _load_last_state(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    """Correct the loaded state from the log, or replace it, if a setting asks for that."""
    if not (is_enabled() and settings.current().executor_state_from_log):
        return original(*args, **kwargs)
    try:
        state = original(*args, **kwargs)
    except (ValueError, OSError):  # torn, or missing
        with _restoring("no state could be made from a log"):
            restored = restore_last_run(executor)
            if restored is not None:
                return restored
        raise
    with _restoring("a loaded state could not be corrected from its log"):
        correct_state(executor, state)
    return state


# -- steps


def _execute_parallel(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    execution = _begun_execution()
    if execution is None or execution.run is None:
        return original(*args, **kwargs)
    call = MethodCall.bind(original.function, executor, args, kwargs)
    return _execute_batch(original, execution, call)


def _begun_execution() -> TappsExecution | None:
    """The execution that the calling code is part of; its run is open now, if it has a log."""
    execution = current_tapps_execution()
    if execution is not None:
        execution.begin()
    return execution


async def _execute_batch(original: Original, execution: TappsExecution, call: MethodCall) -> Any:
    arguments = dict(call.arguments)
    batch = Batch(execution, arguments.pop("execute_fn"))
    results: Any = ()
    try:
        results = await original(arguments.pop("steps"), batch, **arguments)
    finally:
        batch.settle(results)
    return results


def _find_handler(original: Original, _: Any, args: Any, kwargs: Any) -> Any:
    handler = original(*args, **kwargs)
    if handler is None:
        attempt, execution = current_attempt(), current_tapps_execution()
        # Without a handler, the Cursor executor uses a skill. The other one does nothing.
        if attempt is not None and execution is not None and not execution.in_cursor_mode:
            agent, action = (*args, *kwargs.values(), None, None)[:2]
            attempt.skip_reason = f"no handler for agent {agent!r} and action {action!r}"
    return handler


def _can_execute_step(original: Original, _: Any, args: Any, kwargs: Any) -> Any:
    can, reason = result = original(*args, **kwargs)
    attempt = current_attempt()
    if not can and attempt is not None:
        attempt.skip_reason = str(reason)
    return result


def _evaluate_gate(original: Original, _: Any, args: Any, kwargs: Any) -> Any:
    decision = original(*args, **kwargs)
    execution = current_tapps_execution()
    if execution is not None and decision.gate_passed is not None:
        with guarded("the result of a gate is not logged"):
            step = MethodCall.bind(original.function, None, args, kwargs).arguments["step"]
            gate = decision.metadata.get("gate_result") or {}
            execution.note_gate_after(step, decision.gate_passed, gate)
    return decision


async def _process_results(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    execution = _begun_execution()
    if execution is None or execution.run is None:
        return await original(*args, **kwargs)
    arguments = MethodCall.bind(original.function, executor, args, kwargs).arguments
    with guarded("steps of a batch are not logged"):
        execution.settle_batch(arguments["results"])
    stop = await original(*args, **kwargs)
    if execution.run is not None:
        with guarded("a skipped step is not logged"):
            for result in arguments["results"]:
                if result.error and result.step.id in arguments["completed_step_ids"]:
                    call = MethodCall(executor, {"step": result.step})
                    reason = _last_decision(executor, result)
                    execution.run.skip_step(*describe_step(ADAPTER, call), reason)
    return stop


def _last_decision(executor: Any, result: Any) -> str:
    """Why the executor continues after this failure."""
    decisions = executor.auto_progression.get_progression_history(result.step.id)
    return decisions[-1].reason if decisions else f"it failed and is skipped: {result.error}"


# -- calls outside execute(), or from other threads


def _mark_step_complete(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    call = MethodCall.bind(original.function, executor, args, kwargs)
    step_id = _step_id(call)
    result = original(*args, **kwargs)
    attempt = current_attempt()
    if attempt is not None and attempt.spec.name == step_id:
        return result  # called by the executor inside that step, which ends by itself
    with guarded("a step that was marked complete is not logged"):
        artifacts = call.arguments.get("artifacts") or ()
        made = {str(one.get("name", at)): one for at, one in enumerate(artifacts)}
        marked = MethodCall(executor, {"step": _step_of(executor, step_id)}, made)
        step = describe_step(ADAPTER, marked)

        def mark(run: ExternalRunRecorder) -> None:
            values, attributes = end_variables(executor)
            files = ADAPTER.artifacts(marked)
            run.mark_step(*step, files, result=values, attributes=attributes)

        _record(executor, mark)
    return result


def _skip_step(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    step_id = _step_id(MethodCall.bind(original.function, executor, args, kwargs))
    result = original(*args, **kwargs)
    with guarded("a skipped step is not logged"):
        skipped = MethodCall(executor, {"step": _step_of(executor, step_id)})
        step = describe_step(ADAPTER, skipped)
        _record(executor, lambda run: run.skip_step(*step, "skipped by hand"))
    return result


def _pause_workflow(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    result = original(*args, **kwargs)
    known = executor_state(executor)
    known.hand_calls += 1
    if known.execution is not None or known.manual_run is not None:
        with guarded("a pause is not logged"):
            _record(executor, lambda run: run.annotate("tapps.pause", {}))
    return result


def _record(executor: Any, record: Callable[[ExternalRunRecorder], None]) -> None:
    """Record a call in the run in progress, else in the manual run."""
    executor_state(executor).hand_calls += 1
    execution = executor_state(executor).execution or _execution_by_override(executor)
    if execution is None:
        record_manual_call(executor, record)
    elif execution.run is not None:
        record(execution.run)


def _hand_override(original: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    """For a subclass's method for calls by hand, which need not call that of its base class."""
    known = executor_state(executor)
    before = known.hand_calls
    result = original(*args, **kwargs)
    if known.hand_calls == before and current_attempt() is None:
        with guarded("a call by hand is not logged"):
            warn_once(
                type(executor),
                f"has a {original.function.__name__}() that does not call that of tapps-agents: "
                "its calls are not logged",
            )
            if known.manual_run is not None:  # it may have ended the run
                record_manual_call(executor, lambda _: None)
    return result


def _execution_by_override(executor: Any) -> TappsExecution | None:
    """The execution by a subclass's own method, which begins with this call."""
    execution = current_tapps_execution()
    if execution is None or execution.opened or execution.executor is not executor:
        return None
    execution.begin()
    return execution


def _step_id(call: MethodCall) -> Any:
    """The id of the step that a call names; without one, it means the current step."""
    return call.arguments.get("step_id") or getattr(call.executor.state, "current_step", None)


def _step_of(executor: Any, step_id: str | None) -> Any:
    return next(step for step in executor.workflow.steps if step.id == step_id)


# -- the event log of tapps-agents


def _emit_event(original: Original, log: Any, args: Any, kwargs: Any) -> Any:
    if bridge.is_on():
        with guarded("tapps-agents writes an event to its own log"):
            call = MethodCall.bind(original.function, log, args, kwargs)
            event = bridge.emit_event(log, call)
            if event is not None:
                return event
    return original(*args, **kwargs)


def _read_events(original: Original, log: Any, args: Any, kwargs: Any) -> Any:
    if bridge.is_on():
        arguments = MethodCall.bind(original.function, log, args, kwargs).arguments
        events = bridge.read_events(log, arguments["workflow_id"], arguments["limit"])
        if events is not None:
            return events
    return original(*args, **kwargs)


WRAPPERS: Final[dict[str, Wrapper]] = {
    "executor.WorkflowExecutor.__init__": _make,
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
    "auto_progression.AutoProgressionManager.evaluate_gate": _evaluate_gate,
    "agent_handlers.registry.AgentHandlerRegistry.find_handler": _find_handler,
    "event_log.WorkflowEventLog.emit_event": _emit_event,
    "event_log.WorkflowEventLog.read_events": _read_events,
    "cursor_executor.CursorWorkflowExecutor.__init__": _make,
    "cursor_executor.CursorWorkflowExecutor.run": _execute,
    "cursor_executor.CursorWorkflowExecutor._initialize_run": _initialize_cursor,
    "cursor_executor.CursorWorkflowExecutor._process_parallel_results": _process_results,
    "cursor_executor.CursorWorkflowExecutor._can_execute_step": _can_execute_step,
    "cursor_executor.CursorWorkflowExecutor.start": _start_cursor,
    "cursor_executor.CursorWorkflowExecutor.skip_step": _skip_step,
    "cursor_executor.CursorWorkflowExecutor.pause_workflow": _pause_workflow,
}
# For methods of subclasses that need not call those of their base classes.
OVERRIDE_WRAPPERS: Final[dict[str, Wrapper]] = {
    "executor.WorkflowExecutor.execute": _execute_override,
    "executor.WorkflowExecutor.mark_step_complete": _hand_override,
    "executor.WorkflowExecutor.skip_step": _hand_override,
    "executor.WorkflowExecutor.pause_workflow": _hand_override,
    "cursor_executor.CursorWorkflowExecutor.run": _execute_override,
    "cursor_executor.CursorWorkflowExecutor.skip_step": _hand_override,
    "cursor_executor.CursorWorkflowExecutor.pause_workflow": _hand_override,
}
