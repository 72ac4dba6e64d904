"""Tombstones: which runs were removed, in ``pruned.jsonl``, a log with a hash chain of its own.

A tombstone has the head of the run's log, so that a copy of the log kept elsewhere can be compared
with it. It is on the disk before the first file of the run is removed.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.errors import LogError
from tapps_otel.log.lease import Lease
from tapps_otel.log.reader import read
from tapps_otel.log.recovery import log_event
from tapps_otel.log.writer import LogWriter
from tapps_otel.names import PRUNED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.log.event import Event
    from tapps_otel.log.store import Store

__all__ = ["TOMBSTONE", "Tombstones", "open_tombstones", "pruned_runs"]

TOMBSTONE: Final = "tapps.pruned"  # name of the annotation


class Tombstones:
    """The log of removed runs, open for writing.

    :ivar last: the names of the side logs that were checked before a run was removed, by run; of
        the last time, if a run of its id was removed again
    """

    def __init__(self, store: Store, lease: Lease) -> None:
        self.last: dict[str, frozenset[str]] = {}
        self._writer = LogWriter(
            store.pruned_path(), PRUNED, stop=True, on_event=self._note, lease=lease
        )

    def _note(self, event: Event) -> None:
        if (found := _tombstone_in(event)) is not None:
            run, self.last[run] = found

    def add(self, fields: dict[str, Any]) -> None:
        """Write a tombstone, and sync.

        :param fields: ``run``, ``seq``, ``sha`` and ``side_logs``, and what else is worth knowing
        :raises LogWriteError: it may not be on the disk
        """
        event = log_event("annotation", PRUNED, 1, name=TOMBSTONE, attributes=fields)
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


def pruned_runs(store: Store) -> set[str]:
    """Return the runs that have a tombstone.

    A damaged log is read up to the damage, and a missing one has none.
    """
    found: set[str] = set()
    try:
        for event in read(store.pruned_path(), PRUNED):
            if (one := _tombstone_in(event)) is not None:
                found.add(one[0])
    except (FileNotFoundError, LogError):  # `verify pruned` reports damage
        pass
    return found


def _tombstone_in(event: Event) -> tuple[str, frozenset[str]] | None:
    """The run that a tombstone is of, and the names of its side logs."""
    fields = event.attributes
    if event.name != TOMBSTONE or not isinstance(fields, dict):
        return None
    match fields:
        case {"run": str(run), "seq": int(), "sha": str()}:
            sides = fields.get("side_logs") or []  # each as `name seq sha`
            names = (str(one).partition(" ")[0] for one in sides)
            return run, frozenset(names)
    return None
