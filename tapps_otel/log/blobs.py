"""Values too large for a line, in files named by the SHA-256 of their content."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from tapps_otel.errors import BlobDamagedError
from tapps_otel.log import files as _files

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["INLINE_LIMIT", "Blobs"]

INLINE_LIMIT: Final = 64 * 1024  # bytes of JSON; larger values become blobs


class Blobs:
    """The folder ``<workflow_id>.blobs`` of a run, created with the first blob."""

    def __init__(self, folder: Path, *, sync: bool = True) -> None:
        self._folder, self._sync = folder, sync

    def put(self, data: bytes) -> str:
        """Store ``data`` on the disk and return its name (64 hex digits).

        :raises OSError: it cannot be stored
        """
        name = sha256(data).hexdigest()
        files, path = _files.system(), self._folder / name
        try:
            with files.open_read(path) as file:
                if sha256(file.read()).hexdigest() == name:
                    if self._sync:  # its writer may have been killed, or may not sync
                        files.sync(file.fileno())
                        files.sync_folder(self._folder)
                    return name
        except FileNotFoundError:
            pass
        files.write_file(path, data, sync=self._sync)
        return name

    def get(self, name: str) -> bytes:
        """Read a blob and verify its content.

        :raises BlobDamagedError: it is missing, or its content was changed
        """
        if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise BlobDamagedError(self._folder, f"{name[:80]!r} is not the name of a blob")
        path = self._folder / name
        try:
            with _files.system().open_read(path) as file:
                data = file.read()
        except OSError as error:
            raise BlobDamagedError(path, f"a stored value cannot be read: {error}") from None
        if sha256(data).hexdigest() != name:
            raise BlobDamagedError(path, "a stored value was changed")
        return data
