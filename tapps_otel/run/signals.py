"""SIGTERM: a process that is asked to end records that in its log."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SigtermHandler"]


class SigtermHandler:
    """Turns SIGTERM into ``SystemExit(143)`` in the main thread, until :meth:`restore`.

    It does nothing in another thread, or where the program has a handler of its own.

    :param note: called first, because in an event loop the code only sees a cancellation
    """

    def __init__(self, note: Callable[[], None]) -> None:
        self._installed = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        )
        if self._installed:

            def end(number: int, _: Any) -> NoReturn:
                note()
                raise SystemExit(128 + number)

            signal.signal(signal.SIGTERM, end)

    def restore(self) -> None:
        """Let SIGTERM end the process again."""
        if self._installed and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._installed = False
