"""Events in, history out: one fold, used by resume, by reports and by exports. Pure.

The fold keeps what the rules of resume need and no more: of a step its attempts and its outcome,
of a scope which failures in it were handled and which records are no longer due. Events that it
does not know are passed over.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, Struct

from tapps_otel.clock import timestamp_ns
from tapps_otel.names import parent_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tapps_otel.log.event import Event

__all__ = [
    "RESOLVED",
    "Annotation",
    "AttemptHistory",
    "ExecutionHistory",
    "Fold",
    "RunHistory",
    "ScopeHistory",
    "StepHistory",
    "collector_paused",
    "fold",
]

# Name of the annotation by which a person lets an interrupted step run again.
RESOLVED: Final = "tapps.resolved"
_ENDED_BADLY: Final = frozenset({"failed", "timeout", "cancelled"})


class AttemptHistory(Struct, gc=False):
    """One try of a step.

    :ivar status: ``running`` while it is open, else that of the event that ended it
    :ivar start_seq: of its ``step_start``; of the skip itself for a step that never started
    :ivar end_seq: of the event that ended it; 0 while it is open
    :ivar retry_in_ns: another try was to follow after this wait
    :ivar caused_by: steps inside whose exception left it
    :ivar order: it was its scope's n-th ordered call of that name; ``None``: in a task or thread
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

    @property
    def started_ns(self) -> int:
        """Wall clock, ns since 1970 UTC."""
        return timestamp_ns(self.timestamp)


class StepHistory(Struct, gc=False):
    """What the log knows of one step: a *record*, in the words of the rules of resume.

    :ivar step_id: its place, as ``outer/draft#2``
    :ivar last: its last attempt
    :ivar result: JSON bytes of what it gave back, if the log holds them
    :ivar handled: it failed for good, and its scope went on after that
    :ivar interruptions: how often in a row it was interrupted, without progress inside
    :ivar resolved: a person let it run again
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
    handled: bool = False
    interruptions: int = 0
    resolved: bool = False
    _earlier: list[AttemptHistory] | None = None  # few steps have any

    @property
    def attempts(self) -> list[AttemptHistory]:
        """In their order, the last one included."""
        return [*(self._earlier or ()), self.last]

    def begin(self, attempt: AttemptHistory) -> None:
        """Take in another attempt."""
        if self._earlier is None:
            self._earlier = []
        self._earlier.append(self.last)
        self.last = attempt

    @property
    def status(self) -> str:
        """Of its last attempt."""
        return self.last.status

    @property
    def parent(self) -> str | None:
        """Step id of the enclosing step; ``None`` in the workflow itself."""
        return parent_of(self.step_id)

    @property
    def stored(self) -> bool:
        """Whether it ended well and the log can give back what it returned."""
        status = self.last.status
        return status == "skipped" or (
            status == "completed" and (self.result is not None or self.result_blob is not None)
        )


class ScopeHistory(Struct):
    """What the rules of resume need to know of a scope, beside its records.

    :ivar gone: seq intervals; records that started inside one are no longer due
    :ivar reset_seq: records that started before it do not count any more
    :ivar pending: failures of ordered calls that no later call has yet shown to be handled
    :ivar loose: the same of calls in tasks and threads, which only an ordered call can show
    """

    gone: list[tuple[int, int]] = []
    reset_seq: int = 0
    pending: list[StepHistory] = []
    loose: list[StepHistory] = []

    def forget_failures(self) -> None:
        """No later call can show that they were handled."""
        self.pending.clear()
        self.loose.clear()

    def forget_failure(self, step: StepHistory) -> None:
        """It counts as a failure no more."""
        self.pending = [one for one in self.pending if one is not step]
        self.loose = [one for one in self.loose if one is not step]

    def due(self, record: StepHistory) -> bool:
        """Whether the code is still expected to ask for this record."""
        seq = record.last.start_seq
        return not any(low < seq < high for low, high in self.gone)


class ExecutionHistory(Struct):
    """One process's go at the run.

    :ivar status: of its end; ``interrupted`` where it has none and a later execution began;
        ``running`` where it is the last and has none
    :ivar flags: W3C trace flags of its span, where an SDK made that
    :ivar last_timestamp: the latest of its events: the last moment at which it was surely alive
    """

    number: int
    timestamp: str
    start_seq: int
    process: dict[str, Any]
    trace_id: str | None = None
    span_id: str | None = None
    flags: int | None = None
    status: str = "running"
    end_seq: int = 0
    last_timestamp: str = ""
    duration_ns: int | None = None

    @property
    def started_ns(self) -> int:
        """Wall clock, ns since 1970 UTC."""
        return timestamp_ns(self.timestamp)


class Annotation(Struct, frozen=True):
    """A user's own event, or one of the library's remarks (``tapps.*``)."""

    seq: int
    timestamp: str
    name: str
    step_id: str | None
    attributes: dict[str, Any]


class RunHistory(Struct):
    """A run, from its log alone.

    :ivar status: ``completed``, ``failed``, ``cancelled``, ``interrupted`` or ``paused``, as the
        last end says; ``running`` where the last execution has no end: whether it is alive only
        its lease can tell
    :ivar workflow: its name, and where it comes from, as the last execution found it
    :ivar steps: in the order of their first start
    :ivar seq: of the last event
    :ivar result_json: JSON bytes of the workflow's result, if it completed and they are in the log
    """

    workflow_id: str
    name: str = ""
    workflow: dict[str, Any] = {}
    status: str = "running"
    inputs: bytes | None = None
    inputs_blob: str | None = None
    result_json: bytes | None = None
    result_blob: str | None = None
    error: dict[str, Any] | None = None
    executions: list[ExecutionHistory] = []
    by_id: dict[str, StepHistory] = {}
    scopes: dict[str | None, ScopeHistory] = {}
    annotations: list[Annotation] = []
    seq: int = 0
    last_timestamp: str = ""
    repairs: int = 0
    dropped: int = 0

    @property
    def steps(self) -> list[StepHistory]:
        """Every step, in the order of their first start."""
        return list(self.by_id.values())

    @property
    def foreign(self) -> bool:
        """Whether an executor that is not ours carries it out: it decides what runs again."""
        return "executor" in self.workflow

    @property
    def trace_id(self) -> str | None:
        """Of the run's one trace."""
        return self.executions[0].trace_id if self.executions else None

    @property
    def result(self) -> Any:
        """The workflow's result as plain JSON values; ``None`` without one, or in a blob."""
        return None if self.result_json is None else msgspec.json.decode(self.result_json)

    def scope(self, step_id: str | None) -> ScopeHistory:
        """What is known of a scope; made when first asked for."""
        found = self.scopes.get(step_id)
        if found is None:
            found = self.scopes[step_id] = ScopeHistory()
        return found


class Fold:
    """Takes a run's events in order; :attr:`history` is what they say so far."""

    def __init__(self, workflow_id: str) -> None:
        self.history = RunHistory(workflow_id)
        self._execution: ExecutionHistory | None = None
        self._handlers = self._HANDLERS  # read with every event: quicker here than in the class

    def feed(self, event: Event) -> None:
        """Take the next event."""
        handler = self._handlers.get(event.event_type)
        if handler is not None:
            handler(self, event)
        history = self.history
        history.seq = event.seq
        history.last_timestamp = timestamp = event.timestamp
        execution = self._execution
        if (
            execution is not None
            and timestamp > execution.last_timestamp
            and event.execution == execution.number  # not what a person or a repair added since
            and event.late is not True
        ):
            execution.last_timestamp = timestamp

    def _on_execution(self, event: Event) -> None:
        history = self.history
        if history.executions:
            before = history.executions[-1]
            if before.status == "running":
                before.status = "interrupted"
        for scope in history.scopes.values():
            scope.forget_failures()  # only the execution in which it failed can show it handled
        history.workflow = _or(event.workflow, history.workflow)  # a resume may accept a change
        if event.event_type == "workflow_start":
            history.name = str(history.workflow.get("name", ""))
            history.inputs = _bytes(event.inputs)
            history.inputs_blob = _or(event.inputs_blob, None)
        history.status = "running"
        history.error = None
        self._execution = ExecutionHistory(
            number=event.execution,
            timestamp=event.timestamp,
            start_seq=event.seq,
            process=_or(event.process, {}),
            trace_id=_or(event.trace_id, None),
            span_id=_or(event.span_id, None),
            flags=_flags(event),
        )
        history.executions.append(self._execution)

    def _on_workflow_end(self, event: Event) -> None:
        history = self.history
        history.status = _or(event.status, "failed")
        history.error = _or(event.error, None)
        history.result_json = _bytes(event.result)
        history.result_blob = _or(event.result_blob, None)
        if history.executions:
            execution = history.executions[-1]
            execution.status, execution.end_seq = history.status, event.seq
            execution.duration_ns = _or(event.duration_ns, None)
        self._blame(event)
        history.scope(None).forget_failures()

    def _on_step_start(self, event: Event) -> None:
        step_id = "" if event.step_id is UNSET else event.step_id
        history = self.history
        order = None if event.order is UNSET else event.order
        parent = parent_of(step_id) if "/" in step_id else None
        scope = history.scopes.get(parent)
        if scope is not None and (scope.pending or scope.loose):
            _see_handled(scope, ordered=order is not None)
        attempt = AttemptHistory(
            1 if event.attempt is UNSET else event.attempt,
            event.execution,
            event.seq,
            event.timestamp,
            order,
            None if event.span_id is UNSET else event.span_id,
        )
        step = history.by_id.get(step_id)
        if step is None:
            history.by_id[step_id] = _new_step(step_id, event, attempt)
        else:
            self._on_another_attempt(step, parent, event)
            step.begin(attempt)

    def _on_another_attempt(self, step: StepHistory, parent: str | None, event: Event) -> None:
        last = step.last
        step.handled = step.resolved = False
        step.result = step.result_blob = step.result_omitted = None
        step.definition = _or(event.definition, step.definition)
        if not last.end_seq:
            return
        if last.status in _ENDED_BADLY and last.retry_in_ns is None:
            self.history.scope(parent).gone.append((last.end_seq, event.seq))
        if last.execution == event.execution:  # a retry: what the try before asked for may change
            self.history.scope(step.step_id).gone.append((last.start_seq, event.seq))

    def _on_step_end(self, event: Event) -> None:
        step = self._ended(event)
        attempt = step.last
        if attempt.error is not None:  # an executor passes over what has failed
            self.history.scope(step.parent).forget_failure(step)
        attempt.status = "completed" if event.event_type == "step_finish" else "skipped"
        if event.result is not UNSET:
            step.result = bytes(event.result)
        elif event.result_blob is not UNSET:
            step.result_blob = event.result_blob
        else:
            step.result_omitted = _or(event.result_omitted, "")
        if step.interruptions:
            step.interruptions = 0
        if "/" in step.step_id:
            self._see_progress(step.step_id)

    def _see_progress(self, step_id: str) -> None:
        """A step ended well: what encloses it is not stuck."""
        parent = parent_of(step_id)
        while parent is not None:
            outer = self.history.by_id.get(parent)
            if outer is not None:
                outer.interruptions = 0
            parent = parent_of(parent)

    def _on_step_fail(self, event: Event) -> None:
        step = self._ended(event)
        attempt = step.last
        attempt.status = status = _or(event.status, "failed")
        attempt.error = _or(event.error, None)
        attempt.retry_in_ns = _or(event.retry_in_ns, None)
        attempt.caused_by = tuple(_or(event.caused_by, ()))
        step.interruptions = step.interruptions + 1 if status == "interrupted" else 0
        self._blame(event)
        inner = self.history.scopes.get(step.step_id)
        if inner is not None:
            inner.forget_failures()
        if status == "failed" and not attempt.caused_by:
            self.history.scope(step.step_id).reset_seq = event.seq
        if status in {"failed", "timeout"} and attempt.retry_in_ns is None:
            scope = self.history.scope(step.parent)
            (scope.loose if attempt.order is None else scope.pending).append(step)

    def _ended(self, event: Event) -> StepHistory:
        """Note what every end of an attempt says."""
        step_id = "" if event.step_id is UNSET else event.step_id
        step = self.history.by_id.get(step_id)
        if step is None:
            number = 0 if event.attempt is UNSET else event.attempt
            attempt = AttemptHistory(number, event.execution, event.seq, event.timestamp)
            step = self.history.by_id[step_id] = _new_step(step_id, event, attempt)
        attempt = step.last
        attempt.end_seq = event.seq
        if event.duration_ns is not UNSET:
            attempt.duration_ns = event.duration_ns
        if event.reason is not UNSET:
            attempt.reason = event.reason
        if event.artifacts is not UNSET:
            attempt.artifacts = tuple(event.artifacts)
        return step

    def _blame(self, event: Event) -> None:
        """A failure that left its scope was not handled there, whatever was called after it."""
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
        self.history.annotations.append(
            Annotation(event.seq, event.timestamp, name, step_id, _or(event.attributes, {}))
        )

    def _on_repair(self, _: Event) -> None:
        self.history.repairs += 1

    def _on_gap(self, event: Event) -> None:
        dropped = _or(event.attributes, {}).get("dropped")
        self.history.dropped += dropped if isinstance(dropped, int) else 0

    # Functions, not bound methods: a fold that referred to itself would outlive its use.
    _HANDLERS: Final[dict[str, Callable[[Fold, Event], None]]] = {
        "workflow_start": _on_execution,
        "workflow_resume": _on_execution,
        "workflow_end": _on_workflow_end,
        "step_start": _on_step_start,
        "step_finish": _on_step_end,
        "step_fail": _on_step_fail,
        "step_skip": _on_step_end,
        "annotation": _on_annotation,
        "log_repair": _on_repair,
        "log_gap": _on_gap,
    }


def fold(workflow_id: str, events: Iterable[Event]) -> RunHistory:
    """Fold all of ``events``."""
    folded = Fold(workflow_id)
    feed = folded.feed
    with collector_paused():
        for event in events:
            feed(event)
    return folded.history


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the cyclic garbage collector from walking a history that only grows: twice as fast."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _see_handled(scope: ScopeHistory, *, ordered: bool) -> None:
    """The scope went on: failures before this call were handled, if it could know of them."""
    for known in (scope.pending, scope.loose) if ordered else (scope.pending,):
        for step in known:
            step.handled = True
        known.clear()


def _new_step(step_id: str, event: Event, attempt: AttemptHistory) -> StepHistory:
    return StepHistory(
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


def _or(value: Any, default: Any) -> Any:
    return default if value is UNSET or value is None else value


def _flags(event: Event) -> int | None:
    flags = _or(event.otel, {}).get("flags")
    return flags if type(flags) is int else None


def _bytes(raw: Any) -> bytes | None:
    return None if raw is UNSET else bytes(raw)
