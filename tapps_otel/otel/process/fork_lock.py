"""A lock that a forked child does not inherit from a thread that it has not."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ProcessLock"]


class ProcessLock:
    """Held by one thread at a time; free in every forked child. For modules: it is kept for ever.

    :param begin_anew: called in a child if the lock was held at the fork: whatever was under way
        has to be begun anew there
    """

    def __init__(self, begin_anew: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._begin_anew = begin_anew
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        if self._lock.locked():  # not where its own holder has forked: that one is new
            self._lock.release()

    def _renew(self) -> None:
        if self._lock.locked():
            self._begin_anew()
        self._lock = threading.Lock()
