"""Annotations of a run: those of users, and reports of what a user should know about its steps."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from tapps_otel.errors import StepInputError
from tapps_otel.log.event import Event
from tapps_otel.run.codecs.native import check_text
from tapps_otel.run.scope import CLOSING, OPEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tapps_otel.run.run_state import RunState
    from tapps_otel.run.scope import Scope

__all__ = ["Annotations"]

_log = logging.getLogger("tapps_otel")
_SHOWN: Final = 100  # step ids in a report of leftovers


class Annotations:
    """Writes annotations of a run into its log and onto its spans.

    :param strict: whether a step that changes its arguments fails
    """

    def __init__(self, run: RunState, *, strict: bool) -> None:
        self._run, self._strict = run, strict

    def annotate(
        self,
        name: str,
        attributes: Mapping[str, Any],
        scope: Scope | None = None,
        *,
        at: int | None = None,
    ) -> None:
        """Write an annotation of the user into the log and onto the span.

        :param at: when it was made, by the monotonic clock, ns; by default, now
        :raises TypeError: ``name`` is not a string
        """
        check_text(name, "the name of an annotation")
        run = self._run
        if not run.takes_events:
            run.warn_once(f"annotation {name!r} came after the end of run {run.workflow_id!r}")
            return
        where = scope or run.root
        event = Event(
            event_type="annotation",
            workflow_id=run.workflow_id,
            **run.clock.times(at),
            execution=run.execution,
            name=where.rules.text(name),
        )
        if where.step_id is not None:
            event.step_id = where.step_id
        if attributes:
            event.attributes = where.rules.attributes(dict(attributes))
        if where.span_id:
            event.trace_id, event.span_id = run.trace_id, where.span_id
        run.write(event)
        if where.span is not None:
            where.span.record(event)

    def annotate_step(
        self,
        step_id: str,
        name: str,
        attributes: Mapping[str, Any],
        *,
        attempt: int | None = None,
    ) -> None:
        """Write an annotation about a step that has ended, and onto the run's span.

        :param step_id: its place in the run
        :param attempt: of that step; by default, the last one
        """
        run = self._run
        if not run.takes_events:
            return  # the end of the run did not wait for it
        event = Event(
            event_type="annotation",
            workflow_id=run.workflow_id,
            **run.clock.times(),
            execution=run.execution,
            step_id=step_id,
            name=name,
            attributes=run.rules.attributes(dict(attributes)),
            attempt=UNSET if attempt is None else attempt,
        )
        root, is_open = run.root, run.root.state in {OPEN, CLOSING}
        if is_open and root.span_id:
            event.trace_id, event.span_id = run.trace_id, root.span_id
        run.write(event)
        if is_open and root.span is not None:
            root.span.record(event)

    def report_leftovers(self, scope: Scope) -> None:
        """Report, when a scope completes, records that no call took, and code that has changed."""
        run = self._run
        if scope.matcher is None and scope.step_id not in run.replay.children:
            return  # nothing was recorded in it before, and nothing was called in it now
        matcher = run.replay.matcher_of(scope)
        unasked = [one.step_id for one in matcher.unasked() if run.is_asked_for(one)]
        self._report(scope, "tapps.unasked", "completed before, and not called now", unasked)
        changed = scope.changed or ()
        self._report(
            scope,
            "tapps.definition_changed",
            "taken from the log, though its code changed",
            changed,
        )

    def _report(self, scope: Scope, name: str, text: str, step_ids: Iterable[str]) -> None:
        found = list(step_ids)
        if not found:
            return
        shown = found[:_SHOWN]
        _log.warning("%s: %s: %s", self._run.scope_name(scope), text, ", ".join(shown))
        self.annotate(name, {"steps": shown, "count": len(found)}, scope)

    def report_changed_arguments(
        self, scope: Scope, step: str, names: list[str], *, failing: bool = False
    ) -> None:
        """Report, once a run for each step, that a step changed its arguments.

        :param failing: it has an error of its own
        :raises StepInputError: it has none, and the setting ``strict`` is on
        """
        text = (
            f"step {step!r} changed {', '.join(names)} while it ran: when its outcome comes from "
            "the log it does not run, and what it was given stays as it was. Let it work on a copy "
            "and return that"
        )
        if self._strict and not failing:
            raise StepInputError(
                f"{text} (the setting strict makes this an error)", f"$.{names[0]}"
            )
        if self._run.warn_once(text):
            self.annotate("tapps.arguments_changed", {"step": step, "arguments": names}, scope)
