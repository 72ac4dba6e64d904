"""``resume``: continue a run that was interrupted, failed, or was paused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapps_otel.cli.codes import Code, code_of
from tapps_otel.cli.execution import execute
from tapps_otel.cli.loading import load_workflow
from tapps_otel.cli.terminal import err, say_error
from tapps_otel.cli.usage import UsageError, parse_json
from tapps_otel.errors import InvalidIdError, RunConflictError, RunNotFoundError, TappsError
from tapps_otel.report.lines import Line
from tapps_otel.report.text import plain

if TYPE_CHECKING:
    from tapps_otel.log.store import RunSummary, Store
    from tapps_otel.past.fold import RunHistory
    from tapps_otel.run.lookup import StoredRun
    from tapps_otel.run.workflow import Workflow

__all__ = ["resume", "resume_due", "run_to_resume"]


def resume(
    workflow_id: str,
    target: str | None = None,
    *,
    answer: str | None = None,
    accept_change: bool,
    trust: bool,
    log_dir: Path | None,
    quiet: bool,
) -> Code:
    """Resume a run.

    :param workflow_id: the name of its log
    :param target: its workflow, instead of the one that the log names
    :param answer: JSON, to answer its only question with first
    :param accept_change: resume an executor's run although the steps of its workflow changed
    :param trust: run the workflow that the log names, wherever it is
    """
    from tapps_otel.run.lookup import StoredRun, store_of

    store = store_of(log_dir)
    if answer is not None:
        from tapps_otel.run import answering

        answering.answer(workflow_id, parse_json(answer, "--answer"), log_dir=log_dir)
    with StoredRun(store, workflow_id) as found:
        if found.history.foreign:
            _refuse_target(found, target)
            found.check_own()
            if not (trust or _is_agreed(found.name, _workflow_file(found.history))):
                return Code.REFUSED
            return _resume_foreign(found, accept_change, log_dir=log_dir, quiet=quiet)
        flow = _load(found, target, trust=trust)
        if flow is None:
            return Code.REFUSED
        _say_place(found, flow)
        return execute(
            lambda _: flow.resume_found(found),
            found.name,
            flow.signature.result_json,
            found=found,
            log_dir=log_dir,
            quiet=quiet,
        )


def run_to_resume(given: str, log_dir: Path | None) -> str:
    """The name of the log of the run to resume.

    If a step of another run called the last run, it is that run, unless it has completed.

    :param given: the argument RUN
    """
    from tapps_otel.run.lookup import choose, last_of, means_last, store_of

    store = store_of(log_dir)
    if means_last(given, store):
        return _around(store, last_of(store)).workflow_id
    return choose(given, log_dir)


def resume_due(*, trust: bool, log_dir: Path | None, quiet: bool) -> Code:
    """Resume, one after the other, the paused runs that can continue.

    A run that is called by a step of another is resumed by the resume of that one.

    :returns: that of the first run that neither completed nor waits again
    """
    from tapps_otel.run.lookup import store_of

    store, worst = store_of(log_dir), Code.OK
    due = _due(store)
    for name in due:
        code = _resume_in_turn(store, name, trust=trust, log_dir=log_dir, quiet=quiet)
        worst = worst or code
        if code in {Code.INTERRUPTED, Code.TERMINATED}:
            return code
    if not due and not quiet:
        err().say(Line.of(("no paused run is due", "dim")))
    return worst


def _due(store: Store) -> list[str]:
    """The runs that a resume of what is due begins with, each once, the oldest first."""
    from tapps_otel import clock

    now_ns = clock.time_ns()
    found = [
        run
        for run in store.runs()
        if run.status == "answered" or (run.until_ns is not None and run.until_ns <= now_ns)
    ]
    return list(dict.fromkeys(_around(store, run).workflow_id for run in reversed(found)))


def _resume_in_turn(
    store: Store, name: str, *, trust: bool, log_dir: Path | None, quiet: bool
) -> Code:
    """Resume one of several runs: an error becomes its message and code, and the next has its turn.

    :returns: OK, too, if it waits again
    """
    try:
        code = resume(name, accept_change=False, trust=trust, log_dir=log_dir, quiet=quiet)
    except (TappsError, UsageError, OSError) as error:
        say_error(f"{name}: {error}")
        return code_of(error) if isinstance(error, TappsError) else Code.FAILED
    waits_again = code is Code.REFUSED and store.summary(name).status == "paused"
    return Code.OK if waits_again else code


def _around(store: Store, run: RunSummary) -> RunSummary:
    """The run to resume for one that a step called: that step's, unless it has completed."""
    seen = {run.workflow_id}
    while run.parent is not None and run.parent not in seen:
        seen.add(run.parent)
        try:
            parent = store.summary(run.parent)
        except (RunNotFoundError, InvalidIdError):  # in another folder, deleted, made up
            break
        if parent.status == "completed":
            break
        run = parent
    return run


def _load(found: StoredRun, target: str | None, *, trust: bool) -> Workflow[..., Any] | None:
    """Import a run's workflow: the one given, or the one that the log names."""
    from tapps_otel.run.queries import recorded_path

    if target is not None:
        return load_workflow(target, found.name)

    def may_import(file: str) -> bool:
        return trust or _is_agreed(found.name, file)

    return load_workflow(recorded_path(found), found.name, found.workflow, may_import=may_import)


def _is_agreed(name: str, file: str) -> bool:
    """Whether code may be imported that a log names: where it is unexpected, the user is asked."""
    from tapps_otel.run.project import is_known_code, project_folder

    if is_known_code(file):
        return True
    where = f"{file}, which is outside the current project ({project_folder()})"
    if sys.stdin.isatty() and err().is_terminal:
        err().say(f"run {plain(name)} is resumed by {plain(where)}: run it? [y/N]")
        return sys.stdin.readline().strip().lower() in {"y", "yes"}
    say_error(
        f"run {name!r} is resumed by {where}: nothing was run. If you know that code, pass "
        "--trust, or name its folder in TAPPS_OTEL_TRUST"
    )
    return False


def _say_place(found: StoredRun, flow: Workflow[..., Any]) -> None:
    """Write which code resumes a run, unless it is what anybody would expect."""
    from tapps_otel.log import files
    from tapps_otel.run.import_path import file_of
    from tapps_otel.run.relocation import recorded_file

    about = found.workflow
    taken, recorded = file_of(flow), recorded_file(about)
    if taken is None or recorded is None:
        return
    if taken != recorded:
        before = (f", not by {plain(recorded)} as before", "dim")
        err().say(Line.of(("  by ", "dim"), plain(taken), before))
    elif about.get("cwd") not in (None, files.system().working_directory()):
        err().say(Line.of(("  by ", "dim"), plain(taken)))


def _refuse_target(found: StoredRun, target: str | None) -> None:
    """Refuse to resume an executor's run by a function.

    :raises RunConflictError: one was given
    """
    if target is not None:
        executor = found.history.workflow.get("executor")
        raise RunConflictError(
            f"run {found.name!r} is a run of the executor {executor!r}, which {target} is not: "
            "resume it without a workflow"
        )


def _resume_foreign(
    found: StoredRun, accept_change: bool, *, log_dir: Path | None, quiet: bool
) -> Code:
    """Resume the run of a third-party executor."""
    from tapps_otel.instrumentation.resuming import resume_foreign

    history = found.history

    def call(folder: Path) -> Any:
        _enter_working_directory(history)
        return resume_foreign(found, accept_change=accept_change, log_dir=folder)

    return execute(call, found.name, found=found, log_dir=log_dir, quiet=quiet)


def _workflow_file(history: RunHistory) -> str:
    """The file that an executor loads the workflow from, in the project that the log names."""
    root, source = history.workflow.get("root"), history.workflow.get("source")
    return str(Path(str(root or "")) / str(source or "workflow"))


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
