"""Connections to a store, which end soon after the network between it and this process fails."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from tapps_otel.errors import StoreError
from tapps_otel.log.postgres.schema import check_version
from tapps_otel.masking import mask, public_url, secrets_in

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Connection", "Database"]

Connection = psycopg.Connection[tuple[Any, ...]]

_CONNECT_S: Final = 5
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
_PID: Final = "SELECT pg_backend_pid()"


class Database:
    """Where a store is.

    :ivar shown: its address, without password
    """

    def __init__(self, address: str) -> None:
        self._address, self.shown = address, public_url(address)

    def connect(self) -> Connection:
        """Connect to a server, in autocommit mode.

        :raises StoreError: it cannot be reached
        """
        try:
            connection = psycopg.connect(
                make_conninfo(self._address, application_name="tapps_otel", **_CLIENT),
                autocommit=True,
            )
        except psycopg.Error as error:
            raise self.error(error) from None
        try:
            connection.execute(_SERVER)
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
        return StoreError(self.shown, self.explain(error), "Try again once it can be reached")

    def explain(self, error: Exception) -> str:
        """Return the first line of an error's text, without secrets."""
        text = error.problem if isinstance(error, StoreError) else str(error).strip()
        first = text.partition("\n")[0] or type(error).__name__
        return mask(first, secrets_in(self._address))


def _pid(connection: Connection) -> int:
    found = connection.execute(_PID).fetchone()
    return 0 if found is None else int(found[0])
