"""The hooks of an executor that an :class:`ExecutorSpec` describes: on its runs and its steps."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Generator
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.instrumentation.execution import (
    IN_PROGRESS,
    Execution,
    current_execution,
    execution_of,
    finish_step,
    guarded_end,
    is_enabled,
    open_run,
)
from tapps_otel.instrumentation.method_call import MethodCall
from tapps_otel.instrumentation.patching import Hook, Patches

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.instrumentation.guarding import Original
    from tapps_otel.instrumentation.spec import ExecutorSpec
    from tapps_otel.run.external_run import ExternalAttempt, ExternalRun

__all__ = ["patches"]

_log = logging.getLogger("tapps_otel")
_logged: set[str] = set()
_UNFINISHED: Final = (Awaitable, Generator, AsyncGenerator, Future)


def patches(name: str, spec: ExecutorSpec, owner: type[Any] | None) -> Patches:
    """The hooks for a class, not yet put on.

    :param name: of the class, as ``package.module:Class``
    :param owner: the class; ``None``: the one of that name, once it is imported
    """
    module, _, path = name.partition(":")

    def hook(method: str, wrapper: Callable[..., Any]) -> Hook:
        load = partial(partial, wrapper, spec)
        return Hook(module, f"{path}.{method}", load, essential=True, owner=owner)

    return Patches(name, (hook(spec.run, _on_run), hook(spec.step, _on_step)))


# -- a run


def _on_run(spec: ExecutorSpec, run: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    outer = current_execution()
    if outer is not None and outer.executor is executor and outer.is_innermost:
        return run(*args, **kwargs)  # run() of a subclass calls its base class's
    if not is_enabled():
        return run(*args, **kwargs)
    call = MethodCall.bind(run.function, executor, args, kwargs)
    proceed = partial(run, *args, **kwargs)
    if run.is_async:
        return _execute_async(spec, partial(open_run, spec, call), proceed, call)
    return _execute(spec, proceed, call)


def _execute(spec: ExecutorSpec, proceed: Callable[[], Any], call: MethodCall) -> Any:
    with Execution(call.executor) as execution, IN_PROGRESS.track(execution):
        execution.open(partial(open_run, spec, call))
        try:
            call.result = proceed()
        except BaseException as error:
            execution.end_with_error(error)
            raise
        result, run = call.result, execution.run
        if run is not None and inspect.iscoroutine(result):
            execution.hand_over()  # to whoever awaits the coroutine
            return _execute_async(spec, lambda: run, lambda: result, call)
        _warn_of_unfinished(spec.run, call)
        execution.end(spec, call)
        return result


async def _execute_async(
    spec: ExecutorSpec,
    opening: Callable[[], ExternalRun],
    proceed: Callable[[], Any],
    call: MethodCall,
) -> Any:
    with Execution(call.executor) as execution, IN_PROGRESS.track(execution):
        execution.open(opening)
        try:
            call.result = await proceed()
        except BaseException as error:
            execution.end_with_error(error)
            raise
        execution.end(spec, call)
        return call.result


# -- a step


def _on_step(spec: ExecutorSpec, step: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    execution = execution_of(executor)
    if execution is None or execution.run is None:
        return step(*args, **kwargs)
    call = MethodCall.bind(step.function, executor, args, kwargs)
    proceed = partial(step, *args, **kwargs)
    if step.is_async:
        return _begin_async(spec, proceed, call, execution)
    attempt = execution.begin_step(spec, call)
    return proceed() if attempt is None else _try(spec, proceed, call, attempt)


def _try(
    spec: ExecutorSpec, proceed: Callable[[], Any], call: MethodCall, attempt: ExternalAttempt
) -> Any:
    with attempt.current():
        try:
            call.result = proceed()
        except BaseException as error:
            with guarded_end(attempt):
                attempt.fail(error)
            raise
    result = call.result
    if inspect.iscoroutine(result):
        return _try_async(spec, lambda: result, call, attempt)
    _warn_of_unfinished(spec.step, call)
    with guarded_end(attempt):
        if attempt.settle():
            finish_step(spec, call, attempt)
    return result


async def _begin_async(
    spec: ExecutorSpec, proceed: Callable[[], Any], call: MethodCall, execution: Execution
) -> Any:
    attempt = execution.begin_step(spec, call)
    return await (proceed() if attempt is None else _try_async(spec, proceed, call, attempt))


async def _try_async(
    spec: ExecutorSpec, proceed: Callable[[], Any], call: MethodCall, attempt: ExternalAttempt
) -> Any:
    with attempt.current():
        try:
            call.result = await proceed()
        except BaseException as error:
            with guarded_end(attempt):
                attempt.fail(error)
            raise
    with guarded_end(attempt):
        if attempt.settle():
            finish_step(spec, call, attempt)
    return call.result


def _warn_of_unfinished(method: str, call: MethodCall) -> None:
    """Warn once of a method that returns before its work is done: the log cannot show the rest."""
    result = call.result
    if result is None or not isinstance(result, _UNFINISHED):
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
