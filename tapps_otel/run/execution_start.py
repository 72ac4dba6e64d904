"""How an execution begins: as the run's first, or as a resume of what was interrupted."""

from __future__ import annotations

import os
import platform
import socket
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Raw

from tapps_otel import clock
from tapps_otel.log.blobs import INLINE_LIMIT
from tapps_otel.log.encrypted import CodecFailedError
from tapps_otel.log.event import Event
from tapps_otel.names import new_trace_id
from tapps_otel.otel.seam import SpanRef
from tapps_otel.past.plan import open_steps
from tapps_otel.run import log_context
from tapps_otel.run.ends_from_history import due
from tapps_otel.run.leased_log import boot_id
from tapps_otel.run.trace_start import begin_trace, catch_up
from tapps_otel.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tapps_otel.past.fold import AttemptHistory, RunHistory, StepHistory
    from tapps_otel.run.leased_log import LeasedLog
    from tapps_otel.run.recorder import RunRecorder
    from tapps_otel.settings_model import Settings

__all__ = ["begin_execution", "process_here"]


def begin_execution(
    run: RunRecorder, leased: LeasedLog, about: Mapping[str, Any], inputs: bytes
) -> None:
    """Write that an execution begins: the run's first, or the next one.

    :param about: fields of ``workflow`` in the log, besides the name
    :param inputs: as JSON; for a later execution they are in the log already
    :raises DecryptionError: values in the log cannot be decrypted
    """
    if leased.config.log_context:
        log_context.install()
    if leased.history.locked is not None:
        raise leased.history.locked.error(run.workflow_id)
    if leased.history.executions:
        _resume(run, leased.history, leased.config, about)
    else:
        _start(run, leased, about, inputs)
    if leased.config.handle_sigterm:
        run.handle_sigterm()


def _start(run: RunRecorder, leased: LeasedLog, about: Mapping[str, Any], inputs: bytes) -> None:
    event = _execution_event(run, "workflow_start", leased.config, about)
    if len(inputs) <= INLINE_LIMIT:
        event.inputs = Raw(inputs)
    else:
        try:
            event.inputs_blob = leased.blobs.put_value(inputs)
        except CodecFailedError:  # they wait with their event
            event.inputs = Raw(inputs)
    _write_begin(run, event)


def _resume(
    run: RunRecorder, history: RunHistory, config: Settings, about: Mapping[str, Any]
) -> None:
    before = history.executions[0]
    run.trace_id = history.trace_id or new_trace_id()
    flags = 1 if before.flags is None else before.flags
    first = None
    if before.span_id:
        first = SpanRef(run.trace_id, before.span_id, flags, before.trace_state)
    last = history.executions[-1].last_timestamp
    last_ns = clock.timestamp_ns(last)
    left_open = open_steps(history)
    run.replay.pauses = [step for step in left_open if step.waits]
    interrupted = [
        (step, one) for step in left_open if not step.waits for one in step.open_attempts
    ]
    links = tuple(
        SpanRef(run.trace_id, attempt.span_id, flags)
        for _, attempt in interrupted
        if attempt.span_id is not None
    )
    event = _execution_event(run, "workflow_resume", config, about)
    ends = [_interruption(run, *one, last, last_ns) for one in interrupted]
    ends += _ends_of_due_pauses(run)
    _write_begin(run, event, ends, first=first, links=links)


def _write_begin(
    run: RunRecorder,
    event: Event,
    interrupted: Iterable[Event] = (),
    *,
    first: SpanRef | None = None,
    links: tuple[SpanRef, ...] = (),
) -> None:
    """Write the start of this execution, and an end for each step that was interrupted.

    :param interrupted: the ends of steps that the execution before left open
    :param first: the span of execution 1, the parent of those of later executions
    :param links: the spans of the interrupted steps
    """
    begin_trace(run, event, first=first, links=links)
    run.write(event)
    run.workflow = event.workflow or {}
    if run.root.span is not None:
        run.root.span.record(event)
    for end in interrupted:
        run.replay.feed(end, run.write(end))
    if first is not None and first.flags & 1:
        catch_up(run)
    run.note_begun()


def _ends_of_due_pauses(run: RunRecorder) -> list[Event]:
    """The ends of pauses whose time has come.

    They are written after the start of this execution: a process that dies before that leaves a
    run that can still continue, and one that dies later a run that was interrupted.
    """
    history, now_ns = run.replay.history, clock.time_ns()
    return [
        due(history, step)
        for step in run.replay.pauses
        if step.pause is not None and step.pause.is_due(now_ns)
    ]


def _interruption(
    run: RunRecorder, step: StepHistory, attempt: AttemptHistory, last: str, last_ns: int
) -> Event:
    """The end event of an attempt that the dead process could not write."""
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
    run: RunRecorder, event_type: str, config: Settings, about: Mapping[str, Any]
) -> Event:
    return Event(
        event_type=event_type,
        workflow_id=run.workflow_id,
        **run.clock.times(run.started_monotonic),
        execution=run.execution,
        status="running",
        workflow={"name": run.name, **about, **_parent(run)},
        process=process_here(config.durability),
        # Written even if no spans are made now: they can be made from the log later.
        otel={"aliases": list(config.aliases)} if config.aliases else UNSET,
    )


def _parent(run: RunRecorder) -> dict[str, Any]:
    caller = run.caller
    return {} if caller is None else {"parent": caller.as_field(run.log_dir)}


def process_here(durability: str) -> dict[str, Any]:
    """Describe this process, as the first event of an execution has it."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "boot_id": boot_id(),
        "durability": durability,
        "python": platform.python_version(),
        "tapps_otel": __version__,
    }
