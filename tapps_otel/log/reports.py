"""Reports of what happens to a log, made once no lock is held.

Handlers of the standard log and observers are code of users: they may append to the log, or wait
for a thread that does.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["LogObserver", "Reports", "held_back", "report"]

_log = logging.getLogger("tapps_otel")
P = ParamSpec("P")


class LogObserver(Protocol):
    """Observes failures of a log. Its methods must not raise."""

    def log_failed(self, error: BaseException, /) -> None:
        """Called after a write, sync or opening that failed."""

    def log_dropped(self, events: int, /) -> None:
        """Called with a number of events that will never be in the log."""


class Reports:
    """The reports of one log, until :meth:`make`.

    :param path: names the log in messages
    :ivar pending: what is to be called
    """

    def __init__(self, path: Path, observer: LogObserver | None) -> None:
        self._path, self._observer = path, observer
        self.pending: deque[Callable[[], object]] = deque()

    def error(self, text: str, *args: object) -> None:
        """Report an error in the standard log."""
        self.pending.append(partial(_log.error, f"%s: {text}", self._path, *args))

    def warning(self, text: str, *args: object) -> None:
        """Report a warning in the standard log."""
        self.pending.append(partial(_log.warning, f"%s: {text}", self._path, *args))

    def failed(self, error: BaseException) -> None:
        """Report a failure to the observer."""
        if self._observer is not None:
            self.pending.append(partial(self._observer.log_failed, error))

    def dropped(self, events: int) -> None:
        """Report to the observer a number of events that will never be in the log."""
        if self._observer is not None and events:
            self.pending.append(partial(self._observer.log_dropped, events))

    def make(self) -> None:
        """Make the reports. The caller holds no lock, except inside :func:`held_back`."""
        while self.pending:
            report(self.pending.popleft())

    def clear(self) -> None:
        """Make none of the reports."""
        self.pending.clear()


class _HeldBack(threading.local):
    def __init__(self) -> None:
        self.depth = 0
        self.reports: deque[Callable[[], object]] = deque()


_held = _HeldBack()


def report(make: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call ``make``, after the blocks of :func:`held_back` that this thread is in."""
    if _held.depth:
        _held.reports.append(partial(make, *args, **kwargs))
    else:
        make(*args, **kwargs)


class held_back:  # noqa: N801 - it is used as a function, as those of contextlib are
    """Make the reports of this thread after the block: a lock is held in it.

    A class, because a generator would cost each captured span more.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        _held.depth += 1

    def __exit__(self, *exc: object) -> None:
        _held.depth -= 1
        while _held.reports and not _held.depth:
            _held.reports.popleft()()
