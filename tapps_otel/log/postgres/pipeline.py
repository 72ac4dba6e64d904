"""Statements on their way to a server, and the answers to them: one wait for many statements."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg.pq import ExecStatus

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from tapps_otel.log.postgres.connecting import Connection

__all__ = ["Pipeline", "RefusedError"]

_MOST_UNREAD: Final = 64  # transactions, before their answers are read without being waited for
_DONE: Final = frozenset({ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK})


class RefusedError(OSError):
    """A statement did not do what it should: the server has something else than expected."""

    def __str__(self) -> str:
        return "the store has other lines than this process left there"


class Pipeline:
    """A connection in pipeline mode. Its caller holds a lock, except in :meth:`poll`.

    Statements up to a :meth:`commit` are one transaction.

    :param statements: by their names; each must change one row at least, or return one
    :ivar committed: number of transactions that were ended
    :ivar answered: number of those that the server has answered
    :ivar unanswered: bytes that were sent since all transactions were answered
    """

    def __init__(self, connection: Connection, statements: dict[bytes, bytes]) -> None:
        self._connection, self._server = connection, connection.pgconn
        self.committed = self.answered = 0
        self.unanswered, self._unsent = 0, 0
        for name, statement in statements.items():
            _check(self._server.prepare(name, statement))
        self._server.nonblocking = 1
        self._server.enter_pipeline_mode()

    def send(self, name: bytes, values: list[bytes]) -> None:
        """Send a statement with values in the binary format.

        :raises psycopg.Error: the connection has ended
        """
        self.unanswered += sum(map(len, values))
        self._server.send_query_prepared(name, values, _BINARY[len(values)])

    def commit(self) -> None:
        """End the transaction, and let all of it be on its way.

        :raises psycopg.Error: the connection has ended, or the server reported an error
        :raises RefusedError: an earlier statement was refused
        """
        self._server.pipeline_sync()
        self.committed += 1
        self._unsent = self._server.flush()
        if self.committed - self.answered > _MOST_UNREAD:
            self.read()

    def read(self) -> None:
        """Read the answers that are there.

        :raises psycopg.Error: the connection has ended, or the server reported an error
        :raises RefusedError: a statement was refused
        """
        server = self._server
        self._unsent = server.flush()
        server.consume_input()
        while self.answered < self.committed and not server.is_busy():
            result = server.get_result()
            if result is not None:  # it separates the answers to two statements
                self._take(result)

    def _take(self, result: PGresult) -> None:
        if result.status == ExecStatus.PIPELINE_SYNC:
            self.answered += 1
            if self.answered == self.committed:
                self.unanswered = 0
        else:
            _check(result)

    def end(self) -> None:
        """Leave the pipeline mode; all answers have been read.

        :raises psycopg.Error: they have not
        """
        self._server.exit_pipeline_mode()

    def poll(self, seconds: float) -> None:
        """Wait until there may be something to read or to send, or some time has passed."""
        waiting = select.poll()
        waiting.register(self._server.socket, select.POLLIN | select.POLLOUT * bool(self._unsent))
        waiting.poll(seconds * 1000)


# Values of all statements are in the binary format: 1 for each.
_BINARY: Final = [[1] * count for count in range(8)]


def _check(result: PGresult) -> None:
    """Check that a statement was executed, and did something.

    :raises psycopg.Error: it was not
    :raises RefusedError: it changed and returned nothing
    """
    if result.status not in _DONE:
        raise psycopg.errors.error_from_result(result)
    if result.command_tuples == 0:
        raise RefusedError
