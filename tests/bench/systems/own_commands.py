"""This project: commands from start to end, against ``--help`` and a look at the same files.

``show`` of a run: the floor is ``--help`` and the check of the run's log. ``list --last 20``: the
floor is ``--help`` and ``scandir`` + ``stat`` of the folder. All of them in turn, ``n`` times.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from pathlib import Path

from tapps_otel.log import reader

from .common import Arguments, answer, arguments
from .scan_folder import scan_ms
from .spawn import spawn_ms


def read_ms(folder: Path) -> float:
    """Reading and checking the log that is shown."""
    began = time.perf_counter()
    if not reader.check(folder / "bench.jsonl", "bench").ok:
        raise RuntimeError("the made log does not check")
    return (time.perf_counter() - began) * 1e3


COMMANDS = {"show": ("show bench", read_ms), "list": ("list --last 20", scan_ms)}


def measure(args: Arguments) -> dict[str, float]:
    """The medians of the command, of ``--help``, and of the look at the files."""
    folder = args.folder / "log"
    words, look = COMMANDS[args.option]
    program = [sys.executable, "-m", "tapps_otel"]
    shown, helped, looked = [], [], []
    for _ in range(args.n + 1):
        shown.append(spawn_ms([*program, *shlex.split(words), "--log-dir", str(folder)]))
        helped.append(spawn_ms([*program, "--help"]))
        looked.append(look(folder))
    # The first ones warmed byte code and caches up.
    command, plain, files = (statistics.median(one[1:]) for one in (shown, helped, looked))
    return {"command_ms": command, "floor_ms": plain + files, "help_ms": plain, "files_ms": files}


if __name__ == "__main__":
    answer("typer", **measure(arguments()))
