"""``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tapps_otel import settings
from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import command, out
from tapps_otel.otel.environment import traces_wanted
from tapps_otel.report.history import mark
from tapps_otel.report.lines import Line, Piece, columns, took
from tapps_otel.report.progress import Progress
from tapps_otel.report.text import few, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tapps_otel.cli.terminal import Terminal
    from tapps_otel.demo import Outcome
    from tapps_otel.log.event import Event
    from tapps_otel.past.fold import StepHistory

__all__ = ["demo"]


def demo(*, log_dir: Path | None) -> Code:
    """``demo``: show it, then say in one screen what happened."""
    from tapps_otel.demo import SOURCES, Demo
    from tapps_otel.run.lookup import store_of

    terminal = out()
    shown = Demo(store_of(log_dir).folder)
    words = f"A workflow begins in a process of its own. It reads the folder {SOURCES.name}:"
    terminal.say(Line.of((words, "strong")))
    _play(terminal, shown.begin())
    terminal.say(
        Line.of((f"✗ kill -9 of that process, in the middle of {few(shown.cut)}", "bad")),
        Line.of(("Another process resumes it:", "strong")),
    )
    _play(terminal, shown.go_on())
    outcome = shown.outcome()
    terminal.say(Line(), *_screen(outcome, log_dir))
    return Code.FAILED if outcome.again or not outcome.verified.ok else Code.OK


def _play(terminal: Terminal, events: Iterable[Event]) -> None:
    progress = Progress()
    for event in events:
        line = progress.feed(event)
        if line is not None:
            terminal.say(Line([Piece("  "), *line]))


def _screen(outcome: Outcome, log_dir: Path | None) -> Iterator[Line]:
    """What happened, and what to try next: not more than a small terminal holds."""
    history, verified = outcome.history, outcome.verified
    yield Line.of((_headline(outcome), "bad" if outcome.again else "good"))
    yield from columns(_step_rows(outcome), indent=2)
    whole = ("whole", "good") if verified.ok else ("damaged", "bad")
    yield Line.of(f"The log has {verified.log.seq} events, and its chain is ", whole, ":")
    yield Line.of(f"  {_near(outcome.log)}")
    yield Line.of("What the workflow made is a report:")
    yield Line.of(f"  {_near(outcome.report)}")
    if traces_wanted(settings.current()):
        yield Line.of(f"At your collector it is trace {plain(history.trace_id)}")
        if "not sent" in outcome.said:
            yield Line.of((plain(outcome.said), "warn"))
    yield Line.of(("Try next:", "strong"))
    name = plain(history.workflow_id)
    follow_up = {
        f"show {name}": "its history",
        f"verify {name}": "its log",
        f"resume {name}": "its result",
        "list": "all runs",
    }
    if traces_wanted(settings.current()):
        follow_up[f"open {name}"] = "its trace in Jaeger"
    yield from columns(
        (
            (Piece(plain(command(arguments, log_dir))), Piece(f"# {what}", "dim"))
            for arguments, what in follow_up.items()
        ),
        indent=2,
    )


def _headline(outcome: Outcome) -> str:
    if outcome.again:
        return f"Finished steps ran again: {few(outcome.again)}. That must not be."
    done, cut = len(outcome.finished), len(outcome.cut)
    return (
        f"Killed and resumed: {done} finished steps came from the log, {cut} cut short ran again."
    )


def _step_rows(outcome: Outcome) -> Iterator[list[Line | Piece]]:
    yield [Piece(title, "dim") for title in ("  STEP", "FIRST PROCESS", "SECOND PROCESS")]
    for step in outcome.history.steps:
        cells = [_cell(step, execution) for execution in (1, 2)]
        if step.last.execution == 1:
            cells[1] = Piece("from the log", "good")
        yield [Line([mark(step.status), Piece(f" {plain(step.step_id)}")]), *cells]


def _cell(step: StepHistory, execution: int) -> Piece:
    attempts = [one for one in step.attempts if one.execution == execution]
    if not attempts:
        return Piece("-", "dim")
    last = attempts[-1]
    if last.status == "interrupted":
        return Piece(f"killed after {took(last.duration_ns)}", "warn")
    again = f", attempt {last.number}" if last.number > 1 else ""
    return Piece(f"{took(last.duration_ns)}{again}")


def _near(path: Path) -> str:
    """A path as one types it here."""
    here = Path.cwd()
    return plain(str(path.relative_to(here) if path.is_relative_to(here) else path))
