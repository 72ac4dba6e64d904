"""The hooks of an executor that a spec describes: around its runs, and around their steps."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tapps_otel.instrumentation.carrying import (
    ACTIVE,
    Carrying,
    carried_here,
    finish,
    guarded,
    is_enabled,
    open_run,
)
from tapps_otel.instrumentation.patching import Hook, Patches
from tapps_otel.instrumentation.spec import ExecutorSpec, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["patches", "see"]

_signatures: WeakKeyDictionary[Any, inspect.Signature] = WeakKeyDictionary()


def patches(name: str, spec: ExecutorSpec) -> Patches:
    """The hooks for the class of this name, ``package.module:Class``."""
    module, _, path = name.partition(":")
    return Patches(
        name,
        (
            Hook(module, f"{path}.{spec.run}", partial(_on_run, spec), essential=True),
            Hook(module, f"{path}.{spec.step}", partial(_on_step, spec), essential=True),
        ),
    )


def see(method: Any, executor: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Seen:
    """A call of a bound method, by the names of its parameters."""
    function = getattr(method, "__func__", method)
    signature = _signatures.get(function)
    if signature is None:
        signature = _signatures[function] = inspect.signature(method)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:  # the call itself will say so
        return Seen(executor, {})
    bound.apply_defaults()
    return Seen(executor, bound.arguments)


# -- a run


def _on_run(spec: ExecutorSpec, run: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    around = carried_here()
    own = around is not None and around.executor is executor and around.encloses
    if own or not is_enabled():
        return run(*args, **kwargs)
    carry = _carry_async if inspect.iscoroutinefunction(run) else _carry
    return carry(spec, partial(run, *args, **kwargs), see(run, executor, args, kwargs))


def _carry(spec: ExecutorSpec, call: Callable[[], Any], seen: Seen) -> Any:
    with Carrying(seen.executor) as carrying, ACTIVE.busy(carrying):
        carrying.open(partial(open_run, spec, seen))
        try:
            seen.result = call()
        except BaseException as error:
            carrying.end_by(error)
            raise
        carrying.end(spec, seen)
        return seen.result


async def _carry_async(spec: ExecutorSpec, call: Callable[[], Any], seen: Seen) -> Any:
    with Carrying(seen.executor) as carrying, ACTIVE.busy(carrying):
        carrying.open(partial(open_run, spec, seen))
        try:
            seen.result = await call()
        except BaseException as error:
            await carrying.end_by_async(error)
            raise
        await carrying.end_async(spec, seen)
        return seen.result


# -- a step


def _on_step(spec: ExecutorSpec, step: Any, executor: Any, args: Any, kwargs: Any) -> Any:
    carrying = carried_here() or ACTIVE.of(executor)
    if carrying is None or carrying.run is None:
        return step(*args, **kwargs)
    carry = _try_async if inspect.iscoroutinefunction(step) else _try
    return carry(spec, partial(step, *args, **kwargs), see(step, executor, args, kwargs), carrying)


def _try(spec: ExecutorSpec, call: Callable[[], Any], seen: Seen, carrying: Carrying) -> Any:
    attempt = carrying.begin(spec, seen)
    if attempt is None:
        return call()
    with attempt.current():
        try:
            seen.result = call()
        except BaseException as error:
            with guarded("the end of a step"):
                attempt.fail(error)
            raise
    with guarded("the end of a step"):
        if attempt.settle():
            finish(spec, seen, attempt)
    return seen.result


async def _try_async(
    spec: ExecutorSpec, call: Callable[[], Any], seen: Seen, carrying: Carrying
) -> Any:
    attempt = carrying.begin(spec, seen)
    if attempt is None:
        return await call()
    with attempt.current():
        try:
            seen.result = await call()
        except BaseException as error:
            with guarded("the end of a step"):
                if await attempt.drained():
                    attempt.fail_drained(error)
            raise
    with guarded("the end of a step"):
        if await attempt.drained():
            finish(spec, seen, attempt)
    return seen.result
