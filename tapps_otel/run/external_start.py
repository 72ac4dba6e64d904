"""How the runs of third-party executors start: as new ones, as resumes, as turns of a thread."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from tapps_otel import clock
from tapps_otel.errors import RunBusyError
from tapps_otel.log.event import Event, raw_json
from tapps_otel.log.run_numbers import RunNumbers
from tapps_otel.names import log_name
from tapps_otel.redact import rules_here
from tapps_otel.run.current_recorder import recorder_of
from tapps_otel.run.execution_start import begin_execution
from tapps_otel.run.external_run import ID_LIMIT, ExternalRunRecorder
from tapps_otel.run.leased_log import LeasedLog, lease_log
from tapps_otel.run.scope import OPEN, current_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tapps_otel.log.store import RunSummary, Store
    from tapps_otel.otel.seam import Tracing
    from tapps_otel.settings_model import Settings

__all__ = [
    "Continuation",
    "ExternalWorkflow",
    "annotate_turn",
    "begin_run",
    "resume_run",
    "start_run",
    "start_turn",
]

_ABOUT_LIMIT: Final = 512 * 1024  # bytes of JSON: the first event has to fit into its line

# What a turn of a thread does about the turn before.
Continuation = Literal["new", "resume", "fork", "abandon_and_new"]


@dataclass(frozen=True, slots=True)
class ExternalWorkflow:
    """The workflow of a third-party executor, as the log describes it.

    :ivar name: for people
    :ivar about: fields of ``workflow`` in the log, besides the name; ``executor`` at least
    :ivar inputs: of this run, as JSON, an object
    :ivar tracing: makes the run's span; by default, the process's provider does
    """

    name: str
    about: Mapping[str, Any]
    inputs: bytes = b"{}"
    tracing: Tracing | None = None


def start_run(
    store: Store, workflow_id: str, workflow: ExternalWorkflow, config: Settings
) -> ExternalRunRecorder:
    """Start a run under this id or, if that has a log, under ``<id>.2`` and so on.

    :param workflow_id: the executor's own; any string
    :raises LogWriteError: the log cannot be opened
    """
    numbers, number = RunNumbers(store, workflow_id), 0
    while True:
        number = numbers.next(after=number)
        own_id = numbers.id_of(number)
        try:
            with lease_log(store, log_name(own_id), workflow.name, config) as leased:
                if leased.history.seq == 0:
                    numbers.note(number)
                    return begin_run(store, own_id, workflow, leased)
                leased.release()  # another process was faster
        except RunBusyError:
            continue


def resume_run(
    store: Store, workflow_id: str, workflow: ExternalWorkflow, config: Settings
) -> ExternalRunRecorder:
    """Resume the run of this id, as its next execution; start it if it has no log.

    :raises RunBusyError: another process executes it
    :raises LogDamagedError: its log was changed; nothing was written
    :raises LogWriteError: the log cannot be opened
    """
    with lease_log(store, log_name(workflow_id), workflow.name, config) as leased:
        return begin_run(store, workflow_id, workflow, leased)


def begin_run(
    store: Store, workflow_id: str, workflow: ExternalWorkflow, leased: LeasedLog
) -> ExternalRunRecorder:
    """Begin an execution of the run whose log is leased; the current run gets an annotation.

    :raises ValueError: its id or its description is too large for an event
    """
    size = len(raw_json(dict(workflow.about)))
    if len(workflow_id) > ID_LIMIT or size > _ABOUT_LIMIT:
        msg = (
            f"an id of {len(workflow_id)} characters and a description of {size} bytes are too "
            f"large: at most {ID_LIMIT} and {_ABOUT_LIMIT}"
        )
        raise ValueError(msg)
    run = ExternalRunRecorder(workflow_id, workflow.name, leased, store)
    if workflow.tracing is not None:
        run.tracing = workflow.tracing
    begin_execution(run, leased, workflow.about, workflow.inputs)
    outer = current_scope.get()
    if outer is not None and outer.state is OPEN and not outer.run.detached:
        recorder_of(outer).annotate("tapps.run", {"workflow_id": workflow_id}, outer)
    return run


def start_turn(
    store: Store,
    thread: str,
    workflow: ExternalWorkflow,
    config: Settings,
    decide: Callable[[RunSummary], str],
) -> ExternalRunRecorder:
    """Start the next run of a thread, ``<thread>``, ``<thread>.2`` ..., or resume the last one.

    :param thread: the executor's id of it; any string
    :param decide: asked about the last run, if there is one: ``resume`` continues it, unless that
        is in progress by then, ``new`` starts another, ``fork`` too, which notes where it comes
        from, and ``abandon_and_new`` ends the last one as cancelled before
    :raises ValueError: it decides something else
    :raises LogError: the log cannot be opened
    """
    numbers = RunNumbers(store, thread)
    number = numbers.last()
    last_id = numbers.id_of(number) if number else None
    about = {**workflow.about, "thread": thread}
    word = "new" if last_id is None else decide(store.summary(log_name(last_id)))
    if word not in get_args(Continuation):
        choices = ", ".join(map(repr, get_args(Continuation)))
        raise ValueError(f"a thread cannot continue by {word!r}: it must be one of {choices}")
    if last_id is not None and word == "resume":
        with suppress(RunBusyError):  # another turn was faster, and this one is a run of its own
            return resume_run(store, last_id, replace(workflow, about=about), config)
    if last_id is not None and word == "fork":
        about["forked_from"] = last_id
    if last_id is not None and word == "abandon_and_new":
        _abandon(store, last_id, workflow.name, config)
    return start_run(store, thread, replace(workflow, about=about), config)


def annotate_turn(
    store: Store, thread: str, name: str, attributes: Mapping[str, Any], config: Settings
) -> None:
    """Write an annotation into the log of the last run of a thread, if it has one.

    :raises RunBusyError: the run is in progress
    """
    numbers = RunNumbers(store, thread)
    number = numbers.last()
    if not number:
        return
    own_id = numbers.id_of(number)
    with lease_log(store, log_name(own_id), own_id, config) as leased:
        if leased.history.executions:
            held = rules_here(config).attributes(dict(attributes))
            _append_late(leased, own_id, "annotation", name=name, attributes=held)
        leased.release()


def _abandon(store: Store, workflow_id: str, name: str, config: Settings) -> None:
    """End a run as cancelled that has not completed, unless a process executes it."""
    try:
        with lease_log(store, log_name(workflow_id), name, config) as leased:
            history = leased.history
            if history.executions and history.status not in {"completed", "cancelled"}:
                reason = "abandoned: a new run of its thread began"
                _append_late(leased, workflow_id, "workflow_end", status="cancelled", reason=reason)
            leased.release()
    except RunBusyError:
        pass


def _append_late(leased: LeasedLog, workflow_id: str, event_type: str, **fields: Any) -> None:
    """Write an event about a run that is not in progress.

    Without a span: that of its last execution has ended, or was interrupted.
    """
    event = Event(
        event_type=event_type,
        workflow_id=workflow_id,
        timestamp=clock.timestamp(clock.time_ns()),
        execution=leased.history.executions[-1].number,
        late=True,
        **fields,
    )
    leased.writer.append(event)
