"""An event that is written, and whose sync is awaited later, by a task or with others."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

from tapps_otel import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapps_otel.log.event import Event
    from tapps_otel.log.writer import LogWriter
    from tapps_otel.otel.seam import EventWatcher

__all__ = ["AwaitedWrite", "can_await_writes", "other_callbacks_ready", "postpone_cancellation"]

# Since then `Task.uncancel` takes a cancellation back that has not been raised yet: `timeout()`
# and `wait_for()` need that, if a cancellation is postponed.
_CAN_POSTPONE: Final = sys.version_info >= (3, 13)


class AwaitedWrite:
    """The end of a write whose sync other tasks share; see :mod:`tapps_otel.log.group_sync`.

    :ivar event: that is written
    :ivar synced: what a task awaits before :meth:`finish`, so that this need not wait
    """

    def __init__(
        self,
        writer: LogWriter,
        watchers: Sequence[EventWatcher],
        event: Event,
        synced: asyncio.Future[None] | None,
        began_ns: int,
    ) -> None:
        self._writer, self._watchers, self._began_ns = writer, watchers, began_ns
        self.event, self.synced = event, synced

    @classmethod
    def begin(
        cls, writer: LogWriter, watchers: Sequence[EventWatcher], event: Event
    ) -> AwaitedWrite | None:
        """Write the event; ``None``: it was not written, write it as usual.

        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        began_ns = clock.monotonic_ns()
        synced = writer.append_soon(event, asyncio.get_running_loop())
        return None if synced is None else cls(writer, watchers, event, synced, began_ns)

    @classmethod
    def ahead(
        cls, writer: LogWriter, watchers: Sequence[EventWatcher], event: Event
    ) -> AwaitedWrite:
        """Write the event; whoever calls :meth:`finish` first syncs for all that are written.

        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        began_ns = clock.monotonic_ns()
        writer.append(event, wait=False)
        return cls(writer, watchers, event, None, began_ns)

    def finish(self) -> int | None:
        """Wait for the sync if it has not ended; return as ``Write`` does."""
        seq = self._writer.settle(self.event)
        took_ns = clock.monotonic_ns() - self._began_ns
        for watcher in self._watchers:
            watcher.wrote(self.event, took_ns)
        return seq


def can_await_writes() -> bool:
    """Whether a task can await a sync, and its step still ends as the log has it.

    A cancellation that comes meanwhile must wait until the step has returned. Without a running
    loop of asyncio there is nothing to await.
    """
    return _CAN_POSTPONE and asyncio._get_running_loop() is not None  # noqa: SLF001 - never raises


def postpone_cancellation(error: asyncio.CancelledError) -> None:
    """Cancel this task with its next await instead of this one.

    :param error: that was raised in it
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        task.uncancel()
        task.cancel(*error.args)


def other_callbacks_ready() -> bool:
    """Whether other callbacks of the running loop are ready to run, as far as it shows that."""
    # asyncio's own loops have this queue. Others (uvloop) do not show theirs: what else is open in
    # the scope has to tell.
    return bool(getattr(asyncio.get_running_loop(), "_ready", None))
