"""Hands what an engine delivers to one thread, everything that has come by then at once.

Engines call back in threads of their own, which have other work to do than to wait for a disk. And
what is handled together shares one sync of the log.
"""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Receipts"]

T = TypeVar("T")

_IDLE_S: Final = 1.0  # after which the thread ends, so that an idle executor has none


class Receipts(Generic[T]):
    """A queue, and the thread that handles what is in it.

    :param handle: handles a batch; must not raise
    """

    def __init__(self, handle: Callable[[list[T]], None]) -> None:
        self._handle, self._lock = handle, threading.Lock()
        self._queue: SimpleQueue[T] = SimpleQueue()
        self._works = False

    def put(self, receipt: T) -> None:
        """Add what is to be handled."""
        self._queue.put(receipt)
        with self._lock:
            if self._works:
                return
            self._works = True
        try:
            threading.Thread(target=self._work, name="tapps_otel-receipts", daemon=True).start()
        except RuntimeError:  # there are too many, or the interpreter is ending
            self._works = False
            self._handle(self._waiting())

    def _work(self) -> None:
        try:
            while (first := self._next()) is not None:
                self._handle([first[0], *self._waiting()])
        except BaseException:  # of an engine that is shut down: what comes later has a new thread
            with self._lock:
                self._works = False
            raise

    def _next(self) -> tuple[T] | None:
        """Wait for the next one; ``None``: that took too long, the thread ends."""
        while True:
            try:
                return (self._queue.get(timeout=_IDLE_S),)
            except Empty:
                with self._lock:
                    if self._queue.empty():
                        self._works = False
                        return None

    def _waiting(self) -> list[T]:
        found = []
        while not self._queue.empty():
            found.append(self._queue.get())
        return found
