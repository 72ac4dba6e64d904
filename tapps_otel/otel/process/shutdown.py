"""The flush at exit of what was set up here, bounded by ``shutdown_timeout``.

The SDK's own shutdown waits for a collector that does not answer, up to thirty seconds. Here it
runs in threads that were started long before (from Python 3.12 on none can be started once the
interpreter shuts down), and the interpreter waits for all of them together no longer than
``shutdown_timeout``. What was not sent by then is logged as a warning.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from tapps_otel import clock
from tapps_otel.otel import process_end, sdk_internals
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ExitFlush", "Gate", "Outlet", "ThirdPartyOutlet", "close_gates", "flush_all"]

_log = logging.getLogger(__name__)
_FORK_WAIT: Final = 0.2  # seconds that a fork waits for all requests in progress


class Gate:
    """Lets one thread at a time send, and none while the process forks.

    gRPC may hang in a child otherwise.
    A fork waits a moment for a request in progress, and no longer: it is part of a step.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_by = 0  # the thread that forks: several may, at the same time

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def close(self, seconds: float) -> None:
        """Before the fork: wait at most this long for a request in progress."""
        if self._lock.acquire(timeout=seconds):
            self._closed_by = threading.get_ident()

    def open(self, *, in_child: bool = False) -> None:
        """After the fork: let threads send again."""
        if in_child:  # a thread that was sending does not exist there
            self._lock = threading.Lock()
            self._closed_by = 0
        elif self._closed_by == threading.get_ident():
            self._closed_by = 0
            self._lock.release()


class Outlet(Protocol):
    """Something that sends data out of this process."""

    @property
    def gate(self) -> Gate:
        """Passed by every request; closed while the process forks."""

    def give_up(self) -> None:
        """Fail from now on, also in the request that is being sent."""

    def warn_unsent(self) -> None:
        """Log a warning if something was not sent."""

    def after_fork(self) -> None:
        """Start afresh in a forked child: what the parent has queued, the parent sends."""


class ThirdPartyOutlet:
    """Exporters that were not built here, and do not tell what they sent.

    :param warning: logged if they do not finish in time
    """

    def __init__(self, warning: str) -> None:
        self.gate, self._warning = Gate(), warning
        self._given_up = False

    def give_up(self) -> None:
        """Note that they did not finish; there is no way to stop them."""
        self._given_up = True

    def warn_unsent(self) -> None:
        """Log a warning if they did not finish in time."""
        if self._given_up:
            _log.warning("%s", self._warning)

    def after_fork(self) -> None:
        """Do nothing: third-party exporters handle forks themselves."""


OutletT = TypeVar("OutletT", bound=Outlet)
_flushes: Final[list[ExitFlush[Any]]] = []


def flush_all(flushes: Sequence[ExitFlush[Any]]) -> None:
    """Flush these, earlier ones first: later ones report what those send.

    Each gets its share of the time before the next one starts; all of them end together. One that
    has ended is not flushed again.
    """
    flushes = [one for one in flushes if not one.ended]
    began = clock.monotonic_ns()
    allowed = max((one.timeout for one in flushes), default=0.0)

    def left(share: float) -> float:
        return max(0.0, share * allowed - (clock.monotonic_ns() - began) / 1e9)

    for number, one in enumerate(flushes, 1):
        one.request()
        one.wait(left(number / len(flushes)))
    for one in flushes:
        one.finish(left(1))


def close_gates(flushes: Sequence[ExitFlush[Any]]) -> None:
    """Wait for requests in progress before a fork, a moment for all of them."""
    until = clock.monotonic_ns() + _FORK_WAIT * 1e9
    for one in flushes:
        for outlet in one.outlets:
            outlet.gate.close(max(0.0, (until - clock.monotonic_ns()) / 1e9))


class ExitFlush(Generic[OutletT]):
    """The last flush of one provider, in a thread that exists from the beginning.

    :param provider: of spans or of metrics; its ``shutdown`` may hang
    :param outlets: what it sends through
    :param timeout: how long the process may wait for it, seconds
    :ivar ended: it was flushed
    """

    def __init__(self, provider: Any, outlets: list[OutletT], timeout: float) -> None:
        self._provider = provider
        self.outlets, self.timeout = outlets, timeout
        self._start()

    def register(self) -> None:
        """Flush when the interpreter shuts down, and take part in forks."""
        forks = hasattr(os, "register_at_fork")
        if not _flushes:
            process_end.flush_at_end(partial(flush_all, _flushes))
            if forks:
                os.register_at_fork(before=partial(close_gates, _flushes))
        _flushes.append(self)
        if forks:
            os.register_at_fork(
                after_in_parent=self.after_fork_in_parent, after_in_child=self.after_fork
            )

    def _start(self) -> None:
        self.ended = False
        self._requested = threading.Event()
        self._done = threading.Event()
        threading.Thread(target=self._flush, name="tapps_otel-flush", daemon=True).start()

    def _flush(self) -> None:
        self._requested.wait()
        try:
            self._provider.shutdown()
        except Exception as error:  # noqa: BLE001 - of an exporter
            warn_once("shutdown", error)
        self._done.set()

    def after_fork_in_parent(self) -> None:
        """Let the threads send again that waited for the fork."""
        for outlet in self.outlets:
            outlet.gate.open()

    def after_fork(self) -> None:
        """Start afresh in the child, with another process id and no threads."""
        for outlet in self.outlets:
            outlet.gate.open(in_child=True)
            outlet.after_fork()
        sdk_internals.change_process_id(self._provider, os.getpid())
        self._start()

    def request(self) -> None:
        """Let the flush start."""
        self._requested.set()

    def wait(self, seconds: float) -> bool:
        """Wait for its end; whether it has come."""
        return self._done.wait(seconds)

    def finish(self, seconds: float) -> None:
        """Wait for its end, then give up; log a warning of what was not sent."""
        self.ended = True
        if not self.wait(seconds):
            for outlet in self.outlets:
                outlet.give_up()
        for outlet in self.outlets:
            outlet.warn_unsent()
