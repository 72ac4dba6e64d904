"""Writes a log: append, sync, recover. The only writer holds the lease.

A log is never truncated or rewritten: earlier content is always a prefix of later content.

After a failed write or sync it is unknown whether the file holds the event (after a failed sync
the page cache shows it although the disk has lost it). Before the next event, the writer therefore
opens the file again, evicts it from the cache, checks it, and writes what is missing, marked
``late``.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import UNSET

from tapps_otel import clock
from tapps_otel.errors import LogDamagedError, LogError, LogWriteError
from tapps_otel.log import files as _files
from tapps_otel.log.event import (
    EVENT_TYPES,
    MAX_LINE,
    SYNCED,
    TRAILER,
    Event,
    encode,
    trailing_sha,
)
from tapps_otel.log.reader import Checker, Region, lines, may_be_log

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from tapps_otel.settings import Durability

__all__ = ["LogObserver", "LogWriter"]

_log = logging.getLogger("tapps_otel")
_RETRY_NS: Final = 1_000_000_000  # between two attempts to recover a failing log
# Events are kept in memory until they are settled. A run that writes no event of a synced type for
# long is synced after this many.
_MAX_UNSETTLED: Final = 1024
_LATE_MARK: Final = 32  # bytes: a line grows by `late` when it is written again


class LogObserver(Protocol):
    """Observes failures of a log. Its methods must not raise."""

    def log_failed(self, error: BaseException, /) -> None:
        """Called after a write, sync or opening that failed."""

    def log_dropped(self, events: int, /) -> None:
        """Called with a number of events that will never be in the log."""


class _ForeignWriterError(OSError):
    """The end of the file is not where this writer left it."""

    def __str__(self) -> str:
        return "another process wrote to the log without the lease"


class _InvalidEventError(Exception):
    """The event cannot be encoded as a line; the log itself is intact."""


class LogWriter:
    """Appends events to the log of one run. Thread-safe.

    Opening checks the whole log and passes its events to ``on_event``. A torn end is sealed: with
    a newline if one is missing, and a ``log_repair`` event that declares the torn bytes.

    :param durability: ``commit`` syncs with every event that ends a step or the run, ``always``
        with every event, ``os`` never (survives a killed process, not a power cut)
    :param boot_id: id of the current boot, which tells the holes of a power cut from other damage
    :param stop: raise if an event cannot be written, instead of buffering it
    :param limit: maximum number of events to buffer; later ones are dropped and counted
    :param accept_damage: declare any damage as a repair, for ``repair --accept-damage``
    :param on_event: called with every event that is already in the log
    :param observer: observes failures and dropped events
    :raises LogDamagedError: the log is damaged, and not by a crash; nothing was written
    :raises LogVersionError: the log has a newer format; nothing was written
    :raises OSError: the file cannot be opened, read, synced or repaired
    """

    def __init__(
        self,
        path: Path,
        workflow_id: str,
        *,
        durability: Durability = "commit",
        boot_id: str | None = None,
        stop: bool = False,
        limit: int = 10_000,
        accept_damage: bool = False,
        on_event: Callable[[Event], None] = lambda _: None,
        observer: LogObserver | None = None,
    ) -> None:
        self.path, self._observer = path, observer
        self._id, self._durability, self._boot_id = workflow_id, durability, boot_id
        self._event_id = (
            workflow_id  # in events: the id of a third-party executor may not be a file name
        )
        self._stop, self._limit, self._accept_damage = stop, limit, accept_damage
        self._files = _files.system()
        self._lock = threading.Lock()
        self._descriptor = -1
        self._seq, self._sha, self._end = 0, b"", 0
        self._execution: int | None = None  # of the last event appended by this writer
        self._failure: str | None = None
        self._retry_at_ns = 0
        # Written, but not yet as safe as the durability promises, each with its sha: after a
        # failure the file may or may not hold them.
        self._unsettled: list[tuple[Event, bytes]] = []
        self._waiting: deque[Event] = deque()  # not written yet
        self._dropped = 0
        self._acknowledged = 0  # seq up to which the log was synced when it failed
        self._open(on_event)
        _writers.add(self)

    @property
    def seq(self) -> int:
        """Seq of the last event in the file; 0 if there is none."""
        return self._seq

    @property
    def sha(self) -> str:
        """Sha of the last event in the file (64 hex digits)."""
        return self._sha.decode()

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._end

    @property
    def stops(self) -> bool:
        """Whether :meth:`append` raises if an event cannot be written."""
        return self._stop

    @property
    def failure(self) -> str | None:
        """Why events are buffered in memory; ``None`` while the log can be written."""
        return self._failure

    def append(self, event: Event, *, sync: bool = False) -> int | None:
        """Append one event, and sync as the durability requires.

        :param sync: sync with this event whatever its type (except with durability ``os``)
        :returns: its seq, once it is as safe as the durability promises; ``None`` if the log
            cannot be written and the event is buffered in memory
        :raises LogWriteError: the log cannot be written and ``stop`` is set; the file may hold the
            event nevertheless
        """
        settle = sync or event.event_type in SYNCED or self._durability == "always"
        with self._lock:
            self._execution = event.execution
            try:
                if self._descriptor >= 0 or self._try_reopen():
                    self._write(event, settle)
                    return event.seq
                if not self._stop:
                    self._buffer(event)
            except BaseException as error:  # noqa: BLE001 - also Ctrl-C in the middle of a write
                if self._recover_from_write_error(error):
                    return event.seq
            if self._stop:
                self._discard(event)
                raise LogWriteError(self.path, str(self._failure))
            return None

    def close(self) -> None:
        """Write buffered events if that is possible, then close. A second call does nothing."""
        with self._lock:
            self._retry_at_ns = 0
            if self._failure is not None and not self._try_recover():
                lost = len(self._unsettled) + len(self._waiting) + self._dropped
                _log.error("%s: up to %d events are lost: %s", self.path, lost, self._failure)
                self._report_dropped(lost - self._dropped)  # the dropped ones were reported
            self._failure = None
            self._release()

    def reopen(self) -> bool:
        """Open the log again after :meth:`close`, to continue it where it was left.

        The caller holds the lease again. The log is not read: only holders of the lease write to
        it, and its size and its last line show whether one did.

        :returns: ``False``: it is not as this writer left it; it has to be opened anew
        :raises OSError: the file is gone, or cannot be opened or read
        """
        with self._lock:
            files, descriptor = self._files, self._files.open_append(self.path, create=False)
            try:
                trailer = files.read_at(descriptor, TRAILER, max(0, self._end - TRAILER))
                same = files.size(descriptor) == self._end and trailing_sha(trailer) == self._sha
            except BaseException:
                files.close(descriptor)
                raise
            if same:
                self._descriptor = descriptor
            else:
                files.close(descriptor)
            return same

    def detach(self) -> None:
        """Close the file in a forked child without writing: the log belongs to the parent."""
        self._lock = threading.Lock()  # a thread of the parent may hold the old one
        self._failure = None
        self._unsettled, self._waiting, self._dropped = [], deque(), 0
        self._release()

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._files.close(descriptor)

    # -- one event; called with the lock held

    def _try_reopen(self) -> bool:
        """Reopen a log that failed; return whether it can be written again."""
        if self._failure is None:
            raise LogWriteError(self.path, "the log is closed")
        return self._try_recover()

    def _recover_from_write_error(self, error: BaseException) -> bool:
        """Handle a write error; return whether the log holds the event after all."""
        if isinstance(error, _InvalidEventError):
            if self._stop:
                raise LogWriteError(self.path, str(error)) from error
            self._drop(error)
            self._write_gap()
            return False
        if isinstance(error, LogWriteError):  # the log is closed
            raise error
        self._mark_failed(error)
        if not isinstance(error, OSError):
            raise error
        return self._try_recover()  # it found the event in the file, or wrote it again

    def _write(self, event: Event, settle: bool) -> None:  # noqa: FBT001 - positional for speed: it is called for every event
        """Write an event; ``settle`` it and those before it, as the durability requires."""
        event.seq = seq = self._seq + 1
        try:
            line, sha = encode(event, self._sha)
        except Exception as error:
            raise _InvalidEventError(f"event {event.event_type}: {error}") from error
        length = len(line)
        if length > MAX_LINE and length > MAX_LINE + (event.late is True and _LATE_MARK):
            raise _InvalidEventError(
                f"event {event.event_type}: a line of {length} bytes, of at most {MAX_LINE}"
            )
        files, descriptor, unsettled = self._files, self._descriptor, self._unsettled
        unsettled.append((event, sha))
        files.write(descriptor, line)
        self._seq, self._sha = seq, sha
        self._end += length
        if settle or len(unsettled) >= _MAX_UNSETTLED:
            if files.position(descriptor) != self._end:
                raise _ForeignWriterError
            if self._durability != "os":
                files.sync(descriptor)
            unsettled.clear()

    def _buffer(self, event: Event) -> None:
        if len(self._waiting) < self._limit:
            self._waiting.append(event)
        else:
            self._count_dropped()

    def _drop(self, error: Exception) -> None:
        self._count_dropped()
        _log.error("%s: an event was dropped: %s", self.path, error)

    def _count_dropped(self) -> None:
        self._dropped += 1
        self._report_dropped(1)

    def _report_dropped(self, events: int) -> None:
        if self._observer is not None and events:
            self._observer.log_dropped(events)

    def _discard(self, event: Event) -> None:
        """Do not write an event later for which :meth:`append` raises."""
        self._unsettled = [one for one in self._unsettled if one[0] is not event]
        if self._waiting and self._waiting[-1] is event:
            self._waiting.pop()

    # -- failure and recovery; called with the lock held

    def _mark_failed(self, error: BaseException) -> None:
        reason = str(error) or type(error).__name__
        if self._failure is None:
            _log.error("%s: cannot write to the log: %s", self.path, reason)
            if self._durability != "os":
                self._acknowledged = self._unsettled[0][0].seq - 1 if self._unsettled else self._seq
        self._failure = reason
        self._release()
        if self._observer is not None:
            self._observer.log_failed(error)

    def _try_recover(self) -> bool:
        """Open the log again and write what is missing in it; return whether that succeeded."""
        now = clock.monotonic_ns()
        if now < self._retry_at_ns:
            return False
        self._retry_at_ns = now + _RETRY_NS
        try:
            seen = self._open(lambda _: None, {sha for _, sha in self._unsettled})
            self._acknowledged = self._seq  # all of this was just read from the disk
            missing = [event for event, sha in self._unsettled if sha not in seen]
            self._unsettled.clear()
            self._waiting.extendleft(reversed(missing))
            self._write_waiting()
        except (OSError, LogError) as error:
            self._mark_failed(error)
            return False
        _log.warning("%s: the log can be written again", self.path)
        self._failure = None
        self._retry_at_ns = 0
        return True

    def _write_waiting(self) -> None:
        while self._waiting:
            event = self._waiting.popleft()
            event.late = True
            try:
                self._write(event, settle=not self._waiting)
            except _InvalidEventError as error:
                self._drop(error)
        if self._dropped:
            self._write(
                self._make_event("log_gap", attributes={"dropped": self._dropped}), settle=True
            )
            self._dropped = 0

    def _write_gap(self) -> None:
        try:
            self._write_waiting()
        except OSError as error:
            self._mark_failed(error)

    def _open(
        self,
        on_event: Callable[[Event], None],
        wanted: Collection[bytes] = (),
    ) -> set[bytes]:
        """Open, sync, evict and check the log, and seal a torn end.

        :returns: those of the ``wanted`` shas that the log holds
        """
        files = self._files
        self._release()
        # A log that has disappeared must not be started anew without notice.
        descriptor = files.open_append(self.path, create=self._seq == 0)
        try:
            if files.size(descriptor):
                # Events of a crashed writer may only be in the page cache, and events that a failed
                # sync lost are still shown there: sync, then read what the disk holds.
                files.sync(descriptor)
                files.evict(descriptor)
            seen = self._read_existing(descriptor, on_event, wanted)
        except BaseException:
            files.close(descriptor)
            raise
        self._descriptor = descriptor
        return seen

    def _read_existing(
        self,
        descriptor: int,
        on_event: Callable[[Event], None],
        wanted: Collection[bytes],
    ) -> set[bytes]:
        checker = Checker(self.path, self._id)
        last_process, seen = _LastProcess(), set()
        if not may_be_log(self._files.read_at(descriptor, 64, 0)):
            raise LogDamagedError(self.path, 0, 1, "this is not a log of tapps_otel")
        with self._files.reader(descriptor) as file:
            last = None
            for line in lines(file):
                event = checker.feed(line)
                if event is None:
                    continue
                last = event
                if event.process is not UNSET:
                    last_process.process = event.process
                if wanted and checker.sha in wanted:
                    seen.add(checker.sha)
                on_event(event)
        if last is not None:
            last_process.execution, self._event_id = last.execution, last.workflow_id
        if checker.seq < self._acknowledged:
            raise LogDamagedError(
                self.path,
                checker.end,
                checker.seq + 1,
                f"it ends before seq {self._acknowledged}, which had been synced",
            )
        self._seq, self._sha, self._end = checker.seq, checker.sha, checker.end
        if checker.region is not None:
            on_event(self._seal(descriptor, checker, checker.region, last_process))
        elif not checker.whole:  # only the newline is missing
            self._files.write(descriptor, b"\n")
            self._end += 1
        return seen

    def _seal(
        self, descriptor: int, checker: Checker, region: Region, last_process: _LastProcess
    ) -> Event:
        """Append a ``log_repair`` that declares the region at the end, in a single write."""
        power_cut = region.has_nul and last_process.cut_by_power(self._boot_id, region.readable)
        if not (region.torn or power_cut or self._accept_damage):
            raise LogDamagedError(self.path, region.offset, checker.seq + 1, region.problem)
        event = self._make_event("log_repair", damage=checker.declaration(region))
        event.execution = self._execution or last_process.execution + 1
        event.seq = checker.seq + 1
        line, sha = encode(event, checker.sha)
        newline = b"" if region.terminated else b"\n"
        self._files.write(descriptor, newline + line)
        self._files.sync(descriptor)
        self._seq, self._sha = event.seq, sha
        self._end = region.offset + region.length + len(newline) + len(line)
        return event

    def _make_event(self, event_type: str, **fields: Any) -> Event:
        at = clock.timestamp(clock.time_ns())
        execution = self._execution or 1
        return Event(
            event_type=event_type,
            workflow_id=self._event_id,
            timestamp=at,
            execution=execution,
            **fields,
        )


class _LastProcess:
    """What the events before a region tell about the process that wrote them."""

    def __init__(self) -> None:
        self.execution = 0
        self.process: dict[str, Any] = {}

    def cut_by_power(self, boot_id: str | None, readable: set[str]) -> bool:
        """Return whether a power cut can have left a hole next to these whole lines.

        Only lines that were not synced can be missing, and the machine must have rebooted since.
        """
        durability, then = self.process.get("durability"), self.process.get("boot_id")
        unsynced = EVENT_TYPES - SYNCED if durability == "commit" else frozenset[str]()
        return (
            durability != "os"
            and None not in {then, boot_id}
            and then != boot_id
            and readable <= unsynced
        )


# A child that kept writing to its parent's descriptor would break the chain.
_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def _detach_all() -> None:
    for writer in list(_writers):
        writer.detach()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_all)
