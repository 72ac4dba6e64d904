"""``show``: a run's history."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tapps_otel.cli.codes import Code
from tapps_otel.cli.hints import advice_text
from tapps_otel.cli.terminal import out, say_error, write_json
from tapps_otel.errors import LogDamagedError, LogVersionError, RunNotFoundError
from tapps_otel.past.advice import Advice
from tapps_otel.report import history as report
from tapps_otel.report.lines import Line, labelled
from tapps_otel.report.lost_parts import lost_lines
from tapps_otel.report.text import counted, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.past.fold import RunHistory

__all__ = ["show"]

Holder = tuple[int | None, str | None]
_CHILDREN: Final = 3  # child runs of which the command to show them is given


class _Look(NamedTuple):
    """A run's log, as far as it can be read.

    :ivar unfinished: what is at the log's end if its last write was cut short
    :ivar damage: what ended the reading
    """

    path: Path
    history: RunHistory
    unfinished: str | None = None
    damage: LogDamagedError | LogVersionError | None = None


def show(workflow_id: str, *, as_json: bool, log_dir: Path | None) -> Code:
    """Show a run's history, as far as its log can be read."""
    from tapps_otel.log import lease
    from tapps_otel.run.lookup import find

    store, workflow_id = find(workflow_id, log_dir)
    store.summary(workflow_id)  # raises for a file that is not a log
    look = _read(store.log_path(workflow_id), workflow_id)
    holder = lease.holder(store.lease_path(workflow_id))
    _correct_status(look.history, holder)
    link = _trace_link(look.history)
    if as_json:
        _write_json(look, holder, link)
    else:
        _write_text(look, holder, [*_log_lines(look, holder, link, log_dir)])
    if look.damage is None:
        return Code.OK
    say_error(str(look.damage))
    return Code.FAILED


def _read(path: Path, workflow_id: str) -> _Look:
    from tapps_otel.log.reader import Checker, read
    from tapps_otel.past.fold import Fold, collector_paused

    fold, checker = Fold(workflow_id), Checker(path, workflow_id)
    try:
        with collector_paused():
            for event in read(path, workflow_id, checker=checker):
                fold.feed(event)
    except FileNotFoundError:
        raise RunNotFoundError(workflow_id, path.parent) from None
    except (LogDamagedError, LogVersionError) as error:
        return _Look(path, fold.history, damage=error)
    region = checker.region
    if region is None:
        return _Look(path, fold.history)
    size = counted(region.length, "byte")
    text = f"{size} at byte {region.offset}: {region.problem} (no damage)"
    return _Look(path, fold.history, unfinished=text)


def _correct_status(history: RunHistory, holder: Holder | None) -> None:
    """A run that never ended is interrupted if no process holds its lease."""
    if history.status == "running" and holder is None and history.executions:
        history.status = history.executions[-1].status = "interrupted"


def _trace_link(history: RunHistory) -> str | None:
    """Return the address of the run's trace if a Jaeger is known."""
    from tapps_otel import settings
    from tapps_otel.otel.transport.jaeger import trace_url, url_of

    url = url_of(settings.current()) if history.trace_id else None
    return None if url is None else trace_url(url, history.trace_id)


def _write_json(look: _Look, holder: Holder | None, link: str | None) -> None:
    problem = None if look.damage is None else str(look.damage)
    log = {"path": str(look.path), "problem": problem, "unfinished": look.unfinished}
    held = holder and {"pid": holder[0], "host": holder[1]}
    write_json({**report.as_json(look.history), "trace_url": link, "holder": held, "log": log})


def _log_lines(
    look: _Look, holder: Holder | None, link: str | None, log_dir: Path | None
) -> Iterator[Line]:
    """Yield where the log and the trace are, and the commands to choose from next."""
    if look.unfinished is not None:
        yield labelled("log end", look.unfinished, "warn")
    yield labelled("log", f"{plain(str(look.path))}, {counted(look.history.seq, 'event')}")
    if link is not None:
        yield labelled("jaeger", link)
    yield from _related(look.history, log_dir)
    if look.damage is None and holder is None:
        for number, advice in enumerate(report.next_steps(look.history)):
            yield labelled("or" if number else "next", advice_text(advice, log_dir))


def _related(history: RunHistory, log_dir: Path | None) -> Iterator[Line]:
    """Yield the commands that show the run which called this one, and those which it called."""
    children = report.child_runs(history)
    runs = [("child", one.workflow_id, one.log_dir) for one in children[:_CHILDREN]]
    if history.parent is not None:
        runs.insert(0, ("parent", history.parent.workflow_id, history.parent.log_dir))
    for label, workflow_id, folder in runs:
        where = log_dir if folder is None else Path(folder)
        yield labelled(label, advice_text(Advice(f"show {shlex.quote(workflow_id)}"), where))
    if len(children) > _CHILDREN:
        yield labelled("", f"and {counted(len(children) - _CHILDREN, 'more child run')}")


def _write_text(look: _Look, holder: Holder | None, log_lines: list[Line]) -> None:
    terminal, history = out(), look.history
    sections = (
        report.header(history, columns_wide=terminal.width),
        report.execution_lines(history),
        report.step_lines(history),
        lost_lines(history),
        [*report.remarks(history), *report.outlook(history, holder), *log_lines],
    )
    for number, section in enumerate(one for one in sections if one):
        terminal.say(*([Line()] if number else []), *section)
