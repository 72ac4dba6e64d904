"""Runs of third-party executors: these decide what runs, and the log records it.

Such a run does not follow the rules of resume: its executor may start a step again at any time,
and the last outcome counts. Steps of this library that are called inside one are matched as in
any other scope.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tapps_otel import clock
from tapps_otel.errors import LogWriteError, RunBusyError, RunEndedError
from tapps_otel.log.event import Event, raw_json
from tapps_otel.names import ATTR, NO_RUN, escape, join_step_id, log_name
from tapps_otel.run import failures
from tapps_otel.run.attempt import AttemptRecorder, status_of
from tapps_otel.run.current_recorder import recorder_of
from tapps_otel.run.execution_start import begin_execution
from tapps_otel.run.leased_log import LeasedLog, lease_log
from tapps_otel.run.recorder import RunRecorder
from tapps_otel.run.scope import (
    COMPLETED,
    FAILED,
    OPEN,
    Recorder,
    Scope,
    current_scope,
    running_task,
)
from tapps_otel.run.step_spec import StepSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tapps_otel.log.artifacts import Artifact
    from tapps_otel.log.store import Store
    from tapps_otel.settings import Settings

__all__ = [
    "ExternalAttempt",
    "ExternalRun",
    "ExternalStep",
    "ExternalWorkflow",
    "begin_run",
    "resume_run",
    "start_run",
]

_log = logging.getLogger("tapps_otel")
_STATUSES: Final = frozenset({"completed", "failed", "cancelled", "interrupted", "paused"})
_MOST_NAMES: Final = 1000  # runs that began under one id
_RESULT_LIMIT: Final = 1 << 20  # bytes of JSON
_ABOUT_LIMIT: Final = 512 * 1024  # bytes of JSON: the first event has to fit into its line
_ID_LIMIT: Final = 32 * 1024  # characters, of a run's id or a step's: each event has both


class ExternalStep(StepSpec):
    """A step as its executor describes it; its result is only recorded, never returned.

    :param definition: 16 hex digits of a digest of the step's fields
    """

    def put_result(self, run: Recorder, event: Event, value: object) -> None:
        """Put a result into its event, if there is one; what JSON cannot express is simplified."""
        if value is None:
            return
        data = bytes(raw_json(value))
        if len(data) <= _RESULT_LIMIT:
            run.store(event, data)
        else:
            event.result_omitted = f"{len(data)} bytes, of at most {_RESULT_LIMIT}"

    def put_skip_result(self, run: Recorder, event: Event, value: object) -> None:
        """Put the result of a skip into its event, as any other."""
        self.put_result(run, event, value)


class ExternalAttempt(AttemptRecorder, kw_only=True, eq=False):
    """One try of an executor's step.

    :ivar late: it is recorded after it was done, without a duration
    :ivar skip_reason: why its executor began it and then did nothing
    :ivar attributes: of the event that will end it
    """

    by_hand: bool = True  # only its executor knows when it ends
    late: bool = False
    skip_reason: str | None = None
    attributes: dict[str, Any] | None = None
    _ending: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether its end has not been written yet."""
        return self.state is OPEN

    def stop(self) -> None:
        """Note that its code has ended now; the reason is recorded later."""
        self._stopped_ns = clock.monotonic_ns()

    def skip_drained(self, reason: str, result: Any) -> None:
        """End it as skipped, with the executor's reason, shortened if it is long."""
        super().skip_drained(failures.cut(reason), result)

    def fail_as(self, status: str, error: BaseException) -> None:
        """End it with a status that its executor chooses, without waiting for what is inside."""
        inside = self.begin_end()
        if inside is None:
            return
        if inside:
            self.give_up(error)
        self._ending = status
        self.fail_drained(error)

    def _start_event(self) -> Event:
        event = super()._start_event()
        if self.late:
            event.late = True
            self._stopped_ns = self._monotonic
        return event

    def _end_event(self, event_type: str, status: str) -> Event:
        event = super()._end_event(event_type, status)
        if self.late:
            event.late = True
        if self.attributes:
            event.attributes = self.attributes
        return event

    def _status_of(self, error: BaseException) -> str:
        return self._ending or super()._status_of(error)


class ExternalRun(RunRecorder):
    """Records a run that a third-party executor executes.

    Obtained from :func:`start_run` or :func:`resume_run`.

    :ivar log_name: names its log: the id, if that can name a file
    """

    def __init__(self, workflow_id: str, name: str, leased: LeasedLog, store: Store) -> None:
        super().__init__(
            workflow_id,
            name,
            fold=leased.fold,
            blobs=leased.blobs,
            execution=leased.execution,
            lease=leased.lease,
            writer=leased.writer,
            tracing=leased.tracing,
            measures=leased.measures,
        )
        self.log_name = log_name(workflow_id)
        self._store, self._config = store, leased.config
        self._numbers = {step.step_id: step.last.number for step in leased.history.by_id.values()}
        self._head = ("", 0)

    @property
    def stops(self) -> bool:
        """Whether a step must not run if it cannot be logged."""
        return self._config.on_log_failure == "stop"

    # -- steps

    def begin_step(
        self, step_id: str, spec: ExternalStep, *, late: bool = False
    ) -> ExternalAttempt:
        """Write that the executor begins a step: its next attempt, however the last one ended.

        :param step_id: the executor's own; unique in the current scope
        :raises RunEndedError: the scope has ended
        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        scope = self.scope_here()
        place = _place(scope, step_id)
        with self.lock:
            if scope.state is not OPEN:
                raise RunEndedError(spec.name, self.scope_name(scope))
            number = self._numbers[place] = self._numbers.get(place, 0) + 1
            attempt = ExternalAttempt(
                run=self,
                scope=scope,
                spec=spec,
                step_id=place,
                number=number,
                thread=threading.get_ident(),
                task=running_task(),
                late=late,
            )
            scope.enclose(attempt)
        attempt.start()
        return attempt

    def mark_step(
        self, step_id: str, spec: ExternalStep, artifacts: Iterable[Artifact] = ()
    ) -> None:
        """Write that a step was done, as its executor was told afterwards."""
        self.begin_step(step_id, spec, late=True).finish(artifacts=artifacts)

    def skip_step(self, step_id: str, spec: ExternalStep, reason: str) -> None:
        """Write that the executor skips a step, which has failed or was never begun."""
        scope = self.scope_here()
        place = _place(scope, step_id)
        event = Event(
            event_type="step_skip",
            workflow_id=self.workflow_id,
            timestamp=clock.timestamp(clock.time_ns()),
            trace_id=self.trace_id,
            span_id=scope.span_id,
            execution=self.execution,
            step_id=place,
            step=spec.name,
            agent=spec.agent,
            action=spec.action,
            attempt=self._numbers.get(place, 0),
            reason=failures.cut(reason),
            status="skipped",
        )
        self.write(event)
        if scope.span is not None:
            scope.span.record(event)

    # -- the end

    def end(self, status: str, error: BaseException | str | None = None) -> None:
        """End the run with the status that its executor gives it.

        :param status: the executor's own word; an unknown one counts as ``failed``
        :param error: the reason that it gives
        """
        if self.root.state is not OPEN:
            return
        try:
            self._begin_end()
            self.root.drain()
        finally:
            self._write_end(status, error)

    async def end_async(self, status: str, error: BaseException | str | None = None) -> None:
        """End the run as :meth:`end` does, without blocking the event loop."""
        if self.root.state is not OPEN:
            return
        try:
            self._begin_end()
            await self.root.drain_async()
        finally:
            self._write_end(status, error)

    def end_by(self, error: BaseException) -> None:
        """End the run by an exception that leaves the executor."""
        self.end(self._status_by(error), error)

    async def end_by_async(self, error: BaseException) -> None:
        """End the run as :meth:`end_by` does, without blocking the event loop."""
        await self.end_async(self._status_by(error), error)

    def _status_by(self, error: BaseException) -> str:
        return "interrupted" if self._terminated else status_of(error, self.workflow_id)

    def _write_end(self, word: str, error: BaseException | str | None) -> None:
        status = word if word in _STATUSES else "failed"
        event = self._end_event(status)
        if status != word:
            event.attributes = {ATTR.EXECUTOR_STATUS: word}
        if isinstance(error, BaseException):
            event.error = failures.describe(error)
        elif status == "failed":
            message = str(error or f"its executor ended it as {word!r} and gave no reason")
            event.error = {
                "type": "WorkflowFailed",
                "message": failures.cut(message),
                "stack": None,
            }
        try:
            self._end(event, COMPLETED if status == "completed" else FAILED)
        except LogWriteError as failure:
            _log.error("%s", failure)
        finally:
            self.close()

    # -- calls one by one, with the lease held only during each

    def release_log(self) -> None:
        """Close the log and release the lease of a run that has not ended."""
        if self._writer is not None:
            self._head = (self._writer.sha, self._writer.seq)
        self.close()
        self._attach_log(None, None)

    def reacquire_log(self) -> bool:
        """Continue after :meth:`release_log`, as the same execution.

        :returns: ``False`` if another process has continued the run meanwhile
        :raises RunBusyError: another process executes it
        :raises LogDamagedError: its log was changed
        """
        with lease_log(self._store, self.log_name, self.name, self._config) as leased:
            if (leased.writer.sha, leased.writer.seq) != self._head:
                leased.release()
                return False
        self._attach_log(leased.lease, leased.writer)
        return True


def _place(scope: Scope, step_id: str) -> str:
    """The place of a step in this scope.

    :raises ValueError: its id is too long for an event
    """
    if len(step_id) > _ID_LIMIT:
        msg = f"step {step_id[:40]!r}...: an id of {len(step_id)} characters is too long"
        raise ValueError(msg)
    return join_step_id(scope.step_id, escape(step_id), 1)


@dataclass(frozen=True, slots=True)
class ExternalWorkflow:
    """The workflow of a third-party executor, as the log describes it.

    :ivar name: for people
    :ivar about: fields of ``workflow`` in the log, besides the name; ``executor`` at least
    :ivar inputs: of this run, as JSON, an object
    """

    name: str
    about: Mapping[str, Any]
    inputs: bytes = b"{}"


def start_run(
    store: Store, workflow_id: str, workflow: ExternalWorkflow, config: Settings
) -> ExternalRun:
    """Start a run under this id or, if that has a log, under ``<id>.2`` and so on.

    :param workflow_id: the executor's own; any string
    :raises LogWriteError: the log cannot be opened
    """
    for number in range(1, _MOST_NAMES):
        own_id = workflow_id if number == 1 else f"{workflow_id}.{number}"
        name = log_name(own_id)
        try:
            if own_id == NO_RUN or store.has_log(name):
                continue
            with lease_log(store, name, workflow.name, config) as leased:
                if leased.history.seq == 0:
                    return begin_run(store, own_id, workflow, leased)
                leased.release()  # another process was faster
        except RunBusyError:
            continue
    path = store.log_path(log_name(workflow_id))
    raise LogWriteError(path, f"{_MOST_NAMES} runs of that id exist already")


def resume_run(
    store: Store, workflow_id: str, workflow: ExternalWorkflow, config: Settings
) -> ExternalRun:
    """Resume the run of this id, as its next execution; start it if it has no log.

    :raises RunBusyError: another process executes it
    :raises LogDamagedError: its log was changed; nothing was written
    :raises LogWriteError: the log cannot be opened
    """
    with lease_log(store, log_name(workflow_id), workflow.name, config) as leased:
        return begin_run(store, workflow_id, workflow, leased)


def begin_run(
    store: Store, workflow_id: str, workflow: ExternalWorkflow, leased: LeasedLog
) -> ExternalRun:
    """Begin an execution of the run whose log is leased; the current run gets an annotation.

    :raises ValueError: its id or its description is too large for an event
    """
    size = len(raw_json(dict(workflow.about)))
    if len(workflow_id) > _ID_LIMIT or size > _ABOUT_LIMIT:
        msg = (
            f"an id of {len(workflow_id)} characters and a description of {size} bytes are too "
            f"large: at most {_ID_LIMIT} and {_ABOUT_LIMIT}"
        )
        raise ValueError(msg)
    run = ExternalRun(workflow_id, workflow.name, leased, store)
    begin_execution(run, leased, workflow.about, workflow.inputs)
    outer = current_scope.get()
    if outer is not None and outer.state is OPEN and not outer.run.detached:
        recorder_of(outer).annotate("tapps.run", {"workflow_id": workflow_id}, outer)
    return run
