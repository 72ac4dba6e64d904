"""The steps of a run as a table: one row per step, or one per name if there are many. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple

from tapps_otel.names import MOST_NESTED
from tapps_otel.past.fold import DONE
from tapps_otel.past.long_run import StepGroup, merged
from tapps_otel.report.history import (
    answered_text,
    error_text,
    gate_text,
    innermost,
    mark,
    status_text,
)
from tapps_otel.report.lines import Line, Piece, clock_time, took
from tapps_otel.report.table import Column, table
from tapps_otel.report.text import counted, excerpt, few, shorten
from tapps_otel.report.usage import tokens_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tapps_otel.past.fold import RunHistory, StepHistory
    from tapps_otel.past.timeline import Timeline, TimelineAttempt, TimelineStep
    from tapps_otel.report.table import Row

__all__ = ["Choice", "Steps", "attempt_note", "attempt_took", "step_lines"]

_MOST_ROWS: Final = 60
_MOST_ATTEMPTS: Final = 6  # rows below one step
_MOST_BAD: Final = 12  # rows of steps that did not complete, below the names
_SHORT: Final = 40  # columns of a step's inputs
_LONG: Final = 300  # columns of a message: `show RUN STEP` has the whole
_NAME: Final = 200  # columns of a name
_ROWS: Final = (Column(least=16), Column(rank=1), Column(), Column(least=24))
_TOKENS: Final = Column("TOKENS", rank=4)
_GROUPS: Final = (
    Column("  STEP", least=14),
    Column("COUNT"),
    Column("FAILED"),
    Column("OPEN", rank=2),
    Column("IN ALL"),
    _TOKENS,
    Column("SLOWEST", least=10, rank=1),
    Column("AGENT", least=6, rank=3),
)
_LOWER_BOUND: Final = ">= as far as the log knows: the process ended before it could write the end"


class Choice(NamedTuple):
    """Which steps to show.

    :ivar everything: a row for each, however many there are
    :ivar failed: only those that have not completed
    :ivar pattern: only those whose name or id fits, as file names fit a shell's pattern
    :ivar agent: only those of this agent
    """

    everything: bool = False
    failed: bool = False
    pattern: str | None = None
    agent: str | None = None

    @property
    def is_all(self) -> bool:
        """Whether no step is left out."""
        return not self.failed and self.pattern is None and self.agent is None

    def accepts(self, step: StepHistory) -> bool:
        """Return whether a step is to be shown."""
        if self.failed and step.status in DONE:
            return False
        if self.agent is not None and step.agent != self.agent:
            return False
        pattern = self.pattern
        return pattern is None or any(
            fnmatchcase(text, pattern) for text in (step.name, step.step_id)
        )


class Steps(NamedTuple):
    """The steps of a run: one by one, and those that were summed up while they were read.

    :ivar chosen: of the latter, those that the reader asked for
    """

    history: RunHistory
    timeline: Timeline
    summed_up: Mapping[str, StepGroup] = {}
    chosen: Mapping[str, StepGroup] = {}

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.history.by_id) + sum(one.count for one in self.summed_up.values())


class _Shown(NamedTuple):
    """A step by time, and what the log knows of it."""

    step: TimelineStep
    record: StepHistory


def step_lines(steps: Steps, choice: Choice, *, wide: int | None) -> list[Line]:
    """List the steps in the order of their first start, nested ones below their parent.

    :param wide: columns of the terminal, if it is one
    """
    by_id = steps.history.by_id
    shown = [_Shown(one, by_id[one.step_id]) for one in steps.timeline.steps]
    shown = [one for one in shown if choice.accepts(one.record)]
    groups = steps.summed_up if choice.is_all else steps.chosen
    count = len(shown) + sum(one.count for one in groups.values())
    if not count:
        return [] if not steps.total else [_no_match(steps)]
    if choice.everything or (count <= _MOST_ROWS and not groups):
        lines = table(_ROWS, [*_rows(shown)], wide=wide, indent=2)
    else:
        lines = [*_summary(shown, groups, steps, wide=wide), *_ways_to_see_more(count)]
    if any(">= " in line.text for line in lines):
        lines += [Line(), Line.of((shorten(f"  {_LOWER_BOUND}", wide or _LONG), "dim"))]
    return lines


def _no_match(steps: Steps) -> Line:
    return Line.of((f"none of the {counted(steps.total, 'step')} matches", "warn"))


# -- a row for each


def _rows(shown: list[_Shown]) -> Iterator[Row]:
    for one in shown:
        depth = min(one.step.depth, MOST_NESTED)
        yield _row(one, "  " * depth, one.step.step_id.rpartition("/")[2])
        if len(one.step.attempts) > 1:
            yield from _attempt_rows(one.step.attempts, "  " * depth)


def _row(one: _Shown, indent: str, name: str) -> Row:
    step = one.step
    # What was skipped before it began took no time.
    length = "" if step.status == "skipped" and not step.duration_ns else took(step.duration_ns)
    return [
        Line([Piece(indent), mark(step.status), Piece(f" {excerpt(name, _NAME) or repr('')}")]),
        Piece(clock_time(step.start_ns), "dim"),
        Piece(f">= {length}" if any(at.cut_off for at in step.attempts) else length),
        Piece(", ".join(_notes(one)), _note_style(step)),
    ]


def _note_style(step: TimelineStep) -> str:
    if step.status not in DONE:
        return mark(step.status).style
    gate = step.attempts[-1].gate
    return "dim" if gate is None or gate.passed else "warn"


def _attempt_rows(attempts: list[TimelineAttempt], indent: str) -> Iterator[Row]:
    first, last = attempts[:1], attempts[1:]
    left_out = len(last) - _MOST_ATTEMPTS + 2
    if left_out > 1:
        last = last[left_out:]
    for attempt in first:
        yield _attempt_row(attempt, indent)
    if left_out > 1:
        yield [Piece(f"{indent}    {left_out} more", "dim"), Piece(""), Piece(""), Piece("")]
    for attempt in last:
        yield _attempt_row(attempt, indent)


def _attempt_row(attempt: TimelineAttempt, indent: str) -> Row:
    return [
        Piece(f"{indent}    attempt {attempt.number}", "dim"),
        Piece(clock_time(attempt.start_ns), "dim"),
        Piece(attempt_took(attempt), "dim"),
        Piece(attempt_note(attempt), mark(attempt.status).style or "dim"),
    ]


def attempt_took(attempt: TimelineAttempt) -> str:
    """Return how long an attempt ran, as far as the log knows."""
    length = took(attempt.duration_ns)
    return f">= {length}" if attempt.cut_off else length


def attempt_note(attempt: TimelineAttempt) -> str:
    """Return where an attempt ran and how it ended, on one line."""
    notes = [f"execution {attempt.execution}", status_text(attempt.status)]
    if attempt.error is not None and not attempt.cut_off:
        notes.append(error_text(attempt.error, most=_LONG))
    if attempt.gate is not None:
        notes.append(shorten(gate_text(attempt.gate), _LONG))
    if attempt.usage.calls:
        notes.append(tokens_text(attempt.usage))
    if attempt.wait_ns:
        notes.append(f"then waited {took(attempt.wait_ns)}")
    return ", ".join(notes)


def _notes(one: _Shown) -> Iterator[str]:
    """Yield what is worth knowing of a step, what matters most first."""
    yield from _outcome(one)
    step, record = one.step, one.record
    yield from (excerpt(text, _SHORT) for text in (step.agent, step.action) if text)
    if len(step.attempts) > 1:
        yield counted(len(step.attempts), "attempt")
    if waited := sum(attempt.wait_ns for attempt in step.attempts):
        yield f"waited {took(waited)}"
    if record.usage.calls:
        yield tokens_text(record.usage)
    if step.not_run_again:
        yield "not run again"
    if record.child is None:
        yield from _inputs(record)
    else:  # whose id is the key
        yield f"run {excerpt(record.child.workflow_id, _NAME)}"
    made = (str(one.get("path") or one.get("name")) for one in step.attempts[-1].artifacts)
    yield from (f"made {excerpt(path, _NAME)}" for path in made)
    if record.result_omitted:  # it is empty if there was no result
        yield f"result not stored: {excerpt(record.result_omitted, _LONG)}"
    if record.result_locked is not None:
        yield f"result encrypted with key {excerpt(record.result_locked.key, _SHORT)}"


def _outcome(one: _Shown) -> Iterator[str]:
    """Yield how a step ended, unless it just completed."""
    step, record = one.step, one.record
    last = step.attempts[-1]
    if step.status != "completed":
        yield status_text(step.status)
    if record.resolved:
        yield "result given by resolve" if record.stored else "will run again"
    if step.handled:
        yield "handled"
    if last.error is not None and not last.cut_off:
        yield error_text(last.error, most=_LONG)
    if last.gate is not None:
        yield shorten(gate_text(last.gate), _LONG)
    if last.reason:
        yield excerpt(last.reason, _LONG)
    if record.last.question:
        yield f"asks {excerpt(record.last.question, _LONG)}"
    if record.answered is not None:
        yield answered_text(record.answered)


def _inputs(record: StepHistory) -> Iterator[str]:
    """Yield a step's key, or a short form of its inputs."""
    if record.key is not None:
        yield f"key {excerpt(record.key, _SHORT)}"
    elif record.inputs not in {None, b"{}", b"null"}:
        yield excerpt((record.inputs or b"")[: 4 * _SHORT].decode(errors="replace"), _SHORT)


# -- a row for each name


def _summary(
    shown: list[_Shown], groups: Mapping[str, StepGroup], steps: Steps, *, wide: int | None
) -> Iterator[Line]:
    records = (one.record for one in shown)
    ordered = _in_order(merged(groups, records, foreign=steps.history.foreign))
    kept = {id(one) for one in sorted(ordered, key=_importance)[:_MOST_ROWS]}
    is_open = "running" if steps.timeline.status == "running" else "interrupted"
    rows = [_group_row(one, is_open) for one in ordered if id(one) in kept]
    yield from table(_columns(ordered), rows, wide=wide, indent=2)
    if len(rows) < len(ordered):
        yield Line.of((f"  and {counted(len(ordered) - len(rows), 'name')} more", "warn"))
    by_id = {one.step.step_id: one for one in shown if one.step.status not in DONE}
    # Those that enclose others have their errors from there.
    bad = innermost([one.record for one in by_id.values()])
    if bad:
        yield Line()
        bad_rows = [_row(by_id[one.step_id], "", one.step_id) for one in bad[:_MOST_BAD]]
        yield from table(_ROWS, bad_rows, wide=wide, indent=2)
    if len(bad) > _MOST_BAD:
        words = f"  and {len(bad) - _MOST_BAD} more that did not complete: --failed --all"
        yield Line.of((words, "warn"))


def _columns(groups: list[StepGroup]) -> list[Column]:
    """Return the columns; that of tokens has a title only if any are known."""
    known = any(group.usage.calls for group in groups)
    return [one if known or one is not _TOKENS else Column() for one in _GROUPS]


def _in_order(groups: Mapping[str, StepGroup]) -> list[StepGroup]:
    """Return the groups in the order of their first start, inner ones below their parent."""

    def place_in_tree(group: StepGroup) -> list[int]:
        names = group.place.split("/", MOST_NESTED)
        outer = ("/".join(names[: at + 1]) for at in range(len(names)))
        return [groups[one].first_seq for one in outer if one in groups]

    return sorted(groups.values(), key=place_in_tree)


def _importance(group: StepGroup) -> tuple[bool, int]:
    return not (group.failed or group.open), -group.total_ns


def _group_row(group: StepGroup, is_open: str) -> Row:
    """Make the row of a group.

    :param is_open: the status of its steps that have not ended
    """
    status = "failed" if group.failed else is_open if group.open else "completed"
    depth = min(group.place.count("/"), MOST_NESTED)
    slowest = f"{took(group.slowest_ns)} {excerpt(group.slowest, _NAME)}" if group.count > 1 else ""
    return [
        Line(
            [Piece("  " * depth), mark(status), Piece(f" {excerpt(group.name, _NAME) or repr('')}")]
        ),
        Piece(str(group.count)),
        Piece(str(group.failed or "-"), "bad" if group.failed else "dim"),
        Piece(str(group.open or "-"), "" if group.open else "dim"),
        Piece(took(group.total_ns)),
        Piece(tokens_text(group.usage).removesuffix(" tokens") if group.usage.calls else ""),
        Piece(slowest, "dim"),
        Piece(excerpt(group.agent or "", _SHORT), "dim"),
    ]


def _ways_to_see_more(count: int) -> list[Line]:
    ways = ("--all", "--failed", "--step PATTERN", "--agent NAME")
    return [
        Line(),
        Line.of((f"  {count} steps, summed up by name; see more with {few(ways)}", "dim")),
    ]
