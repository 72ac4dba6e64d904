"""Steps made of the spans of libraries, where rules say which spans are steps. Pure.

The log has the spans; the steps are made when it is read. A span is a step by what it starts with,
or by what it has at its end: then its step begins and ends there, and what is inside it, which
came before, stays where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, Struct

from tapps_otel.clock import timestamp, timestamp_ns
from tapps_otel.log.event import Event
from tapps_otel.names import MOST_NESTED, escape, join_step_id
from tapps_otel.past.span_rules import rules_of
from tapps_otel.past.usage import Usage, attributes_of, usage_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tapps_otel.past.span_rules import SpanRules

__all__ = ["SpanSteps", "end_of"]

_ERROR: Final = 2  # the status of a span that failed
_MOST_PARENTS: Final = 1_000  # between a span and its root; only a made-up log has more
_LONG: Final = 200  # characters of a step's name
_CANCELLED: Final = "CancelledError"


class _Seen(Struct):
    """A span that has begun.

    :ivar place: the step that it is, or else the one that encloses it; ``None``: the run
    :ivar has_calls: whether calls of models below it were counted
    """

    parent: str | None
    place: str | None
    is_step: bool
    depth: int
    ended: bool = False
    has_calls: bool = False


class SpanSteps:
    """Makes events of steps from a run's ``span_start`` and ``span`` events.

    :param root: id of the span that opened the run
    """

    def __init__(self, rules: SpanRules, root: str) -> None:
        self._rules = rules
        self._seen = {root: _Seen(None, None, is_step=False, depth=0)}
        self._ordinals: dict[str, int] = {}

    @classmethod
    def of_run(cls, start: Event) -> SpanSteps | None:
        """Return what makes the steps of a run, by its first event; ``None`` where it has steps."""
        rules = None if start.workflow is UNSET else rules_of(start.workflow)
        return None if rules is None or start.span_id is UNSET else cls(rules, start.span_id)

    def feed(self, event: Event) -> Iterator[Event]:
        """Yield the events of the step that a span is, if it is one."""
        if event.span_id is UNSET:
            return
        ends = event.event_type == "span"
        seen = self._seen.get(event.span_id)
        if seen is None or (ends and not seen.is_step and not seen.ended):
            parent = None if event.parent_span_id is UNSET else event.parent_span_id
            above = None if parent is None else self._seen.get(parent)
            if above is None:  # not below the root
                return
            seen = self._place(event, seen, above)
            if seen.is_step:
                yield self._start(event, seen)
        if ends and not seen.ended:
            seen.ended = True
            if seen.is_step:
                yield _end(event, seen)

    def _place(self, event: Event, seen: _Seen | None, above: _Seen) -> _Seen:
        """Find the place of a span that has begun, or that ends and was not a step until now."""
        found = _Seen(str(event.parent_span_id), above.place, is_step=False, depth=above.depth)
        name, note = _name(event), _note(event)
        scope = note.get("scope")
        scope_name = str(scope.get("name", "")) if isinstance(scope, dict) else ""
        nested = above.depth < MOST_NESTED
        if nested and self._rules.is_step(name, scope_name, attributes_of(event)):
            first = join_step_id(above.place, escape(name[:_LONG]), 1)
            number = self._ordinals[first] = self._ordinals.get(first, 0) + 1
            found.place = first if number == 1 else f"{first}#{number}"
            found.is_step, found.depth = True, above.depth + 1
        if seen is not None:
            found.has_calls = seen.has_calls
        self._seen[str(event.span_id)] = found
        return found

    def _start(self, event: Event, seen: _Seen) -> Event:
        attributes, rules = attributes_of(event), self._rules
        began = event.timestamp
        if event.duration_ns is not UNSET:
            began = timestamp(max(0, timestamp_ns(began) - event.duration_ns))
        return Event(
            event_type="step_start",
            workflow_id=event.workflow_id,
            seq=event.seq,
            timestamp=began,
            execution=event.execution,
            span_id=event.span_id,
            step_id=str(seen.place),
            step=_name(event)[:_LONG],
            agent=_text(attributes, rules.agent),
            action=_text(attributes, rules.action),
            attempt=1,
        )

    def used(self, event: Event) -> tuple[Usage, str | None]:
        """Return what a span that has ended used by itself, and the step that used it.

        A span often repeats the totals of those inside it: such calls count once, inside.
        """
        own = usage_of(attributes_of(event))
        seen = None if event.span_id is UNSET else self._seen.get(event.span_id)
        if seen is None:
            return own, None
        if seen.has_calls:
            own = own.of_tools
        above = seen
        for _ in range(_MOST_PARENTS if own.calls else 0):
            above.has_calls = True
            found = None if above.parent is None else self._seen.get(above.parent)
            if found is None or found.has_calls:
                break
            above = found
        return own, seen.place


def end_of(note: Mapping[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Return the status that a span ended with, and its error.

    :param note: the span, as its event has it
    """
    status = note.get("status")
    code, message = status if isinstance(status, list) and len(status) == 2 else (0, None)
    kind = _exception(note) or _attribute(note, "error.type")
    if code != _ERROR:
        return "completed", None
    error = {"type": kind or "Error", "message": str(message or ""), "stack": None}
    is_cancelled = kind is not None and kind.rpartition(".")[2] == _CANCELLED
    return "cancelled" if is_cancelled else "failed", error


def _exception(note: Mapping[str, Any]) -> str | None:
    """The type of the last exception that the span has recorded."""
    events = note.get("events")
    for one in reversed(events if isinstance(events, list) else []):
        if isinstance(one, list) and len(one) > 2 and one[0] == "exception":
            return _attribute({"attributes": one[2]}, "exception.type")
    return None


def _attribute(note: Mapping[str, Any], name: str) -> str | None:
    attributes = note.get("attributes")
    return _text(attributes, name) if isinstance(attributes, dict) else None


def _end(event: Event, seen: _Seen) -> Event:
    status, error = end_of(_note(event))
    if event.status == "failed" and error is None:  # of a large span, whose rest is in a blob
        status, error = "failed", {"type": "Error", "message": "", "stack": None}
    made = Event(
        event_type="step_finish" if error is None else "step_fail",
        workflow_id=event.workflow_id,
        seq=event.seq,
        timestamp=event.timestamp,
        execution=event.execution,
        span_id=event.span_id,
        step_id=str(seen.place),
        attempt=1,
        status=status,
        duration_ns=event.duration_ns,
    )
    if error is not None:
        made.error = error
    return made


def _note(event: Event) -> Mapping[str, Any]:
    return {} if event.otel is UNSET else event.otel


def _name(event: Event) -> str:
    return "" if event.name is UNSET else event.name


def _text(attributes: Mapping[str, Any], name: str | None) -> str | None:
    found = None if name is None else attributes.get(name)
    return found[:_LONG] if isinstance(found, str) else None
