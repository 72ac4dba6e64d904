"""How the trace of an execution begins: its span, its place among the known runs, what is due."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from msgspec import UNSET

from tapps_otel import clock
from tapps_otel.names import log_name, new_span_id
from tapps_otel.otel import run_registry
from tapps_otel.otel.resource import of_process
from tapps_otel.otel.seam import note_of_links, warn_once
from tapps_otel.run.scope import current_scope

if TYPE_CHECKING:
    from tapps_otel.log.event import Event
    from tapps_otel.otel.seam import SpanRef, Tracing
    from tapps_otel.run.recorder import RunRecorder

__all__ = ["begin_trace", "catch_up"]


def begin_trace(
    run: RunRecorder, event: Event, *, first: SpanRef | None, links: tuple[SpanRef, ...]
) -> None:
    """Start the span of the workflow, and put its ids into the event that begins the execution.

    :param first: the span of execution 1, the parent of those of later executions
    :param links: the spans of the interrupted steps
    """
    if run.tracing is None:
        _put_own_ids(run, event, first, links)
    else:
        _start_span(run, run.tracing, event, first, links)
        _enter_trace(run, event)


def _put_own_ids(
    run: RunRecorder, event: Event, first: SpanRef | None, links: tuple[SpanRef, ...]
) -> None:
    """Put ids of the library's own into the event: no spans are made now."""
    caller, outer = run.caller, current_scope.get()
    if first is None and outer is not None and not outer.run.detached:
        run.trace_id, event.parent_span_id = outer.run.trace_id, outer.span_id
    event.trace_id, event.span_id = run.trace_id, new_span_id()
    event.resource = of_process()
    if first is not None:
        event.parent_span_id = first.span_id
        note = {} if event.otel is UNSET else event.otel
        noted = note_of_links(links, None if caller is None else caller.span)
        state = {"trace_state": first.trace_state} if first.trace_state else {}
        event.otel = {"parent_is_remote": True, **state, "links": noted, **note}
    run.root.span_id = event.span_id


def _start_span(
    run: RunRecorder,
    tracing: Tracing,
    event: Event,
    first: SpanRef | None,
    links: tuple[SpanRef, ...],
) -> None:
    root, caller = run.root, run.caller
    event.resource = tracing.resource or of_process()
    parent = first
    if caller is not None and not caller.is_current:  # spans are made only since then
        parent = first or caller.span
    root.span = tracing.start(event, start_ns=run.started_ns, parent=parent, links=links)
    root.span_id, run.trace_id = root.span.span_id, root.span.trace_id


def _enter_trace(run: RunRecorder, event: Event) -> None:
    """Register the run by its trace, for exporters, without keeping it alive."""
    place = weakref.ref(run)

    def append(event: Event, sync: bool) -> int | None:  # noqa: FBT001 - every span comes here
        run = place()
        if run is None:
            raise LookupError
        return run.append_captured(event, sync=sync)

    if run.log_dir is not None:
        note = event.otel if isinstance(event.otel, dict) else {}
        known = run_registry.KnownRun(
            run.workflow_id,
            run.log_dir,
            run.execution,
            clock.time_ns(),  # spans of libraries go by it
            pid=os.getpid(),
            resource=(event.resource or {}, note.get("resource_schema", "")),
            append=append,
            workflow=run.name,
        )
        run_registry.enter(run.trace_id, known)


def catch_up(run: RunRecorder) -> None:
    """Send spans that earlier executions could not send. The run does not depend on it."""
    if run.tracing is not None and run.log_dir is not None:
        try:
            run.tracing.catch_up(run.log_dir, log_name(run.workflow_id), run.execution)
        except Exception as error:  # noqa: BLE001 - no thread available, a broken import
            warn_once("catching up", error)
