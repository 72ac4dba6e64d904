"""What this machine can do for a test, found out by trying; and what to do where it cannot.

A test that needs a part which is not there is skipped, and says why and how to get it. Where
``TAPPS_OTEL_CI`` is set, a part that could be installed must be: the test fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest


class Capability(NamedTuple):
    """A part of the machine.

    :ivar there: whether it works, by trying
    :ivar how: what a person does to get it
    :ivar installable: whether a CI machine can be asked to have it
    """

    there: Callable[[], bool]
    how: str
    installable: bool = True


def _runs(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    return done.returncode == 0


@cache
def _strace() -> bool:
    # In some containers it is there and may not trace.
    return _runs("strace", "-o", os.devnull, "-e", "inject=fsync:error=EIO", "true")


# New namespaces are gone, with what was mounted in them, when their process ends. A user who is
# not root may be allowed to make them, and root may be forbidden.
UNSHARE = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))


@cache
def _small_disk() -> bool:
    return sys.platform == "linux" and _runs(
        *UNSHARE, "mount", "-t", "tmpfs", "-o", "size=100k", "none", "/mnt"
    )


CAPABILITIES = {
    "fork": Capability(lambda: hasattr(os, "fork"), "run on Linux or macOS", installable=False),
    "proc": Capability(
        lambda: Path("/proc/self/fd").is_dir(), "run on Linux with /proc", installable=False
    ),
    "small disk": Capability(
        _small_disk, "run as root, or allow user namespaces", installable=False
    ),
    "strace": Capability(_strace, "install strace (apt-get install strace) and allow ptrace"),
}


def need(name: str) -> None:
    """Go on only where this machine has the part."""
    part = CAPABILITIES[name]
    if part.there():
        return
    if part.installable and os.environ.get("TAPPS_OTEL_CI"):
        pytest.fail(f"this machine has no working {name}: {part.how}")
    pytest.skip(f"needs {name}: {part.how}")
