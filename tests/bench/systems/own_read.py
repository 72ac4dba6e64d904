"""This project: checking a log's chain, and folding its events, in events a second and in memory.

``check`` reads the file, checks every byte and keeps nothing: its memory must not grow with the
file. ``fold`` is given events that are decoded already; ``history`` is the whole way from the file,
and its memory is that of a history with every step and result in it.
"""

from __future__ import annotations

import statistics
import time
from itertools import islice
from pathlib import Path

from tapps_otel.log import reader
from tapps_otel.log.event import Event, decode
from tapps_otel.log.store import Store
from tapps_otel.past.fold import Fold, collector_paused, fold

from .common import Arguments, answer, arguments, peak_rss_mb, rss_mb

BATCH = 10_000
LOOKS = 100


def measure_check(path: Path) -> dict[str, float]:
    """The check of a whole file."""
    before = rss_mb()
    began = time.perf_counter()
    report = reader.check(path, "bench")
    took = time.perf_counter() - began
    if not report.ok:
        raise RuntimeError(f"the made log does not check: {report}")
    peak = peak_rss_mb()
    return {"check_per_s": report.seq / took, "peak_rss_mb": peak, "grown_rss_mb": peak - before}


def measure_history(path: Path) -> dict[str, float]:
    """From the file to a run's history."""
    before = rss_mb()
    began = time.perf_counter()
    history = fold("bench", reader.read(path, "bench"))
    took = time.perf_counter() - began
    peak = peak_rss_mb()
    grown_bytes = (peak - before) * 1e6
    return {
        "history_per_s": history.seq / took,
        "peak_rss_mb": peak,
        "rss_bytes_per_step": grown_bytes / len(history.by_id),
    }


def measure_fold(path: Path) -> dict[str, float]:
    """The fold alone, without the time that reading takes."""
    folded, count, seconds = Fold("bench"), 0, 0.0
    with path.open("rb") as file, collector_paused():
        decoded = map(decode, file)
        while batch := list(islice(decoded, BATCH)):
            began = time.perf_counter()
            feed(folded, batch)
            seconds += time.perf_counter() - began
            count += len(batch)
    return {"fold_per_s": count / seconds}


def feed(folded: Fold, batch: list[Event]) -> None:
    """Give a batch of events to the fold."""
    take = folded.feed
    for event in batch:
        take(event)


def measure_last_step(path: Path) -> dict[str, float]:
    """The last step from the log's end: the first look of a process, and the median of more."""
    store, times = Store(path.parent), []
    for _ in range(LOOKS):
        began = time.perf_counter()
        last_step = store.summary("bench").last_step
        times.append((time.perf_counter() - began) * 1e3)
        if last_step is None or not last_step.startswith("work#"):
            raise RuntimeError(f"the last step is not {last_step}")
    return {"last_step_ms": statistics.median(times), "first_look_ms": times[0]}


MEASURES = {
    "check": measure_check,
    "fold": measure_fold,
    "history": measure_history,
    "last_step": measure_last_step,
}


def measure(args: Arguments) -> dict[str, float]:
    """Run the measurement that the option names."""
    return MEASURES[args.option](args.folder / "log" / "bench.jsonl")


if __name__ == "__main__":
    answer("msgspec", **measure(arguments()))
