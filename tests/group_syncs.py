"""File system calls for tests of shared syncs: they wait, fail and lose data as a test says."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from threading import get_ident

from crashes import die
from tapps_otel.log.files import Files

__all__ = ["Held", "PowerCut"]

_PATIENCE = 60.0  # seconds
BLOCK = 1024  # bytes, of a disk


class Held(Files):
    """Syncs that wait, once :meth:`hold` was called, until the test lets them go.

    :ivar syncers: the threads of all syncs so far
    :ivar written: number of writes so far
    """

    def __init__(self, fail: Callable[[int], object] = lambda nth: None) -> None:
        self.syncers: list[int] = []
        self.written = 0
        self.waiting = 0
        self._go, self._fail = threading.Event(), fail
        self._go.set()

    def hold(self) -> None:
        """Let syncs wait from now on."""
        self._go.clear()

    def let_go(self) -> None:
        """Let those that wait, and later ones, run."""
        self._go.set()

    def write(self, descriptor: int, data: bytes) -> None:
        super().write(descriptor, data)
        self.written += 1

    def sync(self, descriptor: int) -> None:
        self.syncers.append(get_ident())
        number = len(self.syncers)
        self.waiting += 1
        self._go.wait(_PATIENCE)  # a test that fails before it lets them go must end, too
        self.waiting -= 1
        self._fail(number)


class PowerCut(Files):
    """Cuts the power before the n-th write or sync: what no sync has covered is gone.

    A sync covers what was written when it began.

    :param hole: of the log; only every other block of what no sync has covered is gone
    """

    def __init__(self, nth: int, hole: Path | None = None) -> None:
        self._left, self._lock, self._hole = nth, threading.Lock(), hole
        self._safe: dict[int, int] = {}  # bytes on the disk, by descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        self._count(descriptor)
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._count(descriptor)
        size = self.size(descriptor)
        os.sched_yield()  # others may write now
        with self._lock:  # once the power is cut, no sync returns
            self._safe[descriptor] = size

    def _count(self, descriptor: int) -> None:
        with self._lock:
            self._left -= 1
            if not self._left:
                self._lose(descriptor, self._safe.get(descriptor, 0))
                die()

    def _lose(self, descriptor: int, safe: int) -> None:
        if self._hole is None:
            os.ftruncate(descriptor, safe)
            return
        size = self.size(descriptor)
        with self._hole.open("r+b") as file:
            for block in range(safe // BLOCK, size // BLOCK + 1, 2):
                begin, end = max(safe, BLOCK * block), min(size, BLOCK * (block + 1))
                file.seek(begin)
                file.write(bytes(end - begin))
