"""A thread that looks after sessions while a long step runs, in which nothing is written.

The lock of a run ends with its session, as when the server restarts. Without this thread the run
would be free to others until its next event.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final, Protocol

__all__ = ["Watched", "forget", "watch"]

_EACH_S: Final = 1.0


class Watched(Protocol):
    """What is looked after."""

    def look(self) -> None:
        """Connect again if the connection has ended. It does not raise."""


class _Watch:
    """The thread of this process, which ends when there is no session."""

    def __init__(self) -> None:
        self._sessions: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._lock = threading.RLock()  # a signal handler may begin a run in the middle
        self._thread: threading.Thread | None = None
        self._is_idle = threading.Event()

    def add(self, session: Watched) -> None:
        with self._lock:
            self._sessions.add(session)
            self._is_idle.clear()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tapps_otel", daemon=True)
                self._thread.start()

    def discard(self, session: Watched) -> None:
        with self._lock:
            self._sessions.discard(session)
            if not self._sessions:
                self._is_idle.set()

    def _run(self) -> None:
        while True:
            self._is_idle.wait(_EACH_S)
            with self._lock:
                sessions = list(self._sessions)
                if not sessions:
                    self._thread = None
                    return
            while sessions:
                sessions.pop().look()


_watch = _Watch()


def watch(session: Watched) -> None:
    """Look after a session from now on, until it is forgotten or dropped."""
    _watch.add(session)


def forget(session: Watched) -> None:
    """Look after a session no more."""
    _watch.discard(session)


def _begin_anew() -> None:
    """Forget, in a forked child, the thread and the sessions of its parent."""
    global _watch  # noqa: PLW0603 - one for each process
    _watch = _Watch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
