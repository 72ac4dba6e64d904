"""``@step``: plain functions, sync or async, as steps."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

from tapps_otel import clock
from tapps_otel.errors import StepInputError, StepTimeoutError
from tapps_otel.run.argument_changes import watch
from tapps_otel.run.attempt import AttemptRecorder
from tapps_otel.run.carried import carried_by, digest_of_carried
from tapps_otel.run.import_path import module_stem
from tapps_otel.run.introspection import (
    check_callable,
    definition_of,
    is_async,
    mark_async,
    name_of,
    signature_of,
)
from tapps_otel.run.outside import warn_of_call
from tapps_otel.run.pickling import PickledByName
from tapps_otel.run.policy import Backoff, OnInterrupted, Policy
from tapps_otel.run.scope import current_scope, get_scope, set_scope
from tapps_otel.run.step_spec import Skipped, StepSpec
from tapps_otel.run.time_limit import TimeLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tapps_otel.run.recorder import RunRecorder
    from tapps_otel.run.scope import Scope
    from tapps_otel.run.step_spec import Stored
    from tapps_otel.settings_types import Redaction

__all__ = ["Step", "step"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")

_DEFAULT = Backoff()


class Step(PickledByName, Generic[P, R]):
    """A function whose calls inside a workflow are steps; made by :func:`step`.

    Outside a workflow its calls are plain calls.

    :cvar _by_value: what a callable brings along whose attributes do not tell calls apart

    :param body: what a call runs; by default ``fn``, which in any case tells what the step is
    :param attributes: of its start events and spans
    """

    # Every call reads these, which takes longer outside slots once `update_wrapper` was here.
    __slots__ = (
        "_async",
        "_body",
        "_carried",
        "_fn",
        "_given_name",
        "_home",
        "_ignore",
        "_key",
        "_make_key",
        "_prepared",
        "_signature",
        "_spec",
    )
    _by_value: frozenset[str] = frozenset()

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
        body: Callable[..., R] | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        check_callable(fn, "@step")
        self._fn, self._ignore = fn, ignore
        of_all = policy.key if key is None else None
        self._key = of_all if isinstance(of_all, str) else key
        self._make_key = None if isinstance(of_all, str) else of_all
        self._body: Callable[..., R] = fn if body is None else body
        self._async, self._prepared = is_async(fn), False
        # What it is called by its user is what it is; a function is one of a module.
        self._given_name, self._home = name, "" if name else module_stem(fn)
        if policy.timeout is not None and not self._async:
            msg = (
                f"timeout= on {name_of(fn)}: code that does not await cannot be stopped from "
                "outside. Make the step async, or set the timeout on what it calls (a socket, a "
                "subprocess, a request)"
            )
            raise TypeError(msg)
        self._carried = carried_by(fn, ignore)
        known = carried_by(fn)
        own = tuple(name for name in ignore if name not in known) if known else ignore
        self._signature = signature = signature_of(fn, own)
        self._spec = StepSpec(
            name or name_of(fn),
            agent=agent,
            action=action,
            policy=policy,
            signature=signature,
            attributes=attributes,
        )
        functools.update_wrapper(self, fn)
        if self._async:
            mark_async(self)

    def options(
        self, *, key: str | None = None, retries: int | None = None, timeout: float | None = None
    ) -> Step[P, R]:
        """A copy of the step with other settings, for one call.

        :param key: names this call: on resume it is matched by name and key, not by its inputs
        """
        policy = self._spec.policy
        changed = dataclasses.replace(
            policy,
            retries=policy.retries if retries is None else retries,
            timeout=policy.timeout if timeout is None else timeout,
        )
        return Step(
            self._fn,
            name=self._given_name,
            agent=self._spec.agent,
            action=self._spec.action,
            ignore=self._ignore,
            policy=changed,
            key=self._key if key is None else key,
            body=self._body,
            attributes=self._spec.attributes,
        )

    def _remake(self, original: Step[P, R]) -> Callable[[], Step[P, R]]:
        policy = self._spec.policy
        return partial(
            original.options, key=self._key, retries=policy.retries, timeout=policy.timeout
        )

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Step[P, R]: ...
    @overload
    def __get__(
        self: Step[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> BoundStep[Q, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else BoundStep(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the step; a coroutine, if the function is one."""
        if self._async:
            return cast("R", self._call_async(args, kwargs))
        scope = get_scope()
        if scope is None or (scope.run.detached and scope.run.is_detached()):
            self.check_plain(scope)
            return _plain(self._body, args, kwargs)
        return self._call_sync(scope, args, kwargs, scope)

    def check_plain(self, scope: Scope | None) -> None:
        """Check that a call can be a plain one, and log a warning if it may be a mistake.

        :param scope: where it is called
        :raises LookupError: it cannot
        """
        warn_of_call(self._spec.name, scope)
        if scope is not None:
            scope.run.check_plain(self._spec)

    def call_in(self, run: RunRecorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call it as a step of ``run``, even outside its scopes."""
        scope = run.scope_here()
        if self._async:
            return self._call_async(args, kwargs, scope)
        if run.is_detached():
            return _plain(self._body, args, kwargs)
        return self._call_sync(scope, args, kwargs, current_scope.get())

    @property
    def spec(self) -> StepSpec:
        """What all its calls have in common."""
        if not self._prepared:
            self._prepare()
        return self._spec

    def run_body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the code of one call in the current scope; a coroutine in an event loop of its own.

        :raises Skipped: it was skipped
        """
        if self._async:
            return asyncio.run(self._await_body(args, kwargs))
        return self._body(*args, **kwargs)

    def enter(
        self,
        scope: Scope,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        make: Callable[..., AttemptRecorder] = AttemptRecorder,
    ) -> AttemptRecorder | Stored | None:
        """Decide what a call does, as :meth:`RunRecorder.enter` does.

        :param make: makes the attempt
        :raises StepInputError: its inputs cannot be compared with those of an earlier execution
        """
        if not self._prepared:
            self._prepare()
        spec, run, key = self._spec, scope.run, self._key
        if self._make_key is not None:
            key = self._make_key(*args, **kwargs)
        if key is None:
            home = self._home if run.renamed is None else run.renamed.get(self._home, self._home)
            if self._carried:
                home += self._digest_of_carried(scope)
            digest, receiver, parts = self._signature.digest(args, kwargs, home)
            if receiver is not None:
                self._check_receiver(scope, receiver)
        else:
            digest, parts = None, self._signature.parts(args, kwargs)
        # By position, because keywords make a call of a function slow.
        entered: AttemptRecorder | Stored | None = run.enter(
            scope, spec, digest, key, None, (args, kwargs), make
        )
        if entered is None:
            run.warn_of_plain_call(scope, spec.name)
        if parts and isinstance(entered, AttemptRecorder):
            entered.watched = watch(parts)
        if run.captures_inputs and isinstance(entered, AttemptRecorder):
            entered.inputs = spec.inputs_json(args, kwargs)
        return entered

    def _digest_of_carried(self, scope: Scope) -> str:
        """What tells its function from others that bring something else along."""
        digest, formless = digest_of_carried(self._carried, self._by_value)
        if formless:
            self._check_receiver(scope, self._carried[formless], formless)
        return digest

    def _check_receiver(self, scope: Scope, receiver: object, name: str = "self") -> None:
        """Refuse the same method of a second object that nothing tells from the first.

        :raises StepInputError: on resume one would get the other's results
        """
        if scope.receivers is None:
            scope.receivers = {}
        if scope.receivers.setdefault(self._spec.name, receiver) is not receiver:
            what = "on" if name == "self" else "with"
            raise StepInputError(
                f"step {self._spec.name!r} is called {what} a second "
                f"{type(receiver).__qualname__}, "
                "which cannot be told from the first in a later execution: on resume one could "
                "get the results of the other. Give the class a __tapps_key__() method, give the "
                f'calls a key, or, for a @step whose objects may be mixed up, ignore=("{name}",)',
                f"$.{name}",
            )

    def _prepare(self) -> None:
        """Do what waits for the first call: hints may name later definitions, source is slow."""
        if self._spec.policy.persist:
            self._signature.check_result()
        self._spec.definition = definition_of(self._fn)
        self._prepared = True

    def _call_sync(
        self, scope: Scope, args: tuple[Any, ...], kwargs: dict[str, Any], before: Scope | None
    ) -> R:
        """Call a sync step.

        :param before: the current scope, which need not be of this run
        """
        entered = self.enter(scope, args, kwargs)
        result: R
        if not isinstance(entered, AttemptRecorder):
            result = _plain(self._body, args, kwargs) if entered is None else entered.result
            return result
        attempt, failures = entered, entered.failed_before
        try:
            while True:
                attempt.start()
                # What `with attempt.current()` does; five calls less are 3 % of an unsynced step.
                span, attached = attempt.span, None
                try:
                    try:
                        set_scope(attempt)
                        if span is not None:
                            attached = span.attach()
                        result = self._body(*args, **kwargs)
                    finally:  # one call in C: Ctrl-C cannot come before it
                        set_scope(before)
                        if span is not None:
                            span.detach(attached)
                except Skipped as skipped:
                    attempt.skip(skipped.reason, skipped.result)
                    return cast("R", skipped.result)
                except BaseException as error:
                    failures += 1
                    wait_ns = attempt.fail_or_retry(error, failures)
                    if wait_ns is None:
                        raise
                else:
                    if attempt.settle():
                        attempt.finish_drained(result)
                    return result
                clock.sleep(wait_ns / 1e9)
                attempt = attempt.again()
        except BaseException as error:  # between any two of these: Ctrl-C, no stack, no memory
            attempt.lose(error)
            raise

    async def _call_async(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], scope: Scope | None = None
    ) -> Any:
        scope = scope or current_scope.get()
        if scope is None or scope.run.is_detached():
            self.check_plain(scope)
            return await _plain_async(self._body, args, kwargs)
        entered = self.enter(scope, args, kwargs)
        if not isinstance(entered, AttemptRecorder):
            if entered is None:
                return await _plain_async(self._body, args, kwargs)
            return entered.result
        attempt, failures = entered, entered.failed_before
        try:
            while True:
                attempt.start()
                try:
                    with attempt.current():
                        result = await self._await_body(args, kwargs)
                except Skipped as skipped:
                    await attempt.skip_async(skipped.reason, skipped.result)
                    return skipped.result
                except BaseException as error:
                    failures += 1
                    wait_ns = await attempt.fail_async(error, failures)
                    if wait_ns is None:
                        raise
                else:
                    await attempt.finish_async(result)
                    return result
                await clock.sleep_async(wait_ns / 1e9)
                attempt = attempt.again()
        except BaseException as error:  # between any two of these: Ctrl-C, no stack, no memory
            attempt.lose(error)
            raise

    async def _await_body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        fn = cast("Callable[..., Awaitable[Any]]", self._body)
        seconds = self._spec.policy.timeout
        if seconds is None:
            return await fn(*args, **kwargs)
        limit = TimeLimit(current_scope.get(), seconds)
        try:
            async with limit.window:
                with limit.current():
                    return await fn(*args, **kwargs)
        except TimeoutError as error:
            if not limit.window.expired():
                raise  # the step's own
            msg = f"step {self._spec.name!r} took longer than its timeout of {seconds} s"
            raise StepTimeoutError(msg) from error

    def __repr__(self) -> str:
        return f"<step {self._spec.name!r}>"


class BoundStep(Generic[P, R]):
    """A step of an object: ``shop.price``."""

    def __init__(self, step: Step[..., R], instance: object) -> None:
        self._step, self._instance = step, instance
        functools.update_wrapper(self, step)
        if inspect.iscoroutinefunction(step):
            mark_async(self)

    @property
    def unbound(self) -> tuple[Step[..., R], object]:
        """The step, and the object that it gets first."""
        return self._step, self._instance

    def __reduce__(self) -> tuple[Any, ...]:
        return BoundStep, self.unbound

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the step; a coroutine, if the function is one."""
        return self._step(self._instance, *args, **kwargs)

    def options(
        self, *, key: str | None = None, retries: int | None = None, timeout: float | None = None
    ) -> BoundStep[P, R]:
        """A copy of the step with other settings, for one call; see :meth:`Step.options`."""
        changed = self._step.options(key=key, retries=retries, timeout=timeout)
        return BoundStep(changed, self._instance)

    def __repr__(self) -> str:
        return f"<{self._step!r} of {self._instance!r:.80}>"


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
    redact: bool | Redaction | None = None,
    redact_results: bool = False,
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
    redact: bool | Redaction | None = None,
    redact_results: bool = False,
) -> Any:
    """Make a function, sync or async, a step: inside a workflow its result is stored.

    A step runs at least once: if its process dies inside it, it runs again on resume, with the
    same ``current_step().idempotency_key``.

    :param name: in the log, instead of the function's
    :param agent: who does it, for the log and the span
    :param action: what is done, for the log and the span; few different words
    :param retries: tries after the first
    :param backoff: waits between tries
    :param retry_on: exceptions after which the step is retried
    :param timeout: of one try, seconds; async functions only
    :param key: identifies calls instead of their inputs; a callable gets the arguments
    :param ignore: parameters that do not tell one call from another (a connection, a logger)
    :param persist: ``False``: the result is not stored, and the step runs again on resume
    :param on_interrupted: ``fail``: once it was stopped inside (killed, cancelled, out of time), a
        person must resolve it first
    :param max_interruptions: how often in a row it runs again after its process died in it
    :param redact: rules for its secrets beyond those of the setting; ``False``: none at all
    :param redact_results: do not store a result in which redaction would replace something
    :raises TypeError: ``timeout`` on a function that is not async, an unknown name in ``ignore``
    :raises ValueError: a number out of range
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
        redact=redact,
        redact_results=redact_results,
    )

    def decorate(fn: Callable[P, R]) -> Step[P, R]:
        return Step(fn, name=name, agent=agent, action=action, ignore=ignore, policy=policy)

    return decorate if fn is None else decorate(fn)


def _plain(fn: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
    try:
        return fn(*args, **kwargs)
    except Skipped as skipped:
        return cast("R", skipped.result)


async def _plain_async(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    try:
        return await fn(*args, **kwargs)
    except Skipped as skipped:
        return skipped.result
