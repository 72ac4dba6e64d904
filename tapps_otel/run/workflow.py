"""``@workflow`` and ``@step``: plain functions, sync or async, as runs and their steps."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar, cast, overload
from weakref import WeakKeyDictionary

from tapps_otel import clock, settings
from tapps_otel.errors import StepTimeoutError
from tapps_otel.run.attempt import Attempt
from tapps_otel.run.call import Call, Skipped
from tapps_otel.run.policy import Backoff, OnInterrupted, Policy
from tapps_otel.run.scope import current_scope
from tapps_otel.run.values import Signature, to_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tapps_otel.run.call import Stored
    from tapps_otel.run.recorder import Run
    from tapps_otel.run.scope import Scope

__all__ = [
    "Step",
    "Workflow",
    "annotate",
    "current_run",
    "current_step",
    "skip",
    "step",
    "workflow",
]

P = ParamSpec("P")
R = TypeVar("R")

_DEFAULT = Backoff()


class Step(Generic[P, R]):
    """A function whose calls inside a workflow are steps; made by :func:`step`.

    Outside a workflow it is the plain function.
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        agent: str | None = None,
        action: str | None = None,
        ignore: tuple[str, ...] = (),
        policy: Policy = Policy(),  # noqa: B008 - frozen
        key: str | None = None,
    ) -> None:
        self._fn, self._ignore, self._key = fn, ignore, key
        self._async = _is_async(fn)
        if policy.timeout is not None and not self._async:
            msg = (
                f"timeout= on {_name_of(fn)}: code that does not await cannot be stopped from "
                "outside. Make the step async, or give the time limit to what it calls "
                "(a socket, a subprocess, a request)"
            )
            raise TypeError(msg)
        self._signature = signature = _signature_of(fn, ignore)
        self._call = Call(
            name or _name_of(fn),
            agent=agent,
            action=action,
            policy=policy,
            signature=signature,
            fn=fn,
        )
        functools.update_wrapper(self, fn)
        if self._async and hasattr(inspect, "markcoroutinefunction"):
            inspect.markcoroutinefunction(self)

    def options(
        self, *, key: str | None = None, retries: int | None = None, timeout: float | None = None
    ) -> Step[P, R]:
        """The same step with other settings for this call.

        :param key: names this call; it is then matched on resume by name and key, not by inputs
        """
        policy = self._call.policy
        changed = dataclasses.replace(
            policy,
            retries=policy.retries if retries is None else retries,
            timeout=policy.timeout if timeout is None else timeout,
        )
        return Step(
            self._fn,
            name=self._call.name,
            agent=self._call.agent,
            action=self._call.action,
            ignore=self._ignore,
            policy=changed,
            key=self._key if key is None else key,
        )

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the step; a coroutine, where the function is one."""
        if self._async:
            return cast("R", self._call_async(args, kwargs))
        scope = current_scope.get()
        if scope is None or scope.run.is_detached():
            return cast("R", _plain(self._fn, args, kwargs))
        return cast("R", self._call_sync(scope, args, kwargs))

    def call_in(self, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call it as a step of ``run``, whatever the current scope is."""
        scope = run.scope_here()
        if self._async:
            return self._call_async(args, kwargs, scope)
        if scope.run.is_detached():
            return _plain(self._fn, args, kwargs)
        return self._call_sync(scope, args, kwargs)

    def _enter(
        self, scope: Scope, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Attempt | Stored | None:
        call = self._call
        key = self._key
        if key is None and call.policy.key is not None:
            made = call.policy.key
            key = made if isinstance(made, str) else made(*args, **kwargs)
        digest = None if key is not None else self._signature.digest(args, kwargs)
        entered = scope.run.enter(scope, call, digest, key)
        if scope.run.captures_inputs and isinstance(entered, Attempt):
            entered.inputs = self._signature.captured(args, kwargs)
        return entered

    def _call_sync(self, scope: Scope, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        entered = self._enter(scope, args, kwargs)
        if not isinstance(entered, Attempt):
            return _plain(self._fn, args, kwargs) if entered is None else entered.result
        attempt, failures = entered, 0
        while True:
            attempt.start()
            try:
                with attempt.current():
                    result = self._fn(*args, **kwargs)
            except Skipped as skipped:
                attempt.skip(skipped.reason, skipped.result)
                return skipped.result
            except BaseException as error:
                failures += 1
                wait_ns = attempt.fail_or_retry(error, failures)
                if wait_ns is None:
                    raise
            else:
                attempt.finish(result)
                return result
            try:
                clock.sleep(wait_ns / 1e9)
            except BaseException:
                attempt.release_self()
                raise
            attempt = attempt.again()

    async def _call_async(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], scope: Scope | None = None
    ) -> Any:
        scope = scope or current_scope.get()
        if scope is None or scope.run.is_detached():
            return await _plain_async(self._fn, args, kwargs)
        entered = self._enter(scope, args, kwargs)
        if not isinstance(entered, Attempt):
            if entered is None:
                return await _plain_async(self._fn, args, kwargs)
            return entered.result
        attempt, failures = entered, 0
        while True:
            attempt.start()
            try:
                with attempt.current():
                    result = await self._await_body(args, kwargs)
            except Skipped as skipped:
                await attempt.drained()
                attempt.skip_drained(skipped.reason, skipped.result)
                return skipped.result
            except BaseException as error:
                failures += 1
                await attempt.drained()
                wait_ns = attempt.fail_drained(error, failures)
                if wait_ns is None:
                    raise
            else:
                await attempt.drained()
                attempt.finish_drained(result)
                return result
            try:
                await clock.sleep_async(wait_ns / 1e9)
            except BaseException:
                attempt.release_self()
                raise
            attempt = attempt.again()

    async def _await_body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        fn = cast("Callable[..., Awaitable[Any]]", self._fn)
        limit = self._call.policy.timeout
        if limit is None:
            return await fn(*args, **kwargs)
        window = asyncio.timeout(limit)
        try:
            async with window:
                return await fn(*args, **kwargs)
        except TimeoutError as error:
            if not window.expired():
                raise  # the body's own
            msg = f"step {self._call.name!r} took longer than its timeout of {limit} s"
            raise StepTimeoutError(msg) from error

    def __repr__(self) -> str:
        return f"<step {self._call.name!r}>"


class Workflow(Generic[P, R]):
    """A function whose calls are runs; made by :func:`workflow`.

    Called inside a run, it is a step of that run.
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        on_divergence: str = "fail",
        workflow_id: str | None = None,
        log_dir: Path | str | None = None,
    ) -> None:
        if on_divergence not in {"fail", "rerun"}:
            msg = f"on_divergence={on_divergence!r}: it is 'fail' or 'rerun'"
            raise ValueError(msg)
        self._fn = fn
        self._async = _is_async(fn)
        self._workflow_id, self._log_dir = workflow_id, log_dir
        self.name = name or _name_of(fn)
        self.on_divergence = on_divergence
        self.signature = _signature_of(fn, ())
        functools.update_wrapper(self, fn)
        if self._async and hasattr(inspect, "markcoroutinefunction"):
            inspect.markcoroutinefunction(self)

    def options(
        self, *, workflow_id: str | None = None, log_dir: Path | str | None = None
    ) -> Workflow[P, R]:
        """The same workflow under a name of the caller's choice, or with its log elsewhere.

        A named run that is not there starts; one that was interrupted or failed goes on; one that
        completed gives its stored result.
        """
        return Workflow(
            self._fn,
            name=self.name,
            on_divergence=self.on_divergence,
            workflow_id=self._workflow_id if workflow_id is None else workflow_id,
            log_dir=self._log_dir if log_dir is None else log_dir,
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Carry the workflow out; a coroutine, where the function is one.

        :raises RunBusyError: another process carries this run on
        :raises RunConflictError: the id belongs to another workflow, or to other inputs
        :raises RunPausedError: the run waits for an answer
        :raises WorkflowInputError: the inputs cannot be stored
        :raises RefusalError: going on might do something twice
        :raises LogDamagedError: the run's log was changed
        """
        return cast("R", self._carry_out(args, kwargs))

    def resume(self, workflow_id: str) -> R:
        """Go on with a run of this workflow, with the inputs that it began with.

        :raises RunNotFoundError: there is no such run
        :raises RunConflictError: it is a run of another workflow
        """
        from tapps_otel.run.opening import stored_inputs

        inputs = stored_inputs(self.name, workflow_id, self._log_dir)
        args, kwargs = self.signature.call_with(inputs)
        named = self.options(workflow_id=workflow_id)
        return cast("R", named._carry_out(args, kwargs, inputs))  # noqa: SLF001 - another self

    def _carry_out(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: bytes | None = None
    ) -> Any:
        """Call it: as a run, as a step of the run around it, or plainly with the switch off.

        :param inputs: the arguments as the log has them, if they come from there
        """
        if self._async:
            return self._carry_out_async(args, kwargs, inputs)
        if _is_inside_a_run():
            return self._as_step(*args, **kwargs)
        if not settings.current().enabled:
            return self._fn(*args, **kwargs)
        return self._run_sync(args, kwargs, inputs)

    async def _carry_out_async(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: bytes | None
    ) -> Any:
        if _is_inside_a_run():
            return await cast("Awaitable[Any]", self._as_step(*args, **kwargs))
        if not settings.current().enabled:
            return await cast("Awaitable[Any]", self._fn(*args, **kwargs))
        return await self._run_async(args, kwargs, inputs)

    @functools.cached_property
    def _as_step(self) -> Step[P, R]:
        return Step(self._fn, name=self.name)

    def _open(self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: bytes | None) -> Run:
        from tapps_otel.run.opening import open_run

        return open_run(
            self.name,
            workflow_id=self._workflow_id,
            inputs=self.signature.inputs_json(args, kwargs) if inputs is None else inputs,
            log_dir=self._log_dir,
            fn=self._fn,
            on_divergence=self.on_divergence,
        )

    def _run_sync(self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: bytes | None) -> Any:
        run = self._open(args, kwargs, inputs)
        if run.done:
            return self.signature.result_from_json(run.result_json)
        run.enter_root()
        try:
            result = self._fn(*args, **kwargs)
        except BaseException as error:
            run.leave()
            raised = run.fail(error)
            if raised is error:
                raise
            raise raised from error
        run.leave()
        run.complete(lambda: self.signature.result_json(result))
        return result

    async def _run_async(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: bytes | None
    ) -> Any:
        fn = cast("Callable[..., Awaitable[Any]]", self._fn)
        run = self._open(args, kwargs, inputs)
        if run.done:
            return self.signature.result_from_json(run.result_json)
        run.enter_root()
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            run.leave()
            raised = await run.fail_async(error)
            if raised is error:
                raise
            raise raised from error
        run.leave()
        await run.complete_async(lambda: self.signature.result_json(result))
        return result

    def __repr__(self) -> str:
        return f"<workflow {self.name!r}>"


@overload
def workflow(fn: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, on_divergence: str = "fail"
) -> Callable[[Callable[P, R]], Workflow[P, R]]: ...
def workflow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    on_divergence: str = "fail",
) -> Any:
    """Make a function, sync or async, a workflow: its calls are runs, each with a log and a trace.

    :param name: in the log, in place of the function's
    :param on_divergence: what a step does that comes the same way as before with other inputs:
        ``fail`` refuses, ``rerun`` runs it as a new step
    """

    def decorate(fn: Callable[P, R]) -> Workflow[P, R]:
        return Workflow(fn, name=name, on_divergence=on_divergence)

    return decorate if fn is None else decorate(fn)


@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    agent: str | None = None,
    action: str | None = None,
    retries: int = 0,
    backoff: Backoff = ...,
    retry_on: tuple[type[BaseException], ...] = ...,
    timeout: float | None = None,
    key: str | Callable[..., str] | None = None,
    ignore: tuple[str, ...] = (),
    persist: bool = True,
    on_interrupted: OnInterrupted = "rerun",
    max_interruptions: int = 3,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    agent: str | None = None,
    action: str | None = None,
    retries: int = 0,
    backoff: Backoff = _DEFAULT,
    retry_on: tuple[type[BaseException], ...] = (Exception,),
    timeout: float | None = None,
    key: str | Callable[..., str] | None = None,
    ignore: tuple[str, ...] = (),
    persist: bool = True,
    on_interrupted: OnInterrupted = "rerun",
    max_interruptions: int = 3,
) -> Any:
    """Make a function, sync or async, a step: inside a workflow its result is stored.

    A step runs at least once: if its process dies inside it, it runs again on resume, with the
    same ``current_step().idempotency_key``.

    :param name: in the log, in place of the function's
    :param agent: who does it, for the log and the span
    :param action: what is done, for the log and the span; few different words
    :param retries: tries after the first
    :param backoff: waits between tries
    :param retry_on: exceptions that are worth another try
    :param timeout: of one try, seconds; async functions only
    :param key: names the calls, in place of their inputs; a callable is given the arguments
    :param ignore: parameters that do not tell one call from another (a connection, a logger)
    :param persist: ``False``: the result is not stored, and the step runs again on resume
    :param on_interrupted: ``fail``: after a crash inside it, a person says what became of it
    :param max_interruptions: how often in a row it runs again after its process died in it
    :raises TypeError: ``timeout`` on a function that is not async, an unknown name in ``ignore``
    :raises ValueError: a number that cannot be
    """
    policy = Policy(
        retries=retries,
        backoff=backoff,
        retry_on=retry_on,
        timeout=timeout,
        key=key,
        persist=persist,
        on_interrupted=on_interrupted,
        max_interruptions=max_interruptions,
    )

    def decorate(fn: Callable[P, R]) -> Step[P, R]:
        return Step(fn, name=name, agent=agent, action=action, ignore=ignore, policy=policy)

    return decorate if fn is None else decorate(fn)


def current_run() -> Run:
    """The run whose code is being carried out here.

    :raises LookupError: none is
    """
    scope = current_scope.get()
    if scope is None:
        msg = "no run here: this is called inside a workflow"
        raise LookupError(msg)
    return scope.run


def current_step() -> Attempt:
    """The attempt of the step that is being carried out here.

    :raises LookupError: none is
    """
    scope = current_scope.get()
    if isinstance(scope, Attempt):
        return scope
    msg = "no step here: this is called inside a step of a running workflow"
    raise LookupError(msg)


def skip(reason: str, result: Any = None) -> NoReturn:
    """Leave the current step as skipped: its call gives back ``result``, now and on resume."""
    raise Skipped(reason, result)


def annotate(name: str, **attributes: Any) -> None:
    """Write an event of your own into the run's log and onto the current span.

    Outside a run nothing is written.

    :param attributes: JSON scalars, or lists of them
    :raises TypeError: a value of another type
    """
    scope = current_scope.get()
    if scope is None:
        return
    to_json({"name": name, **attributes})
    scope.run.annotate(name, attributes, scope)


# Functions live as long as their module; what is known of them is found once.
_signatures: WeakKeyDictionary[Callable[..., Any], dict[tuple[str, ...], Signature]]
_signatures = WeakKeyDictionary()


def _signature_of(fn: Callable[..., Any], ignore: tuple[str, ...]) -> Signature:
    try:
        known = _signatures.setdefault(fn, {})
    except TypeError:  # a callable that cannot be referred to weakly: builtins, bound methods
        return Signature(fn, ignore)
    if ignore not in known:
        known[ignore] = Signature(fn, ignore)
    return known[ignore]


def _is_async(fn: Callable[..., Any]) -> bool:
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        msg = (
            f"{_name_of(fn)} is a generator: its values come one by one, and cannot be stored as "
            "a result. Give back a list"
        )
        raise TypeError(msg)
    return inspect.iscoroutinefunction(fn)


def _name_of(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", None) or type(fn).__name__


def _is_inside_a_run() -> bool:
    """Whether a run of this process is being carried out here."""
    scope = current_scope.get()
    return scope is not None and not scope.run.detached


def _plain(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return fn(*args, **kwargs)
    except Skipped as skipped:
        return skipped.result


async def _plain_async(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    try:
        return await fn(*args, **kwargs)
    except Skipped as skipped:
        return skipped.result
