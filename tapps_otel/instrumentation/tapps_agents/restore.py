"""Restores the state of a run from its log: what tapps-agents' snapshots lack or get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.errors import RunConflictError
from tapps_otel.instrumentation.execution import store_under
from tapps_otel.instrumentation.tapps_agents import definition, states
from tapps_otel.instrumentation.tapps_agents.adapter import EXECUTOR, mode_of, root_of
from tapps_otel.instrumentation.tapps_agents.executor_state import executor_state
from tapps_otel.instrumentation.tapps_agents.log_state import (
    LogState,
    done_steps,
    log_of,
    variables_of,
)
from tapps_otel.names import log_name
from tapps_otel.run.lookup import blobs_of, load

if TYPE_CHECKING:
    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory

__all__ = [
    "check_executor",
    "check_mode",
    "check_steps",
    "correct_state",
    "load_workflow",
    "restore_last_run",
    "state_from_log",
]

_RESUMABLE: Final = frozenset({"interrupted", "failed", "cancelled", "paused"})


def restore_last_run(executor: Any) -> Any:
    """Give the executor the state of the last unfinished run, made from its log.

    ``execute()`` then resumes that run, in the same log.

    :returns: the state; ``None`` if no log has such a run
    :raises RunConflictError: the steps have changed, or the workflow cannot be loaded
    """
    store = store_under(root_of(executor))
    for summary in store.runs():
        if summary.status in _RESUMABLE:
            state = _restored(executor, store, summary.workflow_id)
            if state is not None:
                executor_state(executor).restored_state = executor.state = state
                return state
    return None


def correct_state(executor: Any, state: Any) -> None:
    """Correct a state that was loaded by what the log knows: what is completed, and with what.

    :raises RunConflictError: the steps have changed, or the workflow cannot be loaded
    """
    store = store_under(root_of(executor))
    name = log_of(store, state)
    restored = None if name is None else _restored(executor, store, log_name(name))
    if restored is not None:
        restored.artifacts = {**state.artifacts, **restored.artifacts}
        vars(state).update(vars(restored))
        executor_state(executor).restored_state = state


def _restored(executor: Any, store: Store, name: str) -> Any:
    """The state of a run, if it is a run of tapps-agents that is not completed."""
    history = load(name, store.folder)
    if history.workflow.get("executor") != EXECUTOR or history.status == "completed":
        return None
    root = root_of(executor)
    load_workflow(executor, history, root)
    check_mode(executor, history)
    check_steps(executor, history)
    return state_from_log(executor, store, history, root)


def state_from_log(executor: Any, store: Store, history: RunHistory, root: Path) -> Any:
    """Make the ``WorkflowState`` of a run from its log."""
    logged = LogState.read(store, history, blobs_of(store, history.workflow_id))
    variables, lost = variables_of(logged, root)
    path = getattr(executor, "_workflow_path", None)
    if path is not None:
        variables["_workflow_path"] = str(path)
    return states.make_state(
        executor.workflow,
        history,
        workflow_id=logged.workflow_id,
        started_at=logged.started_at,
        done=done_steps(executor, history, root, lost),
        variables=variables,
        root=root,
    )


# -- the workflow


def load_workflow(executor: Any, history: RunHistory, root: Path) -> None:
    """Load the workflow that the log names into an executor that has none.

    A preset, or a workflow that was made in code, has no file: it is made from the log.

    :raises RunConflictError: it cannot be loaded, or the run is not one of tapps-agents
    """
    check_executor(history)
    if executor.workflow is not None:
        return
    name, source = history.workflow_id, history.workflow.get("source")
    if not source:
        executor.workflow = definition.rebuild(history.workflow)
        if executor.workflow is None:
            raise RunConflictError(
                f"run {name!r}: its workflow was not loaded from a file, and is too large to be in "
                "the log: load it into an executor, then call resume(executor, ...)"
            )
        return
    path = root / str(source)
    try:
        loaded = _parse(path)
    except Exception as error:
        raise RunConflictError(
            f"run {name!r}: its workflow cannot be loaded from {path}: "
            f"{type(error).__name__}: {error}. Restore the file, or load the workflow into the "
            "executor before you resume"
        ) from error
    executor.workflow = loaded.workflow
    if hasattr(executor, "_workflow_path"):
        executor._workflow_path = path  # noqa: SLF001 - its load_workflow() sets it for snapshots
    executor_state(executor).loaded = loaded


def _parse(path: Path) -> definition.LoadedWorkflow:
    from tapps_agents.workflow.parser import WorkflowParser

    return definition.describe_loaded(path, WorkflowParser.parse_file(path))


def check_executor(history: RunHistory) -> None:
    """:raises RunConflictError: it is not a run of tapps-agents"""
    if history.workflow.get("executor") != EXECUTOR:
        raise RunConflictError(
            f"run {history.workflow_id!r} is a run of {history.name!r}, not of tapps-agents"
        )


def check_mode(executor: Any, history: RunHistory) -> None:
    """:raises RunConflictError: the run's executor worked in another mode than this one"""
    then, now = history.workflow.get("mode"), mode_of(executor)
    if then is None or then == now:
        return
    name = history.workflow_id
    raise RunConflictError(
        f"run {name!r} was executed in {then} mode, and this process is in {now} mode: its steps "
        "would be executed in another way, and what an interrupted step left in a worktree of its "
        f"own would stay there. To resume it as it was: TAPPS_AGENTS_MODE={then} tapps-otel "
        f"resume {name}. To resume it in this mode: `tapps-otel resume {name} --accept-change`, or "
        "resume(..., accept_change=True)"
    )


def check_steps(executor: Any, history: RunHistory) -> None:
    """:raises RunConflictError: the workflow's steps or its type differ from those in the log"""
    loaded = executor_state(executor).loaded
    if loaded is not None and loaded.workflow is executor.workflow:
        described = loaded.definition
    else:
        described = definition.describe(executor.workflow)
    changed = definition.differences(history.workflow, described)
    if changed:
        name = history.workflow_id
        raise RunConflictError(
            f"run {name!r}: its workflow has changed since it started:\n{changed}\n"
            f"To resume it with the changed workflow: `tapps-otel resume {name} --accept-change`, "
            "or resume(..., accept_change=True)"
        )
