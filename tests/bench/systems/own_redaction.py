"""This project: a durable step whose inputs are logged, with redaction and without, in turns.

The order of the two changes with each turn, so that neither profits from what the disk does after
the other.
"""

from __future__ import annotations

import time
from typing import Any

from tapps_otel import Run, configure

from .common import CHUNK, answer, arguments, result

ARGS = arguments()
INPUTS = {"topic": "the harbour at night", "length": 1200, "tone": "warm"}


def work(i: int, about: dict[str, Any]) -> dict[str, Any]:
    """One step."""
    return result(i + len(about))


def opened(*, redact: bool) -> Run:
    """A run whose steps are redacted, or not."""
    configure(
        log_dir=ARGS.folder / "log",
        durability="commit",
        spans=False,
        capture_inputs=True,
        redact=redact,
    )
    return Run.open("redacted" if redact else "bare")


def measure() -> dict[str, float]:
    """Time both, a chunk at a time."""
    runs = [opened(redact=True), opened(redact=False)]
    seconds = [0.0, 0.0]
    turns = max(2, ARGS.n // CHUNK)
    for turn in range(turns):
        for which in (0, 1) if turn % 2 else (1, 0):
            began = time.perf_counter()
            for i in range(CHUNK):
                runs[which].call("work", work, i, INPUTS)
            seconds[which] += time.perf_counter() - began
    for run in runs:
        run.close()
    step_us, bare_us = (one / turns / CHUNK * 1e6 for one in seconds)
    return {"step_us": step_us, "bare_us": bare_us, "x_bare": step_us / bare_us}


if __name__ == "__main__":
    answer("msgspec", "pydantic", **measure())
