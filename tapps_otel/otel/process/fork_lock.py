"""A lock that is free in every forked child."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ForkLock"]


class ForkLock:
    """Held by one thread at a time, and by none in a forked child.

    Only for what lives as long as the process: fork handlers cannot be unregistered.

    :param reset: called in a child if the lock was held at the fork: the thread that held it is not
        there to finish its work
    """

    def __init__(self, reset: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._reset = reset
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        if self._lock.locked():  # if the thread that holds it forks, the child's lock is a new one
            self._lock.release()

    def _renew(self) -> None:
        if self._lock.locked():
            self._reset()
        self._lock = threading.Lock()
