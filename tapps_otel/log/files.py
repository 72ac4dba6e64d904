"""The only module that makes file system calls, and a twin of it that fails on demand.

What each call promises stands with it; what a log promises follows from their order, which
:mod:`~tapps_otel.log.writer` and :mod:`~tapps_otel.log.lease` choose.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final

from tapps_otel.errors import PlatformError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: importing works, opening a log does not
    fcntl = None  # type: ignore[assignment]

__all__ = ["FaultyFiles", "Files", "NotRegularFileError", "system", "use"]

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700

# O_NOFOLLOW: an id must not lead out of the folder by a link. O_NONBLOCK: opening a FIFO that
# stands in the log's place must fail, not wait for a reader. Neither changes a regular file.
_SAFE: Final = (
    getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
)
_APPEND: Final = os.O_RDWR | os.O_APPEND | _SAFE
# struct flock of Linux: type, whence, start, length, pid (0, as open file description locks need).
_FLOCK: Final = "hhqqi4x"
_UNLOCKED: Final = getattr(fcntl, "F_UNLCK", 2)


class NotRegularFileError(OSError):
    """A folder, FIFO, device or link stands where a file was looked for."""


class Files:
    """System calls on files. Every method may raise :class:`OSError`."""

    def open_append(self, path: Path, *, create: bool) -> int:
        """Open for reading and appending; links and special files are refused.

        A new file is private (0600) and survives a power cut: its folder is synced.
        """
        if fcntl is None:
            msg = "tapps_otel keeps logs on Linux and macOS only: this system has no file locks"
            raise PlatformError(msg)
        try:
            descriptor = self._regular(os.open(path, _APPEND), path)
        except FileNotFoundError:
            if not create:
                raise
            self.make_folder(path.parent)
            descriptor = self._regular(os.open(path, _APPEND | os.O_CREAT, FILE_MODE), path)
        try:
            if not self.size(descriptor):  # new, or its maker was killed before this line
                self.sync_folder(path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def open_read(self, path: Path) -> BinaryIO:
        """Open for reading, with a large buffer; links and special files are refused."""
        descriptor = self._regular(os.open(path, os.O_RDONLY | _SAFE), path)
        return os.fdopen(descriptor, "rb", buffering=1 << 18)

    def open_given(self, path: Path) -> BinaryIO:
        """Open a file of the user's own for reading; links are followed, special files refused."""
        flags = _SAFE & ~getattr(os, "O_NOFOLLOW", 0)
        descriptor = self._regular(os.open(path, os.O_RDONLY | flags), path)
        return os.fdopen(descriptor, "rb", buffering=1 << 18)

    def reader(self, descriptor: int) -> BinaryIO:
        """Read an open file from its start; the descriptor stays open afterwards."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.fdopen(descriptor, "rb", buffering=1 << 18, closefd=False)

    def writer(self, descriptor: int) -> BinaryIO:
        """Write to an open file through a large buffer; the descriptor stays open afterwards."""
        return os.fdopen(descriptor, "wb", buffering=1 << 18, closefd=False)

    def read_at(self, descriptor: int, length: int, offset: int) -> bytes:
        """Read up to ``length`` bytes at ``offset``; fewer only where the file ends."""
        return os.pread(descriptor, length, offset)

    def size(self, descriptor: int) -> int:
        """Size of an open file in bytes."""
        return os.fstat(descriptor).st_size

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of ``data`` at the file's end. Promises nothing about a power cut.

        After an error any part of it may be in the file.
        """
        written = os.write(descriptor, data)
        while written < len(data):  # a signal, or a disk that fills up
            data = data[written:]
            written = os.write(descriptor, data)

    def position(self, descriptor: int) -> int:
        """Where the last write of this descriptor ended (bytes): with O_APPEND, the file's end."""
        return os.lseek(descriptor, 0, os.SEEK_CUR)

    def sync(self, descriptor: int) -> None:
        """Bring what was written to the disk, as far as the disk tells the truth."""
        if sys.platform == "darwin":
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync there stops at the disk's cache
        else:
            os.fdatasync(descriptor)

    def evict(self, descriptor: int) -> None:
        """Let later reads see what the disk holds: after a failed sync the cache shows more."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self, descriptor: int) -> None:
        """Close; an error is passed over, what mattered was synced before."""
        with suppress(OSError):
            os.close(descriptor)

    def make_folder(self, path: Path) -> None:
        """Make a private folder (0700) and its parents, each synced into its own parent."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=FOLDER_MODE)
        self.sync_folder(path.parent)

    def sync_folder(self, path: Path) -> None:
        """Bring a folder's list of names to the disk."""
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def put(self, path: Path, data: bytes, *, sync: bool) -> None:
        """Put a whole file in place, or none: a crash leaves no half of it under this name."""
        self.make_folder(path.parent)
        with self.new_file(path, replace=True, sync=sync) as descriptor:
            self.write(descriptor, data)

    @contextmanager
    def new_file(self, path: Path, *, replace: bool, sync: bool) -> Iterator[int]:
        """Write a private file that stands under its name once it is whole, or never.

        Gives a descriptor to write to. A crash leaves a part of it under another name in the same
        folder. A folder, FIFO, device or link of that name is refused; so is a file, without
        ``replace``. One that comes up in the very last moment is replaced.

        :raises FileExistsError: there is a file of that name
        """
        self._refuse_taken(path, replace=replace)
        part = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, FILE_MODE)
        except OSError as error:  # of the name that the caller knows
            raise OSError(error.errno, error.strerror, str(path)) from None
        try:
            yield descriptor
            if sync:
                self.sync(descriptor)
            self._refuse_taken(path, replace=replace)
            os.rename(part, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
        finally:
            os.close(descriptor)
        if sync:
            self.sync_folder(path.parent)

    def replace_content(self, descriptor: int, data: bytes) -> None:
        """Overwrite a small file in place. Not atomic: for labels, not for records."""
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)

    def changes(self, folder: Path, suffix: str) -> Iterator[tuple[int, str]]:
        """When a folder's files last changed (ns since 1970 UTC), and their names, in no order.

        Only files whose names end so; nothing where there is no folder.
        """
        with suppress(FileNotFoundError), os.scandir(folder) as found:
            for entry in found:
                name = entry.name
                if name.endswith(suffix):
                    try:
                        yield entry.stat(follow_symlinks=False).st_mtime_ns, name
                    except FileNotFoundError:  # removed since it was listed
                        continue

    def lock(self, descriptor: int) -> bool:
        """Take an exclusive lock that dies with this open file, without waiting; ``False``: held.

        An open file description lock where there are such (a close of another descriptor of the
        same file in this process would drop a plain one), else ``flock``.
        """
        try:
            if hasattr(fcntl, "F_OFD_SETLK"):
                wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EAGAIN}:
                return False
            raise
        return True

    def is_locked(self, descriptor: int) -> bool:
        """Whether another open file holds the lock; takes nothing (``flock``: for a moment)."""
        if hasattr(fcntl, "F_OFD_GETLK"):
            wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted)
            return bool(struct.unpack(_FLOCK, found)[0] != _UNLOCKED)
        if not self.lock(descriptor):
            return True
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False

    def read_text(self, path: str) -> str | None:
        """A small file of the system's own (``/proc``); ``None`` where there is none."""
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
        return None

    def content_of(self, path: str) -> bytes:
        """A small file of the user's own, as a certificate is; links are followed."""
        with open(path, "rb") as file:
            return file.read(1 << 20)

    def is_folder(self, path: Path) -> bool:
        """Whether there is a folder."""
        return path.is_dir()

    def go_to(self, folder: Path) -> None:
        """Make a folder this process's working directory: for programs, never for a library."""
        os.chdir(folder)

    def free_bytes(self, folder: Path) -> int:
        """What is left on the disk for users who are not root."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    def remove(self, path: Path) -> None:
        """Remove a file that was made to try something out; never a log."""
        os.unlink(path)

    def is_same(self, path: Path, other: Path) -> bool:
        """Whether both name one file or folder, also by links; not where one is not there."""
        with suppress(FileNotFoundError):
            return os.path.samefile(path, other)
        return False

    def _refuse_taken(self, path: Path, *, replace: bool) -> None:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise NotRegularFileError(errno.EINVAL, "not a regular file", str(path))
            if not replace:
                raise FileExistsError(errno.EEXIST, "a file of that name is there", str(path))

    def _regular(self, descriptor: int, path: Path) -> int:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise NotRegularFileError(errno.EINVAL, "not a regular file", str(path))


class FaultyFiles(Files):
    """The same calls, one kind of which fails from its n-th time on. For tests.

    :param call: name of the method that fails, as ``"write"`` or ``"sync"``
    :param nth: which of its calls fails first, from 1
    :param times: how many fail in a row from there; ``None`` for all
    :param error: the errno
    :param keep: how many bytes of a failing write still reach the file
    """

    def __init__(
        self,
        call: str,
        nth: int = 1,
        *,
        times: int | None = None,
        error: int = errno.ENOSPC,
        keep: int = 0,
    ) -> None:
        self._call, self._nth, self._error, self._keep = call, nth, error, keep
        self._last = None if times is None else nth + times - 1
        self.calls = 0
        setattr(self, call, self._fail_in_turn)

    def _fail_in_turn(self, *args: object, **named: object) -> object:
        self.calls += 1
        genuine = getattr(Files, self._call)
        if self.calls < self._nth or (self._last is not None and self.calls > self._last):
            return genuine(self, *args, **named)
        if self._call == "write" and self._keep:
            descriptor, data = args
            Files.write(self, descriptor, data[: self._keep])  # type: ignore[arg-type,index]
        raise OSError(self._error, os.strerror(self._error))


_files: Files = Files()


def system() -> Files:
    """The file system in use: the real one, unless a test replaced it."""
    return _files


@contextmanager
def use(files: Files) -> Iterator[None]:
    """Let everything opened meanwhile go through ``files``. For tests."""
    global _files  # noqa: PLW0603 - the one switch between the real calls and a test's twin
    before, _files = _files, files
    try:
        yield
    finally:
        _files = before
