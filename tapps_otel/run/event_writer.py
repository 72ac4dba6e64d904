"""The function that writes a run's events: to its log, watched if anything watches, or nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tapps_otel import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapps_otel.log.event import Event
    from tapps_otel.log.writer import LogWriter
    from tapps_otel.otel.seam import EventWatcher

__all__ = ["Write", "make_writer", "write_nothing"]


class Write(Protocol):
    """Writes events of a run."""

    def __call__(self, event: Event, /, *, sync: bool = False) -> int | None:
        """Write an event.

        :param sync: sync before it returns, whatever the event is
        :returns: its seq; ``None`` while the log fails, or where it belongs to another process
        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        :raises LeaseLostError: another process has taken the run over
        """


def write_nothing(_: Event, /, *, sync: bool = False) -> None:
    """Write nothing: there is no log, or it belongs to another process."""


def make_writer(writer: LogWriter | None, watchers: Sequence[EventWatcher]) -> Write:
    """The function that writes events. Made once, because every event goes through it."""
    if writer is None:
        return write_nothing
    if not watchers:
        return writer.append

    def write(event: Event, /, *, sync: bool = False) -> int | None:
        began, was_written = clock.monotonic_ns(), bool(event.seq)
        seq = writer.append(event, sync=sync)
        if was_written:  # after an interrupt, it was appended once more
            return seq
        took_ns = clock.monotonic_ns() - began
        for watcher in watchers:
            watcher.wrote(event, took_ns)
        return seq

    return write
