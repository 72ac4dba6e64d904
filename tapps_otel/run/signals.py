"""SIGTERM: a process that is asked to end records that in the logs of its runs.

And Ctrl-C in a worker that still loads what it is to execute.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # each call of a worker: `signal` adds 20 us
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from tapps_otel.log import files

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "SIGTERM_CODE",
    "SigtermHandler",
    "is_own_handler",
    "keep_interrupt",
    "release_interrupt",
    "terminate",
]

SIGTERM_CODE: Final = 128 + signal.SIGTERM  # of the process that it ends

# Those of all runs that are open. A dict can be listed while other threads change it; it must not
# keep alive a run that its user dropped.
_open: dict[ref[SigtermHandler], None] = {}


class SigtermHandler:
    """Turns SIGTERM into ``SystemExit(143)`` in the main thread, until :meth:`restore`.

    Runs that are open at the same time share the handler of the first: a run that another one
    calls, or two in one event loop. It does nothing where the program has a handler of its own, or
    where no run was opened in the main thread.

    :param note: called first, because in an event loop the code only sees a cancellation
    """

    def __init__(self, note: Callable[[], None]) -> None:
        self.note = note
        self._place = ref(self, lambda dead: _open.pop(dead, None) and None)
        _open[self._place] = None
        if _is_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _end)

    def restore(self) -> None:
        """Let SIGTERM end the process again, unless another run is open."""
        _open.pop(self._place, None)
        if not _open and _is_main_thread() and signal.getsignal(signal.SIGTERM) is _end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def is_own_handler(handler: object) -> bool:
    """Whether a signal's handler is that of the open runs, which a forked child inherits."""
    return handler is _end


def _end(_: int, __: Any) -> None:
    for place in list(_open):
        handler = place()
        if handler is not None:
            handler.note()
    raise SystemExit(SIGTERM_CODE)


_interrupts: list[int] = []  # that came since `keep_interrupt`


def keep_interrupt() -> None:
    """Keep Ctrl-C in mind until :func:`release_interrupt`, also where it is dropped.

    An import has callbacks of weak references, whose exceptions are dropped. Where the program has
    a handler of its own, and outside the main thread, it does nothing.
    """
    now = _signal.getsignal(signal.SIGINT)
    # Ours still: Ctrl-C came at the instruction that would have released it.
    is_usual = now is signal.default_int_handler or now is _keep
    if is_usual and _is_main_thread():
        _interrupts.clear()
        _signal.signal(signal.SIGINT, _keep)


def release_interrupt() -> None:
    """Let Ctrl-C be as usual.

    :raises KeyboardInterrupt: it came since :func:`keep_interrupt`
    """
    if _signal.getsignal(signal.SIGINT) is _keep and _is_main_thread():
        _signal.signal(signal.SIGINT, signal.default_int_handler)
        if _interrupts:
            raise KeyboardInterrupt


def _keep(number: int, _: Any) -> None:
    _interrupts.append(number)
    raise KeyboardInterrupt


def terminate(pid: int, is_meant: Callable[[], bool]) -> bool:
    """Send SIGTERM to a process.

    :param is_meant: asked last, when the number cannot pass to another process any more, where the
        system has such handles (Linux): whether it is still that of the process
    :returns: whether it was sent
    :raises PermissionError: the process belongs to another user
    """
    try:
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except ProcessLookupError:
        return False
    try:
        if not is_meant():
            return False
        if handle is None:
            os.kill(pid, signal.SIGTERM)
        else:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        return False
    finally:
        if handle is not None:
            files.system().close(handle)
    return True


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
