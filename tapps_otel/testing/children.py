"""Child processes that run a function of this one, and can die in it."""

from __future__ import annotations

# Before any tracer provider: a forked child runs the handlers of forks in the order in which they
# were registered, and a provider's, which starts threads, waits for ever for the lock of this one.
import concurrent.futures.thread  # noqa: F401
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
_SECONDS: Final = 60  # the kernel ends a child that hangs after this time


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
            self.pid = os.fork()
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


def _run_child(call: Callable[[], object], pipe: Connection) -> NoReturn:
    code = _FAILED
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not the test runner's
        signal.alarm(_SECONDS)
        pipe.send((call(), ""))
        code = 0
    except BaseException:  # noqa: BLE001 - the child must not continue as a test runner
        pipe.send((None, traceback.format_exc()))
    finally:
        os._exit(code)


def die() -> NoReturn:
    """End this process at once, as a crash would."""
    os._exit(CRASHED)
