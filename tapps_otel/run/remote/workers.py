"""The workers of an engine: whether they can begin, how many they are, and others in their place.

A pool whose processes cannot begin (an initializer that fails, a script without its guard) breaks
as one does whose step kills its process. So no step starts in a pool before it has answered a call
that does nothing.
"""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tapps_otel import clock
from tapps_otel.run.remote.driver_end import follow_driver

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

    from tapps_otel.engines import Engine
    from tapps_otel.run.remote.submission import Submission

__all__ = ["Workers"]

_log = logging.getLogger("tapps_otel")
_RECOUNT_NS: Final = 1_000_000_000  # between two counts of workers


class Workers:
    """The workers of an engine.

    :param at_once: how many steps they get at the same time; ``None``: as many as there are workers
    :param changed: is called, in some thread, once :meth:`are_ready` has another answer
    :ivar at_once: how many steps they get now
    :ivar are_counted: whether that changes as workers come and go
    """

    def __init__(self, engine: Engine, at_once: int | None, changed: Callable[[], object]) -> None:
        self._engine, self._changed = engine, changed
        self.at_once = engine.workers() if at_once is None else at_once
        self.are_counted = at_once is None and engine.scales
        self._counted_ns = clock.monotonic_ns()
        self._counter: threading.Thread | None = None
        self._proven: Executor | None = None
        self._proving: Executor | None = None
        self._problem: tuple[Executor, BaseException] | None = None
        # The executor before this one, if it broke before it answered.
        self._never_answered: Executor | None = None
        self._prepare()

    def _prepare(self) -> None:
        self._engine.prepare_workers(partial(follow_driver, os.getpid()))

    # -- whether they can begin

    def are_ready(self, wanted: int) -> bool:
        """Whether steps can start; if not, that is being found out.

        :param wanted: number of steps that wait for it
        :raises Exception: of the engine: its workers cannot begin
        """
        executor = self._engine.executor
        if self._engine.is_shut_down() and self.can_renew(executor):
            executor = self._engine.executor  # what was submitted before is executed
        if not self._engine.may_not_begin or executor is self._proven:
            return True
        if self._problem is not None and self._problem[0] is executor:
            if not self._may_prove_another(executor, self._problem[1]):
                raise self._problem[1]
            executor = self._engine.executor
        if executor is self._proving:
            return False
        try:
            self._prove(executor, wanted)
        except BrokenExecutor:
            if not self.can_renew(executor):
                raise
            self._prove(self._engine.executor, wanted)
        return False

    def _may_prove_another(self, broken: Executor, problem: BaseException) -> bool:
        """Whether there is an executor in place of one that broke before it answered.

        Once: a process may have been killed while it started. If its successor breaks as well,
        they cannot begin.
        """
        if self._never_answered is None and isinstance(problem, BrokenExecutor):
            self._never_answered = broken if self.can_renew(broken) else None
        return self._never_answered is broken

    def _prove(self, executor: Executor, times: int) -> None:
        """Let workers answer: as many as are wanted, so that all of these begin meanwhile."""
        for _ in range(times):
            executor.submit(os.getpid).add_done_callback(partial(self._note, executor))
        # Only now: Ctrl-C before makes it happen once more.
        self._proving = executor

    def _note(self, executor: Executor, answer: Future[Any]) -> None:
        try:
            answer.result()
        except BaseException as error:  # noqa: BLE001 - whatever the engine raises
            if executor is self._engine.executor and executor is not self._proven:
                self._problem = executor, error
        else:
            self._proven, self._never_answered = executor, None
        self._changed()

    # -- another executor in place of one that is broken

    def submit(
        self, one: Submission, fn: Callable[..., bytes], *args: Any
    ) -> tuple[Executor, Future[bytes]]:
        """Submit a call of a step.

        :returns: the executor that got it, and the call's future
        :raises Exception: of the engine, which has not executed it
        """
        why_lost = self._engine.why_lost()
        if why_lost is not None:
            raise ConnectionError(why_lost)
        one.executor = executor = self._engine.executor
        try:
            return executor, executor.submit(fn, *args)
        except BrokenExecutor:  # by another call
            if not self.can_renew(executor):
                raise
        one.executor = executor = self._engine.executor
        return executor, executor.submit(fn, *args)

    def can_renew(self, broken: Executor) -> bool:
        """Whether there is an executor in place of a broken one."""
        try:
            if not self._engine.renew(broken):
                return False
        except Exception:  # noqa: BLE001 - of the user's function
            _log.exception("the executor %r is broken, and renew= of bind() failed", broken)
            return False
        self._prepare()
        return True

    # -- how many they are

    def count_again(self) -> None:
        """Count them now and then, where they come and go.

        In a thread of its own: a scheduler that is gone is waited for.
        """
        is_due = clock.monotonic_ns() - self._counted_ns > _RECOUNT_NS
        if not self.are_counted or not is_due or (self._counter and self._counter.is_alive()):
            return
        self._counted_ns = clock.monotonic_ns()
        self._counter = threading.Thread(target=self._count, name="tapps_otel-count", daemon=True)
        with suppress(RuntimeError):  # there are too many threads: later
            self._counter.start()

    def _count(self) -> None:
        try:
            found = self._engine.workers()
        except Exception as error:  # noqa: BLE001 - whatever the engine raises
            _log.debug("the workers of %r cannot be counted: %s", self._engine.executor, error)
            return
        if found != self.at_once:
            self.at_once = found
            self._changed()
