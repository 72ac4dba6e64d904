"""A run's timeline as lines of a terminal, and as Markdown. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from tapps_otel.names import without_numbers
from tapps_otel.past.fold import DONE
from tapps_otel.past.usage import sum_of
from tapps_otel.report.history import error_text, gate_text, mark, status_text
from tapps_otel.report.lines import Fact, Line, Piece, clock_time, day_time, took
from tapps_otel.report.scale import Scale
from tapps_otel.report.text import counted, few, markdown, plain, shorten, width, wrap
from tapps_otel.report.usage import tokens_text, usage_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tapps_otel.past.timeline import (
        Downtime,
        Timeline,
        TimelineAttempt,
        TimelineExecution,
        TimelineStep,
    )

__all__ = ["as_markdown", "chart", "costs", "identity", "story", "summary"]

_MOST_ROWS: Final = 60
_WAITED_FOR, _PARALLEL, _WAIT, _DOWN = "█", "▒", "·", "░"
_LEGEND: Final = (
    f"{_WAITED_FOR} the run waited for it",
    f"{_PARALLEL} beside or around that",
    f"{_WAIT} wait before a retry",
    "! killed or interrupted",
    "✗ failed",
    f"{_DOWN} down",
)


# -- what is worth knowing first


def summary(timeline: Timeline) -> Iterator[Fact]:
    """Yield what is worth knowing first: each a label, a text that is safe to show, and a style."""
    yield from identity(timeline)
    yield from story(timeline)
    yield from costs(timeline)
    yield from usage_facts(timeline.usage)
    yield from _log_summary(timeline)


def _log_summary(timeline: Timeline) -> Iterator[Fact]:
    """Yield what is worth knowing of the log: what it lacks, and what is wrong with it."""
    log = timeline.log
    if timeline.dropped:
        yield "gap", f"{counted(timeline.dropped, 'event')} could not be written", "warn"
    if log is not None:
        if log.repairs:
            yield "repairs", f"{len(log.repairs)}, declared in the log: see verify", "warn"
        if log.unfinished is not None:
            yield "log end", log.unfinished, "warn"
        if log.damage is not None:
            yield "damaged", f"shown up to seq {log.seq}: what follows is not in the log", "bad"


def identity(timeline: Timeline) -> Iterator[Fact]:
    """Yield which run it is, its workflow, and how it ended."""
    yield "run", plain(timeline.workflow_id), "strong"
    yield "workflow", plain(timeline.name) or "-", ""
    if timeline.types:
        yield "type", plain(", then ".join(timeline.types)), "warn"
    yield "status", _ended(timeline), mark(timeline.status).style
    if timeline.error is not None:
        yield "error", error_text(timeline.error), "bad"


def _waits(timeline: Timeline) -> Iterator[Fact]:
    """Yield what the run waits for."""
    for step in timeline.steps:
        if step.is_pause and step.status == "paused":
            words = step.attempts[-1].question or "a time"
            yield "waits", f"{plain(step.step_id)}: {plain(words)}", "warn"


def story(timeline: Timeline, *, kept: int = 0) -> Iterator[Fact]:
    """Yield how long it took, what was killed, how long it was down, and what was not run again.

    First what it waits for, if it is paused.

    :param kept: steps that were not run again, besides those in the timeline
    """
    yield from _waits(timeline)
    total = took(timeline.end_ns - timeline.start_ns)
    running, down = took(timeline.running_ns), took(timeline.down_ns)
    yield "time", f"{total}: {running} running, {down} down" if timeline.down_ns else total, ""
    interrupted: dict[int, list[tuple[TimelineStep, TimelineAttempt]]] = {}
    for one in timeline.interrupted:
        interrupted.setdefault(one[1].execution, []).append(one)
    for execution in timeline.executions:
        cut_off = interrupted.get(execution.number, [])
        if execution.killed or cut_off:
            yield "killed" if execution.killed else "stopped", _cut_off(execution, cut_off), "warn"
    for gap in timeline.downtimes:
        yield "down", _down(gap), "warn"
    if failed := _failed_gates(timeline.steps):
        yield "gates", few([f"{plain(step_id)}: {text}" for step_id, text in failed], 4), "warn"
    names = [plain(step.step_id) for step in timeline.not_run_again]
    if count := kept + len(names):
        which = f": {few(names, total=count)}" if names else ""
        yield "kept", f"{counted(count, 'step')} not run again{which}", ""


def costs(timeline: Timeline) -> Iterator[Fact]:
    """Yield which steps the run waited for longest."""
    total = max(1, timeline.running_ns)
    parts = [
        f"{plain(cost.name)} {took(cost.critical_ns)} ({cost.critical_ns / total:.0%})"
        for cost in timeline.costs
    ]
    if parts:
        yield "costs", few(parts, 4), ""


def _failed_gates(steps: Iterable[TimelineStep]) -> list[tuple[str, str]]:
    """Return the steps whose gate has failed in the last attempt, and its result in words."""
    gates = [(step.step_id, step.attempts[-1].gate) for step in steps]
    return [(step_id, gate_text(gate)) for step_id, gate in gates if gate and not gate.passed]


def _ended(timeline: Timeline) -> str:
    if not timeline.executions:
        return "unknown: its start is not in the log" if timeline.steps else "not begun"
    last = timeline.executions[-1]
    count = len(timeline.executions)
    after = f", after {counted(count, 'execution')}" if count > 1 else ""
    return f"{status_text(timeline.status)} at {day_time(last.end_ns)} UTC{after}"


def _cut_off(
    execution: TimelineExecution, cut_off: list[tuple[TimelineStep, TimelineAttempt]]
) -> str:
    steps = few(f"{plain(step.step_id)} after {_at_least(attempt)}" for step, attempt in cut_off)
    where = f"execution {execution.number} at {clock_time(execution.end_ns)}"
    pid, host = execution.process.get("pid"), execution.process.get("host")
    process = "" if pid is None else plain(f", process {pid} on {host}")
    return f"{steps or 'between two steps'} ({where}{process})"


def _at_least(attempt: TimelineAttempt) -> str:
    """Return how long an attempt ran; of one whose process died, the log knows less."""
    return f"{'at least ' if attempt.cut_off else ''}{took(attempt.duration_ns)}"


def _down(one: Downtime) -> str:
    between = f"{clock_time(one.start_ns)} to {clock_time(one.end_ns)}"
    return f"{took(one.duration_ns)} after execution {one.after}, {between}"


# -- the chart


class _Row(NamedTuple):
    """What is in one row: a step, or several of one name.

    :ivar marked: attempts whose ends are marked unless they completed
    """

    label: str
    status: str
    attempts: list[TimelineAttempt]
    marked: list[TimelineAttempt]
    duration_ns: int
    note: str
    cost: int


class _Layout(NamedTuple):
    """Columns of the parts of a row; 0 where there is no room for one."""

    label: int
    bar: int
    took: int
    note: int


def chart(timeline: Timeline, *, columns: int = 100, everything: bool = False) -> list[Line]:
    """Draw the executions, the downtimes and the steps as bars by time.

    :param everything: a row for every step; otherwise many steps are summed up by name
    """
    if not timeline.executions and not timeline.steps:
        return []
    rows, left_out = _rows(timeline, everything=everything)
    labels = [*map(_execution_label, timeline.executions), *(row.label for row in rows)]
    layout = _layout(columns, labels, [row.note for row in rows])
    scale = Scale(timeline, layout.bar)
    lines = [_axis(scale, layout)]
    lines += [_execution_line(one, timeline, scale, layout) for one in timeline.executions]
    lines += [_step_line(row, timeline, scale, layout) for row in rows]
    if left_out:
        text = f"and {counted(left_out, 'row')} more: --all shows everything"
        lines.append(Line.of((shorten(text, columns), "warn")))
    lines += [Line.of((text, "dim")) for text in _legend(lines, scale, columns)]
    return lines


def _rows(timeline: Timeline, *, everything: bool) -> tuple[list[_Row], int]:
    rows = [_row([step]) for step in timeline.steps]
    if everything or len(rows) <= _MOST_ROWS:
        return rows, 0
    rows = [_row(steps) for steps in _by_name(timeline)]
    # Those that are looked for first stay, in their order.
    order = sorted(rows, key=lambda row: (row.status in DONE, -row.cost))
    kept = {id(row) for row in order[:_MOST_ROWS]}
    return [row for row in rows if id(row) in kept], len(rows) - len(kept)


def _by_name(timeline: Timeline) -> Iterable[list[TimelineStep]]:
    """Sum up the steps of one name that are inside the same ones."""
    found: dict[str, list[TimelineStep]] = {}
    for step in timeline.steps:
        found.setdefault(without_numbers(step.step_id), []).append(step)
    return found.values()


def _row(steps: list[TimelineStep]) -> _Row:
    first = steps[0]
    attempts = [attempt for step in steps for attempt in step.attempts]
    bad = [step for step in steps if step.status not in DONE]
    name = plain(first.step_id.rpartition("/")[2]) or "''"
    if len(steps) > 1:
        name = f"{plain(first.name)} x{len(steps)}"
    return _Row(
        "  " * first.depth + f"{mark((bad or steps)[-1].status).text} {name}",
        (bad or steps)[-1].status,
        attempts,
        attempts if len(steps) == 1 else [step.attempts[-1] for step in steps],
        sum(step.duration_ns for step in steps),
        _note(steps, bad, attempts),
        sum(step.critical_ns for step in steps),
    )


def _note(
    steps: list[TimelineStep], bad: list[TimelineStep], attempts: list[TimelineAttempt]
) -> str:
    notes = []
    if bad:
        notes.append(plain(bad[-1].status) if len(steps) == 1 else f"{len(bad)} not completed")
    failed = len(_failed_gates(steps))
    if failed:
        notes.append("gate failed" if len(steps) == 1 else f"{failed} gates failed")
    kept = sum(step.not_run_again for step in steps)
    if kept:
        notes.append("not run again" if kept == len(steps) else f"{kept} not run again")
    if len(attempts) > len(steps):
        notes.append(counted(len(attempts), "attempt"))
    used = sum_of(step.usage for step in steps)
    if used.calls:
        notes.append(tokens_text(used))
    if agent := steps[0].agent:
        notes.append(plain(agent))
    return ", ".join(notes)


def _layout(columns: int, labels: list[str], notes: list[str]) -> _Layout:
    columns = max(20, columns)
    label = min(max(map(width, labels)) + 1, columns * 3 // 10)
    length = 13 if columns >= 50 else 0
    longest = max([0, *map(width, notes)])
    note = min(longest + 1, columns // 4) if longest and columns >= 80 else 0
    return _Layout(label, columns - label - length - note, length, note)


def _axis(scale: Scale, layout: _Layout) -> Line:
    cells = [" "] * layout.bar
    for column, label in scale.ticks():
        cells[column : column + len(label)] = label
    return Line.of((" " * layout.label, ""), ("".join(cells).rstrip(), "dim"))


def _execution_line(
    one: TimelineExecution, timeline: Timeline, scale: Scale, layout: _Layout
) -> Line:
    cells = _background(timeline, scale, layout)
    for down in timeline.downtimes:
        if down.after == one.number:
            _write(cells, scale.cells(down.start_ns, down.end_ns), took(down.duration_ns))
    # After the downtime, which may begin in the same column.
    style, drawn = mark(one.status).style, scale.cells(one.start_ns, one.end_ns)
    for cell in drawn:
        cells[cell] = Piece("━", style)
    _finish(cells, drawn, one.status)
    label = Piece(_execution_label(one), style)
    return _line(label, cells, took(one.duration_ns), plain(one.status), layout)


def _execution_label(one: TimelineExecution) -> str:
    return f"{mark(one.status).text} execution {one.number}"


def _step_line(row: _Row, timeline: Timeline, scale: Scale, layout: _Layout) -> Line:
    cells = _background(timeline, scale, layout)
    for attempt in row.attempts:
        drawn = scale.cells(attempt.start_ns, attempt.end_ns)
        style = mark(attempt.status).style
        if attempt.wait_ns:
            for cell in scale.cells(attempt.end_ns, attempt.end_ns + attempt.wait_ns):
                cells[cell] = Piece(_WAIT, "warn")
        for cell in drawn:
            if cells[cell].text != _WAITED_FOR:
                cells[cell] = Piece(_PARALLEL, style)
        for start, end in attempt.critical:
            # Its own moments between inner steps are drawn only where they fill a column.
            if 2 * (end - start) >= min(attempt.duration_ns, scale.column_ns):
                for cell in scale.cells(start, end):
                    cells[cell] = Piece(_WAITED_FOR, style)
    for attempt in row.marked:
        _finish(cells, scale.cells(attempt.start_ns, attempt.end_ns), attempt.status)
    label = Piece(row.label, mark(row.status).style)
    return _line(label, cells, took(row.duration_ns), row.note, layout)


def _background(timeline: Timeline, scale: Scale, layout: _Layout) -> list[Piece]:
    cells = [Piece(" ")] * layout.bar
    for one in timeline.downtimes:
        # What is shorter than a column is not drawn: it would hide what ran.
        if scale.position(one.end_ns) - scale.position(one.start_ns) >= 1:
            for cell in scale.cells(one.start_ns, one.end_ns):
                cells[cell] = Piece(_DOWN, "dim")
    return cells


def _finish(cells: list[Piece], drawn: range, status: str) -> None:
    """Mark the end of what did not complete, so that it is seen without colours."""
    if status not in DONE:
        cells[drawn[-1]] = mark(status)


def _write(cells: list[Piece], drawn: range, text: str) -> None:
    shown = f" {text} "
    if len(shown) <= len(drawn):
        start = drawn[0] + (len(drawn) - len(shown)) // 2
        cells[start : start + len(shown)] = [Piece(char, "warn") for char in shown]


def _line(label: Piece, cells: list[Piece], length: str, note: str, layout: _Layout) -> Line:
    shown = shorten(label.text, layout.label - 1)
    pieces = [Piece(shown + " " * (layout.label - width(shown)), label.style), *_merged(cells)]
    if layout.took:
        pieces.append(Piece(f"{length:>{layout.took - 1}} "))
    if layout.note:
        pieces.append(Piece(shorten(note, layout.note - 1), "dim"))
    return _stripped(pieces)


def _merged(cells: Iterable[Piece]) -> list[Piece]:
    pieces: list[Piece] = []
    for cell in cells:
        if pieces and pieces[-1].style == cell.style:
            pieces[-1] = Piece(pieces[-1].text + cell.text, cell.style)
        else:
            pieces.append(cell)
    return pieces


def _stripped(pieces: list[Piece]) -> Line:
    while pieces and not pieces[-1].text.strip():
        pieces.pop()
    if pieces:
        pieces[-1] = Piece(pieces[-1].text.rstrip(), pieces[-1].style)
    return Line(pieces)


def _legend(lines: list[Line], scale: Scale, columns: int) -> list[str]:
    """Explain the signs that were drawn."""
    drawn = {char for line in lines for char in line.text}
    known = [one for one in _LEGEND if one[0] in drawn]
    if scale.shortened:
        known[-1] += ", not to scale"
    return ["", *wrap("   ".join(known), columns)]


# -- Markdown


def as_markdown(timeline: Timeline, *, everything: bool = False) -> list[str]:
    """Describe the run as GitHub-flavoured Markdown: facts, chart, and a table of the steps."""
    lines = [f"# {markdown(timeline.name or 'run')}: {markdown(timeline.workflow_id)}", ""]
    lines += [f"- **{label}**: {markdown(text)}" for label, text, _ in summary(timeline)]
    drawn = [line.text for line in chart(timeline, columns=96, everything=everything)]
    if drawn:
        fence = "`" * max(3, 1 + max(map(_longest_backticks, drawn)))
        lines += ["", f"{fence}text", *drawn, fence]
    rows, left_out = _table_rows(timeline, everything=everything)
    if rows:
        lines += ["", "| step | start (UTC) | took | attempts | status | |", "|---" * 6 + "|"]
        lines += [f"| {' | '.join(map(markdown, row))} |" for row in rows]
    if left_out:
        lines += ["", f"{counted(left_out, 'step')} more: `--all` shows everything."]
    return lines


def _table_rows(timeline: Timeline, *, everything: bool) -> tuple[list[list[str]], int]:
    steps = timeline.steps if everything else timeline.steps[:_MOST_ROWS]
    rows = []
    for step in steps:
        last = step.attempts[-1]
        notes = [plain(step.agent)] if step.agent else []
        notes += [tokens_text(step.usage)] if step.usage.calls else []
        notes += ["not run again"] if step.not_run_again else []
        notes += [error_text(last.error)] if last.error is not None else []
        notes += [f"asks {plain(last.question)}"] if last.question else []
        notes += [plain(last.reason)] if last.reason else []
        notes += [gate_text(last.gate)] if last.gate is not None else []
        rows.append(
            [
                plain(step.step_id),
                clock_time(step.start_ns),
                took(step.duration_ns),
                str(len(step.attempts)),
                f"{mark(step.status).text} {plain(step.status)}",
                ", ".join(notes),
            ]
        )
    return rows, len(timeline.steps) - len(rows)


def _longest_backticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
