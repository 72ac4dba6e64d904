"""The open file of a log, which must stay the file of the log's name.

A log that was deleted, renamed or replaced while it is written is whole in the open file: it can be
copied to its name, if that is free. Without its name, what is written to it is lost.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tapps_otel.log.event import TRAILER, trailing_sha

if TYPE_CHECKING:
    from pathlib import Path

    from tapps_otel.log.files import Files, OpenFile

__all__ = ["DisplacedError", "LogFile"]


class DisplacedError(OSError):
    """The log has lost its name: it was deleted, renamed or replaced."""

    def __str__(self) -> str:
        return "the log was deleted, renamed or replaced while it was written"


class LogFile:
    """The open file of a log.

    :ivar descriptor: of the open file, -1 if there is none
    :ivar restored: it was put back under its name; the annotation that records this is not written
        yet
    """

    def __init__(self, files: Files, path: Path) -> None:
        self.path, self._name = path, str(path)
        self.descriptor, self.restored = -1, False
        self._files = files
        self._file: OpenFile | None = None  # closes itself if an interrupt drops it
        self._identity: tuple[int, int] | None = None  # of the file that must have the name

    def open(self) -> None:
        """Open or create it; the caller closes it if this fails.

        :raises OSError: it cannot be opened or created
        """
        self._hold(self._files.as_object(self._files.open_append(self.path, create=True), "r+"))
        self._identity = self._files.identity(self.descriptor)

    def _hold(self, file: OpenFile) -> None:
        self._file, self.descriptor = file, file.fileno()

    def is_displaced(self) -> bool:
        """Whether the log has lost its name.

        :raises OSError: its status cannot be read
        """
        return self._files.identity_of_name(self._name) != self._identity

    def reopen(self) -> None:
        """Open the file of the log's name again; put it back there first if it has lost that.

        If this fails, what was open stays open.

        :raises OSError: another file has the name, or the file cannot be copied or opened
        """
        if self.is_displaced():
            self._identity = self._files.put_back(self.descriptor, self.path)
            self.restored = True
        file = self._files.as_object(self._files.open_append(self.path, create=False), "r+")
        try:
            if self._files.identity(file.fileno()) != self._identity:
                raise DisplacedError
        except BaseException:
            file.close()
            raise
        before = self._file
        self._hold(file)
        self._files.close_object(before)

    def reopen_unchanged(self, size: int, sha: bytes) -> bool:
        """Open it again after :meth:`close`, if it ends as it was left.

        :raises OSError: it is gone, or cannot be opened or read
        """
        files = self._files
        self._hold(files.as_object(files.open_append(self.path, create=False), "r+"))
        try:
            self._identity = files.identity(self.descriptor)
            trailer = files.read_at(self.descriptor, TRAILER, max(0, size - TRAILER))
            same = (
                files.lock(self.descriptor)
                and files.size(self.descriptor) == size
                and trailing_sha(trailer) == sha
            )
        except BaseException:
            self.close()
            raise
        if not same:
            self.close()
        return same

    def move_beside(self) -> None:
        """Have a free name beside the log's own from now on."""
        self.path = self.path.with_name(f"{self.path.name}.{os.urandom(4).hex()}")
        self._name = str(self.path)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        self.descriptor = -1
        self._files.close_object(self._file)
