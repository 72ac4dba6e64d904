"""An executor whose submitted steps are steps of a run."""

from __future__ import annotations

import asyncio
import functools
import inspect
from concurrent.futures import Executor, Future
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import ref

from tapps_otel.engines import engine_of
from tapps_otel.errors import RefusalError, StepInputError
from tapps_otel.run import failures
from tapps_otel.run.remote.attempt import RemoteAttempt
from tapps_otel.run.remote.call import Call
from tapps_otel.run.remote.dispatch import Dispatch
from tapps_otel.run.remote.driver import Driver
from tapps_otel.run.remote.submission import Submission
from tapps_otel.run.scope import current_scope
from tapps_otel.run.step import BoundStep, Step
from tapps_otel.run.step_spec import Stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
    from types import TracebackType

    from tapps_otel.run.scope import Scope

__all__ = ["BoundExecutor"]

P = ParamSpec("P")
R = TypeVar("R")


class BoundExecutor(Executor):
    """An executor whose submitted steps are steps of the run; made by :func:`tapps_otel.bind`.

    A step that waits for a worker has not started: so it is not interrupted if the driver dies.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        at_once: int | None = None,
        renew: Callable[[], Executor] | None = None,
    ) -> None:
        if at_once is not None and at_once < 1:
            raise ValueError(f"at_once={at_once}: expected 1 or more")
        self._engine, self._scope = engine_of(executor, renew), current_scope.get()
        self._driver = Driver(owned=self._engine.owns_workers)
        self._dispatch = Dispatch(self._engine, at_once, self._driver)
        self._is_shut_down = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit a step, or another function, which is submitted as it is.

        What the log has an outcome of is not submitted: the future has that outcome.

        :raises StepInputError: the call cannot be pickled; nothing was written
        :raises RefusalError: to run it might do something twice
        :raises RuntimeError: this executor was shut down
        """
        found = _step_of(fn, args, kwargs)
        if found is None:
            return self._engine.executor.submit(fn, *args, **kwargs)
        scope = self._scope_here()
        if scope is None or scope.run.is_detached():
            found[0].check_plain(scope)
            return self._submit_plain(scope, *found)
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return self._submit_step(scope, *found)

    def _submit_plain(
        self,
        scope: Scope | None,
        step: Step[..., R],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Future[R]:
        """Submit a step that is a plain call.

        :param scope: where it is one
        """
        call = _PlainCall(step, None if scope is None else copy_context())
        return self._engine.executor.submit(call, *args, **kwargs)

    def _submit_step(
        self,
        scope: Scope,
        step: Step[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Future[Any]:
        future: Future[Any] = _StepFuture(self._dispatch)
        one: Submission | None = None
        try:
            entered = _enter(step, scope, args, kwargs, future)
            if isinstance(entered, RemoteAttempt):
                data, modules = (
                    self._pickled(entered, step, args, kwargs),
                    self._driver.modules(step),
                )
                one = Submission(entered, future, data, modules, copy_context())
                self._dispatch.add(one)
        except BaseException as error:  # Ctrl-C at any instruction, too
            self._dispatch.recover(one, error)
            raise
        if entered is None and not future.done():  # its scope has completed
            return self._submit_plain(scope, step, args, kwargs)
        return future

    def _pickled(
        self,
        attempt: RemoteAttempt,
        step: Step[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> bytes:
        """Pickle a call, which has not started.

        :raises StepInputError: it cannot be submitted
        """
        try:
            self._check_repeats(step)
            return self._driver.dump(Call(step, args, kwargs))
        except BaseException:
            attempt.drop()
            raise

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as Executor has it
        """Take no more steps, and shut the executor down once it has nothing to do.

        :param wait: wait for the steps that were submitted
        :param cancel_futures: cancel those that have not started, or wait for their next try
        """
        self._is_shut_down = True
        try:
            if cancel_futures:
                self._dispatch.cancel()
            self._dispatch.shut_down(wait=wait)
        except BaseException as error:  # Ctrl-C at any instruction, too
            self._dispatch.recover(None, error)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown(wait=True, cancel_futures=error is not None)

    def __repr__(self) -> str:
        return f"<bound {self._engine.executor!r}>"

    def _scope_here(self) -> Scope | None:
        """The current scope, else the one in which the executor was bound."""
        return current_scope.get() or self._scope

    def _check_repeats(self, step: Step[..., Any]) -> None:
        """Refuse a step that must not run twice where the engine could do that by itself.

        :raises StepInputError: it is one
        """
        if step.spec.policy.on_interrupted != "fail":
            return
        why = self._engine.why_not_once()
        if why is not None:
            raise StepInputError(
                f"step {step.spec.name!r} must not run twice (on_interrupted='fail'), and {why}",
                "$",
            )


class _StepFuture(Future[Any]):
    """The future of a submitted step."""

    def __init__(self, dispatch: Dispatch) -> None:
        super().__init__()
        self._dispatch = ref(dispatch)  # a program may keep a future for long

    def result(self, timeout: float | None = None) -> Any:
        """The step's result.

        :raises RuntimeError: a callback of another step waits for it without end
        """
        self._check_wait(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The step's failure, ``None`` without one.

        :raises RuntimeError: a callback of another step waits for it without end
        """
        self._check_wait(timeout)
        return super().exception(timeout)

    def _check_wait(self, timeout: float | None) -> None:
        dispatch = self._dispatch()
        if timeout is None and not self.done() and dispatch is not None and dispatch.is_here:
            raise RuntimeError(
                "a callback of a submitted step cannot wait for another step of the same executor, "
                "because that ends when the callback does: add a callback to its future, too"
            )


def _enter(
    step: Step[..., Any],
    scope: Scope,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    future: Future[Any],
) -> RemoteAttempt | None:
    """Return the attempt of a call; ``None``: its future has an outcome, or it is a plain call."""
    try:
        entered = step.enter(scope, args, kwargs, RemoteAttempt)
    except RefusalError:
        raise
    except Exception as error:
        if not failures.left_a_step(error):
            raise
        future.set_exception(error)  # of the step, as the log has it
        return None
    if isinstance(entered, Stored):
        future.set_result(entered.result)
        return None
    assert entered is None or isinstance(entered, RemoteAttempt)  # noqa: S101 - for the type checker
    return entered


class _PlainCall:
    """A step that is a plain call; a coroutine is run by the worker.

    :param context: where it is one, for a worker that is a thread: it need not warn of the call
    """

    def __init__(self, step: Step[..., Any], context: Context | None = None) -> None:
        self._step, self._context = step, context

    def __reduce__(self) -> tuple[Any, ...]:
        return _PlainCall, (self._step,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._context is None:
            return self._call(args, kwargs)
        return self._context.run(self._call, args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made = self._step(*args, **kwargs)
        return asyncio.run(made) if inspect.iscoroutinefunction(self._step) else made


def _step_of(
    fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Step[..., Any], tuple[Any, ...], dict[str, Any]] | None:
    """The step that is called, with all its arguments; ``None`` if it is another function."""
    while isinstance(fn, functools.partial):
        fn, args, kwargs = fn.func, (*fn.args, *args), {**fn.keywords, **kwargs}
    if isinstance(fn, BoundStep):
        fn, instance = fn.unbound
        args = (instance, *args)
    return (fn, args, kwargs) if isinstance(fn, Step) else None
