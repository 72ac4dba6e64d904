"""Commands that carry a run out: ``run`` and ``resume``."""

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
import sysconfig
import traceback
from collections.abc import Coroutine, Generator
from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tapps_otel import clock, settings
from tapps_otel.cli.codes import Code, code_of, refuse_usage
from tapps_otel.cli.progress import Watch
from tapps_otel.cli.terminal import command, err, out, say_error
from tapps_otel.errors import (
    LogError,
    RefusalError,
    RunConflictError,
    RunNotFoundError,
    TappsError,
    WorkflowInputError,
)
from tapps_otel.report.lines import Line
from tapps_otel.report.text import block, json_text, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory
    from tapps_otel.run.workflow import Workflow

__all__ = ["resume", "run"]

_PACKAGE: Final = str(Path(__file__).parents[1])
_DEMO: Final = str(Path(_PACKAGE, "demo.py"))
_STANDARD: Final = sysconfig.get_path("stdlib")
_FRAMES: Final = 5  # of a traceback: where it happened, and how the workflow came there


def run(
    target: str, inputs: str, workflow_id: str | None, *, log_dir: Path | None, quiet: bool
) -> Code:
    """``run``: a new run, or the named one."""
    from tapps_otel.names import check_workflow_id, new_workflow_id
    from tapps_otel.run.queries import find_workflow

    if workflow_id is not None:
        check_workflow_id(workflow_id)
    data = _read_inputs(inputs)
    _find_modules_here(target)
    try:
        flow = find_workflow(target)
    except RunConflictError as error:
        _say_import_failure(error)
        return Code.USAGE
    args, kwargs = _arguments(flow, data)
    name = workflow_id or new_workflow_id(flow.name, clock.timestamp(clock.time_ns()))
    return _carry_out(
        lambda folder: flow.options(workflow_id=name, log_dir=folder)(*args, **kwargs),
        name,
        flow.signature.result_json,
        log_dir=log_dir,
        quiet=quiet,
    )


def resume(
    workflow_id: str | None, *, accept_change: bool, log_dir: Path | None, quiet: bool
) -> Code:
    """``resume``: the run of that id, or the last one."""
    from tapps_otel.instrumentation.resuming import resume_foreign
    from tapps_otel.run import queries
    from tapps_otel.run.opening import beginning, store_of

    store = store_of(log_dir)
    if workflow_id is None:
        last = store.last()
        if last is None:
            say_error(f"no runs in {store.folder}")
            return Code.NOT_FOUND
        workflow_id = last.workflow_id
    name = store.name_of(workflow_id)
    found = beginning(name, log_dir)
    if found.foreign:

        def go_on(folder: Path) -> Any:
            _be_where_it_began(found)
            return resume_foreign(found, accept_change=accept_change, log_dir=folder)

        return _carry_out(go_on, name, log_dir=log_dir, quiet=quiet)
    path = str(found.workflow.get("path", ""))
    _find_modules_here(path)
    try:
        flow = queries.find_workflow(path, name)
    except RunConflictError as error:
        _say_import_failure(error)
        return Code.REFUSED
    return _carry_out(
        lambda folder: flow.options(log_dir=folder).resume(name),
        name,
        flow.signature.result_json,
        log_dir=log_dir,
        quiet=quiet,
    )


def _be_where_it_began(history: RunHistory) -> None:
    """Go to the working directory of the run's start: an executor's steps write relative to it.

    :raises RunConflictError: it is gone
    """
    from tapps_otel.log import files

    place = history.workflow.get("cwd") or history.workflow.get("root")
    if not isinstance(place, str) or place == str(Path.cwd()):
        return
    try:
        files.system().go_to(Path(place))
    except (OSError, ValueError) as error:
        raise RunConflictError(
            f"run {history.workflow_id!r} began in {place}, where its steps write, and which "
            f"cannot be gone to: {error}. Make that folder again, and try again"
        ) from error
    err().say(Line.of(("  in ", "dim"), plain(place), (", where the run began", "dim")))


# -- what to run, and with what


def _read_inputs(text: str) -> Any:
    import json

    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        text = _read_file(text[1:])
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        refuse_usage(
            f"the input is not JSON: {error}. An object of arguments, as "
            """'{"page": 3}', or a list of them"""
        )


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _read_file(name: str) -> str:
    from tapps_otel.log import files

    try:
        with files.system().open_read(Path(name)) as file:
            return file.read().decode()
    except (OSError, ValueError) as error:
        refuse_usage(f"cannot read the input: {error}")


def _arguments(flow: Workflow[..., Any], data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Turn JSON into the workflow's arguments, by its annotations."""
    from tapps_otel.run.values import to_json

    if isinstance(data, list):
        names = list(inspect.signature(flow).parameters)
        if len(data) > len(names):
            raise WorkflowInputError(
                f"{flow.name} takes {len(names)} arguments ({', '.join(names)}), not {len(data)}",
                "$",
            )
        data = dict(zip(names, data, strict=False))
    if not isinstance(data, dict):
        refuse_usage("the input is an object of arguments, or a list of them")
    try:
        return flow.signature.call_with(to_json(data))
    except WorkflowInputError as error:
        message = str(error).replace("the stored inputs do not fit", "the input does not fit")
        raise WorkflowInputError(message.replace(" (any more)", ""), error.path) from None


def _find_modules_here(target: str) -> None:
    """Let modules be found as ``python -m`` and ``python file.py`` find them."""
    module = target.rpartition(":")[0]
    for folder in (str(Path(module).parent.absolute()) if module.endswith(".py") else "", ""):
        here = folder or str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)


def _say_import_failure(error: RunConflictError) -> None:
    say_error(str(error))
    cause = error.__cause__
    if cause is not None and not isinstance(cause, (ModuleNotFoundError, AttributeError)):
        for line in _frames(cause):
            err().say(line)


# -- carrying out


def _carry_out(
    call: Callable[[Path], Any],
    workflow_id: str,
    result_json: Callable[[Any], bytes] | None = None,
    *,
    log_dir: Path | None,
    quiet: bool,
) -> Code:
    """Carry a run out, and show it.

    :param result_json: writes its result; without it the run is an executor's, whose state it is
    """
    from tapps_otel.run.opening import store_of

    config = settings.configure(handle_sigterm=True)  # after the workflow's own configure()
    store = store_of(log_dir or config.log_dir)
    watch = Watch(
        store.log_path(workflow_id), workflow_id, seen=_seen(store, workflow_id), quiet=quiet
    )
    try:
        with watch:
            result = _await(call(store.folder))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _interrupted(Code.INTERRUPTED, workflow_id, log_dir)
    except (SystemExit, Exception) as error:  # noqa: BLE001 - of the user's workflow
        return _raised(error, watch, workflow_id, log_dir)
    if result_json is None and result.status != "completed":
        return _ended(result, watch, workflow_id, log_dir)
    _say_done(watch, workflow_id, quiet=quiet)
    _say_log_state(store, workflow_id)
    _write_result(b"null" if result_json is None else result_json(result))
    return Code.OK


def _raised(error: BaseException, watch: Watch, workflow_id: str, log_dir: Path | None) -> Code:
    """Say what has left the workflow: a failure of its own, a signal, or a refusal of ours."""
    if isinstance(error, SystemExit) and error.code == Code.TERMINATED:
        return _interrupted(Code.TERMINATED, workflow_id, log_dir)
    began = watch.began and not isinstance(error, (RefusalError, LogError))
    if isinstance(error, TappsError) and not began:
        say_error(str(error))
        return code_of(error)
    return _failed(error, watch, workflow_id, log_dir)


def _seen(store: Store, workflow_id: str) -> int:
    """Seq of the last event that is there already."""
    try:
        before = store.summary(workflow_id)
    except RunNotFoundError:
        return 0
    return sys.maxsize if before.status == "damaged" else before.seq  # that cannot be gone on with


def _await(made: Any) -> Any:
    if not inspect.iscoroutine(made):
        return made
    carried = _Interruptible(made)
    before = signal.signal(signal.SIGINT, carried.interrupt)
    try:
        return asyncio.run(carried)
    finally:
        signal.signal(signal.SIGINT, before)


class _Interruptible(Coroutine[Any, Any, Any]):
    """A coroutine that sees Ctrl-C as what it is, where asyncio would show it a cancellation.

    A second Ctrl-C ends at once, whatever the workflow is waiting for.
    """

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner
        self._task: asyncio.Task[Any] | None = None
        self._pressed = self._told = False

    def interrupt(self, *_: object) -> None:
        """Handle the signal."""
        if self._pressed or self._task is None:
            raise KeyboardInterrupt
        self._pressed = True
        self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def send(self, value: Any) -> Any:
        """Go on."""
        self._task = self._task or asyncio.current_task()
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an exception."""
        if self._pressed and not self._told and isinstance(error[0], asyncio.CancelledError):
            self._told = True
            return self._inner.throw(KeyboardInterrupt())
        return self._inner.throw(*error)

    def close(self) -> None:
        """Give up."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


def _interrupted(code: Code, workflow_id: str, log_dir: Path | None) -> Code:
    word = "interrupted" if code is Code.INTERRUPTED else "terminated"
    err().say(Line.of(("! ", "warn"), (plain(workflow_id), "strong"), f" {word}"))
    _say_resume(workflow_id, log_dir)
    return code


def _failed(error: BaseException, watch: Watch, workflow_id: str, log_dir: Path | None) -> Code:
    terminal = err()
    for line in _frames(error):
        terminal.say(line)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else _qualified(kind)
    first, *rest = block(f"{name}: {_message(error)}")
    head = Line.of(
        ("✗ ", "bad"), (plain(workflow_id), "strong"), f" failed after {watch.elapsed}: "
    )
    terminal.say(Line([*head, *Line.of((first, "bad"))]), *rest)
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, str) and not note.startswith("to go on with this run:"):
            terminal.say(*block(note))
    _say_resume(workflow_id, log_dir)
    return Code.FAILED


def _ended(state: Any, watch: Watch, workflow_id: str, log_dir: Path | None) -> Code:
    """Say how an executor has ended a run that it did not complete."""
    first, *rest = block(str(state.error or "its executor names no reason"))
    words = f" {plain(state.status)} after {watch.elapsed}: "
    head = Line.of(("✗ ", "bad"), (plain(workflow_id), "strong"), words)
    err().say(Line([*head, *Line.of((first, "bad"))]), *rest)
    _say_resume(workflow_id, log_dir)
    return Code.REFUSED if state.status == "paused" else Code.FAILED


def _qualified(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the user's own __str__
        return "(its message cannot be shown)"


def _frames(error: BaseException) -> list[Line]:
    """The last places in the user's code that the exception came through."""
    if isinstance(error, SyntaxError):  # it names its own place
        return []
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_PACKAGE, "<frozen")) or frame.filename == _DEMO
    ]
    frames = list(dropwhile(_is_standard, frames))[-_FRAMES:]
    texts = [text for part in traceback.format_list(frames) for text in block(part)]
    return [Line.of((text, "dim")) for text in texts]


def _is_standard(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_STANDARD) and "site-packages" not in frame.filename


def _say_resume(workflow_id: str, log_dir: Path | None) -> None:
    text = plain(command(f"resume {workflow_id}", log_dir))
    err().say(Line.of(("  go on: ", "dim"), text))


def _say_done(watch: Watch, workflow_id: str, *, quiet: bool) -> None:
    if quiet:
        return
    if not watch.began:
        words = "had completed: its stored result"
    else:
        words = f"completed in {watch.elapsed}, {watch.progress.finished} steps"
    err().say(Line.of(("✓ ", "good"), (plain(workflow_id), "strong"), f" {words}"))


def _write_result(data: bytes) -> None:
    import json

    if data == b"null":
        return
    terminal = out()
    indent = 2 if terminal.is_terminal else None
    terminal.say(*json_text(json.loads(data), indent=indent).split("\n"))


def _say_log_state(store: Store, workflow_id: str) -> None:
    """Say so, where the log does not tell what has happened."""
    try:
        status = store.summary(workflow_id).status
    except RunNotFoundError:
        err().say(Line.of(("! no log was written (TAPPS_OTEL_ENABLED is off)", "warn")))
        return
    if status != "completed":
        text = "! the log could not be written to its end: a resume would run the rest again"
        err().say(Line.of((text, "warn")))
