"""``resume``: continue a run that was interrupted or failed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapps_otel.cli.codes import Code
from tapps_otel.cli.execution import execute
from tapps_otel.cli.loading import load_workflow
from tapps_otel.cli.terminal import err, say_error
from tapps_otel.errors import RunConflictError
from tapps_otel.report.lines import Line
from tapps_otel.report.text import plain

if TYPE_CHECKING:
    from tapps_otel.past.fold import RunHistory
    from tapps_otel.run.lookup import StoredRun

__all__ = ["resume"]


def resume(
    workflow_id: str | None, *, accept_change: bool, log_dir: Path | None, quiet: bool
) -> Code:
    """Resume a run.

    :param workflow_id: ``None`` for the run that was written to last
    :param accept_change: resume an executor's run although the steps of its workflow changed
    """
    from tapps_otel.run.lookup import StoredRun, store_of

    store = store_of(log_dir)
    if workflow_id is None:
        last = store.last()
        if last is None:
            say_error(f"no runs in {store.folder}: start one with `tapps-otel run`")
            return Code.NOT_FOUND
        workflow_id = last.workflow_id
    with StoredRun(store, store.name_of(workflow_id)) as found:
        if found.history.foreign:
            return _resume_foreign(found, accept_change, log_dir=log_dir, quiet=quiet)
        flow = load_workflow(str(found.history.workflow.get("path", "")), found.name)
        if flow is None:
            return Code.REFUSED
        return execute(
            lambda _: flow.resume_found(found),
            found.name,
            flow.signature.result_json,
            found=found,
            log_dir=log_dir,
            quiet=quiet,
        )


def _resume_foreign(
    found: StoredRun, accept_change: bool, *, log_dir: Path | None, quiet: bool
) -> Code:
    """Resume the run of a third-party executor."""
    from tapps_otel.instrumentation.resuming import resume_foreign

    history = found.history

    def call(folder: Path) -> Any:
        _enter_working_directory(history)
        return resume_foreign(history, accept_change=accept_change, log_dir=folder)

    return execute(call, found.name, found=found, log_dir=log_dir, quiet=quiet)


def _enter_working_directory(history: RunHistory) -> None:
    """Change to the directory where the run began: an executor's steps write relative to it.

    :raises RunConflictError: that directory cannot be entered
    """
    from tapps_otel.log import files

    place = history.workflow.get("cwd") or history.workflow.get("root")
    if not isinstance(place, str) or place == str(Path.cwd()):
        return
    try:
        files.system().change_directory(Path(place))
    except (OSError, ValueError) as error:
        raise RunConflictError(
            f"run {history.workflow_id!r} began in {place}, where its steps write; cannot change "
            f"to that directory: {error}. Create it again, then resume"
        ) from error
    err().say(Line.of(("  in ", "dim"), plain(place), (", where the run began", "dim")))
