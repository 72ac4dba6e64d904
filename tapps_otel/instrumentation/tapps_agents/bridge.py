"""Their event log, served by ours: asked for by the setting ``executor_bridge``.

What their executor tells its own log then goes to its observers alone, without a file and without
a sync; and who reads that log (their history, trace, execution graph, observability commands) is
given what ours says: failures, tries, skips and the end included.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from tapps_otel import clock, settings
from tapps_otel.instrumentation.execution import is_enabled, store_under
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.instrumentation.tapps_agents.execution import here
from tapps_otel.log.reader import read
from tapps_otel.names import log_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tapps_otel.instrumentation.spec import Seen
    from tapps_otel.log.event import Event
    from tapps_otel.log.store import Store
    from tapps_otel.run.external_run import ExternalRun

__all__ = ["emit", "is_asked_for", "read_ours"]

_STEPS: Final = frozenset({"step_start", "step_finish", "step_fail", "step_skip"})


def is_asked_for() -> bool:
    """Whether their log is to be served by ours."""
    return is_enabled() and settings.current().executor_bridge


# -- what they write


def emit(log: Any, seen: Seen) -> Any:
    """Tell their observers of an event that our log tells in its own words.

    :returns: their event; ``None`` where no run of ours tells of it, or its log fails
    """
    given = dict(seen.arguments)
    workflow_id = given["workflow_id"]
    run = _run_of(workflow_id)
    if run is None or run.log_failure is not None:
        return None
    from tapps_agents.workflow.event_log import WorkflowEvent

    counter = log._sequence_counter  # noqa: SLF001 - theirs; it is not to be read from a file
    counter[workflow_id] = counter.get(workflow_id, 0) + 1
    now = datetime.fromtimestamp(clock.time_ns() / 1e9, UTC)
    event = WorkflowEvent(seq=counter[workflow_id], timestamp=now, **given)
    if log._stream is not None:  # noqa: SLF001 - see above
        log._stream.emit(event)  # noqa: SLF001
    return event


def _run_of(workflow_id: str) -> ExternalRun | None:
    carrying = here()
    if carrying is None or carrying.run is None:
        return None
    return carrying.run if carrying.executor.state.workflow_id == workflow_id else None


# -- what they read


def read_ours(log: Any, workflow_id: str, limit: int | None) -> list[Any] | None:
    """The events of a run, as their log would have them; ``None`` where ours has none."""
    with guarded("a log cannot be read for tapps-agents"):
        run = _run_of(workflow_id)
        store = store_under(log.events_dir.parents[2])
        name = log_name(workflow_id) if run is None else run.log_name
        if not store.has_log(name):
            return None
        found = list(_theirs(store, name, workflow_id))
        return found[-limit:] if limit else found
    return None


def _theirs(store: Store, name: str, workflow_id: str) -> Iterator[Any]:
    from tapps_agents.workflow.event_log import WorkflowEvent

    last = None
    for event in _told(read(store.log_path(name), name)):
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


def _told(events: Iterable[Event]) -> Iterator[Event]:
    """What their log knows: steps of their own, one start, and no end that was not the last."""
    end = None
    for event in events:
        kind = event.event_type
        if kind == "workflow_end":
            end = event
        elif kind == "workflow_resume":
            end = None
        elif kind == "workflow_start" or (kind in _STEPS and "/" not in str(event.step_id)):
            yield event
    if end is not None:
        yield end


def _fields(event: Event) -> dict[str, Any]:
    told: dict[str, Any] = {"status": _or_none(event.status), "metadata": _metadata(event)}
    if event.error is not UNSET:
        told["error"] = str(event.error.get("message"))
    if event.step is UNSET:
        return told
    agent, action = _or_none(event.agent), _or_none(event.action)
    told |= {"step_id": event.step, "agent": agent, "action": action, "skill_name": agent}
    if event.duration_ns is not UNSET:
        told["tool_call_summary"] = {
            "success": event.event_type == "step_finish",
            "duration_ms": event.duration_ns / 1e6,
            "command": f"{agent} {action}",
        }
    if event.artifacts is not UNSET:
        told["artifacts"] = {
            str(one.get("name")): {**one, "status": "complete"} for one in event.artifacts
        }
        told["artifact_paths"] = [str(one["path"]) for one in event.artifacts if "path" in one]
    return told


def _metadata(event: Event) -> dict[str, Any]:
    told: dict[str, Any] = {"execution": event.execution}
    for name in ("attempt", "reason"):
        value = getattr(event, name)
        if value is not UNSET:
            told[name] = value
    if event.workflow is not UNSET:
        told["workflow_name"] = event.workflow.get("name")
        told["step_count"] = len(event.workflow.get("steps") or ())
    return told


def _or_none(value: Any) -> Any:
    return None if value is UNSET else value


def _utc(timestamp: str) -> datetime:
    """UTC without saying so: they write a ``Z`` behind it, and read it back."""
    at = datetime.fromtimestamp(clock.parse_timestamp(timestamp) / 1e9, UTC)
    return at.replace(tzinfo=None)
