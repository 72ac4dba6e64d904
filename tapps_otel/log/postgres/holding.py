"""Who may write a log in a store: an advisory lock of a session, and a token that fences others.

The lock ends with the session, however that ends. The token is in every statement that writes: a
process whose session has ended, and which does not know that yet, writes nothing once another one
has taken the log. Only a row of ``runs`` tells whose the log is, because a new session of the same
process can take the lock again.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import psycopg

from tapps_otel.errors import RunBusyError
from tapps_otel.log.home import Holder, TakenOverError

if TYPE_CHECKING:
    from tapps_otel.log.postgres.connecting import Connection

__all__ = ["Hold", "holder_of"]

_CLASS: Final = 1952542832  # "tapp": of our locks, whose other key is the id of a log
# A process that was killed a moment ago may still have its session.
_LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '2s'"
_LOCK: Final = "SELECT pg_advisory_lock(%s, %s)"
_UNLOCK: Final = "SELECT pg_advisory_unlock_all()"
_ADD: Final = "INSERT INTO tapps_otel.runs (name) VALUES (%s) ON CONFLICT DO NOTHING"
_FIND: Final = "SELECT id, token, holder FROM tapps_otel.runs WHERE name = %s"
_TAKE: Final = "UPDATE tapps_otel.runs SET token = %s, holder = %s WHERE id = %s"


class Hold:
    """The right to write a log, over several sessions of one process.

    :ivar run: id of the log in the store
    :ivar token: in every statement that writes
    """

    def __init__(self, name: str) -> None:
        self._name, self.run, self.token = name, 0, uuid4()
        self._before: UUID | None = None

    def take(self, connection: Connection) -> None:
        """Take the log from a process that has ended.

        :raises RunBusyError: another process has it
        :raises psycopg.Error: the store cannot be used
        """
        self._before, holder = self._find(connection)
        if not self._lock(connection):
            raise RunBusyError(self._name, *holder)
        self._before, _ = self._find(connection)
        self._write_token(connection)

    def take_again(self, connection: Connection) -> None:
        """Take the log by another session of this process, after a session has ended.

        :raises TakenOverError: another process has taken it
        :raises TimeoutError: the server still has the session that has ended
        :raises psycopg.Error: the store cannot be used
        """
        self._refuse_other(connection)
        if not self._lock(connection):
            self._refuse_other(connection)
            raise TimeoutError("the server still has the connection that has ended")
        if self._refuse_other(connection) != self.token:
            self._write_token(connection)  # a failover has lost it

    def release(self, connection: Connection) -> None:
        """Give the log free at once, not only when the server notices the end of the session."""
        connection.execute(_UNLOCK)

    def _refuse_other(self, connection: Connection) -> UUID | None:
        token, holder = self._find(connection)
        if token not in {self.token, self._before, None}:  # none: the row was deleted, or lost
            raise TakenOverError(holder)
        return token

    def _find(self, connection: Connection) -> tuple[UUID | None, Holder]:
        found = connection.execute(_FIND, (self._name,)).fetchone()
        if found is None:
            connection.execute(_ADD, (self._name,))
            found = connection.execute(_FIND, (self._name,)).fetchone()
        self.run, token, holder = found or (0, None, None)
        return token, holder_of(holder)

    def _lock(self, connection: Connection) -> bool:
        try:
            with connection.transaction():
                connection.execute(_LOCK_TIMEOUT)
                connection.execute(_LOCK, (_CLASS, self.run))
        except psycopg.errors.LockNotAvailable:
            return False
        return True

    def _write_token(self, connection: Connection) -> None:
        label = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        connection.execute(_TAKE, (self.token, label, self.run))


def holder_of(label: object) -> Holder:
    """Return a process that holds a log, as the store has it."""
    match label:
        case {"pid": int(pid), "host": str(host)}:
            return pid, host[:255]
    return None, None
