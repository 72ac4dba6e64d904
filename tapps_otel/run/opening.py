"""Opening a run: it starts, it resumes, or its log answers for it."""

from __future__ import annotations

import os
import platform
import socket
import sys
import weakref
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, Raw

from tapps_otel import clock, settings
from tapps_otel.errors import (
    InvalidIdError,
    LogWriteError,
    RunConflictError,
    RunNotFoundError,
    RunPausedError,
    WorkflowInputError,
)
from tapps_otel.log import files as _files
from tapps_otel.log.blobs import INLINE_LIMIT, Blobs
from tapps_otel.log.event import Event
from tapps_otel.log.lease import Lease
from tapps_otel.log.reader import read
from tapps_otel.log.store import Store
from tapps_otel.log.writer import LogWriter
from tapps_otel.names import NO_RUN, new_trace_id, new_workflow_id
from tapps_otel.otel.metrics.measures import measures
from tapps_otel.otel.seam import SpanRef
from tapps_otel.otel.tracing import tracing
from tapps_otel.past.fold import Fold, RunHistory, StepHistory, collector_paused
from tapps_otel.past.plan import open_steps
from tapps_otel.run.recorder import Run
from tapps_otel.run.values import canonical, from_json, to_json
from tapps_otel.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tapps_otel.settings import Settings

__all__ = [
    "FROM_FILE",
    "Held",
    "begin",
    "beginning",
    "blobs_of",
    "boot_id",
    "find",
    "hold",
    "load",
    "open_by_hand",
    "open_run",
    "store_of",
    "stored_inputs",
]

# On a module that was loaded by the path of its file: that path, for it has no other name.
FROM_FILE: Final = "__tapps_otel_file__"


def store_of(log_dir: Path | str | None) -> Store:
    """The folder of logs: the one given, else the setting's."""
    return Store(Path(log_dir or settings.current().log_dir).absolute())


def find(workflow_id: str, log_dir: Path | str | None) -> tuple[Store, str]:
    """The folder of logs, and the name of a run's log in it.

    :param workflow_id: that name, or the id that an executor gave the run, whatever that holds
    :raises InvalidIdError: it cannot name a log, and no run of an executor has that id
    """
    store = store_of(log_dir)
    return store, store.name_of(workflow_id)


def load(workflow_id: str, log_dir: Path | str | None = None) -> RunHistory:
    """Read, check and fold a run's log. Takes nothing, changes nothing.

    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: the log was changed
    :raises LogVersionError: a newer format
    """
    store, workflow_id = find(workflow_id, log_dir)
    return _fold(store, workflow_id).history


def beginning(workflow_id: str, log_dir: Path | str | None = None) -> RunHistory:
    """The same, read no further than the run's start: which workflow it is of, and its inputs.

    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: the log was changed before the run's start
    :raises LogVersionError: a newer format
    """
    store, workflow_id = find(workflow_id, log_dir)
    history = _fold(store, workflow_id, last="workflow_start").history
    if not history.executions:
        raise RunNotFoundError(workflow_id, store.folder)
    return history


def stored_inputs(name: str, workflow_id: str, log_dir: Path | str | None) -> bytes:
    """The inputs that a run of the workflow ``name`` began with, as JSON.

    :raises RunNotFoundError: there is no such run
    :raises RunConflictError: it is a run of another workflow
    """
    history = beginning(workflow_id, log_dir)
    _check_name(history, name)
    return _inputs_of(history, blobs_of(store_of(log_dir), workflow_id)) or b"{}"


def open_run(
    name: str,
    *,
    workflow_id: str | None,
    inputs: bytes,
    log_dir: Path | str | None = None,
    fn: Callable[..., Any] | None = None,
    on_divergence: str = "fail",
) -> Run:
    """Start or resume a run of a function, or give one that is ``done``.

    :param inputs: as JSON, an object
    :raises RunBusyError: another process carries it on
    :raises RunConflictError: the id belongs to another workflow, or to other inputs
    :raises RunPausedError: it waits for an answer
    :raises LogDamagedError: its log was changed; nothing was written
    :raises LogWriteError: the log cannot be opened
    """
    config = settings.current()
    store = store_of(log_dir)
    if not config.enabled:
        name_of_run = workflow_id or name
        return Run(name_of_run, name, fold=Fold(name_of_run), blobs=Blobs(store.folder), off=True)
    if workflow_id is None:
        workflow_id = new_workflow_id(name, clock.timestamp(clock.time_ns()))
    elif _completed(store, workflow_id):
        return _answer(store, name, workflow_id, inputs)
    with hold(store, workflow_id, name, config) as held:
        history = held.history
        if history.status == "completed":  # it ended between the look at it and the lease
            held.release()
            return _answer(store, name, workflow_id, inputs)
        if history.executions:
            _check_same(history, name, inputs, held.blobs)
        run = Run(
            workflow_id,
            name,
            fold=held.fold,
            blobs=held.blobs,
            execution=held.execution,
            lease=held.lease,
            writer=held.writer,
            tracing=held.tracing,
            measures=held.measures,
            capture_inputs=config.capture_inputs,
            on_divergence=on_divergence,
            home=None if fn is None else fn.__module__,
        )
        begin(run, held, _import_path(fn), inputs)
    return run


class Held:
    """A run's lease and its log, in this process's hands.

    :param name: of its workflow
    :ivar fold: takes in what the log says
    :ivar tracing: what makes its spans, if anything does
    :ivar measures: what measures it, if anything does
    :raises RunBusyError: another process carries the run on
    :raises LogDamagedError: its log was changed; nothing was written
    """

    def __init__(self, store: Store, workflow_id: str, name: str, config: Settings) -> None:
        self.config = config
        # Before the metrics, so that at the exit spans are sent first and can be counted.
        self.tracing, self.measures = tracing(config), measures(config, name)
        self.fold = Fold(workflow_id)
        self.blobs = blobs_of(store, workflow_id, sync=config.durability != "os")
        self.lease = Lease(store.lease_path(workflow_id), workflow_id)
        try:
            with collector_paused():
                self.writer = LogWriter(
                    store.log_path(workflow_id),
                    workflow_id,
                    durability=config.durability,
                    boot_id=boot_id(),
                    stop=config.on_log_failure == "stop",
                    limit=config.buffer_events,
                    on_event=self.fold.feed,
                    observer=self.measures,
                )
        except BaseException:
            self.lease.release()
            raise

    @property
    def history(self) -> RunHistory:
        """What the log said; what this execution adds, as far as it is followed."""
        return self.fold.history

    @property
    def execution(self) -> int:
        """Number of the execution that begins now."""
        executions = self.history.executions
        return executions[-1].number + 1 if executions else 1

    def release(self) -> None:
        """Let both go; once more changes nothing."""
        self.writer.close()
        self.lease.release()


@contextmanager
def hold(store: Store, workflow_id: str, name: str, config: Settings) -> Iterator[Held]:
    """Take a run's lease and open its log; both are let go of if the block fails.

    :param name: of its workflow

    :raises InvalidIdError: a new run would have the name of traces of no run
    :raises LogWriteError: the log cannot be opened, or is full
    """
    held: Held | None = None
    try:
        if workflow_id == NO_RUN and not store.has_log(workflow_id):
            raise InvalidIdError(workflow_id)
        held = Held(store, workflow_id, name, config)
        yield held
    except BaseException as error:
        if held is not None:
            held.release()
        if isinstance(error, OSError):
            raise LogWriteError(store.log_path(workflow_id), str(error)) from error
        raise


def begin(run: Run, held: Held, about: Mapping[str, Any], inputs: bytes) -> None:
    """Write that an execution begins: the run's first, or the next one.

    :param about: what the ``workflow`` field says beside the name
    :param inputs: as JSON; a later execution has them in the log already
    """
    if held.history.executions:
        _resume(run, held.history, held.config, about)
    else:
        _start(run, held, about, inputs)
    if held.config.handle_sigterm:
        run.handle_sigterm()
    _runs.add(run)


def open_by_hand(
    name: str,
    *,
    workflow_id: str | None,
    inputs: Mapping[str, Any] | None,
    log_dir: Path | str | None,
) -> Run:
    """What ``Run.open`` does."""
    try:
        data = to_json(dict(inputs or {}))
    except TypeError as error:
        msg = f"inputs of {name!r} cannot be stored: {error}"
        raise WorkflowInputError(msg, str(error).partition(":")[0]) from None
    return open_run(name, workflow_id=workflow_id, inputs=data, log_dir=log_dir)


# -- what is there


def _fold(store: Store, workflow_id: str, *, last: str | None = None) -> Fold:
    path = store.log_path(workflow_id)
    fold = Fold(workflow_id)
    try:
        with collector_paused():
            for event in read(path, workflow_id):
                fold.feed(event)
                if event.event_type == last:
                    break
    except FileNotFoundError:
        raise RunNotFoundError(workflow_id, store.folder) from None
    return fold


def _completed(store: Store, workflow_id: str) -> bool:
    """Whether the log's end says so; the whole of it is read only if it does."""
    try:
        return store.summary(workflow_id).status == "completed"
    except RunNotFoundError:
        return False


def _answer(store: Store, name: str, workflow_id: str, inputs: bytes) -> Run:
    """A run that is done: its log gives its results, and no lease is taken."""
    fold = _fold(store, workflow_id)
    blobs = blobs_of(store, workflow_id)
    _check_same(fold.history, name, inputs, blobs)
    return Run(workflow_id, name, fold=fold, blobs=blobs)


def blobs_of(store: Store, workflow_id: str, *, sync: bool = True) -> Blobs:
    """Where the run's large values are."""
    return Blobs(store.blobs_folder(workflow_id), sync=sync)


def _inputs_of(history: RunHistory, blobs: Blobs) -> bytes | None:
    return blobs.get(history.inputs_blob) if history.inputs_blob else history.inputs


def _check_same(history: RunHistory, name: str, inputs: bytes, blobs: Blobs) -> None:
    """The run must be of this workflow, with these inputs, and not be waiting."""
    _check_name(history, name)
    stored = _inputs_of(history, blobs) or b"{}"
    if stored != inputs and canonical(from_json(stored)) != canonical(from_json(inputs)):
        msg = (
            f"run {history.workflow_id!r} began with other inputs:\n"
            f"  then: {_shown(stored)}\n  now:  {_shown(inputs)}\n"
            f"Go on with the inputs it has by `tapps-otel resume {history.workflow_id}`, or give "
            "these a run of their own under another id"
        )
        raise RunConflictError(msg)
    if history.status == "paused":
        raise RunPausedError(history.workflow_id, None)


def _check_name(history: RunHistory, name: str) -> None:
    if history.name != name or history.foreign:
        msg = (
            f"run {history.workflow_id!r} is one of workflow {history.name!r}, not of {name!r}: "
            "choose another id"
        )
        raise RunConflictError(msg)


def _shown(data: bytes) -> str:
    text = data.decode(errors="replace")
    return text if len(text) <= 500 else f"{text[:500]}... ({len(data)} bytes)"


# -- how an execution begins


def _start(run: Run, held: Held, about: Mapping[str, Any], inputs: bytes) -> None:
    event = _execution_event(run, "workflow_start", held.config, about)
    if len(inputs) <= INLINE_LIMIT:
        event.inputs = Raw(inputs)
    else:
        event.inputs_blob = held.blobs.put(inputs)
    run.begin_execution(event)


def _resume(run: Run, history: RunHistory, config: Settings, about: Mapping[str, Any]) -> None:
    before = history.executions[0]
    run.trace_id = history.trace_id or new_trace_id()
    flags = 1 if before.flags is None else before.flags
    first = SpanRef(run.trace_id, before.span_id, flags) if before.span_id else None
    last = history.executions[-1].last_timestamp
    last_ns = clock.timestamp_ns(last)
    interrupted = open_steps(history)
    links = tuple(
        SpanRef(run.trace_id, step.last.span_id, flags)
        for step in interrupted
        if step.last.span_id is not None
    )
    event = _execution_event(run, "workflow_resume", config, about)
    ends = [_interruption(run, step, last, last_ns) for step in interrupted]
    run.begin_execution(event, ends, first=first, links=links)


def _interruption(run: Run, step: StepHistory, last: str, last_ns: int) -> Event:
    """What the dead process could not write: that this step never ended."""
    attempt = step.last
    event = Event(
        event_type="step_fail",
        workflow_id=run.workflow_id,
        timestamp=max(last, attempt.timestamp),
        trace_id=run.trace_id,
        execution=run.execution,
        step_id=step.step_id,
        step=step.name,
        agent=step.agent,
        action=step.action,
        attempt=attempt.number,
        status="interrupted",
        error={
            "type": "interrupted",
            "message": f"execution {attempt.execution} ended without ending this step",
            "stack": None,
        },
        duration_ns=max(0, last_ns - attempt.started_ns),
        late=True,
    )
    if attempt.span_id is not None:
        event.span_id = attempt.span_id
    return event


def _execution_event(
    run: Run, event_type: str, config: Settings, about: Mapping[str, Any]
) -> Event:
    return Event(
        event_type=event_type,
        workflow_id=run.workflow_id,
        timestamp=clock.timestamp(run.started_ns),
        execution=run.execution,
        status="running",
        workflow={"name": run.name, **about},
        process=_process(config.durability),
        # Noted whether spans are made or not: they can be made from the log later.
        otel={"aliases": list(config.aliases)} if config.aliases else UNSET,
    )


def _import_path(fn: Callable[..., Any] | None) -> dict[str, str]:
    """Where ``tapps-otel resume`` finds the workflow: a module, or a file that was run."""
    if fn is None:
        return {}
    module, name = fn.__module__, fn.__qualname__
    loaded_from = getattr(sys.modules.get(module), FROM_FILE, None)
    if loaded_from is not None:
        return {"path": f"{loaded_from}:{name}"}
    if module != "__main__":
        return {"path": f"{module}:{name}"}
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        return {"path": f"{spec.name}:{name}"}
    file = getattr(main, "__file__", None)
    return {"path": f"{os.path.abspath(file)}:{name}"} if file else {}  # noqa: PTH100 - no I/O


@cache
def boot_id() -> str | None:
    """Names this boot of the machine, where the system tells (Linux)."""
    files = _files.system()
    text = files.read_text("/proc/sys/kernel/random/boot_id")
    return text.strip() if text else None


def _process(durability: str) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "boot_id": boot_id(),
        "durability": durability,
        "python": platform.python_version(),
        "tapps_otel": __version__,
    }


# A forked child must not go on with its parent's runs: it would carry them on twice.
_runs: weakref.WeakSet[Run] = weakref.WeakSet()


def _detach_all() -> None:
    for run in list(_runs):
        run.detach()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_all)
