"""A run on one screen: what became of it, its executions, its steps, what is next. Pure."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from tapps_otel.names import parent_of
from tapps_otel.past.long_run import merged
from tapps_otel.report.history import mark, outlook, remarks, status_text
from tapps_otel.report.lines import Line, Piece, cut, day_time, fact_lines, labelled, took
from tapps_otel.report.lost_parts import lost_lines
from tapps_otel.report.steps import Choice, Steps, step_lines
from tapps_otel.report.table import Column, table
from tapps_otel.report.text import counted, excerpt, few, plain
from tapps_otel.report.timeline import costs, identity, story
from tapps_otel.report.usage import usage_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.past.fold import ForkOrigin
    from tapps_otel.past.timeline import LogState, Timeline
    from tapps_otel.report.lines import Fact
    from tapps_otel.report.table import Row

__all__ = ["Screen", "audit", "run_screen"]

_NAME: Final = 200  # columns of a name
_MOST_COLUMNS: Final = 2000  # of a value
_HEAD: Final = 16  # digits of the head's sha
_MOST_EXECUTIONS: Final = 10
_MOST_COSTS: Final = 4
_ELSEWHERE: Final = {"down", "waits"}  # facts that are told with the executions, and at the end
_MOST_ENDS: Final = 3  # executions of which the first lines tell what was killed
_MOST_REMARKS: Final = 10
_EXECUTIONS: Final = (
    Column(),
    Column(),
    Column(),
    Column(),
    Column(least=12, rank=1),
)


class Screen(NamedTuple):
    """What is shown of a run.

    :ivar holder: process and host that are executing the run, if any
    :ivar wide: columns of the terminal, if it is one
    :ivar verbose: whether all is shown, however long it is
    """

    steps: Steps
    choice: Choice
    holder: tuple[int | None, str | None] | None = None
    wide: int | None = None
    verbose: bool = False

    @property
    def timeline(self) -> Timeline:
        """The run by time."""
        return self.steps.timeline


def run_screen(screen: Screen) -> list[list[Line]]:
    """Describe a run, in sections."""
    history, most = screen.steps.history, None if screen.verbose else _MOST_REMARKS
    kept = sum(group.kept for group in screen.steps.summed_up.values())
    facts = partial(fact_lines, wide=screen.wide, whole=screen.verbose)
    found = [
        facts([*_about(screen), *_story(screen)]),
        _execution_lines(screen),
        step_lines(screen.steps, screen.choice, wide=screen.wide),
        _lost(screen),
        remarks(history, most=most, wide=screen.wide),
        facts(outlook(history, screen.holder, kept=kept)),
    ]
    return [section for section in found if section]


def _about(screen: Screen) -> Iterator[Fact]:
    history = screen.steps.history
    run, workflow, *rest = identity(screen.timeline)
    about = history.workflow
    path = about.get("path") or ", ".join(
        str(about[name]) for name in ("executor", "source") if about.get(name)
    )
    yield run
    yield (workflow[0], workflow[1] + (f" ({plain(path)})" if path else ""), "")
    errors = [fact for fact in rest if fact[0] == "error"]
    yield from (fact for fact in rest if fact not in errors)
    if history.ended_by is not None or history.reason is not None:
        by = "" if history.ended_by is None else f"by {excerpt(history.ended_by, _NAME)}: "
        yield ("ended", by + plain(history.reason or "no reason was given"), "warn")
    if history.parent is not None:
        step_id = excerpt(history.parent.step_id, _NAME)
        caller = excerpt(history.parent.workflow_id, _NAME)
        yield ("called by", f"step {step_id} of run {caller}", "")
    if history.forked_from is not None:
        yield ("forked", _origin(history.forked_from), "")
    for label, data, blob, locked in (
        ("inputs", history.inputs, history.inputs_blob, history.inputs_locked),
        ("result", history.result_json, history.result_blob, history.result_locked),
    ):
        text = _value(data, blob, screen)
        if locked is not None:
            yield (label, plain(locked), "warn")
        elif text is not None:
            yield (label, text, "")
    if history.question is not None and history.foreign:
        yield ("asks", plain(history.question), "warn")
    yield from errors
    if history.error_locked is not None:
        yield ("details", plain(history.error_locked), "warn")


def _origin(origin: ForkOrigin) -> str:
    """Describe where a run was forked from, and where that one was."""
    before = "" if origin.step_id is None else f", before step {excerpt(origin.step_id, _NAME)}"
    earlier = "".join(f", which is a fork of {excerpt(one, _NAME)}" for one in origin.ancestors)
    return f"from run {excerpt(origin.workflow_id, _NAME)}{before}{earlier}"


def _value(data: bytes | None, blob: str | None, screen: Screen) -> str | None:
    """Return a value as its JSON is in the log."""
    if blob is not None:
        return f"(large: in the file {excerpt(blob, 64)})"
    if data in {None, b"null", b"{}"}:
        return None
    text = (data or b"").decode(errors="replace")
    return plain(text) if screen.verbose else excerpt(text, _MOST_COLUMNS)


def _story(screen: Screen) -> Iterator[Fact]:
    """Yield how long it took, what was killed, what was not run again, what costs the time."""
    timeline, summed_up = screen.timeline, screen.steps.summed_up.values()
    last = timeline.executions[-1].number if timeline.executions else 0
    kept = sum(group.done_before(last) for group in summed_up)
    told = [fact for fact in story(timeline, kept=kept) if fact[0] not in _ELSEWHERE]
    ends = [fact for fact in told if fact[0] in {"killed", "stopped"}]
    left_out = [] if screen.verbose else ends[:-_MOST_ENDS]
    yield from (fact for fact in told if fact not in left_out)
    if summed_up:
        yield from _summed_costs(screen.steps)
    else:
        yield from costs(timeline)
    yield from usage_facts(timeline.usage)
    if trace_id := screen.steps.history.trace_id:
        yield ("trace", excerpt(trace_id, 64), "")


def _summed_costs(steps: Steps) -> Iterator[Fact]:
    """Yield in which steps most time was spent: what a long run waited for is not known."""
    history = steps.history
    groups = merged(steps.summed_up, history.by_id.values(), foreign=history.foreign)
    outer = {parent_of(place) for place in groups}  # whose time is that of the steps inside
    inner = [group for group in groups.values() if group.place not in outer]
    parts = [
        f"{excerpt(one.place, _NAME)} {took(one.total_ns)} in {counted(one.count, 'step')}"
        for one in sorted(inner, key=lambda group: -group.total_ns)[:_MOST_COSTS]
    ]
    yield "costs", few(parts, total=len(inner)), ""


def _lost(screen: Screen) -> list[Line]:
    """List what is missing of the failures of steps; on a terminal, cut to it."""
    lines = lost_lines(screen.steps.history)
    if screen.verbose or screen.wide is None:
        return lines
    return [cut(line, screen.wide) for line in lines]


# -- executions


def _execution_lines(screen: Screen) -> list[Line]:
    """List the executions, and between them how long no process executed the run."""
    executions = screen.timeline.executions
    left_out = 0 if screen.verbose else max(0, len(executions) - _MOST_EXECUTIONS)
    rows = [*_execution_rows(screen.timeline, left_out)]
    lines = table(_EXECUTIONS, rows, wide=screen.wide)
    if left_out:
        words = f"  {counted(left_out, 'earlier execution')}: --verbose shows them"
        lines.insert(0, Line.of((words, "dim")))
    return lines


def _execution_rows(timeline: Timeline, first: int) -> Iterator[Row]:
    down = {one.after: one for one in timeline.downtimes}
    for one in timeline.executions[first:]:
        length, sign = took(one.duration_ns), mark(one.status)
        yield [
            Line([sign, Piece(f" execution {one.number}")]),
            Piece(day_time(one.start_ns)),
            Piece(f">= {length}" if one.killed else length),
            Piece(status_text(one.status), sign.style),
            Piece(_process(one.process), "dim"),
        ]
        if one.number in down:
            gap = down[one.number]
            yield [
                Piece("  down", "warn"),
                Piece(day_time(gap.start_ns), "warn"),
                Piece(took(gap.duration_ns), "warn"),
                Piece(""),
                Piece(""),
            ]


def _process(process: dict[str, object]) -> str:
    pid, host = process.get("pid"), process.get("host")
    return "" if pid is None else excerpt(f"process {pid} on {host}", 80)


# -- the log


def audit(log: LogState, *, dropped: int = 0) -> list[Line]:
    """Describe what the check of the log's chain has found."""
    where = f"{plain(log.path)}, {counted(log.seq, 'event')}"
    lines = [labelled("log", where)]
    if log.damage is not None:
        text = f"damaged after seq {log.seq}: shown up to there"
        lines.append(labelled("audit", text, "bad"))
    elif log.seq:
        lines.append(labelled("audit", f"chain intact, head {log.sha[:_HEAD]}", "good"))
    if log.repairs:
        text = f"{counted(len(log.repairs), 'torn or damaged region')} declared in the log"
        lines.append(labelled("repairs", f"{text}: see verify", "warn"))
    if dropped:
        text = f"{counted(dropped, 'event')} could not be written and were dropped"
        lines.append(labelled("gap", text, "warn"))
    if log.unfinished is not None:
        lines.append(labelled("log end", log.unfinished, "warn"))
    return lines
