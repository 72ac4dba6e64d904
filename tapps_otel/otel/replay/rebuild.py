"""Spans from the log alone: those that were sent, and those that were not.

A span that an SDK made is rebuilt to the byte as the SDK sent it. One that no SDK made (none is set
up, it is switched off, a sampler dropped it) is a function of the log's lines and nothing else. So
is an interrupted one: it ends with the last moment of its execution, as an error, and is identical
before and after a later execution has added to the log.

The log is streamed: memory holds the open spans.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import UNSET
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode

from tapps_otel.errors import BlobDamagedError
from tapps_otel.log.event import loads
from tapps_otel.otel.mapping.aliases import Aliases, aliases_of
from tapps_otel.otel.mapping.content import (
    ERROR,
    Attributes,
    end_attributes,
    end_events,
    end_ns,
    event_attributes,
    interrupted_attributes,
    span_name,
    start_attributes,
    status_of,
    time_of,
    workflow_name,
)
from tapps_otel.otel.mapping.unpack import (
    NO_STATE,
    UNSET_STATUS,
    bounded,
    context_of,
    counted,
    kept,
    trace_state,
    unpack_attributes,
    unpack_event,
    unpack_link,
    unpack_resource,
    unpack_scope,
    unpack_span,
)
from tapps_otel.otel.replay.begun import Begun, BegunSpan, Life
from tapps_otel.otel.seam import SCOPE
from tapps_otel.past.span_rules import rules_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tapps_otel.log.event import Event

__all__ = ["Rebuilder", "Rebuilt"]

_log = logging.getLogger(__name__)
_STARTS: Final = frozenset({"workflow_start", "workflow_resume", "step_start"})
_BEGINNINGS: Final = _STARTS | {"span_start"}
_EXECUTIONS: Final = frozenset({"workflow_start", "workflow_resume"})
_ENDS: Final = frozenset({"workflow_end", "step_finish", "step_fail", "step_skip"})
_MANY: Final = 128  # of anything on a span: the default limit of a provider
_SLACK: Final = 256  # events kept beyond those: threads may have added theirs out of order
_LATEST: Final = 1 << 63  # ns: times beyond fit no span
# What a malformed span in a log may raise; everything else is a defect here.
_MALFORMED: Final = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError)


class Rebuilt(NamedTuple):
    """A span, and where it ends in the log.

    :ivar seq: of the line that ends it; 0 for an interrupted span, which no line ends
    :ivar execution: number of the execution that it belongs to
    :ivar waited: it is that of a pause that was ended by another process than began it
    """

    span: ReadableSpan
    seq: int
    execution: int
    waited: bool = False


class _Execution(Life):
    """What the spans of one execution have in common."""

    __slots__ = ("aliases", "last_seq", "last_sha", "limits", "name", "resource", "scope")

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.resource = Resource({})
        self.scope = InstrumentationScope(SCOPE)
        self.limits: Mapping[str, Any] = {}
        self.name: str | None = None
        self.aliases: Aliases = ()
        self.last_seq = 0
        self.last_sha = b""


class _OpenSpan:
    """A span that has started and not ended."""

    __slots__ = (
        "context",
        "count",
        "events",
        "execution",
        "flags",
        "note",
        "scope",
        "start",
        "start_ns",
    )

    def __init__(self, start: Event, execution: _Execution) -> None:
        self.start, self.execution = start, execution
        self.start_ns = _in_range(time_of(start))
        self.note: Mapping[str, Any] = start.otel if start.otel is not UNSET else {}
        most = execution.limits.get("max_events", _MANY)
        self.events: deque[Event] = deque(maxlen=None if most is None else most + _SLACK)
        self.count = 0
        self.context: SpanContext
        self.scope: SpanContext | None = None  # of the span that encloses it, where that is open
        self.flags: int | None = None

    @property
    def waits(self) -> bool:
        """Whether it is the span of a pause."""
        start = self.start
        return start.event_type == "step_start" and not (
            start.question is UNSET and start.until is UNSET
        )

    def add(self, event: Event) -> None:
        self.events.append(event)
        self.count += 1


class Rebuilder:
    """Reads a log's events in order, and yields its spans as they end.

    :param blob: reads a large value that is stored beside the log
    :param begun: gets the spans of libraries that begin, without those that end
    :param log: the name of the log, for them
    :ivar problems: what could not be rebuilt, and why: at most 100 are kept
    :ivar bad: how many spans could not be rebuilt
    """

    def __init__(
        self, blob: Callable[[str], bytes], begun: Begun | None = None, log: str = ""
    ) -> None:
        self._blob, self._log = blob, log
        self._begun = Begun() if begun is None else begun
        self._execution = _Execution(0)
        self._open: dict[str, _OpenSpan] = {}
        self.problems: list[str] = []
        self.bad = 0

    def feed(self, event: Event, sha: bytes) -> Iterator[Rebuilt]:
        """Read the next event; yield the spans that it ends.

        :param sha: of its line, as its 64 hex digits
        """
        execution = self._execution
        if event.execution > execution.number:
            if execution.number:
                yield from self._interrupted()
            execution = self._begin(event)
        kind = event.event_type
        if kind in _STARTS:
            self._start(event)
        elif kind == "span":
            yield from self._captured(event)
        elif kind == "span_start":
            self._begin_captured(event)
        elif event.span_id is not UNSET:
            opened = self._open.get(event.span_id)
            if opened is not None and kind in _ENDS and event.duration_ns is not UNSET:
                del self._open[event.span_id]
                yield from self._ended(opened, event, sha)
            elif opened is not None:
                opened.add(event)
        if kind == "workflow_end":
            self._begun.end_execution(event.execution)
        if event.execution == execution.number and event.late is not True:
            execution.last_seq, execution.last_sha = event.seq, sha
            # Jaeger warns of spans of no length: the span that started last gets a nanosecond, and
            # so do those that enclose it.
            least = 1 if kind in _BEGINNINGS else 0
            with suppress(ValueError):  # not a time
                execution.last_ns = max(execution.last_ns, time_of(event) + least)

    def close(self) -> Iterator[Rebuilt]:
        """Yield what is open as interrupted, at the end of a log."""
        yield from self._interrupted()

    @property
    def execution(self) -> int:
        """The number of the last execution that was read."""
        return self._execution.number

    # -- starts

    def _begin(self, event: Event) -> _Execution:
        """Start an execution at its first line, which may be a repair."""
        before, self._execution = self._execution, _Execution(event.execution)
        if before.number:
            for field in ("resource", "scope", "limits", "name", "aliases"):
                setattr(self._execution, field, getattr(before, field))
        return self._execution

    def _describe(self, event: Event) -> None:
        """Read what an execution's own first event has for all its spans."""
        execution = self._execution
        note: Mapping[str, Any] = event.otel if event.otel is not UNSET else {}
        if event.resource is not UNSET:
            execution.resource = unpack_resource(event.resource, note.get("resource_schema"))
        if "scope" in note:
            execution.scope = unpack_scope(note["scope"])
        elif event.process is not UNSET:
            version = event.process.get("tapps_otel")
            execution.scope = InstrumentationScope(SCOPE, str(version) if version else None)
        execution.limits = note.get("limits", {})
        execution.aliases = aliases_of(note)
        execution.name = workflow_name(event)

    def _start(self, event: Event) -> None:
        if event.span_id is UNSET or event.span_id in self._open:
            return
        try:
            if event.event_type in _EXECUTIONS:
                self._describe(event)
                if _has_library_span(event):
                    return
            opened = _OpenSpan(event, self._execution)
            self._place(opened)
        except _MALFORMED as error:
            self._add_bad(event, error)
            return
        opened.add(event)
        self._open[event.span_id] = opened

    def _place(self, opened: _OpenSpan) -> None:
        """Set flags and trace state: the event's, else those of the scope."""
        start, note = opened.start, opened.note
        scope = None
        if start.event_type == "step_start" and start.parent_span_id is not UNSET:
            scope = self._open.get(start.parent_span_id)
            opened.scope = scope.context if scope is not None else None
        opened.flags = note.get("flags", None if scope is None else scope.flags)
        state = NO_STATE if scope is None else scope.context.trace_state
        opened.context = context_of(
            str(start.trace_id),
            str(start.span_id),
            flags=1 if opened.flags is None else opened.flags,
        )
        if "trace_state" in note:
            state = trace_state(note["trace_state"])
        if state:
            made = opened.context
            opened.context = SpanContext(
                made.trace_id, made.span_id, is_remote=False,
                trace_flags=made.trace_flags, trace_state=state,
            )  # fmt: skip

    # -- ends

    def _ended(self, opened: _OpenSpan, event: Event, sha: bytes) -> Iterator[Rebuilt]:
        try:
            span = self._build(opened, event, sha)
            waited = opened.waits and event.late is True
            yield Rebuilt(span, event.seq, event.execution, waited)
        except _MALFORMED as error:
            self._add_bad(event, error)

    def _interrupted(self) -> Iterator[Rebuilt]:
        """Yield what is open as interrupted, innermost first.

        Not what waits for an answer or a time: it ends when it has that, however many executions
        later.
        """
        opened = [one for one in self._open.values() if not one.waits]
        self._open = {span_id: one for span_id, one in self._open.items() if one.waits}
        for one in reversed(opened):
            try:
                yield Rebuilt(self._build_interrupted(one), 0, one.execution.number)
            except _MALFORMED as error:
                self._add_bad(one.start, error)

    def _build(self, opened: _OpenSpan, end: Event, sha: bytes) -> ReadableSpan:
        note = self._note_of(end)
        limits = opened.execution.limits
        attributes = self._attributes(opened, note)
        events, dropped = self._events(opened, note)
        status = UNSET_STATUS
        if "status" in note:
            code, description = note["status"]
            status = Status(StatusCode(code), description)
        at = note.get("end_time")
        if at is None:  # else the user's code ended it, and nothing was added after that
            at = end_ns(end, opened.start_ns)
            if at < opened.start_ns:
                raise ValueError(f"its duration is negative: {at - opened.start_ns} ns")
            on_workflow = end.event_type == "workflow_end"
            attributes = _with(
                attributes,
                end_attributes(
                    end,
                    opened.start.seq,
                    sha.decode() if on_workflow else None,
                    opened.execution.aliases,
                ),
                limits,
            )
            for name, of_event in end_events(end, opened.execution.aliases):
                events.append(SpanEvent(name, _event_bounded(of_event, limits), at))
            code, description = status_of(end)
            if code and status.status_code is not StatusCode.OK:
                status = Status(StatusCode(code), description)
        return self._span(
            opened,
            attributes=attributes,
            events=(events, dropped),
            status=status,
            at=at,
            note=note,
        )

    def _build_interrupted(self, opened: _OpenSpan) -> ReadableSpan:
        """Build a span that never ended; later executions do not affect it."""
        execution, start = opened.execution, opened.start
        head = None
        if start.event_type in _EXECUTIONS:
            head = (start.seq, execution.last_seq, execution.last_sha.decode())
        attributes = _with(
            self._attributes(opened, {}),
            interrupted_attributes(head, execution.aliases),
            execution.limits,
        )
        what = "the run" if head else "this step"
        status = Status(
            StatusCode(ERROR), f"execution {execution.number} ended without ending {what}"
        )
        return self._span(
            opened,
            attributes=attributes,
            events=self._events(opened, {}),
            status=status,
            at=max(opened.start_ns + 1, execution.last_ns),
            note={},
        )

    def _span(
        self,
        opened: _OpenSpan,
        *,
        attributes: Any,
        events: tuple[list[SpanEvent], int],
        status: Status,
        at: int,
        note: Mapping[str, Any],
    ) -> ReadableSpan:
        start, execution = opened.start, opened.execution
        parent = opened.scope
        if parent is None and start.parent_span_id is not UNSET:
            parent = context_of(
                str(start.trace_id),
                start.parent_span_id,
                remote=opened.note.get("parent_is_remote", False),
            )
        links = note.get("links", opened.note.get("links", ()))
        dropped = note.get("dropped", {}).get("links", 0)
        return ReadableSpan(
            note.get("name", span_name(start)),
            context=opened.context,
            parent=parent,
            resource=execution.resource,
            attributes=attributes,
            events=kept(events[0], events[1], execution.limits.get("max_events", _MANY)),
            links=kept(map(unpack_link, links), dropped) if links or dropped else (),
            status=status,
            start_time=opened.start_ns,
            end_time=_in_range(at),
            instrumentation_scope=execution.scope,
        )

    # -- content

    def _note_of(self, end: Event) -> Mapping[str, Any]:
        """Return what the span held beyond the log's events."""
        if end.otel_blob is UNSET:
            return end.otel if end.otel is not UNSET else {}
        try:
            return loads(self._blob(end.otel_blob))
        except (BlobDamagedError, ValueError) as error:
            self._add_problem(end, f"what other code put on this span is lost: {error}")
            return {}

    def _attributes(self, opened: _OpenSpan, note: Mapping[str, Any]) -> Any:
        limits = opened.execution.limits
        dropped = note.get("dropped", {}).get("attributes", 0)
        if "attributes" in note:
            held = unpack_attributes(note["attributes"])
        else:
            execution = opened.execution
            held = start_attributes(opened.start, execution.name, execution.aliases)
        if dropped:
            return counted(held, dropped)
        return bounded(held, *_span_limits(limits))

    def _events(self, opened: _OpenSpan, note: Mapping[str, Any]) -> tuple[list[SpanEvent], int]:
        """Return the span's events, and how many were dropped before them."""
        limits = opened.execution.limits
        if "events" in note:
            by_seq = {event.seq: event for event in opened.events}
            made = [
                self._event(by_seq[one], opened, limits) if type(one) is int else unpack_event(one)
                for one in note["events"]
            ]
            return made, note.get("dropped", {}).get("events", 0)
        made = [self._event(event, opened, limits) for event in opened.events]
        return made, opened.count - len(made)

    def _event(self, event: Event, opened: _OpenSpan, limits: Mapping[str, Any]) -> SpanEvent:
        at = opened.start_ns if event is opened.start else time_of(event)
        attributes = _event_bounded(event_attributes(event), limits)
        return SpanEvent(event.event_type, attributes, _in_range(at))

    def _captured(self, event: Event) -> Iterator[Rebuilt]:
        """Yield a span that the log has whole: a library's, or a late one."""
        if event.span_id is not UNSET:
            self._open.pop(event.span_id, None)
            self._begun.end(event.span_id)
        try:
            note = self._note_of(event)
            resource = self._resource_of(event, note)
            parent = None if event.parent_span_id is UNSET else event.parent_span_id
            end = _in_range(time_of(event))
            duration = 0 if event.duration_ns is UNSET else event.duration_ns
            span = unpack_span(
                note,
                name=str(note.get("name", event.name)),
                ids=(str(event.trace_id), str(event.span_id), parent),
                times=(_in_range(end - duration), end),
                resource=resource,
            )
        except _MALFORMED as error:
            self._add_bad(event, error)
            return
        yield Rebuilt(span, event.seq, event.execution)

    def _begin_captured(self, event: Event) -> None:
        """Note that a library's span has begun."""
        try:
            note = self._note_of(event)
            resource, at = self._resource_of(event, note), _in_range(time_of(event))
            span = BegunSpan(self._log, event, note, at, resource, self._execution)
            span.interrupted()  # a malformed one is reported now, with its place
        except _MALFORMED as error:
            self._add_bad(event, error)
            return
        if not self._begun.add(span):
            self._add_problem(
                event, "too many spans have begun here without an end: it is left out"
            )

    def _resource_of(self, event: Event, note: Mapping[str, Any]) -> Resource:
        """Return the resource that the event names; else the execution's.

        A side log has no execution's own event: the resource that it named last counts.
        """
        execution = self._execution
        if event.resource is UNSET:
            return execution.resource
        resource = unpack_resource(event.resource, note.get("resource_schema"))
        if execution.name is None:
            execution.resource = resource
        return resource

    # -- problems

    def _add_bad(self, event: Event, error: Exception) -> None:
        self.bad += 1
        self._add_problem(event, f"this span cannot be rebuilt: {error}")

    def _add_problem(self, event: Event, problem: str) -> None:
        if len(self.problems) < 100:
            self.problems.append(f"seq {event.seq}: {problem}")


def _has_library_span(event: Event) -> bool:
    """Whether the span of an execution is a library's, which is captured as all others are."""
    return event.workflow is not UNSET and rules_of(event.workflow) is not None


def _span_limits(limits: Mapping[str, Any]) -> tuple[int | None, int | None]:
    return limits.get("max_span_attributes", _MANY), limits.get("max_span_attribute_length")


def _event_bounded(attributes: Attributes, limits: Mapping[str, Any]) -> Any:
    longest = limits.get("max_attribute_length")
    return bounded(attributes, limits.get("max_event_attributes", _MANY), longest)


def _with(attributes: Any, more: Attributes, limits: Mapping[str, Any]) -> Any:
    """Set attributes as the SDK does: a name that is set again moves to the end."""
    most, longest = _span_limits(limits)
    plain = isinstance(attributes, dict) and longest is None
    if plain and (most is None or len(attributes) + len(more) <= most):
        for name, value in more.items():
            attributes.pop(name, None)
            attributes[name] = value
        return attributes
    held = attributes
    if isinstance(attributes, dict):
        held = counted(attributes, 0)
    held.maxlen, held.max_value_len = most, longest
    for name, value in more.items():
        held[name] = value
    return held


def _in_range(ns: int) -> int:
    if not 0 <= ns < _LATEST:
        raise ValueError(f"a time of {ns} ns is out of range")
    return ns
