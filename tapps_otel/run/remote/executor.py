"""An executor whose submitted steps are steps of a run."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections import deque
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from tapps_otel import clock, settings
from tapps_otel.engines import engine_of
from tapps_otel.errors import RefusalError, RunEndedError, StepInputError
from tapps_otel.otel.environment import delivery_settings, delivery_variables
from tapps_otel.run import failures
from tapps_otel.run.current_recorder import recorder_of
from tapps_otel.run.outside import warn_of_call
from tapps_otel.run.remote.attempt import Outcome, RemoteAttempt
from tapps_otel.run.remote.call import Call, dump, modules_of
from tapps_otel.run.remote.driver_end import follow_driver
from tapps_otel.run.remote.messages import Task, read_answer, write_task
from tapps_otel.run.remote.receipts import Receipts
from tapps_otel.run.remote.worker import execute, machine_here
from tapps_otel.run.scope import OPEN, current_scope
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

_log = logging.getLogger("tapps_otel")
_RECOUNT_NS: Final = 1_000_000_000  # between two counts of workers


@dataclass(eq=False, slots=True)
class _Submitted:
    """A step that was submitted.

    :ivar future: what its caller has
    :ivar data: the call, pickled
    :ivar modules: where a worker finds the modules of the call
    :ivar context: in which it was submitted
    :ivar failures: tries that have failed
    """

    attempt: RemoteAttempt
    future: Future[Any]
    data: bytes
    modules: dict[str, str]
    context: Context
    failures: int = 0

    def raise_in_caller(self, error: BaseException) -> None:
        """Let the caller get an exception."""
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True)
class _Receipt:
    """What an engine has delivered for a step.

    :ivar executor: that had it
    :ivar outcome: the worker's answer; otherwise what the engine raised
    """

    submitted: _Submitted
    executor: Executor
    outcome: bytes | BaseException


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
        self._at_once = self._engine.workers() if at_once is None else at_once
        self._looks_again = at_once is None and self._engine.scales
        self._looked_ns = clock.monotonic_ns()
        self._prepare_workers()
        self._driver = _Driver(owned=self._engine.owns_workers)
        self._changed = threading.Condition()
        self._queue: deque[_Submitted] = deque()
        self._unfinished = set[_Submitted]()
        self._executing = 0
        self._is_shut_down = self._is_cancelled = self._shuts_when_idle = False
        self._receipts: Receipts[_Receipt] = Receipts(self._handle)

    # -- as an executor

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit a step, or another function, which is submitted as it is.

        What the log has an outcome of is not submitted: the future has that outcome.

        :raises StepInputError: the call cannot be pickled; nothing was written
        :raises RefusalError: to run it might do something twice
        :raises RuntimeError: this executor was shut down
        """
        found = _step_of(fn, args, kwargs)
        scope = self._scope_here()
        if found is None or scope is None or scope.run.is_detached():
            if found is not None:
                warn_of_call(found[0].spec.name, scope)
            return self._engine.executor.submit(fn, *args, **kwargs)
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        step, step_args, step_kwargs = found
        self._check_repeats(step)
        data = dump(Call(step, step_args, step_kwargs, settings.current().redact))
        future: Future[R] = Future()
        try:
            entered = step.enter(scope, step_args, step_kwargs, RemoteAttempt)
        except RefusalError:
            raise
        except Exception as error:
            if not failures.left_a_step(error):
                raise
            future.set_exception(error)  # of the step, as the log has it
            return future
        if isinstance(entered, Stored):
            future.set_result(entered.result)
        elif isinstance(entered, RemoteAttempt):
            self._add(_Submitted(entered, future, data, self._driver.modules(step), copy_context()))
        else:  # its scope has completed
            return self._engine.executor.submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as Executor has it
        """Take no more steps, and shut the executor down once it has nothing to do.

        :param wait: wait for the steps that were submitted
        :param cancel_futures: cancel those that have not started
        """
        with self._changed:
            self._is_shut_down = True
            self._is_cancelled = self._is_cancelled or cancel_futures
            queued = list(self._queue) if cancel_futures else []
            for one in queued:
                self._queue.remove(one)
        for one in queued:
            self._cancel(one)
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: not self._unfinished)
            elif self._unfinished:
                self._shuts_when_idle = True
                return
        self._engine.shutdown(wait=wait)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown(wait=True, cancel_futures=error is not None)

    def __repr__(self) -> str:
        return f"<bound {self._engine.executor!r}>"

    # -- what waits for a worker

    def _prepare_workers(self) -> None:
        self._engine.prepare_workers(partial(follow_driver, os.getpid()))

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

    def _add(self, submitted: _Submitted) -> None:
        try:
            submitted.attempt.send_to(self._engine.name)
            with self._changed:
                self._unfinished.add(submitted)
                self._queue.append(submitted)
            self._fill()
        except BaseException:  # Ctrl-C
            self._withdraw(submitted)
            raise

    def _withdraw(self, submitted: _Submitted) -> None:
        """Cancel a step unless it has started."""
        with self._changed:
            if submitted in self._queue:
                self._queue.remove(submitted)
            elif submitted.future.running() or submitted.future.done():
                return
        self._cancel(submitted)

    def _cancel(self, submitted: _Submitted) -> None:
        """Cancel a step that is not being executed."""
        if submitted.future.cancel():
            submitted.future.set_running_or_notify_cancel()
        else:
            submitted.raise_in_caller(CancelledError())
        submitted.attempt.drop()
        self._note_finished(submitted)

    def _note_finished(self, submitted: _Submitted) -> None:
        with self._changed:
            self._unfinished.discard(submitted)
            self._changed.notify_all()
            shuts_down = self._shuts_when_idle and not self._unfinished
        if shuts_down:
            self._engine.shutdown(wait=False)

    def _fill(self) -> None:
        """Start what is queued, as long as there are workers for it."""
        self._count_workers()
        while True:
            with self._changed:
                if not self._queue or self._executing >= self._at_once:
                    return
                submitted = self._queue.popleft()
                self._executing += 1
            self._start(submitted)

    def _count_workers(self) -> None:
        """Count the workers anew, now and then, where their number changes."""
        is_short = self._queue and self._executing >= self._at_once
        if self._looks_again and is_short and clock.monotonic_ns() - self._looked_ns > _RECOUNT_NS:
            self._looked_ns = clock.monotonic_ns()
            with suppress(Exception):  # a cluster that does not answer: the steps in it will tell
                self._at_once = self._engine.workers()

    def _free(self) -> None:
        with self._changed:
            self._executing -= 1

    # -- one step: start, deliver, handle

    def _start(self, submitted: _Submitted) -> None:
        attempt, future = submitted.attempt, submitted.future
        if not (future.running() or future.set_running_or_notify_cancel()):
            self._free()
            attempt.drop()
            self._note_finished(submitted)
            return
        try:
            if attempt.state is not OPEN:  # its scope could not wait for it
                raise _ended(attempt)
            if attempt.run.refused:
                raise attempt.refusal()
            self._launch(submitted)
        except BaseException as error:
            self._free()
            attempt.abandon(error)  # if it could not even start
            self._close(submitted, Outcome(error=error))
            if not isinstance(error, Exception):
                raise

    def _launch(self, submitted: _Submitted) -> None:
        """Write that the step starts, and give it to the engine."""
        task = submitted.context.run(self._begin, submitted)
        executor = self._engine.executor
        try:
            try:
                executor, inner = self._engine.submit(execute, task, submitted.data)
            except BrokenExecutor:  # by another step: this one has not run
                if not self._can_use(executor):
                    raise
                executor, inner = self._engine.submit(execute, task, submitted.data)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises
            self._receipts.put(_Receipt(submitted, executor, error))
            return
        inner.add_done_callback(partial(self._deliver, submitted, executor))

    def _begin(self, submitted: _Submitted) -> bytes:
        submitted.attempt.start()
        return write_task(self._driver.task(submitted.attempt, submitted.modules))

    def _deliver(self, submitted: _Submitted, executor: Executor, inner: Future[bytes]) -> None:
        """Take an outcome from the engine, and let go of its future.

        An engine that loses a worker computes again what that had computed, if it is still asked
        for.
        """
        outcome: bytes | BaseException
        try:
            outcome = inner.result()
        except BaseException as error:  # noqa: BLE001 - whatever the engine raises
            outcome = error
        self._receipts.put(_Receipt(submitted, executor, outcome))

    def _handle(self, receipts: list[_Receipt]) -> None:
        closing = [self._end(one) for one in receipts]
        self._fill()  # workers need not wait for the sync
        for close in closing:
            if close is not None:
                close()

    def _end(self, receipt: _Receipt) -> Callable[[], None] | None:
        """Write how an attempt ended.

        :returns: what tells the caller, once the log is synced; ``None``: another try has begun
        """
        submitted = receipt.submitted
        try:
            outcome = self._outcome(receipt)
        except BaseException as error:  # noqa: BLE001 - of a log, of users' classes: the caller waits
            submitted.attempt.lose(error)
            outcome = Outcome(error=error)
        if outcome is None:
            return None
        self._free()
        return partial(self._close, submitted, outcome)

    def _outcome(self, receipt: _Receipt) -> Outcome | None:
        submitted, found = receipt.submitted, receipt.outcome
        try:
            if isinstance(found, BaseException):
                raise found
            answer, spans = read_answer(found)
        except BaseException as error:  # noqa: BLE001 - also an answer of another version
            return None if self._rerun(receipt, error) else Outcome(error=error)
        ended = submitted.attempt.end_as(answer, spans, submitted.failures)
        return ended or Outcome(error=_ended(submitted.attempt))

    def _rerun(self, receipt: _Receipt, error: BaseException) -> bool:
        """Record that the engine has lost a step, and begin its next try if there is one."""
        submitted = receipt.submitted
        is_usable = not isinstance(error, BrokenExecutor) or self._can_use(receipt.executor)
        can_rerun = is_usable and not self._is_cancelled
        if not submitted.attempt.interrupt(error, can_rerun=can_rerun):
            return False
        submitted.attempt = submitted.attempt.again()
        self._launch(submitted)
        return True

    def _can_use(self, broken: Executor) -> bool:
        """Whether there is an executor in place of a broken one."""
        if self._is_shut_down and self._is_cancelled:
            return False
        try:
            if not self._engine.renew(broken):
                return False
        except Exception:  # noqa: BLE001 - of the user's function
            _log.exception("the executor %r is broken, and renew= of bind() failed", broken)
            return False
        self._prepare_workers()
        return True

    def _close(self, submitted: _Submitted, outcome: Outcome) -> None:
        """Wait for the sync, then give the caller the outcome, or try again."""
        try:
            submitted.attempt.settle_end()
        except BaseException as error:  # noqa: BLE001 - of a log: the caller waits
            outcome = Outcome(error=error)
        if outcome.wait_ns is not None:
            submitted.failures += 1
            wait = partial(self._try_later, submitted, outcome.wait_ns)
            threading.Thread(target=wait, name="tapps_otel-retry", daemon=True).start()
            return
        if outcome.error is not None:
            submitted.raise_in_caller(outcome.error)
        else:
            submitted.future.set_result(outcome.value)
        self._note_finished(submitted)

    def _try_later(self, submitted: _Submitted, wait_ns: int) -> None:
        clock.sleep(wait_ns / 1e9)
        try:
            submitted.attempt = submitted.attempt.again()
        except RunEndedError as error:
            submitted.raise_in_caller(error)
            self._note_finished(submitted)
            return
        with self._changed:
            is_cancelled = self._is_cancelled
            if not is_cancelled:
                self._queue.appendleft(submitted)
        if is_cancelled:
            self._cancel(submitted)
        else:
            self._fill()


class _Driver:
    """What workers have to know of this process.

    :param owned: they execute what it submits, and nothing else
    """

    def __init__(self, *, owned: bool) -> None:
        config = settings.current()
        self._owned, self._machine, self._pid = owned, machine_here(), os.getpid()
        self._environment = delivery_variables()
        self._modules: dict[str, dict[str, str]] = {}
        self._settings = {name: getattr(config, name) for name in delivery_settings(config)}

    def modules(self, step: Step[..., Any]) -> dict[str, str]:
        """Where a worker finds the modules of a step's calls."""
        found = self._modules.get(step.__module__)
        if found is None:
            found = self._modules[step.__module__] = modules_of(step)
        return found

    def task(self, attempt: RemoteAttempt, modules: dict[str, str]) -> Task:
        """What a worker has to know of an attempt."""
        run = recorder_of(attempt)
        return Task(
            workflow_id=run.workflow_id,
            workflow=run.name,
            execution=run.execution,
            step_id=attempt.step_id,
            attempt=attempt.number,
            trace_id=run.trace_id,
            span_id=attempt.span_id,
            definition=attempt.spec.definition,
            log_dir=str(run.log_dir),
            machine=self._machine,
            pid=self._pid,
            owned=self._owned,
            context=attempt.context(),
            modules=modules,
            environment=self._environment,
            settings=self._settings,
            hides_values=run.hides_values,
        )


def _ended(attempt: RemoteAttempt) -> RunEndedError:
    return RunEndedError(attempt.spec.name, attempt.run.scope_name(attempt.scope))


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
