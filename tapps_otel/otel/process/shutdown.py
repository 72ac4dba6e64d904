"""The end of a process: the last flush of what was set up here, and no longer than is allowed.

The SDK's own shutdown waits for a collector that does not answer, thirty seconds if need be. Here
threads that were started long before do that (from Python 3.12 on none can be started once the
interpreter shuts down), and the interpreter waits for all of them together no longer than
``shutdown_timeout``. What was not sent by then is said.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from tapps_otel import clock
from tapps_otel.otel import sdk_internals
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Exit", "Gate", "Part", "Uncounted", "close_gates", "leave"]

_log = logging.getLogger(__name__)
_BEFORE_FORK: Final = 0.2  # seconds that a fork waits for all answers that are on their way


class Gate:
    """Lets one thread at a time send, and none while the process forks: gRPC may hang in a child.

    Whoever is sending is waited for a moment, and no longer: a fork is part of a step.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_by = 0  # the thread that forks: several may, at the same time

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def close(self, seconds: float) -> None:
        """Before the fork: wait no longer than this for who is sending."""
        if self._lock.acquire(timeout=seconds):
            self._closed_by = threading.get_ident()

    def open(self, *, in_child: bool = False) -> None:
        """After the fork."""
        if in_child:  # whoever was sending is not there
            self._lock = threading.Lock()
            self._closed_by = 0
        elif self._closed_by == threading.get_ident():
            self._closed_by = 0
            self._lock.release()


class Part(Protocol):
    """One way on which something leaves this process.

    :ivar gate: closed while the process forks
    """

    @property
    def gate(self) -> Gate:
        """Who sends has to pass it."""

    def give_up(self) -> None:
        """Fail from now on, also in what is being sent."""

    def say_unsent(self) -> None:
        """Tell what was not taken, if anything was not."""

    def after_fork(self) -> None:
        """Begin anew in a forked process: what the parent holds, it sends."""


class Uncounted:
    """Somebody else's exporters: nobody counts what they sent, but they may be out of time.

    :param words: what is said then
    """

    def __init__(self, words: str) -> None:
        self.gate, self._words = Gate(), words
        self._given_up = False

    def give_up(self) -> None:
        """There is nothing here to stop them by."""
        self._given_up = True

    def say_unsent(self) -> None:
        """Tell that they had not ended in time."""
        if self._given_up:
            _log.warning("%s", self._words)

    def after_fork(self) -> None:
        """They look after themselves."""


P = TypeVar("P", bound=Part)
_exits: Final[list[Exit[Any]]] = []


def leave(exits: Sequence[Exit[Any]]) -> None:
    """Flush these, the earlier ones first: they count what they send, and later ones tell of it.

    Each gets its share of the time before the next one begins; all of them end together.
    """
    began = clock.monotonic_ns()
    allowed = max((one.timeout for one in exits), default=0.0)

    def left(share: float) -> float:
        return max(0.0, share * allowed - (clock.monotonic_ns() - began) / 1e9)

    for number, one in enumerate(exits, 1):
        one.ask()
        one.wait(left(number / len(exits)))
    for one in exits:
        one.finish(left(1))


def close_gates(exits: Sequence[Exit[Any]]) -> None:
    """Before a fork: wait for those that are sending, a moment for all of them together."""
    until = clock.monotonic_ns() + _BEFORE_FORK * 1e9
    for one in exits:
        for delivery in one.deliveries:
            delivery.gate.close(max(0.0, (until - clock.monotonic_ns()) / 1e9))


class Exit(Generic[P]):
    """The last flush of one provider, in a thread that exists from the beginning.

    :param provider: of spans or of metrics; its ``shutdown`` may hang
    :param deliveries: what it delivers to
    :param timeout: how long the process may wait for it, seconds
    """

    def __init__(self, provider: Any, deliveries: list[P], timeout: float) -> None:
        self._provider = provider
        self.deliveries, self.timeout = deliveries, timeout
        self._start()

    def register(self) -> None:
        """Let the interpreter come here when it shuts down, and when it forks."""
        forks = hasattr(os, "register_at_fork")
        if not _exits:
            atexit.register(leave, _exits)
            if forks:
                os.register_at_fork(before=partial(close_gates, _exits))
        _exits.append(self)
        if forks:
            os.register_at_fork(
                after_in_parent=self.after_fork_in_parent, after_in_child=self.after_fork
            )

    def _start(self) -> None:
        self._asked = threading.Event()
        self._done = threading.Event()
        threading.Thread(target=self._flush, name="tapps_otel-flush", daemon=True).start()

    def _flush(self) -> None:
        self._asked.wait()
        try:
            self._provider.shutdown()
        except Exception as error:  # noqa: BLE001 - of an exporter
            warn_once("shutdown", error)
        self._done.set()

    def after_fork_in_parent(self) -> None:
        """Let those send again who waited for the fork."""
        for delivery in self.deliveries:
            delivery.gate.open()

    def after_fork(self) -> None:
        """No thread survives a fork, and the process has another number."""
        for delivery in self.deliveries:
            delivery.gate.open(in_child=True)
            delivery.after_fork()
        sdk_internals.change_process_id(self._provider, os.getpid())
        self._start()

    def ask(self) -> None:
        """Let the flush begin."""
        self._asked.set()

    def wait(self, seconds: float) -> bool:
        """Wait for its end; whether it has come."""
        return self._done.wait(seconds)

    def finish(self, seconds: float) -> None:
        """Wait for its end, then give up; say what was not sent."""
        if not self.wait(seconds):
            for delivery in self.deliveries:
                delivery.give_up()
        for delivery in self.deliveries:
            delivery.say_unsent()
