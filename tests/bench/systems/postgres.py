"""A PostgreSQL of its own for a measured program: with its defaults, so that it syncs.

Its files are in ``/var/tmp``, on a disk that is hopefully that of the floor: the folder of the
measurement may be private, and root's server runs as another user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def programs() -> Path | None:
    """The folder of its programs, where Debian has them, or on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    beside = shutil.which("initdb")
    return found[-1].parent if found else Path(beside).parent if beside else None


@contextmanager
def server() -> Iterator[str]:
    """Start one; yield the address of its database, as a URL without its scheme."""
    folder = programs()
    if folder is None:
        raise FileNotFoundError("initdb: install PostgreSQL")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(dir="/var/tmp", ignore_cleanup_errors=True) as made:
        user: dict[str, Any] = {}
        if not os.geteuid():
            nobody = pwd.getpwnam("nobody")
            os.chown(made, nobody.pw_uid, nobody.pw_gid)
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        data, log = f"{made}/data", f"{made}/log"

        def run(program: str, *arguments: str) -> None:
            done = subprocess.run(
                [folder / program, *arguments],
                cwd=made,
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **user,
            )
            if done.returncode:
                raise OSError(f"{program} failed with {done.returncode}")

        run("initdb", "-D", data, "-U", "bench", "-A", "trust", "--locale=C", "-E", "UTF8")
        options = f"-p {port} -k {made} -c listen_addresses=127.0.0.1"
        run("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
        try:
            yield f"bench@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
