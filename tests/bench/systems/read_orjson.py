"""The floor of reading a log: ``orjson.loads`` of every line, nothing kept or checked."""

from __future__ import annotations

import time
from pathlib import Path

import orjson

from .common import Arguments, answer, arguments


def read_ms(path: Path) -> tuple[int, float]:
    """How many lines, and the time for all of them."""
    loads, count = orjson.loads, 0
    began = time.perf_counter()
    with path.open("rb") as file:
        for line in file:
            loads(line)
            count += 1
    return count, (time.perf_counter() - began) * 1e3


def measure(args: Arguments) -> dict[str, float]:
    """The log of the fixture, once, as a resume reads it."""
    count, took = read_ms(args.folder / "log" / "bench.jsonl")
    return {"read_ms": took, "lines_per_s": count / took * 1e3}


if __name__ == "__main__":
    answer("orjson", **measure(arguments()))
