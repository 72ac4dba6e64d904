"""Where the measurements write: a folder on a real disk, or none at all."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from .systems.common import sync

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
FREE_SYNC_US = 10.0


class NotADiskError(Exception):
    """The folder is useless for measurements: what is written there never reaches a device."""


def file_system(folder: Path) -> str:
    """Return the type of the file system of ``folder``; ``unknown`` where that cannot be found."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    kinds = {point: kind for _, point, kind, *_ in map(str.split, mounts)}
    return max(
        ((len(p), k) for p, k in kinds.items() if _holds(p, folder)), default=(0, "unknown")
    )[1]


def _holds(point: str, folder: Path) -> bool:
    return folder.resolve().is_relative_to(point.replace("\\040", " "))


def sync_us(folder: Path) -> float:
    """The median time of one small write and its sync."""
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            os.write(file.fileno(), b"x" * 400)
            sync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def check(folder: Path) -> str:
    """Return the file system's type; ``NotADiskError`` if it is in memory or syncs for free."""
    kind = file_system(folder)
    if kind in IN_MEMORY:
        raise NotADiskError(
            f"{folder} is on {kind}, where a sync is free: choose a disk with --work DIR"
        )
    cost = sync_us(folder)
    if cost < FREE_SYNC_US:
        raise NotADiskError(
            f"{folder} ({kind}): a sync takes {cost:.1f} us, so no disk: use --work DIR"
        )
    return kind
