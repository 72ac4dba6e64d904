"""This project: durable steps of 8 threads, of one ``gather``, and of a task that is alone.

The floor is one thread's: an ``os.write`` of the bytes of a step, and its sync.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from tapps_otel import bind, configure, step, workflow
from tapps_otel.settings_types import Durability

from .common import CHUNK, Floor, answer, arguments, result, together, wall_of_threads
from .own_steps import step_bytes

ARGS = arguments()
WARM = 100
THREADS = 8


@step
def work(i: int) -> dict[str, Any]:
    """One step of a thread."""
    return result(i)


@step
async def work_async(i: int) -> dict[str, Any]:
    """One step of a task."""
    return result(i)


@workflow
def warm(n: int) -> int:
    """The steps that are not timed."""
    return sum(bool(work(i)) for i in range(n))


@workflow
def in_threads(n: int, block: int) -> dict[str, float]:
    """Steps of threads, a chunk of each at a time, and the floor between."""
    floor, seconds = Floor(ARGS.folder, b"x" * block), 0.0
    turns = max(1, n // CHUNK)
    for _ in range(turns):
        floor.write(CHUNK)
        seconds += wall_of_threads(THREADS, bind(_chunk))
    return together(seconds, turns * CHUNK * THREADS, floor)


def _chunk(_: int) -> None:
    for i in range(CHUNK):
        work(i)


class Gaps:
    """A task that measures for how long the loop runs no other task."""

    def __init__(self) -> None:
        self.longest, self._task = 0.0, asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.longest, last = max(self.longest, now - last), now

    def stop(self) -> float:
        """Return the longest gap in milliseconds."""
        self._task.cancel()
        return self.longest * 1e3


@workflow
async def in_gather(n: int, block: int) -> dict[str, float]:
    """Steps of tasks that begin at once."""
    floor = Floor(ARGS.folder, b"x" * block)
    floor.write(CHUNK)
    gaps = Gaps()
    await asyncio.sleep(0)
    began = time.perf_counter()
    await asyncio.gather(*(work_async(i) for i in range(n)))
    seconds, gap_ms = time.perf_counter() - began, gaps.stop()
    floor.write(CHUNK)
    return {**together(seconds, n, floor), "gap_ms": gap_ms}


@workflow
async def in_turns(n: int, block: int) -> dict[str, float]:
    """Steps of one task, the floor between."""
    floor, seconds = Floor(ARGS.folder, b"x" * block), 0.0
    for i in range(n):
        floor.tick(i)
        began = time.perf_counter()
        await work_async(i)
        seconds += time.perf_counter() - began
    return together(seconds, n, floor)


def measure() -> dict[str, float]:
    """What the option says."""
    size = _prepare("commit")
    if ARGS.option == "threads":
        return in_threads(ARGS.n, size)
    if ARGS.option == "task":
        return asyncio.run(_run(in_turns, size))
    durable = asyncio.run(_run(in_gather, size))
    _prepare("os")
    unsynced = asyncio.run(_run(in_gather, size))
    return {**durable, "gap_os_ms": unsynced["gap_ms"], "step_os_us": unsynced["step_us"]}


async def _run(flow: Any, size: int) -> dict[str, float]:
    return cast("dict[str, float]", await flow(ARGS.n, size))


def _prepare(durability: Durability) -> int:
    log_dir = ARGS.folder / durability
    configure(log_dir=log_dir, durability=durability, spans=False)
    warm.options(workflow_id="warm")(WARM)
    return round(step_bytes(log_dir / "warm.jsonl"))


if __name__ == "__main__":
    answer("msgspec", "pydantic", **measure())
