"""Opening a run: it starts, it resumes, or its log answers in its place."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tapps_otel import clock, settings
from tapps_otel.errors import RunConflictError, RunNotFoundError, RunPausedError
from tapps_otel.log.blobs import Blobs
from tapps_otel.names import new_workflow_id
from tapps_otel.past.advice import how_to_resume
from tapps_otel.past.fold import Fold
from tapps_otel.past.plan import questions_of
from tapps_otel.redact import rules_here
from tapps_otel.run.codecs.canonical import canonical
from tapps_otel.run.codecs.native import from_json
from tapps_otel.run.continuing import called_can_continue
from tapps_otel.run.current_recorder import caller_here
from tapps_otel.run.error_messages import excerpt, with_values
from tapps_otel.run.execution_start import begin_execution
from tapps_otel.run.failures import WorkflowModule
from tapps_otel.run.leased_log import lease_log
from tapps_otel.run.lookup import blobs_of, fold_log, inputs_of, store_of
from tapps_otel.run.recorder import RunRecorder
from tapps_otel.run.step_spec import Paused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory
    from tapps_otel.run.caller import Caller
    from tapps_otel.run.lookup import StoredRun
    from tapps_otel.run.policy import OnDivergence

    _Match = Callable[[bytes, bytes], bool]

__all__ = ["check_name", "open_run"]

_log = logging.getLogger("tapps_otel")


def open_run(
    name: str,
    *,
    workflow_id: str | None,
    inputs: bytes,
    log_dir: Path | str | None = None,
    about: Mapping[str, Any] | None = None,
    module: str | None = None,
    on_divergence: OnDivergence = "fail",
    found: StoredRun | None = None,
    match: _Match | None = None,
) -> RunRecorder:
    """Start or resume a run; one that has completed is opened as ``done``.

    :param name: of its workflow
    :param inputs: as JSON, an object
    :param about: fields of ``workflow`` in the log, besides the name
    :param module: of the workflow's function
    :param found: the run as it was looked up, if it was
    :param match: whether stored inputs are the given ones; by default, if they are equal
    :raises RunBusyError: another process executes it
    :raises RunConflictError: the id belongs to another workflow, or to other inputs
    :raises RunPausedError: it waits for an answer, or for a time
    :raises RunRecursionError: it is called inside itself
    :raises LogDamagedError: its log was changed; nothing was written
    :raises LogWriteError: the log cannot be opened
    """
    config, about = settings.current(), about or {}
    store, match = store_of(log_dir), match or _are_equal
    if not config.enabled:
        run_id = workflow_id or name
        return RunRecorder(run_id, name, fold=Fold(run_id), blobs=Blobs(store.folder), off=True)
    caller = caller_here()
    if caller is not None and workflow_id is not None:
        caller.check_recursion(workflow_id, store.folder)
    if workflow_id is None:
        workflow_id = new_workflow_id(name, clock.timestamp(clock.time_ns()))
    elif _has_completed(store, workflow_id, found):
        return _open_completed(
            store, workflow_id, name=name, inputs=inputs, about=about, match=match
        )
    with lease_log(store, workflow_id, name, config) as leased:
        history = leased.history
        if history.status == "completed":  # it ended after it was looked up
            leased.release()
            return _open_completed(
                store, workflow_id, name=name, inputs=inputs, about=about, match=match
            )
        if history.executions:
            _check_same(history, name, inputs, leased.blobs, match)
            _check_not_paused(store, history, caller)
        renamed = _renamed(history, about)
        before = next(iter(renamed.values()), None)
        run = RunRecorder(
            workflow_id,
            name,
            fold=leased.fold,
            blobs=leased.blobs,
            execution=leased.execution,
            lease=leased.lease,
            writer=leased.writer,
            tracing=leased.tracing,
            watchers=leased.watchers,
            capture_inputs=config.capture_inputs,
            rules=rules_here(config),
            redact_results=config.redact_results,
            strict=config.strict,
            on_divergence=on_divergence,
            module=None if module is None else WorkflowModule(module, before or None),
            renamed=renamed or None,
            caller=caller,
        )
        if before is not None:
            about = {**about, "module": before}
        begin_execution(run, leased, about, inputs)
    return run


def _renamed(history: RunHistory, about: Mapping[str, Any]) -> dict[str, str]:
    """The workflow's module, if it was renamed since the run began, with the name it had then.

    The log knows the steps of that module by it.
    """
    then, now = history.workflow.get("module"), about.get("module")
    return {now: then} if now and isinstance(then, str) and then != now else {}


def _has_completed(store: Store, workflow_id: str, found: StoredRun | None) -> bool:
    """Whether the run has completed, by the end of its log; only then is all of it read."""
    if found is not None:
        return found.summary.status == "completed"
    try:
        return store.summary(workflow_id).status == "completed"
    except RunNotFoundError:
        return False


def _open_completed(
    store: Store,
    workflow_id: str,
    *,
    name: str,
    inputs: bytes,
    about: Mapping[str, Any],
    match: _Match,
) -> RunRecorder:
    """A run that is ``done``: its log gives its results, and no lease is taken."""
    fold = fold_log(store, workflow_id)
    blobs = blobs_of(store, workflow_id)
    _check_same(fold.history, name, inputs, blobs, match)
    _warn_of_other_code(fold.history, about.get("definition"))
    return RunRecorder(workflow_id, name, fold=fold, blobs=blobs)


def _are_equal(stored: bytes, given: bytes) -> bool:
    return canonical(from_json(stored)) == canonical(from_json(given))


def _check_same(history: RunHistory, name: str, inputs: bytes, blobs: Blobs, match: _Match) -> None:
    """Check that a run is of this workflow, with these inputs.

    :raises RunConflictError: it is another
    """
    check_name(history, name)
    stored = inputs_of(history, blobs)
    if stored != inputs and not match(stored, inputs):
        run_id = history.workflow_id
        advice = how_to_resume(run_id, history.workflow)
        rules = rules_here()
        own = f": `tapps-otel {advice.text}`" if advice.is_command else f", {advice.text}"
        raise with_values(
            lambda shown: RunConflictError(
                f"run {run_id!r} began with other inputs{shown}To resume it with its own "
                f"inputs{own}. To run with these inputs, choose another id"
            ),
            excerpt(rules.json(stored)),
            excerpt(rules.json(inputs)),
            hides_values=blobs.codec is not None,
        )


def _check_not_paused(store: Store, history: RunHistory, caller: Caller | None) -> None:
    """Check that there is something to continue with: an answer, a time, the end of a called run.

    A run that waits only for runs which it called asks these.

    :raises RunPausedError: it waits for an answer, or for a time
    :raises Paused: for the run around this one
    """
    waiting, now_ns = history.waiting, clock.time_ns()
    if history.status != "paused" or not waiting:
        return
    if any(one.pause is not None and one.pause.is_due(now_ns) for one in waiting):
        return
    if called_can_continue(store, history):
        return
    questions = questions_of(history)
    if caller is not None:
        raise Paused(history.workflow_id, questions)
    raise RunPausedError(history.workflow_id, questions, settings.log_dir_option(store.folder))


def _warn_of_other_code(history: RunHistory, definition: object) -> None:
    """Log a warning if a run completed with other code than that which is called.

    :param definition: digest of the workflow's function, ``None`` if it is not known
    """
    then = history.workflow.get("definition")
    if None not in {then, definition} and then != definition:
        _log.warning(
            "run %r completed before the code of workflow %r was changed: its stored result is "
            "returned, and the new code does not run. To run it, choose another id",
            history.workflow_id,
            history.name,
        )


def check_name(history: RunHistory, name: str) -> None:
    """Check that a run is of the workflow ``name``.

    :raises RunConflictError: it is of another
    """
    if history.name == name and not history.foreign:
        return
    owner = f"workflow {history.name!r}"
    if history.foreign:
        owner += f" of the executor {history.workflow.get('executor')!r}"
    msg = (
        f"run {history.workflow_id!r} belongs to {owner}, not to workflow {name!r}: choose "
        "another id"
    )
    raise RunConflictError(msg)
