"""Going on with a run of tapps-agents, from its log alone.

Their own resume runs everything again (their state never lists what is completed). Here the state
is made from the log, and their engine is let go on with it: under the same id, in the same log and
trace, with what is done left alone.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tapps_otel import instrumentation, settings
from tapps_otel.errors import RunConflictError, RunNotFoundError, SettingsError
from tapps_otel.instrumentation.execution import store_under, workflow_of
from tapps_otel.instrumentation.spec import Seen
from tapps_otel.instrumentation.tapps_agents import states
from tapps_otel.instrumentation.tapps_agents.adapter import (
    EXECUTOR,
    READING,
    root_of,
    working_directory,
)
from tapps_otel.instrumentation.tapps_agents.definition import differences, steps_of
from tapps_otel.instrumentation.tapps_agents.executor_state import bond_of
from tapps_otel.instrumentation.tapps_agents.log_state import (
    Past,
    done_steps,
    inputs_of,
    variables_of,
)
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.store import Store
from tapps_otel.names import log_name
from tapps_otel.run.external_run import begun
from tapps_otel.run.opening import beginning, hold, load

if TYPE_CHECKING:
    from tapps_otel.instrumentation.patching import Report
    from tapps_otel.past.fold import RunHistory

_log = logging.getLogger("tapps_otel")
_GOES_ON: Final = frozenset({"interrupted", "failed", "cancelled", "paused"})

__all__ = ["correct", "make_executor", "prepare", "resume"]


async def resume(
    executor: Any,
    workflow_id: str,
    *,
    accept_change: bool = False,
    log_dir: Path | str | None = None,
) -> Any:
    """Go on with a run: steps that are done are not run again.

    What they made is looked for: a step whose file or folder is gone runs again, and so does what
    depends on it. Variables come from the newest readable snapshot, or from the log if
    ``executor_variables`` was set. Without a snapshot everything else comes from the log.
    Its agents name files relative to the working directory: if that is another one than where the
    run began, it is warned of.

    :param executor: a ``WorkflowExecutor``, or Cursor's; with the workflow loaded, or without: it
        is loaded from where the log says then
    :param workflow_id: its id, or its log's name
    :param accept_change: go on although the workflow's steps have changed
    :returns: its ``WorkflowState``; that of a run that is completed comes from the log, and
        nothing runs
    :raises RunNotFoundError: there is no such run
    :raises RunBusyError: another process carries it on
    :raises RunConflictError: the steps have changed (it shows how), the workflow cannot be loaded,
        or it is a run of something else
    :raises LogDamagedError: the log was changed
    """
    if not settings.current().enabled:
        raise SettingsError("tapps_otel is switched off: nothing can be resumed from its log")
    report = instrumentation.instrument("tapps_agents")
    root = root_of(executor)
    store = _store(root, log_dir)
    name = log_name(workflow_id)
    if not store.has_log(name):
        raise RunNotFoundError(name, store.folder)
    inner = _carrier(executor)
    _check_hooks(inner, report)
    summary = store.summary(name)
    if summary.status == "completed":
        history = load(name, store.folder)
        _check_kind(history)
        return _state_of(inner, store, history, root)
    bond = bond_of(inner)
    begun_as = beginning(name, store.folder)
    _warn_of_place(begun_as)
    with hold(store, name, begun_as.name, settings.current()) as held:
        history = held.history
        _load_workflow(inner, history, root)
        if not accept_change:
            _check_same(inner, history)
        inner.state = state = _state_of(inner, store, history, root)
        asked = inputs_of(history)
        workflow = workflow_of(READING, Seen(inner, asked))
        bond.prepared = begun(store, state.workflow_id, workflow, held)
    bond.kept = state
    inner.auto_progression.step_retry_counts.clear()
    given = {key: asked[key] for key in ("target_file", "max_steps") if key in asked}
    try:
        carry_out = inner.run if inner is not executor or _is_cursors(inner) else inner.execute
        return await carry_out(**given)
    finally:
        run, bond.prepared, bond.kept = bond.prepared, None, None
        if run is not None:  # their executor did not even begin
            run.end("failed", "the executor did not begin")


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
    _load_workflow(executor, history, root)
    _check_same(executor, history)
    return _state_of(executor, store, history, root)


def make_executor(history: RunHistory) -> Any:
    """An executor for a run whose own is gone with its process.

    :raises RunConflictError: tapps-agents is not installed here, or the project is gone
    """
    try:
        from tapps_agents.workflow.executor import WorkflowExecutor
    except ImportError as error:
        raise RunConflictError(
            f"run {history.workflow_id!r} is one of tapps-agents, which cannot be imported here: "
            f"{error}. Install it (pip install tapps-agents tomli) and try again"
        ) from error
    root = Path(str(history.workflow.get("root", "")))
    return WorkflowExecutor(project_root=root)


def _warn_of_place(history: RunHistory) -> None:
    then, now = history.workflow.get("cwd"), working_directory()
    if then and now != then:
        _log.warning(
            "run %s began in %s, and goes on in %s: what its steps write by relative paths comes "
            "to be there",
            history.workflow_id,
            then,
            now,
        )


def _store(root: Path, log_dir: Path | str | None) -> Store:
    return store_under(root) if log_dir is None else Store(Path(log_dir).absolute())


def _check_hooks(executor: Any, report: Report) -> None:
    """Their engine would begin anew, if we were not there to hand it the state.

    :raises RunConflictError: a hook that it takes is not on
    """
    cursors = _is_cursors(executor)
    needed = ("run", "_initialize_run", "start") if cursors else (
        "execute", "_initialize_execution", "start"
    )  # fmt: skip
    kind = "Cursor" if cursors else ""
    home = "cursor_executor" if cursors else "executor"
    path = f"tapps_agents.workflow.{home}.{kind}WorkflowExecutor"
    hooks = report.hooks
    off = [name for name in needed if hooks.get(f"{path}.{name}") != "on"]
    if off:
        raise RunConflictError(
            f"this tapps-agents cannot be resumed from a log: {report.problem or ', '.join(off)} "
            "is not watched. See instrument('tapps_agents')"
        )


def _is_cursors(executor: Any) -> bool:
    return type(executor).__name__ == "CursorWorkflowExecutor"


def _carrier(executor: Any) -> Any:
    """Who carries the run out: in Cursor mode, an executor that ``execute()`` would make anew."""
    from tapps_agents.core.runtime_mode import is_cursor_mode

    if _is_cursors(executor) or not is_cursor_mode():
        return executor
    from tapps_agents.workflow.cursor_executor import CursorWorkflowExecutor

    inner = CursorWorkflowExecutor(
        project_root=executor.project_root,
        expert_registry=executor.expert_registry,
        auto_mode=executor.auto_mode,
    )
    inner.workflow = executor.workflow
    bond_of(inner).loaded = bond_of(executor).loaded
    return inner


def _load_workflow(executor: Any, history: RunHistory, root: Path) -> None:
    """Let the executor have its workflow: its own, or the one that the log names.

    :raises RunConflictError: there is none
    """
    _check_kind(history)
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


def _check_kind(history: RunHistory) -> None:
    """:raises RunConflictError: it is no run of theirs"""
    if history.workflow.get("executor") != EXECUTOR:
        raise RunConflictError(
            f"run {history.workflow_id!r} is one of {history.name!r}, not of tapps-agents"
        )


def _parse(path: Path) -> Any:
    from tapps_agents.workflow.parser import WorkflowParser

    from tapps_otel.instrumentation.tapps_agents import definition

    return definition.load(path, WorkflowParser.parse_file(path))


def _check_same(executor: Any, history: RunHistory) -> None:
    """:raises RunConflictError: the workflow's steps are not those that the log knows"""
    loaded = bond_of(executor).loaded
    now = (
        loaded.steps
        if loaded is not None and loaded.workflow is executor.workflow
        else steps_of(executor.workflow)
    )
    changed = differences(history.workflow.get("steps") or (), now)
    if changed:
        name = history.workflow_id
        raise RunConflictError(
            f"run {name!r}: the steps of its workflow have changed since it began:\n{changed}\n"
            f"To go on with the steps as they are now: `tapps-otel resume {name} --accept-change`, "
            "or resume(..., accept_change=True)"
        )


def _state_of(executor: Any, store: Store, history: RunHistory, root: Path) -> Any:
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
