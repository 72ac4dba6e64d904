"""A log that is open for writing: its file, the end of its hash chain, and why it fails if it does.

After a failed write or sync it is unknown whether the file holds the event (after a failed sync
the page cache shows it although the disk has lost it). Before anything else is written, the file is
therefore opened again, evicted from the cache and checked. The kernel reports what a sync lost to
one caller only, so that one sync runs at a time, and notes its failure before the next one begins.

With each sync, the names of the log and of the lease are looked at. A log that was deleted, renamed
or replaced (an agent that cleans its working tree) is whole in the open file: it is copied to its
name, if that is free. Until that succeeds, the log fails as on a failing disk. If another process
has taken the lease, writing stops.

A log that has a home gives it each line once that is in the file, and a sync waits for both.
"""

from __future__ import annotations

import threading
from collections import deque
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from tapps_otel import clock
from tapps_otel.errors import LeaseLostError, RunBusyError
from tapps_otel.log import files as _files
from tapps_otel.log.encrypted import CodecFailedError
from tapps_otel.log.event import MAX_LINE, Event, encode
from tapps_otel.log.home import Head, TakenOverError, UnconfirmedError
from tapps_otel.log.log_file import DisplacedError, LogFile
from tapps_otel.log.recovery import Recovery, State, log_event

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tapps_otel.log.cipher import Cipher
    from tapps_otel.log.home import Holder, Session
    from tapps_otel.log.lease import Lease
    from tapps_otel.log.reports import Reports

__all__ = ["RESTORED", "InvalidEventError", "OpenLog"]

RESTORED: Final = "tapps.log_restored"  # name of the annotation of a log that was put back
# Where nothing is synced, looking at the names would be a tenth of a step: it is done this often.
_LOOK_NS: Final = 10_000_000
# Events are kept in memory until they are settled. A run that writes no event of a synced type for
# long is synced after this many.
_MAX_UNSETTLED: Final = 1024
_LATE_MARK: Final = 32  # bytes: a line grows by `late` and `unsynced` when it is written again


class _ForeignWriterError(OSError):
    """The end of the file is not where this process left it."""

    def __str__(self) -> str:
        return "another process wrote to the log without the lease"


class InvalidEventError(Exception):
    """The event cannot be encoded as a line; the log itself is intact."""


# Events with values of users, which may be nested too deep. Elsewhere no stack is left.
_BY_USERS: Final = frozenset({"annotation", "span", "span_start"})


def _is_invalid(event: Event, error: BaseException) -> bool:
    """Whether an event could not be encoded because of what it holds."""
    if isinstance(error, RecursionError):
        return event.event_type in _BY_USERS
    return isinstance(error, Exception) and not isinstance(error, (CodecFailedError, MemoryError))


class OpenLog:
    """The log of one run, open for writing. Its caller holds a lock.

    :param workflow_id: the name of the log
    :param boot_id: id of the current boot, which tells the holes of a power cut from other damage
    :param synced: types of the events that are synced; none: the log is not synced at all
    :param lease: of the run, to look whether it still has its name
    :param reports: gets what is to be reported
    :param cipher: makes lines of events that are encrypted
    :param home: where the lines go, too
    :ivar syncs: whether it is synced at all
    :ivar ready: it can be written to; a log that fails is open, and not ready
    :ivar seq: of its last event, 0 if there is none
    :ivar sha: of its last event, empty if there is none
    :ivar size: of the file in bytes
    :ivar settled: seq up to which all of it is as safe as promised
    :ivar due: seq of the last event that its writer waits for until it is
    :ivar unsettled: events that are written, but were not yet settled when that was last looked at,
        each with its sha: after a failure the file may or may not hold them
    :ivar syncing: held while a sync runs, also by threads that do not hold the caller's lock
    :ivar syncer: the thread that runs it, 0 if none does
    :ivar failure: why it cannot be written; ``None`` while it can
    :ivar is_in_file: the failure is that of the home: what is written is in the file
    :ivar taken_by: which process has the lease as ``(pid, host)``; ``None``: this one
    """

    def __init__(
        self,
        path: Path,
        workflow_id: str,
        *,
        boot_id: str | None,
        synced: frozenset[str],
        lease: Lease | None,
        reports: Reports,
        cipher: Cipher | None,
        home: Session | None,
    ) -> None:
        self._files, self._encode = _files.system(), encode if cipher is None else cipher.encode
        self._path, self.syncs, self._synced = path, bool(synced), synced
        self._lease, self._reports, self._home = lease, reports, home
        self._file = LogFile(self._files, path)
        self._recovery = Recovery(self._files, path, workflow_id, boot_id)
        self._event_id = workflow_id  # in events
        self._look_at_ns = 0
        self.ready = False
        self.seq, self.sha, self.size, self.settled, self.due = 0, b"", 0, 0, 0
        self.syncing, self.syncer = threading.Lock(), 0
        self._checked = 0  # seq up to which the next sync covers this file
        self.unsettled: deque[tuple[Event, bytes]] = deque()
        self.failure: str | None = None
        self.is_in_file = False
        self.taken_by: Holder | None = None
        self._unhandled: OSError | None = None  # of a write: `fail` is not called yet
        self._foreign = False  # the failure: another process wrote to the file
        self._acknowledged = 0  # seq up to which the log was settled when it failed

    def open(self, on_event: Callable[[Event], None], *, accept_damage: bool) -> None:
        """Open or create the log, check it, and seal its torn end."""
        try:
            stored = 0 if self._home is None else self._home.prepare(self._path)
            self._file.open()
            self._take_state(
                self._recovery.run(
                    self._file.descriptor,
                    on_event=on_event,
                    accept_damage=accept_damage,
                    stored=stored,
                )
            )
            if self._home is not None:
                self._home.catch_up(self._path)
        except TakenOverError as error:
            self.close()
            raise LeaseLostError(self._path, *error.holder) from error
        except BaseException:
            self.close()
            raise
        self.settled, self.ready = self.seq, True

    def _take_state(self, state: State) -> None:
        self.seq, self.sha, self.size = state.seq, state.sha, state.end
        self._event_id = state.workflow_id

    def make_event(self, event_type: str, execution: int | None, **fields: Any) -> Event:
        """Make an event that the log has of itself."""
        return log_event(event_type, self._event_id, execution or 1, **fields)

    def close(self) -> None:
        """Close the file, once a sync that runs has ended; a second call does nothing."""
        with self.syncing:
            self.ready = False
            self._file.close()

    def detach(self) -> None:
        """Close the file in a forked child, and forget what is not settled: it is the parent's."""
        self.failure, self._unhandled, self.unsettled = None, None, deque()
        self.syncing, self.syncer = threading.Lock(), 0  # a thread of the parent may hold the old
        if self._home is not None:
            self._home.detach()
        self.close()

    def reopen_unchanged(self, lease: Lease | None) -> bool:
        """Open the log again after :meth:`close`, if it ends as it was left.

        :param lease: the caller's new one
        :raises OSError: it is gone, or cannot be opened or read
        """
        home = None if lease is None else lease.session
        if home is not None and not home.has_all(Head(self.seq, self.sha)):
            return False
        self.ready = self._file.reopen_unchanged(self.size, self.sha)
        self._lease, self._home, self.taken_by = lease, home, None
        if home is not None and self.ready:
            home.catch_up(self._path)
        return self.ready

    # -- writing

    def write(self, event: Event, due: bool) -> None:  # noqa: FBT001 - positional for speed: it is called for every event
        """Write an event.

        :param due: its writer waits until it is settled; where nothing is synced, it is at once
        :raises InvalidEventError: it cannot be encoded
        :raises CodecFailedError: it is not encrypted yet; the log itself is intact
        :raises OSError: the file may hold it nevertheless
        """
        seq, unsettled, encode = self.seq + 1, self.unsettled, self._encode
        if self.syncs:
            unsynced = self.seq - self.settled
            if not unsynced:
                unsettled.clear()
            if due:
                self.due, event.unsynced = seq, unsynced or UNSET
        event.seq = seq  # no call between it and the try block, after which Ctrl-C could come
        try:
            line, sha = encode(event, self.sha)
            length = len(line)
            if length > MAX_LINE and length > MAX_LINE + (event.late is True and _LATE_MARK):
                raise ValueError(f"a line of {length} bytes, of at most {MAX_LINE}")
        except BaseException as error:
            event.seq = 0
            if _is_invalid(event, error):
                raise InvalidEventError(f"event {event.event_type}: {error}") from error
            raise
        unsettled.append((event, sha))  # from here on, it is the log's
        try:
            self._files.write(self._file.descriptor, line)
            self.seq, self.sha = seq, sha
            self.size += length
            if self._home is not None:
                self._home.send(event, line, due=due and self.syncs)
            if due:
                if not self.syncs:
                    self.settle()
            elif len(unsettled) >= _MAX_UNSETTLED:
                self._bound_unsettled()
        except OSError as error:  # noted at once: an interrupt may come before `fail` is called
            self.ready, self._unhandled = False, error
            raise

    def settle(self) -> None:
        """Make what is written as safe as promised.

        :raises OSError: it cannot be synced, or another process wrote to it or took its name
        :raises LeaseLostError: another process has taken the lease
        """
        try:
            self._check_position()
            if self.syncs:
                self._look()
                with self.syncing:
                    if self._unhandled is not None:  # of the sync that ran until now
                        raise self._unhandled
                    self._sync(self.seq)
                    self.settled = self.seq
            else:
                now = clock.monotonic_ns()
                if now >= self._look_at_ns:
                    self._look()
                    self._look_at_ns = now + _LOOK_NS
                if self._home is not None:
                    self._home.keep()
                self.settled = self.seq
        except OSError as error:  # noted at once: an interrupt may come before `fail` is called
            self.ready, self._unhandled = False, error
            raise
        self.unsettled.clear()

    def _check_position(self) -> None:
        if self._files.position(self._file.descriptor) != self.size:
            raise _ForeignWriterError

    def _bound_unsettled(self) -> None:
        self.forget_settled()
        if len(self.unsettled) >= _MAX_UNSETTLED and not self.syncing.locked():
            self.settle()

    def begin_sync(self) -> bool:
        """Check what is written, so that :meth:`sync` covers it; ``False``: the log has failed."""
        if not self.ready:
            return False
        try:
            self._check_position()
            self._look()
        except OSError as error:
            self.ready, self._unhandled = False, error
            return False
        except LeaseLostError:
            return False
        self._checked = self.seq
        return True

    def sync(self) -> None:
        """Sync what was checked, while others write; what comes of it is noted.

        The caller does not hold its lock. Nothing is done if another sync has covered that
        meanwhile, or if the log has failed since.
        """
        here = get_ident()
        with self.syncing:
            self.syncer = here  # no call before it, after which a signal handler could run
            try:
                seq = self._checked
                if self.settled < seq and self.ready:
                    self._sync(seq)
                    self.settled = seq
            except OSError as error:
                self.ready, self._unhandled = False, error
            finally:
                self.syncer = 0

    def _sync(self, seq: int) -> None:
        """Sync the file; in the home, all lines up to this one, at the same time.

        :raises TakenOverError: another process has taken the run in the home
        :raises OSError: it failed
        """
        home = self._home
        if home is None:
            self._files.sync(self._file.descriptor)
            return
        home.begin(seq)
        self._files.sync(self._file.descriptor)
        home.wait()

    def is_synced(self, event: Event) -> bool:
        """Whether an event of this type is synced."""
        return event.event_type in self._synced

    def is_syncing_here(self) -> bool:
        """Whether this thread is in the middle of :meth:`sync`: an interrupt called it again."""
        return self.syncer == get_ident() and self.syncing.locked()

    def forget_settled(self) -> None:
        """Forget the events that have been settled."""
        unsettled, settled = self.unsettled, self.settled
        while unsettled and unsettled[0][0].seq <= settled:
            unsettled.popleft()

    def _look(self) -> None:
        """Check that the log and its lease still have their names."""
        if self._lease is not None and not self._lease.has_name():
            self._keep_lease(self._lease)
        if self._file.is_displaced():
            raise DisplacedError

    def _keep_lease(self, lease: Lease) -> None:
        """Take the lease again if its file was deleted or replaced.

        :raises LeaseLostError: another process has taken it
        :raises OSError: it cannot be created
        """
        try:
            taken_again = lease.keep()
        except RunBusyError as error:
            raise self._give_up(error) from error
        if taken_again:
            self._reports.warning("the lease was removed or replaced: it was taken again")

    def complete(self) -> None:
        """Do what is left of a write that an interrupt cut short."""
        if self.unsettled:
            self._complete_line(*self.unsettled[-1])

    def _complete_line(self, event: Event, sha: bytes) -> None:
        if sha == self.sha:
            return
        line, again = self._encode(event, self.sha)
        written = self._files.size(self._file.descriptor) - self.size
        if again != sha or not 0 <= written <= len(line):
            raise _ForeignWriterError
        if written < len(line):
            self._files.write(self._file.descriptor, line[written:])
        self.seq, self.sha = event.seq, sha
        self.size += len(line)

    # -- failure and recovery

    def fail(self, error: BaseException) -> None:
        """Note that it cannot be written, and why."""
        if isinstance(error, TakenOverError):
            self.taken_by = error.holder
        self.is_in_file = isinstance(error, (TakenOverError, UnconfirmedError))
        reason = error.problem if isinstance(error, LeaseLostError) else str(error)
        reason = reason or type(error).__name__
        self.forget_settled()
        if self.failure is None:
            self._reports.error("cannot write to the log: %s", reason)
            self._foreign = isinstance(error, _ForeignWriterError)
            if self.syncs or self._foreign:
                self._acknowledged = self.settled
        elif reason != self.failure:
            self._reports.error("still cannot write to the log: %s", reason)
        self.failure, self.ready, self._unhandled = reason, False, None
        self._reports.failed(error)

    def raise_if_taken(self) -> None:
        """Raise if another process has taken the run over.

        :raises LeaseLostError: one has
        """
        if self.taken_by is not None:
            raise LeaseLostError(self._path, *self.taken_by)

    def fail_if_unhandled(self) -> None:
        """Note the failure of a write after which an interrupt came before :meth:`fail`."""
        if self._unhandled is not None:
            self.fail(self._unhandled)

    def _give_up(self, busy: RunBusyError) -> LeaseLostError:
        """Write no more: another process executes the run. Return what to raise."""
        self.taken_by = busy.pid, busy.host
        lost = LeaseLostError(self._path, *self.taken_by)
        self.fail(lost)
        return lost

    def reopen(self, execution: int | None, *, accept_foreign: bool) -> list[Event]:
        """Open the log again after a failure, and check it; return the events that it lacks.

        :param execution: of an event that declares damage
        :param accept_foreign: declare what another process wrote as damage
        :raises LeaseLostError: another process executes the run
        :raises LogError: it is damaged
        :raises OSError: it cannot be opened, read, synced or repaired
        """
        try:
            if self._lease is not None:
                self._keep_lease(self._lease)
            with self.syncing:
                self._file.reopen()
                self._checked = 0
                self._unhandled = None  # of a sync that ran until now
            # It may have lines that the disk has lost.
            stored = 0 if self._home is None else self._home.prepare(self._path)
            state = self._recovery.run(
                self._file.descriptor,
                wanted={sha for _, sha in self.unsettled},
                acknowledged=self._acknowledged,
                stored=stored,
                accept_damage=self._foreign and accept_foreign,
                execution=execution,
            )
        except RunBusyError as error:
            raise self._give_up(error) from error
        self._take_state(state)
        if self._home is not None:
            self._home.catch_up(self._path)
        self._acknowledged = self.seq  # all of this was just read from the disk
        return [event for event, sha in self.unsettled if sha not in state.seen]

    def work_again(self, execution: int | None) -> None:
        """Note that it can be written again: what it lacked is in it, and is synced.

        :raises OSError: it cannot be synced
        """
        if self._file.restored:
            self.write(self.make_event("annotation", execution, name=RESTORED), due=False)
            self._file.restored = False
            self._reports.error("the complete log was restored as %s", self._file.path.name)
        else:
            tail = ": what it wrote is declared as damage" if self._foreign else ""
            self._reports.warning("the log can be written again%s", tail)
        if self.unsettled:  # the last event that waited may have been in it already
            self.settle()
        self.settled, self.failure, self.ready = self.seq, None, True

    def has_lost_name(self) -> bool:
        """Whether events were deleted, renamed or replaced, as far as the disk tells."""
        try:
            return self.seq > 0 and self._file.is_displaced()
        except OSError:
            return False

    def move_beside(self) -> str:
        """Have a free name beside the log's own from now on, which needs no lease; return it."""
        self._file.move_beside()
        self._lease = self._home = None
        return self._file.path.name
