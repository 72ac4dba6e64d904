"""Runs of third-party executors: these decide what runs, and the log records it.

Such a run does not follow the rules of resume: its executor may start a step again at any time,
and the last outcome counts. Steps of this library that are called inside one are matched as in
any other scope.

Nor does it wait for anything, or cancel it. What its executor left running when a step or the run
ended is recorded when it begins and ends; after the run's end the log is opened again for each such
event, under the lease, unless another execution has begun meanwhile.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from tapps_otel import clock
from tapps_otel.errors import LeaseLostError, LogWriteError, RunBusyError, TappsError
from tapps_otel.log.event import Event
from tapps_otel.log.reports import held_back, report
from tapps_otel.names import ATTR, escape, join_step_id, log_name
from tapps_otel.redact import rules_here
from tapps_otel.run import failures
from tapps_otel.run.attempt import status_of
from tapps_otel.run.event_writer import make_writer
from tapps_otel.run.external_attempt import (
    STATUSES,
    ExternalAttemptRecorder,
    ExternalStep,
    described_end,
)
from tapps_otel.run.leased_log import LeasedLog, lease_log
from tapps_otel.run.recorder import RunRecorder
from tapps_otel.run.scope import (
    COMPLETED,
    FAILED,
    OPEN,
    Scope,
    running_task,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapps_otel.log.artifacts import Artifact
    from tapps_otel.log.lease import Lease
    from tapps_otel.log.store import Store
    from tapps_otel.log.writer import LogWriter
    from tapps_otel.otel.seam import Tracing
    from tapps_otel.past.fold import StepHistory
    from tapps_otel.run.event_writer import Write
    from tapps_otel.run.scope import OpenAttempt

__all__ = ["ID_LIMIT", "ExternalRunRecorder"]

_log = logging.getLogger("tapps_otel")
_WAITS: Final = 100  # for a lease that is held while a few lines are written
_WAIT_S: Final = 0.001
ID_LIMIT: Final = 32 * 1024  # characters, of a run's id or a step's: each event has both


class ExternalRunRecorder(RunRecorder):
    """Records a run that a third-party executor executes.

    Obtained from :func:`start_run` or :func:`resume_run`.

    :ivar log_name: names its log: the id, if that can name a file
    :ivar workflow_before: the workflow as the last execution found it; empty for a new run
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
            watchers=leased.watchers,
            rules=rules_here(leased.config),
            redact_results=leased.config.redact_results,
        )
        self.log_name = log_name(workflow_id)
        self.workflow_before = leased.history.workflow
        self._store, self._config = store, leased.config
        self._numbers = {step.step_id: step.last.number for step in leased.history.by_id.values()}
        self._ordinals: dict[str, int] = {}
        self._last_writer = leased.writer
        self._traced: weakref.WeakSet[Scope] = weakref.WeakSet()

    @property
    def done(self) -> bool:
        """Never: the log does not answer for an executor."""
        return False

    @property
    def encloses_workflows(self) -> bool:
        """Whether it has not ended: what is called in its context then need not belong to it."""
        return super().encloses_workflows and self.root.state is OPEN

    @property
    def can_wait(self) -> bool:
        """Never: its executor decides when it ends."""
        return False

    @property
    def stops(self) -> bool:
        """Whether a step must not run if it cannot be logged."""
        return self._config.on_log_failure == "stop"

    # -- steps

    def begin_step(
        self,
        step_id: str | None,
        spec: ExternalStep,
        *,
        scope: Scope | None = None,
        attributes: dict[str, Any] | None = None,
        late: bool = False,
    ) -> ExternalAttemptRecorder:
        """Write that the executor begins a step: its next attempt, however the last one ended.

        The scope may have ended, and the run too.

        :param step_id: the executor's own; unique in its scope. ``None``: a step that is new
        :param scope: what encloses it; by default, the current scope
        :param attributes: JSON scalars, or lists of them
        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        scope = scope or self.scope_here()
        place = _place(scope, spec.name if step_id is None else step_id)
        with self.lock:
            if step_id is None:
                place = self._new_place(place)
            number = self._numbers[place] = self._numbers.get(place, 0) + 1
            attempt = ExternalAttemptRecorder(
                run=self,
                scope=scope,
                spec=spec,
                step_id=place,
                number=number,
                thread=threading.get_ident(),
                task=running_task(),
                late=late,
                begun_with=attributes,
            )
        attempt.start()
        return attempt

    def _new_place(self, first: str) -> str:
        """The next place of a name that no step has had, from its first on."""
        ordinal = self._ordinals.get(first, 0) + 1
        while (place := first if ordinal == 1 else f"{first}#{ordinal}") in self._numbers:
            ordinal += 1
        self._ordinals[first] = ordinal
        return place

    def mark_step(
        self,
        step_id: str,
        spec: ExternalStep,
        artifacts: Iterable[Artifact] = (),
        *,
        result: object = None,
        attributes: dict[str, Any] | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Write that a step was done, as its executor was told afterwards.

        :param result: what to keep of its result, JSON-native
        :param attributes: of its end
        :param error: why it failed
        """
        attempt = self.begin_step(step_id, spec, late=True)
        attempt.attributes = attributes
        if error is None:
            attempt.finish(result, artifacts)
        else:
            attempt.fail(error)

    def skip_step(self, step_id: str, spec: ExternalStep, reason: str) -> None:
        """Write that the executor skips a step, which has failed or was never begun."""
        scope = self.scope_here()
        place = _place(scope, step_id)
        event = Event(
            event_type="step_skip",
            workflow_id=self.workflow_id,
            **self.clock.times(),
            trace_id=self.trace_id,
            span_id=scope.span_id,
            execution=self.execution,
            step_id=place,
            step=spec.name,
            agent=spec.agent,
            action=spec.action,
            attempt=self._numbers.get(place, 0),
            reason=failures.cut(self.rules.text(reason)),
            status="skipped",
        )
        self.write(event)
        if scope.span is not None:
            scope.span.record(event)

    def _is_plain_in(self, scope: Scope, name: str) -> bool:  # noqa: ARG002 - as the base class
        """Never: a step of the user's code counts, whatever has ended around it."""
        return False

    @property
    def takes_events(self) -> bool:
        """Always: what an executor began may outlive its run."""
        return True

    def is_asked_for(self, record: StepHistory) -> bool:
        """Only steps of this library are, and these have a key or a digest of their inputs."""
        return record.key is not None or record.inputs_digest is not None

    def start_span(self, tracing: Tracing, attempt: Any, event: Event) -> None:
        """Start the span of an attempt, and remember which attempts have one."""
        super().start_span(tracing, attempt, event)
        self._traced.add(attempt)

    def await_digests(self, digests: Iterable[OpenAttempt]) -> None:
        """Wait for none: a digest is written whenever it is known, also after the run's end."""

    # -- the end

    def end(
        self,
        status: str,
        error: BaseException | str | None = None,
        *,
        question: str | None = None,
    ) -> None:
        """End the run with the status that its executor gives it.

        :param status: the executor's own word; an unknown one counts as ``failed``
        :param error: the reason that it gives
        :param question: what a paused run asks
        """
        if self.root.state is OPEN:
            self.ending.begin()
            self._write_end(status, error, question)

    def end_by(self, error: BaseException) -> None:
        """End the run by an exception that leaves the executor."""
        self.end(self._status_by(error), error)

    def _status_by(self, error: BaseException) -> str:
        return "interrupted" if self.terminated else status_of(error)

    def _write_end(
        self, word: str, error: BaseException | str | None, question: str | None
    ) -> None:
        status = word if word in STATUSES else "failed"
        event = self.ending.event(status)
        if status != word:
            event.attributes = {ATTR.EXECUTOR_STATUS: word}
        if question is not None and status == "paused":
            event.question = failures.cut(self.rules.text(question))
        event.error = (
            described_end("WorkflowFailed", word, error, self.rules, hides_values=self.hides_values)
            or UNSET
        )
        try:
            self.ending.decide(event, COMPLETED if status == "completed" else FAILED)
        except LogWriteError as failure:
            _log.error("%s", failure)
        finally:
            self.close()

    # -- a run that another process takes while it is executed here

    def _attach_log(self, lease: Lease | None, writer: LogWriter | None) -> None:
        super()._attach_log(lease, writer)
        if writer is not None:
            self.write = self._until_taken(self.write)

    def _until_taken(self, write: Write) -> Write:
        """Write until another process takes the run; then the executor continues without a log.

        Unless it is to stop when it has no log.
        """

        def append(event: Event, /, *, sync: bool = False) -> int | None:
            try:
                return write(event, sync=sync)
            except LeaseLostError:  # it is in the standard log
                if self.stops:
                    raise
                self._hand_over()
                return None

        return append

    # -- events that are written one by one, with the lease held only during each

    def close(self) -> None:
        """Close the log and release the lease; later events are written one by one."""
        super().close()
        self._attach_log(None, None)
        if not self.detached:
            self.write = self._write_alone

    def reacquire_log(self) -> bool:
        """Continue after :meth:`close`, as the same execution.

        :returns: ``False`` if another process has continued the run meanwhile
        :raises RunBusyError: another process executes it
        :raises LogError: its log was changed, or cannot be opened
        """
        leased = self._lease_again()
        if leased is not None:
            self._attach_log(*leased)
        return leased is not None

    def write_soon(self, event: Event, scope: Scope) -> None:
        """Write nothing yet: its log may be closed between two events."""

    def _lease_again(self) -> tuple[Lease, LogWriter] | None:
        """Take the lease again and open the log; ``None`` if another execution has begun.

        :raises RunBusyError: the lease is held
        :raises LogError: the log was changed, or cannot be opened
        """
        writer = self._last_writer
        try:
            lease = self._store.lease(self.log_name)
            try:
                if writer.reopen(lease):
                    return lease, writer
            except BaseException:
                lease.release()
                raise
        except OSError as error:
            raise LogWriteError(writer.path, str(error)) from error
        lease.release()  # another process has written to it: it must be read
        with lease_log(self._store, self.log_name, self.name, self._config) as leased:
            if leased.execution != self.execution + 1:
                leased.release()
                return None
        self._last_writer = leased.writer
        return leased.lease, leased.writer

    def _write_alone(self, event: Event, /, *, sync: bool = False) -> int | None:
        """Write an event under a lease of its own.

        :returns: ``None``, with an error in the standard log: it could not be written
        :raises LogWriteError: it could not be written, and ``on_log_failure`` is ``stop``
        """
        if self.root.state is not OPEN:
            event.late = True  # not a sign that the run is in progress again
        with held_back(), self.lock:
            if self.detached:
                return None
            try:
                leased = self._lease_when_free()
            except TappsError as error:
                if self.stops:
                    raise LogWriteError(self._last_writer.path, str(error)) from error
                self.warn_once(f"events of run {self.workflow_id!r} are not logged: {error}")
                return None
            if leased is None:
                self._hand_over()
                return None
            lease, writer = leased
            try:
                return make_writer(writer, self._watchers)(event, sync=sync)
            finally:
                writer.close()
                lease.release()

    def _lease_when_free(self) -> tuple[Lease, LogWriter] | None:
        """Take the lease as :meth:`_lease_again` does; wait for one who holds it for a moment."""
        for _ in range(_WAITS):
            try:
                return self._lease_again()
            except RunBusyError:
                if self._store.summary(self.log_name).execution > self.execution:
                    return None
                if self._store.home is not None:  # it has waited already
                    raise
                clock.sleep(_WAIT_S)
        return self._lease_again()

    def _hand_over(self) -> None:
        """Give the run up: another execution has begun, and has recorded what was in progress.

        Spans of that are not ended here: they have been sent as the log has them.
        """
        report(
            _log.warning,
            "run %r was resumed while steps of its execution %d were in progress: what these do "
            "from now on is not logged",
            self.workflow_id,
            self.execution,
        )
        self.detach()
        self.off = True  # the reason was given
        for scope in list(self._traced):
            scope.span = None


def _place(scope: Scope, step_id: str) -> str:
    """The place of a step in this scope.

    :raises ValueError: its id is too long for an event
    """
    if len(step_id) > ID_LIMIT:
        msg = f"step {step_id[:40]!r}...: an id of {len(step_id)} characters is too long"
        raise ValueError(msg)
    return join_step_id(scope.step_id, escape(step_id), 1)
