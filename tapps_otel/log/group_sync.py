"""Group commit: threads and tasks that need a sync at one time share one.

An append has two parts. The line is written under the lock of the log, which takes microseconds.
The sync takes a hundred times as long, and covers all that is written: so it runs outside the lock,
and others write meanwhile.

- *No sync is running or due*: the thread syncs at once, by itself. One thread alone never waits for
  another thread and never wakes one.
- *One is running or due*: the thread waits at a gate, and the syncing thread runs the next sync for
  all who wait by then. It begins that only when the running one has ended: whoever wrote meanwhile
  is covered. (If each waiting thread took the lock of the sync by turns, the interpreter would let
  hardly more than one in between two syncs.)
- *Several shared the last sync*, and it was slow: they are waited for, a quarter of its time at
  most. Otherwise each of them would find the next sync just begun, and half of them, or one, would
  have each sync for themselves.
- *A task* of an event loop that has something else to do awaits a future, at a gate for all tasks
  of the turn. None can continue before its loop has run what is ready, so that the sync is due only
  then (or a moment later, where the loop is busy for long): it covers all tasks that have ended a
  step meanwhile. After it, all their futures are set by one call. A task that is alone syncs as a
  thread does.

A waiting thread has no duty towards the others, so an interrupt of it affects no other one. The
syncing thread gets no Ctrl-C; whatever else stops it, it opens all gates first. An open gate
promises nothing: who comes through it looks whether its event is settled (:attr:`OpenLog.settled`),
waits again if not, and recovers the log if that has failed. So one failed sync is learned by
everyone who waited for it, the first recovers the log for all, and nothing is reported in the
syncing thread.

The locks, in the order in which they are taken: the lock of the log, then ``OpenLog.syncing``. That
is held while a sync runs, and by whoever opens or closes the file. A sync takes only the second.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import TYPE_CHECKING, Final

from tapps_otel import clock

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from tapps_otel.log.event import Event
    from tapps_otel.log.open_log import OpenLog

    # What a thread does, without the lock, before it looks whether its event is settled.
    Turn = Callable[[], None]

__all__ = ["Gate", "GroupSync", "no_turn"]

_IDLE_S: Final = 0.1  # after which the syncing thread ends, so that an idle run has none
_WORTHWHILE_NS: Final = 100_000  # a shorter wait for others takes longer than it says


def no_turn() -> None:
    """The turn of an event that has nothing to wait for, or whose log has failed."""


class Gate:
    """Where a thread waits for a sync.

    :ivar waiter: what comes again, perhaps, when it is open
    """

    __slots__ = ("_shut", "event", "waiter")

    def __init__(self, event: Event) -> None:
        self.event, self.waiter = event, get_ident()
        self._shut = threading.Lock()
        self._shut.acquire()

    def wait(self) -> None:
        """Wait until it is open."""
        self._shut.acquire()

    def open(self) -> None:
        """Let the thread through."""
        if self._shut.locked():
            self._shut.release()


class TaskGate:
    """Where the tasks wait that a loop runs in one turn. What comes again is their loop.

    :ivar event: of the task that came last
    """

    __slots__ = ("_loop", "event", "futures", "waiter")

    def __init__(self, event: Event, loop: asyncio.AbstractEventLoop) -> None:
        self.event, self._loop, self.waiter = event, loop, id(loop)
        self.futures: list[asyncio.Future[None]] = []

    def open(self) -> None:
        """Let the tasks through."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(_set_all, self.futures)


class GroupSync:
    """Decides who syncs and who waits.

    :ivar lock: of the log and of this
    :ivar busy: the thread that has the lock is in the middle of something
    """

    def __init__(self, log: OpenLog) -> None:
        self._log = log
        self.detach()

    def detach(self) -> None:
        """Forget, in a forked child, the threads of its parent, and what they may hold."""
        self.lock, self.busy = threading.RLock(), False
        self._gates: list[Gate | TaskGate] = []  # of those who wait for the next sync
        # Of loops that still run what is ready: these join those who wait.
        self._busy_loops: dict[asyncio.AbstractEventLoop, TaskGate] = {}
        self._expected = 0  # number of those who are expected to wait for the next sync
        self._expected_until = 0  # monotonic, ns; 0: for none
        self._thread: threading.Thread | None = None
        self._stopped = False  # it ends when no thread or task waits
        self._wake = threading.Lock()  # not held: there may be something to do
        self._wake.acquire()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock. What a finalizer appends in the middle must not wait: it is buffered."""
        with self.lock:
            before, self.busy = self.busy, True
            try:
                yield
            finally:
                self.busy = before

    # -- called with the lock held

    def turn(self, event: Event) -> Turn:
        """Return what waits for a sync of an event, or runs one if none is running or due."""
        log = self._log
        if self._gates or log.syncing.locked() or (self._expected_until and self._expects_others()):
            gate = self._gate(event)
            if gate is not None:
                return gate.wait
        return log.sync if log.begin_sync() else no_turn

    def _gate(self, event: Event) -> Gate | None:
        if self._thread is threading.current_thread():  # a finalizer, which it would wait for
            return None
        gate = Gate(event)
        return gate if self._add(gate) else None

    def _expects_others(self) -> bool:
        return self._expected_until != 0 and clock.monotonic_ns() < self._expected_until

    def future(self, event: Event, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Return what a task of this loop awaits. The caller does not hold the lock.

        If no thread can be started, it need not wait: whoever asks for the end of the sync syncs.
        """
        future = loop.create_future()
        with self.lock:  # as `held` does, without a generator: every task comes here
            before, self.busy = self.busy, True
            try:
                gate = self._busy_loops.get(loop) or self._task_gate(event, loop)
                if gate is None:
                    future.set_result(None)
                else:
                    gate.event = event
                    gate.futures.append(future)
            finally:
                self.busy = before
        return future

    def _task_gate(self, event: Event, loop: asyncio.AbstractEventLoop) -> TaskGate | None:
        if not self._has_thread():
            return None
        gate = self._busy_loops[loop] = TaskGate(event, loop)
        loop.call_soon(self._end_of_turn, loop)
        return gate

    def _end_of_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a loop's tasks wait for the next sync: it has run what was ready."""
        with self.held():
            gate = self._busy_loops.pop(loop, None)
            if gate is not None:
                self._gates.append(gate)
                self._wake_thread()

    def _add(self, gate: Gate) -> bool:
        if not self._has_thread():
            return False
        self._gates.append(gate)
        self._wake_thread()
        return True

    def _wake_thread(self) -> None:
        with suppress(RuntimeError):  # it is about to look already
            self._wake.release()

    def _has_thread(self) -> bool:
        """Start the syncing thread, if there is none; return whether there is one now."""
        if self._thread is None:
            try:
                self._start_thread()
            except RuntimeError:  # there are too many, or the interpreter is ending
                return False
        return True

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="tapps_otel-sync", daemon=True)
        self._thread, self._stopped = thread, False
        try:
            thread.start()
        except BaseException:  # after an interrupt it may begin nevertheless, and ends at once
            self._thread = None
            raise

    @property
    def is_awaited(self) -> bool:
        """Whether anyone waits for a sync."""
        return bool(self._gates)

    def open_gates(self) -> None:
        """Let everyone through: what they wait for is settled, or has failed."""
        self._add_busy_loops()
        for gate in self._gates:
            gate.open()
        self._gates = []

    def _add_busy_loops(self) -> None:
        self._gates += self._busy_loops.values()
        self._busy_loops = {}

    # -- the syncing thread

    def stop(self) -> None:
        """End the syncing thread, if no thread or task waits. The caller does not hold the lock."""
        thread, self._stopped = self._thread, True
        if thread is not None and thread is not threading.current_thread():
            self._wake_thread()
            thread.join(_IDLE_S)

    def _work(self) -> None:
        with self.lock:
            if self._thread is not threading.current_thread():
                return
        try:
            while self._is_needed():
                self._sync_for_all()
        except BaseException:
            with self.lock:
                self._thread = None
                self.open_gates()
            raise

    def _is_needed(self) -> bool:
        """Wait until anyone waits; ``False``: that took too long, the thread ends."""
        while not self._gates:
            woken = self._wake.acquire(timeout=_IDLE_S)
            with self.lock:
                if not woken:
                    self._add_busy_loops()
                is_idle = not (self._gates or self._busy_loops)
                if is_idle and (self._stopped or not woken):
                    self._thread = None
                    return False
        return True

    def _sync_for_all(self) -> None:
        log = self._log
        self._wait_for_others()
        with log.syncing:  # what is written until the running sync has ended is covered, too
            pass
        with self.held():
            begun = self._begin()
        began_ns = clock.monotonic_ns()
        if begun:
            log.sync()
        took_ns = clock.monotonic_ns() - began_ns
        with self.held():
            log.forget_settled()
            self._expect_again(took_ns)
            self._open_settled()

    def _expect_again(self, took_ns: int) -> None:
        """Note who may soon wait for the next sync, if it is worth waiting for them."""
        self._expected, wait_ns = self._number_waiting(), took_ns // 4
        is_worthwhile = self._expected > 1 and wait_ns >= _WORTHWHILE_NS
        self._expected_until = clock.monotonic_ns() + wait_ns if is_worthwhile else 0

    def _number_waiting(self) -> int:
        return len({gate.waiter for gate in self._gates})

    def _wait_for_others(self) -> None:
        """Wait until all who are expected have come, but not for long."""
        while self._expects_others() and not self._stopped:
            if self._number_waiting() >= self._expected:
                return
            left_ns = self._expected_until - clock.monotonic_ns()
            self._wake.acquire(timeout=max(0, left_ns) / 1e9)

    def _begin(self) -> bool:
        if all(gate.event.seq <= self._log.settled for gate in self._gates):
            return False  # by a thread that synced by itself
        return self._log.begin_sync()

    def _open_settled(self) -> None:
        waiting = list[Gate | TaskGate]()
        for gate in self._gates:
            if gate.event.seq <= self._log.settled or not self._log.ready:
                gate.open()
            else:
                waiting.append(gate)
        self._gates = waiting


def _set_all(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():  # its task may have been cancelled
            future.set_result(None)
