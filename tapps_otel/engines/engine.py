"""What this package needs to know of an engine."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

__all__ = ["Engine"]


class Engine:
    """Any ``concurrent.futures.Executor``.

    :param renew: makes an executor in place of one that is broken
    :cvar owns_workers: its workers execute what this process submits, and nothing else
    :cvar may_not_begin: it breaks if its workers cannot begin
    :cvar scales: the number of its workers may change
    :ivar executor: what calls are submitted to
    """

    owns_workers = False
    may_not_begin = False
    scales = False

    def __init__(self, executor: Executor, renew: Callable[[], Executor] | None = None) -> None:
        self.executor, self._renew = executor, renew
        self._renewing = threading.Lock()

    @property
    def name(self) -> str:
        """Its name in the log."""
        return type(self.executor).__name__

    def workers(self) -> int:
        """Return how many calls it executes at once."""
        found = getattr(self.executor, "_max_workers", None)
        return found if isinstance(found, int) and found > 0 else os.cpu_count() or 1

    def is_shut_down(self) -> bool:
        """Whether the program has shut the executor down, and one in its place can be made."""
        return False

    def why_lost(self) -> str | None:
        """Return why it can take no call now, although it does not refuse any; ``None``: it can."""
        return None

    def why_not_once(self) -> str | None:
        """Return why it could execute one call twice; ``None`` if it does not by itself."""
        return None

    def prepare_workers(self, prepare: Callable[[], None]) -> None:
        """Have each worker that starts call this, if the engine supports that."""

    def renew(self, broken: Executor) -> bool:
        """Take another executor in place of one that is of no use; return whether there is one."""
        with self._renewing:
            if self.executor is not broken:
                return True
            made = self._make() if self._renew is None else self._renew()
            if made is None:
                return False
            self.executor = made
        return True

    def _make(self) -> Executor | None:
        """Make an executor like the one that is of no use; ``None`` if that is not known."""
        return None

    def shutdown(self, *, wait: bool) -> None:
        """Shut the executor down. Not all of them can cancel what is queued."""
        self.executor.shutdown(wait=wait)
