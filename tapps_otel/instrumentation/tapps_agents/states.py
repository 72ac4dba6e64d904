"""Their ``WorkflowState``, made from our history: what they lose, the log has."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tapps_otel.past.fold import AttemptHistory, RunHistory, StepHistory

__all__ = ["local_time", "make_state"]


def make_state(
    workflow: Any,
    history: RunHistory,
    *,
    workflow_id: str,
    done: Mapping[str, StepHistory],
    variables: Mapping[str, Any],
    root: Path,
) -> Any:
    """A ``WorkflowState`` with which their executors go on where the log ends.

    :param workflow: theirs; not looked at where the run is completed
    :param done: the steps that are not to run again
    :param root: artifacts' paths are made absolute under it, as theirs are
    """
    from tapps_agents.workflow.models import WorkflowState

    over = history.status == "completed"
    first_open = None
    if not over:
        first_open = next((step.id for step in workflow.steps if step.id not in done), None)
    return _make(
        WorkflowState,
        workflow_id=workflow_id,
        started_at=local_time(history.executions[0].started_ns),
        current_step=first_open,
        completed_steps=list(done),
        skipped_steps=[step_id for step_id, one in done.items() if one.status == "skipped"],
        artifacts={one.name: one for one in _artifacts(done, root)},
        variables=dict(variables),
        status="completed" if over else "running",
        error=None,
        step_executions=list(_executions(history)),
    )


def _artifacts(done: Mapping[str, StepHistory], root: Path) -> Iterator[Any]:
    from tapps_agents.workflow.models import Artifact

    for step_id, record in done.items():
        for told in record.last.artifacts:
            path = told.get("path")
            yield _make(
                Artifact,
                name=str(told.get("name")),
                path=str(root / str(path)) if path else "",
                status="complete",
                created_by=step_id,
                created_at=_ended_at(record.last),
            )


def _executions(history: RunHistory) -> Iterator[Any]:
    from tapps_agents.workflow.models import StepExecution

    for step in history.steps:
        if step.parent is not None:
            continue
        for attempt in step.attempts:
            took = None if attempt.duration_ns is None else attempt.duration_ns / 1e9
            yield _make(
                StepExecution,
                step_id=step.name,
                agent=step.agent or "",
                action=step.action or "",
                started_at=local_time(attempt.started_ns),
                completed_at=_ended_at(attempt),
                duration_seconds=took,
                status=attempt.status if attempt.end_seq else "running",
                error=None if attempt.error is None else str(attempt.error.get("message")),
            )


def _ended_at(attempt: AttemptHistory) -> datetime | None:
    if not attempt.end_seq:
        return None
    return local_time(attempt.started_ns + (attempt.duration_ns or 0))


def local_time(ns: int) -> datetime:
    """As theirs: without a zone, for they subtract their own ``datetime.now()``."""
    return datetime.fromtimestamp(ns / 1e9)  # noqa: DTZ006 - see above


def _make(kind: type[Any], **given: Any) -> Any:
    """An object of theirs, by the fields that this version of it has."""
    known = {one.name for one in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in given.items() if name in known})
