"""PostgreSQL as a home of runs."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.log.event import Event, decode
from tapps_otel.log.postgres import schema
from tapps_otel.log.postgres.connecting import Database
from tapps_otel.log.postgres.holding import holder_of
from tapps_otel.log.postgres.session import PostgresSession
from tapps_otel.log.postgres.stored_log import StoredLog
from tapps_otel.log.summary import RunSummary, damaged, start_in, summarize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg import Connection

    from tapps_otel.log.home import Copy, Holder

__all__ = ["PostgresHome"]

_TAIL: Final = 100  # lines that are read of each run for its summary
# A plus is in the name of a side log.
_RUNS: Final = """
    SELECT r.id, r.name FROM tapps_otel.runs r CROSS JOIN LATERAL
        (SELECT at FROM tapps_otel.lines WHERE run = r.id ORDER BY seq DESC LIMIT 1) l
    WHERE strpos(r.name, '+') = 0 AND l.at >= to_timestamp(%s::float8 / 1e9)
    ORDER BY l.at DESC
"""
_NAMES: Final = """
    SELECT r.name FROM tapps_otel.runs r CROSS JOIN LATERAL
        (SELECT at FROM tapps_otel.lines WHERE run = r.id ORDER BY seq DESC LIMIT 1) l
    WHERE strpos(r.name, '+') = 0 AND starts_with(r.name, %s) ORDER BY l.at DESC
"""
_LOGS: Final = """
    SELECT id, name FROM tapps_otel.runs WHERE name = %s OR starts_with(name, %s) ORDER BY name
"""
_HOLDER: Final = (
    "SELECT holder FROM tapps_otel.runs JOIN tapps_otel.held USING (id) WHERE name = %s"
)
_IS_HELD: Final = "SELECT FROM tapps_otel.held WHERE id = %s"
_AGENT: Final = """
    SELECT EXISTS (
        SELECT FROM tapps_otel.lines l JOIN tapps_otel.runs r ON r.id = l.run
        WHERE r.name = %s AND position(%s IN l.bytes) > 0
    )
"""


class PostgresHome:
    """A database with runs.

    :param address: as ``postgresql://host/database``
    :param wait_s: how long a step waits for it if it cannot be reached, or does not answer
    """

    def __init__(self, address: str, wait_s: float) -> None:
        self._database, self._wait_s = Database(address, wait_s), wait_s

    @property
    def shown(self) -> str:
        """Its address, without password."""
        return self._database.shown

    def take(self, name: str) -> PostgresSession:
        """Take the right to write a log."""
        return PostgresSession(self._database, name, self._wait_s)

    def holder(self, name: str) -> Holder | None:
        """Return which process may write a log; ``None`` if none does."""
        with self._database.opened() as connection:
            found = connection.execute(_HOLDER, (name,)).fetchone()
        return None if found is None else holder_of(found[0])

    @contextmanager
    def copies(self, name: str) -> Iterator[list[Copy]]:
        """Return a context with what the home has of a run: its log first, then its side logs."""
        with self._database.opened() as connection:
            found = connection.execute(_LOGS, (name, f"{name}+")).fetchall()
            yield [StoredLog(self._database.shown, log, connection, run) for run, log in found]

    def names(self, prefix: str) -> list[str]:
        """Return the runs whose ids begin like this, the one written to last first."""
        with self._database.opened() as connection:
            return [name for (name,) in connection.execute(_NAMES, (prefix,))]

    def summaries(self, since_ns: int = 0) -> Iterator[RunSummary]:
        """Yield the runs, the one written to last first."""
        with (
            self._database.opened() as connection,
            self._database.opened() as reading,
            connection.transaction(),
            connection.cursor("runs") as cursor,
        ):
            held = {run for (run,) in reading.execute("SELECT id FROM tapps_otel.held")}
            for run, name in cursor.execute(_RUNS, (since_ns,)):
                log = StoredLog(self._database.shown, name, reading, run)
                yield _summary(log, partial(_is_held, reading, run, held))

    def has_agent(self, name: str, agent: str) -> bool:
        """Return whether a run has a step of this agent."""
        text = f'"agent":{json.dumps(agent, ensure_ascii=False)}'
        with self._database.opened() as connection:
            found = connection.execute(_AGENT, (name, text.encode())).fetchone()
        return found is not None and bool(found[0])

    def migrate(self) -> tuple[int, int]:
        """Make the tables, or bring them up to date; return the version before and now."""
        connection = self._database.connect()
        with self._database.naming_errors(), connection:
            return schema.migrate(connection, self._database.shown)


def _is_held(connection: Connection[Any], run: int, held: set[int]) -> bool:
    """Whether a process may write a log, or could before.

    :param held: the logs of which that was known before; a process may have begun since
    """
    return run in held or connection.execute(_IS_HELD, (run,)).fetchone() is not None


def _summary(log: StoredLog, is_held: Callable[[], bool]) -> RunSummary:
    older = log.older_lines(log.head.seq + 1)
    try:
        events = [_event(line) for line in islice(older, _TAIL)][::-1]
        is_whole = len(events) == log.head.seq
        start = start_in(events) if is_whole else _event(log.first())
    except ValueError as error:
        return damaged(log.name, log.size, f"a line in the store cannot be read: {error}")
    return summarize(
        log.name,
        events,
        older,
        start=start,
        seq=log.head.seq,
        size=log.size,
        is_whole=is_whole,
        is_held=is_held,
    )


def _event(data: bytes) -> Event:
    """Decode a line, without the damage before it that it declares."""
    return decode(data.rstrip(b"\n").rpartition(b"\n")[2])
