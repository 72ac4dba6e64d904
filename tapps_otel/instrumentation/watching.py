"""The hooks of an executor that a spec describes: around its runs, and around their steps."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Generator
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from tapps_otel.instrumentation.execution import (
    ACTIVE,
    Carrying,
    carried_here,
    ending,
    finish,
    is_enabled,
    open_run,
)
from tapps_otel.instrumentation.patching import Hook, Patches
from tapps_otel.instrumentation.spec import ExecutorSpec, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.instrumentation.guarding import Original
    from tapps_otel.run.external_run import ExternalAttempt, ExternalRun

__all__ = ["patches", "see"]

_log = logging.getLogger("tapps_otel")
_told: set[str] = set()
_MORE: Final = (Awaitable, Generator, AsyncGenerator, Future)
_signatures: WeakKeyDictionary[Any, inspect.Signature] = WeakKeyDictionary()


def patches(name: str, spec: ExecutorSpec) -> Patches:
    """The hooks for the class of this name, ``package.module:Class``."""
    module, _, path = name.partition(":")
    return Patches(
        name,
        (
            Hook(module, f"{path}.{spec.run}", lambda: partial(_on_run, spec), essential=True),
            Hook(module, f"{path}.{spec.step}", lambda: partial(_on_step, spec), essential=True),
        ),
    )


def see(method: Original, executor: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Seen:
    """A call of a method, by the names of its parameters."""
    bound = method.function
    function = getattr(bound, "__func__", bound)
    signature = _signatures.get(function)
    if signature is None:
        signature = _signatures[function] = inspect.signature(bound)
    try:
        given = signature.bind(*args, **kwargs)
    except TypeError:  # the call itself will say so
        return Seen(executor, {})
    given.apply_defaults()
    return Seen(executor, given.arguments)


# -- a run


def _on_run(spec: ExecutorSpec, run: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    around = carried_here()
    own = around is not None and around.executor is executor and around.encloses
    if own or not is_enabled():
        return run(*args, **kwargs)
    seen, call = see(run, executor, args, kwargs), partial(run, *args, **kwargs)
    if run.is_async:
        return _carry_async(spec, partial(open_run, spec, seen), call, seen)
    return _carry(spec, call, seen)


def _carry(spec: ExecutorSpec, call: Callable[[], Any], seen: Seen) -> Any:
    with Carrying(seen.executor) as carrying, ACTIVE.busy(carrying):
        carrying.open(partial(open_run, spec, seen))
        try:
            seen.result = call()
        except BaseException as error:
            carrying.end_by(error)
            raise
        made, run = seen.result, carrying.run
        if run is not None and inspect.iscoroutine(made):
            carrying.hand_on()  # whoever awaits it carries the run out
            return _carry_async(spec, lambda: run, lambda: made, seen)
        _tell_of_more(spec.run, seen)
        carrying.end(spec, seen)
        return seen.result


async def _carry_async(
    spec: ExecutorSpec, opening: Callable[[], ExternalRun], call: Callable[[], Any], seen: Seen
) -> Any:
    with Carrying(seen.executor) as carrying, ACTIVE.busy(carrying):
        carrying.open(opening)
        try:
            seen.result = await call()
        except BaseException as error:
            await carrying.end_by_async(error)
            raise
        await carrying.end_async(spec, seen)
        return seen.result


# -- a step


def _on_step(spec: ExecutorSpec, step: Original, executor: Any, args: Any, kwargs: Any) -> Any:
    carrying = carried_here() or ACTIVE.of(executor)
    if carrying is None or carrying.run is None:
        return step(*args, **kwargs)
    seen, call = see(step, executor, args, kwargs), partial(step, *args, **kwargs)
    if step.is_async:
        return _begin_async(spec, call, seen, carrying)
    attempt = carrying.begin(spec, seen)
    return call() if attempt is None else _try(spec, call, seen, attempt)


def _try(spec: ExecutorSpec, call: Callable[[], Any], seen: Seen, attempt: ExternalAttempt) -> Any:
    with attempt.current():
        try:
            seen.result = call()
        except BaseException as error:
            with ending(attempt):
                attempt.fail(error)
            raise
    if inspect.iscoroutine(seen.result):
        made = seen.result
        return _try_async(spec, lambda: made, seen, attempt)
    _tell_of_more(spec.step, seen)
    with ending(attempt):
        if attempt.settle():
            finish(spec, seen, attempt)
    return seen.result


async def _begin_async(
    spec: ExecutorSpec, call: Callable[[], Any], seen: Seen, carrying: Carrying
) -> Any:
    attempt = carrying.begin(spec, seen)
    return await (call() if attempt is None else _try_async(spec, call, seen, attempt))


async def _try_async(
    spec: ExecutorSpec, call: Callable[[], Any], seen: Seen, attempt: ExternalAttempt
) -> Any:
    with attempt.current():
        try:
            seen.result = await call()
        except BaseException as error:
            with ending(attempt):
                if await attempt.settle_async():
                    attempt.fail_drained(error)
            raise
    with ending(attempt):
        if await attempt.settle_async():
            finish(spec, seen, attempt)
    return seen.result


def _tell_of_more(method: str, seen: Seen) -> None:
    """Say once where a method has returned before its work is done: the log cannot know of that."""
    result = seen.result
    if result is None or not isinstance(result, _MORE):
        return
    name = f"{type(seen.executor).__qualname__}.{method}"
    if name not in _told:
        _told.add(name)
        _log.warning(
            "%s gave a %s: what it does after its call has returned is not logged. Let a spec name "
            "a method that returns, or is awaited, when the work is done",
            name,
            type(result).__name__,
        )
