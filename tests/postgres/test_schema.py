"""The tables of a store, and what stands between it and a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from capabilities import need
from commands import Cli
from crashes import go
from databases import Database, Server, pooler
from tapps_otel import configure, list_runs, workflow
from tapps_otel.errors import StoreError
from tapps_otel.log.postgres import schema
from tapps_otel.masking import public_url
from tapps_otel.run.mirrors import migrate


@workflow
def flow() -> None: ...


@workflow
def large() -> str:
    return "x" * 100_000


def test_the_tables_are_made_by_one_command(server: Server, cli: Cli) -> None:
    configure(store=server.new().address)
    with pytest.raises(StoreError, match=r"it has no tables for runs. Run `tapps-otel migrate`"):
        go(flow)

    assert cli("migrate").out == "the store has version 2\n"
    assert cli("migrate").out == "the store has version 2 already\n"
    go(flow)
    assert [run.status for run in list_runs()] == ["completed"]


def test_tables_of_an_older_version_are_brought_up_to_date(
    server: Server, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = server.new()
    configure(store=database.address, spans=False)
    with monkeypatch.context() as older:
        older.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:1])
        older.setattr(schema, "VERSION", 1)
        migrate()
        go(flow, workflow_id="before")

    with pytest.raises(StoreError, match=r"have version 1. Run `tapps-otel migrate`"):
        go(flow)
    assert cli("migrate").out == "the store has version 2\n"
    go(flow)
    assert {run.workflow_id for run in list_runs()} == {"before", "r"}


def test_a_run_that_is_removed_by_hand_leaves_nothing(database: Database) -> None:
    for name in ("removed", "kept"):
        go(large, workflow_id=name)
    rows = "SELECT count(*) FROM tapps_otel.lines UNION ALL SELECT count(*) FROM tapps_otel.blobs"
    before = database.ask(rows)
    database.ask("DELETE FROM tapps_otel.runs WHERE name = 'removed'")

    assert database.ask(rows) == [(count // 2,) for (count,) in before]
    assert [run.workflow_id for run in list_runs()] == ["kept"]


def test_a_newer_store_is_refused(database: Database, cli: Cli) -> None:
    database.ask("UPDATE tapps_otel.version SET number = 99")

    with pytest.raises(
        StoreError, match=r"version 99, and this tapps_otel knows version 2. Upgrade"
    ):
        go(flow)
    assert "Upgrade" in cli("migrate").err
    assert database.ask("SELECT number FROM tapps_otel.version") == [(99,)]


def test_a_role_that_may_not_make_tables_can_run(database: Database, server: Server) -> None:
    database.ask("CREATE ROLE runner LOGIN")
    database.ask("GRANT USAGE ON SCHEMA tapps_otel TO runner")
    database.ask("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA tapps_otel TO runner")
    configure(store=database.address.replace("tapps@", "runner@"))

    go(flow)
    assert [run.status for run in list_runs()] == ["completed"]


def test_a_role_without_rights_is_told_which_it_needs(database: Database, cli: Cli) -> None:
    database.ask("CREATE ROLE stranger LOGIN")
    configure(store=database.address.replace("tapps@", "stranger@"))

    with pytest.raises(StoreError, match=r"permission denied.*Give its user the rights"):
        go(flow)
    assert "Give its user the rights" in cli("list").err


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_between_is_refused_in_transaction_mode(database: Database, mode: str) -> None:
    need("pgbouncer")
    with pooler(database, mode) as address:
        configure(store=address)
        if mode == "transaction":
            with pytest.raises(StoreError, match="a connection pooler in transaction mode"):
                go(flow)
        else:
            go(flow)
            assert [run.status for run in list_runs()] == ["completed"]


def test_without_its_library_a_store_is_refused() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from tapps_otel import configure, workflow\n"
        "configure(store='postgresql://host/runs')\n"
        "try:\n"
        "    workflow(lambda: None, name='flow')()\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("SettingsError ")
    assert "pip install 'tapps_otel[postgres]'" in done.stdout


def test_a_program_without_a_store_does_not_import_its_library() -> None:
    code = (
        "import sys\n"
        "from tapps_otel import list_runs, workflow\n"
        "workflow(lambda: None, name='flow')()\n"
        "assert len([*list_runs()]) == 1\n"
        "print('psycopg' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_doctor_tries_the_store(database: Database, cli: Cli) -> None:
    usable = cli("doctor").out
    configure(store="postgresql://me:secret-word@127.0.0.1:1/runs")
    unusable = cli("doctor")

    assert f"store        {public_url(database.address)} can be used" in usable
    assert unusable.code == 1
    assert "store        store postgresql://127.0.0.1:1/runs: " in unusable.out
    assert "secret-word" not in unusable.out
