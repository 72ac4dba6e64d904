"""This project: a step in a workflow, synced (``commit``) or not (``os``), and what a run holds.

The floor writes exactly the bytes that such a step wrote in the warm-up, in one ``os.write`` a
step, and syncs it if the step does.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any, cast

from tapps_otel import configure, step, workflow
from tapps_otel.settings_types import Durability

from .common import Floor, answer, arguments, result, rss_mb, timed_steps

ARGS = arguments()
WARM = 100


@step
def work(i: int) -> dict[str, Any]:
    """One step."""
    return result(i)


@workflow
def warm(n: int) -> int:
    """The steps that are not timed."""
    return sum(bool(work(i)) for i in range(n))


@workflow
def timed(n: int, block: int, synced: bool) -> dict[str, float]:
    """The steps that are."""
    floor = Floor(ARGS.folder, b"x" * (block - 1) + b"\n", synced=synced)
    return timed_steps(n, floor, work)


@workflow
def holding(n: int) -> dict[str, float]:
    """Memory that a long run takes for each step, of which the workflow keeps nothing."""
    gc.collect()
    before = rss_mb()
    for i in range(n):
        work(i)
    gc.collect()
    return {"rss_bytes_per_step": (rss_mb() - before) * 1e6 / n}


def step_bytes(log: Path) -> float:
    """Mean bytes of a step's two lines in this log."""
    with log.open("rb") as file:
        sizes = [len(line) for line in file if b'"event_type":"step_' in line[:60]]
    return 2 * sum(sizes) / len(sizes)


def payload_bytes(n: int) -> float:
    """Mean bytes of a step's result."""
    return sum(len(json.dumps(result(i), separators=(",", ":"))) for i in range(n)) / n


def measure() -> dict[str, float]:
    """What the option says: a durability, or ``memory``."""
    log_dir = ARGS.folder / "log"
    durability = cast("Durability", "os" if ARGS.option == "memory" else ARGS.option)
    configure(log_dir=log_dir, durability=durability, spans=False)
    warm.options(workflow_id="warm")(WARM)
    if ARGS.option == "memory":
        return holding(ARGS.n)
    size = step_bytes(log_dir / "warm.jsonl")
    numbers = timed(ARGS.n, round(size), durability != "os")
    return {
        **numbers,
        "bytes_per_step": size,
        "bytes_per_event": (size - payload_bytes(WARM)) / 2,
    }


if __name__ == "__main__":
    answer("msgspec", "pydantic", **measure())
