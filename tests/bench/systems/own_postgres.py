"""This project with its runs in PostgreSQL: a durable step, and a resume on another machine.

The resumed run is pulled from the store; the same resume is measured where its log is, too.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from tapps_otel import configure, step, workflow
from tapps_otel.run.mirrors import migrate, push

from .common import Floor, answer, arguments, result, timed_steps
from .own_steps import WARM, step_bytes
from .postgres import server

ARGS = arguments()
at: dict[str, float] = {}


@step
def work(i: int) -> dict[str, object]:
    """One step; in the one after the last, a run to be resumed dies, and its resumes arrive."""
    if ARGS.option == "resume" and i == ARGS.n:
        if not at:
            os._exit(0)
        at["first_new_step"] = time.perf_counter()
    return result(i)


@workflow
def steps(n: int) -> int:
    """Steps that are not timed."""
    return sum(bool(work(i)) for i in range(n))


@workflow
def timed(n: int, block: int) -> dict[str, float]:
    """Steps that are."""
    floor = Floor(ARGS.folder, b"x" * (block - 1) + b"\n")
    return timed_steps(n, floor, work)


def measure_step() -> dict[str, float]:
    """Mean time of a step, synced in the file and in the store."""
    steps.options(workflow_id="warm")(WARM)
    return timed(ARGS.n, round(step_bytes(ARGS.folder / "log" / "warm.jsonl")))


def measure_resume() -> dict[str, float]:
    """Times from the call to the first new step: where the log is, and where it is not."""
    configure(durability="os")
    child = os.fork()
    if not child:
        steps.options(workflow_id="bench")(ARGS.n + 1)
    os.waitpid(child, 0)
    push("bench")  # nothing waited for its last lines
    shutil.copytree(ARGS.folder / "log", ARGS.folder / "copy")
    store = configure(durability="commit").store
    configure(store=None)
    local_ms = resume(ARGS.folder / "copy")
    configure(store=store)
    return {"first_new_step_ms": resume(ARGS.folder / "elsewhere"), "local_ms": local_ms}


def resume(folder: Path) -> float:
    """Resume the run in this folder; return the milliseconds to its first new step."""
    configure(log_dir=folder)
    at["began"] = time.perf_counter()
    steps.resume("bench")
    return (at["first_new_step"] - at["began"]) * 1e3


def main() -> None:
    """Measure what the option says."""
    with server() as address:
        configure(log_dir=ARGS.folder / "log", spans=False, store=f"postgresql://{address}")
        migrate()
        numbers = measure_resume() if ARGS.option == "resume" else measure_step()
    answer("msgspec", "psycopg", **numbers)


if __name__ == "__main__":
    main()
