"""This project: a durable step with redaction and without, in turns.

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


def opened(*, redact: bool, inputs: bool) -> Run:
    """A run whose steps are redacted or not, and have their inputs logged or not."""
    configure(
        log_dir=ARGS.folder / "log",
        durability="commit",
        spans=False,
        capture_inputs=inputs,
        redact=redact,
    )
    return Run.open("measured")


def in_turns(*, inputs: bool) -> tuple[float, float]:
    """Time a step with redaction and without, a chunk at a time; in microseconds."""
    runs = [opened(redact=True, inputs=inputs), opened(redact=False, inputs=inputs)]
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
    redacted, bare = (one / turns / CHUNK * 1e6 for one in seconds)
    return redacted, bare


def measure() -> dict[str, float]:
    """Time both, as a step is by default, and with its inputs in the log."""
    step_us, bare_us = in_turns(inputs=False)
    inputs_us, inputs_bare_us = in_turns(inputs=True)
    return {
        "step_us": step_us,
        "bare_us": bare_us,
        "inputs_us": inputs_us,
        "inputs_bare_us": inputs_bare_us,
    }


if __name__ == "__main__":
    answer("msgspec", "pydantic", **measure())
