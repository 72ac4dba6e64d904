"""The only module that makes file system calls, and a double that fails on demand.

Each method documents what it promises. What a log promises follows from the order of the calls,
which :mod:`~tapps_otel.log.open_log` and :mod:`~tapps_otel.log.lease` choose.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import struct
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from tapps_otel import settings
from tapps_otel.errors import PlatformError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

try:
    import fcntl
except ImportError:  # Windows: importing works, opening a log does not
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Entry",
    "FaultyFiles",
    "Files",
    "NotRegularFileError",
    "OpenFile",
    "UntrustedFileError",
    "system",
    "use",
]

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700

# O_NOFOLLOW: an id must not lead out of the folder through a link. O_NONBLOCK: opening a FIFO in
# the place of a log must fail, not wait for a reader. Neither matters for a regular file.
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_SAFE: Final = _NO_LINK | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_APPEND: Final = os.O_RDWR | os.O_APPEND | _SAFE
_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _SAFE
_BLOCK: Final = 1 << 20  # bytes of a file that are copied at a time
_OF_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
# struct flock of Linux: type, whence, start, length, pid (0, as open file description locks need).
_FLOCK: Final = "hhqqi4x"
_UNLOCKED: Final = getattr(fcntl, "F_UNLCK", 2)
_PART: Final = re.compile(r"\.[0-9a-f]{8}")  # after a name: a copy that is to get that name


OpenFile = io.FileIO


class NotRegularFileError(OSError):
    """There is a folder, FIFO, device or link in the place of a file."""


class UntrustedFileError(PermissionError):
    """A file or folder of ours that another user owns, can write to, or has given another name."""


class Entry(NamedTuple):
    """A file or folder in a folder.

    :ivar changed_ns: when it was last changed, ns since 1970 UTC
    """

    name: str
    size: int
    changed_ns: int
    is_file: bool


class Files:
    """File system calls. Every method may raise :class:`OSError`."""

    def open_append(self, path: Path, *, create: bool) -> int:
        """Open for reading and appending; links and special files are rejected.

        So is a file that another user may have made or can change. A new file is private (0600),
        whatever the umask, and survives a power cut: its folder is synced.
        """
        descriptor = self.open_lock(path) if create else self._open_own(path)
        try:
            if not self.size(descriptor):  # new, or its creator was killed before this line
                self.sync_folder(path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def open_lock(self, path: Path) -> int:
        """Open or create as :meth:`open_append`, a file that need not survive a power cut."""
        try:
            return self._open_own(path)
        except FileNotFoundError:
            self.make_folder(path.parent)
            return self._create(path)

    def _open_own(self, path: Path) -> int:
        if fcntl is None:
            msg = "tapps_otel keeps logs on Linux and macOS only: this system has no file locks"
            raise PlatformError(msg)
        descriptor = self._check_regular(os.open(path, _APPEND), path)
        try:
            self.check_own(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _create(self, path: Path) -> int:
        try:
            descriptor = os.open(path, _APPEND | os.O_CREAT | os.O_EXCL, FILE_MODE)
        except FileExistsError:  # another process was faster
            return self._open_own(path)
        os.fchmod(descriptor, FILE_MODE)  # the umask may have taken rights that we need
        return descriptor

    def check_own(self, descriptor: int, path: Path) -> None:
        """Check that no other user made this file or folder, or can write to it.

        :raises UntrustedFileError: one may have, and the setting ``trust`` does not name the file
        """
        found = os.fstat(descriptor)
        if found.st_nlink > 1 and stat.S_ISREG(found.st_mode):
            self._finish_put_back(descriptor, path)
            found = os.fstat(descriptor)
        problem = _foreign(found)
        if problem is not None and not self.is_trusted(path):
            raise UntrustedFileError(
                errno.EPERM,
                f"{problem}. If you trust it, name its folder in TAPPS_OTEL_TRUST",
                str(path),
            )

    def is_trusted(self, path: Path) -> bool:
        """Return whether the setting ``trust`` names a folder of this file."""
        folders = settings.current().trust
        return "*" in folders or self.is_below(str(path), folders)

    def is_below(self, path: str, folders: Iterable[str]) -> bool:
        """Return whether a file is in one of these folders, once all links are followed."""
        real = os.path.realpath(path)
        return any(real.startswith(os.path.join(os.path.realpath(one), "")) for one in folders)

    # An open file as an object, which closes it once, at the latest when it is dropped. A class in
    # C, so that Ctrl-C cannot come between the file and its object.
    as_object: Final = OpenFile

    def open_read(self, path: Path) -> BinaryIO:
        """Open for reading, with a large buffer; links and special files are rejected."""
        descriptor = self._check_regular(os.open(path, os.O_RDONLY | _SAFE), path)
        return os.fdopen(descriptor, "rb", buffering=1 << 18)

    def open_inside(self, folder: int, path: Path) -> BinaryIO:
        """Open for reading like :meth:`open_read`, in a folder of :meth:`open_folder`."""
        opened = os.open(path.name, os.O_RDONLY | _SAFE, dir_fd=folder)
        return os.fdopen(self._check_regular(opened, path), "rb", buffering=1 << 18)

    def open_folder(self, path: Path, *, follow: bool = False) -> int:
        """Open a folder of ours, to open files in it; a link to a folder is rejected.

        Files in it are opened by this descriptor, so that a link which replaces the folder
        meanwhile changes nothing.

        :param follow: accept a link to a folder
        """
        try:
            return os.open(path, _FOLDER & ~_NO_LINK if follow else _FOLDER)
        except NotADirectoryError:  # also for a link
            text = "not a folder" if follow else "not a folder, or a link to one"
            raise NotRegularFileError(errno.ENOTDIR, text, str(path)) from None

    def open_user_file(self, path: Path) -> BinaryIO:
        """Open a user's file for reading; links are followed, special files are rejected."""
        descriptor = self._check_regular(os.open(path, os.O_RDONLY | _SAFE & ~_NO_LINK), path)
        return os.fdopen(descriptor, "rb", buffering=1 << 18)

    def reader(self, descriptor: int) -> BinaryIO:
        """Return a reader of an open file; closing it keeps the descriptor open."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.fdopen(descriptor, "rb", buffering=1 << 18, closefd=False)

    def writer(self, descriptor: int) -> BinaryIO:
        """Return a buffered writer to an open file; closing it keeps the descriptor open."""
        return os.fdopen(descriptor, "wb", buffering=1 << 18, closefd=False)

    def read_at(self, descriptor: int, length: int, offset: int) -> bytes:
        """Read ``length`` bytes at ``offset``; fewer only at the end of the file."""
        return os.pread(descriptor, length, offset)

    def size(self, descriptor: int) -> int:
        """Return the size of an open file in bytes."""
        return os.fstat(descriptor).st_size

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of ``data`` at the end of the file, without any promise for a power cut.

        After an error, the file may hold any part of it.
        """
        written = os.write(descriptor, data)
        while written < len(data):  # a signal, or a disk that is full
            data = data[written:]
            written = os.write(descriptor, data)

    def position(self, descriptor: int) -> int:
        """Return the offset at which this descriptor's last write ended."""
        return os.lseek(descriptor, 0, os.SEEK_CUR)

    def identity(self, descriptor: int) -> tuple[int, int]:
        """Return what tells an open file from every other one: device and inode."""
        found = os.fstat(descriptor)
        return found.st_dev, found.st_ino

    def identity_of_name(self, path: str) -> tuple[int, int] | None:
        """Return the identity of the file of this name, ``None`` if there is none.

        Links are not followed. The name is a string, which is faster: this is called often.
        """
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino

    def sync(self, descriptor: int) -> None:
        """Flush what was written to the disk, as far as the disk tells the truth."""
        if sys.platform == "darwin":
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync only reaches the disk's cache
        else:
            os.fdatasync(descriptor)

    def evict(self, descriptor: int) -> None:
        """Drop the file from the page cache, which shows what a failed sync lost."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self, descriptor: int) -> None:
        """Close and ignore errors: what matters was synced before."""
        with suppress(OSError):
            os.close(descriptor)

    def close_object(self, file: OpenFile | None) -> None:
        """Close an object of :attr:`as_object` as :meth:`close` does, if there is one."""
        if file is not None:
            try:  # noqa: SIM105 - not even Ctrl-C comes before the call
                file.close()
            except OSError:
                pass

    def make_folder(self, path: Path) -> None:
        """Create a private folder (0700) and its parents, each synced into its own parent."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=FOLDER_MODE)
            if stat.S_IMODE(os.lstat(path).st_mode) != FOLDER_MODE:
                path.chmod(FOLDER_MODE)  # the umask took rights that we need
        self.sync_folder(path.parent)

    def sync_folder(self, path: Path) -> None:
        """Flush a folder's list of names to the disk."""
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_file(self, path: Path, data: bytes, *, sync: bool, folder: int | None = None) -> None:
        """Write a file atomically: after a crash it is complete, or not there.

        :param folder: a descriptor of :meth:`open_folder` for its folder
        """
        self.make_folder(path.parent)
        with self.new_file(path, replace=True, sync=sync, folder=folder) as descriptor:
            self.write(descriptor, data)

    @contextmanager
    def new_file(
        self, path: Path, *, replace: bool, sync: bool, folder: int | None = None
    ) -> Iterator[int]:
        """Yield a descriptor for a private file that appears once it is complete.

        A crash leaves a partial file under another name in the same folder. An existing folder,
        FIFO, device or link of that name is rejected; so is an existing file, without ``replace``.
        A file that another process creates at the last moment is replaced.

        :param folder: a descriptor of :meth:`open_folder` for its folder
        """
        self._check_free(path, replace=replace, folder=folder)
        name = path if folder is None else Path(path.name)
        part = name.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
        new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE
        try:
            descriptor = os.open(part, new, FILE_MODE, dir_fd=folder)
        except OSError as error:  # name the file that the caller asked for
            raise OSError(error.errno, error.strerror, str(path)) from None
        try:
            os.fchmod(descriptor, FILE_MODE)  # the umask may have taken rights that we need
            yield descriptor
            if sync:
                self.sync(descriptor)
            self._check_free(path, replace=replace, folder=folder)
            os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=folder)
            raise
        finally:
            os.close(descriptor)
        if sync:
            self.sync_folder(path.parent)

    def put_back(self, descriptor: int, path: Path) -> tuple[int, int]:
        """Copy an open file, which has lost its name, to a name, whole and synced.

        After a crash the copy is complete, or not there; it may have a second name, which the
        next check of its owner removes. A file that has taken the name is never replaced.

        :returns: the copy's identity
        :raises FileExistsError: the name is taken
        """
        self.make_folder(path.parent)
        part = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
        with self.new_file(part, replace=False, sync=False) as copy:
            offset = 0
            while block := self.read_at(descriptor, _BLOCK, offset):
                self.write(copy, block)
                offset += len(block)
            self.sync(copy)
            identity = self.identity(copy)
        try:
            os.link(part, path)  # a rename would replace the file that has the name
        except FileExistsError:
            text = "another file has taken the name"
            raise FileExistsError(errno.EEXIST, text, str(path)) from None
        finally:
            self._remove_part(part)
        try:
            self.sync_folder(path.parent)
        except BaseException:
            os.unlink(path)  # so that it can be tried again
            raise
        return identity

    def _finish_put_back(self, descriptor: int, path: Path) -> None:
        """Remove the second name of a file that :meth:`put_back` has linked and not unlinked."""
        identity = self.identity(descriptor)
        with os.scandir(path.parent) as found:
            names = [one.name for one in found if one.name.startswith(f"{path.name}.")]
        for name in names:
            part = path.with_name(name)
            is_part = _PART.fullmatch(name, len(path.name)) is not None
            if is_part and self.identity_of_name(str(part)) == identity:
                self._remove_part(part)

    def _remove_part(self, part: Path) -> None:
        with suppress(FileNotFoundError):  # another process was faster
            self.remove(part)

    def replace_content(self, descriptor: int, data: bytes) -> None:
        """Overwrite a small file in place. Not atomic: for labels, not for records."""
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)

    def modification_times(self, folder: Path, suffix: str) -> Iterator[tuple[int, str]]:
        """Yield modification times (ns since 1970 UTC) and names of files, unsorted.

        Only of files whose names end with ``suffix``; of none if the folder does not exist.
        """
        with suppress(FileNotFoundError), os.scandir(folder) as found:
            for entry in found:
                name = entry.name
                if name.endswith(suffix):
                    try:
                        yield entry.stat(follow_symlinks=False).st_mtime_ns, name
                    except FileNotFoundError:  # removed since it was listed
                        continue

    def names(self, folder: Path, prefix: str) -> list[str]:
        """Return the names in a folder that begin like this; none if there is no such folder."""
        with suppress(FileNotFoundError), os.scandir(folder) as found:
            return [one.name for one in found if one.name.startswith(prefix)]
        return []

    def entries(self, folder: Path, *, follow: bool) -> Iterator[Entry]:
        """Yield what a folder contains, unsorted; nothing if there is no such folder.

        Links in it are not followed.

        :param follow: accept a link to a folder
        :raises NotRegularFileError: it is not a folder
        """
        with suppress(FileNotFoundError):
            descriptor = self.open_folder(folder, follow=follow)
            try:
                with os.scandir(descriptor) as found:
                    for one in found:
                        with suppress(FileNotFoundError):  # removed since it was listed
                            yield _entry(one)
            finally:
                os.close(descriptor)

    def remove_folder(self, path: Path) -> None:
        """Remove a folder of ours and the files in it; a link in its place is left alone.

        A crash leaves some of the files.

        :raises OSError: it contains a folder, or is not ours
        """
        try:
            descriptor = self.open_folder(path)
        except FileNotFoundError:
            return
        try:
            self.check_own(descriptor, path)
            for name in os.listdir(descriptor):
                self.remove(Path(name), folder=descriptor)
        finally:
            os.close(descriptor)
        os.rmdir(path)

    def lock(self, descriptor: int) -> bool:
        """Take an exclusive lock that lasts until this open file is closed; do not wait.

        It is an open file description lock where the system has them (a plain lock would be
        dropped if this process closed another descriptor of the file), else ``flock``.

        :returns: ``False`` if another open file holds the lock
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
        """Return whether another open file holds the lock; only ``flock`` takes it briefly."""
        if hasattr(fcntl, "F_OFD_GETLK"):
            wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted)
            return bool(struct.unpack(_FLOCK, found)[0] != _UNLOCKED)
        if not self.lock(descriptor):
            return True
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False

    def has_open(self, pid: int, identity: tuple[int, int]) -> bool | None:
        """Return whether a process has a file open; ``None`` where the system does not tell."""
        try:
            with os.scandir(f"/proc/{pid}/fd") as found:
                return any(_identity_behind(one.path) == identity for one in found)
        except OSError:
            return None

    def read_text(self, path: str) -> str | None:
        """Return the content of a small system file (``/proc``); ``None`` if missing."""
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
        return None

    def read_small_file(self, path: str) -> bytes:
        """Return the content of a user's small file, as a certificate; links are followed."""
        with open(path, "rb") as file:
            return file.read(1 << 20)

    def exists(self, path: Path) -> bool:
        """Return whether there is a file or folder of this name."""
        return path.exists()

    def is_folder(self, path: Path) -> bool:
        """Return whether there is a folder of this name."""
        return path.is_dir()

    def is_file(self, path: Path) -> bool:
        """Return whether there is a regular file of this name; links are followed."""
        return path.is_file()

    def working_directory(self) -> str | None:
        """Return the working directory of this process; ``None`` if it was removed."""
        with suppress(OSError):
            return os.getcwd()
        return None

    def temporary_folder(self) -> AbstractContextManager[str]:
        """Return a context with a new folder, which is removed with all that is in it."""
        import tempfile  # for tests alone

        return tempfile.TemporaryDirectory(prefix="tapps_otel-")

    def count_entries(self, folder: Path) -> int:
        """Return how many files and folders a folder contains."""
        with os.scandir(folder) as found:
            return sum(1 for _ in found)

    def modified_ns(self, path: Path) -> int:
        """Return when a file was last changed (ns since 1970 UTC); links are followed."""
        return os.stat(path).st_mtime_ns

    def change_directory(self, folder: Path) -> None:
        """Change the working directory of this process. For programs, never for a library."""
        os.chdir(folder)

    def free_bytes(self, folder: Path) -> int:
        """Return the free space on the disk for users other than root."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    def remove(self, path: Path, *, folder: int | None = None) -> None:
        """Remove a file of ours.

        :param folder: a descriptor of :meth:`open_folder`, to which ``path`` is relative
        """
        os.unlink(path, dir_fd=folder)

    def move(self, path: Path, to: Path) -> None:
        """Rename a file, not onto one that exists: the caller keeps others from creating it."""
        if os.path.lexists(to):
            raise FileExistsError(errno.EEXIST, "a file of that name exists", str(to))
        os.rename(path, to)

    def is_same_file(self, path: Path, other: Path) -> bool:
        """Return whether both are the same file or folder; ``False`` if one does not exist."""
        with suppress(FileNotFoundError):
            return os.path.samefile(path, other)
        return False

    def _check_free(self, path: Path, *, replace: bool, folder: int | None) -> None:
        name = path if folder is None else path.name
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(name, dir_fd=folder).st_mode):
                raise NotRegularFileError(errno.EINVAL, "not a regular file", str(path))
            if not replace:
                raise FileExistsError(errno.EEXIST, "a file of that name exists", str(path))

    def _check_regular(self, descriptor: int, path: Path) -> int:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise NotRegularFileError(errno.EINVAL, "not a regular file", str(path))


def _identity_behind(link: str) -> tuple[int, int] | None:
    with suppress(OSError):  # it was closed meanwhile
        found = os.stat(link)
        return found.st_dev, found.st_ino
    return None


def _entry(found: os.DirEntry[str]) -> Entry:
    status = found.stat(follow_symlinks=False)
    return Entry(found.name, status.st_size, status.st_mtime_ns, stat.S_ISREG(status.st_mode))


def _foreign(found: os.stat_result) -> str | None:
    """Return why a file or folder may hold what another user wants; ``None``: it does not."""
    user = os.geteuid()
    if found.st_uid != user:
        return f"it belongs to user {found.st_uid}, and this process runs as user {user}"
    if found.st_mode & _OF_OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        return f"other users can write to it (mode {mode:o}); `chmod go-w` takes that right away"
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        return f"the same file has {found.st_nlink} names (hard links); a copy has one"
    return None


class FaultyFiles(Files):
    """File system calls one of which fails from its n-th call on. For tests.

    :param call: name of the method that fails, as ``"write"`` or ``"sync"``
    :param nth: number of the first call that fails, from 1
    :param times: number of calls that fail in a row; ``None`` for all
    :param error: the errno
    :param keep: number of bytes of a failing write that still reach the file
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
    """Return the file system calls in use: the real ones, unless a test replaced them."""
    return _files


@contextmanager
def use(files: Files) -> Iterator[None]:
    """Use ``files`` for everything that is opened within the context. For tests."""
    global _files  # noqa: PLW0603 - the one switch between the real calls and a test's double
    before, _files = _files, files
    try:
        yield
    finally:
        _files = before
