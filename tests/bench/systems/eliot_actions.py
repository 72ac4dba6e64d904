"""Eliot with its own file destination: an action with its result (no sync, no resume, no chain)."""

from __future__ import annotations

from eliot import start_action, to_file

from .common import Arguments, Floor, answer, arguments, folder_bytes, result, timed_steps

WARM = 100


def work(i: int) -> None:
    """One action: a start line, and an end line that holds the result."""
    with start_action(action_type="work", i=i) as action:
        action.add_success_fields(result=result(i))


def measure(args: Arguments) -> dict[str, float]:
    """Mean time of an action, inside an action as a step is inside a workflow."""
    path = args.folder / "eliot.log"
    to_file(path.open("wb"))
    with start_action(action_type="bench"):
        for i in range(WARM):
            work(i)
        before = folder_bytes([path])
        numbers = timed_steps(args.n, Floor(args.folder, synced=False), work)
    return {**numbers, "bytes_per_step": (folder_bytes([path]) - before) / args.n}


if __name__ == "__main__":
    answer("eliot", "orjson", **measure(arguments()))
