"""Child processes that run a function of this one, and can die in it."""

from __future__ import annotations

# Before any tracer provider: a forked child runs the handlers of forks in the order in which they
# were registered, and a provider's, which starts threads, waits for ever for the lock of this one.
import concurrent.futures.thread  # noqa: F401
import faulthandler
import os
import signal
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CRASHED", "Forked", "Outcome", "die", "in_child"]

CRASHED: Final = 77  # the exit code of `die`
_FAILED: Final = 1
_SECONDS: Final = 60  # after which a child that hangs shows where, and is ended


@dataclass
class Outcome:
    """How a child process ended: its exit code (negative: the signal), and what it returned."""

    code: int
    value: Any = None
    error: str = ""


class Forked:
    """A forked child process that runs ``call`` and sends its value through a pipe."""

    def __init__(self, call: Callable[[], object]) -> None:
        near, far = os.pipe()
        self._pipe = Connection(near, writable=False)
        far_end = Connection(far, readable=False)
        with warnings.catch_warnings():
            # Python 3.12 and later warn about forks beside threads. This child ends, or is killed,
            # before it can wait for their locks.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = _fork()
        if self.pid == 0:
            _run_child(call, far_end)
        far_end.close()

    def wait(self) -> Outcome:
        """Wait for its end."""
        try:
            value, error = self._pipe.recv()
        except EOFError:
            value, error = None, ""
        self._pipe.close()
        _, status = os.waitpid(self.pid, 0)
        return Outcome(os.waitstatus_to_exitcode(status), value, error)

    def kill(self) -> None:
        """Send SIGKILL; harmless if it has ended and was not waited for."""
        os.kill(self.pid, signal.SIGKILL)


def in_child(call: Callable[[], object]) -> Outcome:
    """Run ``call`` in a forked child process, and return how that ended."""
    return Forked(call).wait()


def _fork() -> int:
    global _is_forking  # noqa: PLW0603 - read in the child, by the handlers of the fork
    _is_forking = True
    try:
        return os.fork()
    finally:
        _is_forking = False


_is_forking = False


def _limit_child() -> None:
    """End a child that hangs, also in a handler of the fork itself."""
    if _is_forking:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not the test runner's
        faulthandler.register(signal.SIGALRM, file=2, all_threads=True, chain=True)
        signal.alarm(_SECONDS)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_limit_child)


def _run_child(call: Callable[[], object], pipe: Connection) -> NoReturn:
    code = _FAILED
    try:
        pipe.send((call(), ""))
        code = 0
    except BaseException:  # noqa: BLE001 - the child must not continue as a test runner
        pipe.send((None, traceback.format_exc()))
    finally:
        os._exit(code)


def die() -> NoReturn:
    """End this process at once, as a crash would."""
    os._exit(CRASHED)
