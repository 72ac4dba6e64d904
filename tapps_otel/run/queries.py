"""Queries: events, histories and lists of runs, and the workflow of a run that was found."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

from tapps_otel import settings
from tapps_otel.errors import RunConflictError
from tapps_otel.log.model import WorkflowEvent, read_model
from tapps_otel.past.advice import how_to_resume, import_path
from tapps_otel.past.fold import Fold
from tapps_otel.run.import_path import file_of
from tapps_otel.run.lookup import find, store_of
from tapps_otel.run.reading import feed_log, read_side_logs
from tapps_otel.run.relocation import place_of, recorded_file
from tapps_otel.run.workflow import find_workflow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tapps_otel.log.store import RunSummary
    from tapps_otel.past.fold import RunHistory
    from tapps_otel.run.lookup import StoredRun
    from tapps_otel.run.workflow import Workflow

_log = logging.getLogger("tapps_otel")

__all__ = [
    "RunStatus",
    "events",
    "history",
    "last_run",
    "list_runs",
    "recorded_path",
    "workflow_of",
]


RunStatus = Literal[
    "running",
    "completed",
    "failed",
    "cancelled",
    "interrupted",
    "paused",
    "answered",
    "timeout",
    "damaged",
]


def events(workflow_id: str, *, log_dir: Path | str | None = None) -> Iterator[WorkflowEvent]:
    """The run's events in order, each after its place in the chain was checked; bounded memory.

    Values that are encrypted are decrypted if their key is configured.

    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: at the place of the damage, after the events before it
    """
    store, workflow_id = find(workflow_id, log_dir)
    try:
        codec = settings.current().codec
        yield from read_model(store.log_path(workflow_id), workflow_id, codec=codec)
    except FileNotFoundError:
        raise store.not_found(workflow_id) from None


def history(workflow_id: str, *, log_dir: Path | str | None = None) -> RunHistory:
    """The history of a run, from its log.

    A run without an end is ``running`` while a process executes it, otherwise ``interrupted``.

    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: the log was changed
    """
    store, workflow_id = find(workflow_id, log_dir)
    fold = Fold(workflow_id)
    holder = feed_log(store, workflow_id, fold)
    for event in read_side_logs(store, workflow_id):
        fold.feed_beside(event)
    found = fold.history
    if found.status == "running" and holder is None:
        found.status = "interrupted"
        if found.executions:
            found.executions[-1].status = "interrupted"
    return found


def list_runs(
    *,
    status: RunStatus | None = None,
    workflow: str | None = None,
    agent: str | None = None,
    text: str | None = None,
    since_ns: int | None = None,
    last: int | None = None,
    log_dir: Path | str | None = None,
) -> Iterator[RunSummary]:
    """The runs in the folder, the one written to last first; their logs are not read whole.

    :param status: only runs of this status
    :param workflow: only runs of the workflow of this name
    :param agent: only runs with a step of this agent; their logs are read whole
    :param text: only runs with this text in id, workflow, last step or error, in any case
    :param since_ns: only runs written to at this time or later, ns since 1970 UTC
    :param last: at most this many
    """
    return store_of(log_dir).runs(
        status=status, workflow=workflow, agent=agent, text=text, since_ns=since_ns, last=last
    )


def last_run(
    workflow: str | None = None, *, log_dir: Path | str | None = None
) -> RunHistory | None:
    """The history of the run that was written to last.

    :param workflow: only runs of the workflow of this name
    :returns: ``None`` if there is none
    """
    found = store_of(log_dir).last(workflow)
    return None if found is None else history(found.workflow_id, log_dir=log_dir)


def workflow_of(found: StoredRun) -> Workflow[..., Any]:
    """Find the workflow of a run by the import path in its log.

    A file that was under the run's working directory, and is in the same place under the present
    one too, is taken from there; a warning names it.

    :raises RunConflictError: its workflow cannot be imported
    """
    about = found.workflow
    flow = find_workflow(place_of(recorded_path(found), about).path, found.name)
    taken, recorded = file_of(flow), recorded_file(about)
    if None not in {taken, recorded} and taken != recorded:
        _log.warning("run %r is resumed by %s, not by %s as before", found.name, taken, recorded)
    return flow


def recorded_path(found: StoredRun) -> str:
    """The import path of a run's workflow, as its log has it.

    :raises UntrustedFileError: another user may have written the log: what it names is not imported
    :raises RunConflictError: its workflow cannot be imported
    """
    found.check_own()
    path = import_path(found.workflow)
    if path is not None:
        return path
    raise RunConflictError(
        f"run {found.name!r}: its log names no function to import: it was opened by Run.open, or "
        "its workflow is local to a function, or comes from a notebook, from standard input or "
        f"from `python -c`. To resume it, {how_to_resume(found.name, found.workflow).text}; or, if "
        f"the workflow is in a file now, `tapps-otel resume {found.name} FILE.py:FUNCTION`"
    )
