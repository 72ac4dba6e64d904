"""Which submitted steps wait for a worker, and which have one."""

from __future__ import annotations

import threading
from collections import deque
from threading import get_ident
from typing import TYPE_CHECKING, Final

from tapps_otel.run.remote.submission import Submission

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from tapps_otel.run.remote.submission import Receipt
    from tapps_otel.run.remote.workers import Workers

__all__ = ["Line"]


# Those with unfinished steps. The steps hold what handles their answers, and nothing else might
# hold them: a program may keep no more than their futures.
_busy: Final[set[Line]] = set()


class Line:
    """The submitted steps of an executor, from :meth:`add` until :meth:`finish`.

    Ctrl-C may come between any two instructions of the main thread. So a step is always in one of
    the collections here, to be in two of them does no harm, and each move can be repeated.

    :param workers: tell how many steps have a worker at the same time
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        # Used directly: its `with` is in C, and has no place for Ctrl-C while it is held.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[Submission] = deque()
        self._executing: dict[Submission, None] = {}
        self._unfinished: dict[Submission, None] = {}
        # Whether a step was ever suspected of breaking its executor: few programs have any.
        self._is_any_suspect = False

    def add(self, one: Submission, engine: str) -> bool:
        """Add a step, which from now on belongs to no thread of the program.

        :returns: whether there may be a worker for it
        """
        with self._lock:
            self._unfinished[one] = None
            _busy.add(self)
            one.attempt.send_to(engine)
            self._queue.append(one)
            return len(self._executing) < self._workers.at_once

    def take(self) -> Submission | None:
        """Take the first step for which there is a worker. This thread has to start it."""
        with self._lock:
            if not self._queue or len(self._executing) >= self._limit():
                return None
            one = self._queue[0]
            one.starter = get_ident()
            self._executing[one] = None
            self._queue.popleft()
            return one

    def _limit(self) -> int:
        if not self._is_any_suspect:
            return self._workers.at_once
        suspects = self._queue[0].runs_alone or any(one.runs_alone for one in self._executing)
        return 1 if suspects else self._workers.at_once

    def put_back(self, one: Submission) -> None:
        """Let a step start again, before all others."""
        with self._lock:
            self._queue.appendleft(one)
            self._executing.pop(one, None)

    def free(self, one: Submission) -> None:
        """Note that a step has no worker any more."""
        with self._lock:
            self._executing.pop(one, None)

    def finish(self, one: Submission) -> bool:
        """Note that its caller has its outcome; return whether no other step is left."""
        with self._lock:
            self._executing.pop(one, None)
            self._unfinished.pop(one, None)
            if self._unfinished:
                return False
            _busy.discard(self)
            self._changed.notify_all()
            return True

    def withdraw(self, one: Submission) -> bool:
        """Take a step out again; return whether no thread has taken it, nor had any."""
        with self._lock:
            if one in self._queue:
                self._queue.remove(one)
                return True
            return one in self._unfinished and one.starter is None and one.executor is None

    def withdraw_next(self) -> Submission | None:
        """Take out the first step that waits for a worker. This thread has to end it."""
        with self._lock:
            if not self._queue:
                return None
            one = self._queue[0]
            one.starter = get_ident()
            self._queue.popleft()
            return one

    def claim(self, one: Receipt | Submission) -> None:
        """Note that this thread has to end a step that waits for its next try."""
        if isinstance(one, Submission):
            one.starter = get_ident()

    def in_the_middle(self) -> list[Submission]:
        """Take out the steps that this thread has taken, and neither started nor ended."""
        with self._lock:
            found = [one for one in self._unfinished if one.starter == get_ident()]
            for one in found:
                if one in self._queue:
                    self._queue.remove(one)
            return found

    def note_broken(self, executor: Executor) -> None:
        """Note, for all steps that an executor has, that it is broken."""
        with self._lock:
            inside = [one for one in self._executing if one.executor is executor]
            for one in inside:
                if one.broken_with is None:
                    one.broken_with = len(inside) - 1
                    one.shared_breaks += len(inside) > 1
                    self._is_any_suspect = True

    def is_short(self) -> bool:
        """Whether steps wait, although all workers have one."""
        with self._lock:
            return bool(self._queue) and len(self._executing) >= self._workers.at_once

    def startable(self) -> int:
        """How many steps there are workers for."""
        with self._lock:
            return min(len(self._queue), self._workers.at_once - len(self._executing))

    @property
    def is_empty(self) -> bool:
        """Whether every caller has its outcome."""
        return not self._unfinished

    def wait(self) -> None:
        """Wait until every caller has its outcome."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_empty)
