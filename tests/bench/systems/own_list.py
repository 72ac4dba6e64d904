"""This project: the last 20 of ``n`` runs; the floor is ``scandir`` + ``stat`` of the folder."""

from __future__ import annotations

import time

from tapps_otel import configure, list_runs

from .common import Arguments, answer, arguments, peak_rss_mb
from .scan_folder import scan_ms

LAST = 20


def measure(args: Arguments) -> dict[str, float]:
    """The floor before and after, and the list between; each once, as a command would."""
    folder = args.folder / "log"
    configure(log_dir=folder)
    floor = scan_ms(folder)
    began = time.perf_counter()
    found = list(list_runs(last=LAST))
    took = (time.perf_counter() - began) * 1e3
    if len(found) != LAST:
        raise RuntimeError(f"{len(found)} runs instead of {LAST}")
    floor = (floor + scan_ms(folder)) / 2
    return {"list_ms": took, "scan_ms": floor, "peak_rss_mb": peak_rss_mb()}


if __name__ == "__main__":
    answer("msgspec", **measure(arguments()))
