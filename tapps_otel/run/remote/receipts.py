"""Hands what an engine delivers, and what is due, to one thread, everything there is at once.

Engines call back in threads of their own, which have other work to do than to wait for a disk. And
what is handled together shares one sync of the log.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Generic, TypeVar
from weakref import WeakMethod

from tapps_otel import clock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Receipts"]

T = TypeVar("T")

_log = logging.getLogger("tapps_otel")
_IDLE_S: Final = 1.0  # after which the thread ends, so that an idle executor has none


class Receipts(Generic[T]):
    """A queue, and the thread that handles what is in it.

    The thread survives whatever a batch raises, also what ends a program elsewhere: others wait.

    :param handle: a method that handles a batch, which may be empty. Its object is not kept alive:
        that is up to what is in the queue
    """

    def __init__(self, handle: Callable[[list[T]], None]) -> None:
        # Otherwise only a garbage collection would release an executor, with all of its semaphores.
        self._handle = WeakMethod(handle)
        self._lock = threading.RLock()
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._later: list[tuple[int, int, T]] = []  # a heap: when, a number that orders, what
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._drains = False

    @property
    def is_here(self) -> bool:
        """Whether this is the thread that handles them, as in a callback that it calls."""
        return self._drains or threading.current_thread() is self._thread

    def put(self, receipt: T | None) -> None:
        """Add what is to be handled; ``None``: nothing, but handle what there is."""
        self._queue.put(receipt)
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._work, name="tapps_otel-receipts", daemon=True)
            try:
                # Before it is noted: Ctrl-C in between makes two threads, which do no harm.
                thread.start()
            except RuntimeError:  # there are too many, or the interpreter is ending
                pass
            else:
                self._thread = thread
                return
        self._drain()

    def put_later(self, receipt: T, wait_ns: int) -> None:
        """Add what is to be handled after a while."""
        due = clock.monotonic_ns() + wait_ns
        if not clock.passes():
            clock.sleep(wait_ns / 1e9)
        with self._lock:
            heapq.heappush(self._later, (due, next(self._numbers), receipt))
        self.put(None)

    def take_later(self, note: Callable[[T], object]) -> T | None:
        """Take out what is due next; ``None``: nothing waits.

        :param note: is called with it before it is taken out
        """
        with self._lock:
            if not self._later:
                return None
            receipt = self._later[0][2]
            note(receipt)
            heapq.heappop(self._later)
            return receipt

    def _work(self) -> None:
        while self._wait():
            self._handle_batch()

    def _drain(self) -> None:
        """Do the work of the thread, which cannot be had, in this one."""
        if self._drains:
            return
        self._drains = True
        try:
            while not self._queue.empty() or self._later:
                self._wait()
                self._handle_batch()
        finally:
            self._drains = False

    def _wait(self) -> bool:
        """Wait until something is there, or due; return whether it is."""
        while True:
            wait_s = self._next_due_s()
            try:
                first = self._queue.get(timeout=_IDLE_S if wait_s is None else max(0, wait_s))
            except Empty:
                with self._lock:
                    if self._later or not self._queue.empty():
                        return True
                    self._thread = None
                    return False
            if first is not None:
                self._queue.put(first)
            return True

    def _next_due_s(self) -> float | None:
        with self._lock:
            return (self._later[0][0] - clock.monotonic_ns()) / 1e9 if self._later else None

    def _handle_batch(self) -> None:
        batch = [*self._due(), *self._waiting()]
        handle = self._handle()
        if handle is None:  # every step has its outcome: until then its object is held
            return
        try:
            handle(batch)
        except BaseException:  # noqa: BLE001 - of an engine, or of the program's callbacks
            _log.exception("what an executor has delivered could not be handled")

    def _due(self) -> list[T]:
        found = []
        with self._lock:
            while self._later and self._later[0][0] <= clock.monotonic_ns():
                found.append(heapq.heappop(self._later)[2])
        return found

    def _waiting(self) -> list[T]:
        found = []
        while not self._queue.empty():
            receipt = self._queue.get()
            if receipt is not None:
                found.append(receipt)
        return found
