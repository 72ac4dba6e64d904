"""Resumes a run of tapps-agents from its log alone.

tapps-agents' own resume runs every step again, because its saved state does not list what is
completed. Here the state is made from the log and given to the executor, which then resumes the run
under the same id, in the same log and trace, without the steps that are done.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapps_otel import settings
from tapps_otel.errors import RunConflictError, SettingsError
from tapps_otel.instrumentation import registry
from tapps_otel.instrumentation.execution import describe_workflow, store_under
from tapps_otel.instrumentation.method_call import MethodCall
from tapps_otel.instrumentation.tapps_agents.adapter import (
    ADAPTER,
    engine_version,
    is_cursor_executor,
    root_of,
)
from tapps_otel.instrumentation.tapps_agents.executor_state import executor_state
from tapps_otel.instrumentation.tapps_agents.functions import TARGET, patches
from tapps_otel.instrumentation.tapps_agents.log_state import inputs_of
from tapps_otel.instrumentation.tapps_agents.restore import (
    check_executor,
    check_mode,
    check_steps,
    load_workflow,
    state_from_log,
)
from tapps_otel.log import files
from tapps_otel.names import log_name
from tapps_otel.run.external_start import begin_run
from tapps_otel.run.leased_log import LeasedLog, lease_log
from tapps_otel.run.lookup import StoredRun, load, store_of

if TYPE_CHECKING:
    from tapps_otel.instrumentation.patching import Report
    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory

_log = logging.getLogger("tapps_otel")

__all__ = ["make_executor", "resume"]


async def resume(
    executor: Any,
    workflow_id: str,
    *,
    accept_change: bool = False,
    log_dir: Path | str | None = None,
) -> Any:
    """Resume a run. Steps that are done do not run again.

    A step whose files are missing is not done: it runs again, and so does what depends on it.
    So does a step whose variables are neither in the log (the setting ``executor_variables`` was
    off, or they are too large, or JSON cannot express them) nor in a snapshot. Agents' relative
    paths refer to the working directory: if that is not the one where the run started, a warning
    is logged.

    :param executor: a ``WorkflowExecutor`` or a ``CursorWorkflowExecutor``. If it has no workflow,
        it loads the file that the log names
    :param workflow_id: the run's id, or the name of its log
    :param accept_change: resume even if the workflow's steps or its type have changed, or in
        another mode than before (``cursor`` or ``headless``)
    :returns: its ``WorkflowState``; of a completed run it is made from the log, and nothing runs
    :raises RunNotFoundError: there is no such run
    :raises UntrustedFileError: another user may have written the log
    :raises RunBusyError: the run is in progress in another process
    :raises RunConflictError: the workflow has changed (the message is a diff) or cannot be loaded,
        the mode is another one, or the run is not one of tapps-agents
    :raises LogDamagedError: the log was changed
    """
    if not settings.current().enabled:
        raise SettingsError("tapps_otel is switched off: nothing can be resumed from its log")
    report = registry.add(TARGET, patches)
    root = root_of(executor)
    store = store_under(root) if log_dir is None else store_of(log_dir)
    with StoredRun(store, log_name(workflow_id)) as run:
        run.check_own()
        start, status = run.history, run.summary.status
    inner = _inner_executor(executor)
    _check_hooks(inner, report)
    if status == "completed":
        check_executor(start)
        return state_from_log(inner, store, load(run.name, store.folder), root)
    _warn_of_directory(start)
    with lease_log(store, run.name, start.name, settings.current()) as leased:
        inputs = _restore(inner, store, leased, root, accept_change=accept_change)
    return await _execute(inner, inputs)


def _restore(
    executor: Any, store: Store, leased: LeasedLog, root: Path, *, accept_change: bool
) -> dict[str, Any]:
    """Give the executor the state and the run that the log holds, and return the run's inputs."""
    history, known = leased.history, executor_state(executor)
    load_workflow(executor, history, root)
    if not accept_change:
        check_mode(executor, history)
        check_steps(executor, history)
    _warn_of_version(history)
    executor.state = state = state_from_log(executor, store, history, root)
    inputs = inputs_of(history, leased.blobs)
    workflow = describe_workflow(ADAPTER, MethodCall(executor, inputs))
    known.restored_run = begin_run(store, state.workflow_id, workflow, leased)
    known.restored_state = state
    executor.auto_progression.step_retry_counts.clear()
    return inputs


async def _execute(executor: Any, inputs: dict[str, Any]) -> Any:
    """Let the executor resume the run that was restored."""
    known = executor_state(executor)
    arguments = {key: inputs[key] for key in ("target_file", "max_steps") if key in inputs}
    try:
        execute = executor.run if is_cursor_executor(executor) else executor.execute
        return await execute(**arguments)
    finally:
        run, known.restored_run, known.restored_state = known.restored_run, None, None
        if run is not None:  # the executor failed before it began the run
            run.end("failed", "the executor did not begin")


def make_executor(history: RunHistory) -> Any:
    """Make an executor for a run of an earlier process.

    :raises RunConflictError: tapps-agents cannot be imported
    """
    try:
        from tapps_agents.workflow.executor import WorkflowExecutor
    except ImportError as error:
        raise RunConflictError(
            f"run {history.workflow_id!r} is a run of tapps-agents, which cannot be imported: "
            f"{error}. Install it (pip install tapps-agents tomli) and try again"
        ) from error
    root = Path(str(history.workflow.get("root", "")))
    return WorkflowExecutor(project_root=root)


def _warn_of_directory(history: RunHistory) -> None:
    then, now = history.workflow.get("cwd"), files.system().working_directory()
    if then and now != then:
        _log.warning(
            "run %s started in %s and resumes in %s: relative paths of its steps refer to that",
            history.workflow_id,
            then,
            now,
        )


def _warn_of_version(history: RunHistory) -> None:
    then, now = history.workflow.get("version"), engine_version()
    if then != now:
        _log.warning(
            "run %s was executed by tapps-agents %s and resumes under tapps-agents %s, which may "
            "start its steps in another order, or in another way",
            history.workflow_id,
            then,
            now,
        )


def _check_hooks(executor: Any, report: Report) -> None:
    """Check the hooks that keep the executor from starting a new run.

    :raises RunConflictError: one of them is not on
    """
    if is_cursor_executor(executor):
        path = "tapps_agents.workflow.cursor_executor.CursorWorkflowExecutor"
        needed = ("run", "_initialize_run", "start")
    else:
        path = "tapps_agents.workflow.executor.WorkflowExecutor"
        needed = ("execute", "_initialize_execution", "start")
    hooks = report.hooks
    off = [name for name in needed if hooks.get(f"{path}.{name}") != "on"]
    if off:
        raise RunConflictError(
            "this version of tapps-agents cannot be resumed from a log: "
            f"{report.problem or 'no hook on ' + ', '.join(off)}. "
            "print(instrument('tapps_agents')) shows every hook"
        )


def _inner_executor(executor: Any) -> Any:
    """The executor that executes the run: in Cursor mode, one that ``execute()`` would make."""
    from tapps_agents.core.runtime_mode import is_cursor_mode

    if is_cursor_executor(executor) or not is_cursor_mode():
        return executor
    from tapps_agents.workflow.cursor_executor import CursorWorkflowExecutor

    inner = CursorWorkflowExecutor(
        project_root=executor.project_root,
        expert_registry=executor.expert_registry,
        auto_mode=executor.auto_mode,
    )
    inner.workflow = executor.workflow
    executor_state(inner).loaded = executor_state(executor).loaded
    return inner
