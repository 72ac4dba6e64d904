"""What this machine offers to tests, found by trying it.

A test whose requirement is missing is skipped, with a reason that tells how to get it. If
``TAPPS_OTEL_CI`` is set and it can be installed, the test fails instead.
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
    """Something that tests may require of the machine.

    :ivar there: tries it
    :ivar how: how to get it
    :ivar installable: whether CI must have it
    """

    there: Callable[[], bool]
    how: str
    installable: bool = True


def runs(*command: str) -> bool:
    """Whether a command is there and succeeds."""
    if shutil.which(command[0]) is None:
        return False
    done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    return done.returncode == 0


@cache
def _strace() -> bool:
    # Some containers have it and forbid tracing.
    return runs("strace", "-o", os.devnull, "-e", "inject=fsync:error=EIO", "true")


# A new namespace vanishes with its mounts when its process ends. Some systems let ordinary users
# make one, and some forbid it even to root.
UNSHARE = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))


@cache
def _small_disk() -> bool:
    return sys.platform == "linux" and runs(
        *UNSHARE, "mount", "-t", "tmpfs", "-o", "size=100k", "none", "/mnt"
    )


CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


@cache
def chromium() -> str | None:
    """Return the path of a Chromium that starts."""
    for name in CHROMIUM_NAMES:
        if runs(name, "--version"):
            return shutil.which(name)
    return None


CAPABILITIES = {
    "chromium": Capability(
        lambda: chromium() is not None, "install Chromium (apt-get install chromium)"
    ),
    "fork": Capability(lambda: hasattr(os, "fork"), "run on Linux or macOS", installable=False),
    "git": Capability(lambda: runs("git", "--version"), "install git (apt-get install git)"),
    "proc": Capability(
        lambda: Path("/proc/self/fd").is_dir(), "run on Linux with /proc", installable=False
    ),
    "root": Capability(lambda: os.geteuid() == 0, "run as root", installable=False),
    "small disk": Capability(
        _small_disk, "run as root, or allow user namespaces", installable=False
    ),
    "strace": Capability(_strace, "install strace (apt-get install strace) and allow ptrace"),
}


def need(name: str) -> None:
    """Skip (or in CI fail) the test unless this machine has the capability."""
    part = CAPABILITIES[name]
    if part.there():
        return
    if part.installable and os.environ.get("TAPPS_OTEL_CI"):
        pytest.fail(f"{name} is missing or does not work: {part.how}")
    pytest.skip(f"needs {name}: {part.how}")
