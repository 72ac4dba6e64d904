"""Tombstones: which runs were removed, in ``pruned.jsonl``, a log with a hash chain of its own.

A tombstone has the head of the run's log, so that a copy of the log kept elsewhere can be compared
with it. It is on the disk before the first file of the run is removed.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from tapps_otel import clock
from tapps_otel.errors import LogError
from tapps_otel.log.event import Event
from tapps_otel.log.lease import Lease
from tapps_otel.log.reader import read
from tapps_otel.log.writer import LogWriter
from tapps_otel.names import PRUNED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.log.store import Store

__all__ = ["TOMBSTONE", "Tombstones", "open_tombstones", "pruned_runs"]

TOMBSTONE: Final = "tapps.pruned"  # name of the annotation


class Tombstones:
    """The log of removed runs, open for writing.

    :ivar heads: by run, the head of its log in its last tombstone as ``(seq, sha)``
    """

    def __init__(self, store: Store, lease: Lease) -> None:
        self.heads: dict[str, tuple[int, str]] = {}
        self._writer = LogWriter(
            store.pruned_path(), PRUNED, stop=True, on_event=self._note, lease=lease
        )

    def _note(self, event: Event) -> None:
        if (found := _head_in(event)) is not None:
            self.heads[found[0]] = found[1:]

    def add(self, fields: dict[str, Any]) -> None:
        """Write a tombstone, and sync.

        :param fields: ``run``, ``seq`` and ``sha``, and what else is worth knowing
        :raises LogWriteError: it may not be on the disk
        """
        event = Event(
            event_type="annotation",
            workflow_id=PRUNED,
            timestamp=clock.timestamp(clock.time_ns()),
            execution=1,
            name=TOMBSTONE,
            attributes=fields,
        )
        self._writer.append(event, sync=True)
        self._note(event)

    def close(self) -> None:
        """Close the log."""
        self._writer.close()


@contextmanager
def open_tombstones(store: Store) -> Iterator[Tombstones]:
    """Open the log of removed runs under its own lease: one process at a time removes runs.

    :raises RunBusyError: another process does
    :raises LogDamagedError: the log was changed; nothing was written
    :raises LogError: the file is the log of a run
    :raises OSError: it cannot be opened
    """
    lease = Lease(store.lease_path(PRUNED), PRUNED)
    try:
        found = Tombstones(store, lease)
        try:
            yield found
        finally:
            found.close()
    finally:
        lease.release()


def pruned_runs(store: Store) -> dict[str, tuple[int, str]]:
    """Return the runs that have a tombstone, each with the head that its log had.

    A damaged log is read up to the damage, and a missing one has none.
    """
    found: dict[str, tuple[int, str]] = {}
    try:
        for event in read(store.pruned_path(), PRUNED):
            if (head := _head_in(event)) is not None:
                found[head[0]] = head[1:]
    except (FileNotFoundError, LogError):  # `verify pruned` reports damage
        pass
    return found


def _head_in(event: Event) -> tuple[str, int, str] | None:
    fields = event.attributes
    if event.name != TOMBSTONE or not isinstance(fields, dict):
        return None
    match fields:
        case {"run": str(run), "seq": int(seq), "sha": str(sha)}:
            return run, seq, sha
    return None
