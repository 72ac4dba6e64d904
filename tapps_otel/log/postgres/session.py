"""A run in a store that this process writes: its lines go there as they are written locally.

Lines are on their way at once, and are waited for together with the sync of the local file. What
the store has is not kept in mind: after any failure or doubt the session ends, a new one asks for
the last line in the store, and the rest is sent from the local file.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psycopg

from tapps_otel import clock
from tapps_otel.errors import LogError, StoreError
from tapps_otel.log import files as _files
from tapps_otel.log.home import Head, TakenOverError, UnconfirmedError, blobs_named_in
from tapps_otel.log.mirroring import blobs_beside, chunks, complete
from tapps_otel.log.postgres.holding import Hold
from tapps_otel.log.postgres.pipeline import Pipeline
from tapps_otel.log.postgres.stored_log import StoredLog
from tapps_otel.log.postgres.watching import forget, watch
from tapps_otel.log.postgres.writes import STATEMENTS, blobs_of, send_line, values_of
from tapps_otel.log.tail import head_of

if TYPE_CHECKING:
    from pathlib import Path

    from tapps_otel.log.event import Event
    from tapps_otel.log.postgres.connecting import Connection, Database

__all__ = ["PostgresSession"]

_log = logging.getLogger("tapps_otel")
_RETRY_S: Final = 0.25  # between two attempts to connect
_POLL_S: Final = 0.5  # after which a wait looks whether its time is over
_RELEASE_S: Final = 5.0
_LATE_S: Final = 2.0  # to wait, once a wait has ended without success
_MOST_UNANSWERED: Final = 8 << 20  # bytes in memory, after which answers are waited for
_NO_ANSWER: Final = "it does not answer"


class PostgresSession:
    """The right to write one log in a store, until it is released or lost.

    :param wait_s: how long to wait for a store that cannot be reached
    :raises RunBusyError: another process has it
    :raises StoreError: the store cannot be reached or used
    """

    def __init__(self, database: Database, name: str, wait_s: float) -> None:
        self._database, self._name, self._wait_ns = database, name, int(wait_s * 1e9)
        # Of the connection: whoever waits holds it. Of the pipeline: mostly nothing waits there.
        self._connecting, self._lock = threading.RLock(), threading.Lock()
        self._hold = Hold(name)
        self._pipeline: Pipeline | None = None
        self._path: Path | None = None
        self._written = 0  # seq of the last line in the local file
        self._sent = 0  # seq of the last line that was sent by the pipeline
        self._is_safe = False  # the commit of that line is waited for, also without `safe`
        self._asked = self._confirmed = 0  # seqs: what the store was asked for, and has confirmed
        self._ticket = 0  # number of the transaction that is waited for
        self._is_late = False  # a wait has ended without success, or was interrupted
        self._lost: TakenOverError | None = None
        self._commit_mode = b"on"
        connection = database.open()
        self._connection: Connection | None = connection
        try:
            with database.naming_errors():
                database.refuse_pooler(connection)
                self._set_up(connection)
                self._hold.take(connection)
        except BaseException:
            connection.close()
            raise

    def _set_up(self, connection: Connection) -> None:
        found = connection.execute("SHOW synchronous_commit").fetchone()
        mode = "on" if found is None else str(found[0])
        self._commit_mode = b"on" if mode == "off" else mode.encode()
        # Of lines that nothing waits for, and of the lease: whatever is waited for comes after it.
        connection.execute("SET synchronous_commit = off")

    # -- the local file

    def prepare(self, path: Path) -> int:
        """Let the local file have all lines that the store has; return the seq of the last one."""
        with self._connecting:
            return self._prepare(path)

    def _prepare(self, path: Path) -> int:
        if self._pipeline is not None:  # what is on its way must have arrived, or been lost
            self._end_session()
        try:
            stored = self._stored()
        except TakenOverError as lost:
            self._lost = lost
            raise
        except (TimeoutError, psycopg.Error, StoreError) as error:
            self._end_session()
            raise self._unconfirmed(error) from None
        with self._database.naming_errors():
            complete(path, stored)
        return stored.head.seq

    def catch_up(self, path: Path) -> None:
        """Send the lines that only the local file has, and keep it to look for others."""
        with self._connecting, self._database.naming_errors():
            self._path = path
            self._catch_up(path, self._stored())
        watch(self)

    def _catch_up(self, path: Path, stored: StoredLog) -> None:
        seq, sha = head_of(path, self._name)
        if stored.head == Head(seq, sha.encode()):
            with self._lock:
                self._begin(seq)
            return
        self._send_missing(stored)
        self.begin(seq)
        self.wait()

    def has_all(self, head: Head) -> bool:
        """Return whether this is the last line that the store has."""
        with self._connecting, self._database.naming_errors():
            return self._stored().head == head

    def _stored(self) -> StoredLog:
        """Look at the log in the store, by a connection that is free for that."""
        if self._connection is None:
            self._connection = self._connect_again()
        return StoredLog(self._database.shown, self._name, self._connection, self._hold.run)

    def _send_missing(self, stored: StoredLog) -> None:
        """Begin to write: send what the store lacks of the local file.

        :raises TakenOverError: the store has lines that the file has not
        """
        if self._path is None:
            return
        is_missing = not stored.head.seq
        with self._lock:
            pipeline = self._begin(stored.head.seq)
            for chunk in chunks(self._path, self._name):
                if is_missing:
                    blobs = blobs_named_in(chunk.data)
                    self._send_line(pipeline, chunk.head.seq, chunk.data, blobs)
                    pipeline.commit()
                    if pipeline.unanswered > _MOST_UNANSWERED:
                        self._await_all(pipeline)
                is_missing = is_missing or chunk.head == stored.head
            if not is_missing:
                raise TakenOverError((None, None))

    def _await_all(self, pipeline: Pipeline) -> None:
        """Wait until all that was sent is answered; the caller holds the lock, so others wait too.

        Each wait has the whole time: what is sent may be large, and the network slow.

        :raises TimeoutError: it is not
        """
        until = clock.monotonic_ns() + self._wait_ns
        while pipeline.unanswered:
            if clock.monotonic_ns() >= until:
                raise TimeoutError(_NO_ANSWER)
            pipeline.poll(_POLL_S)
            pipeline.read()

    def _begin(self, seq: int) -> Pipeline:
        """Begin to write after the last line in the store; the caller holds the lock."""
        if self._connection is None:
            raise ConnectionError("the connection has ended")
        self._pipeline, self._sent = Pipeline(self._connection, STATEMENTS), seq
        self._is_safe = False
        return self._pipeline

    # -- lines

    def send(self, event: Event, line: bytes, *, due: bool) -> None:
        """Send a line that was written to the local file. It neither waits nor raises."""
        with self._lock:
            pipeline, seq = self._pipeline, event.seq
            self._written = seq
            if pipeline is None or seq <= self._sent:
                return
            try:
                mode = self._commit_mode if due else None
                self._send_line(pipeline, seq, line, blobs_of(event), commit_mode=mode)
                if not due:
                    pipeline.commit()
            except Exception:  # noqa: BLE001 - of the connection, a blob; `wait` does it again
                self._drop()
            except BaseException:
                self._drop()
                raise

    def _send_line(
        self,
        pipeline: Pipeline,
        seq: int,
        line: bytes,
        blobs: list[str],
        commit_mode: bytes | None = None,
    ) -> None:
        path = self._path
        values = () if path is None or not blobs else values_of(blobs_beside(path), blobs)
        send_line(pipeline, self._hold, seq, line, values, commit_mode=commit_mode)
        self._sent, self._is_safe = seq, commit_mode is not None

    def begin(self, seq: int) -> None:
        """Ask the store to make all lines up to this one as safe as promised."""
        with self._lock:
            pipeline = self._pipeline
            if pipeline is None:
                return
            try:
                if self._sent < seq:  # an interrupt came between the file and the store
                    self._drop()
                    return
                if not self._is_safe:
                    pipeline.send(b"safe", [self._commit_mode])
                pipeline.commit()
                self._ticket, self._asked = pipeline.committed, self._sent
            except Exception:  # noqa: BLE001 - as in `send`
                self._drop()
            except BaseException:
                self._drop()
                raise

    def keep(self) -> None:
        """Find out whether the run is this process's; waits only if the connection has ended."""
        self._read_answers()
        pipeline = self._pipeline
        if pipeline is None or pipeline.unanswered > _MOST_UNANSWERED:
            self.begin(self._sent)
            self.wait()

    def look(self) -> None:
        """Connect again, in the middle of a step, if the connection has ended."""
        if not self._connecting.acquire(blocking=False):
            return  # another thread waits, and will find that out
        try:
            has_run = self._path is not None and self._lost is None and not self._is_late
            if has_run:
                self._read_answers()
                if self._pipeline is None:
                    self._join_again()
        except (psycopg.Error, LogError, OSError):  # with the next look, or the next event
            self._end_session()
        finally:
            self._connecting.release()

    def _read_answers(self) -> None:
        """Read what has been answered, which shows whether the connection has ended."""
        with self._lock:
            try:
                if self._pipeline is not None:
                    self._pipeline.read()
            except Exception:  # noqa: BLE001 - as in `send`
                self._drop()
            except BaseException:
                self._drop()
                raise

    def wait(self) -> None:
        """Wait until what :meth:`begin` asked for is done."""
        try:
            with self._connecting:
                self._wait()
        except OSError:
            raise
        except BaseException:  # an interrupt: what comes now must not take long
            self._is_late = True
            raise

    def _wait(self) -> None:
        if self._lost is not None:
            raise self._lost
        wait_ns = min(self._wait_ns, int(_LATE_S * 1e9)) if self._is_late else self._wait_ns
        until = clock.monotonic_ns() + wait_ns
        while True:
            try:
                if self._pipeline is None:
                    self._join_again()
                self._await_answer(until)
            except TakenOverError as lost:
                self._lost = lost
                self._end_session()
                raise
            except (psycopg.Error, StoreError, OSError) as error:
                self._end_session()
                if clock.monotonic_ns() >= until:
                    self._is_late = True
                    raise self._unconfirmed(error) from None
                clock.sleep(_RETRY_S)
            else:
                self._is_late = False
                return

    def _await_answer(self, until: int) -> None:
        while True:
            with self._lock:
                pipeline = self._pipeline
                if pipeline is None:
                    raise ConnectionError("the connection has ended")
                try:
                    pipeline.read()
                except BaseException:
                    self._drop()
                    raise
                if pipeline.answered >= self._ticket:
                    self._confirmed = self._asked
                    return
            if clock.monotonic_ns() >= until:
                raise TimeoutError(_NO_ANSWER)
            pipeline.poll(_POLL_S)

    def _unconfirmed(self, error: Exception) -> UnconfirmedError:
        return UnconfirmedError(self._database.shown, self._database.explain(error))

    # -- sessions

    def _join_again(self) -> None:
        self._send_missing(self._stored())
        self.begin(self._sent)

    def _connect_again(self) -> Connection:
        connection = self._database.open()
        try:
            self._set_up(connection)
            self._hold.take_again(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _end_session(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        """End the session; the caller holds the lock."""
        connection, self._pipeline, self._connection = self._connection, None, None
        if connection is not None:
            connection.close()

    def release(self) -> None:
        """Give the run free, with all lines in the store; a second call does nothing."""
        forget(self)
        with self._connecting:
            self._release()

    def _release(self) -> None:
        if self._is_incomplete():
            self._wait_ns = min(self._wait_ns, int(_RELEASE_S * 1e9))
            self.begin(self._sent)
            try:
                self.wait()
            except OSError as error:
                _log.error(
                    "run %r: its last lines may be in the local log alone: %s", self._name, error
                )
        self._path = None
        with suppress(psycopg.Error):
            self._unlock()
        self._end_session()

    def _is_incomplete(self) -> bool:
        """Whether the store may lack lines, which this process can still send."""
        can_wait = self._pipeline is not None or not self._is_late
        has_run = self._path is not None and self._lost is None
        return has_run and can_wait and self._written > self._confirmed

    def _unlock(self) -> None:
        if self._connection is not None:
            if self._pipeline is not None:
                self._pipeline.end()
            self._hold.release(self._connection)

    def detach(self) -> None:
        """Forget it in a forked child: it is the parent's.

        The child closes its copy of the socket, so that the session ends with the parent, and
        sends nothing by it.
        """
        self._connecting, self._lock = threading.RLock(), threading.Lock()
        self._path = None
        if self._connection is not None:
            _of_parents.append(self._connection)
            with suppress(psycopg.Error):
                _files.system().close(self._connection.pgconn.socket)
        self._connection = self._pipeline = None


_of_parents: Final[list[Connection]] = []  # dropped ones would be closed properly
