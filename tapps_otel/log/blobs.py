"""Values too large for a line, in files named by the SHA-256 of their content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, Final

from tapps_otel.errors import BlobDamagedError
from tapps_otel.log import files as _files
from tapps_otel.log.encrypted import context_of, decrypt_data, encrypt_data, locked_error

if TYPE_CHECKING:
    from pathlib import Path

    from tapps_otel.encryption import Codec

__all__ = ["INLINE_LIMIT", "Blobs"]

INLINE_LIMIT: Final = 64 * 1024  # bytes of JSON; larger values become blobs
_BLOCK: Final = 1 << 20
_CHANGED: Final = "a stored value was changed"
# Before the id of the key, a newline, and the ciphertext. JSON never begins like this.
_ENCRYPTED: Final = b"tapps_otel encrypted 1\n"


class Blobs:
    """The folder ``<workflow_id>.blobs`` of a run, created with the first blob.

    :ivar folder: its path
    :ivar codec: encrypts the values of users
    """

    def __init__(self, folder: Path, *, sync: bool = True, codec: Codec | None = None) -> None:
        self.folder, self._sync, self.codec = folder, sync, codec

    def put_value(self, data: bytes) -> str:
        """Store a value of the user, encrypted if there is a codec; return its name.

        :raises OSError: it cannot be stored
        """
        if self.codec is not None:
            key_id, data = encrypt_data(data, self.codec, self._context)
            data = b"%b%b\n%b" % (_ENCRYPTED, key_id.encode(), data)
        return self.put(data)

    @property
    def _context(self) -> bytes:
        return context_of("blob", self.folder.name)

    def put(self, data: bytes) -> str:
        """Store ``data`` on the disk and return its name (64 hex digits).

        :raises OSError: it cannot be stored
        """
        name = sha256(data).hexdigest()
        path = self.folder / name
        with self.own_folder() as folder:
            if not self._is_there(path, folder):
                _files.system().write_file(path, data, sync=self._sync, folder=folder)
        return name

    @contextmanager
    def own_folder(self) -> Iterator[int]:
        """Make the folder if there is none, and yield a descriptor of it.

        :raises OSError: it cannot be made, is a link, or another user can write to it
        """
        files = _files.system()
        files.make_folder(self.folder)
        folder = files.open_folder(self.folder)
        try:
            files.check_own(folder, self.folder)
            yield folder
        finally:
            files.close(folder)

    def _is_there(self, path: Path, folder: int) -> bool:
        """Return whether a blob is stored already."""
        files = _files.system()
        try:
            with files.open_inside(folder, path) as file:
                if not _has_digest(file, path.name):
                    return False
                if self._sync:  # its writer may have been killed, or may not sync
                    files.sync(file.fileno())
                    files.sync_folder(self.folder)
                return True
        except FileNotFoundError:
            return False

    def get(self, name: str) -> bytes:
        """Read a blob and verify its content; what is encrypted is decrypted.

        :raises BlobDamagedError: it is missing, or its content was changed
        :raises DecryptionError: it cannot be decrypted
        """
        data = self.stored(name)
        return self._decrypted(data, name) if data.startswith(_ENCRYPTED) else data

    def stored(self, name: str) -> bytes:
        """Read a blob as it is stored, and verify its content.

        :raises BlobDamagedError: it is missing, or its content was changed
        """
        with self._verified(name) as file:
            data = file.read()
        if sha256(data).hexdigest() != name:  # changed since
            raise BlobDamagedError(self.folder / name, _CHANGED)
        return data

    def _decrypted(self, data: bytes, name: str) -> bytes:
        key, _, ciphertext = data[len(_ENCRYPTED) :].partition(b"\n")
        key_id = key.decode(errors="replace")
        found = decrypt_data(ciphertext, key_id, self.codec, self._context)
        if isinstance(found, str):
            raise locked_error(self.folder.stem, f"blob {name}", key_id, found)
        return found

    def check(self, name: str) -> None:
        """Verify a blob's content, in bounded memory.

        :raises BlobDamagedError: it is missing, or its content was changed
        """
        with self._verified(name):
            pass

    @contextmanager
    def _verified(self, name: str) -> Iterator[BinaryIO]:
        """Open a blob, and read it in pieces first: a file of any size may have its name."""
        if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise BlobDamagedError(self.folder, f"{name[:80]!r} is not the name of a blob")
        path, files = self.folder / name, _files.system()
        try:
            folder = files.open_folder(self.folder)
            try:
                file = files.open_inside(folder, path)
            finally:
                files.close(folder)
            with file:
                if not _has_digest(file, name):
                    raise BlobDamagedError(path, _CHANGED)
                file.seek(0)
                yield file
        except OSError as error:
            raise BlobDamagedError(path, f"a stored value cannot be read: {error}") from None


def _has_digest(file: BinaryIO, digest: str) -> bool:
    """Return whether this is the SHA-256 of a file, which is read in pieces."""
    found = sha256()
    while block := file.read(_BLOCK):
        found.update(block)
    return found.hexdigest() == digest
