"""Folds a run's events into its history, for resume, reports and exports. Pure.

The fold keeps only what the rules of resume need: the attempts and the outcome of a step, and
which failures of a scope were handled and which of its records are no longer due. It ignores
events of unknown types.
"""

from __future__ import annotations

import gc
from bisect import bisect_left
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, Struct

from tapps_otel.clock import timestamp_ns
from tapps_otel.log.encrypted import locked_error, problem_of
from tapps_otel.log.event import readable
from tapps_otel.names import ATTR, parent_of, steps_around
from tapps_otel.past.span_steps import SpanSteps
from tapps_otel.past.usage import NO_USAGE, Usage, UsageFold, sum_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tapps_otel.errors import DecryptionError
    from tapps_otel.log.event import Event
    from tapps_otel.past.usage import Owner

__all__ = [
    "DIGEST",
    "DONE",
    "FAILED",
    "GATE",
    "HANDLED",
    "RESOLVED",
    "WORKFLOW_TYPE",
    "Annotation",
    "AttemptHistory",
    "ChildRun",
    "ExecutionHistory",
    "Fold",
    "ForkOrigin",
    "Gate",
    "Locked",
    "ParentStep",
    "Pause",
    "RunHistory",
    "ScopeHistory",
    "StepHistory",
    "Worker",
    "child_of",
    "collector_paused",
    "fold",
    "fork_origin",
]

_LONGEST_S: Final = 1e9  # of a worker's times, which a made-up log may have as any number
# What fails a step after its code has run.
_RESULT_LOST: Final = frozenset(
    {"tapps_otel.errors.StepResultError", "tapps_otel.errors.StepInputError"}
)
# Name of the annotation that lets an interrupted step run again.
RESOLVED: Final = "tapps.resolved"
# Name of the annotation that has the digest of a large artifact.
DIGEST: Final = "tapps.artifact.digest"
# Name of the annotation that tells, in a fork, that the run continued after a step's failure.
HANDLED: Final = "tapps.handled"
# Name of the annotation that has the result of a gate of a step.
GATE: Final = "tapps.gate"
# Name of the annotation that records that the type of an executor's workflow changed.
WORKFLOW_TYPE: Final = "tapps.workflow.type"
DONE: Final = frozenset({"completed", "skipped"})
FAILED: Final = frozenset({"failed", "timeout", "cancelled"})


class Gate(Struct, gc=False, frozen=True):
    """The result of a gate: a third-party executor's judgement of what a step has made.

    :ivar score: the score that it got, if it was scored
    :ivar reasons: why it did not pass, or the condition that was evaluated
    """

    passed: bool
    score: float | None = None
    reasons: tuple[str, ...] = ()


class Worker(Struct, gc=False, frozen=True):
    """The process of an executor that executed an attempt.

    :ivar duration: seconds there, by its clock
    :ivar wait: the other seconds of the attempt: in queues and on the way
    """

    host: str
    pid: int
    duration: float
    wait: float


class Locked(Struct, gc=False, frozen=True):
    """Why values of an event cannot be read: they are encrypted.

    :ivar key: id of the key
    :ivar problem: why they are not decrypted
    :ivar place: the event
    """

    key: str
    problem: str
    place: str

    def __str__(self) -> str:
        return f"encrypted with key {self.key}: {self.problem}"

    def error(self, workflow_id: str) -> DecryptionError:
        """Return the error of asking for these values."""
        return locked_error(workflow_id, self.place, self.key, self.problem)


class AttemptHistory(Struct, gc=False):
    """One attempt of a step.

    :ivar status: ``running`` while it is open, else the status of the event that ended it
    :ivar start_seq: seq of its ``step_start``, or of the skip of a step that never started
    :ivar end_seq: seq of the event that ended it; 0 while it is open
    :ivar retry_in_ns: delay after which a retry was to follow, ``None`` if none was
    :ivar caused_by: ids of the inner steps whose exception left it
    :ivar order: n for its scope's n-th ordered call of that name; ``None`` in a task or thread
    :ivar question: what it asks, if it is a pause, or a third-party executor paused it
    :ivar gate: the result of its gate, if it has one
    :ivar usage: what captured spans of libraries used in it, without that of inner steps
    :ivar engine: the executor that it was submitted to, if a worker executed it
    :ivar worker: that worker, if its answer has arrived
    """

    number: int
    execution: int
    start_seq: int
    timestamp: str
    order: int | None = None
    span_id: str | None = None
    status: str = "running"
    end_seq: int = 0
    duration_ns: int | None = None
    error: dict[str, Any] | None = None
    retry_in_ns: int | None = None
    caused_by: tuple[str, ...] = ()
    reason: str | None = None
    artifacts: tuple[dict[str, Any], ...] = ()
    question: str | None = None
    gate: Gate | None = None
    usage: Usage = NO_USAGE
    engine: str | None = None
    worker: Worker | None = None

    @property
    def started_ns(self) -> int:
        """Start by the wall clock, ns since 1970 UTC."""
        return timestamp_ns(self.timestamp)


class ChildRun(Struct, gc=False, frozen=True):
    """The run that a step called.

    :ivar log_dir: the folder of its log; ``None``: that of the step's run
    """

    workflow_id: str
    log_dir: str | None = None


class ParentStep(Struct, gc=False, frozen=True):
    """The step that called a run.

    :ivar workflow_id: the run that it is a step of
    :ivar log_dir: the folder of that run's log; ``None``: that of the called run
    """

    workflow_id: str
    step_id: str
    log_dir: str | None = None


class ForkOrigin(Struct, gc=False, frozen=True):
    """Where a run was forked from.

    :ivar workflow_id: the other run
    :ivar step_id: its step before which the fork begins; ``None``: an executor made the fork
    :ivar seq: of the event that starts that step
    :ivar ancestors: the runs that the other run was forked from, the last one first
    """

    workflow_id: str
    step_id: str | None = None
    seq: int | None = None
    ancestors: tuple[str, ...] = ()


class Pause(Struct, gc=False, frozen=True):
    """What a step waits for: ``pause()``.

    :ivar question: its words; ``None`` for a timer
    :ivar schema: JSON Schema of the answers that fit; ``None`` if any does
    :ivar until: when it stops to wait, RFC 3339 UTC; ``None`` if it waits for ever
    """

    question: str | None = None
    schema: dict[str, Any] | None = None
    until: str | None = None

    def is_due(self, now_ns: int) -> bool:
        """Whether it need not wait any longer."""
        return self.until is not None and timestamp_ns(self.until) <= now_ns


class StepHistory(Struct, gc=False):
    """The recorded history of one step: a *record*, in the rules of resume.

    :ivar step_id: place of the step in the run, as ``outer/draft#2``
    :ivar last: the last attempt
    :ivar result: the result as JSON bytes, if the log holds it
    :ivar handled: whether it finally failed and its scope continued after that
    :ivar interruptions: number of interruptions in a row, without progress inside
    :ivar resolved: whether it was resolved after an interruption, and may run again
    :ivar child: the run that it calls, if it is the call of a run
    :ivar pause: what it waits for, if it is a pause
    :ivar answered: who ended that pause, if it was answered
    :ivar inputs_locked: why its inputs and their digest cannot be read, if they are encrypted
    :ivar result_locked: why its result cannot be read, if it is encrypted
    """

    step_id: str
    name: str
    agent: str | None
    action: str | None
    last: AttemptHistory
    inputs_digest: str | None = None
    key: str | None = None
    definition: str | None = None
    inputs: bytes | None = None
    result: bytes | None = None
    result_blob: str | None = None
    result_omitted: str | None = None
    child: ChildRun | None = None
    inputs_locked: Locked | None = None
    result_locked: Locked | None = None
    pause: Pause | None = None
    answered: dict[str, Any] | None = None
    handled: bool = False
    interruptions: int = 0
    resolved: bool = False
    _earlier: list[AttemptHistory] | None = None  # few steps have any
    _by_number: dict[int, AttemptHistory] | None = None  # of these, the latest of each number

    @property
    def attempts(self) -> list[AttemptHistory]:
        """All attempts, in order."""
        return [*(self._earlier or ()), self.last]

    @property
    def open_attempts(self) -> list[AttemptHistory]:
        """Attempts that have not ended; a third-party executor may have several at once."""
        return [attempt for attempt in self.attempts if not attempt.end_seq]

    @property
    def duration_ns(self) -> int:
        """Time in all attempts that have ended."""
        return sum(max(0, attempt.duration_ns or 0) for attempt in self.attempts)

    @property
    def usage(self) -> Usage:
        """What captured spans of libraries used in all attempts, without that of inner steps."""
        return sum_of(attempt.usage for attempt in self.attempts)

    def attempt(self, number: int) -> AttemptHistory | None:
        """Return the attempt of this number, the latest if there are several."""
        if self.last.number == number:
            return self.last
        return None if self._by_number is None else self._by_number.get(number)

    def begin(self, attempt: AttemptHistory) -> None:
        """Add another attempt."""
        if self._earlier is None or self._by_number is None:
            self._earlier, self._by_number = [], {}
        self._earlier.append(self.last)
        self._by_number[self.last.number] = self.last
        self.last = attempt

    @property
    def status(self) -> str:
        """Status of the last attempt."""
        return self.last.status

    @property
    def failed_tries(self) -> int:
        """How many tries had failed in a call that waits: it has the rest of its retries left.

        Any other call that did not end has none: it runs again with all its retries.
        """
        count = 0
        for attempt in reversed(self.attempts if self.status == "paused" else ()):
            if attempt.retry_in_ns is not None:
                count += 1
            elif attempt.status != "paused":
                break
        return count

    @property
    def parent(self) -> str | None:
        """Id of the enclosing step; ``None`` for a step of the workflow itself."""
        return parent_of(self.step_id)

    @property
    def waits(self) -> bool:
        """Whether it is a pause that waits for its answer, or for its time."""
        return self.pause is not None and not self.last.end_seq

    @property
    def outcome_unknown(self) -> bool:
        """Whether it may have done its work: its body did not end by itself, or its result is lost.

        The process died; the step was cancelled; its time ran out, or its result could not be
        stored, and no retry was to follow.
        """
        last = self.last
        if last.status == "cancelled":  # a call that an executor had not taken never began
            return last.engine is None or last.worker is not None
        if last.status == "failed":
            is_lost = (last.error or {}).get("type") in _RESULT_LOST
        else:
            is_lost = last.status == "timeout"
        return (is_lost and last.retry_in_ns is None) or last.status in {"running", "interrupted"}

    @property
    def stored(self) -> bool:
        """Whether it completed or was skipped, and its result can be read from the log."""
        status = self.last.status
        if status == "skipped":
            return not self.result_omitted  # it is empty for a skip without a result
        return status == "completed" and (
            self.result is not None
            or self.result_blob is not None
            or self.result_locked is not None
        )


class ScopeHistory(Struct):
    """What the rules of resume need to know of a scope, besides its records.

    :ivar not_due: seq intervals, apart and rising; records that started inside one are no longer
        due
    :ivar reset_seq: records that started before it no longer count
    :ivar pending: failures of ordered calls, by step, that no later call has shown to be handled
    :ivar pending_unordered: failures in tasks and threads; only a later ordered call can show
        that they were handled
    """

    not_due: list[tuple[int, int]] = []
    reset_seq: int = 0
    pending: dict[str, StepHistory] = {}
    pending_unordered: dict[str, StepHistory] = {}

    def forget_failures(self) -> None:
        """Forget all pending failures: no later call can show that they were handled."""
        self.pending.clear()
        self.pending_unordered.clear()

    def forget_failure(self, step: StepHistory) -> None:
        """Forget the pending failure of a step that completed after all."""
        self.pending.pop(step.step_id, None)
        self.pending_unordered.pop(step.step_id, None)

    def forget_between(self, low: int, high: int) -> None:
        """Expect no call of what started between two events any more, the later one the last."""
        while self.not_due and self.not_due[-1][1] > low:
            low = min(low, self.not_due.pop()[0])
        self.not_due.append((low, high))

    def due(self, record: StepHistory) -> bool:
        """Whether the code is still expected to call this step."""
        seq = record.last.start_seq
        at = bisect_left(self.not_due, (seq,)) - 1  # the last interval that begins before it
        return at < 0 or seq >= self.not_due[at][1]


class ExecutionHistory(Struct):
    """One execution of the run: its start in one process, or a resume in another.

    :ivar status: status of its ``workflow_end``; without one, ``interrupted`` if a later
        execution began, else ``running``
    :ivar flags: W3C trace flags of its span, if an SDK created one
    :ivar trace_state: content of its span's W3C ``tracestate``
    :ivar last_timestamp: latest timestamp of its events: it was alive then
    """

    number: int
    timestamp: str
    start_seq: int
    process: dict[str, Any]
    trace_id: str | None = None
    span_id: str | None = None
    flags: int | None = None
    trace_state: str = ""
    status: str = "running"
    end_seq: int = 0
    last_timestamp: str = ""
    duration_ns: int | None = None

    @property
    def started_ns(self) -> int:
        """Start by the wall clock, ns since 1970 UTC."""
        return timestamp_ns(self.timestamp)


class Annotation(Struct, frozen=True):
    """An annotation of the user, or a remark of this library (``tapps.*``)."""

    seq: int
    timestamp: str
    name: str
    step_id: str | None
    attributes: dict[str, Any]


class RunHistory(Struct):
    """The history of a run, from its log alone.

    :ivar status: status of the last ``workflow_end``: ``completed``, ``failed``, ``cancelled``,
        ``interrupted`` or ``paused``; ``answered`` if it was paused and a question was answered
        since; ``running`` if the last execution has not ended (only the lease tells whether it is
        alive)
    :ivar workflow: name and import path of the workflow, as the last execution found them
    :ivar parent: the step that called the run; of several, the last whose call executed it
    :ivar forked_from: where it was forked from, if it was
    :ivar by_id: all steps by their ids, in the order of their first start
    :ivar seq: seq of the last event
    :ivar question: what it asks, if it is paused
    :ivar result_omitted: why the log has no result of a run that completed
    :ivar result_json: JSON bytes of the workflow's result, if it completed and the log has them
    :ivar inputs_locked: why its inputs cannot be read, if they are encrypted
    :ivar result_locked: why its result cannot be read, if it is encrypted
    :ivar error_locked: why the details of its error cannot be read, if they are encrypted
    :ivar locked: the first event of the run whose values cannot be decrypted, if there is one
    :ivar reason: why it was ended, if that did not come from its code
    :ivar ended_by: who ended it then
    :ivar repairs: number of repairs of the log
    :ivar dropped: number of events that could not be written
    :ivar usage: what captured spans of libraries used, in steps and outside them
    """

    workflow_id: str
    name: str = ""
    workflow: dict[str, Any] = {}
    parent: ParentStep | None = None
    forked_from: ForkOrigin | None = None
    status: str = "running"
    inputs: bytes | None = None
    inputs_blob: str | None = None
    result_json: bytes | None = None
    result_blob: str | None = None
    result_omitted: str | None = None
    error: dict[str, Any] | None = None
    reason: str | None = None
    ended_by: str | None = None
    question: str | None = None
    executions: list[ExecutionHistory] = []
    by_id: dict[str, StepHistory] = {}
    scopes: dict[str | None, ScopeHistory] = {}
    annotations: list[Annotation] = []
    seq: int = 0
    last_timestamp: str = ""
    inputs_locked: Locked | None = None
    result_locked: Locked | None = None
    error_locked: Locked | None = None
    locked: Locked | None = None
    repairs: int = 0
    dropped: int = 0
    usage: Usage = NO_USAGE

    @property
    def steps(self) -> list[StepHistory]:
        """All steps, in the order of their first start."""
        return list(self.by_id.values())

    @property
    def waiting(self) -> list[StepHistory]:
        """Its pauses that wait, in the order in which they began."""
        return [step for step in self.by_id.values() if step.waits]

    @property
    def foreign(self) -> bool:
        """Whether a third-party executor runs it, which itself decides what runs again."""
        return "executor" in self.workflow

    @property
    def resumable(self) -> bool:
        """Whether anything can resume it: not a run that was only observed, by its spans."""
        return self.workflow.get("resumable") is not False

    @property
    def types(self) -> list[str]:
        """The types that an executor's workflow has had, in order, if it was given another one."""
        changes = [one.attributes for one in self.annotations if one.name == WORKFLOW_TYPE]
        found = [str(one.get("to")) for one in changes]
        return [str(changes[0].get("from")), *found] if changes else []

    @property
    def trace_id(self) -> str | None:
        """Id of the run's trace, which all its executions share."""
        return self.executions[0].trace_id if self.executions else None

    @property
    def result(self) -> Any:
        """The workflow's result as JSON values; ``None`` without one, or if it is in a blob.

        :raises DecryptionError: it cannot be decrypted
        """
        if self.result_locked is not None:
            raise self.result_locked.error(self.workflow_id)
        if self.result_json is None:
            return None
        try:
            return msgspec.json.decode(self.result_json)
        except msgspec.DecodeError:  # a lone surrogate, a number that is too large
            return readable(self.result_json)

    def scope(self, step_id: str | None) -> ScopeHistory:
        """Return the history of a scope, and create it if needed."""
        found = self.scopes.get(step_id)
        if found is None:
            found = self.scopes[step_id] = ScopeHistory()
        return found


class Fold:
    """Folds a run's events, fed in order, into :attr:`history`."""

    def __init__(self, workflow_id: str) -> None:
        self.history = RunHistory(workflow_id)
        self._execution: ExecutionHistory | None = None
        self._usage = UsageFold()
        self._span_steps: SpanSteps | None = None  # of a run that a rule over spans opened
        self._handlers = self._HANDLERS  # read for every event: faster here than from the class

    def feed(self, event: Event) -> None:
        """Add the next event."""
        handler = self._handlers.get(event.event_type)
        if handler is not None:
            handler(self, event)
        history = self.history
        if event.encrypted is not UNSET and history.locked is None:
            history.locked = _locked(event)
        history.seq = event.seq
        history.last_timestamp = timestamp = event.timestamp
        execution = self._execution
        if (
            execution is not None
            and timestamp > execution.last_timestamp
            and event.execution == execution.number  # not what `resolve` or a repair added since
            and event.late is not True
        ):
            execution.last_timestamp = timestamp

    def feed_beside(self, event: Event) -> None:
        """Add an event of a side log: only captured spans matter."""
        if event.event_type in {"span", "span_start"}:
            self._on_span(event)

    def hand_over(self, step: StepHistory, group: Owner) -> None:
        """Let what spans used that come late for a step belong to the group it is summed up in."""
        self._usage.hand_over((one.span_id for one in step.attempts), group)

    def _on_execution(self, event: Event) -> None:
        history = self.history
        if history.executions:
            before = history.executions[-1]
            if before.status == "running":
                before.status = "interrupted"
        for scope in history.scopes.values():
            scope.forget_failures()  # only the execution that saw the failure can handle it
        history.workflow = _or(
            event.workflow, history.workflow
        )  # a resume may accept a changed workflow
        history.parent = _parent_of(history.workflow) or history.parent
        history.forked_from = fork_origin(history.workflow) or history.forked_from
        if event.event_type == "workflow_start":
            history.name = str(history.workflow.get("name", ""))
            history.inputs = _bytes(event.inputs)
            history.inputs_blob = _or(event.inputs_blob, None)
            history.inputs_locked = _locked(event)
        history.reason = history.ended_by = None
        history.status = "running"
        history.error = history.question = None
        history.result_locked = history.error_locked = None
        self._execution = ExecutionHistory(
            number=event.execution,
            timestamp=event.timestamp,
            start_seq=event.seq,
            process=_or(event.process, {}),
            trace_id=_or(event.trace_id, None),
            span_id=_or(event.span_id, None),
            flags=_flags(event),
            trace_state=_trace_state(event),
        )
        history.executions.append(self._execution)
        if event.parent_span_id is not UNSET:
            self._usage.leave_out(event.parent_span_id)
        if self._span_steps is None:
            self._span_steps = SpanSteps.of_run(event)

    def _on_workflow_end(self, event: Event) -> None:
        history = self.history
        history.status = _or(event.status, "failed")
        history.error = _or(event.error, None)
        history.reason = _or(event.reason, None)
        history.ended_by = _or(event.attributes, {}).get("by")
        history.question = _or(event.question, None)
        history.result_json = _bytes(event.result)
        history.result_blob = _or(event.result_blob, None)
        history.result_omitted = _or(event.result_omitted, None)
        locked, completed = _locked(event), history.status == "completed"
        history.result_locked = locked if completed else None
        history.error_locked = None if completed else locked
        if history.executions:
            execution = history.executions[-1]
            execution.status, execution.end_seq = history.status, event.seq
            execution.duration_ns = _or(event.duration_ns, None)
        self._mark_unhandled(event)
        history.scope(None).forget_failures()

    def _on_step_start(self, event: Event) -> None:
        step_id = "" if event.step_id is UNSET else event.step_id
        history = self.history
        order = None if event.order is UNSET else event.order
        parent = parent_of(step_id) if "/" in step_id else None
        scope = history.scopes.get(parent)
        if scope is not None and (scope.pending or scope.pending_unordered):
            _mark_handled(scope, ordered=order is not None)
        attempt = AttemptHistory(
            1 if event.attempt is UNSET else event.attempt,
            event.execution,
            event.seq,
            event.timestamp,
            order,
            None if event.span_id is UNSET else event.span_id,
        )
        if event.attributes is not UNSET:
            attempt.engine = event.attributes.get(ATTR.ENGINE)
        step = history.by_id.get(step_id)
        if step is None:
            step = history.by_id[step_id] = _new_step(step_id, event, attempt)
        elif step.last.start_seq != event.seq:  # otherwise it is fed again after an interrupt
            self._on_another_attempt(step, parent, event)
            step.begin(attempt)
        if self._usage.started:
            self._usage.begin(attempt.span_id, attempt)
        if event.question is not UNSET or event.until is not UNSET:
            step.pause = _pause_of(event)
            attempt.question = step.pause.question

    def _on_another_attempt(self, step: StepHistory, parent: str | None, event: Event) -> None:
        last = step.last
        step.handled = step.resolved = False
        step.answered = None
        step.result = step.result_blob = step.result_omitted = step.result_locked = None
        step.definition = _or(event.definition, step.definition)
        if not last.end_seq:
            return
        if last.status in FAILED and last.retry_in_ns is None:
            self.history.scope(parent).forget_between(last.end_seq, event.seq)
        if last.execution == event.execution or last.retry_in_ns is not None:
            # A retry: its inner calls may differ.
            self.history.scope(step.step_id).forget_between(last.start_seq, event.seq)

    def _on_step_end(self, event: Event) -> None:
        step, attempt = self._ended(event)
        if attempt.error is not None:  # a third-party executor skipped a failed step
            self.history.scope(step.parent).forget_failure(step)
        attempt.status = "completed" if event.event_type == "step_finish" else "skipped"
        if attempt is not step.last:
            return
        step.result_locked = _locked(event)
        if event.answered is not UNSET:
            self._on_answer(step, event.answered)
        if event.result is not UNSET:
            step.result = bytes(event.result)
        elif event.result_blob is not UNSET:
            step.result_blob = event.result_blob
        elif step.result_locked is None:
            step.result_omitted = _or(event.result_omitted, "")
        if step.interruptions:
            step.interruptions = 0
        if "/" in step.step_id:
            self._reset_interruptions(step.step_id)

    def _on_answer(self, step: StepHistory, by: dict[str, Any]) -> None:
        step.answered = by
        if self.history.status == "paused":
            self.history.status = "answered"

    def _reset_interruptions(self, step_id: str) -> None:
        """Count the interruptions of the enclosing steps anew: a step inside has finished."""
        for around in steps_around(step_id):
            outer = self.history.by_id.get(around)
            if outer is not None:
                outer.interruptions = 0

    def _on_step_fail(self, event: Event) -> None:
        step, attempt = self._ended(event)
        before = attempt.status
        attempt.status = status = _or(event.status, "failed")
        attempt.error = _or(event.error, None)
        attempt.retry_in_ns = _or(event.retry_in_ns, None)
        attempt.caused_by = tuple(_or(event.caused_by, ()))
        attempt.question = _or(event.question, None)
        if attempt is not step.last:
            return
        if status != "interrupted":
            step.interruptions = 0
        elif before != status:  # otherwise it is fed again after an interrupt
            step.interruptions += attempt.engine is None or _is_its_own(event, attempt)
        self._mark_unhandled(event)
        inner = self.history.scopes.get(step.step_id)
        if inner is not None:
            inner.forget_failures()
        if status == "failed" and not attempt.caused_by:
            self.history.scope(step.step_id).reset_seq = event.seq
        if status in {"failed", "timeout"} and attempt.retry_in_ns is None:
            scope = self.history.scope(step.parent)
            pending = scope.pending_unordered if attempt.order is None else scope.pending
            pending[step.step_id] = step

    def _ended(self, event: Event) -> tuple[StepHistory, AttemptHistory]:
        """Record what all events that end an attempt have in common.

        It is the last attempt of its step, unless a third-party executor began another meanwhile.
        """
        step_id = "" if event.step_id is UNSET else event.step_id
        step = self.history.by_id.get(step_id)
        if step is None:
            number = 0 if event.attempt is UNSET else event.attempt
            attempt = AttemptHistory(number, event.execution, event.seq, event.timestamp)
            step = self.history.by_id[step_id] = _new_step(step_id, event, attempt)
        attempt = step.last
        if event.attempt is not UNSET and event.attempt != attempt.number:
            attempt = step.attempt(event.attempt) or attempt
        attempt.end_seq = event.seq
        if event.duration_ns is not UNSET:
            attempt.duration_ns = event.duration_ns
        if event.reason is not UNSET:
            attempt.reason = event.reason
        if event.artifacts is not UNSET:
            attempt.artifacts = tuple(event.artifacts)
        if attempt.engine is not None and event.attributes is not UNSET:
            attempt.worker = _worker_of(event.attributes)
        return step, attempt

    def _mark_unhandled(self, event: Event) -> None:
        """A failure that left its scope was not handled, whatever was called after it."""
        if event.caused_by is not UNSET:
            for step_id in event.caused_by:
                step = self.history.by_id.get(step_id)
                if step is not None:
                    step.handled = False

    def _on_annotation(self, event: Event) -> None:
        step_id = _or(event.step_id, None)
        name = _or(event.name, "")
        step = self.history.by_id.get(step_id) if step_id is not None else None
        if name == RESOLVED and step is not None:
            step.interruptions, step.resolved = 0, True
            step.handled = False
            if step.status == "completed" and _or(event.attributes, {}).get("by") == "rerun":
                # As if it had not been stored.
                step.result = step.result_blob = step.result_locked = None
        elif name == HANDLED and step is not None:
            step.handled = True
            self.history.scope(step.parent).forget_failure(step)
        elif name == GATE and step is not None:
            step.last.gate = _gate_of(_or(event.attributes, {}))
        elif name == DIGEST and step is not None:
            _put_digest(step.attempt(_or(event.attempt, 0)), _or(event.attributes, {}))
        self.history.annotations.append(
            Annotation(event.seq, event.timestamp, name, step_id, _or(event.attributes, {}))
        )

    def _on_span_of_steps(self, steps: SpanSteps, event: Event) -> None:
        """Add a span of a run whose steps are made of its spans, or the start of one."""
        for made in steps.feed(event):
            self._handlers[made.event_type](self, made)
        if event.event_type == "span":
            used, step_id = steps.used(event)
            self.history.usage = self.history.usage.plus(used)
            step = None if step_id is None else self.history.by_id.get(step_id)
            if step is not None:
                step.last.usage = step.last.usage.plus(used)

    def _on_span(self, event: Event) -> None:
        if self._span_steps is not None:
            self._on_span_of_steps(self._span_steps, event)
            return
        usage, history = self._usage, self.history
        if not usage.started:  # most runs have no captured spans
            usage.started = True
            for step in history.by_id.values():
                for attempt in step.attempts:
                    usage.begin(attempt.span_id, attempt)
        history.usage = history.usage.plus(usage.feed(event))

    def _on_repair(self, _: Event) -> None:
        self.history.repairs += 1

    def _on_gap(self, event: Event) -> None:
        dropped = _or(event.attributes, {}).get("dropped")
        self.history.dropped += dropped if isinstance(dropped, int) else 0

    # Functions, not bound methods, which would make a reference cycle of each fold.
    _HANDLERS: Final[dict[str, Callable[[Fold, Event], None]]] = {
        "workflow_start": _on_execution,
        "workflow_resume": _on_execution,
        "workflow_end": _on_workflow_end,
        "step_start": _on_step_start,
        "step_finish": _on_step_end,
        "step_fail": _on_step_fail,
        "step_skip": _on_step_end,
        "annotation": _on_annotation,
        "span": _on_span,
        "span_start": _on_span,
        "log_repair": _on_repair,
        "log_gap": _on_gap,
    }


def fold(workflow_id: str, events: Iterable[Event]) -> RunHistory:
    """Return the history that ``events`` add up to."""
    folded = Fold(workflow_id)
    feed = folded.feed
    with collector_paused():
        for event in events:
            feed(event)
    return folded.history


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector: folding is twice as fast without its walks."""
    was_on = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if was_on:
            gc.enable()


def _is_its_own(event: Event, attempt: AttemptHistory) -> bool:
    """Whether the interruption of a step that a worker executed counts against the step.

    Not if its driver has died, nor if its executor broke while it had other steps, too.
    """
    if event.execution != attempt.execution:
        return False
    return event.attributes is UNSET or not event.attributes.get(ATTR.BROKEN_WITH)


def _mark_handled(scope: ScopeHistory, *, ordered: bool) -> None:
    """Mark failures as handled; those in tasks only after an ordered call."""
    for failures in (scope.pending, scope.pending_unordered) if ordered else (scope.pending,):
        for step in failures.values():
            step.handled = True
        failures.clear()


def _new_step(step_id: str, event: Event, attempt: AttemptHistory) -> StepHistory:
    step = StepHistory(
        step_id,
        "" if event.step is UNSET else event.step,
        None if event.agent is UNSET else event.agent,
        None if event.action is UNSET else event.action,
        attempt,
        None if event.inputs_digest is UNSET else event.inputs_digest,
        None if event.key is UNSET else event.key,
        None if event.definition is UNSET else event.definition,
        None if event.inputs is UNSET else bytes(event.inputs),
    )
    if event.attributes is not UNSET:
        step.child = child_of(event.attributes)
    if event.encrypted is not UNSET:
        step.inputs_locked = _locked(event)
    return step


def _locked(event: Event) -> Locked | None:
    """Why an event lacks the values that it hides; ``None`` if it has them, or hides none."""
    encrypted = event.encrypted
    if encrypted is UNSET or not (problem := problem_of(encrypted)):
        return None
    of_step = "" if event.step_id is UNSET else f" of step {event.step_id!r}"
    place = f"seq {event.seq} ({event.event_type}{of_step})"
    return Locked(encrypted.key, problem, place)


def _pause_of(event: Event) -> Pause:
    return Pause(_or(event.question, None), _or(event.answer_schema, None), _or(event.until, None))


def child_of(attributes: dict[str, Any]) -> ChildRun | None:
    """Return the run that a step calls, by the attributes of its start."""
    match attributes.get(ATTR.CHILD_WORKFLOW_ID), attributes.get(ATTR.CHILD_LOG_DIR):
        case str(workflow_id), str() | None as log_dir:
            return ChildRun(workflow_id, log_dir)
    return None


def _worker_of(attributes: dict[str, Any]) -> Worker | None:
    """Return the worker that executed an attempt, by the attributes of its end."""
    names = (ATTR.WORKER_HOST, ATTR.WORKER_PID, ATTR.WORKER_DURATION, ATTR.WORKER_WAIT)
    match [attributes.get(name) for name in names]:
        case [str(host), int(pid), int() | float() as duration, int() | float() as wait] if (
            0 <= duration < _LONGEST_S and 0 <= wait < _LONGEST_S
        ):
            return Worker(host, pid, duration, wait)
    return None


def _put_digest(attempt: AttemptHistory | None, found: dict[str, Any]) -> None:
    """Complete the summary of an artifact, which was hashed after its step had ended."""
    if attempt is not None and "sha256" in found:
        attempt.artifacts = tuple(
            {**one, "sha256": found["sha256"]} if one.get("path") == found.get("path") else one
            for one in attempt.artifacts
        )


def _gate_of(attributes: dict[str, Any]) -> Gate:
    """The result of a gate, by the attributes of its annotation."""
    score, condition = attributes.get("score"), attributes.get("condition")
    reasons = attributes.get("failures") or ([] if condition is None else [condition])
    return Gate(
        passed=attributes.get("passed") is True,
        score=score if isinstance(score, int | float) else None,
        reasons=tuple(map(str, reasons)) if isinstance(reasons, list) else (),
    )


def _parent_of(workflow: dict[str, Any]) -> ParentStep | None:
    """The step that calls a run, by the ``workflow`` field of an execution's first event."""
    match workflow.get("parent"):
        case {"workflow_id": str(workflow_id), "step_id": str(step_id), **rest}:
            log_dir = rest.get("log_dir")
            return ParentStep(workflow_id, step_id, log_dir if isinstance(log_dir, str) else None)
    return None


def fork_origin(workflow: Mapping[str, Any]) -> ForkOrigin | None:
    """Return where a run was forked from, by the ``workflow`` field of its first event."""
    match workflow.get("forked_from"):
        case str(workflow_id):
            return ForkOrigin(workflow_id)
        case {"workflow_id": str(workflow_id), "step_id": str(step_id), "seq": int(seq), **rest}:
            earlier = rest.get("ancestors")
            names = earlier if isinstance(earlier, list) else []
            return ForkOrigin(workflow_id, step_id, seq, tuple(map(str, names)))
    return None


def _or(value: Any, default: Any) -> Any:
    return default if value is UNSET or value is None else value


def _flags(event: Event) -> int | None:
    flags = _or(event.otel, {}).get("flags")
    return flags if type(flags) is int else None


def _trace_state(event: Event) -> str:
    state = _or(event.otel, {}).get("trace_state")
    return state if type(state) is str else ""


def _bytes(raw: Any) -> bytes | None:
    return None if raw is UNSET else bytes(raw)
