"""``list``: the runs in a log folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel import clock
from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import command, err, out, write_json
from tapps_otel.report.history import mark
from tapps_otel.report.lines import Line, Piece, age, day_time, took
from tapps_otel.report.table import Column, table
from tapps_otel.report.text import counted, excerpt, plain

if TYPE_CHECKING:
    from tapps_otel.log.store import RunSummary, Store
    from tapps_otel.report.table import Row

__all__ = ["Order", "list_runs"]

_NAME, _PROBLEM = 100, 500  # columns: a log may hold a name of any length
_LAYOUT: Final = (
    Column("  RUN", least=25),
    Column("STATUS"),
    Column("AGE", rank=1),
    Column("LAST WRITTEN (UTC)", rank=6),
    Column("STEPS", rank=2),
    Column("TOOK", rank=4),
    Column("WORKFLOW", least=8, rank=5),
    Column("LAST STEP", least=12, rank=3),
)


class Order(NamedTuple):
    """The order of a list.

    :ivar by: a word of ``list --sort``
    """

    by: str = "last"
    reverse: bool = False


# The longest and the latest come first, names in their order; what is not known comes last.
_KEYS: Final[dict[str, Callable[[RunSummary, int], Any]]] = {
    "started": lambda run, _: -(run.started_ns or 0),
    "took": lambda run, now_ns: -(_duration_ns(run, now_ns) or 0),
    "status": lambda run, _: run.status,
    "workflow": lambda run, _: run.workflow or "",
    "name": lambda run, _: run.workflow_id,
}


def list_runs(
    filters: dict[str, Any], last: int, order: Order, *, as_json: bool, log_dir: Path | None
) -> Code:
    """List the runs.

    :param filters: as :func:`tapps_otel.list_runs` takes them
    :param last: at most this many, the first in that order; 0 for all
    """
    from tapps_otel.run.lookup import store_of

    store = store_of(log_dir)
    now_ns = clock.time_ns()
    found = _found(store, filters, last, order, now_ns)
    shown = [store.counted(one) for one in (found[:last] if last else found)]
    if as_json:
        write_json([_json(one) for one in shown])
        return Code.OK
    if not shown:
        _say_nothing_found(store, filters, log_dir)
        return Code.OK
    out().say(*table(_LAYOUT, [*_rows(shown, now_ns)], wide=out().width))
    if len(found) > len(shown):
        words = f"only the {'last' if order == Order() else 'first'} {counted(last, 'run')}"
        err().say(Line.of((f"{words}: --last N shows more, --last 0 all", "dim")))
    return Code.OK


def _found(
    store: Store, filters: dict[str, Any], last: int, order: Order, now_ns: int
) -> list[RunSummary]:
    """Return the runs in their order: one more than is shown, to know whether there are more."""
    if order == Order():
        return [*store.runs(**filters, last=last + 1 if last else None)]
    found = [*store.runs(**filters)]
    key = _KEYS.get(order.by)
    if key is not None:
        found.sort(key=lambda run: key(run, now_ns))
    return found[::-1] if order.reverse else found


def _say_nothing_found(store: Store, filters: dict[str, Any], log_dir: Path | None) -> None:
    place = plain(store.shown)
    if store.last() is None:
        err().say(f"no runs in {place}")
        return
    given = [name.removesuffix("_ns") for name, value in filters.items() if value is not None]
    options = " and ".join(f"--{name}" for name in given)
    shows_all = plain(command("list", log_dir))
    err().say(f"no run in {place} matches {options}: `{shows_all}` shows what there is")


def _json(run: RunSummary) -> dict[str, Any]:
    from msgspec.structs import asdict

    return {**asdict(run), "duration_ns": run.duration_ns}


def _rows(found: list[RunSummary], now_ns: int) -> Iterator[Row]:
    for one in found:
        sign = mark(one.status)
        yield [
            Line([sign, Piece(f" {plain(one.workflow_id)}", "strong")]),
            Piece(excerpt(one.status, _NAME), sign.style),
            Piece("-" if one.last_ns is None else age(now_ns - one.last_ns)),
            Piece("-" if one.last_ns is None else day_time(one.last_ns), "dim"),
            Piece(_steps(one)),
            Piece(took(_duration_ns(one, now_ns)) or "-"),
            Piece(_workflow(one)),
            _last(one),
        ]


def _steps(run: RunSummary) -> str:
    if run.steps is not None:
        return f"{run.steps_done}/{run.steps}"
    return f"{run.seq} events" if run.seq else "-"


def _duration_ns(run: RunSummary, now_ns: int) -> int | None:
    """Return how long a run took; of one in progress, how long it has taken."""
    if run.status == "running" and run.started_ns is not None:
        return max(0, now_ns - run.started_ns)
    return run.duration_ns


def _workflow(run: RunSummary) -> str:
    """Return the workflow's name, and the chain of runs that the run was forked from."""
    name = excerpt(run.workflow or "-", _NAME)
    return (
        f"{name} (fork of {excerpt(' < '.join(run.forked_from), _NAME)})"
        if run.forked_from
        else name
    )


def _last(run: RunSummary) -> Piece:
    """Return what is wrong with a run, what it asks, or its last step."""
    if run.problem or run.error:
        return Piece(excerpt(run.problem or run.error or "", _PROBLEM), "bad")
    if run.status in {"paused", "answered"} and run.question:
        return Piece(excerpt(run.question, _NAME), "warn")
    return Piece(excerpt(run.last_step or "-", _NAME), "dim")
