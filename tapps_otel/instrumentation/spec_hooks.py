"""The hooks of an executor that an :class:`ExecutorSpec` describes: on its runs and its steps."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Generator
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import finalize

from tapps_otel.instrumentation.execution import (
    IN_PROGRESS,
    Execution,
    current_execution,
    execution_of,
    fail_step,
    finish_step,
    guarded_end,
    is_enabled,
    open_run,
)
from tapps_otel.instrumentation.method_call import MethodCall
from tapps_otel.instrumentation.patching import Hook, Patches
from tapps_otel.instrumentation.stages import RunStage, StepStage
from tapps_otel.instrumentation.streams import stream, stream_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.instrumentation.guarding import Original, Wrapper
    from tapps_otel.instrumentation.spec import ExecutorSpec
    from tapps_otel.instrumentation.streams import Stage
    from tapps_otel.run.external_attempt import ExternalAttemptRecorder

__all__ = ["patches"]

_log = logging.getLogger("tapps_otel")
_logged: set[str] = set()
_UNFINISHED: Final = (Awaitable, Generator, AsyncGenerator, Future)
_FINISHED: Final = frozenset({type(None), bool, int, float, str, bytes, dict, list, tuple})


def patches(name: str, spec: ExecutorSpec, owner: type[Any] | None) -> Patches:
    """The hooks for a class, not yet put on.

    :param name: of the class, as ``package.module:Class``
    :param owner: the class; ``None``: the one of that name, once it is imported
    """
    step_class = spec.step_class
    if step_class is None:
        step_name, step_owner = name, owner
    elif isinstance(step_class, str):
        step_name, step_owner = step_class, None
    else:
        step_name, step_owner = name_of(step_class), step_class
    return Patches(
        name,
        (
            _hook(name, owner, spec.run, partial(_on_run, spec), spec),
            _hook(step_name, step_owner, spec.step, partial(_on_step, spec), spec),
        ),
    )


def name_of(kind: type[Any]) -> str:
    """A class as ``package.module:Class``."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _hook(
    name: str, owner: type[Any] | None, method: str, wrapper: Wrapper, spec: ExecutorSpec
) -> Hook:
    module, _, path = name.partition(":")
    return Hook(
        module,
        f"{path}.{method}",
        lambda: wrapper,
        essential=True,
        owner=owner,
        streams=spec.streams,
    )


# -- a run


def _on_run(spec: ExecutorSpec, run: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    outer = current_execution()
    if outer is not None and outer.executor is executor and outer.is_innermost:
        return run(*args, **kwargs)  # run() of a subclass calls its base class's
    if not is_enabled():
        return run(*args, **kwargs)
    call = MethodCall.bind(run.function, executor, args, kwargs)
    proceed = partial(run, *args, **kwargs)
    execution = Execution(executor)
    if run.is_async:
        return _execute_async(spec, execution, proceed, call)
    if spec.streams and run.is_generator:
        return _streamed(proceed(), RunStage(spec, execution, call))
    return _execute(spec, execution, proceed, call)


def _execute(
    spec: ExecutorSpec, execution: Execution, proceed: Callable[[], Any], call: MethodCall
) -> Any:
    with execution, IN_PROGRESS.track(execution):
        execution.open(partial(open_run, spec, call))
        try:
            result = proceed()
        except BaseException as error:
            execution.end_with_error(error, spec, call)
            raise
        if inspect.iscoroutine(result):
            execution.pass_on()
            return _execute_async(spec, execution, lambda: result, call)
        return _run_returned(spec, execution, call, result)


async def _execute_async(
    spec: ExecutorSpec, execution: Execution, proceed: Callable[[], Any], call: MethodCall
) -> Any:
    with execution, IN_PROGRESS.track(execution):
        if not execution.opened:
            execution.open(partial(open_run, spec, call))
        try:
            result = await proceed()
        except BaseException as error:
            execution.end_with_error(error, spec, call)
            raise
        return _run_returned(spec, execution, call, result)


def _run_returned(spec: ExecutorSpec, execution: Execution, call: MethodCall, result: Any) -> Any:
    if spec.streams and _is_generator(result):
        stage = RunStage(spec, execution, call)
        made = _streamed(result, stage)
        finalize(made, stage.abandon).atexit = False  # an item may never be asked for
        execution.pass_on()
        return made
    call.result = result
    _warn_of_unfinished(spec.run, call)
    execution.end(spec, call)
    return result


# -- a step


def _on_step(spec: ExecutorSpec, step: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    execution = execution_of(
        lambda: spec.runner(MethodCall.bind(step.function, executor, args, kwargs))
    )
    if execution is None or execution.run is None:
        return step(*args, **kwargs)
    call = MethodCall.bind(step.function, executor, args, kwargs)
    proceed = partial(step, *args, **kwargs)
    if step.is_async:
        return _begin_async(spec, proceed, call, execution)
    if spec.streams and step.is_generator:
        return _streamed(proceed(), StepStage(spec, call, execution))
    attempt = execution.begin_step(spec, call)
    return proceed() if attempt is None else _try(spec, proceed, call, attempt)


def _try(
    spec: ExecutorSpec,
    proceed: Callable[[], Any],
    call: MethodCall,
    attempt: ExternalAttemptRecorder,
) -> Any:
    with attempt.current():
        try:
            result = proceed()
        except BaseException as error:
            fail_step(spec, call, attempt, error)
            raise
    if inspect.iscoroutine(result):
        return _try_async(spec, lambda: result, call, attempt)
    return _step_returned(spec, call, attempt, result)


async def _begin_async(
    spec: ExecutorSpec, proceed: Callable[[], Any], call: MethodCall, execution: Execution
) -> Any:
    attempt = execution.begin_step(spec, call)
    return await (proceed() if attempt is None else _try_async(spec, proceed, call, attempt))


async def _try_async(
    spec: ExecutorSpec,
    proceed: Callable[[], Any],
    call: MethodCall,
    attempt: ExternalAttemptRecorder,
) -> Any:
    with attempt.current():
        try:
            result = await proceed()
        except BaseException as error:
            fail_step(spec, call, attempt, error)
            raise
    return _step_returned(spec, call, attempt, result)


def _step_returned(
    spec: ExecutorSpec, call: MethodCall, attempt: ExternalAttemptRecorder, result: Any
) -> Any:
    if spec.streams and _is_generator(result):
        stage = StepStage(spec, call, None, attempt)
        made = _streamed(result, stage)
        finalize(made, stage.abandon).atexit = False  # an item may never be asked for
        return made
    call.result = result
    _warn_of_unfinished(spec.step, call)
    with guarded_end(attempt):
        if attempt.settle():
            finish_step(spec, call, attempt)
    return result


# -- both


def _is_generator(result: Any) -> bool:
    return inspect.isgenerator(result) or inspect.isasyncgen(result)


def _streamed(work: Any, stage: Stage) -> Any:
    return stream_async(work, stage) if inspect.isasyncgen(work) else stream(work, stage)


def _warn_of_unfinished(method: str, call: MethodCall) -> None:
    """Warn once of a method that returns before its work is done: the log cannot show the rest."""
    result = call.result
    if type(result) in _FINISHED or not isinstance(result, _UNFINISHED):
        return
    name = f"{type(call.executor).__qualname__}.{method}"
    if name not in _logged:
        _logged.add(name)
        _log.warning(
            "%s returned a %s: what it does after its call has returned is not logged. Name a "
            "method in the spec that returns, or is awaited, when the work is done",
            name,
            type(result).__name__,
        )
