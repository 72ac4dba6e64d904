"""``resume``: continue a run that was interrupted, failed, or was paused."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapps_otel.cli.codes import Code, code_of
from tapps_otel.cli.execution import execute
from tapps_otel.cli.loading import load_workflow
from tapps_otel.cli.terminal import err, say_error
from tapps_otel.cli.usage import UsageError, parse_json
from tapps_otel.errors import RunConflictError, RunNotFoundError, TappsError
from tapps_otel.report.lines import Line
from tapps_otel.report.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory
    from tapps_otel.run.lookup import StoredRun
    from tapps_otel.run.workflow import Workflow

__all__ = ["resume", "resume_due", "run_to_resume"]


def resume(
    workflow_id: str,
    target: str | None = None,
    *,
    answer: str | None = None,
    step: str | None = None,
    accept_change: bool,
    trust: bool,
    log_dir: Path | None,
    quiet: bool,
    paused: Code = Code.REFUSED,
) -> Code:
    """Resume a run.

    :param workflow_id: the name of its log
    :param target: its workflow, instead of the one that the log names
    :param answer: JSON, to answer a question with first, once its code is loaded
    :param step: the pause that is answered; ``None`` where the run asks one question
    :param accept_change: resume an executor's run although the steps of its workflow changed
    :param trust: run the workflow that the log names, wherever it is
    :param paused: the exit code if it waits, in the end
    """
    from tapps_otel.run.lookup import StoredRun, store_of

    store = store_of(log_dir)
    value = None if answer is None else parse_json(answer, "--answer")
    with ExitStack() as stack:
        found = stack.enter_context(StoredRun(store, workflow_id))
        is_foreign = found.history.foreign
        flow = None if is_foreign else _load(found, target, trust=trust)
        if flow is None and not (is_foreign and _may_execute(found, target, trust=trust)):
            return Code.REFUSED
        if answer is not None:
            _answer_first(found.name, value, step, log_dir=log_dir, quiet=quiet)
            found = stack.enter_context(StoredRun(store, workflow_id))  # as it stands now
        if flow is None:
            call, result_json = partial(_call_foreign, found, accept_change), None
        else:
            _say_place(found, flow)
            call, result_json = partial(_call, found, flow), flow.signature.result_json
        return execute(
            call,
            found.name,
            result_json,
            found=found,
            log_dir=log_dir,
            quiet=quiet,
            paused=paused,
        )


def _answer_first(
    name: str, value: Any, step: str | None, *, log_dir: Path | None, quiet: bool
) -> None:
    """Answer a question of a run whose code may be executed, and write which."""
    from tapps_otel.run import answering

    answered = answering.answer(name, value, step=step, log_dir=log_dir)
    if not quiet:
        err().say(Line.of((plain(answered), "strong"), " is answered"))


def run_to_resume(given: str, log_dir: Path | None) -> str:
    """The name of the log of the run to resume.

    If a step of another run called the last run, it is that run, unless it has completed.

    :param given: the argument RUN
    """
    from tapps_otel.run.continuing import outermost
    from tapps_otel.run.lookup import choose, last_of, means_last, store_of

    store = store_of(log_dir)
    if means_last(given, store):
        return outermost(store, last_of(store)).workflow_id
    return choose(given, log_dir)


def resume_due(*, trust: bool, log_dir: Path | None, quiet: bool) -> Code:
    """Resume, one after the other, the paused runs that can continue.

    A run that is called by a step of another is resumed by the resume of that one.

    :returns: that of the first run that neither completed nor waits again
    """
    from tapps_otel.run.lookup import store_of

    worst, code = Code.OK, None
    for name in _due(store_of(log_dir)):
        code = _resume_in_turn(name, trust=trust, log_dir=log_dir, quiet=quiet)
        worst = worst or code
        if code in {Code.INTERRUPTED, Code.TERMINATED}:
            return code
    if code is None and not quiet:
        err().say(Line.of(("no paused run is due", "dim")))
    return worst


def _due(store: Store) -> Iterator[str]:
    """The runs that a resume of what is due begins with, each once, the oldest first.

    Each is looked at when its turn comes: another process may have resumed it meanwhile.
    """
    resumed = set[str]()
    for name in reversed([run.workflow_id for run in store.runs()]):
        outer = _to_resume(store, name)
        if outer is not None and outer not in resumed:
            resumed.add(outer)
            yield outer


def _to_resume(store: Store, name: str) -> str | None:
    """The run to resume if a run can continue."""
    from tapps_otel.log.pulling import pull_if_reachable
    from tapps_otel.run.continuing import WAITING, can_continue, outermost

    try:
        pull_if_reachable(store, name)
        run = store.summary(name)
    except RunNotFoundError:
        return None
    return outermost(store, run, WAITING).workflow_id if can_continue(store, run) else None


def _resume_in_turn(name: str, *, trust: bool, log_dir: Path | None, quiet: bool) -> Code:
    """Resume one of several runs: an error becomes its message and code, and the next has its turn.

    :returns: OK, too, if it waits again
    """
    try:
        return resume(
            name, accept_change=False, trust=trust, log_dir=log_dir, quiet=quiet, paused=Code.OK
        )
    except (TappsError, UsageError, OSError) as error:
        say_error(f"{name}: {error}")
        return code_of(error) if isinstance(error, TappsError) else Code.FAILED


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


def _may_execute(found: StoredRun, target: str | None, *, trust: bool) -> bool:
    """Whether an executor's run may be resumed.

    :raises RunConflictError: a function was given to resume it
    :raises UntrustedFileError: another user may have written its log
    """
    _refuse_target(found, target)
    found.check_own()
    return trust or _is_agreed(found.name, _workflow_file(found.history))


def _call(found: StoredRun, flow: Workflow[..., Any], _: Path) -> Any:
    return flow.resume_found(found)


def _call_foreign(found: StoredRun, accept_change: bool, folder: Path) -> Any:
    """Resume the run of a third-party executor."""
    from tapps_otel.instrumentation.resuming import resume_foreign

    _enter_working_directory(found.history)
    return resume_foreign(found, accept_change=accept_change, log_dir=folder)


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
