"""A real PostgreSQL, started in a temporary folder, with a database for each test."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from capabilities import CAPABILITIES, Capability, runs
from ports import free_ports
from waiting import until

__all__ = ["Database", "Server", "programs", "started"]

_USER = "tapps"  # of all databases


@cache
def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    beside = shutil.which("initdb")  # elsewhere than on Debian
    return None if beside is None else Path(beside).resolve().parent


@cache
def _can_start() -> bool:
    folder = programs()
    return folder is not None and runs(str(folder / "postgres"), "--version")


CAPABILITIES["pgbouncer"] = Capability(
    lambda: runs("pgbouncer", "--version"), "install PgBouncer (apt-get install pgbouncer)"
)
CAPABILITIES["network namespaces"] = Capability(
    lambda: not os.geteuid() and runs("unshare", "--net", "ip", "link"),
    "run as root on Linux, with iproute2",
    installable=False,
)
CAPABILITIES["postgres"] = Capability(
    _can_start, "install PostgreSQL (apt-get install --no-install-recommends postgresql)"
)


def as_user() -> dict[str, Any]:
    """Options of `subprocess` for a process that root would not be allowed to be."""
    if os.geteuid():
        return {}
    return {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


class Server:
    """A server in a folder.

    :ivar host: address that it listens at
    """

    def __init__(self, folder: Path, port: int, host: str = "127.0.0.1") -> None:
        self.folder, self.port, self.host = folder, port, host
        self.data = folder / "data"
        self._numbers = itertools.count(1)

    def make(self) -> None:
        """Make its files."""
        self._run(
            "initdb", "-D", str(self.data), "-U", _USER, "-A", "trust", "-E", "UTF8",
            "--locale=C", "--no-sync",
        )  # fmt: skip
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n")

    def start(self, *options: str) -> None:
        """Start it, and wait until it answers."""
        settings = (
            f"-p {self.port} -k {self.folder} -c listen_addresses={self.host} "
            f"-c max_connections=200 {' '.join(options)}"
        )
        log = str(self.folder / "server.log")
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", log, "-o", settings, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; in mode ``immediate``, as a crash would."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def copy(self) -> None:
        """Copy it as it is now, as a standby that is behind from now on."""
        self._run(
            "pg_basebackup", "-D", str(self.folder / "copy"), "-d", self.address(),
            "--checkpoint=fast", "--no-sync",
        )  # fmt: skip

    def use_copy(self) -> None:
        """Let the copy take the place of this server, which is stopped."""
        shutil.rmtree(self.data)
        (self.folder / "copy").rename(self.data)

    def _run(self, program: str, *arguments: str) -> None:
        folder = programs()
        assert folder is not None
        with (self.folder / "errors").open("ab") as errors:
            done = subprocess.run(
                [folder / program, *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=errors,  # a pipe would be held open by the server
                stderr=errors,
                check=False,
                **as_user(),
            )
        assert not done.returncode, (self.folder / "errors").read_text()

    @property
    def pid(self) -> int:
        """The process that has started all others."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def address(self, database: str = "postgres") -> str:
        """Return the address of a database."""
        return f"postgresql://{_USER}@{self.host}:{self.port}/{database}"

    def new(self) -> Database:
        """Make a database."""
        name = f"test{next(self._numbers)}"
        with psycopg.connect(self.address(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} STRATEGY = wal_log".encode())
        return Database(self, name)


class Database:
    """A database of one test.

    :ivar address: as a program is given it
    """

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name
        self.address = server.address(name)

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute a statement; return its rows."""
        with psycopg.connect(self.address, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def log(self, name: str) -> bytes:
        """Return the whole log of a run, as the database has it."""
        query = (
            "SELECT bytes FROM tapps_otel.lines l JOIN tapps_otel.runs r ON r.id = l.run "
            "WHERE r.name = %s ORDER BY seq"
        )
        return b"".join(bytes(line) for (line,) in self.ask(query, name))

    def sessions(self) -> list[int]:
        """Return the server's processes for sessions of the package."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'tapps_otel'"
        )
        return [pid for (pid,) in self.ask(query)]

    def end_sessions(self) -> None:
        """End the sessions of the package, as a server does that has given their clients up."""
        for pid in self.sessions():
            self.ask("SELECT pg_terminate_backend(%s, 5000)", pid)


@contextmanager
def started(*options: str, host: str = "127.0.0.1") -> Iterator[Server]:
    """Start a server in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="tapps-pg-", dir="/tmp") as name:
        folder = Path(name)
        if not os.geteuid():
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        server = Server(folder, free_ports(1)[0], host)
        server.make()
        server.start(*options)
        try:
            yield server
        finally:
            with suppress(AssertionError):  # the test has stopped it
                server.stop("immediate")


@contextmanager
def pooler(database: Database, mode: str) -> Iterator[str]:
    """Start PgBouncer in front of a database; yield its address."""
    server, port = database.server, free_ports(1)[0]
    folder = server.folder / f"pooler-{mode}"
    folder.mkdir()
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={server.host} port={server.port} user={_USER}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
        f"pool_mode = {mode}\nlogfile = /dev/null\n"
    )
    process = subprocess.Popen(
        ["pgbouncer", "-q", folder / "pgbouncer.ini"], stderr=subprocess.DEVNULL, **as_user()
    )
    try:
        until(lambda: _answers(port))
        yield f"postgresql://{_USER}@127.0.0.1:{port}/{database.name}"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
