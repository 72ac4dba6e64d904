"""Connections to a store, which end soon after the network between it and this process fails."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from tapps_otel import clock
from tapps_otel.errors import StoreError
from tapps_otel.log.postgres.schema import check_version
from tapps_otel.masking import mask, public_url, secrets_in

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from psycopg.abc import PQGen

__all__ = ["Connection", "Database"]

_Result = TypeVar("_Result")

_CONNECT_S: Final = 5
_SHORTEST_S: Final = 4.0  # to wait for the answer to a query; a lock is waited for shorter
# Of both ends: after a partition the server must free the lease, and the holder must notice. With
# keepalives alone a connection with unconfirmed data is kept for many minutes.
_IDLE_S, _INTERVAL_S, _COUNT, _UNCONFIRMED_MS = 5, 5, 3, 20_000
_CLIENT: Final = {
    "connect_timeout": _CONNECT_S,
    "keepalives_idle": _IDLE_S,
    "keepalives_interval": _INTERVAL_S,
    "keepalives_count": _COUNT,
    "tcp_user_timeout": _UNCONFIRMED_MS,
}
_SERVER: Final = (
    f"SET tcp_keepalives_idle = {_IDLE_S}; SET tcp_keepalives_interval = {_INTERVAL_S};"
    f"SET tcp_keepalives_count = {_COUNT}; SET tcp_user_timeout = {_UNCONFIRMED_MS}"
)
# A step may take days. PostgreSQL 13 does not have this setting.
_MAY_BE_IDLE: Final = (
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
)
_LONGEST_MS: Final = 2**31 - 1  # that PostgreSQL takes
_LIMIT: Final = "SELECT set_config('statement_timeout', %s, false)"
_ADVICE: Final = (
    (
        psycopg.errors.InsufficientPrivilege,
        "Give its user the rights that `tapps-otel docs postgres` names",
    ),
    (
        psycopg.OperationalError,
        "Check that its address, user and password are right, or try again once it can be reached",
    ),
    (Exception, "`tapps-otel doctor` tries it"),
)
_PID: Final = "SELECT pg_backend_pid()"


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that ends if the server leaves a query without any answer.

    :ivar limit_s: for how long
    """

    limit_s: float = _CONNECT_S

    def wait(self, gen: PQGen[_Result], *args: Any, **options: Any) -> _Result:
        """Do what psycopg does for a query.

        :raises psycopg.OperationalError: the server does not answer
        """
        result: _Result = super().wait(self._limited(gen), *args, **options)
        return result

    def _limited(self, gen: PQGen[_Result]) -> Generator[Any, Any, _Result]:
        limit_ns = int(self.limit_s * 1e9)
        until = clock.monotonic_ns() + limit_ns
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    until = clock.monotonic_ns() + limit_ns
                elif clock.monotonic_ns() >= until:
                    self.pgconn.finish()  # what is on its way cannot be taken back
                    raise psycopg.OperationalError(f"no answer for {self.limit_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: _Result = end.value
            return result


class Database:
    """Where a store is.

    :param wait_s: how long the answer to a query is waited for
    :ivar shown: its address, without password
    """

    def __init__(self, address: str, wait_s: float) -> None:
        self._address, self.shown = address, public_url(address)
        self._limit_s = max(wait_s, _SHORTEST_S)

    def connect(self) -> Connection:
        """Connect to a server, in autocommit mode.

        :raises StoreError: it cannot be reached
        """
        try:
            connection = Connection.connect(
                make_conninfo(self._address, application_name="tapps_otel", **_CLIENT),
                autocommit=True,
            )
        except psycopg.Error as error:
            raise self.error(error) from None
        connection.limit_s = self._limit_s
        try:
            with self.naming_errors():
                connection.execute(_SERVER)
                connection.execute(_MAY_BE_IDLE)
                # The server, too, gives up what nothing waits for any more.
                connection.execute(_LIMIT, (f"{min(self._limit_s * 1000, _LONGEST_MS):.0f}",))
        except BaseException:
            connection.close()
            raise
        return connection

    def open(self) -> Connection:
        """Connect to a server that has the tables of this version.

        :raises StoreError: it cannot be reached, or has not
        """
        connection = self.connect()
        try:
            with self.naming_errors():
                check_version(connection, self.shown)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def opened(self) -> Iterator[Connection]:
        """Yield a connection as :meth:`open` does, for reading.

        :raises StoreError: the server cannot be reached or read
        """
        with self.naming_errors(), self.open() as connection:
            yield connection

    @contextmanager
    def naming_errors(self) -> Iterator[None]:
        """Raise :class:`StoreError` for an error of psycopg."""
        try:
            yield
        except psycopg.Error as error:
            raise self.error(error) from None

    def refuse_pooler(self, connection: Connection) -> None:
        """Refuse a pooler that lets a session use another connection in each transaction.

        Locks of a session would be another's. A pooler shows itself by giving a number of its own
        as that of the server's process. If it is in transaction mode, a second session gets the
        connection of the first one, or the first one does not keep it.

        :raises StoreError: it is one
        """
        first = _pid(connection)
        if connection.pgconn.backend_pid == first:
            return
        with self.connect() as other, other.transaction():
            if _pid(other) == first or _pid(connection) != first:
                raise StoreError(
                    self.shown,
                    "a connection pooler in transaction mode is between it and this process, "
                    "which cannot hold a lease through that",
                    "Give the address of the server itself, or of a pooler in session mode",
                )

    def error(self, error: Exception) -> StoreError:
        """Return what to raise for an error of psycopg, whose text may quote the address."""
        advice = next(advice for kind, advice in _ADVICE if isinstance(error, kind))
        return StoreError(self.shown, self.explain(error), advice)

    def explain(self, error: Exception) -> str:
        """Return the first line of an error's text, without secrets."""
        text = error.problem if isinstance(error, StoreError) else str(error).strip()
        first = text.partition("\n")[0] or type(error).__name__
        return mask(first, secrets_in(self._address))


def _pid(connection: Connection) -> int:
    found = connection.execute(_PID).fetchone()
    return 0 if found is None else int(found[0])
