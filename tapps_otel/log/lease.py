"""The lease: the right of one process to carry a run on and to write its log.

A lock on ``<workflow_id>.lease``, held by an open file, so that it ends with the process, however
that ends; no heartbeats, no time-outs. The file is never removed: two processes could then hold
locks on two files of one name. Not sure on network file systems.
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
    """Held from construction to :meth:`release`.

    :raises RunBusyError: somebody else holds it, this process included
    :raises OSError: the file cannot be opened or made
    """

    def __init__(self, path: Path, workflow_id: str) -> None:
        self._files, self._descriptor = _files.system(), -1
        _leases.add(self)  # before there is anything that a child could inherit
        self._descriptor = self._files.open_append(path, create=True)
        try:
            if not self._files.lock(self._descriptor):
                raise RunBusyError(workflow_id, *_read_holder(self._files, self._descriptor))
            self._label()
        except BaseException:
            self.release()
            raise

    def _label(self) -> None:
        # Written after the lock is ours: a loser must not overwrite the holder's name.
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        self._files.replace_content(self._descriptor, text.encode())

    def release(self) -> None:
        """Give the lease up; a second call does nothing.

        A forked child has let go of its copy by itself, and the parent goes on holding the lease.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._files.close(descriptor)


def holder(path: Path) -> tuple[int | None, str | None] | None:
    """Who holds a lease, as ``(pid, host)``; ``None`` when nobody does. Takes nothing."""
    files = _files.system()
    try:
        file = files.open_read(path)
    except OSError:
        return None
    with file:
        descriptor = file.fileno()
        return _read_holder(files, descriptor) if files.is_locked(descriptor) else None


def _read_holder(files: _files.Files, descriptor: int) -> tuple[int | None, str | None]:
    """Read the label; it may be half written, or anybody's."""
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


# A lock belongs to the open file, which a forked child shares: it would outlive the parent in it.
_leases: weakref.WeakSet[Lease] = weakref.WeakSet()


def _release_all() -> None:
    for lease in list(_leases):
        lease.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_all)
