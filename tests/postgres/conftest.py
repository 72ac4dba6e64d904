"""A server for all tests of a worker, a database for each test, and folders for two machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from capabilities import need
from crashes import Effects
from databases import Database, Server, started
from tapps_otel import configure
from tapps_otel.run.mirrors import migrate


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests fork while the thread runs that looks after connections."""
    ignored = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(ignored)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    need("postgres")
    # No test cuts the power of this machine: what a crash of the server needs is in its files.
    with started("-c fsync=off") as server:
        yield server


@pytest.fixture
def database(server: Server) -> Database:
    """A database with the tables of this version, which the settings name."""
    database = server.new()
    configure(store=database.address, spans=False)
    migrate()
    return database


@pytest.fixture
def did(tmp_path: Path) -> Effects:
    """Effects of step bodies, on whatever machine."""
    return Effects(tmp_path / "effects")


@pytest.fixture
def be_on(tmp_path: Path) -> Callable[[str], Path]:
    """Continue as if on another machine: with another folder of logs, which it returns."""

    def be_on(machine: str) -> Path:
        folder = tmp_path / machine
        configure(log_dir=folder)
        return folder

    return be_on
