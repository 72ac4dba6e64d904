"""This project: the page of a run, and the difference of two, against reading their histories."""

from __future__ import annotations

import time
from pathlib import Path

from tapps_otel import configure, diff, history
from tapps_otel.log.store import Store
from tapps_otel.report.page.content import Recording, content
from tapps_otel.report.page.render import render
from tapps_otel.run.timelines import read_timeline

from .common import Arguments, answer, arguments, peak_rss_mb


def history_ms(*runs: str) -> float:
    """Reading and folding these runs."""
    began = time.perf_counter()
    for run in runs:
        history(run)
    return (time.perf_counter() - began) * 1e3


def measure_page(folder: Path) -> dict[str, float]:
    """The page of one run, from its file."""
    floor = history_ms("bench")
    began = time.perf_counter()
    recording = Recording()
    made, found = read_timeline(Store(folder), "bench", see=recording.see)
    page = render(content(made, found, recording))
    took = (time.perf_counter() - began) * 1e3
    return {"page_ms": took, "history_ms": floor, "page_mb": len(page.encode()) / 1e6}


def measure_diff(_: Path) -> dict[str, float]:
    """The difference of two runs, from their files."""
    floor = history_ms("bench", "other")
    began = time.perf_counter()
    found = diff("bench", "other")
    took = (time.perf_counter() - began) * 1e3
    if found.equal:
        raise RuntimeError("the made logs do not differ")
    return {"diff_ms": took, "history_ms": floor, "peak_rss_mb": peak_rss_mb()}


MEASURES = {"page": measure_page, "diff": measure_diff}


def measure(args: Arguments) -> dict[str, float]:
    """Run the measurement that the option names."""
    folder = args.folder / "log"
    configure(log_dir=folder)
    return MEASURES[args.option](folder)


if __name__ == "__main__":
    answer("msgspec", **measure(arguments()))
