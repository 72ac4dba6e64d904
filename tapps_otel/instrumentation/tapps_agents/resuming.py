"""Going on with a run of tapps-agents, from its log alone.

Their own resume runs everything again (their state never lists what is completed). Here the state
is made from the log, and their engine is let go on with it: under the same id, in the same log and
trace, with what is done left alone.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapps_otel import settings
from tapps_otel.errors import RunConflictError, RunNotFoundError, SettingsError
from tapps_otel.instrumentation import registry
from tapps_otel.instrumentation.execution import store_under, workflow_of
from tapps_otel.instrumentation.spec import Seen
from tapps_otel.instrumentation.tapps_agents.adapter import READING, root_of, working_directory
from tapps_otel.instrumentation.tapps_agents.executor_state import bond_of
from tapps_otel.instrumentation.tapps_agents.functions import TARGET, patches
from tapps_otel.instrumentation.tapps_agents.log_state import inputs_of
from tapps_otel.instrumentation.tapps_agents.restore import (
    check_kind,
    check_same,
    load_workflow,
    state_of,
)
from tapps_otel.log.store import Store
from tapps_otel.names import log_name
from tapps_otel.run.external_run import begin_run
from tapps_otel.run.leased_log import lease_log
from tapps_otel.run.lookup import StoredRun, load

if TYPE_CHECKING:
    from tapps_otel.instrumentation.patching import Report
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
    report = registry.add(TARGET, patches)
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
        check_kind(history)
        return state_of(inner, store, history, root)
    bond = bond_of(inner)
    with StoredRun(store, name) as found:
        _warn_of_place(found.history)
    with lease_log(store, name, found.history.name, settings.current()) as leased:
        history = leased.history
        load_workflow(inner, history, root)
        if not accept_change:
            check_same(inner, history)
        inner.state = state = state_of(inner, store, history, root)
        asked = inputs_of(history)
        workflow = workflow_of(READING, Seen(inner, asked))
        bond.prepared = begin_run(store, state.workflow_id, workflow, leased)
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
