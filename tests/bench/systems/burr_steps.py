"""Burr with its local tracker: an unsynced step with a log, and the resume from that log.

Resume: ``initialize_from`` the tracker, from building the application to the body of the next
action.
"""

from __future__ import annotations

import os
import time
from typing import Any

from burr.core import Application, ApplicationBuilder, State, action
from burr.tracking import LocalTrackingClient

from .common import CRASHED, Arguments, Floor, against, answer, arguments, folder_bytes, result

ARGS = arguments()
WARM = 20
arrived: list[float] = []


@action(reads=["i"], writes=["i", "last"])  # type: ignore[untyped-decorator]
def work(state: State) -> tuple[dict[str, object], State]:
    """One step; in the one after the last, a run to be resumed dies, and its resume arrives."""
    i: int = state["i"]
    if ARGS.option == "resume" and i == ARGS.n:
        if ARGS.stage == "prepare":
            os._exit(CRASHED)
        arrived.append(time.perf_counter())
    made: dict[str, object] = {"last": result(i)}
    return made, state.update(i=i + 1, **made)


def build(app_id: str, *, resume: bool = False) -> Application[Any]:
    """An application of one action that follows itself."""
    tracker = LocalTrackingClient(project="bench", storage_dir=str(ARGS.folder / "burr"))
    builder = ApplicationBuilder().with_actions(work).with_transitions(("work", "work"))
    builder = builder.with_tracker(tracker).with_identifiers(app_id=app_id)
    if resume:
        builder = builder.initialize_from(
            tracker, resume_at_next_action=True, default_state={"i": 0}, default_entrypoint="work"
        )
    else:
        builder = builder.with_state(i=0).with_entrypoint("work")
    return builder.build()


def measure_steps() -> dict[str, float]:
    """Mean time of a tracked step."""
    warm = build("warm")
    for _ in range(WARM):
        warm.step()
    app, floor = build("bench"), Floor(ARGS.folder, synced=False)
    began = time.perf_counter()
    for i in range(ARGS.n):
        floor.tick(i)
        app.step()
    numbers = against(time.perf_counter() - began, ARGS.n, floor)
    log = ARGS.folder / "burr" / "bench" / "bench" / LocalTrackingClient.LOG_FILENAME
    return {**numbers, "bytes_per_step": folder_bytes([log]) / ARGS.n}


def prepare_resume() -> None:
    """Run ``n`` steps and die in the next one."""
    app = build("bench")
    while True:
        app.step()


def measure_resume() -> dict[str, float]:
    """Time until the first step that had not finished."""
    began = time.perf_counter()
    build("bench", resume=True).step()
    if not arrived:
        raise RuntimeError(f"Burr did not go on at step {ARGS.n}")
    return {"first_new_step_ms": (arrived[0] - began) * 1e3}


def main(args: Arguments) -> None:
    """Run the measurement that the arguments name."""
    if args.stage == "prepare":
        prepare_resume()
    answer("apache-burr", **(measure_resume() if args.option == "resume" else measure_steps()))


if __name__ == "__main__":
    main(ARGS)
