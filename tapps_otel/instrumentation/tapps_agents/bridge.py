"""Serves tapps-agents' own event log from this package's log (setting ``executor_bridge``).

What its executor writes to its event log then reaches the observers only: no file is written. What
reads that log (history, trace, execution graph, observability commands) gets the events of this
package's log, with failures, attempts, skips and the end.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from tapps_otel import clock, settings
from tapps_otel.instrumentation.execution import is_enabled, store_under
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.instrumentation.tapps_agents.execution import current_tapps_execution
from tapps_otel.log.reader import read
from tapps_otel.names import log_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tapps_otel.instrumentation.method_call import MethodCall
    from tapps_otel.log.event import Event
    from tapps_otel.log.store import Store
    from tapps_otel.run.external_run import ExternalRunRecorder

__all__ = ["emit_event", "is_on", "read_events"]

_STEP_EVENTS: Final = frozenset({"step_start", "step_finish", "step_fail", "step_skip"})


def is_on() -> bool:
    """Whether the event log is to be served from this package's log."""
    return is_enabled() and settings.current().executor_bridge


# -- writing


def emit_event(log: Any, call: MethodCall) -> Any:
    """Pass an event to the observers of the event log, without writing it.

    :returns: their event; ``None`` if this package does not log the run
    """
    fields = dict(call.arguments)
    workflow_id = fields["workflow_id"]
    run = _run_of(workflow_id)
    if run is None or run.log_failure is not None:
        return None
    from tapps_agents.workflow.event_log import WorkflowEvent

    counter = log._sequence_counter  # noqa: SLF001 - its public way reads the number from the file
    counter[workflow_id] = counter.get(workflow_id, 0) + 1
    now = datetime.fromtimestamp(clock.time_ns() / 1e9, UTC)
    event = WorkflowEvent(seq=counter[workflow_id], timestamp=now, **fields)
    if log._stream is not None:  # noqa: SLF001 - its public way writes to the file, too
        log._stream.emit(event)  # noqa: SLF001
    return event


def _run_of(workflow_id: str) -> ExternalRunRecorder | None:
    execution = current_tapps_execution()
    if execution is None or execution.run is None:
        return None
    return execution.run if execution.executor.state.workflow_id == workflow_id else None


# -- reading


def read_events(log: Any, workflow_id: str, limit: int | None) -> list[Any] | None:
    """The events of a run in the form of tapps-agents; ``None`` if it has no log here."""
    with guarded("a log could not be read for tapps-agents"):
        run = _run_of(workflow_id)
        store = store_under(log.events_dir.parents[2])
        name = log_name(workflow_id) if run is None else run.log_name
        if not store.has_log(name):
            return None
        events = list(_converted(store, name, workflow_id))
        return events[-limit:] if limit else events
    return None


def _converted(store: Store, name: str, workflow_id: str) -> Iterator[Any]:
    from tapps_agents.workflow.event_log import WorkflowEvent

    last = None
    for event in _selected(read(store.log_path(name), name)):
        yield WorkflowEvent(
            event_type=event.event_type,
            workflow_id=workflow_id,
            seq=event.seq,
            timestamp=_utc(event.timestamp),
            **_fields(event),
        )
        last = event
    if last is not None and store.summary(name).status == "interrupted":
        yield WorkflowEvent(
            event_type="workflow_end",
            workflow_id=workflow_id,
            seq=last.seq + 1,
            timestamp=_utc(last.timestamp),
            status="interrupted",
            error="its process ended without ending it",
        )


def _selected(events: Iterable[Event]) -> Iterator[Event]:
    """The events that tapps-agents has a type for: starts, its own steps, and the last end."""
    end = None
    for event in events:
        kind = event.event_type
        if kind == "workflow_end":
            end = event
        elif kind == "workflow_resume":
            end = None
        elif kind == "workflow_start" or (kind in _STEP_EVENTS and "/" not in str(event.step_id)):
            yield event
    if end is not None:
        yield end


def _fields(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {"status": _or_none(event.status), "metadata": _metadata(event)}
    if event.error is not UNSET:
        fields["error"] = str(event.error.get("message"))
    if event.step is UNSET:
        return fields
    agent, action = _or_none(event.agent), _or_none(event.action)
    fields |= {"step_id": event.step, "agent": agent, "action": action, "skill_name": agent}
    if event.duration_ns is not UNSET:
        fields["tool_call_summary"] = {
            "success": event.event_type == "step_finish",
            "duration_ms": event.duration_ns / 1e6,
            "command": f"{agent} {action}",
        }
    if event.artifacts is not UNSET:
        fields["artifacts"] = {
            str(one.get("name")): {**one, "status": "complete"} for one in event.artifacts
        }
        fields["artifact_paths"] = [str(one["path"]) for one in event.artifacts if "path" in one]
    return fields


def _metadata(event: Event) -> dict[str, Any]:
    metadata: dict[str, Any] = {"execution": event.execution}
    for name in ("attempt", "reason"):
        value = getattr(event, name)
        if value is not UNSET:
            metadata[name] = value
    if event.workflow is not UNSET:
        metadata["workflow_name"] = event.workflow.get("name")
        metadata["step_count"] = len(event.workflow.get("steps") or ())
    return metadata


def _or_none(value: Any) -> Any:
    return None if value is UNSET else value


def _utc(timestamp: str) -> datetime:
    """UTC without a zone: tapps-agents writes a ``Z`` behind it, and parses that again."""
    at = datetime.fromtimestamp(clock.parse_timestamp(timestamp) / 1e9, UTC)
    return at.replace(tzinfo=None)
