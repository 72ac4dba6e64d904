"""One try of a step, from its start event to the event that ends it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from tapps_otel import clock
from tapps_otel.errors import LogError, RefusalError, RunEndedError, StepTimeoutError
from tapps_otel.log.artifacts import Artifact, summarize
from tapps_otel.log.event import Event
from tapps_otel.names import new_span_id
from tapps_otel.redact import combined
from tapps_otel.run import argument_changes, failures
from tapps_otel.run.awaited_write import postpone_cancellation
from tapps_otel.run.codecs.native import check_text
from tapps_otel.run.made_files import MadeFiles
from tapps_otel.run.scope import CLOSING, COMPLETED, FAILED, OPEN, Scope, current_scope, leave_scope
from tapps_otel.run.signals import SIGTERM_CODE
from tapps_otel.run.step_spec import Paused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tapps_otel.redact import Rules
    from tapps_otel.run.awaited_write import AwaitedWrite
    from tapps_otel.run.step_spec import StepSpec
    from tapps_otel.run.values import Part

__all__ = ["AttemptRecorder", "interruption", "status_of"]


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
    :ivar failed_before: tries that had failed when the call paused, which this attempt continues
    :ivar result: the outcome, once there is one
    :ivar end_event: how it ends, once that is decided
    :ivar is_lost: its code may have succeeded, but its outcome is unknown
    :ivar files: what it has made, as far as its code has told
    :ivar awaits_end: its code calls :meth:`ended`, so that its end may be synced meanwhile

    Ctrl-C may come between any two instructions, so each move is made by one of them. What follows
    from a move (the line in the log, the span, the release of what encloses it) can be repeated
    until it is done: by the code that moved, else by the end of what encloses it.
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
    start_event: Any = None  # an Event, from its start on
    kept: bool = False
    failed_before: int = 0
    end_event: Event | None = None
    is_lost: bool = False
    files: MadeFiles | None = None
    awaits_end: bool = False
    _end_write: AwaitedWrite | None = None
    _began: int = 0  # monotonic, ns
    _stopped: int | None = None  # where its code ends before its end event
    _is_last: bool = True  # no other try follows

    @property
    def done(self) -> bool:
        """Whether the step has its outcome: from the log, or since ``finish``."""
        return self.state is COMPLETED

    @property
    def rules(self) -> Rules:
        """What is redacted in its events and on its span."""
        return combined(self.run.rules, self.spec.policy.redact)

    @property
    def started_ns(self) -> int:
        """When it started by the run's clock, ns since 1970 UTC."""
        return self._began + self.run.clock.ahead

    @property
    def idempotency_key(self) -> str:
        """64 hex digits, equal in every attempt and execution of this step."""
        return sha256(f"{self.run.workflow_id}\0{self.step_id}".encode()).hexdigest()

    def start(self) -> None:
        """Write the start event; if that fails or is interrupted, end what has started.

        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        run = self.run
        try:
            event = self._start_event()
            if self.inputs is not None:
                run.store_inputs(event, self.rules.json(self.inputs))
            if run.tracing is None:
                self.span_id = event.span_id = new_span_id()
            else:
                run.start_span(run.tracing, self, event)
            self.start_event = event
            write = run.write
            seq = write(event, sync=self.spec.syncs_start)
            if self.kept:
                run.remember(self, event, seq)
            if self.span is not None:
                self.span.record(event)
        except BaseException as error:
            if self.kept and self.start_event is not None and self.start_event.seq:
                run.remember(self, self.start_event, self.start_event.seq)
            self._despite_log(self.abandon, error)
            raise

    def _start_event(self) -> Event:
        run, spec = self.run, self.spec
        run_clock, definition = run.clock, spec.definition
        self._began = began = clock.monotonic_ns()
        event = Event(  # more than 15 keywords would be passed as a dict, which takes long
            event_type="step_start",
            workflow_id=run.workflow_id,
            timestamp=clock.timestamp(began + run_clock.ahead),
            trace_id=run.trace_id,
            parent_span_id=self.scope.span_id,
            execution=run.execution,
            step_id=self.step_id,
            step=spec.name,
            agent=spec.agent,
            action=spec.action,
            attempt=self.number,
            status="running",
            order=UNSET if self.order is None else self.order,
            inputs_digest=UNSET if self.digest is None else self.digest,
            definition=UNSET if definition is None else definition,
        )
        if self.key is not None:
            event.key = self.key
        if spec.attributes is not None:
            event.attributes = spec.attributes
        if began >= run_clock.agrees_until:
            self._put_wall_time(event, began)
        return event

    def _put_wall_time(self, event: Event, monotonic: int) -> None:
        """Note what the wall clock shows, where it was set since the execution began."""
        wall_time = self.run.clock.wall_time(monotonic)
        if wall_time is not None:
            event.wall_time = wall_time

    def again(self) -> AttemptRecorder:
        """The next try of the step.

        :raises RunEndedError: the scope has ended meanwhile
        """
        run, scope = self.run, self.scope
        following = type(self)(
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
        with self.run.lock:  # as in `begin_end`, without its call: every step comes here
            has_ended = self.state is not OPEN
            if not has_ended:
                self.state = CLOSING
        if has_ended:
            self._warn_of_second_end()
            return False
        if self.open:
            try:
                self.drain()
            except BaseException as error:
                self.fail_drained(error)
                raise
        return True

    async def settle_async(self, error: BaseException | None = None) -> bool:
        """Begin the end and wait for what is open inside, without blocking the event loop.

        :param error: by which it ends
        :returns: ``False`` if a scope that could not wait has ended it meanwhile
        """
        inside = self.begin_end()
        if inside is None:
            return False
        if inside:
            try:
                await self.drain_async(error and interruption(error))
            except BaseException as again:
                self.fail_drained(again)
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
                run.check_not_paused(self)
                run.report_leftovers(self)
        except BaseException as error:
            self.is_lost = isinstance(error, (MemoryError, RecursionError))
            self.fail_drained(error)
            raise
        self.result = result
        self._end(event, COMPLETED)

    def summarize_artifacts(self, artifacts: Iterable[Artifact]) -> list[dict[str, Any]]:
        """Summarize files that the step has made."""
        return summarize(artifacts)

    def add_artifact(self, path: Path, media_type: str | None) -> None:
        """Note a file that the step has made; what cannot be read causes a warning."""
        if self.state is not OPEN:
            self.run.warn_once(
                f"artifact {str(path)!r} came after the end of {self.run.scope_name(self)}: it is "
                "not logged"
            )
            return
        with self.run.lock:
            if self.files is None:
                self.files = MadeFiles()
        problem = self.files.add(path, media_type).get("error")
        if problem is not None:
            self.run.warn_once(
                f"artifact {str(path)!r} of {self.run.scope_name(self)} cannot be read, and has no "
                f"digest in the log: {problem}"
            )

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
                self.drain(interruption(error))
        finally:
            wait = self.fail_drained(error, failures_so_far)
        return wait

    async def fail_async(self, error: BaseException, failures_so_far: int) -> int | None:
        """End the try as :meth:`fail_or_retry` does, without blocking the event loop."""
        if not await self.settle_async(error):
            return None
        self.awaits_end = not isinstance(error, GeneratorExit)  # which allows no more `await`
        wait = self.fail_drained(error, failures_so_far)
        await self.ended()
        return wait

    def fail_drained(self, error: BaseException, failures_so_far: int | None = None) -> int | None:
        """End the try as :meth:`fail_or_retry` does; nothing is open inside."""
        run = self.run
        if isinstance(error, RefusalError):  # perhaps of another run, which this step called
            run.refuse(error)
        elif isinstance(error, Paused) and not run.is_paused_in(self):
            # Of a run that this step called: what the run around it waits for, too.
            run.pause_with(self, error.questions)
        if self.open:  # the wait for it was interrupted
            self.give_up(error)
        left = run.caused_by(error, self.step_id)
        status = self._status_of(error)
        if isinstance(error, RefusalError) and not left and status == "failed":
            status = "cancelled"  # a step beside it was refused: what finished in it counts
        event = self._end_event("step_fail", status)
        if self.watched is not None:
            self._report_arguments(self.watched)
        self._put_error(event, error)
        wait = None
        if failures_so_far is not None and not run.refused and event.status != "paused":
            wait = self.spec.policy.retry_in_ns(error, failures_so_far)
        if wait is not None:
            event.retry_in_ns = wait
        if left:
            event.caused_by = left
        failures.mark(error, run.workflow_id, self.step_id)
        self._end(event, FAILED, wait is None)
        return wait

    def _put_error(self, event: Event, error: BaseException) -> None:
        if event.status != "paused":
            hides_values = self.run.hides_values
            event.error = failures.describe(error, self.rules, hides_values=hides_values)

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
        event.reason = self.rules.text(reason)
        try:
            if self.watched is not None:
                self._check_arguments()
            self.spec.put_skip_result(self.run, event, result)
            self.run.check_not_paused(self)
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
        """End it in place of its code, which cannot: as was decided, otherwise as failed."""
        if not self.scope.open or self not in self.scope.open:
            return  # nothing is left to do
        self.awaits_end = False
        self.begin_end()
        if self.end_event is not None:
            self._write_end(self.end_event)
        elif self.has_started:
            self.fail_drained(error or self._left_open())
        self.release_self()

    def lose(self, error: BaseException) -> None:
        """End it if an exception of none of its own code left its call, at any instruction."""
        self.is_lost = True
        self._despite_log(self.abandon, error)

    def _despite_log(self, write: Callable[[Any], object], given: Any) -> None:
        """Write something where an exception is raised, which a log that fails must not hide."""
        try:
            write(given)
        except LogError:
            self._end_without_log()

    @property
    def has_started(self) -> bool:
        """Whether its start is in the log, or waits to be written."""
        return self.start_event is not None and self.run.has(self.start_event)

    def _left_open(self) -> BaseException:
        task = self.task
        if self.by_hand or (task is not None and not task.done()):
            return RunEndedError(self.spec.name, "the code that began it")
        return _CodeInterruptedError("an interrupt ended its code")

    def abandon_after(self, error: BaseException | None, *, blocking: bool) -> None:
        """Abandon it once what is open inside has ended."""
        if self._begin_wait(error, blocking=blocking):
            self._waiter = partial(self.abandon, error)
            if self.open:
                return
        self.abandon(error)

    def release_self(self) -> None:
        """Let the enclosing scope end: no other try follows."""
        self.scope.release(self)

    def _warn_of_second_end(self) -> None:
        self.run.warn_once(f"step {self.step_id!r} was ended twice: only its first end counts")

    def _end_event(self, event_type: str, status: str) -> Event:
        run, spec, start = self.run, self.spec, self.start_event
        run_clock = run.clock
        stopped = self._stopped or clock.monotonic_ns()
        event = Event(
            event_type=event_type,
            workflow_id=run.workflow_id,
            timestamp=clock.timestamp(stopped + run_clock.ahead),
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
            duration_ns=stopped - self._began,
        )
        if stopped >= run_clock.agrees_until:
            self._put_wall_time(event, stopped)
        return event

    def _status_of(self, error: BaseException) -> str:
        if self.run.detail_lost:  # it was stopped, and has not failed: what it did counts
            return "cancelled"
        status = status_of(error)
        if status in {"failed", "cancelled", "timeout"} and self.run.is_paused_in(self):
            return "paused"  # a group of exceptions left it, or its task was cancelled to end it
        return "interrupted" if self.is_lost and status == "failed" else status

    def _end(self, event: Event, state: str, release: bool = True) -> None:  # noqa: FBT001, FBT002 - positional for speed
        """Decide how it ends, and write that. Only the first decision counts."""
        if self.files is not None:  # most steps have none, and are not to pay for a call
            self._end_with(self.files, event, state, release=release)
            return
        if self.span is not None:
            self.span.hold(event, self.rules, self.run.put_blob)
        try:
            with self.run.lock:
                if self.end_event is not None:  # a scope that could not wait was faster
                    return
                self.end_event, self.state = event, state
            if not release:
                self._is_last = False
            self._write_end(event)
        except LogError:
            self._end_without_log()
            raise
        except BaseException:  # Ctrl-C, perhaps while a store is waited for
            if self.end_event is event:
                self._despite_log(self._write_end, event)
            raise

    def _end_without_log(self) -> None:
        self.state = FAILED
        self.release_self()

    async def finish_async(self, result: Any) -> None:
        """End the step with its result as :meth:`finish` does, without blocking the event loop."""
        if await self.settle_async():
            self.awaits_end = True
            self.finish_drained(result)
            await self.ended()

    async def skip_async(self, reason: str, result: Any) -> None:
        """End the step as skipped as :meth:`skip` does, without blocking the event loop."""
        if await self.settle_async():
            self.awaits_end = True
            self.skip_drained(reason, result)
            await self.ended()

    async def ended(self) -> None:
        """Wait until its end is as safe as promised, while other tasks run.

        It has ended as the log has it: a cancellation meanwhile comes with the task's next await.

        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        pending = self._end_write
        if pending is None or pending.synced is None:
            return
        try:
            try:
                await pending.synced
            except asyncio.CancelledError as error:
                postpone_cancellation(error)
            finally:  # also if it was cancelled, or is not to be awaited any longer
                if self._end_write is pending:
                    self._write_end(pending.event)
        except LogError:
            self._end_without_log()
            raise

    def _end_with(self, files: MadeFiles, event: Event, state: str, *, release: bool) -> None:
        """End it with the files that it has made; the digests that are missing follow."""
        self.files = None
        files.put(event)
        with files.hashed_after(self.run, self.run.root, self.step_id, self.number):
            self._end(event, state, release)

    def _write_end(self, event: Event) -> None:
        """Do what follows from the decision. Idempotent."""
        run = self.run
        if self.awaits_end:
            self.awaits_end = False
            self._end_write = run.write_soon(event, self.scope)
            if self._end_write is not None:
                return
        pending = self._end_write
        if pending is None:
            write = run.write
            seq = write(event)
        else:
            self._end_write, seq = None, pending.finish()
        if self.kept:
            run.remember(self, event, seq, forget=self._is_last)
        if self.span is not None:  # the write may have found that the run is another's now
            self.span.end(event)
        if self._is_last:
            # Only now may the enclosing scope end: its end comes after this one in the log.
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
        span, before = self._attempt.span, current_scope.get()
        try:
            self._token = current_scope.set(self._attempt)
            self._span_token = None if span is None else span.attach()
        except BaseException:
            current_scope.set(before)
            raise

    def __exit__(self, *exc: object) -> None:
        span = self._attempt.span
        try:
            if span is not None:
                span.detach(self._span_token)
        finally:
            leave_scope(self._token)


class _CodeInterruptedError(BaseException):
    """Stands for an exception that nothing caught on its way through this package."""


def interruption(error: BaseException) -> BaseException | None:
    """The exception, if what it left was interrupted: how far it came is not known."""
    return error if status_of(error) == "interrupted" else None


def status_of(error: BaseException) -> str:
    """The status that an exception gives to the step or run that it leaves.

    Only the step whose own ``timeout=`` ran out gets ``timeout``; what encloses it has failed.
    """
    if isinstance(error, StepTimeoutError) and not failures.left_a_step(error):
        return "timeout"
    if isinstance(error, (KeyboardInterrupt, SystemExit, _CodeInterruptedError)):
        return "interrupted"
    if isinstance(error, Paused):
        return "paused"
    if isinstance(error, (RunEndedError, GeneratorExit, asyncio.CancelledError)):
        return "cancelled"
    return "failed"


def is_from_outside(error: BaseException) -> bool:
    """Whether an exception comes from outside the code that it stops: Ctrl-C, SIGTERM, a pause.

    A :class:`SystemExit` is raised by that code, unless SIGTERM has.
    """
    if isinstance(error, SystemExit):
        return error.code == SIGTERM_CODE
    return status_of(error) in {"interrupted", "cancelled", "paused"}
