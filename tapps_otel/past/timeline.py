"""A run's history as intervals of time: executions, attempts, waits and downtime. Pure.

Positions are those of the wall clock, which may be set back or invalid: an interval never ends
before it begins, and what has no valid time is placed where its execution began.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from tapps_otel.clock import timestamp_ns
from tapps_otel.names import parent_of
from tapps_otel.past.fold import DONE, Gate, Worker  # help() evaluates annotations of fields
from tapps_otel.past.usage import NO_USAGE, Usage, sum_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.past.fold import (
        AttemptHistory,
        ExecutionHistory,
        RunHistory,
        StepHistory,
    )

__all__ = [
    "Cost",
    "Downtime",
    "LogState",
    "Timeline",
    "TimelineAttempt",
    "TimelineExecution",
    "TimelineStep",
    "make_timeline",
]

_CUT_OFF: Final = "interrupted"  # the type of error that a resume records for a dead process


class LogState(Struct, frozen=True):
    """How far a run's log could be read and checked.

    :ivar path: the file
    :ivar seq: seq of the last verified line
    :ivar sha: its sha, the head of the chain
    :ivar repairs: damage that the log itself declares, ``((offset, length), ...)``
    :ivar unfinished: an incomplete write at the end, if any: it is no damage
    :ivar damage: what ended the reading, if anything did
    """

    path: str
    seq: int = 0
    sha: str = ""
    repairs: tuple[tuple[int, int], ...] = ()
    unfinished: str | None = None
    damage: str | None = None


class TimelineAttempt(Struct):
    """One attempt of a step. Times are ns since 1970 UTC.

    :ivar end_ns: its end; of an interrupted one, the last sign of life of its process; of an open
        one, the end of what is known
    :ivar wait_ns: delay before its retry, as far as it was waited for; 0 without one
    :ivar seq: seq of the event that began it
    :ivar end_seq: seq of the event that ended it; 0 while it is open
    :ivar critical: the parts of it that the run had to wait for: its own work on the critical path
    :ivar usage: what captured spans of libraries used in it, without that of inner steps
    :ivar worker: the process of an executor that executed it
    """

    number: int
    execution: int
    start_ns: int
    end_ns: int
    status: str
    seq: int
    end_seq: int = 0
    wait_ns: int = 0
    error: dict[str, Any] | None = None
    reason: str | None = None
    artifacts: tuple[dict[str, Any], ...] = ()
    span_id: str | None = None
    gate: Gate | None = None
    question: str | None = None
    critical: list[tuple[int, int]] = []
    usage: Usage = NO_USAGE
    worker: Worker | None = None

    @property
    def duration_ns(self) -> int:
        """Time from its start to its end."""
        return self.end_ns - self.start_ns

    @property
    def cut_off(self) -> bool:
        """Whether its process ended in it: it ran at least as long as the log knows."""
        # If the process handled the interruption itself, the error has the class of an exception.
        kind = (self.error or {}).get("type", _CUT_OFF)
        return self.status == "interrupted" and kind == _CUT_OFF


class TimelineStep(Struct):
    """One step, with all its attempts.

    :ivar depth: number of steps that enclose it
    :ivar not_run_again: whether it was done before the last execution, which did not run it again
    :ivar handled: whether it failed and its scope continued after that
    :ivar is_pause: whether it waits for an answer or a time, and may outlive its execution
    """

    step_id: str
    name: str
    depth: int
    agent: str | None
    action: str | None
    attempts: list[TimelineAttempt]
    not_run_again: bool = False
    handled: bool = False
    is_pause: bool = False

    @property
    def status(self) -> str:
        """Status of the last attempt."""
        return self.attempts[-1].status

    @property
    def start_ns(self) -> int:
        """Start of the first attempt."""
        return self.attempts[0].start_ns

    @property
    def end_ns(self) -> int:
        """End of the last attempt."""
        return self.attempts[-1].end_ns

    @property
    def duration_ns(self) -> int:
        """Time in all attempts, without the waits between them."""
        return sum(attempt.duration_ns for attempt in self.attempts)

    @property
    def usage(self) -> Usage:
        """What captured spans of libraries used in all attempts, without that of inner steps."""
        return sum_of(attempt.usage for attempt in self.attempts)

    @property
    def critical_ns(self) -> int:
        """Time that the run had to wait for this step's own work."""
        return sum(end - start for one in self.attempts for start, end in one.critical)


class TimelineExecution(Struct):
    """One execution: what one process did of the run.

    :ivar end_ns: its end; of a killed one, its last sign of life
    :ivar killed: whether its process ended without recording an end
    :ivar critical: the parts in which the run waited for the workflow itself, not for a step
    """

    number: int
    start_ns: int
    end_ns: int
    status: str
    process: dict[str, Any]
    seq: int
    killed: bool = False
    critical: list[tuple[int, int]] = []

    @property
    def duration_ns(self) -> int:
        """Time from its start to its end."""
        return self.end_ns - self.start_ns


class Downtime(Struct, frozen=True):
    """The time between two executions, in which no process executed the run.

    :ivar after: number of the execution before it
    :ivar why: the status with which that execution ended
    """

    after: int
    start_ns: int
    end_ns: int
    why: str

    @property
    def duration_ns(self) -> int:
        """Its length."""
        return self.end_ns - self.start_ns


class Cost(Struct, frozen=True):
    """What the steps of one name cost: the time that the run had to wait for them.

    :ivar step_ids: the steps that were waited for
    """

    name: str
    step_ids: tuple[str, ...]
    critical_ns: int


class Timeline(Struct):
    """A run as intervals of time. Times are ns since 1970 UTC.

    :ivar status: as in the run's history; ``damaged`` if its end is not in what can be read
    :ivar start_ns: the earliest time in it
    :ivar end_ns: the latest; of a run in progress, the present
    :ivar steps: in the order of their first start, inner steps after the step that encloses them
    :ivar downtimes: between executions
    :ivar dropped: number of events that could not be written
    :ivar log: how far the log could be read
    :ivar types: the types that the workflow has had, if an executor gave it another one
    :ivar usage: what captured spans of libraries used, in steps and outside them
    """

    workflow_id: str
    name: str
    status: str
    start_ns: int
    end_ns: int
    executions: list[TimelineExecution]
    downtimes: list[Downtime]
    steps: list[TimelineStep]
    error: dict[str, Any] | None = None
    trace_id: str | None = None
    dropped: int = 0
    log: LogState | None = None
    types: list[str] = []
    usage: Usage = NO_USAGE

    @property
    def down_ns(self) -> int:
        """Time in which no process executed the run, between its start and its end."""
        return sum(one.duration_ns for one in self.downtimes)

    @property
    def running_ns(self) -> int:
        """Time in which a process executed the run."""
        return max(0, self.end_ns - self.start_ns - self.down_ns)

    @property
    def not_run_again(self) -> list[TimelineStep]:
        """Steps that were done before the last execution, which did not run them again."""
        return [step for step in self.steps if step.not_run_again]

    @property
    def interrupted(self) -> list[tuple[TimelineStep, TimelineAttempt]]:
        """Attempts that were cut off with their process; of nested ones, the innermost."""
        found = [
            (step, attempt)
            for step in self.steps
            for attempt in step.attempts
            if attempt.status == "interrupted"
        ]
        outer = {(parent_of(step.step_id), attempt.execution) for step, attempt in found}
        return [one for one in found if (one[0].step_id, one[1].execution) not in outer]

    @property
    def costs(self) -> list[Cost]:
        """What the steps cost, by name; the most costly first."""
        total: Counter[str] = Counter()
        names: dict[str, list[str]] = {}
        for step in self.steps:
            if critical := step.critical_ns:
                total[step.name] += critical
                names.setdefault(step.name, []).append(step.step_id)
        return [Cost(name, tuple(names[name]), ns) for name, ns in total.most_common()]


def make_timeline(
    history: RunHistory, *, now_ns: int | None = None, log: LogState | None = None
) -> Timeline:
    """Lay a run's history out in time.

    :param now_ns: the present, if a process is executing the run
    :param log: how far the log could be read
    """
    executions = _executions(history, now_ns)
    steps = _steps(history, {one.number: one for one in executions})
    times: list[TimelineExecution | TimelineAttempt] = [*executions]
    times += (attempt for step in steps for attempt in step.attempts)
    made = Timeline(
        workflow_id=history.workflow_id,
        name=history.name,
        status=history.status,
        start_ns=min((one.start_ns for one in times), default=0),
        end_ns=max((one.end_ns for one in times), default=0),
        executions=executions,
        downtimes=[*_downtimes(executions)],
        steps=steps,
        error=history.error,
        trace_id=history.trace_id,
        dropped=history.dropped,
        log=log,
        types=history.types,
        usage=history.usage,
    )
    _mark_critical(made)
    return made


# -- executions


def _executions(history: RunHistory, now_ns: int | None) -> list[TimelineExecution]:
    made: list[TimelineExecution] = []
    for one in history.executions:
        start = one.started_ns or (made[-1].end_ns if made else 0)
        is_last = one is history.executions[-1]
        end = _end_of(one, start, now_ns if is_last else None)
        # Where the log is damaged, the end may be in what cannot be read.
        ended = one.end_seq or (is_last and (now_ns is not None or one.status == "damaged"))
        killed = not ended
        status = "interrupted" if killed else one.status
        made.append(
            TimelineExecution(one.number, start, end, status, one.process, one.start_seq, killed)
        )
    return made


def _end_of(execution: ExecutionHistory, start: int, now_ns: int | None) -> int:
    if execution.duration_ns is not None:
        return start + max(0, execution.duration_ns)
    if now_ns is not None:
        return max(start, now_ns)
    return max(start, timestamp_ns(execution.last_timestamp))


def _downtimes(executions: list[TimelineExecution]) -> Iterator[Downtime]:
    for before, after in pairwise(executions):
        if after.start_ns > before.end_ns:
            yield Downtime(before.number, before.end_ns, after.start_ns, before.status)


# -- steps


def _steps(history: RunHistory, executions: dict[int, TimelineExecution]) -> list[TimelineStep]:
    last = history.executions[-1].number if history.executions else 0
    return [
        TimelineStep(
            step.step_id,
            step.name,
            depth,
            step.agent,
            step.action,
            [*_attempts(step, executions)],
            step.status in DONE and step.last.execution < last,
            step.handled,
            step.pause is not None,
        )
        for depth, step in _in_order(history)
    ]


def _in_order(history: RunHistory) -> Iterator[tuple[int, StepHistory]]:
    """Yield the steps with their depths: inner ones after the step that encloses them."""
    inside: dict[str | None, list[StepHistory]] = {}
    for step in history.steps:
        known = step.parent if step.parent in history.by_id else None
        inside.setdefault(known, []).append(step)
    waiting = [(0, step) for step in reversed(inside.get(None, ()))]
    while waiting:
        depth, step = waiting.pop()
        yield depth, step
        waiting += [(depth + 1, one) for one in reversed(inside.get(step.step_id, ()))]


def _attempts(
    step: StepHistory, executions: dict[int, TimelineExecution]
) -> Iterator[TimelineAttempt]:
    attempts = step.attempts
    for at, one in enumerate(attempts):
        execution = executions.get(one.execution)
        start = one.started_ns or (execution.start_ns if execution else 0)
        is_open = not one.end_seq
        end = start + max(0, one.duration_ns or 0)
        if is_open and execution is not None:
            end = max(start, execution.end_ns)
        killed = is_open and execution is not None and execution.killed
        status = "interrupted" if killed else one.status
        if step.waits and one is step.last:  # in later executions, too
            status, end = "paused", max([start, *(each.end_ns for each in executions.values())])
        yield TimelineAttempt(
            one.number,
            one.execution,
            start,
            end,
            status,
            one.start_seq,
            one.end_seq,
            _wait(one, end, attempts[at + 1] if at + 1 < len(attempts) else None, execution),
            one.error,
            one.reason,
            one.artifacts,
            one.span_id,
            one.gate,
            one.question,
            usage=one.usage,
            worker=one.worker,
        )


def _wait(
    attempt: AttemptHistory,
    end: int,
    following: AttemptHistory | None,
    execution: TimelineExecution | None,
) -> int:
    if attempt.retry_in_ns is None:
        return 0
    until = end + attempt.retry_in_ns
    if following is not None and following.execution == attempt.execution:
        until = following.started_ns
    elif execution is not None:  # it ended while it waited
        until = min(until, execution.end_ns)
    return max(0, until - end)


# -- the critical path


def _mark_critical(timeline: Timeline) -> None:
    """Find the chain of work that the run had to wait for, in every execution.

    It is walked from the end: before the end of a scope, it waited for the attempt inside that
    ended last, before that attempt's start for the one that had ended last by then, and so on. What
    no attempt inside covers is the scope's own.
    """
    inside = _inside(timeline)
    waiting: list[TimelineExecution | TimelineAttempt] = [*timeline.executions]
    while waiting:
        scope = waiting.pop()
        cursor, own = scope.end_ns, []
        for child in sorted(inside.get(scope.seq, ()), key=lambda one: one.end_ns, reverse=True):
            end = min(child.end_ns, scope.end_ns)
            if end > cursor or child.start_ns < scope.start_ns:
                continue  # something else was waited for, or the clock went back
            if end < cursor:
                own.append((end, cursor))
            cursor = min(end, child.start_ns)
            waiting.append(child)
        if cursor > scope.start_ns:
            own.append((scope.start_ns, cursor))
        scope.critical = own[::-1]


def _inside(timeline: Timeline) -> dict[int, list[TimelineAttempt]]:
    """Return the attempts inside each execution and attempt, by the seq of its start."""
    by_id = {step.step_id: step.attempts for step in timeline.steps}
    executions = {one.number: one.seq for one in timeline.executions}
    found: dict[int, list[TimelineAttempt]] = {}
    for step in timeline.steps:
        if step.is_pause:  # no process waits with it: that is downtime
            continue
        outer = by_id.get(parent_of(step.step_id) or "", [])
        for attempt in step.attempts:
            seq = _enclosing(outer, attempt) or executions.get(attempt.execution)
            if seq is not None:
                found.setdefault(seq, []).append(attempt)
    return found


def _enclosing(outer: list[TimelineAttempt], attempt: TimelineAttempt) -> int | None:
    """Return the seq of the attempt of the enclosing step in which this one began."""
    at = bisect_left(outer, attempt.seq, key=lambda one: one.seq) - 1
    return outer[at].seq if at >= 0 and outer[at].execution == attempt.execution else None
