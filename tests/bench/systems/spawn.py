"""What a command costs from start to end, the interpreter's own start included.

The option is the arguments of ``python``, as a shell would write them. Once before it counts, so
that byte code and the page cache are warm; then the median of a few.
"""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
import time

from .common import Arguments, answer, arguments


def spawn_ms(command: list[str]) -> float:
    """Wall time of one process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3


def measure(args: Arguments) -> dict[str, float]:
    """The median of ``n`` processes, after one to warm up."""
    command = [sys.executable, *shlex.split(args.option)]
    spawn_ms(command)
    return {"wall_ms": statistics.median(spawn_ms(command) for _ in range(args.n))}


if __name__ == "__main__":
    answer(**measure(arguments()))
