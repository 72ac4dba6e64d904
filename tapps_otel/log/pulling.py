"""Pulling runs: what the home has, and the local folder has not, before anything reads it."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from tapps_otel.errors import LogError, RunBusyError, StoreError
from tapps_otel.log.lease import Lease
from tapps_otel.log.mirroring import complete, restore_values
from tapps_otel.log.store import may_be_run, run_of_side_log
from tapps_otel.log.tail import head_of

if TYPE_CHECKING:
    from tapps_otel.log.home import Copy
    from tapps_otel.log.store import Store

__all__ = ["pull", "pull_if_reachable"]

_log = logging.getLogger("tapps_otel")


def pull(store: Store, name: str, *, by_hand: bool = False) -> int:
    """Let the folder have all lines of a run, and of its side logs, that its home has.

    A log that a process of this machine writes is left alone: it has all lines.

    :param by_hand: set a damaged local log aside, too, and restore large values
    :returns: how many logs have changed
    :raises StoreError: the home cannot be reached or used
    :raises LogDamagedError: a local log is damaged; it was not changed
    :raises OSError: a log cannot be written
    """
    if store.home is None or not may_be_run(name):
        return 0
    with store.home.copies(name) as copies:
        return sum(
            _pull(store, copy, by_hand=by_hand)
            for copy in copies
            if name in {copy.name, run_of_side_log(f"{copy.name}.jsonl")}
        )


def pull_if_reachable(store: Store, name: str) -> None:
    """Pull a run for a reader, which gets what is here if that fails; a warning is logged."""
    try:
        pull(store, name)
    except StoreError as error:
        if not store.exists(name):
            raise
        _log.warning("run %r is shown as it is on this machine: %s", name, error)
    except LogError:  # the reader finds the damage
        pass


def _pull(store: Store, copy: Copy, *, by_hand: bool) -> bool:
    path = store.folder / f"{copy.name}.jsonl"
    with suppress(FileNotFoundError, LogError):
        if not by_hand and head_of(path, copy.name) == (
            copy.head.seq,
            copy.head.sha.decode(),
        ):
            return False
    try:
        lease = Lease(path.with_suffix(".lease"), copy.name, pulls=True)
    except RunBusyError:
        return False
    try:
        changed = complete(path, copy, replace_damaged=by_hand)
        return (by_hand and copy.head.seq > 0 and restore_values(path, copy)) or changed
    finally:
        lease.release()
