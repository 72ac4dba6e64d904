"""Looking at runs: their events, their history. Changes nothing."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapps_otel.errors import RunConflictError, RunNotFoundError
from tapps_otel.log import lease, reader
from tapps_otel.log.model import WorkflowEvent, read_model
from tapps_otel.run.opening import FROM_FILE, beginning, find, load, store_of
from tapps_otel.run.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.log.event import Event
    from tapps_otel.log.store import RunSummary
    from tapps_otel.past.fold import RunHistory

__all__ = [
    "events",
    "find_workflow",
    "follow",
    "history",
    "last_run",
    "list_runs",
    "resume",
]


def events(workflow_id: str, *, log_dir: Path | str | None = None) -> Iterator[WorkflowEvent]:
    """The run's events, in order, each only once the chain vouches for it. Bounded memory.

    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: at the place of the damage, after the events before it
    """
    store, workflow_id = find(workflow_id, log_dir)
    try:
        yield from read_model(store.log_path(workflow_id), workflow_id)
    except FileNotFoundError:
        raise RunNotFoundError(workflow_id, store.folder) from None


def follow(workflow_id: str, *, log_dir: Path | str | None = None) -> Iterator[Event]:
    """The run's events as they are written; ends when no process carries the run on.

    :raises RunNotFoundError: there is no such run
    """
    store, workflow_id = find(workflow_id, log_dir)
    held = store.lease_path(workflow_id)
    try:
        yield from reader.follow(
            store.log_path(workflow_id), workflow_id, done=lambda: lease.holder(held) is None
        )
    except FileNotFoundError:
        raise RunNotFoundError(workflow_id, store.folder) from None


def history(workflow_id: str, *, log_dir: Path | str | None = None) -> RunHistory:
    """What the run's log says, folded. A run without an end is ``running`` while it is carried on.

    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: the log was changed
    """
    found = load(workflow_id, log_dir)
    held = store_of(log_dir).lease_path(found.workflow_id)
    if found.status == "running" and lease.holder(held) is None:
        found.status = "interrupted"
        if found.executions:
            found.executions[-1].status = "interrupted"
    return found


def list_runs(
    *,
    status: str | None = None,
    workflow: str | None = None,
    since_ns: int | None = None,
    last: int | None = None,
    log_dir: Path | str | None = None,
) -> Iterator[RunSummary]:
    """The runs of the folder, the one written to last first; their logs are not read whole.

    :param last: at most so many
    """
    return store_of(log_dir).runs(status=status, workflow=workflow, since_ns=since_ns, last=last)


def last_run(
    workflow: str | None = None, *, log_dir: Path | str | None = None
) -> RunHistory | None:
    """The history of the run that was written to last, of this workflow if one is named."""
    found = store_of(log_dir).last(workflow)
    return None if found is None else history(found.workflow_id, log_dir=log_dir)


def resume(workflow_id: str, *, log_dir: Path | str | None = None) -> Any:
    """Go on with a run: its workflow is found by the import path in its log.

    :returns: its result; a coroutine of it where the workflow is async
    :raises RunNotFoundError: there is no such run
    :raises RunConflictError: its workflow cannot be imported
    """
    found = beginning(workflow_id, log_dir)
    flow = find_workflow(str(found.workflow.get("path", "")), workflow_id)
    return flow.options(log_dir=log_dir).resume(workflow_id)


def find_workflow(path: str, workflow_id: str | None = None) -> Workflow[..., Any]:
    """Import ``package.module:name`` or ``file.py:name``.

    :raises RunConflictError: it cannot be imported, or is no workflow; it says why
    """
    of_run = "" if workflow_id is None else f"run {workflow_id!r}: "
    module_name, _, name = path.rpartition(":")
    if not module_name:
        msg = f"{of_run}{path!r} is not MODULE:FUNCTION"
        if workflow_id is None:
            msg += ", as flow.py:main or package.flow:main"
        else:
            msg += (
                ". A run that was opened by hand (Run.open) is gone on with by the code that "
                "opened it, under the same id"
            )
        raise RunConflictError(msg)
    try:
        found: Any = _import(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        msg = (
            f"{of_run}cannot import {name!r} from {module_name!r}: {type(error).__name__}: {error}"
        )
        if isinstance(error, ModuleNotFoundError):
            msg += ". Is it on the path (PYTHONPATH, or the directory you are in)?"
        raise RunConflictError(msg) from error
    if not isinstance(found, Workflow):
        msg = f"{of_run}{path} is a {type(found).__name__}, not a function with @workflow"
        raise RunConflictError(msg)
    return found


def _import(name: str) -> Any:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).absolute()
    main = sys.modules.get("__main__")
    if Path(getattr(main, "__file__", None) or "").absolute() == path:
        return main
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, FROM_FILE, None) == str(path):
        return known  # carried out once, as an import is
    # A file may have the name of a module that others need: that one stays where it is.
    module_name = (
        path.stem if known is None else f"{path.stem}_{sha256(bytes(path)).hexdigest()[:8]}"
    )
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        msg = f"{name} is not a Python file"
        raise ImportError(msg)
    module = importlib.util.module_from_spec(spec)
    setattr(module, FROM_FILE, str(path))
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
