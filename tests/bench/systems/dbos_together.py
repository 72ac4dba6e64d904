"""DBOS with its default SQLite: durable steps of 8 threads, and of one ``gather``.

Each thread runs a workflow of its own.
"""

from __future__ import annotations

import asyncio
import os
import time

from dbos import DBOS

from .common import CHUNK, Arguments, Floor, answer, arguments, result, together, wall_of_threads
from .dbos_steps import launch, steps

ARGS = arguments()
THREADS = 8
WARM = 20


@DBOS.step()  # type: ignore[untyped-decorator]
async def work_async(i: int) -> dict[str, object]:
    """One step of a task."""
    return result(i)


@DBOS.workflow()  # type: ignore[untyped-decorator]
async def in_gather(n: int) -> float:
    """Steps of tasks that begin at once; their wall time."""
    began = time.perf_counter()
    await asyncio.gather(*(work_async(i) for i in range(n)))
    return time.perf_counter() - began


def measure(args: Arguments) -> dict[str, float]:
    """What the option says."""
    floor = Floor(args.folder)
    floor.write(CHUNK)
    if args.option == "threads":
        seconds, count = (
            wall_of_threads(THREADS, lambda _: steps(args.n // THREADS)),
            args.n // THREADS * THREADS,
        )
    else:
        seconds, count = asyncio.run(in_gather(args.n)), args.n
    floor.write(CHUNK)
    return together(seconds, count, floor)


if __name__ == "__main__":
    launch(ARGS.folder / "dbos.sqlite")
    steps(WARM)
    answer("dbos", "sqlalchemy", **measure(ARGS))
    os._exit(0)
