"""Staging folders: where the files of runs are checked before they appear among the logs.

A staging folder is beside the logs, and no command looks into it. The process that uses it holds a
lease on it, so that what a killed process left can be told from what is in use.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from tapps_otel.errors import RunBusyError
from tapps_otel.log import files as _files
from tapps_otel.log import lease as _lease
from tapps_otel.log.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["abandoned", "remove_abandoned", "staging"]

_NAME: Final = re.compile(r"(?P<folder>\.unpack-[0-9a-f]{8})(?:\.lease)?")


@contextmanager
def staging(store: Store) -> Iterator[Store]:
    """Make a staging folder, and remove it at the end of the block with all that is in it.

    :raises OSError: it cannot be made or removed
    """
    remove_abandoned(store)
    folder = store.folder / f".unpack-{os.urandom(4).hex()}"
    lease = _lease.Lease(_lease_of(folder), folder.name)
    try:
        _files.system().make_folder(folder)
        yield Store(folder)
    finally:
        try:
            _remove(folder)
        finally:
            lease.release()


def abandoned(store: Store) -> list[Path]:
    """Return the staging folders that killed processes left.

    :raises OSError: the folder of logs cannot be listed
    """
    entries = _files.system().entries(store.folder, follow=True)
    names = {match["folder"] for one in entries if (match := _NAME.fullmatch(one.name))}
    folders = [store.folder / name for name in sorted(names)]
    return [one for one in folders if _lease.holder(_lease_of(one)) is None]


def remove_abandoned(store: Store) -> None:
    """Remove the staging folders that killed processes left.

    :raises OSError: one cannot be removed
    """
    for folder in abandoned(store):
        with suppress(RunBusyError):  # another process removes it
            lease = _lease.Lease(_lease_of(folder), folder.name)
            try:
                _remove(folder)
            finally:
                lease.release()


def _lease_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lease")


def _remove(folder: Path) -> None:
    files = _files.system()
    for entry in files.entries(folder, follow=False):
        if not entry.is_file:  # large values
            files.remove_folder(folder / entry.name)
    files.remove_folder(folder)
