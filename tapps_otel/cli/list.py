"""``list``: the runs in a log folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import err, out, write_json
from tapps_otel.report.history import mark
from tapps_otel.report.lines import Line, Piece, columns, day_time
from tapps_otel.report.text import counted, plain, shorten

if TYPE_CHECKING:
    from tapps_otel.log.store import RunSummary

__all__ = ["list_runs"]

_NAME, _PROBLEM = 100, 500  # columns: a log may hold a name of any length
_TITLES = ("  RUN", "STATUS", "LAST WRITTEN (UTC)", "WORKFLOW", "LAST STEP")


def list_runs(filters: dict[str, Any], last: int, *, as_json: bool, log_dir: Path | None) -> Code:
    """List the runs, newest first.

    :param last: at most this many; 0 for all
    """
    from tapps_otel.run import queries
    from tapps_otel.run.lookup import store_of

    # One more than is shown, to know whether there are more.
    limit = last + 1 if last else None
    found = list(queries.list_runs(**filters, last=limit, log_dir=log_dir))
    shown = found[:last] if last else found
    if as_json:
        write_json([asdict(one) for one in shown])
        return Code.OK
    if not shown:
        err().say(f"no runs in {plain(str(store_of(log_dir).folder))}")
        return Code.OK
    out().say(*columns(_rows(shown)))
    if len(found) > len(shown):
        words = f"only the last {counted(last, 'run')}: --last N shows more, --last 0 all"
        err().say(Line.of((words, "dim")))
    return Code.OK


def _rows(found: list[RunSummary]) -> Iterator[list[Line | Piece]]:
    yield [Piece(title, "dim") for title in _TITLES]
    for one in found:
        sign, last_step = mark(one.status), one.last_step or "-"
        yield [
            Line([sign, Piece(f" {plain(one.workflow_id)}", "strong")]),
            Piece(_cut(one.status, _NAME), sign.style),
            Piece(day_time(one.last_ns) if one.last_ns is not None else "-"),
            Piece(_cut(one.workflow or "-", _NAME)),
            Piece(_cut(one.problem, _PROBLEM) if one.problem else _cut(last_step, _NAME), "dim"),
        ]


def _cut(text: str, columns: int) -> str:
    return shorten(plain(text[: columns + 1]), columns)
