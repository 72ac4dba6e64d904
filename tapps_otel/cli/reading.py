"""Commands that only look: ``list``, ``show``, ``schema``."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import asdict

from tapps_otel import clock
from tapps_otel.cli.codes import Code, refuse_usage
from tapps_otel.cli.terminal import command, err, out, say_error, write_json
from tapps_otel.errors import LogDamagedError, LogVersionError, RunNotFoundError
from tapps_otel.report import history as report
from tapps_otel.report.lines import Line, Piece, columns, day_time
from tapps_otel.report.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.log.store import RunSummary
    from tapps_otel.past.fold import RunHistory

__all__ = ["list_runs", "moment", "schema", "show"]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment(text: str) -> int:
    """``2h`` ago, or a day or time, as ns since 1970 UTC."""
    span = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    if span:
        return clock.time_ns() - int(span[1]) * _UNITS[span[2]] * 1_000_000_000
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        refuse_usage(f"{text!r} is no time: 90s, 15m, 2h, 3d, 2026-11-24 or 2026-11-24T13:30")
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000


# -- list


def list_runs(filters: dict[str, Any], last: int, *, as_json: bool, log_dir: Path | None) -> Code:
    """``list``: the runs, newest first."""
    from tapps_otel.run.opening import store_of
    from tapps_otel.run.queries import list_runs

    found = list(list_runs(**filters, last=last + 1 if last else None, log_dir=log_dir))
    more = bool(last) and len(found) > last
    found = found[:last] if more else found
    if as_json:
        write_json([asdict(one) for one in found])
        return Code.OK
    if not found:
        err().say(f"no runs in {plain(str(store_of(log_dir).folder))}")
        return Code.OK
    terminal = out()
    terminal.say(*columns(_list_rows(found)))
    if more:
        err().say(Line.of((f"the last {last}; more by --last N, all by --last 0", "dim")))
    return Code.OK


def _list_rows(found: list[RunSummary]) -> Iterator[list[Line | Piece]]:
    titles = ("  RUN", "STATUS", "LAST WRITTEN (UTC)", "WORKFLOW", "LAST STEP")
    yield [Piece(title, "dim") for title in titles]
    for one in found:
        yield [
            Line([report.mark(one.status), Piece(f" {plain(one.workflow_id)}", "strong")]),
            Piece(plain(one.status), report.mark(one.status).style),
            Piece(day_time(one.last_ns) if one.last_ns is not None else "-"),
            Piece(plain(one.workflow or "-")),
            Piece(plain(one.problem or one.last_step or "-"), "dim"),
        ]


# -- show


def show(workflow_id: str, *, as_json: bool, log_dir: Path | None) -> Code:
    """``show``: a run's history, as far as its log can be read."""
    from tapps_otel.log import lease
    from tapps_otel.run.opening import find

    store, workflow_id = find(workflow_id, log_dir)
    store.summary(workflow_id)  # a file that is not ours is no run
    history, torn, damage = _look(store.log_path(workflow_id), workflow_id, store.folder)
    holder = lease.holder(store.lease_path(workflow_id))
    if history.status == "running" and holder is None and history.executions:
        history.status = history.executions[-1].status = "interrupted"
    link = _trace_link(history)
    if as_json:
        problem = None if damage is None else str(damage)
        log = {"path": str(store.log_path(workflow_id)), "problem": problem, "unfinished": torn}
        held = holder and {"pid": holder[0], "host": holder[1]}
        write_json({**report.as_json(history), "trace_url": link, "holder": held, "log": log})
    else:
        notes = [] if torn is None else [Line.of(("log end   ", "dim"), (torn, "warn"))]
        following = report.next_step(history) if damage is None and holder is None else None
        place = f"{plain(str(store.log_path(workflow_id)))}, {history.seq} events"
        notes.append(Line.of(("log       ", "dim"), place))
        if link is not None:
            notes.append(Line.of(("jaeger    ", "dim"), link))
        if following is not None:
            notes.append(Line.of(("next      ", "dim"), plain(command(following, log_dir))))
        _write_history(history, holder, notes)
    if damage is None:
        return Code.OK
    say_error(str(damage))
    return Code.FAILED


def _trace_link(history: RunHistory) -> str | None:
    """Where the run's trace can be looked at, if a Jaeger is known."""
    from tapps_otel import settings
    from tapps_otel.otel.transport.jaeger import trace_url, url_of

    url = url_of(settings.current()) if history.trace_id else None
    return None if url is None else trace_url(url, history.trace_id)


def _look(
    path: Path, workflow_id: str, folder: Path
) -> tuple[RunHistory, str | None, LogDamagedError | LogVersionError | None]:
    """Fold the log as far as it can be read; what stands at its end, and what is wrong there."""
    from tapps_otel.log.reader import Checker, read
    from tapps_otel.past.fold import Fold, collector_paused

    fold, checker = Fold(workflow_id), Checker(path, workflow_id)
    try:
        with collector_paused():
            for event in read(path, workflow_id, checker=checker):
                fold.feed(event)
    except FileNotFoundError:
        raise RunNotFoundError(workflow_id, folder) from None
    except (LogDamagedError, LogVersionError) as error:
        return fold.history, None, error
    region = checker.region
    torn = None
    if region is not None:
        torn = f"{region.length} bytes at byte {region.offset}: {region.problem} (no damage)"
    return fold.history, torn, None


def _write_history(
    history: RunHistory, holder: tuple[int | None, str | None] | None, notes: list[Line]
) -> None:
    terminal = out()
    sections = (
        report.header(history, columns_wide=terminal.width),
        report.execution_lines(history),
        report.step_lines(history),
        [*report.remarks(history), *report.outlook(history, holder), *notes],
    )
    for number, section in enumerate(one for one in sections if one):
        terminal.say(*([Line()] if number else []), *section)


# -- schema


def schema() -> Code:
    """``schema``: the JSON Schema of an event."""
    from tapps_otel.log.model import json_schema

    write_json(json_schema())
    return Code.OK
