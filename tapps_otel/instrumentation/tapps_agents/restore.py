"""A run's state for tapps-agents, made from its log: what it lacks, and what it gets wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tapps_otel.errors import RunConflictError
from tapps_otel.instrumentation.execution import store_under
from tapps_otel.instrumentation.tapps_agents import definition, states
from tapps_otel.instrumentation.tapps_agents.adapter import EXECUTOR, root_of
from tapps_otel.instrumentation.tapps_agents.executor_state import bond_of
from tapps_otel.instrumentation.tapps_agents.log_state import Past, done_steps, variables_of
from tapps_otel.log.blobs import Blobs
from tapps_otel.names import log_name
from tapps_otel.run.lookup import load

if TYPE_CHECKING:
    from pathlib import Path

    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory

__all__ = ["check_kind", "check_same", "correct", "load_workflow", "prepare", "state_of"]

_GOES_ON: Final = frozenset({"interrupted", "failed", "cancelled", "paused"})


def prepare(executor: Any) -> Any:
    """Make the state of the last run that is not over from its log, and leave it with the executor.

    Its ``execute()`` goes on with that state, in the same log.

    :returns: the state; ``None`` where no log has such a run
    :raises RunConflictError: the steps have changed, or the workflow cannot be loaded
    """
    store = store_under(root_of(executor))
    for summary in store.runs():
        if summary.status in _GOES_ON:
            made = _made(executor, store, summary.workflow_id)
            if made is not None:
                bond_of(executor).kept = executor.state = made
                return made
    return None


def correct(executor: Any, state: Any) -> None:
    """Let a state that the executor has loaded say what its log says is completed.

    :raises RunConflictError: the steps have changed, or the workflow cannot be loaded
    """
    store = store_under(root_of(executor))
    name = log_name(state.workflow_id)
    made = _made(executor, store, name) if store.has_log(name) else None
    if made is not None:
        for field in ("current_step", "completed_steps", "skipped_steps", "status", "error"):
            setattr(state, field, getattr(made, field))
        state.artifacts |= made.artifacts
        bond_of(executor).kept = state


def _made(executor: Any, store: Store, name: str) -> Any:
    """The state of a run, if it is one of theirs, and not over."""
    history = load(name, store.folder)
    if history.workflow.get("executor") != EXECUTOR or history.status == "completed":
        return None
    root = root_of(executor)
    load_workflow(executor, history, root)
    check_same(executor, history)
    return state_of(executor, store, history, root)


def load_workflow(executor: Any, history: RunHistory, root: Path) -> None:
    """Let the executor have its workflow: its own, or the one that the log names.

    :raises RunConflictError: there is none
    """
    check_kind(history)
    if executor.workflow is not None:
        return
    name, source = history.workflow_id, history.workflow.get("source")
    if not source:
        raise RunConflictError(
            f"run {name!r}: its workflow was not loaded from a file: give the executor the "
            "workflow, then resume"
        )
    path = root / str(source)
    try:
        loaded = _parse(path)
    except Exception as error:
        raise RunConflictError(
            f"run {name!r}: its workflow cannot be loaded from {path}: "
            f"{type(error).__name__}: {error}. Put the file back, or load the workflow into the "
            "executor before you resume"
        ) from error
    executor.workflow = loaded.workflow
    if hasattr(executor, "_workflow_path"):
        executor._workflow_path = path  # noqa: SLF001 - where theirs notes it, for snapshots
    bond_of(executor).loaded = loaded


def check_kind(history: RunHistory) -> None:
    """:raises RunConflictError: it is no run of theirs"""
    if history.workflow.get("executor") != EXECUTOR:
        raise RunConflictError(
            f"run {history.workflow_id!r} is one of {history.name!r}, not of tapps-agents"
        )


def _parse(path: Path) -> Any:
    from tapps_agents.workflow.parser import WorkflowParser

    return definition.load(path, WorkflowParser.parse_file(path))


def check_same(executor: Any, history: RunHistory) -> None:
    """:raises RunConflictError: the workflow's steps are not those that the log knows"""
    loaded = bond_of(executor).loaded
    now = (
        loaded.steps
        if loaded is not None and loaded.workflow is executor.workflow
        else definition.steps_of(executor.workflow)
    )
    changed = definition.differences(history.workflow.get("steps") or (), now)
    if changed:
        name = history.workflow_id
        raise RunConflictError(
            f"run {name!r}: the steps of its workflow have changed since it began:\n{changed}\n"
            f"To go on with the steps as they are now: `tapps-otel resume {name} --accept-change`, "
            "or resume(..., accept_change=True)"
        )


def state_of(executor: Any, store: Store, history: RunHistory, root: Path) -> Any:
    """The ``WorkflowState`` with which the executor resumes this run."""
    past = Past.of(store, history)
    variables = variables_of(past, root, Blobs(store.blobs_folder(history.workflow_id)))
    path = getattr(executor, "_workflow_path", None)
    if path is not None:
        variables["_workflow_path"] = str(path)
    return states.make_state(
        executor.workflow,
        history,
        workflow_id=past.workflow_id,
        done=done_steps(executor, history, root),
        variables=variables,
        root=root,
    )
