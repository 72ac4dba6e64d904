"""A disk behind a page cache, which a test can fail and cut from its power."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tapps_otel.log.files import Files


class CachedDisk(Files):
    """One file on a disk: writes reach the page cache, and only a sync brings them to the disk.

    A failing sync loses what it was to bring there, as on Linux: the lost pages are marked clean,
    the cache still shows them, the next sync reports success; only once they are evicted does a
    reader see what the disk holds.

    :ivar on_disk: what the disk holds
    :ivar synced_to: offset from which on the cache has not been synced
    :ivar fail_sync: let the next sync fail
    :ivar fail_write: let the next write fail, after ``keep`` bytes
    :ivar fail_open: let every opening fail
    :param evicts: whether evicting works
    :param syncs: whether syncing works
    """

    def __init__(self, path: Path, *, evicts: bool = True, syncs: bool = True) -> None:
        self._path, self._evicts, self._syncs = path, evicts, syncs
        self.on_disk = b""
        self.synced_to = 0
        self.fail_sync = self.fail_write = self.fail_open = False
        self.keep = 0

    def open_append(self, path: Path, *, create: bool) -> int:
        if self.fail_open:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().open_append(path, create=create)

    def write(self, descriptor: int, data: bytes) -> None:
        failed, self.fail_write = self.fail_write, False
        super().write(descriptor, data[: self.keep] if failed else data)
        if failed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self, descriptor: int) -> None:
        if not self._syncs:
            return
        cached = self._path.read_bytes()
        failed, self.fail_sync = self.fail_sync, False
        new = cached[self.synced_to :]
        self.on_disk = self.on_disk[: self.synced_to] + (b"\0" * len(new) if failed else new)
        self.synced_to = len(cached)
        if failed:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def evict(self, descriptor: int) -> None:
        if self._evicts:
            self._path.write_bytes(self.on_disk + self._path.read_bytes()[self.synced_to :])

    def sync_folder(self, path: Path) -> None:
        """Do nothing: the folder is not part of this disk."""

    def lose_power(self) -> None:
        """Leave the file as the disk holds it."""
        self._path.write_bytes(self.on_disk)
