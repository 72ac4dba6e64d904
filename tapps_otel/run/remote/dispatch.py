"""Starts submitted steps where there are workers, and ends them as the workers answer."""

from __future__ import annotations

import logging
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from tapps_otel.errors import RunEndedError
from tapps_otel.run.remote.attempt import Outcome
from tapps_otel.run.remote.line import Line
from tapps_otel.run.remote.messages import read_answer, write_task
from tapps_otel.run.remote.receipts import Receipts
from tapps_otel.run.remote.submission import Receipt, Submission
from tapps_otel.run.remote.worker import execute
from tapps_otel.run.remote.workers import Workers
from tapps_otel.run.scope import OPEN

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

    from tapps_otel.engines import Engine
    from tapps_otel.run.remote.attempt import RemoteAttempt
    from tapps_otel.run.remote.driver import Driver

__all__ = ["Dispatch"]

_log = logging.getLogger("tapps_otel")


class Dispatch:
    """The submitted steps of an executor, from their entry to their outcome.

    What the engine delivers is handled in a thread of its own, where no Ctrl-C comes. What the
    thread of a caller starts can be interrupted anywhere: see :meth:`recover`.
    """

    def __init__(self, engine: Engine, at_once: int | None, driver: Driver) -> None:
        self._engine, self._driver = engine, driver
        self._receipts: Receipts[Receipt | Submission] = Receipts(self._handle)
        self._workers = Workers(engine, at_once, partial(self._receipts.put, None))
        self._line = Line(self._workers)
        self._is_cancelled = self._shuts_when_idle = False

    # -- what callers do

    def add(self, one: Submission) -> None:
        """Add a step, and start it if there is a worker for it."""
        one.dispatch = self
        may_start = self._line.add(one, self._engine.name)
        if may_start or self._workers.are_counted:
            self._fill()

    def recover(self, one: Submission | None, error: BaseException) -> None:
        """End what this thread has left in the middle, after an exception at any instruction.

        :param one: the step that it wanted to add, if there is one yet
        """
        for lost in self._line.in_the_middle():
            self._give_up(lost, error, lost.attempt.lose)
        if one is not None and self._line.withdraw(one):
            self._cancel(one)

    def cancel(self) -> None:
        """Cancel what waits, for a worker or for its next try; nothing is tried again."""
        self._is_cancelled = True
        self._cancel_waiting()

    @property
    def is_here(self) -> bool:
        """Whether this thread is the one that handles answers, in a callback of a step's future."""
        return self._receipts.is_here

    def shut_down(self, *, wait: bool) -> None:
        """Shut the engine down, once every caller has its outcome.

        :param wait: wait for that
        :raises RuntimeError: a callback of a step's future waits; it is shut down when that is over
        """
        if wait and self.is_here:
            self._shuts_when_idle = True
            raise RuntimeError(
                "a callback of a submitted step cannot wait until all steps have ended, because "
                "they end when it does: call shutdown(wait=False)"
            )
        if wait:
            self._line.wait()
        else:
            self._shuts_when_idle = True
            if not self._line.is_empty:
                return
        self._engine.shutdown(wait=wait)

    # -- starting

    def _fill(self) -> None:
        """Start what waits, as long as there are workers for it."""
        if self._is_cancelled:  # meanwhile: the engine has lost a step, and that waited again
            self._cancel_waiting()
            return
        wanted = self._line.startable()
        if self._workers.are_counted and self._line.is_short():
            self._workers.count_again()
        if wanted < 1:
            return
        try:
            if not self._workers.are_ready(wanted):
                return
        except Exception as error:  # noqa: BLE001 - of the engine: it has begun nothing
            while (one := self._line.withdraw_next()) is not None:
                self._give_up(one, error, one.attempt.abandon)
            return
        while (taken := self._line.take()) is not None:
            self._start(taken)

    def _start(self, one: Submission) -> None:
        attempt, future = one.attempt, one.future
        if not (future.running() or future.set_running_or_notify_cancel()):
            attempt.drop()
            self._finish(one, _nothing)
            return
        try:
            if attempt.state is not OPEN:  # its scope could not wait for it
                raise _ended(attempt)
            if attempt.run.refused:
                raise attempt.refusal()
            task = one.context.run(self._begin, one)
            one.broken_with = None
            executor, inner = self._workers.submit(one, execute, task, one.data)
        except Exception as error:  # noqa: BLE001 - of a log, of an engine: its code has not begun
            self._give_up(one, error, attempt.never_began)
            return
        inner.add_done_callback(partial(self._deliver, one, executor))
        one.starter = None

    def _begin(self, one: Submission) -> bytes:
        one.attempt.start()
        return write_task(self._driver.task(one.attempt, one.modules))

    # -- what the engine delivers

    def _deliver(self, one: Submission, executor: Executor, inner: Future[bytes]) -> None:
        """Take an outcome from the engine, and let go of its future.

        An engine that loses a worker computes again what that had computed, if it is still asked
        for.
        """
        outcome: bytes | BaseException
        try:
            outcome = inner.result()
        except BaseException as error:  # noqa: BLE001 - whatever the engine raises
            outcome = error
        self._receipts.put(Receipt(one, executor, outcome))

    def _handle(self, delivered: list[Receipt | Submission]) -> None:
        """Handle answers, and the steps whose next try is due."""
        closing = [self._end(one) for one in delivered if isinstance(one, Receipt)]
        again = [partial(self._try_again, one) for one in delivered if isinstance(one, Submission)]
        steps: list[Callable[[], object]] = [*again, self._fill, *closing]
        for work in steps:  # workers need not wait for the sync
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - of callbacks of a program
                _log.exception("a callback of a submitted step failed")
                self.recover(None, error)

    def _end(self, receipt: Receipt) -> Callable[[], None]:
        """Write how an attempt ended.

        :returns: what tells the caller, once the log is synced
        """
        one = receipt.submission
        try:
            outcome = self._outcome(receipt)
        except BaseException as error:  # noqa: BLE001 - of a log, of users' classes: the caller waits
            with suppress(Exception):
                one.attempt.lose(error)
            outcome = Outcome(error=error)
        if outcome is None:
            return _nothing
        if isinstance(outcome.error, KeyboardInterrupt):
            # Ctrl-C has come to a worker before it comes to this process: nothing is to start.
            self._cancel_waiting()
        self._line.free(one)
        return partial(self._close, one, outcome)

    def _outcome(self, receipt: Receipt) -> Outcome | None:
        one, found = receipt.submission, receipt.outcome
        try:
            if isinstance(found, BaseException):
                raise found
            answer, spans = read_answer(found)
        except BaseException as error:  # noqa: BLE001 - also an answer of another version
            return None if self._reruns(receipt, error) else Outcome(error=error)
        ended = one.attempt.end_as(answer, spans, one.failures)
        return ended or Outcome(error=_ended(one.attempt))

    def _reruns(self, receipt: Receipt, error: BaseException) -> bool:
        """Record that the engine has lost a step; return whether it starts again."""
        one, can_rerun = receipt.submission, not self._is_cancelled
        if isinstance(error, BrokenExecutor):
            self._line.note_broken(receipt.executor)
            can_rerun = can_rerun and self._workers.can_renew(receipt.executor)
        if not one.attempt.interrupt(error, can_rerun=can_rerun, broken_with=one.broken_with):
            return False
        one.attempt = one.attempt.again()
        self._line.put_back(one)
        return True

    # -- outcomes

    def _close(self, one: Submission, outcome: Outcome) -> None:
        """Wait for the sync, then give the caller the outcome, or try again."""
        try:
            one.attempt.settle_end()
        except BaseException as error:  # noqa: BLE001 - of a log: the caller waits
            outcome = Outcome(error=error)
        if outcome.wait_ns is not None:
            one.failures += 1
            self._receipts.put_later(one, outcome.wait_ns)
            if self._is_cancelled:  # meanwhile
                self._cancel_tries()
            return
        if outcome.error is None:
            self._finish(one, one.return_to_caller, outcome.value)
        else:
            self._finish(one, one.raise_in_caller, outcome.error)

    def _try_again(self, one: Submission) -> None:
        if one.future.done():  # it was given up meanwhile
            return
        try:
            one.attempt = one.attempt.again()
        except RunEndedError as error:
            self._give_up(one, error, one.attempt.abandon)
            return
        if self._is_cancelled:
            self._cancel(one)
        else:
            self._line.put_back(one)

    def _cancel_waiting(self) -> None:
        while (one := self._line.withdraw_next()) is not None:
            self._cancel(one)
        self._cancel_tries()

    def _cancel_tries(self) -> None:
        while (one := self._receipts.take_later(self._line.claim)) is not None:
            if isinstance(one, Submission):
                self._cancel(one)

    def _cancel(self, one: Submission) -> None:
        """Cancel a step that no worker has."""
        one.attempt.drop()
        self._finish(one, one.cancel)

    def _give_up(
        self, one: Submission, error: BaseException, end: Callable[[BaseException], object]
    ) -> None:
        """End a step by an exception of none of its own code.

        :param end: ends its attempt
        """
        try:
            end(error)
        except Exception as problem:  # noqa: BLE001 - of a log
            error = problem
        self._finish(one, one.raise_in_caller, error)

    def _finish(self, one: Submission, tell: Callable[..., object], *outcome: Any) -> None:
        """Tell the caller of a step, which is finished then.

        A callback of the program may raise anything, once the caller has been told.
        """
        try:
            tell(*outcome)
        finally:
            if one.future.done():
                one.dispatch = None
                if self._line.finish(one) and self._shuts_when_idle:
                    self._engine.shutdown(wait=False)


def _ended(attempt: RemoteAttempt) -> RunEndedError:
    return RunEndedError(attempt.spec.name, attempt.run.scope_name(attempt.scope))


def _nothing() -> None:
    """What is left to do where another has done it."""
