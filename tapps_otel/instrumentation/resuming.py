"""Going on with any run by its id: a workflow of ours, or one that an executor carries out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tapps_otel.errors import RunConflictError
from tapps_otel.run import queries
from tapps_otel.run.lookup import look_up

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from tapps_otel.past.fold import RunHistory

__all__ = ["resume", "resume_foreign"]


def resume(
    workflow_id: str, *, accept_change: bool = False, log_dir: Path | str | None = None
) -> Any:
    """Go on with a run: its log says what carries it out.

    :param accept_change: of an instrumented executor: go on although the workflow's steps have
        changed
    :returns: its result; a coroutine of it where the workflow is async. A run of tapps-agents
        gives a coroutine of its ``WorkflowState``
    :raises RunNotFoundError: there is no such run
    :raises RunConflictError: its workflow cannot be imported
    """
    with look_up(workflow_id, log_dir) as found:
        if not found.history.foreign:
            return queries.resume_found(found)
        return resume_foreign(found.history, accept_change=accept_change, log_dir=log_dir)


def resume_foreign(
    history: RunHistory, *, accept_change: bool = False, log_dir: Path | str | None = None
) -> Coroutine[Any, Any, Any]:
    """Let an executor of the kind that the log names go on with a run.

    :raises RunConflictError: nothing is known here of that kind
    """
    executor = history.workflow.get("executor")
    if executor != "tapps-agents":
        raise RunConflictError(
            f"run {history.workflow_id!r} is carried out by {executor!r}: it is gone on with by "
            "the code that began it"
        )
    from tapps_otel.instrumentation.tapps_agents.resuming import make_executor
    from tapps_otel.instrumentation.tapps_agents.resuming import resume as go_on

    return go_on(
        make_executor(history),
        history.workflow_id,
        accept_change=accept_change,
        log_dir=log_dir,
    )
