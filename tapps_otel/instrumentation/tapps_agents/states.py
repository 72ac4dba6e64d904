"""Makes tapps-agents' ``WorkflowState`` from a run's history."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from tapps_otel.instrumentation.tapps_agents.definition import make_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tapps_otel.past.fold import AttemptHistory, RunHistory, StepHistory

__all__ = ["ended_ns", "error_message", "local_time", "make_state", "seconds"]


def make_state(
    workflow: Any,
    history: RunHistory,
    *,
    workflow_id: str,
    started_at: str | None,
    done: Mapping[str, StepHistory],
    variables: Mapping[str, Any],
    root: Path,
) -> Any:
    """Make the ``WorkflowState`` with which tapps-agents resumes where the log ends.

    :param workflow: the workflow object; not used if the run is completed
    :param started_at: as the state had it, ISO 8601, so that later snapshots belong to the run too
    :param done: the steps that must not run again
    :param root: the paths of artifacts are made absolute under it, as tapps-agents does
    """
    from tapps_agents.workflow.models import WorkflowState

    completed = history.status == "completed"
    first_open = None
    if not completed:
        first_open = next((step.id for step in workflow.steps if step.id not in done), None)
    return make_object(
        WorkflowState,
        workflow_id=workflow_id,
        started_at=_started_at(started_at, history),
        current_step=first_open,
        completed_steps=list(done),
        skipped_steps=[step_id for step_id, step in done.items() if step.status == "skipped"],
        artifacts={artifact.name: artifact for artifact in _artifacts(done, root)},
        variables=dict(variables),
        status="completed" if completed else "running",
        error=None,
        step_executions=list(_executions(history)),
    )


def _started_at(logged: str | None, history: RunHistory) -> datetime:
    try:
        return datetime.fromisoformat(logged or "")
    except ValueError:
        return local_time(history.executions[0].started_ns)


def _artifacts(done: Mapping[str, StepHistory], root: Path) -> Iterator[Any]:
    from tapps_agents.workflow.models import Artifact

    for step_id, step in done.items():
        for artifact in step.last.artifacts:
            path = artifact.get("path")
            yield make_object(
                Artifact,
                name=str(artifact.get("name")),
                path=str(root / str(path)) if path else "",
                status="complete",
                created_by=step_id,
                created_at=_ended_at(step.last),
            )


def _executions(history: RunHistory) -> Iterator[Any]:
    from tapps_agents.workflow.models import StepExecution

    for step in history.steps:
        if step.parent is not None:
            continue
        for attempt in step.attempts:
            yield make_object(
                StepExecution,
                step_id=step.name,
                agent=step.agent or "",
                action=step.action or "",
                started_at=local_time(attempt.started_ns),
                completed_at=_ended_at(attempt),
                duration_seconds=seconds(attempt.duration_ns),
                status=attempt.status if attempt.end_seq else "running",
                error=error_message(attempt),
            )


def _ended_at(attempt: AttemptHistory) -> datetime | None:
    return local_time(ended_ns(attempt)) if attempt.end_seq else None


def ended_ns(attempt: AttemptHistory) -> int:
    """When an attempt ended; for one that has not, when it started."""
    return attempt.started_ns + (attempt.duration_ns or 0)


def seconds(duration_ns: int | None) -> float | None:
    """A duration in seconds."""
    return None if duration_ns is None else duration_ns / 1e9


def error_message(attempt: AttemptHistory) -> str | None:
    """The message of an attempt's error, if it has one."""
    return None if attempt.error is None else str(attempt.error.get("message"))


def local_time(ns: int) -> datetime:
    """A time without a zone: tapps-agents compares it with its own ``datetime.now()``."""
    return datetime.fromtimestamp(ns / 1e9)  # noqa: DTZ006 - on purpose, as the docstring says
