"""One try of a step, from its start event to the event that ends it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from tapps_otel import clock
from tapps_otel.errors import LogError, RefusalError, RunEndedError, StepTimeoutError
from tapps_otel.log.artifacts import Artifact, summarize
from tapps_otel.log.event import Event
from tapps_otel.run import argument_changes, failures
from tapps_otel.run.codecs.native import check_text
from tapps_otel.run.scope import CLOSING, COMPLETED, FAILED, OPEN, Scope, current_scope, leave_scope

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from tapps_otel.run.step_spec import StepSpec
    from tapps_otel.run.values import Part

__all__ = ["AttemptRecorder", "status_of"]


class AttemptRecorder(Scope, kw_only=True, eq=False):
    """Records one try of a step; it is also the scope of the steps called inside.

    What users get of it is :class:`tapps_otel.run.api.Attempt`.

    :ivar scope: where the step was called
    :ivar number: 1, 2, ...: which of the step's attempts this is
    :ivar inputs: as JSON, if they are captured
    :ivar watched: its arguments, where the step could change them
    :ivar by_hand: only its caller can end it
    :ivar kept: whether this execution may ask for the step again, so that its history is kept; not
        for a new step of the workflow itself, because a long run would grow
    :ivar result: the outcome, once there is one
    """

    step_id: str
    scope: Scope
    spec: StepSpec
    number: int
    order: int | None = None
    key: str | None = None
    digest: str | None = None
    inputs: bytes | None = None
    watched: list[Part] | None = None
    by_hand: bool = False
    result: Any = None
    start_event: Event = None  # type: ignore[assignment]  # until it starts
    kept: bool = False
    _started_ns: int = 0
    _monotonic: int = 0
    _stopped_ns: int | None = None  # monotonic too, where its code ends before its end event

    @property
    def done(self) -> bool:
        """Whether the step has its outcome: from the log, or since ``finish``."""
        return self.state is COMPLETED

    @property
    def idempotency_key(self) -> str:
        """64 hex digits, equal in every attempt and execution of this step."""
        return sha256(f"{self.run.workflow_id}\0{self.step_id}".encode()).hexdigest()

    def start(self) -> None:
        """Write the start event.

        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        run, event = self.run, None
        try:
            event = self._start_event()
            if self.inputs is not None:
                run.store_inputs(event, self.inputs)
            run.start_span(self, event, self._started_ns, self.scope)
            self.start_event = event
            seq = run.write(event, sync=self.spec.policy.on_interrupted == "fail")
        except BaseException as error:
            if event is not None and event.seq and not isinstance(error, LogError):
                run.remember(self, event, event.seq)  # Ctrl-C just after the write
                self.fail_drained(error)
            else:
                self._close(FAILED)
            raise
        if self.kept:
            run.remember(self, event, seq)
        if self.span is not None:
            self.span.record(event)

    def _start_event(self) -> Event:
        run, spec, definition = self.run, self.spec, self.spec.definition
        self._started_ns, self._monotonic = clock.now_ns()
        return Event(
            event_type="step_start",
            workflow_id=run.workflow_id,
            timestamp=clock.timestamp(self._started_ns),
            execution=run.execution,
            step_id=self.step_id,
            step=spec.name,
            agent=spec.agent,
            action=spec.action,
            attempt=self.number,
            status="running",
            order=UNSET if self.order is None else self.order,
            key=UNSET if self.key is None else self.key,
            inputs_digest=UNSET if self.digest is None else self.digest,
            definition=UNSET if definition is None else definition,
            attributes=spec.attributes,
        )

    def again(self) -> AttemptRecorder:
        """The next try of the step.

        :raises RunEndedError: the scope has ended meanwhile
        """
        run, scope = self.run, self.scope
        following = AttemptRecorder(
            run=run,
            scope=scope,
            spec=self.spec,
            step_id=self.step_id,
            number=self.number + 1,
            thread=self.thread,
            task=self.task,
            order=self.order,
            key=self.key,
            digest=self.digest,
            kept=self.kept,
            inputs=self.inputs,
            watched=self.watched,
        )
        with run.lock:
            if scope.state is not OPEN:
                scope.release(self)
                raise RunEndedError(self.spec.name, run.scope_name(scope))
            scope.enclose(following)
            scope.release(self)
        return following

    # -- ends: `begin_end`, then wait for what is open inside, then write the end event

    def begin_end(self) -> bool | None:
        """Refuse further steps inside; return whether any is open.

        ``None``: it has ended, or other code is ending it.
        """
        with self.run.lock:
            if self.state is not OPEN:
                return None
            self.state = CLOSING
            return bool(self.open)

    def settle(self) -> bool:
        """Begin the end and wait for what is open inside; if the wait fails, the step fails.

        :returns: ``False`` if it has ended already
        """
        inside = self.begin_end()
        if inside is None:
            self._warn_of_second_end()
            return False
        if inside:
            try:
                self.drain()
            except BaseException as error:
                self.fail_drained(error)
                raise
        return True

    async def settle_async(self) -> bool:
        """Begin the end and wait for what is open inside, without blocking the event loop.

        :returns: ``False`` if a scope that could not wait has ended it meanwhile
        """
        inside = self.begin_end()
        if inside is None:
            return False
        if inside:
            try:
                await self.drain_async()
            except BaseException as error:
                self.fail_drained(error)
                raise
        return True

    def finish(self, result: Any = None, artifacts: Iterable[Artifact] = ()) -> None:
        """End the step with its result, once what is open inside has ended.

        :raises StepResultError: the result cannot be stored; the step has failed then
        """
        if self.settle():
            self.finish_drained(result, artifacts)

    def finish_drained(self, result: Any, artifacts: Iterable[Artifact] = ()) -> None:
        """End the step with its result; nothing is open inside."""
        run = self.run
        event = self._end_event("step_finish", "completed")
        try:
            if self.watched is not None:
                self._check_arguments()
            self.spec.put_result(run, event, result)
            if artifacts:
                event.artifacts = self.summarize_artifacts(artifacts)
            if self.matcher is not None or self.number > 1:  # else nothing was recorded in it
                run.report_leftovers(self)
        except BaseException as error:
            self.fail_drained(error)
            raise
        self.result = result
        self._end(event, COMPLETED)

    def summarize_artifacts(self, artifacts: Iterable[Artifact]) -> list[dict[str, Any]]:
        """Summarize files that the step has made."""
        return summarize(artifacts)

    def fail(self, error: BaseException) -> None:
        """End the step by an exception, which becomes its ``error`` in the log."""
        self.fail_or_retry(error, None)

    def fail_or_retry(self, error: BaseException, failures_so_far: int | None) -> int | None:
        """End the try by an exception, once what is open inside has ended.

        :param failures_so_far: of this call, this one included; ``None``: no retry
        :returns: how long to wait before the next try, ns; ``None``: there is none
        """
        inside = self.begin_end()
        if inside is None:
            self._warn_of_second_end()
            return None
        try:
            if inside:
                self.drain()
        finally:
            wait = self.fail_drained(error, failures_so_far)
        return wait

    async def fail_async(self, error: BaseException, failures_so_far: int) -> int | None:
        """End the try as :meth:`fail_or_retry` does, without blocking the event loop."""
        settled = await self.settle_async()
        return self.fail_drained(error, failures_so_far) if settled else None

    def fail_drained(self, error: BaseException, failures_so_far: int | None = None) -> int | None:
        """End the try as :meth:`fail_or_retry` does; nothing is open inside."""
        run = self.run
        if isinstance(error, RefusalError):  # perhaps of another run, which this step called
            run.refuse(error)
        event = self._end_event("step_fail", self._status_of(error))
        if self.watched is not None:
            self._report_arguments(self.watched)
        self._put_error(event, error)
        wait = None
        if failures_so_far is not None and not run.refused:
            wait = self.spec.policy.retry_in_ns(error, failures_so_far)
        if wait is not None:
            event.retry_in_ns = wait
        left = run.caused_by(error, self.step_id)
        if left:
            event.caused_by = left
        failures.mark(error, run.workflow_id, self.step_id)
        self._end(event, FAILED, release=wait is None)
        return wait

    def _put_error(self, event: Event, error: BaseException) -> None:
        event.error = failures.describe(error)

    def skip(self, reason: str, result: Any = None) -> None:
        """End the step as skipped, once what is open inside has ended.

        :raises StepResultError: the result cannot be stored; the step has failed then
        :raises TypeError: ``reason`` is not a string
        """
        check_text(reason, "the reason of a skip")
        if self.settle():
            self.skip_drained(reason, result)

    def skip_drained(self, reason: str, result: Any) -> None:
        """End the step as skipped; nothing is open inside."""
        event = self._end_event("step_skip", "skipped")
        event.reason = reason
        try:
            if self.watched is not None:
                self._check_arguments()
            self.spec.put_skip_result(self.run, event, result)
        except BaseException as error:
            self.fail_drained(error)
            raise
        self.result = result
        self._end(event, COMPLETED)

    def _check_arguments(self) -> None:
        """Report what the step changed of what it was given.

        :raises StepInputError: there is such a change, and the setting ``strict`` is on
        """
        watched, self.watched = self.watched, None
        names = watched and argument_changes.changed(watched)
        if names:
            self.run.report_changed_arguments(self, self.spec.name, names)

    def _report_arguments(self, watched: list[Part]) -> None:
        """Report what the failing step changed. Its own failure is what counts."""
        with suppress(Exception):  # of users' classes; of the log, which the end event meets, too
            names = argument_changes.changed(watched)
            if names:
                self.run.report_changed_arguments(self, self.spec.name, names, failing=True)

    def abandon(self, error: BaseException | None = None) -> None:
        """End it for a scope that ends, where its own code cannot end it."""
        if self.state is CLOSING and self.span_id:  # otherwise it has not started
            self.fail_drained(error or RunEndedError(self.spec.name, "the code that began it"))
        self.release_self()

    def abandon_after(self, *, blocking: bool) -> None:
        """Abandon it once what is open inside has ended."""
        if self._begin_wait(blocking=blocking):
            with self.run.lock:
                if self.open:
                    self._waiter = self.abandon
                    return
        self.abandon()

    def release_self(self) -> None:
        """Let the enclosing scope end: no other try follows."""
        with self.run.lock:
            self.scope.release(self)

    def _warn_of_second_end(self) -> None:
        self.run.warn_once(f"step {self.step_id!r} was ended twice: only its first end counts")

    def _end_event(self, event_type: str, status: str) -> Event:
        run, spec = self.run, self.spec
        start = self.start_event
        duration = (self._stopped_ns or clock.monotonic_ns()) - self._monotonic
        return Event(
            event_type=event_type,
            workflow_id=run.workflow_id,
            timestamp=clock.timestamp(self._started_ns + duration),
            trace_id=start.trace_id,
            span_id=start.span_id,
            parent_span_id=start.parent_span_id,
            execution=run.execution,
            step_id=self.step_id,
            step=spec.name,
            agent=spec.agent,
            action=spec.action,
            attempt=self.number,
            status=status,
            duration_ns=duration,
        )

    def _status_of(self, error: BaseException) -> str:
        if self.run.detail_lost:  # it was stopped, and has not failed: what it did counts
            return "cancelled"
        return status_of(error)

    def _end(self, event: Event, state: str, *, release: bool = True) -> None:
        run = self.run
        if self.span is not None:
            self.span.hold(event, run.put_blob)
        try:
            seq = run.write(event)
        except BaseException as error:
            if isinstance(error, LogError):
                self._close(FAILED)
            elif event.seq:  # Ctrl-C just after the write: what the log says counts
                run.remember(self, event, event.seq, forget=release)
                self._close(state)
            else:  # Ctrl-C just before the write: the log needs an end all the same
                self.fail_drained(error)
            raise
        if self.kept:
            run.remember(self, event, seq, forget=release)
        with run.lock:
            self.state = state
            if release:
                # Only now may the enclosing scope end: its end comes after this one in the log.
                self.scope.release(self)
        if self.span is not None:  # the write may have found that the run is another's now
            self.span.end(event)

    def _close(self, state: str) -> None:
        with self.run.lock:
            self.state = state
            self.scope.release(self)

    def current(self) -> AbstractContextManager[None]:
        """A context in which this attempt is the current scope, and its span the current one."""
        return _Current(self)


class _Current:
    """Makes an attempt current; a class, because a generator would cost each step more."""

    __slots__ = ("_attempt", "_span_token", "_token")

    def __init__(self, attempt: AttemptRecorder) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        self._token = current_scope.set(self._attempt)
        span = self._attempt.span
        self._span_token = None if span is None else span.attach()

    def __exit__(self, *exc: object) -> None:
        span = self._attempt.span
        if span is not None:
            span.detach(self._span_token)
        leave_scope(self._token)


def status_of(error: BaseException) -> str:
    """The status that an exception gives to the step or run that it leaves.

    Only the step whose own ``timeout=`` ran out gets ``timeout``; what encloses it has failed.
    """
    if isinstance(error, StepTimeoutError) and not failures.left_a_step(error):
        return "timeout"
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return "interrupted"
    if isinstance(error, (RunEndedError, GeneratorExit, asyncio.CancelledError)):
        return "cancelled"
    return "failed"
