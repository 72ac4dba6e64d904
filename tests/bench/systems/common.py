"""What every measured program shares: arguments, a step's result, the floor, the answer.

Standard library only: it is imported by interpreters that have nothing of this project.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

CHUNK = 100
"""Steps between two measurements of the floor, few enough that the disk behaves alike."""

BLOCK = b"x" * 1023 + b"\n"
"""What a peer's floor writes for each step; ours writes exactly the bytes of its own step."""

CRASHED = 9
"""The exit code of a program that was asked to die in the middle of its run."""


@dataclass(frozen=True)
class Arguments:
    """What the runner asks of one process."""

    folder: Path
    n: int
    stage: str = "measure"
    option: str = ""


def arguments() -> Arguments:
    """The runner's request, from the command line."""
    given = json.loads(sys.argv[1])
    return Arguments(Path(given.pop("folder")), **given)


def result(i: int) -> dict[str, object]:
    """The result of step ``i``: about 207 bytes of compact JSON, a little different each time."""
    return {
        "index": i,
        "title": f"Chapter {i % 97}: the harbour at night",
        "words": 1200 + i % 400,
        "score": 0.731,
        "tags": ["draft", "harbour", "night"],
        "reviewed": False,
        "summary": "A short text that stands for what a step gives back to its workflow.",
    }


def sync(fd: int) -> None:
    """Flush data to the device (``fdatasync``, or what stands for it on this system)."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


class Floor:
    """The least that a step could cost: one ``os.write`` (and sync) of a block, to a growing file.

    It runs inside the measured process, ``CHUNK`` writes before every ``CHUNK`` steps, on a file in
    the same folder, so that a disk that gets slower for a second gets slower for both. Its time is
    not the system's.
    """

    def __init__(self, folder: Path, block: bytes = BLOCK, *, synced: bool = True) -> None:
        self._fd = os.open(folder / "floor.bin", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._block = block
        self._synced = synced
        self.seconds = 0.0
        self.writes = 0

    def tick(self, i: int) -> None:
        """Call before step ``i``; every ``CHUNK`` steps it does that many writes."""
        if i % CHUNK == 0:
            self.write(CHUNK)

    def write(self, count: int) -> None:
        """Write the block ``count`` times, and add up the time."""
        began = time.perf_counter()
        for _ in range(count):
            os.write(self._fd, self._block)
            if self._synced:
                sync(self._fd)
        self.seconds += time.perf_counter() - began
        self.writes += count

    @property
    def each_us(self) -> float:
        """The mean time of one write, in microseconds."""
        return self.seconds / self.writes * 1e6


def timed_steps(n: int, floor: Floor, one: Callable[[int], object]) -> dict[str, float]:
    """Call ``one(i)`` for each step, the floor between: mean times, and their ratio."""
    began = time.perf_counter()
    for i in range(n):
        floor.tick(i)
        one(i)
    return against(time.perf_counter() - began, n, floor)


def against(wall: float, n: int, floor: Floor) -> dict[str, float]:
    """Mean time of a step, from a wall time that includes the floor's writes."""
    step_us = (wall - floor.seconds) / n * 1e6
    return {"step_us": step_us, "floor_us": floor.each_us, "x_floor": step_us / floor.each_us}


def wall_of_threads(count: int, work: Callable[[int], object]) -> float:
    """The wall time of threads that begin at once: each calls ``work`` with its number."""
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    began = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return time.perf_counter() - began


def together(seconds: float, n: int, floor: Floor) -> dict[str, float]:
    """Mean time of a step, from the wall time of steps that ran side by side."""
    step_us = seconds / n * 1e6
    return {"step_us": step_us, "floor_us": floor.each_us, "x_floor": step_us / floor.each_us}


def folder_bytes(paths: Iterable[Path]) -> int:
    """How many bytes these files and folders hold."""
    total = 0
    for path in paths:
        files = path.rglob("*") if path.is_dir() else [path]
        total += sum(file.stat().st_size for file in files if file.is_file())
    return total


def rss_mb() -> float:
    """Resident memory of this process now, in MB; its peak where the system does not tell."""
    return _status_mb("VmRSS:") or peak_rss_mb()


def peak_rss_mb() -> float:
    """Peak resident memory of this process, in MB.

    Not from ``getrusage`` where there is another way: on Linux that number starts with the memory
    of the process that started this one.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status_mb("VmHWM:") or peak / (1e6 if sys.platform == "darwin" else 1e3)


def _status_mb(key: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(key)), 0.0)


def answer(*packages: str, **numbers: float) -> None:
    """Print what was measured, and the versions of what it was measured on."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions["python"] = sys.version.split()[0]
    print(json.dumps({"numbers": numbers, "versions": versions}), flush=True)
