"""Writing a log: append, sync, recover. One writer at a time, under the lease.

Nothing is ever truncated or rewritten, so that what was in the file is always a prefix of what is
in it later. A failed write or sync poisons the writer: whether the record is in the file is
unknown (after a failed sync the page cache shows it although the disk has lost it), so before the
next event the file is opened again, evicted from the cache and checked, and what is missing is
written again, marked ``late``.
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
from tapps_otel.log.event import EVENT_TYPES, MAX_LINE, SYNCED, Event, encode
from tapps_otel.log.reader import Checker, Region, is_ours, lines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from tapps_otel.settings import Durability

__all__ = ["LogObserver", "LogWriter"]

_log = logging.getLogger("tapps_otel")
_RETRY_NS: Final = 1_000_000_000  # between two tries to open a log that fails again and again
# Events are held in memory until they are settled; a run that writes none of the synced types for
# long is settled all the same.
_MOST_UNSETTLED: Final = 1024
_LATE: Final = 32  # bytes by which a line may grow when it is written a second time


class LogObserver(Protocol):
    """Who wants to know what goes wrong with a log. Its methods do not raise."""

    def log_failed(self, error: BaseException, /) -> None:
        """Hear of a write, a sync or an opening that failed."""

    def log_dropped(self, events: int, /) -> None:
        """Hear of events that will never be in the log."""


class _ForeignWriterError(OSError):
    """The file's end is not where this writer left it."""

    def __str__(self) -> str:
        return "another process wrote to the log without the lease"


class _UnfitEventError(Exception):
    """This event cannot be a line; the log itself is all right."""


class LogWriter:
    """Appends events to one run's log; its threads go through one lock.

    Opening checks the whole log and hands its events to ``on_event``. A torn end is sealed: a
    newline where one is missing, and a ``log_repair`` that declares the torn bytes.

    :param durability: ``commit`` syncs with every event that ends something, ``always`` with every
        event, ``os`` never (that survives a killed process, not a power cut)
    :param boot_id: of this boot, which tells a power cut's holes from other damage
    :param stop: raise when an event cannot be written, instead of keeping it for later
    :param limit: how many events are kept while the log cannot be written; the rest is counted
    :param accept_damage: declare any damage as it is, because a person said so
    :param observer: is told of failures and of what is dropped
    :raises LogDamagedError: damage that no crash explains; nothing was written
    :raises LogVersionError: a newer format; nothing was written
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
        self._own_id = workflow_id  # in events: an executor's id need not be able to name a log
        self._stop, self._limit, self._accept_damage = stop, limit, accept_damage
        self._files = _files.system()
        self._lock = threading.Lock()
        self._descriptor = -1
        self._seq, self._sha, self._end = 0, b"", 0
        self._execution: int | None = None  # of the last event appended here
        self._failure: str | None = None
        self._retry_at_ns = 0
        # Written, and not yet known to be as safe as the durability says, each with its sha: after
        # a failure the file may or may not hold them.
        self._unsettled: list[tuple[Event, bytes]] = []
        self._waiting: deque[Event] = deque()  # never written
        self._dropped = 0
        self._acknowledged = 0  # seq up to which the log was synced when it last failed
        self._open(on_event)
        _writers.add(self)

    @property
    def seq(self) -> int:
        """Of the last event in the file; 0 for none."""
        return self._seq

    @property
    def sha(self) -> str:
        """Of the last event in the file (64 hex)."""
        return self._sha.decode()

    @property
    def size(self) -> int:
        """Of the file, bytes."""
        return self._end

    @property
    def stops(self) -> bool:
        """Whether an event that cannot be written raises."""
        return self._stop

    @property
    def failure(self) -> str | None:
        """Why events wait in memory; ``None`` while the log can be written."""
        return self._failure

    def append(self, event: Event, *, sync: bool = False) -> int | None:
        """Write one event at the log's end, and sync as the durability says.

        :param sync: sync with this event whatever its type (not with durability ``os``)
        :returns: its seq, once it is as safe as the durability promises; ``None`` when the log
            cannot be written, and the event waits in memory
        :raises LogWriteError: the log cannot be written, and ``stop`` was asked for; the event may
            be in the file all the same
        """
        settle = sync or event.event_type in SYNCED or self._durability == "always"
        with self._lock:
            self._execution = event.execution
            try:
                if self._descriptor >= 0 or self._reopened():
                    self._write(event, settle)
                    return event.seq
                if not self._stop:
                    self._keep(event)
            except BaseException as error:  # noqa: BLE001 - Ctrl-C in the middle, too
                if self._outlived(error):
                    return event.seq
            if self._stop:
                self._forget(event)
                raise LogWriteError(self.path, str(self._failure))
            return None

    def close(self) -> None:
        """Try once more to write what waits, then close. A second call does nothing."""
        with self._lock:
            self._retry_at_ns = 0
            if self._failure is not None and not self._recovered():
                lost = len(self._unsettled) + len(self._waiting) + self._dropped
                _log.error("%s: up to %d events are lost: %s", self.path, lost, self._failure)
                self._tell_dropped(lost - self._dropped)  # those were told of
            self._failure = None
            self._release()

    def detach(self) -> None:
        """Let go of the file in a forked child: the log is the parent's."""
        self._lock = threading.Lock()  # a thread that is not in this process may hold the old one
        self._failure = None
        self._unsettled, self._waiting, self._dropped = [], deque(), 0
        self._release()

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._files.close(descriptor)

    # -- with the lock held: one event

    def _reopened(self) -> bool:
        """Whether a log that failed can be written again."""
        if self._failure is None:
            raise LogWriteError(self.path, "the log is closed")
        return self._recovered()

    def _outlived(self, error: BaseException) -> bool:
        """Deal with what an event's write raised; whether the event is in the log all the same."""
        if isinstance(error, _UnfitEventError):
            if self._stop:
                raise LogWriteError(self.path, str(error)) from error
            self._drop(error)
            self._write_gap()
            return False
        if isinstance(error, LogWriteError):  # it is closed
            raise error
        self._poison(error)
        if not isinstance(error, OSError):
            raise error
        return self._recovered()  # which found the event in the file, or wrote it again

    def _write(self, event: Event, settle: bool) -> None:  # noqa: FBT001 - every event comes here
        """Write an event; ``settle`` it, and what came before it, as the durability says."""
        event.seq = seq = self._seq + 1
        try:
            line, sha = encode(event, self._sha)
        except Exception as error:
            raise _UnfitEventError(f"event {event.event_type}: {error}") from error
        length = len(line)
        if length > MAX_LINE and length > MAX_LINE + (event.late is True and _LATE):
            raise _UnfitEventError(
                f"event {event.event_type}: a line of {length} bytes, of at most {MAX_LINE}"
            )
        files, descriptor, unsettled = self._files, self._descriptor, self._unsettled
        unsettled.append((event, sha))
        files.write(descriptor, line)
        self._seq, self._sha = seq, sha
        self._end += length
        if settle or len(unsettled) >= _MOST_UNSETTLED:
            if files.position(descriptor) != self._end:
                raise _ForeignWriterError
            if self._durability != "os":
                files.sync(descriptor)
            unsettled.clear()

    def _keep(self, event: Event) -> None:
        if len(self._waiting) < self._limit:
            self._waiting.append(event)
        else:
            self._count_dropped()

    def _drop(self, error: Exception) -> None:
        self._count_dropped()
        _log.error("%s: an event is left out: %s", self.path, error)

    def _count_dropped(self) -> None:
        self._dropped += 1
        self._tell_dropped(1)

    def _tell_dropped(self, events: int) -> None:
        if self._observer is not None and events:
            self._observer.log_dropped(events)

    def _forget(self, event: Event) -> None:
        """Do not write later what the caller was told is not written."""
        self._unsettled = [one for one in self._unsettled if one[0] is not event]
        if self._waiting and self._waiting[-1] is event:
            self._waiting.pop()

    # -- with the lock held: failing and recovering

    def _poison(self, error: BaseException) -> None:
        reason = str(error) or type(error).__name__
        if self._failure is None:
            _log.error("%s: cannot write to the log: %s", self.path, reason)
            if self._durability != "os":
                self._acknowledged = self._unsettled[0][0].seq - 1 if self._unsettled else self._seq
        self._failure = reason
        self._release()
        if self._observer is not None:
            self._observer.log_failed(error)

    def _recovered(self) -> bool:
        """Open the log again and write what is missing in it; ``False`` while that fails."""
        now = clock.monotonic_ns()
        if now < self._retry_at_ns:
            return False
        self._retry_at_ns = now + _RETRY_NS
        try:
            seen = self._open(lambda _: None, {sha for _, sha in self._unsettled})
            self._acknowledged = self._seq  # this much was just read from the disk
            missing = [event for event, sha in self._unsettled if sha not in seen]
            self._unsettled.clear()
            self._waiting.extendleft(reversed(missing))
            self._write_what_waits()
        except (OSError, LogError) as error:
            self._poison(error)
            return False
        _log.warning("%s: the log can be written again", self.path)
        self._failure = None
        self._retry_at_ns = 0
        return True

    def _write_what_waits(self) -> None:
        while self._waiting:
            event = self._waiting.popleft()
            event.late = True
            try:
                self._write(event, settle=not self._waiting)
            except _UnfitEventError as error:
                self._drop(error)
        if self._dropped:
            self._write(
                self._own_event("log_gap", attributes={"dropped": self._dropped}), settle=True
            )
            self._dropped = 0

    def _write_gap(self) -> None:
        try:
            self._write_what_waits()
        except OSError as error:
            self._poison(error)

    def _open(
        self,
        on_event: Callable[[Event], None],
        wanted: Collection[bytes] = (),
    ) -> set[bytes]:
        """Open, sync, evict, check, and seal a torn end; which of the ``wanted`` shas it holds."""
        files = self._files
        self._release()
        # A log that was there and is not any more is not begun anew behind the run's back.
        descriptor = files.open_append(self.path, create=self._seq == 0)
        try:
            if files.size(descriptor):
                # What a crashed writer left may be in the page cache alone, and what a failed
                # sync lost is still shown there: sync, then look at what the disk holds.
                files.sync(descriptor)
                files.evict(descriptor)
            seen = self._adopt(descriptor, on_event, wanted)
        except BaseException:
            files.close(descriptor)
            raise
        self._descriptor = descriptor
        return seen

    def _adopt(
        self,
        descriptor: int,
        on_event: Callable[[Event], None],
        wanted: Collection[bytes],
    ) -> set[bytes]:
        checker = Checker(self.path, self._id)
        past, seen = _Past(), set()
        if not is_ours(self._files.read_at(descriptor, 64, 0)):
            raise LogDamagedError(self.path, 0, 1, "this is not a log of tapps_otel")
        with self._files.reader(descriptor) as file:
            last = None
            for line in lines(file):
                event = checker.feed(line)
                if event is None:
                    continue
                last = event
                if event.process is not UNSET:
                    past.process = event.process
                if wanted and checker.sha in wanted:
                    seen.add(checker.sha)
                on_event(event)
        if last is not None:
            past.execution, self._own_id = last.execution, last.workflow_id
        if checker.seq < self._acknowledged:
            raise LogDamagedError(
                self.path,
                checker.end,
                checker.seq + 1,
                f"it ends before seq {self._acknowledged}, which was safely in it",
            )
        self._seq, self._sha, self._end = checker.seq, checker.sha, checker.end
        if checker.region is not None:
            on_event(self._seal(descriptor, checker, checker.region, past))
        elif not checker.whole:  # a record that only lacks its newline
            self._files.write(descriptor, b"\n")
            self._end += 1
        return seen

    def _seal(self, descriptor: int, checker: Checker, region: Region, past: _Past) -> Event:
        """Declare the region at the end, in one write that adds and changes nothing else."""
        power_cut = region.holds_nul and past.cut_by_power(self._boot_id, region.readable)
        if not (region.torn or power_cut or self._accept_damage):
            raise LogDamagedError(self.path, region.offset, checker.seq + 1, region.problem)
        event = self._own_event("log_repair", damage=checker.claim(region))
        event.execution = self._execution or past.execution + 1
        event.seq = checker.seq + 1
        line, sha = encode(event, checker.sha)
        newline = b"" if region.terminated else b"\n"
        self._files.write(descriptor, newline + line)
        self._files.sync(descriptor)
        self._seq, self._sha = event.seq, sha
        self._end = region.offset + region.length + len(newline) + len(line)
        return event

    def _own_event(self, event_type: str, **fields: Any) -> Event:
        at = clock.timestamp(clock.time_ns())
        execution = self._execution or 1
        return Event(
            event_type=event_type,
            workflow_id=self._own_id,
            timestamp=at,
            execution=execution,
            **fields,
        )


class _Past:
    """What the events before a region say of the process that wrote them."""

    def __init__(self) -> None:
        self.execution = 0
        self.process: dict[str, Any] = {}

    def cut_by_power(self, boot_id: str | None, readable: set[str]) -> bool:
        """Whether a power cut can have left a hole with these whole lines beside it.

        Only lines that were not synced can be missing; and it takes a boot in between.
        """
        durability, then = self.process.get("durability"), self.process.get("boot_id")
        unsynced = EVENT_TYPES - SYNCED if durability == "commit" else frozenset[str]()
        return (
            durability != "os"
            and None not in {then, boot_id}
            and then != boot_id
            and readable <= unsynced
        )


# A child that goes on writing to its parent's descriptor would break the chain.
_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def _detach_all() -> None:
    for writer in list(_writers):
        writer.detach()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_all)
