"""One try of a step, from its start event to the event that ends it."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

from msgspec import UNSET

from tapps_otel import clock
from tapps_otel.errors import LogError, RunEndedError, StepTimeoutError
from tapps_otel.log.artifacts import Artifact, summarize
from tapps_otel.log.event import Event
from tapps_otel.run import failures
from tapps_otel.run.scope import CLOSING, COMPLETED, FAILED, OPEN, Scope, current_scope, leave_scope
from tapps_otel.run.step_spec import Call, Skipped
from tapps_otel.run.values import check_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

__all__ = ["Attempt", "status_of"]


class Attempt(Scope, kw_only=True, eq=False):
    """One try of a step; the scope of what it calls.

    :ivar scope: where it was called
    :ivar number: 1, 2, ...: of the step's attempts
    :ivar inputs: as JSON, if they are captured
    :ivar by_hand: nothing but its caller can end it
    :ivar result: the outcome, once there is one
    """

    step_id: str
    scope: Scope
    call: Call
    number: int
    order: int | None = None
    key: str | None = None
    digest: str | None = None
    inputs: bytes | None = None
    by_hand: bool = False
    result: Any = None
    start_event: Event = None  # type: ignore[assignment]  # until it starts
    _entered: _Current | None = None
    _started_ns: int = 0
    _monotonic: int = 0
    _stopped_ns: int | None = None  # on the same clock, where its code ends before its event

    @property
    def done(self) -> bool:
        """Whether the step has its outcome: from the log, or since ``finish``."""
        return self.state is COMPLETED

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt and execution of this step: 64 hex.

        For services that take such a key, so that a step that ran again is not charged twice.
        """
        return sha256(f"{self.run.workflow_id}\0{self.step_id}".encode()).hexdigest()

    def start(self) -> None:
        """Write that the try begins.

        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        run, event = self.run, None
        try:
            event = self._start_event()
            if self.inputs is not None:
                run.store_inputs(event, self.inputs)
            run.start_span(self, event, self._started_ns, self.scope)
            self.start_event = event
            seq = run.write(event, sync=self.call.policy.on_interrupted == "fail")
        except BaseException as error:
            if event is not None and event.seq and not isinstance(error, LogError):
                self._remember(event, event.seq)  # Ctrl-C at that very moment: it is in the log
                self.fail_drained(error)
            else:
                self._close(FAILED)
            raise
        self._remember(event, seq)
        if self.span is not None:
            self.span.record(event)

    def _start_event(self) -> Event:
        run, call, definition = self.run, self.call, self.call.definition
        self._started_ns = started = clock.time_ns()
        self._monotonic = clock.monotonic_ns()
        return Event(
            event_type="step_start",
            workflow_id=run.workflow_id,
            timestamp=clock.timestamp(started),
            execution=run.execution,
            step_id=self.step_id,
            step=call.name,
            agent=call.agent,
            action=call.action,
            attempt=self.number,
            status="running",
            order=UNSET if self.order is None else self.order,
            key=UNSET if self.key is None else self.key,
            inputs_digest=UNSET if self.digest is None else self.digest,
            definition=UNSET if definition is None else definition,
        )

    def again(self) -> Attempt:
        """The next try of the same step.

        :raises RunEndedError: the scope has ended meanwhile
        """
        run, scope = self.run, self.scope
        following = Attempt(
            run=run,
            scope=scope,
            call=self.call,
            step_id=self.step_id,
            number=self.number + 1,
            thread=self.thread,
            task=self.task,
            order=self.order,
            key=self.key,
            digest=self.digest,
            inputs=self.inputs,
        )
        with run.lock:
            if scope.state is not OPEN:
                scope.release(self)
                raise RunEndedError(self.call.name, run.scope_name(scope))
            scope.enclose(following)
            scope.release(self)
        return following

    # -- ends: what is open inside first

    def begin_end(self) -> bool | None:
        """From here on, code that is left over cannot begin steps inside; whether any is open.

        ``None``: it is over already, or somebody else is at its end.
        """
        with self.run.lock:
            if self.state is not OPEN:
                return None
            self.state = CLOSING
            return bool(self.open)

    def finish(self, result: Any = None, artifacts: Iterable[Artifact] = ()) -> None:
        """End the step with its result.

        :param artifacts: files that it made, by their paths (they are hashed now), or summaries:
            ``{"name", "path", "sha256", "bytes", "media_type"}``
        :raises StepResultError: the result cannot be stored; the step has failed then
        """
        if self.settle():
            self.finish_drained(result, artifacts)

    def finish_drained(self, result: Any, artifacts: Iterable[Artifact] = ()) -> None:
        """The same, when nothing is open inside any more."""
        run = self.run
        event = self._end_event("step_finish", "completed")
        try:
            self.call.put_result(run, event, result)
            if artifacts:
                event.artifacts = summarize(artifacts)
            if self.matcher is not None or self.step_id in run.memory.children:
                run.remark(self)
        except BaseException as error:
            self.fail_drained(error)
            raise
        self.result = result
        self._end(event, COMPLETED)

    def fail(self, error: BaseException) -> None:
        """End the step by an exception, which is recorded as what it is."""
        self.fail_or_retry(error, None)

    def fail_or_retry(self, error: BaseException, failures_so_far: int | None) -> int | None:
        """End the try by an exception.

        :param failures_so_far: of this call, this one included; ``None``: no other try
        :returns: how long to wait before the next try, ns; ``None``: there is none
        """
        inside = self.begin_end()
        if inside is None:
            self._say_it_is_over()
            return None
        try:
            if inside:
                self.drain()
        finally:
            wait = self.fail_drained(error, failures_so_far)
        return wait

    async def fail_async(self, error: BaseException, failures_so_far: int) -> int | None:
        """The same without blocking the event loop."""
        return self.fail_drained(error, failures_so_far) if await self.drained() else None

    def fail_drained(self, error: BaseException, failures_so_far: int | None = None) -> int | None:
        """The same, when nothing is open inside any more."""
        run = self.run
        event = self._end_event("step_fail", self._status_of(error))
        event.error = failures.describe(error)
        wait = None
        if failures_so_far is not None and not run.refused:
            wait = self.call.policy.retry_in_ns(error, failures_so_far)
        if wait is not None:
            event.retry_in_ns = wait
        left = failures.caused_by(error, run.workflow_id, self.step_id)
        if left:
            event.caused_by = left
        failures.mark(error, run.workflow_id, self.step_id)
        self._end(event, FAILED, release=wait is None)
        return wait

    def skip(self, reason: str, result: Any = None) -> None:
        """End the step as skipped; on resume it stays so, with this result.

        :raises StepResultError: the result cannot be stored; the step has failed then
        :raises TypeError: ``reason`` is no string
        """
        check_text(reason, "the reason of a skip")
        if self.settle():
            self.skip_drained(reason, result)

    def skip_drained(self, reason: str, result: Any) -> None:
        """The same, when nothing is open inside any more."""
        event = self._end_event("step_skip", "skipped")
        event.reason = reason
        try:
            self.call.put_skip_result(self.run, event, result)
        except BaseException as error:
            self.fail_drained(error)
            raise
        self.result = result
        self._end(event, COMPLETED)

    def abandon(self, error: BaseException | None = None) -> None:
        """End it for a scope that ends while nobody is left who could end it."""
        if self.state is CLOSING and self.span_id:  # else it has not begun
            self.fail_drained(error or RunEndedError(self.call.name, "the code that began it"))
        self.release_self()

    def abandon_after(self, *, blocking: bool) -> None:
        """The same, once what is open inside has ended."""
        if self._begin_wait(blocking=blocking):
            with self.run.lock:
                if self.open:
                    self._waiter = self.abandon
                    return
        self.abandon()

    async def drained(self) -> bool:
        """Wait, without blocking the event loop, until nothing is open inside.

        :returns: ``False`` if the end was written meanwhile, by a scope that could not wait
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

    def release_self(self) -> None:
        """Let the enclosing scope end: no other try follows."""
        with self.run.lock:
            self.scope.release(self)

    def settle(self) -> bool:
        """Wait for what is open inside; where that fails, the step does.

        :returns: ``False`` if it is over already
        """
        with self.run.lock:  # as begin_end: every step comes here
            over = self.state is not OPEN
            if not over:
                self.state = CLOSING
        if over:
            self._say_it_is_over()
            return False
        if self.open:
            try:
                self.drain()
            except BaseException as error:
                self.fail_drained(error)
                raise
        return True

    def _say_it_is_over(self) -> None:
        """An end after the end changes nothing."""
        self.run.warn_once(f"step {self.step_id!r} was ended twice: its first end holds")

    def _end_event(self, event_type: str, status: str) -> Event:
        run, call = self.run, self.call
        duration = (self._stopped_ns or clock.monotonic_ns()) - self._monotonic
        return Event(
            event_type=event_type,
            workflow_id=run.workflow_id,
            timestamp=clock.timestamp(self._started_ns + duration),
            trace_id=self.start_event.trace_id,
            span_id=self.start_event.span_id,
            parent_span_id=self.start_event.parent_span_id,
            execution=run.execution,
            step_id=self.step_id,
            step=call.name,
            agent=call.agent,
            action=call.action,
            attempt=self.number,
            status=status,
            duration_ns=duration,
        )

    def _status_of(self, error: BaseException) -> str:
        return status_of(error, self.run.workflow_id)

    def _end(self, event: Event, state: str, *, release: bool = True) -> None:
        run, span = self.run, self.span
        if span is not None:
            span.hold(event, run.put_blob)
        try:
            seq = run.write(event)
        except BaseException as error:
            if isinstance(error, LogError):
                self._close(FAILED)
            elif event.seq:  # Ctrl-C just after: what the log says holds
                self._remember(event, event.seq, forget=release)
                self._close(state)
            else:  # Ctrl-C just before: it has to end in the log all the same
                self.fail_drained(error)
            raise
        self._remember(event, seq, forget=release)
        with run.lock:
            self.state = state
            if release:
                # Only now may the enclosing scope end: its end stands behind this one in the log.
                self.scope.release(self)
        if span is not None:
            span.end(event)

    def _remember(self, event: Event, seq: int | None, *, forget: bool = False) -> None:
        """Keep the history of this step, where it is kept: see :meth:`Memory.follow`."""
        run = self.run
        if self.scope.step_id is not None or self.step_id in run.memory.by_id:
            with run.lock:
                run.memory.follow(self, event, seq, forget=forget)

    def _close(self, state: str) -> None:
        with self.run.lock:
            self.state = state
            self.scope.release(self)

    def current(self) -> _Current:
        """A context in which this attempt is the current scope, and its span the current one."""
        return _Current(self)

    def __enter__(self) -> Self:
        self._entered = self.current()
        self._entered.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if self._entered is not None:
            self._entered.__exit__()
        if self.state is not OPEN:
            return False
        if isinstance(error, Skipped):
            self.skip(error.reason, error.result)
            return True
        if error is None:
            self.finish()
        else:
            self.fail(error)
        return False


class _Current:
    """Sets and resets what is current; a class, for a generator would cost each step more."""

    __slots__ = ("_attempt", "_span_token", "_token")

    def __init__(self, attempt: Attempt) -> None:
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


def status_of(error: BaseException, workflow_id: str) -> str:
    """The status that an exception gives what it leaves.

    ``timeout`` is a step's own: what encloses the step fails.
    """
    if isinstance(error, StepTimeoutError) and not failures.left_a_step(error, workflow_id):
        return "timeout"
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return "interrupted"
    if isinstance(error, (RunEndedError, GeneratorExit, asyncio.CancelledError)):
        return "cancelled"
    return "failed"
