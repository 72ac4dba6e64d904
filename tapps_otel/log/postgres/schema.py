"""The tables of a store, and how they came about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg

from tapps_otel.errors import StoreError

if TYPE_CHECKING:
    from tapps_otel.log.postgres.connecting import Connection

__all__ = ["VERSION", "check_version", "migrate"]

# `token` is random, not counted: a failover that loses a takeover must not let two processes have
# the same one. `at` is when a line arrived, for the order of lists; the log has its own times.
_MIGRATIONS: Final = (
    """
    CREATE TABLE tapps_otel.runs (
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name text NOT NULL UNIQUE,
        token uuid,
        holder jsonb
    );
    CREATE TABLE tapps_otel.lines (
        run integer NOT NULL REFERENCES tapps_otel.runs ON DELETE CASCADE,
        seq bigint NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        bytes bytea NOT NULL,
        PRIMARY KEY (run, seq)
    );
    CREATE TABLE tapps_otel.blobs (
        run integer NOT NULL REFERENCES tapps_otel.runs ON DELETE CASCADE,
        name text NOT NULL,
        bytes bytea NOT NULL,
        PRIMARY KEY (run, name)
    );
    CREATE VIEW tapps_otel.held AS  -- the logs that a process may write: see holding.py
        SELECT r.id FROM tapps_otel.runs r
        JOIN pg_locks k ON k.classid = 1952542832 AND k.objid = r.id::oid AND k.objsubid = 2
        JOIN pg_database d ON d.oid = k.database
        WHERE d.datname = current_database() AND k.locktype = 'advisory' AND k.granted;
    """,
    # The statement that writes a line looks for its run: a foreign key would look again, and lock
    # the run's row, with each line. That is a third of what a line costs the server.
    """
    ALTER TABLE tapps_otel.lines DROP CONSTRAINT lines_run_fkey;
    CREATE FUNCTION tapps_otel.remove_lines() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = '' AS $$
    BEGIN
        DELETE FROM tapps_otel.lines WHERE run = OLD.id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER remove_lines AFTER DELETE ON tapps_otel.runs
        FOR EACH ROW EXECUTE FUNCTION tapps_otel.remove_lines();
    """,
)
VERSION: Final = len(_MIGRATIONS)
_MISSING: Final = (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedTable)


def check_version(connection: Connection, store: str) -> None:
    """Check that the tables are those that this version knows.

    :raises StoreError: they are not
    """
    try:
        found = _version(connection)
    except _MISSING:
        found = 0
    if found < VERSION:
        what = f"its tables have version {found}" if found else "it has no tables for runs"
        raise StoreError(store, what, "Run `tapps-otel migrate` once")
    _refuse_newer(found, store)


def migrate(connection: Connection, store: str) -> tuple[int, int]:
    """Make the tables, or bring them up to date; return the version before and now.

    :raises StoreError: they are newer
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('tapps_otel migrate'))")
        connection.execute("CREATE SCHEMA IF NOT EXISTS tapps_otel")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS tapps_otel.version (number integer NOT NULL)"
        )
        before = _version(connection)
        _refuse_newer(before, store)
        for statements in _MIGRATIONS[before:]:
            connection.execute(statements)
        connection.execute("DELETE FROM tapps_otel.version")
        connection.execute("INSERT INTO tapps_otel.version VALUES (%s)", (VERSION,))
    return before, VERSION


def _version(connection: Connection) -> int:
    found = connection.execute("SELECT max(number) FROM tapps_otel.version").fetchone()
    return 0 if found is None or found[0] is None else int(found[0])


def _refuse_newer(found: int, store: str) -> None:
    if found > VERSION:
        raise StoreError(
            store,
            f"its tables have version {found}, and this tapps_otel knows version {VERSION}",
            "Upgrade it (pip install -U tapps_otel)",
        )
