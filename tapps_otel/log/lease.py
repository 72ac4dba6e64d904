"""The lease: the right of one process to run a run and to write its log.

It is a lock on ``<workflow_id>.lease`` that belongs to an open file, so that it ends with the
process, however that ends: without heartbeats and without time-outs. The holder removes the file
before it releases the lock, so that only a process that was killed leaves one. Whoever has locked a
file therefore checks that it still has the name. Network file systems may not honour the lock.

Where runs have a home, too, the right to write there is a part of the lease.
"""

from __future__ import annotations

import json
import os
import socket
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tapps_otel import clock
from tapps_otel.errors import RunBusyError
from tapps_otel.log import files as _files

if TYPE_CHECKING:
    from pathlib import Path

    from tapps_otel.log.files import OpenFile
    from tapps_otel.log.home import Home, Session

__all__ = ["Lease", "holder", "is_open_in"]

_TRIES: Final = 100  # each time another process has removed the file that was opened, or pulls
_PULL_S: Final = 0.1  # between two of them while another process pulls the run


class Lease:
    """A lease, held from construction to :meth:`release`, or until it is dropped.

    Its file is an object, not a number, so that Ctrl-C at any moment leaves none behind that
    nothing closes.

    :param home: where the run is, too
    :param pulls: it is held only to pull the run: who wants to execute that waits
    :ivar session: the right to write it there
    :raises RunBusyError: it is held already, by another process or by this one
    :raises StoreError: the home cannot be reached or used
    :raises OSError: its file cannot be opened or created
    """

    def __init__(
        self, path: Path, workflow_id: str, home: Home | None = None, *, pulls: bool = False
    ) -> None:
        self._pulls = pulls
        self._path, self._id, self._name = path, workflow_id, str(path)
        self._files, self._descriptor = _files.system(), -1
        self._file: OpenFile | None = None
        self._identity: tuple[int, int] | None = None
        self.session: Session | None = None
        _leases.add(self)  # before there is a descriptor that a child could inherit
        self._take()
        if home is not None:
            try:
                self.session = home.take(workflow_id)
            except BaseException:
                self.release()
                raise

    def _take(self) -> None:
        """Lock a file that has the lease's name: a holder may remove it after it was opened."""
        for left in reversed(range(_TRIES)):
            try:
                self._file = self._files.as_object(self._files.open_lock(self._path), "r+")
                self._descriptor = self._file.fileno()
                if self._lock():
                    return
            except FileNotFoundError:
                if not left:
                    raise
            except BaseException:
                self._close()
                raise
            self._close()
        raise RunBusyError(self._id, None, None)

    def _lock(self) -> bool:
        """Lock the open file; whether it is still the one of the lease's name."""
        if not self._files.lock(self._descriptor):
            label = _read_label(self._files, self._descriptor)
            if self._pulls or label.get("pulls") is not True:
                raise RunBusyError(self._id, *_holder_in(label))
            clock.sleep(_PULL_S)
            return False
        self._identity = self._files.identity(self._descriptor)
        if not self.has_name():
            return False
        self._write_label()
        return True

    def has_name(self) -> bool:
        """Whether its file has its name, so that others see that it is held."""
        # A file that is not open may have left its inode to another one.
        return self._descriptor >= 0 and (
            self._files.identity_of_name(self._name) == self._identity
        )

    def keep(self) -> bool:
        """Take the lease again if its file was removed or replaced: others would see it as free.

        :returns: whether it was taken again
        :raises RunBusyError: another process has taken it
        :raises OSError: its file cannot be opened or created
        """
        if self.has_name():
            return False
        self._close()
        self._take()
        return True

    def _write_label(self) -> None:
        # Only once the lock is held: a process that loses must not overwrite the holder's label.
        label = {"pid": os.getpid(), "host": socket.gethostname()}
        text = json.dumps({**label, "pulls": True} if self._pulls else label)
        self._files.replace_content(self._descriptor, text.encode())

    def release(self) -> None:
        """Release the lease and remove its file; a second call does nothing.

        A forked child has closed its copy already, and the parent keeps the lease.
        """
        session, self.session = self.session, None
        try:
            if session is not None:
                session.release()
        finally:
            self._release_file()

    def _release_file(self) -> None:
        try:
            with suppress(OSError):  # then the next holder takes the file as it is
                if self.has_name():
                    self._files.remove(self._path)  # under the lock
        finally:
            self._close()

    def detach(self) -> None:
        """Close the file in a forked child: the lease is the parent's."""
        if self.session is not None:
            self.session.detach()
        self._close()

    def _close(self) -> None:
        self._descriptor = -1
        self._files.close_object(self._file)


def holder(path: Path) -> tuple[int | None, str | None] | None:
    """Return which process may execute a run as ``(pid, host)``, ``None`` if none may."""
    files = _files.system()
    try:
        file = files.open_read(path)
    except OSError:
        return None
    with file:
        descriptor = file.fileno()
        if not files.is_locked(descriptor):
            return None
        label = _read_label(files, descriptor)
        return None if label.get("pulls") is True else _holder_in(label)


def is_open_in(path: Path, pid: int) -> bool:
    """Return whether a process has a lease's file open; ``True`` where the system does not tell.

    In another container, a process of that number is another one.
    """
    files = _files.system()
    identity = files.identity_of_name(str(path))
    return identity is not None and files.has_open(pid, identity) is not False


def _read_label(files: _files.Files, descriptor: int) -> dict[str, Any]:
    """Read the label, which may be incomplete or have any content."""
    try:
        label = json.loads(files.read_at(descriptor, 1024, 0))
    except (ValueError, RecursionError):
        return {}
    return label if isinstance(label, dict) else {}


def _holder_in(label: dict[str, Any]) -> tuple[int | None, str | None]:
    pid, host = label.get("pid"), label.get("host")
    return (
        pid if type(pid) is int else None,
        host[:255] if isinstance(host, str) else None,
    )


# The lock belongs to the open file, which a forked child shares: the child would keep it.
_leases: weakref.WeakSet[Lease] = weakref.WeakSet()


def _detach_all() -> None:
    for lease in list(_leases):
        lease.detach()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_all)
