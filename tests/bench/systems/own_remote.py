"""This project: steps in workers of an engine, and the engine's bare calls, in turns.

In parallel, and one after another. A cluster is given as many steps at a time as bare calls,
because what it takes for one call is mostly waiting; a pool only as many as it has processes. The
floor is one thread's: an ``os.write`` of the bytes of a step, and its sync.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from tapps_otel import bind, configure, workflow
from tapps_otel.engines import local

from .common import CHUNK, Floor, answer, arguments
from .own_steps import step_bytes
from .remote_step import bare, work

ARGS = arguments()
WARM = 100


def _all(executor: Executor, fn: Callable[[int], int], numbers: Iterable[int]) -> None:
    """Execute all calls side by side."""
    for _ in executor.map(fn, numbers):
        pass


def _each(executor: Executor, fn: Callable[[int], int], numbers: Iterable[int]) -> None:
    """Execute one call after another."""
    for number in numbers:
        executor.submit(fn, number).result()


@workflow
def warm(n: int) -> int:
    """The steps that are not timed: their lines tell the bytes of one."""
    with bind(local.start("pool")) as workers:
        _all(workers, work, range(n))
    return n


@workflow
def timed(n: int, block: int) -> dict[str, float]:
    """Chunks of steps, of bare calls, of local steps and of the floor."""
    floor = Floor(ARGS.folder, b"x" * block)
    spent: dict[str, float] = {}
    engine = local.start(ARGS.option)
    turns = max(1, n // CHUNK)

    def take(name: str, act: Callable[..., None], *args: object) -> None:
        began = time.perf_counter()
        act(*args)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - began

    with bind(engine, at_once=None if ARGS.option == "pool" else CHUNK) as workers:
        _all(engine, bare, range(WARM))
        _all(workers, work, range(-WARM, 0))
        for turn in range(turns):
            first = 2 * turn * CHUNK
            here, there = range(first, first + CHUNK), range(first + CHUNK, first + 2 * CHUNK)
            floor.write(CHUNK)
            take("bare_us", _all, engine, bare, here)
            take("step_us", _all, workers, work, here)
            floor.write(CHUNK)
            take("bare_turn_us", _each, engine, bare, there)
            take("turn_us", _each, workers, work, there)
            take("local_us", _local, there)
    found = {name: seconds / (turns * CHUNK) * 1e6 for name, seconds in spent.items()}
    in_turns = found["bare_turn_us"] + found["local_us"]
    return {**found, "bare_and_local_us": in_turns, "floor_us": floor.each_us}


def _local(numbers: Iterable[int]) -> None:
    for number in numbers:
        work.options(key=f"local {number}")(number)


def measure() -> dict[str, float]:
    """What the option's engine takes."""
    configure(log_dir=ARGS.folder / "log", spans=False)
    warm.options(workflow_id="warm")(WARM)
    block = round(step_bytes(ARGS.folder / "log" / "warm.jsonl"))
    return timed(ARGS.n, block)


if __name__ == "__main__":
    answer("msgspec", **measure())
