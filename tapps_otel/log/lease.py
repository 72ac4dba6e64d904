"""The lease: the right of one process to run a run and to write its log.

It is a lock on ``<workflow_id>.lease`` that belongs to an open file, so that it ends with the
process, however that ends: without heartbeats and without time-outs. The file is never removed,
because then two processes could hold locks on two files of the same name. Network file systems may
not honour the lock.
"""

from __future__ import annotations

import json
import os
import socket
import weakref
from typing import TYPE_CHECKING, Any

from tapps_otel.errors import RunBusyError
from tapps_otel.log import files as _files

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Lease", "holder"]


class Lease:
    """A lease, held from construction to :meth:`release`.

    :raises RunBusyError: it is held already, by another process or by this one
    :raises OSError: its file cannot be opened or created
    """

    def __init__(self, path: Path, workflow_id: str) -> None:
        self._files, self._descriptor = _files.system(), -1
        _leases.add(self)  # before there is a descriptor that a child could inherit
        self._descriptor = self._files.open_append(path, create=True)
        try:
            if not self._files.lock(self._descriptor):
                raise RunBusyError(workflow_id, *_read_holder(self._files, self._descriptor))
            self._write_label()
        except BaseException:
            self.release()
            raise

    def _write_label(self) -> None:
        # Only once the lock is held: a process that loses must not overwrite the holder's label.
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        self._files.replace_content(self._descriptor, text.encode())

    def release(self) -> None:
        """Release the lease; a second call does nothing.

        A forked child has closed its copy already, and the parent keeps the lease.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._files.close(descriptor)


def holder(path: Path) -> tuple[int | None, str | None] | None:
    """Return the holder of a lease as ``(pid, host)``, ``None`` if it is free."""
    files = _files.system()
    try:
        file = files.open_read(path)
    except OSError:
        return None
    with file:
        descriptor = file.fileno()
        return _read_holder(files, descriptor) if files.is_locked(descriptor) else None


def _read_holder(files: _files.Files, descriptor: int) -> tuple[int | None, str | None]:
    """Read the label, which may be incomplete or have any content."""
    label: Any
    try:
        label = json.loads(files.read_at(descriptor, 1024, 0))
        pid, host = label.get("pid"), label.get("host")
    except (ValueError, AttributeError, RecursionError):
        return None, None
    return (
        pid if type(pid) is int else None,
        host[:255] if isinstance(host, str) else None,
    )


# The lock belongs to the open file, which a forked child shares: the child would keep it.
_leases: weakref.WeakSet[Lease] = weakref.WeakSet()


def _release_all() -> None:
    for lease in list(_leases):
        lease.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_all)
