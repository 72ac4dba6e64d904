"""Writes a log: append, sync, recover. The only writer holds the lease.

After a failed write or sync it is unknown whether the file holds the event (after a failed sync
the page cache shows it although the disk has lost it). Before the next event, the writer therefore
opens the file again, evicts it from the cache, checks it, and writes what is missing, marked
``late``.

With each sync it looks whether the log and the lease still have their names. A log that was
deleted, renamed or replaced (an agent that cleans its working tree) is whole in the open file: it
is copied to its name, if that is free, and the log has an annotation of it. Until that succeeds,
the log fails as on a failing disk. If another process has taken the lease, writing stops.

Ctrl-C, a ``RecursionError`` or the like may come between any two instructions, and a signal handler
or a finalizer may append in the middle of an append. Once :meth:`LogWriter.append` has put an event
on a list of its own, the event is the log's: what was interrupted is completed, and what was
appended in the middle is written by the append around it. Nothing is reported with the lock held,
because handlers of the standard log append, too.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from tapps_otel import clock
from tapps_otel.errors import LeaseLostError, LogError, LogWriteError, RunBusyError
from tapps_otel.log import files as _files
from tapps_otel.log.event import MAX_LINE, SYNCED, Event, encode
from tapps_otel.log.log_file import DisplacedError, LogFile
from tapps_otel.log.recovery import Recovery, State, log_event

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tapps_otel.log.lease import Lease
    from tapps_otel.settings import Durability

__all__ = ["RESTORED", "LogObserver", "LogWriter"]

# Name of the annotation of a log that was put back under its name.
RESTORED: Final = "tapps.log_restored"

_log = logging.getLogger("tapps_otel")
_RETRY_NS: Final = 1_000_000_000  # between two attempts to recover a failing log
# Where nothing is synced, looking at the names would be a tenth of a step: it is done this often.
_LOOK_NS: Final = 10_000_000
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


def _is_of_the_process(error: Exception, event: Event) -> bool:
    """Whether an event could not be encoded although it is valid: no stack or memory was left."""
    by_users = event.event_type in {"annotation", "span"}  # these may be nested too deep
    return isinstance(error, MemoryError) or (isinstance(error, RecursionError) and not by_users)


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
    :param lease: the lease of the run, to look whether it still has its name
    :raises RunBusyError: another process writes to this file
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
        lease: Lease | None = None,
    ) -> None:
        self.path, self._observer = path, observer
        self._durability, self._stop, self._limit = durability, stop, limit
        self._files = _files.system()
        self._file, self._lease, self._look_at_ns = LogFile(self._files, path), lease, 0
        self._recovery = Recovery(self._files, path, workflow_id, boot_id)
        self._lock = threading.RLock()
        self._busy = False  # this thread is in the middle of an append
        self._ready = False  # a log that fails is open, and not ready to be written to
        self._seq, self._sha, self._end = 0, b"", 0
        self._event_id = workflow_id  # in events
        self._execution: int | None = None  # of the last event appended by this writer
        self._failure: str | None = None
        self._retry_at_ns = 0
        self._foreign = False  # the failure: another process wrote to the file
        self._taken_by: tuple[int | None, str | None] | None = None  # who has the lease
        # Written, but not yet as safe as the durability promises, each with its sha: after a
        # failure the file may or may not hold them.
        self._unsettled: list[tuple[Event, bytes]] = []
        self._waiting: deque[Event] = deque()  # not written yet
        self._dropped = 0
        self._reports: deque[Callable[[], object]] = deque()  # to be made without the lock
        self._acknowledged = 0  # seq up to which the log was settled when it failed
        _writers.add(self)  # before there is a descriptor that a child could inherit
        self._open(on_event, accept_damage=accept_damage)

    def _open(self, on_event: Callable[[Event], None], *, accept_damage: bool) -> None:
        try:
            self._file.open()
            self._take_state(
                self._recovery.run(
                    self._file.descriptor, on_event=on_event, accept_damage=accept_damage
                )
            )
        except BaseException:
            self._file.close()
            raise
        self._ready = True

    def _take_state(self, state: State) -> None:
        self._seq, self._sha, self._end = state.seq, state.sha, state.end
        self._event_id = state.workflow_id

    @property
    def seq(self) -> int:
        """Seq of the last event in the file; 0 if there is none."""
        return self._seq

    @property
    def sha(self) -> str:
        """Sha of the last event in the file (64 hex digits); empty if there is none."""
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

        An event that was appended before is not written again: after an interrupt, it can be
        appended once more to be sure.

        :param sync: sync with this event whatever its type (except with durability ``os``)
        :returns: its seq, once it is as safe as the durability promises; ``None`` if the log
            cannot be written, or is in the middle of an append in this thread, and the event is
            buffered in memory
        :raises LogWriteError: the log cannot be written and ``stop`` is set; the file may hold the
            event nevertheless
        :raises LeaseLostError: another process has taken the run over, from now on each time
        """
        settle = sync or event.event_type in SYNCED or self._durability == "always"
        try:
            with self._lock:
                if self._busy:
                    self._buffer(event)
                    return None
                self._busy, self._execution = True, event.execution
                try:
                    if self._ready or self._try_reopen(event):
                        if not event.seq:
                            self._write(event, settle)
                        if self._waiting:
                            self._write_waiting()
                        return event.seq
                    if not self._stop:
                        self._buffer(event)
                except BaseException as error:  # noqa: BLE001 - also Ctrl-C in the middle of a write
                    if self._recover_from_write_error(error, settle=settle):
                        return event.seq
                finally:
                    self._busy = False
                if self._stop:
                    self._discard(event)
                    raise LogWriteError(self.path, str(self._failure))
                return None
        finally:
            if self._reports:
                self._make_reports()

    def has(self, event: Event) -> bool:
        """Whether this event was accepted: it is in the file, or waits to be written."""
        if event.seq:
            return True
        with self._lock:
            held = (*self._waiting, *(one for one, _ in self._unsettled))
            return any(one is event for one in held)

    def close(self) -> None:
        """Write buffered events if that is possible, then close. A second call does nothing."""
        try:
            with self._lock:
                if self._busy:  # by a signal handler: the append around it needs the file
                    return
                self._busy, self._retry_at_ns = True, 0
                try:
                    self._write_rest()
                finally:
                    self._busy, self._failure = False, None
                    self._release()
        finally:
            self._make_reports()

    def _write_rest(self) -> None:
        if self._ready and self._has_lost_name():
            self._mark_failed(DisplacedError())
        if self._failure is None:
            if self._waiting and self._ready:  # appended just before an interrupt
                self._write_gap()
        elif not self._try_last_recovery():
            lost = len(self._unsettled) + len(self._waiting) + self._dropped
            what = "the whole log is" if self._has_lost_name() else f"up to {lost} events are"
            self._report(_log.error, "%s: %s lost: %s", self.path, what, self._failure)
            self._report_dropped(lost - self._dropped)  # the dropped ones were reported

    def _report(self, make: Callable[..., object], *args: object) -> None:
        """Call ``make`` with these arguments once the lock is free."""
        self._reports.append(partial(make, *args))

    def _make_reports(self) -> None:
        while not self._busy:
            try:
                report = self._reports.popleft()
            except IndexError:  # another thread may have made the last one
                return
            report()

    def reopen(self, lease: Lease | None = None) -> bool:
        """Open the log again after :meth:`close`, to continue it where it was left.

        The log is not read: only holders of the lease write to it, and its size and its last line
        show whether one did.

        :param lease: the caller's new one
        :returns: ``False``: it is not as this writer left it; it has to be opened anew
        :raises OSError: the file is gone, or cannot be opened or read
        """
        with self._lock:
            self._ready = self._file.reopen_unchanged(self._end, self._sha)
            self._lease, self._taken_by = lease, None
            return self._ready

    def detach(self) -> None:
        """Close the file in a forked child without writing: the log belongs to the parent."""
        self._lock = threading.RLock()  # a thread of the parent may hold the old one
        self._busy, self._failure = False, None
        self._unsettled, self._waiting, self._dropped = [], deque(), 0
        self._reports.clear()
        self._release()

    def _release(self) -> None:
        self._ready = False
        self._file.close()

    # -- one event; called with the lock held

    def _try_reopen(self, event: Event) -> bool:
        """Reopen a log that failed; return whether it can be written again."""
        if self._taken_by is not None:
            raise LeaseLostError(self.path, *self._taken_by)
        if self._failure is None:
            if event.seq:  # another thread was faster, and has closed the log since
                return True
            raise LogWriteError(self.path, "the log is closed")
        return self._try_recover()

    def _recover_from_write_error(self, error: BaseException, *, settle: bool) -> bool:
        """Handle a write error; return whether the log holds the event after all."""
        if isinstance(error, _InvalidEventError):
            if self._stop:
                raise LogWriteError(self.path, str(error)) from error
            self._drop(error)
            self._write_gap()
            return False
        if isinstance(error, LogWriteError):  # the log is closed, or the lease is lost
            raise error
        if not isinstance(error, OSError):
            self._complete(settle=settle)
            raise error
        self._mark_failed(error)
        return self._try_recover()  # it found the event in the file, or wrote it again

    def _complete(self, *, settle: bool) -> None:
        """Do what is left of a write that an interrupt cut short."""
        if not self._ready:  # it was opening a log that failed: that begins anew
            self._retry_at_ns = 0
            return
        try:
            if self._unsettled:
                self._complete_line(*self._unsettled[-1])
                if settle and self._durability != "os":
                    self._files.sync(self._file.descriptor)
                    self._unsettled.clear()
            self._write_waiting()
        except BaseException as error:
            self._mark_failed(error)
            if not isinstance(error, OSError):  # another interrupt
                raise

    def _complete_line(self, event: Event, sha: bytes) -> None:
        if sha == self._sha:
            return
        line, again = encode(event, self._sha)
        written = self._files.size(self._file.descriptor) - self._end
        if again != sha or not 0 <= written <= len(line):
            raise _ForeignWriterError
        if written < len(line):
            self._files.write(self._file.descriptor, line[written:])
        self._seq, self._sha = event.seq, sha
        self._end += len(line)

    def _write(self, event: Event, settle: bool) -> None:  # noqa: FBT001 - positional for speed: it is called for every event
        """Write an event; ``settle`` it and those before it, as the durability requires."""
        event.seq = seq = self._seq + 1
        try:
            line, sha = encode(event, self._sha)
            length = len(line)
            if length > MAX_LINE and length > MAX_LINE + (event.late is True and _LATE_MARK):
                raise ValueError(f"a line of {length} bytes, of at most {MAX_LINE}")
        except BaseException as error:
            event.seq = 0
            if not isinstance(error, Exception) or _is_of_the_process(error, event):
                raise
            raise _InvalidEventError(f"event {event.event_type}: {error}") from error
        files, descriptor, unsettled = self._files, self._file.descriptor, self._unsettled
        unsettled.append((event, sha))  # from here on, it is the log's
        files.write(descriptor, line)
        self._seq, self._sha = seq, sha
        self._end += length
        if settle or len(unsettled) >= _MAX_UNSETTLED:
            if files.position(descriptor) != self._end:
                raise _ForeignWriterError
            if self._durability != "os":
                self._look()
                files.sync(descriptor)
            elif clock.monotonic_ns() >= self._look_at_ns:
                self._look()
                self._look_at_ns = clock.monotonic_ns() + _LOOK_NS
            unsettled.clear()

    def _look(self) -> None:
        """Check that the log and its lease still have their names."""
        self._keep_lease()
        if self._file.is_displaced():
            raise DisplacedError

    def _keep_lease(self) -> None:
        """Take the lease again if its file was deleted or replaced.

        :raises LeaseLostError: another process has taken it
        :raises OSError: it cannot be created
        """
        try:
            taken_again = self._lease is not None and self._lease.keep()
        except RunBusyError as error:
            raise self._give_up(error) from error
        if taken_again:
            text = "%s: the lease was removed or replaced: it was taken again"
            self._report(_log.warning, text, self.path)

    def _has_lost_name(self) -> bool:
        """Whether events were deleted, renamed or replaced, as far as the disk tells."""
        try:
            return self._seq > 0 and self._file.is_displaced()
        except OSError:
            return False

    def _buffer(self, event: Event) -> None:
        if len(self._waiting) < self._limit:
            self._waiting.append(event)
        else:
            self._count_dropped()

    def _drop(self, error: Exception) -> None:
        self._count_dropped()
        self._report(_log.error, "%s: an event was dropped: %s", self.path, str(error))

    def _count_dropped(self) -> None:
        self._dropped += 1
        self._report_dropped(1)

    def _report_dropped(self, events: int) -> None:
        if self._observer is not None and events:
            self._report(self._observer.log_dropped, events)

    def _discard(self, event: Event) -> None:
        """Do not write an event later for which :meth:`append` raises."""
        event.seq = 0
        self._unsettled = [one for one in self._unsettled if one[0] is not event]
        self._waiting = deque(one for one in self._waiting if one is not event)

    # -- failure and recovery; called with the lock held

    def _mark_failed(self, error: BaseException) -> None:
        reason = error.problem if isinstance(error, LeaseLostError) else str(error)
        reason = reason or type(error).__name__
        if self._failure is None:
            self._report(_log.error, "%s: cannot write to the log: %s", self.path, reason)
            self._foreign = isinstance(error, _ForeignWriterError)
            if self._durability != "os" or self._foreign:
                self._acknowledged = self._unsettled[0][0].seq - 1 if self._unsettled else self._seq
        elif reason != self._failure:
            text = "%s: still cannot write to the log: %s"
            self._report(_log.error, text, self.path, reason)
        self._failure, self._ready = reason, False
        if self._observer is not None:
            self._report(self._observer.log_failed, error)

    def _give_up(self, busy: RunBusyError) -> LeaseLostError:
        """Write no more: another process executes the run. Return what to raise."""
        self._taken_by = busy.pid, busy.host
        lost = LeaseLostError(self.path, *self._taken_by)
        self._mark_failed(lost)
        return lost

    def _try_recover(self) -> bool:
        """Open the log again and write what is missing in it; return whether that succeeded."""
        now = clock.monotonic_ns()
        if now < self._retry_at_ns:
            return False
        self._retry_at_ns = now + _RETRY_NS
        try:
            self._keep_lease()
            self._file.reopen()
            self._catch_up()
        except RunBusyError as error:
            raise self._give_up(error) from error
        except LeaseLostError:
            raise
        except (OSError, LogError) as error:
            self._mark_failed(error)
            return False
        self._failure, self._ready = None, True
        self._retry_at_ns = 0
        return True

    def _catch_up(self) -> None:
        """Check the open log, and write what it lacks."""
        state = self._recovery.run(
            self._file.descriptor,
            wanted={sha for _, sha in self._unsettled},
            acknowledged=self._acknowledged,
            accept_damage=self._foreign and not self._stop,
            execution=self._execution,
        )
        self._take_state(state)
        self._acknowledged = self._seq  # all of this was just read from the disk
        missing = [event for event, sha in self._unsettled if sha not in state.seen]
        for event in missing:
            event.seq = 0
        self._waiting, self._unsettled = deque((*missing, *self._waiting)), []
        self._write_waiting()
        if self._file.restored:
            self._write(self._event("annotation", name=RESTORED), settle=True)
            self._file.restored = False
            self._report(_log.error, "%s: the complete log was restored", self._file.path)
        else:
            tail = ": what it wrote is declared as damage" if self._foreign else ""
            text = "%s: the log can be written again%s"
            self._report(_log.warning, text, self.path, tail)

    def _try_last_recovery(self) -> bool:
        """Write what waits; where another file has the log's name, to a new file beside it."""
        with suppress(LeaseLostError):
            if self._taken_by is None and self._try_recover():
                return True
        if not self._has_lost_name():
            return False
        self._file.move_beside()
        self._lease, self._retry_at_ns = None, 0  # a lease is for the log's own name
        saved = self._try_recover()
        if saved:
            text = "%s: another file has this name: the log was saved as %s"
            self._report(_log.error, text, self.path, self._file.path.name)
        return saved

    def _write_waiting(self) -> None:
        while self._waiting:
            event = self._waiting[0]
            try:
                if not event.seq:  # otherwise it was appended twice
                    event.late = True
                    self._write(event, settle=len(self._waiting) == 1)
            except _InvalidEventError as error:
                self._drop(error)
            except BaseException:
                if event.seq:  # it is among the unsettled ones
                    self._waiting.popleft()
                raise
            self._waiting.popleft()
        if self._dropped:
            self._write(self._event("log_gap", attributes={"dropped": self._dropped}), settle=True)
            self._dropped = 0

    def _write_gap(self) -> None:
        try:
            self._write_waiting()
        except OSError as error:
            self._mark_failed(error)

    def _event(self, event_type: str, **fields: Any) -> Event:
        return log_event(event_type, self._event_id, self._execution or 1, **fields)


# A child that kept writing to its parent's descriptor would break the chain.
_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def _detach_all() -> None:
    for writer in list(_writers):
        writer.detach()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_all)
