"""Crashes: from a chosen event on, no log is written, as if the process had been killed."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.log.writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapps_otel.log.event import Event

__all__ = ["Crash", "crash_at", "watching"]

_STARTS: Final = frozenset({"workflow_start", "workflow_resume", "step_start"})
_LISTED: Final = 10


class Crash(BaseException):
    """A simulated crash. No ``except Exception`` catches it."""


class _Doomed:
    """What is written, until the crash.

    :param is_last: called with each event once it is written; whether the crash comes then
    :param die: how; by default :class:`Crash` is raised
    """

    def __init__(
        self, is_last: Callable[[Event], bool], die: Callable[[], object] | None = None
    ) -> None:
        self._is_last, self._die = is_last, die
        self._lock = threading.Lock()
        self.crashed = False
        self.labels: list[str] = []

    def append(
        self, original: Callable[..., int | None], writer: LogWriter, event: Event, **options: Any
    ) -> int | None:
        if self.crashed:
            if event.event_type in _STARTS:  # the code of a dead process does not run
                raise Crash
            return None
        seq = original(writer, event, **options)
        with self._lock:
            self.labels.append(_label(event))
            if self._is_last(event):
                self.crashed = True
        if self.crashed:
            if self._die is not None:
                self._die()
            raise Crash
        return seq


def _label(event: Event) -> str:
    step_id = event.step_id
    return f"{event.event_type} {step_id}" if isinstance(step_id, str) else event.event_type


@contextmanager
def watching(
    is_last: Callable[[Event], bool], *, die: Callable[[], object] | None = None
) -> Iterator[_Doomed]:
    """Watch what this process writes to logs, and crash after an event.

    :param is_last: called with each event once it is written; whether the crash comes then
    :param die: how it crashes
    """
    doomed, original = _Doomed(is_last, die), LogWriter.append

    def append(self: LogWriter, event: Event, **options: Any) -> int | None:
        return doomed.append(original, self, event, **options)

    LogWriter.append = append  # type: ignore[method-assign]
    try:
        yield doomed
    except BaseException:
        if not doomed.crashed:
            raise
    finally:
        LogWriter.append = original  # type: ignore[method-assign]


@contextmanager
def crash_at(event_type: str, nth: int = 1) -> Iterator[None]:
    """Crash once the nth event of a type is written: what comes later is in no log.

    :class:`Crash` is raised there, and leaves the block no further. What it leaves on its way runs
    (``finally``, ``except BaseException``), and that is the difference to a killed process; no
    further step begins. Afterwards the run can be resumed::

        with crash_at("step_finish", 2):
            order("a lamp")
        order("a lamp")  # takes two steps from the log

    :param event_type: as ``step_start``
    :raises ValueError: ``nth`` is not positive
    :raises AssertionError: the block has ended and there was no such event
    """
    if nth < 1:
        msg = f"crash_at({event_type!r}, {nth}): events are counted from 1"
        raise ValueError(msg)
    seen = 0

    def is_last(event: Event) -> bool:
        nonlocal seen
        seen += event.event_type == event_type
        return seen == nth

    with watching(is_last) as doomed:
        yield
    if not doomed.crashed:
        last = ", ".join(doomed.labels[-_LISTED:]) or "none"
        msg = (
            f"{seen} events of type {event_type!r} were written, not {nth}. The last events: {last}"
        )
        raise AssertionError(msg)
