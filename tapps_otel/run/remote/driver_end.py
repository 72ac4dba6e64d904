"""Ends a worker as soon as its driver has ended: it would execute what a resume executes again."""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import Final

from tapps_otel import clock
from tapps_otel.run.signals import is_own_handler

__all__ = ["follow_driver"]

_POLL: Final = 0.2  # seconds, where the system has no handles of processes
_following: set[tuple[int, int]] = set()


def follow_driver(pid: int) -> None:
    """End this process, whatever it does, when the process ``pid`` of this machine has ended."""
    following = os.getpid(), pid
    if following in _following or pid == os.getpid():
        return
    _following.add(following)
    _forget_handler()
    threading.Thread(target=_end_with, args=(pid,), name="tapps_otel-driver", daemon=True).start()


def _forget_handler() -> None:
    """Let SIGTERM end this process, if it was forked while a run had handled it."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and is_own_handler(signal.getsignal(signal.SIGTERM)):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_with(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(1)
    except (AttributeError, OSError):  # not Linux, or not allowed
        parent = os.getppid()
        while os.getppid() == parent:
            clock.sleep(_POLL)
    else:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll()
    os._exit(1)
