"""DBOS, with SQLite by default: a durable step, and what a resume of finished steps costs.

Resume: ``DBOS.launch()`` finds the pending workflow and hands it to its queue, which polls once a
second. So there are two numbers: from the launch, which a user waits for, and from the moment the
workflow's function is entered again, which leaves the launch and the polling out (the kinder one,
used for the ratio).
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from dbos import DBOS, DBOSConfig, SetWorkflowID

from . import postgres
from .common import CRASHED, Arguments, Floor, against, answer, arguments, folder_bytes, result

ARGS = arguments()
WARM = 20
arrived = threading.Event()
at: dict[str, float] = {}


@DBOS.step()  # type: ignore[untyped-decorator]
def work(i: int) -> dict[str, object]:
    """One step; in the one after the last, a run to be resumed dies, and its resume arrives."""
    if ARGS.option == "resume" and i == ARGS.n:
        if ARGS.stage == "prepare":
            os._exit(CRASHED)
        at["first_new_step"] = time.perf_counter()
        arrived.set()
    return result(i)


@DBOS.workflow()  # type: ignore[untyped-decorator]
def steps(n: int) -> int:
    """The run whose steps are timed."""
    return sum(bool(work(i)) for i in range(n))


@DBOS.workflow()  # type: ignore[untyped-decorator]
def timed(n: int) -> dict[str, float]:
    """The run whose steps alternate with the floor's writes."""
    floor = Floor(ARGS.folder)
    began = time.perf_counter()
    for i in range(n):
        floor.tick(i)
        work(i)
    return against(time.perf_counter() - began, n, floor)


@DBOS.workflow()  # type: ignore[untyped-decorator]
def crashing(n: int) -> int:
    """The run that dies in step ``n``, after ``n`` finished ones."""
    at["entered"] = time.perf_counter()
    for i in range(n + 1):
        work(i)
    return n


def launch(database: Path | str) -> None:
    """Start DBOS on a file of SQLite, or on the database of an address."""
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": database if isinstance(database, str) else f"sqlite:///{database}",
        "application_version": "bench",
        "executor_id": "bench",
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()


def measure_steps() -> dict[str, float]:
    """Mean time of a durable step inside a workflow."""
    if ARGS.option == "postgres":
        with postgres.server() as address:
            launch(f"postgresql+psycopg://{address}")
            steps(WARM)
            in_postgres: dict[str, float] = timed(ARGS.n)
            return in_postgres
    database = ARGS.folder / "dbos.sqlite"
    launch(database)
    steps(WARM)
    before = folder_bytes([database])
    numbers = timed(ARGS.n)
    return {**numbers, "bytes_per_step": (folder_bytes([database]) - before) / ARGS.n}


def prepare_resume() -> None:
    """Run ``n`` steps and die in the next one."""
    launch(ARGS.folder / "dbos.sqlite")
    with SetWorkflowID("bench"):
        crashing(ARGS.n)


def measure_resume() -> dict[str, float]:
    """Time until the first new step, from the launch and from the function's entry."""
    began = time.perf_counter()
    launch(ARGS.folder / "dbos.sqlite")
    if not arrived.wait(300):
        raise TimeoutError("DBOS did not take the run up again within 300 s")
    return {
        "first_new_step_ms": (at["first_new_step"] - at["entered"]) * 1e3,
        "from_launch_ms": (at["first_new_step"] - began) * 1e3,
    }


def main(args: Arguments) -> None:
    """Do what was asked, and leave without waiting for DBOS's threads."""
    if args.stage == "prepare":
        prepare_resume()
    answer(
        "dbos", "sqlalchemy", **(measure_resume() if args.option == "resume" else measure_steps())
    )
    os._exit(0)


if __name__ == "__main__":
    main(ARGS)
