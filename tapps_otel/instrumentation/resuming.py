"""Resumes any run by its id: of a workflow of this package, or of a third-party executor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from tapps_otel.errors import RunConflictError
from tapps_otel.past.advice import how_to_resume
from tapps_otel.run import queries
from tapps_otel.run.child_run import log_dir_here
from tapps_otel.run.lookup import look_up

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from tapps_otel.run.lookup import StoredRun

__all__ = ["resume", "resume_foreign"]


def resume(
    workflow_id: str,
    *,
    answer: Any = UNSET,
    step: str | None = None,
    accept_change: bool = False,
    log_dir: Path | str | None = None,
) -> Any:
    """Resume a run by the code that its log names; inside another run, as a child run.

    :param answer: to a question of the run, written before it is resumed, as
        :func:`tapps_otel.answer` does
    :param step: id of the pause that is answered; needed where the run asks several questions
    :param accept_change: resume a third-party executor's run even if its workflow has changed, or
        in another mode of the executor
    :returns: the run's result; for an async workflow a coroutine of it. For a run of tapps-agents,
        a coroutine of its ``WorkflowState``
    :raises RunNotFoundError: there is no such run
    :raises RunConflictError: its workflow cannot be imported, or it asks no such question
    :raises AnswerError: the answer does not fit the question
    :raises ValueError: an answer is given inside another run
    """
    folder = log_dir_here() if log_dir is None else log_dir
    with look_up(workflow_id, folder) as found:
        if not found.history.foreign:
            flow = queries.workflow_of(found)
            if answer is UNSET:
                return flow.resume_found(found)
            here = flow.options(log_dir=found.store.folder)
            return here.resume(found.name, answer=answer, step=step)
        if answer is not UNSET:
            raise RunConflictError(f"run {found.name!r} is a run of an executor: it asks nothing")
        return resume_foreign(found, accept_change=accept_change, log_dir=folder)


def resume_foreign(
    found: StoredRun, *, accept_change: bool = False, log_dir: Path | str | None = None
) -> Coroutine[Any, Any, Any]:
    """Resume a run of a third-party executor.

    :raises UntrustedFileError: another user may have written the log: what it names is not executed
    :raises RunConflictError: runs of that executor can only be resumed by the code that starts them
    """
    found.check_own()
    history = found.history
    executor = history.workflow.get("executor")
    if not history.resumable:
        raise RunConflictError(
            f"run {history.workflow_id!r} cannot be resumed: it was only observed, by the spans of "
            f"{executor!r}, which hold no state. Run its program again; that is a new run"
        )
    if executor != "tapps-agents":
        raise RunConflictError(
            f"run {history.workflow_id!r} is a run of the executor {executor!r}: it can only be "
            f"resumed by the code that started it: {how_to_resume(found.name, found.workflow).text}"
        )
    from tapps_otel.instrumentation.tapps_agents import resuming

    return resuming.resume(
        resuming.make_executor(history),
        history.workflow_id,
        accept_change=accept_change,
        log_dir=log_dir,
    )
