"""This project: from the call that resumes a run of ``n`` finished steps to its first new step.

The crashed run is made without syncs, to make it soon; its resume has the default durability.
"""

from __future__ import annotations

import os
import time
from typing import Any

from tapps_otel import configure, step, workflow

from .common import CRASHED, Arguments, answer, arguments, result, rss_mb

ARGS = arguments()
at: dict[str, float] = {}


@step
def work(i: int) -> dict[str, Any]:
    """One step; in the one after the last, the run dies, and its resume arrives."""
    if i == ARGS.n:
        if ARGS.stage == "prepare":
            os._exit(CRASHED)
        at["first_new_step"] = time.perf_counter()
        at["rss_mb"] = rss_mb()
    return result(i)


@workflow
def steps(n: int) -> int:
    """The run: ``n`` steps that finish, and one more."""
    return sum(bool(work(i)) for i in range(n + 1))


def measure(args: Arguments) -> dict[str, float]:
    """The time, and the memory that a resumed run holds for each finished step."""
    configure(log_dir=args.folder / "log", spans=False)
    before, began = rss_mb(), time.perf_counter()
    steps.resume("bench")
    return {
        "first_new_step_ms": (at["first_new_step"] - began) * 1e3,
        "rss_bytes_per_step": (at["rss_mb"] - before) * 1e6 / args.n,
    }


def main(args: Arguments) -> None:
    """Run the measurement that the arguments name."""
    if args.stage == "prepare":
        configure(log_dir=args.folder / "log", durability="os", spans=False)
        steps.options(workflow_id="bench")(args.n)
    answer("msgspec", "pydantic", **measure(args))


if __name__ == "__main__":
    main(ARGS)
