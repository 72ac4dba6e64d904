"""Runs that are opened where a library's span starts, and ended with it.

The library's span is the span of the run: no second one is made. Everything below it is captured
in the run's log; its steps are made of that when the log is read.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel import clock, settings
from tapps_otel.instrumentation.execution import is_enabled, store_under
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.names import SPANS, new_workflow_id
from tapps_otel.otel import run_registry
from tapps_otel.otel.mapping.pack import pack_resource, pack_span
from tapps_otel.otel.mapping.redacted import redacted
from tapps_otel.otel.seam import LiveSpan, SpanRef, Tracing
from tapps_otel.past.span_rules import as_json
from tapps_otel.past.span_steps import end_of
from tapps_otel.redact import rules_here
from tapps_otel.run.external_start import ExternalWorkflow, start_run, start_turn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.log.event import Event
    from tapps_otel.log.store import RunSummary
    from tapps_otel.otel.run_registry import KnownRun
    from tapps_otel.past.span_rules import SpanRules
    from tapps_otel.run.external_run import ExternalRunRecorder

__all__ = ["SpanRuns"]

_MOST_LOOKS: Final = 256  # of one run, that are remembered
_LONG_LOOK: Final = 1024  # characters; longer ones are not


class _Open(NamedTuple):
    run: ExternalRunRecorder
    known: KnownRun


class SpanRuns:
    """The runs that rules have opened in this process. No method raises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: dict[str, SpanRules] = {}
        self._open: dict[int, _Open] = {}  # by the id of the root
        self._steps: dict[int, _Steps] = {}  # by the identity of the known run

    def use(self, name: str, rules: SpanRules) -> None:
        """Open runs by these rules, after those that are in use."""
        with self._lock:
            self._rules = {**self._rules, name: rules}

    def drop(self, name: str) -> None:
        """Open no more runs by the rules of this name."""
        with self._lock:
            self._rules = {one: rules for one, rules in self._rules.items() if one != name}

    # -- as the processor asks

    def started(self, span: ReadableSpan) -> None:
        """Open a run, if the span is the root of one."""
        if not self._rules or span.context.span_id in self._open:  # of two processors
            return
        with guarded("a run is not logged"):
            if _is_below_open_root(span):  # most are: no rule is asked
                return
            found = self._rules_for(span)
            if found is not None and not self._is_in_other_run(span) and is_enabled():
                self._begin(span, *found)

    def ended(self, span: ReadableSpan) -> None:
        """End the run whose root the span is."""
        if not self._open:
            return
        with self._lock:
            ended = self._open.pop(span.context.span_id, None)
            if ended is not None:
                del self._steps[id(ended.known)]
        if ended is not None:
            with guarded("the end of a run is not logged"):
                _end(ended.run, span)

    def is_step(self, span: ReadableSpan) -> bool:
        """Whether the span is a step of a run that is open."""
        known = run_registry.owner_of(span.context.span_id, None) if self._open else None
        steps = self._steps.get(id(known))
        return steps is not None and steps.have(span)

    # -- a run

    def _rules_for(self, span: ReadableSpan) -> tuple[str, SpanRules] | None:
        looks = _looks(span)
        return next((one for one in self._rules.items() if one[1].is_root(*looks)), None)

    def _is_in_other_run(self, span: ReadableSpan) -> bool:
        """Whether a run that no rule has opened is in progress in its trace."""
        known = run_registry.find(span.context.trace_id, at_ns=clock.time_ns())
        if known is None or known.ended_ns is not None:
            return False
        return id(known) not in self._steps

    def _begin(self, span: ReadableSpan, name: str, rules: SpanRules) -> None:
        clean = redacted(span, rules_here())
        attributes = clean.attributes or {}
        workflow = ExternalWorkflow(
            _text(attributes, rules.run_name) or str(clean.name),
            {"executor": name, "source": SPANS, "resumable": False, "rules": as_json(rules)},
            tracing=_LibrarySpan(span),
        )
        run = _start(workflow, _text(attributes, rules.thread), _text(attributes, rules.run_id))
        known = run_registry.find(span.context.trace_id, workflow_id=run.workflow_id)
        if known is None:
            run.close()
            return
        run_registry.own(span.context.span_id, known)
        with self._lock:
            self._open[span.context.span_id] = _Open(run, known)
            self._steps[id(known)] = _Steps(rules)


class _Steps:
    """Tells which spans are steps by these rules, which it asks once about spans that look alike.

    The spans of a run have few names, and of their attributes only those count that a rule names.
    """

    __slots__ = ("_answers", "_names", "_rules")

    def __init__(self, rules: SpanRules) -> None:
        self._rules = rules
        self._names = rules.step_attributes
        self._answers: dict[tuple[str, ...], bool] = {}

    def have(self, span: ReadableSpan) -> bool:
        """Whether the span is one."""
        name, scope, attributes = _looks(span)
        look = (name, scope, *map(repr, map(attributes.get, self._names)))
        answer = self._answers.get(look)
        if answer is None:
            answer = self._rules.is_step(name, scope, attributes)
            if len(self._answers) < _MOST_LOOKS and sum(map(len, look)) < _LONG_LOOK:
                self._answers[look] = answer
        return answer


def _is_below_open_root(span: ReadableSpan) -> bool:
    parent = span.parent
    owner = None if parent is None else run_registry.owner_of(parent.span_id, None)
    return owner is not None and owner.ended_ns is None


def _start(
    workflow: ExternalWorkflow, thread: str | None, run_id: str | None
) -> ExternalRunRecorder:
    store, config = store_under(None), settings.current()
    if thread is not None:
        return start_turn(store, thread, workflow, config, _always_new)
    own_id = run_id or new_workflow_id(workflow.name, clock.timestamp(clock.time_ns()))
    return start_run(store, own_id, workflow, config)


def _always_new(_: RunSummary) -> str:
    return "new"


def _end(run: ExternalRunRecorder, span: ReadableSpan) -> None:
    status, error = end_of(pack_span(redacted(span, rules_here())))
    told = None if error is None else ": ".join(filter(None, (error["type"], error["message"])))
    run.end(status, told)


def _looks(span: ReadableSpan) -> tuple[str, str, Any]:
    """Its name, its scope and its attributes, as rules ask for them."""
    scope = span.instrumentation_scope
    attributes = dict(span.attributes or {})  # the SDK's takes a lock at each look
    return span.name, "" if scope is None else scope.name, attributes


def _text(attributes: Any, name: str | None) -> str | None:
    found = None if name is None else attributes.get(name)
    return None if found in {None, ""} else str(found)


class _LibrarySpan(Tracing):
    """Gives a run the ids of a library's span, which is captured by itself.

    Nothing is ever current in such a run, so it has no step of its own that would need a span.
    """

    __slots__ = ("_span",)

    def __init__(self, span: ReadableSpan) -> None:
        self._span: Final = span

    @property
    def resource(self) -> dict[str, Any] | None:
        return pack_resource(self._span.resource)

    def start(
        self,
        event: Event,
        *,
        start_ns: int,  # noqa: ARG002 - the span has started
        parent: SpanRef | LiveSpan | None,  # noqa: ARG002
        links: Sequence[SpanRef] = (),  # noqa: ARG002
    ) -> LiveSpan:
        context, above = self._span.context, self._span.parent
        live = LiveSpan(
            f"{context.trace_id:032x}",
            f"{context.span_id:016x}",
            None if above is None else f"{above.span_id:016x}",
        )
        event.trace_id, event.span_id = live.trace_id, live.span_id
        if live.parent_span_id is not None:
            event.parent_span_id = live.parent_span_id
        return live

    def catch_up(self, folder: Path, workflow_id: str, execution: int) -> None:
        """Do nothing: such a run has one execution."""
