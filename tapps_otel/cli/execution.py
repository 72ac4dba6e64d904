"""One execution of a run: call it, show its progress, report how it ended."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapps_otel import settings
from tapps_otel.cli.codes import Code, code_of, explained
from tapps_otel.cli.hints import advice_text, resume_hint
from tapps_otel.cli.interrupt import run_to_end
from tapps_otel.cli.loading import user_frames
from tapps_otel.cli.progress import Watch
from tapps_otel.cli.terminal import err, out, say_error, value_text
from tapps_otel.errors import (
    LogError,
    RefusalError,
    RunNotFoundError,
    RunPausedError,
    TappsError,
)
from tapps_otel.names import log_name
from tapps_otel.past.advice import RESUME_NOTE, Advice, how_to_answer
from tapps_otel.report.lines import Line, labelled
from tapps_otel.report.text import block, counted, plain

if TYPE_CHECKING:
    from tapps_otel.log.store import Store
    from tapps_otel.run.lookup import StoredRun

__all__ = ["execute"]


def execute(
    call: Callable[[Path], Any],
    workflow_id: str,
    result_json: Callable[[Any], bytes] | None = None,
    *,
    found: StoredRun | None = None,
    log_dir: Path | None,
    quiet: bool,
    paused: Code = Code.REFUSED,
) -> Code:
    """Execute a run, and show it.

    :param call: starts or resumes the run in a log folder; returns its result, or a coroutine
    :param result_json: encodes the result; ``None`` if the run is an executor's, whose result is
        its state
    :param found: the run that is resumed
    :param paused: the exit code if it waits, in the end
    """
    from tapps_otel.run.lookup import store_of

    config = settings.configure(handle_sigterm=True)  # after the workflow's own configure()
    store = store_of(log_dir or config.log_dir) if found is None else found.store
    watch = Watch(
        store.log_path(workflow_id),
        workflow_id,
        seen=_last_seq(store, workflow_id, found),
        quiet=quiet,
        file=None if found is None else found.file,
    )

    def hint() -> list[Line]:
        return resume_hint(store, workflow_id, log_dir)

    try:
        with watch:
            result = run_to_end(call(store.folder))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _report_interrupted(Code.INTERRUPTED, workflow_id, hint())
    except RunPausedError as error:
        _report_paused(error, watch, log_dir)
        return paused
    except (SystemExit, Exception) as error:  # noqa: BLE001 - of the user's workflow
        return _report_raised(error, watch, workflow_id, hint())
    if result_json is None and result.status != "completed":
        _report_ended(result, watch, workflow_id, hint())
        return paused if result.status == "paused" else Code.FAILED
    if not quiet:
        _report_completed(watch, workflow_id)
    _warn_of_incomplete_log(store, workflow_id)
    _write_result(b"null" if result_json is None else result_json(result))
    return Code.OK


def _last_seq(store: Store, workflow_id: str, found: StoredRun | None) -> int:
    """Seq of the log's last event before this execution."""
    try:
        before = store.summary(workflow_id) if found is None else found.summary
    except RunNotFoundError:
        return 0
    # No execution writes to a damaged log: there will be no news.
    return sys.maxsize if before.status == "damaged" else before.seq


# -- how it ended


def _report_raised(
    error: BaseException,
    watch: Watch,
    workflow_id: str,
    hint: list[Line],
) -> Code:
    """Report an exception: the workflow's own, SIGTERM, a refusal of this package."""
    if isinstance(error, SystemExit) and error.code == Code.TERMINATED:
        return _report_interrupted(Code.TERMINATED, workflow_id, hint)
    began = watch.began and not isinstance(error, (RefusalError, LogError))
    if isinstance(error, TappsError) and not began:
        say_error(explained(error))
        return code_of(error)
    return _report_failed(error, watch, workflow_id, hint)


def _report_paused(error: RunPausedError, watch: Watch, log_dir: Path | None) -> None:
    """Report that the run waits, for what, and how it is answered."""
    terminal, name = err(), error.workflow_id
    when = f" paused after {watch.elapsed}" if watch.began else " is paused"
    terminal.say(Line.of(("? ", "warn"), (plain(name), "strong"), when))
    for one in error.questions:
        first, *rest = block(str(one))
        more = [f"    {text}" for text in rest]
        terminal.say(Line.of((f"  {plain(one.step_id)}: ", "dim"), first), *more)
    shown = [how_to_answer(one) for one in error.questions if one.question is not None]
    then = Advice(f"resume {log_name(name)}" if shown else "resume --due")
    for label, advice in [*(("answer", one) for one in shown), ("then", then)]:
        terminal.say(labelled(label, advice_text(advice, log_dir)))


def _report_interrupted(code: Code, workflow_id: str, hint: list[Line]) -> Code:
    word = "interrupted" if code is Code.INTERRUPTED else "terminated"
    err().say(
        Line.of(("! ", "warn"), (plain(workflow_id), "strong"), f" {word}"),
        *hint,
    )
    return code


def _report_failed(error: BaseException, watch: Watch, workflow_id: str, hint: list[Line]) -> Code:
    terminal = err()
    terminal.say(*user_frames(error))
    _say_failure(workflow_id, f"failed after {watch.elapsed}", f"{_name(error)}: {_text(error)}")
    for note in getattr(error, "__notes__", ()):
        # The library's own note repeats the last line.
        if isinstance(note, str) and not note.startswith(RESUME_NOTE):
            terminal.say(*block(note))
    terminal.say(*hint)
    return Code.FAILED


def _report_ended(state: Any, watch: Watch, workflow_id: str, hint: list[Line]) -> None:
    """Report how an executor ended a run that it did not complete."""
    reason = str(state.error or "its executor names no reason")
    _say_failure(workflow_id, f"{plain(state.status)} after {watch.elapsed}", reason)
    err().say(*hint)


def _say_failure(workflow_id: str, ending: str, reason: str) -> None:
    first, *rest = block(reason)
    pieces = (("✗ ", "bad"), (plain(workflow_id), "strong"), f" {ending}: ", (first, "bad"))
    err().say(Line.of(*pieces), *rest)


def _name(error: BaseException) -> str:
    kind = type(error)
    is_builtin = kind.__module__ == "builtins"
    return kind.__qualname__ if is_builtin else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the user's own __str__
        return "(its message cannot be shown)"


def _report_completed(watch: Watch, workflow_id: str) -> None:
    if watch.began:
        steps = counted(watch.finished, "step")
        words = f"completed in {watch.elapsed}, {steps}"
    else:
        words = "had completed: its stored result"
    err().say(Line.of(("✓ ", "good"), (plain(workflow_id), "strong"), f" {words}"))


def _warn_of_incomplete_log(store: Store, workflow_id: str) -> None:
    """Warn if the run completed and its log does not show that."""
    try:
        status = store.summary(workflow_id).status
    except RunNotFoundError:
        err().say(Line.of(("! no log was written (TAPPS_OTEL_ENABLED is off)", "warn")))
        return
    if status != "completed":
        text = "! the log is incomplete: a resume would run the steps that are missing in it again"
        err().say(Line.of((text, "warn")))


def _write_result(data: bytes) -> None:
    if data == b"null":
        return
    terminal = out()
    indent = 2 if terminal.is_terminal else None
    terminal.say(*value_text(json.loads(data), indent=indent).split("\n"))
