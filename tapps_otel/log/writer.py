"""Writes a log: append, sync, recover. The only writer holds the lease.

What cannot be written waits in memory and is written later, marked ``late``; what is lost is
counted in the log (``log_gap``).

Ctrl-C, a ``RecursionError`` or the like may come between any two instructions, and a signal handler
or a finalizer may append in the middle of an append. Once :meth:`LogWriter.append` has put an event
on a list of its own, the event is the log's: what was interrupted is completed, and what was
appended in the middle is written by the append around it. Nothing is reported with the lock held.

Threads and tasks share syncs: see :mod:`~tapps_otel.log.group_sync`.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from tapps_otel.errors import LogError, LogWriteError
from tapps_otel.log.backlog import Backlog
from tapps_otel.log.encrypted import CodecFailedError
from tapps_otel.log.encrypting import Encrypting
from tapps_otel.log.event import EVENT_TYPES, SYNCED, Event
from tapps_otel.log.group_sync import GroupSync, no_turn
from tapps_otel.log.log_file import DisplacedError
from tapps_otel.log.open_log import InvalidEventError, OpenLog
from tapps_otel.log.reopening import Reopening
from tapps_otel.log.reports import Reports

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from tapps_otel.log.cipher import Cipher
    from tapps_otel.log.group_sync import Turn
    from tapps_otel.log.home import Session
    from tapps_otel.log.lease import Lease
    from tapps_otel.log.reports import LogObserver
    from tapps_otel.settings_types import Durability

__all__ = ["LogWriter"]


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
    :param home: where the lines go, too
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
        home: Session | None = None,
    ) -> None:
        self.path = path
        self._always, self._stop = durability == "always", stop
        self._due = EVENT_TYPES if self._always else SYNCED
        self._reports = Reports(path, observer)
        self._log = OpenLog(
            path,
            workflow_id,
            boot_id=boot_id,
            synced=self._due if durability != "os" else frozenset(),
            lease=lease,
            reports=self._reports,
            cipher=cipher,
            home=home,
        )
        self._group = GroupSync(self._log)
        self._backlog = Backlog(self._log, limit, self._reports)
        self._reopening = Reopening(path, self._log, self._backlog, self._reports, stop=stop)
        self._encrypting = (
            None if cipher is None else Encrypting(cipher, self._group, self._backlog)
        )
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
    def is_synced(self) -> bool:
        """Whether anything is synced."""
        return self._log.syncs

    @property
    def syncs_each(self) -> bool:
        """Whether each event is synced, whatever its type."""
        return self._log.syncs and self._always

    @property
    def failure(self) -> str | None:
        """Why events are buffered in memory; ``None`` while the log can be written."""
        return self._log.failure

    def append(self, event: Event, *, sync: bool = False, wait: bool = True) -> int | None:
        """Append one event, and sync as the durability requires.

        An event that was appended before is not written again: after an interrupt, it can be
        appended once more to be sure.

        :param sync: sync with this event whatever its type (except with durability ``os``)
        :param wait: ``False``: write it, and return before it is synced; see :meth:`settle`
        :returns: its seq, once it is as safe as the durability promises; ``None`` if the log
            cannot be written, or is in the middle of an append in this thread, and the event is
            buffered in memory
        :raises LogWriteError: the log cannot be written and ``stop`` is set; the file may hold the
            event nevertheless
        :raises LeaseLostError: another process has taken the run over, from now on each time
        """
        is_due = sync or event.event_type in self._due
        is_awaited = self._log.syncs and is_due and wait
        if self._encrypting is not None:
            self._encrypt(self._encrypting, event)
        try:
            turn = self._write(event, is_due, is_awaited)
            if turn is None:
                return None
            return self._await_sync(event, turn) if is_awaited else event.seq
        except LogError:
            raise
        except BaseException:  # what it interrupted is completed first
            if is_awaited and event.seq:
                with suppress(LogError):
                    self._settle(event)
            raise
        finally:
            if self._reports.pending:
                self._make_reports()

    def _write(self, event: Event, is_due: bool, is_awaited: bool) -> Turn | None:  # noqa: FBT001 - for speed, as in OpenLog
        """Write an event, which need not be synced then; ``None``: it is not in the file.

        :param is_awaited: the turn is that of a sync of the event
        """
        log, group, backlog = self._log, self._group, self._backlog
        if log.syncer and log.is_syncing_here():
            backlog.add(event)
            return None
        with group.lock:
            if group.busy:
                backlog.add(event)
                return None
            group.busy = True
            try:
                if not (log.ready or self._reopening.allows(event)):
                    self._give_up(event)
                    backlog.add(event)
                    return None
                if not event.seq:
                    log.write(event, is_due)
                if backlog.events:
                    backlog.write()
                return group.turn(event) if is_awaited else no_turn
            except BaseException as error:  # noqa: BLE001 - also Ctrl-C in the middle of a write
                if self._recover_from_write_error(error, event):
                    return no_turn
                self._give_up(event)
                return None
            finally:
                group.busy = False

    def settle(self, event: Event) -> int | None:
        """Wait until an event that was appended is as safe as promised.

        It returns and raises as :meth:`append` does.
        """
        try:
            return self._settle(event)
        finally:
            if self._reports.pending:
                self._make_reports()

    def append_soon(
        self, event: Event, loop: asyncio.AbstractEventLoop
    ) -> asyncio.Future[None] | None:
        """Write an event that ends something, without waiting for its sync.

        :returns: what a task of ``loop`` awaits before it calls :meth:`settle`, which tells then
            what has become of the event; ``None``: it was not written
        :raises LogWriteError: as :meth:`append` does
        """
        log = self._log
        if not (log.syncs and log.ready):
            return None
        if self.append(event, wait=False) is None:
            decided = loop.create_future()  # it waits in memory or was dropped: nothing to await
            decided.set_result(None)
            return decided
        return self._group.future(event, loop)

    def _settle(self, event: Event) -> int | None:
        if self._log.syncer and self._log.is_syncing_here():  # in a signal handler
            return None
        try:
            return self._await_sync(event)
        except LogError:
            raise
        except BaseException:  # the interrupt is raised once it is settled
            with suppress(LogError):
                self._await_sync(event)
            raise

    def _await_sync(self, event: Event, turn: Turn = no_turn) -> int | None:
        log, group = self._log, self._group
        while True:
            turn()
            if 0 < event.seq <= log.settled and not self._backlog.events:  # as it mostly is
                return event.seq
            with group.lock:
                if group.busy:
                    return None
                group.busy = True
                try:
                    if self._is_decided(event):
                        if 0 < event.seq <= log.settled:
                            return event.seq
                        self._give_up(event)
                        return None
                    turn = group.turn(event)
                except LogError:
                    raise
                except BaseException:
                    self._complete()
                    raise
                finally:
                    group.busy = False

    def _is_decided(self, event: Event) -> bool:
        """Whether an event that is written is settled, or cannot be."""
        log = self._log
        if self._backlog.events and log.ready:  # appended in the middle of a sync
            self._backlog.try_write()
        if not (log.ready or self._reopening.allows(event)):
            return True
        return event.seq <= log.settled or not log.ready

    def _give_up(self, event: Event) -> None:
        if self._stop:
            self._backlog.discard(event)
            raise LogWriteError(self.path, self._log.failure or "the log is closed")

    def _make_reports(self) -> None:
        # In the middle of an append or of a sync, the append around this one makes them.
        if not (self._group.busy or self._log.is_syncing_here()):
            self._reports.make()

    def has(self, event: Event) -> bool:
        """Whether this event was accepted: it is in the file, or waits to be written."""
        if event.seq:
            return True
        with self._group.held():
            held = (*self._backlog.events, *(one for one, _ in self._log.unsettled))
            return any(one is event for one in held)

    def close(self) -> None:
        """Write buffered events if that is possible, then close. A second call does nothing."""
        log, group = self._log, self._group
        if log.is_syncing_here():  # by a signal handler: the append around it needs the file
            return
        if self._encrypting is not None:
            self._encrypting.encrypt_waiting()
        try:
            with group.lock:
                if group.busy:  # also by one
                    return
                group.busy = True
                try:
                    self._reopening.need_not_wait()
                    self._write_rest()
                finally:
                    try:
                        log.failure = None
                        log.close()
                        group.open_gates()
                    finally:  # last: a signal handler that appends must not wait for a sync here
                        group.busy = False
            group.stop()
        finally:
            self._make_reports()

    def _write_rest(self) -> None:
        log, backlog = self._log, self._backlog
        if log.syncs and log.due > log.settled and log.begin_sync():
            log.sync()
        log.fail_if_unhandled()
        if log.ready and log.has_lost_name():
            log.fail(DisplacedError())
        if log.failure is None:
            if backlog.events and log.ready:  # appended just before an interrupt
                backlog.try_write()
        elif not self._reopening.recover_last():
            self._report_lost()

    def _report_lost(self) -> None:
        log, backlog = self._log, self._backlog
        in_file = len(log.unsettled) if log.is_in_file else 0
        if in_file:
            self._reports.error("%d events may be in this log alone: %s", in_file, log.failure)
        lost = len(log.unsettled) - in_file + len(backlog.events) + backlog.dropped
        if lost or not in_file:
            what = "the whole log is" if log.has_lost_name() else f"up to {lost} events are"
            self._reports.error("%s lost: %s", what, log.failure)
            self._reports.dropped(lost - backlog.dropped)  # the dropped ones were reported

    def reopen(self, lease: Lease | None = None) -> bool:
        """Open the log again after :meth:`close`, to continue it where it was left.

        The log is not read: only holders of the lease write to it, and its size and its last line
        show whether one did.

        :param lease: the caller's new one
        :returns: ``False``: it is not as this writer left it; it has to be opened anew
        :raises OSError: the file is gone, or cannot be opened or read
        """
        with self._group.lock:
            return self._log.reopen_unchanged(lease)

    def detach(self) -> None:
        """Close the file in a forked child without writing: the log belongs to the parent."""
        self._group.detach()  # a thread of the parent may hold the old lock
        if self._encrypting is not None:
            self._encrypting.detach()
        self._backlog.clear()
        self._reports.clear()
        self._log.detach()

    def _encrypt(self, encrypting: Encrypting, event: Event) -> None:
        # While the log fails, that is left to the next attempt to recover it.
        if self._log.ready or not self._reopening.waits:
            encrypting.encrypt(event)

    # -- one event; called with the lock held

    def _wait_for_codec(self, error: CodecFailedError, event: Event) -> None:
        """Keep an event that is not encrypted; the file is as it was."""
        self._log.fail(error)
        self._reopening.wait()
        if not event.seq and not self._stop:
            self._backlog.add(event)

    def _recover_from_write_error(self, error: BaseException, event: Event) -> bool:
        """Handle a write error; return whether the log holds the event after all."""
        self._backlog.execution = event.execution
        if isinstance(error, CodecFailedError):
            self._wait_for_codec(error, event)
            return bool(event.seq)  # it was another event, appended in the middle of this one
        if isinstance(error, InvalidEventError):
            if self._stop:
                raise LogWriteError(self.path, str(error)) from error
            self._backlog.drop(error)
            self._backlog.try_write()
            return False
        if isinstance(error, LogWriteError):  # the log is closed, or the lease is lost
            raise error
        if not isinstance(error, OSError):
            self._complete()
            raise error
        self._log.fail(error)
        return self._reopening.recover()  # it found the event in the file, or wrote it again

    def _complete(self) -> None:
        """Do what is left of a write that an interrupt cut short."""
        if not self._log.ready:  # it was opening a log that failed: that begins anew
            self._reopening.need_not_wait()
            return
        try:
            self._log.complete()
            self._backlog.write()
        except BaseException as error:
            self._log.fail(error)
            if not isinstance(error, OSError):  # another interrupt
                raise


# A child that kept writing to its parent's descriptor would break the chain.
_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def _detach_all() -> None:
    for writer in list(_writers):
        writer.detach()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_all)
