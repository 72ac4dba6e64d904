"""An event that a task has written, and awaits until it is synced."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tapps_otel import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapps_otel.log.event import Event
    from tapps_otel.log.writer import LogWriter
    from tapps_otel.otel.seam import EventWatcher

__all__ = ["AwaitedWrite", "other_callbacks_ready"]


class AwaitedWrite:
    """The end of a write whose sync other tasks share; see :mod:`tapps_otel.log.group_sync`.

    :ivar event: that is written
    :ivar synced: what to await before :meth:`finish`, so that this need not wait
    """

    def __init__(
        self,
        writer: LogWriter,
        watchers: Sequence[EventWatcher],
        event: Event,
        synced: asyncio.Future[None],
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

    def finish(self) -> int | None:
        """Wait for the sync if it has not ended; return as ``Write`` does."""
        seq = self._writer.settle(self.event)
        took_ns = clock.monotonic_ns() - self._began_ns
        for watcher in self._watchers:
            watcher.wrote(self.event, took_ns)
        return seq


def other_callbacks_ready() -> bool:
    """Whether other callbacks of the running loop are ready to run, as far as it shows that."""
    # asyncio's own loops have this queue. Others (uvloop) do not show theirs: what else is open in
    # the scope has to tell.
    return bool(getattr(asyncio.get_running_loop(), "_ready", None))
