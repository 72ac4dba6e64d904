"""``demo``: show a workflow that is killed and resumed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tapps_otel import settings
from tapps_otel.cli.codes import Code
from tapps_otel.cli.output import naming
from tapps_otel.cli.terminal import Terminal, command, err, out
from tapps_otel.cli.usage import refuse_usage
from tapps_otel.engines import local
from tapps_otel.log import files
from tapps_otel.otel.environment import traces_wanted
from tapps_otel.report.history import mark
from tapps_otel.report.lines import Line, Piece, columns, took
from tapps_otel.report.progress import Progress
from tapps_otel.report.text import counted, few, plain

if TYPE_CHECKING:
    from tapps_otel.demo import Demo, Outcome
    from tapps_otel.log.event import Event
    from tapps_otel.past.fold import StepHistory

__all__ = ["demo"]

_START: Final = Line.of(("A workflow starts in a process of its own.", "strong"))
_RESUME: Final = Line.of(("Another process resumes the run.", "strong"))


def demo(*, svg: Path | None, engine: str | None, log_dir: Path | None) -> Code:
    """Show the demo as it happens, then what happened on one screen.

    :param svg: a new file for a picture of it
    :param engine: whose workers execute some of the steps
    """
    how = None if engine is None else local.how_to_install(engine)
    if how is not None:
        refuse_usage(f"--on {engine} needs a package that is not installed here: {how}")
    if svg is None:
        return _demo(log_dir, engine)[1]
    with (
        naming(svg, "name another, or remove it"),
        files.system().new_file(svg, replace=False, sync=False) as descriptor,
    ):
        outcome, code = _demo(log_dir, engine)
        files.system().write(descriptor, _picture(outcome).encode())
    err().say(Line.of(("wrote    ", "good"), (plain(str(svg)), "strong")))
    return code


def _demo(log_dir: Path | None, engine: str | None) -> tuple[Outcome, Code]:
    from tapps_otel.demo import SOURCES, Demo
    from tapps_otel.run.lookup import store_of

    terminal = out()
    shown = Demo(store_of(log_dir).folder, engine)
    terminal.say(_START, f"It reads the folder {SOURCES.name} and writes a report about it.")
    _show_progress(terminal, _with_killed_worker(terminal, shown))
    terminal.say(_kill(shown.interrupted), _RESUME)
    if shown.elsewhere is not None:
        where = plain(shown.elsewhere.name)
        terminal.say(f"As on another machine: in the folder {where}, with the log from the store.")
    _show_progress(terminal, shown.resume())
    outcome = shown.outcome()
    terminal.say(Line(), *_screen(outcome, log_dir))
    failed = outcome.repeated or not outcome.verified.ok
    return outcome, Code.FAILED if failed else Code.OK


def _with_killed_worker(terminal: Terminal, shown: Demo) -> Iterator[Event]:
    """Yield the events of the first process, and say when a worker is killed."""
    is_told = False
    for event in shown.start_and_kill():
        yield event
        if shown.killed_worker is not None and not is_told:
            is_told = True
            terminal.say(Line.of((f"✗ kill -9 of a worker, process {shown.killed_worker}", "bad")))


def _show_progress(terminal: Terminal, events: Iterable[Event]) -> None:
    progress = Progress()
    for event in events:
        line = progress.feed(event)
        if line is not None:
            terminal.say(Line([Piece("  "), *line]))


def _kill(interrupted: list[str]) -> Line:
    return Line.of((f"✗ kill -9, in the middle of {few(interrupted)}", "bad"))


# -- what happened


def _screen(outcome: Outcome, log_dir: Path | None) -> Iterator[Line]:
    """Yield what happened, and what to try next; it fits on a small terminal."""
    yield from _result(outcome)
    yield Line.of(f"  {_relative(outcome.log)}")
    yield Line.of("The workflow's result is a report:")
    yield Line.of(f"  {_relative(outcome.report)}")
    traced = traces_wanted(settings.current())
    if traced:
        yield Line.of(f"The trace at your collector is {plain(outcome.history.trace_id)}")
        if "not sent" in outcome.last_line:
            yield Line.of((plain(outcome.last_line), "warn"))
    yield Line.of(("Try next:", "strong"))
    yield from columns(_commands(outcome.history.workflow_id, log_dir, traced=traced), indent=2)


def _result(outcome: Outcome) -> Iterator[Line]:
    yield Line.of((_headline(outcome), "bad" if outcome.repeated else "good"))
    yield from columns(_step_rows(outcome), indent=2)
    events = counted(outcome.verified.log.seq, "event")
    intact = ("intact", "good") if outcome.verified.ok else ("damaged", "bad")
    if outcome.workers:
        trace = plain(outcome.history.trace_id)
        yield Line.of(f"All of it is one trace, {trace}, and one log.")
    yield Line.of(f"The log has {events}, and its hash chain is ", intact, ":")


def _headline(outcome: Outcome) -> str:
    if outcome.repeated:
        return f"Completed steps ran again: {few(outcome.repeated)}. That is a mistake, report it."
    completed = counted(len(outcome.completed), "completed step")
    interrupted = counted(len(outcome.interrupted), "interrupted step")
    return f"Killed and resumed: {completed} came from the log, {interrupted} ran again."


def _step_rows(outcome: Outcome) -> Iterator[list[Line | Piece]]:
    titles = ["  STEP", "FIRST PROCESS", "SECOND PROCESS", *(["WORKER"] if outcome.workers else [])]
    yield [Piece(title, "dim") for title in titles]
    for step in outcome.history.steps:
        cells = [_cell(step, execution) for execution in (1, 2)]
        if step.last.execution == 1:
            cells[1] = Piece("from the log", "good")
        if outcome.workers:
            cells.append(Piece(plain(outcome.workers.get(step.step_id, "-"))))
        yield [Line([mark(step.status), Piece(f" {plain(step.step_id)}")]), *cells]


def _cell(step: StepHistory, execution: int) -> Piece:
    attempts = [one for one in step.attempts if one.execution == execution]
    if not attempts:
        return Piece("-", "dim")
    last = attempts[-1]
    if last.status == "interrupted":
        return Piece(f"killed after {took(last.duration_ns)}", "bad")
    again = "ran again, " if last.number > 1 else ""
    return Piece(f"{again}{took(last.duration_ns)}")


def _commands(workflow_id: str, log_dir: Path | None, *, traced: bool) -> Iterator[list[Piece]]:
    name = plain(workflow_id)
    described = {
        f"show {name}": "its history",
        f"verify {name}": "its log",
        f"resume {name}": "its result",
        "list": "all runs",
    }
    if traced:
        described[f"open {name}"] = "its trace in Jaeger"
    for arguments, what in described.items():
        yield [Piece(plain(command(arguments, log_dir))), Piece(f"# {what}", "dim")]


def _relative(path: Path) -> str:
    """Return a path as short as it can be typed here."""
    here = Path.cwd()
    return plain(str(path.relative_to(here) if path.is_relative_to(here) else path))


# -- the picture


def _picture(outcome: Outcome) -> str:
    """Draw what the demo shows, without what scrolls by and without the places of files."""
    from tapps_otel.cli.picture import svg

    *result, log = _result(outcome)
    lines = [
        Line.of(("$ ", "dim"), ("tapps-otel demo", "strong")),
        _START,
        _kill(outcome.interrupted),
        _RESUME,
        Line(),
        *result,
        Line(),
        Line([*log[:-1], Piece(".")]),
    ]
    return svg(lines, "A workflow is killed and resumed")
