"""Writes a log: append, sync, recover. The only writer holds the lease.

What cannot be written waits in memory and is written later, marked ``late``; what is lost is
counted in the log (``log_gap``).

Ctrl-C, a ``RecursionError`` or the like may come between any two instructions, and a signal handler
or a finalizer may append in the middle of an append. Once :meth:`LogWriter.append` has put an event
on a list of its own, the event is the log's: what was interrupted is completed, and what was
appended in the middle is written by the append around it. Nothing is reported with the lock held.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tapps_otel import clock
from tapps_otel.errors import LeaseLostError, LogError, LogWriteError
from tapps_otel.log.encrypted import CodecFailedError
from tapps_otel.log.event import SYNCED, Event
from tapps_otel.log.log_file import DisplacedError
from tapps_otel.log.open_log import InvalidEventError, OpenLog
from tapps_otel.log.reports import Reports

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tapps_otel.log.cipher import Cipher
    from tapps_otel.log.lease import Lease
    from tapps_otel.log.reports import LogObserver
    from tapps_otel.settings import Durability

__all__ = ["LogWriter"]

_RETRY_NS: Final = 1_000_000_000  # between two attempts to recover a failing log


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
    :param cipher: encrypts the values of events
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
        cipher: Cipher | None = None,
    ) -> None:
        self.path = path
        self._always, self._stop, self._limit = durability == "always", stop, limit
        self._cipher, self._reports = cipher, Reports(path, observer)
        self._log = OpenLog(
            path,
            workflow_id,
            boot_id=boot_id,
            syncs=durability != "os",
            lease=lease,
            reports=self._reports,
            cipher=cipher,
        )
        self._lock = threading.RLock()
        self._busy = False  # this thread is in the middle of an append
        self._execution: int | None = None  # of the last event appended by this writer
        self._retry_at_ns = 0
        self._waiting: deque[Event] = deque()  # not written yet
        self._encrypting = False  # a thread encrypts what waits
        self._dropped = 0
        _writers.add(self)  # before there is a descriptor that a child could inherit
        self._log.open(on_event, accept_damage=accept_damage)

    @property
    def seq(self) -> int:
        """Seq of the last event in the file; 0 if there is none."""
        return self._log.seq

    @property
    def sha(self) -> str:
        """Sha of the last event in the file (64 hex digits); empty if there is none."""
        return self._log.sha.decode()

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._log.size

    @property
    def stops(self) -> bool:
        """Whether :meth:`append` raises if an event cannot be written."""
        return self._stop

    @property
    def failure(self) -> str | None:
        """Why events are buffered in memory; ``None`` while the log can be written."""
        return self._log.failure

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
        settle = sync or event.event_type in SYNCED or self._always
        log = self._log
        if self._cipher is not None:
            self._encrypt(self._cipher, event)
        try:
            with self._lock:
                if self._busy:
                    self._buffer(event)
                    return None
                self._busy, self._execution = True, event.execution
                try:
                    if log.ready or self._try_reopen(event):
                        if not event.seq:
                            log.write(event, settle)
                        if self._waiting:
                            self._write_waiting()
                        return event.seq
                    if not self._stop:
                        self._buffer(event)
                except BaseException as error:  # noqa: BLE001 - also Ctrl-C in the middle of a write
                    if self._recover_from_write_error(error, event, settle=settle):
                        return event.seq
                finally:
                    self._busy = False
                self._leave(event)
                return None
        finally:
            if self._reports.pending:
                self._make_reports()

    def _make_reports(self) -> None:
        if not self._busy:  # otherwise, the append around this one does
            self._reports.make()

    def has(self, event: Event) -> bool:
        """Whether this event was accepted: it is in the file, or waits to be written."""
        if event.seq:
            return True
        with self._lock:
            held = (*self._waiting, *(one for one, _ in self._log.unsettled))
            return any(one is event for one in held)

    def close(self) -> None:
        """Write buffered events if that is possible, then close. A second call does nothing."""
        if self._cipher is not None:
            with suppress(CodecFailedError):
                self._encrypt_waiting(self._cipher)
        try:
            with self._lock:
                if self._busy:  # by a signal handler: the append around it needs the file
                    return
                self._busy, self._retry_at_ns = True, 0
                try:
                    self._write_rest()
                finally:
                    self._busy, self._log.failure = False, None
                    self._log.close()
        finally:
            self._make_reports()

    def _write_rest(self) -> None:
        log = self._log
        log.fail_if_unhandled()
        if log.ready and log.has_lost_name():
            log.fail(DisplacedError())
        if log.failure is None:
            if self._waiting and log.ready:  # appended just before an interrupt
                self._write_gap()
        elif not self._try_last_recovery():
            lost = len(log.unsettled) + len(self._waiting) + self._dropped
            what = "the whole log is" if log.has_lost_name() else f"up to {lost} events are"
            self._reports.error("%s lost: %s", what, log.failure)
            self._reports.dropped(lost - self._dropped)  # the dropped ones were reported

    def reopen(self, lease: Lease | None = None) -> bool:
        """Open the log again after :meth:`close`, to continue it where it was left.

        The log is not read: only holders of the lease write to it, and its size and its last line
        show whether one did.

        :param lease: the caller's new one
        :returns: ``False``: it is not as this writer left it; it has to be opened anew
        :raises OSError: the file is gone, or cannot be opened or read
        """
        with self._lock:
            return self._log.reopen_unchanged(lease)

    def detach(self) -> None:
        """Close the file in a forked child without writing: the log belongs to the parent."""
        self._lock = threading.RLock()  # a thread of the parent may hold the old one
        self._busy, self._encrypting, self._waiting, self._dropped = False, False, deque(), 0
        self._reports.clear()
        self._log.detach()

    # -- encryption; called without the lock, which the codec may wait for in another thread

    def _encrypt(self, cipher: Cipher, event: Event) -> None:
        """Encrypt an event, after those that wait for that, as far as the codec works.

        While the log fails, that is left to the next attempt to recover it.
        """
        if not self._log.ready and clock.monotonic_ns() < self._retry_at_ns:
            return
        with suppress(CodecFailedError):  # the event waits, and is encrypted by a later append
            if self._waiting and not self._encrypting:  # by one thread alone: it may be many calls
                self._encrypting = True
                try:
                    self._encrypt_waiting(cipher)
                finally:
                    self._encrypting = False
            self._encrypt_one(cipher, event)

    def _encrypt_waiting(self, cipher: Cipher) -> None:
        with self._lock:
            waiting = list(self._waiting)
        for event in waiting:
            self._encrypt_one(cipher, event)

    def _encrypt_one(self, cipher: Cipher, event: Event) -> None:
        try:
            hidden = cipher.hide(event)
        except CodecFailedError:
            raise
        except Exception:  # noqa: BLE001 - it has no form as JSON, which making its line finds too
            return
        if hidden is not None:
            with self._lock:
                hidden.put(event)

    # -- one event; called with the lock held

    def _wait_for_codec(self, error: CodecFailedError, event: Event) -> None:
        """Keep an event that is not encrypted; the file is as it was."""
        self._log.fail(error)
        self._retry_at_ns = clock.monotonic_ns() + _RETRY_NS
        if not event.seq and not self._stop:
            self._buffer(event)

    def _try_reopen(self, event: Event) -> bool:
        """Reopen a log that failed; return whether it can be written again."""
        log = self._log
        log.fail_if_unhandled()
        if log.taken_by is not None:
            raise LeaseLostError(self.path, *log.taken_by)
        if log.failure is None:
            if event.seq:  # another thread was faster, and has closed the log since
                return True
            raise LogWriteError(self.path, "the log is closed")
        return self._try_recover()

    def _recover_from_write_error(
        self, error: BaseException, event: Event, *, settle: bool
    ) -> bool:
        """Handle a write error; return whether the log holds the event after all."""
        if isinstance(error, CodecFailedError):
            self._wait_for_codec(error, event)
            return bool(event.seq)  # it was another event, appended in the middle of this one
        if isinstance(error, InvalidEventError):
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
        self._log.fail(error)
        return self._try_recover()  # it found the event in the file, or wrote it again

    def _complete(self, *, settle: bool) -> None:
        """Do what is left of a write that an interrupt cut short."""
        if not self._log.ready:  # it was opening a log that failed: that begins anew
            self._retry_at_ns = 0
            return
        try:
            self._log.complete(settle=settle)
            self._write_waiting()
        except BaseException as error:
            self._log.fail(error)
            if not isinstance(error, OSError):  # another interrupt
                raise

    def _buffer(self, event: Event) -> None:
        if len(self._waiting) < self._limit:
            self._waiting.append(event)
        else:
            self._count_dropped()

    def _drop(self, error: Exception) -> None:
        self._count_dropped()
        self._reports.error("an event was dropped: %s", str(error))

    def _count_dropped(self) -> None:
        self._dropped += 1
        self._reports.dropped(1)

    def _leave(self, event: Event) -> None:
        """Leave an event to a later append, or raise because it must not wait."""
        if self._stop:
            self._discard(event)
            raise LogWriteError(self.path, str(self._log.failure))

    def _discard(self, event: Event) -> None:
        """Do not write an event later for which :meth:`append` raises."""
        event.seq = 0
        self._log.unsettled = [one for one in self._log.unsettled if one[0] is not event]
        self._waiting = deque(one for one in self._waiting if one is not event)

    # -- recovery; called with the lock held

    def _try_recover(self) -> bool:
        """Open the log again and write what is missing in it; return whether that succeeded."""
        now = clock.monotonic_ns()
        if now < self._retry_at_ns:
            return False
        self._retry_at_ns = now + _RETRY_NS
        log = self._log
        try:
            missing = log.reopen(self._execution, accept_foreign=not self._stop)
            for event in missing:
                event.seq = 0
            self._waiting, log.unsettled = deque((*missing, *self._waiting)), []
            self._write_waiting()
            log.work_again(self._execution)
        except LeaseLostError:
            raise
        except (OSError, LogError) as error:
            log.fail(error)
            return False
        self._retry_at_ns = 0
        return True

    def _try_last_recovery(self) -> bool:
        """Write what waits; where another file has the log's name, to a new file beside it."""
        log = self._log
        with suppress(LeaseLostError):
            if log.taken_by is None and self._try_recover():
                return True
        if not log.has_lost_name():
            return False
        name = log.move_beside()
        self._retry_at_ns = 0
        saved = self._try_recover()
        if saved:
            self._reports.error("another file has this name: the log was saved as %s", name)
        return saved

    def _write_waiting(self) -> None:
        while self._waiting:
            event = self._waiting[0]
            try:
                if not event.seq:  # otherwise it was appended twice
                    event.late = True
                    self._log.write(event, settle=len(self._waiting) == 1)
            except InvalidEventError as error:
                self._drop(error)
            except BaseException:
                if event.seq:  # it is among the unsettled ones
                    self._waiting.popleft()
                raise
            self._waiting.popleft()
        if self._dropped:
            counted = {"dropped": self._dropped}
            gap = self._log.make_event("log_gap", self._execution, attributes=counted)
            self._log.write(gap, settle=True)
            self._dropped = 0

    def _write_gap(self) -> None:
        try:
            self._write_waiting()
        except OSError as error:
            self._log.fail(error)


# A child that kept writing to its parent's descriptor would break the chain.
_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def _detach_all() -> None:
    for writer in list(_writers):
        writer.detach()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_all)
