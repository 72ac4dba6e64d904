"""The floor of a list of runs: ``scandir`` + ``stat`` of a folder with ``n`` small files.

``prepare`` makes the folder of plain files; where this project's own folder of runs is measured,
its floor is taken on that one (``ours_list``).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from .common import Arguments, answer, arguments


def scan_ms(folder: Path) -> float:
    """Time to ``scandir`` a folder and keep every entry's name and time, as a list by time must."""
    began = time.perf_counter()
    with os.scandir(folder) as entries:
        found = [(entry.stat().st_mtime_ns, entry.name) for entry in entries]
    took = time.perf_counter() - began
    if not found:
        raise RuntimeError(f"{folder} is empty")
    return took * 1e3


def prepare(args: Arguments) -> None:
    """A folder of ``n`` files."""
    folder = args.folder / "runs"
    folder.mkdir()
    for i in range(args.n):
        (folder / f"bench-{i:06}.jsonl").write_bytes(b"{}\n")


def main(args: Arguments) -> None:
    """Run the measurement that the arguments name."""
    if args.stage == "prepare":
        prepare(args)
    else:
        answer(scan_ms=min(scan_ms(args.folder / "runs") for _ in range(3)))


if __name__ == "__main__":
    main(arguments())
