"""A run being carried out: every event is written first, then told to its span.

:class:`Run` holds the lease, the log and what the log said before; :class:`Attempt` is one try of
a step. How a run is opened, and what it finds there, is :mod:`tapps_otel.run.opening`'s.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, Union

from msgspec import UNSET, Raw

from tapps_otel import clock
from tapps_otel.errors import (
    DivergenceError,
    InterruptedTooOftenError,
    LogError,
    LogWriteError,
    RefusalError,
    RunEndedError,
    StepInterruptedError,
    StepResultError,
    StepTimeoutError,
)
from tapps_otel.history.plan import Plan
from tapps_otel.log.artifacts import summarize
from tapps_otel.log.blobs import INLINE_LIMIT
from tapps_otel.log.event import Event
from tapps_otel.names import escape, join_step_id, new_span_id
from tapps_otel.run import failures
from tapps_otel.run.matching import Matcher
from tapps_otel.run.policy import Policy
from tapps_otel.run.scope import (
    CLOSING,
    COMPLETED,
    FAILED,
    OPEN,
    Scope,
    current_scope,
    running_task,
)
from tapps_otel.run.signals import SigtermHandler
from tapps_otel.run.values import definition_of, from_json, to_json
from tapps_otel.run.values import digest as digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from tapps_otel.history.fold import Fold, StepHistory
    from tapps_otel.log.blobs import Blobs
    from tapps_otel.log.lease import Lease
    from tapps_otel.log.writer import LogWriter
    from tapps_otel.otel.spans import SpanRef, Tracing
    from tapps_otel.run.values import Signature

Artifact = Union["Path", str, "Mapping[str, Any]"]

__all__ = ["Attempt", "Call", "Run", "Skipped", "Stored", "status_of"]

_log = logging.getLogger("tapps_otel")
_SHOWN: Final = 100  # step ids in a remark


class Skipped(BaseException):
    """Raised by ``skip()``; no ``except Exception`` of the user's catches it."""

    def __init__(self, reason: str, result: object) -> None:
        self.reason, self.result = reason, result
        super().__init__(reason)


class Call:
    """What is fixed about the calls of one step: made once, used by every call."""

    __slots__ = ("_definition", "_fn", "action", "agent", "escaped", "name", "policy", "signature")

    def __init__(
        self,
        name: str,
        *,
        agent: str | None = None,
        action: str | None = None,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        signature: Signature | None = None,
        fn: Callable[..., Any] | None = None,
    ) -> None:
        self.name, self.escaped = name, escape(name)
        self.agent, self.action, self.policy = agent, action, policy
        self.signature, self._fn = signature, fn
        self._definition: str | None = None

    @property
    def definition(self) -> str | None:
        """Digest of the function's code, found at the first call: reading source takes a while."""
        if self._fn is not None:
            self._definition, self._fn = definition_of(self._fn), None
        return self._definition

    def write_result(self, value: object) -> bytes:
        """A result as JSON.

        :raises StepResultError: it cannot be stored
        """
        if self.signature is not None:
            return self.signature.result_json(value)
        try:
            return to_json(value)
        except TypeError as error:
            msg = f"result of step {self.name!r} cannot be stored: {error}"
            raise StepResultError(msg, str(error).partition(":")[0]) from None

    def read_result(self, data: bytes) -> Any:
        """A stored result as the function gave it back."""
        return from_json(data) if self.signature is None else self.signature.result_from_json(data)


class Stored:
    """The outcome that the log already has for a call."""

    __slots__ = ("result", "step_id")

    def __init__(self, step_id: str, result: Any) -> None:
        self.step_id, self.result = step_id, result


class Run:
    """One carrying out of a workflow, by this process.

    Obtained from :meth:`open`, which starts or resumes it, and used as a context manager::

        with Run.open("build", workflow_id="b1") as run:
            out = run.call("compile", compile_all, src, agent="cc")

    An exception that leaves the block ends the run as failed (cancelled, interrupted); it goes on
    when it is opened again under its id. What a completed run did is answered from its log.

    :ivar workflow_id: names the run and its log
    :ivar execution: 1, 2, ...: this process's go at it
    :ivar done: whether the run was complete already when it was opened
    :ivar result: what it gave back, if ``done``
    """

    def __init__(
        self,
        workflow_id: str,
        name: str,
        *,
        fold: Fold,
        blobs: Blobs,
        execution: int = 0,
        lease: Lease | None = None,
        writer: LogWriter | None = None,
        tracing: Tracing | None = None,
        capture_inputs: bool = False,
        on_divergence: str = "fail",
        off: bool = False,
    ) -> None:
        self.workflow_id, self.name, self.execution = workflow_id, name, execution
        self.lock = threading.RLock()
        self.trace_id = ""
        # Not carried on by this process: switched off, or a forked child's copy of its parent's.
        self.detached, self._off = off, off
        self._sigterm: SigtermHandler | None = None
        self._terminated = False
        self._fold, self._plan = fold, Plan(fold.history)
        self._blobs, self._lease, self._writer, self._tracing = blobs, lease, writer, tracing
        self._capture_inputs, self._on_divergence = capture_inputs, on_divergence
        self._refusal: RefusalError | None = None
        self._warned: set[str] = set()
        self._started_ns = clock.time_ns()
        self._started_monotonic = clock.monotonic_ns()
        self._token: Any = None
        self._span_token: object = None
        self.root = Scope(self, None, threading.get_ident(), None)

    @classmethod
    def open(
        cls,
        name: str,
        *,
        workflow_id: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        log_dir: Any = None,
    ) -> Run:
        """Start a run, or go on with the one of that id.

        :param inputs: JSON-native; stored, and compared when the run is opened again
        :raises RunBusyError: another process carries it on
        :raises RunConflictError: the id belongs to another workflow, or to other inputs
        :raises RunPausedError: it waits for an answer
        :raises WorkflowInputError: the inputs cannot be stored
        :raises LogDamagedError: its log was changed
        """
        from tapps_otel.run.opening import open_by_hand

        return open_by_hand(name, workflow_id=workflow_id, inputs=inputs, log_dir=log_dir)

    # -- the outside: authors of executors

    @property
    def done(self) -> bool:
        """Whether the run was complete when it was opened: nothing is written any more."""
        return self._writer is None and not self.detached

    @property
    def result(self) -> Any:
        """The stored result of a run that is ``done``, as plain JSON values."""
        return None if not self.done else from_json(self.result_json)

    @property
    def result_json(self) -> bytes:
        """The same as JSON bytes."""
        history = self._fold.history
        if history.result_blob is not None:
            return self._blobs.get(history.result_blob)
        return history.result_json or b"null"

    @property
    def refused(self) -> bool:
        """Whether a refusal was raised: from then on every call raises it."""
        return self._refusal is not None

    @property
    def captures_inputs(self) -> bool:
        """Whether the inputs of steps are logged, not their digests alone."""
        return self._capture_inputs

    @property
    def log_failure(self) -> str | None:
        """Why events wait in memory; ``None`` while the log can be written."""
        return None if self._writer is None else self._writer.failure

    def call(
        self,
        name: str,
        fn: Callable[..., Any],
        /,
        *args: Any,
        agent: str | None = None,
        action: str | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call ``fn`` as a step of the current scope; its result comes from the log if it is there.

        :raises StepResultError: the result cannot be stored
        """
        from tapps_otel.run.workflow import Step

        return Step(fn, name=name, agent=agent, action=action, key=key).call_in(self, args, kwargs)

    async def acall(
        self,
        name: str,
        fn: Callable[..., Any],
        /,
        *args: Any,
        agent: str | None = None,
        action: str | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """The same for a coroutine function."""
        from tapps_otel.run.workflow import Step

        step = Step(fn, name=name, agent=agent, action=action, key=key)
        return await step.call_in(self, args, kwargs)

    def begin(
        self,
        name: str,
        *,
        step_id: str | None = None,
        inputs: Any = None,
        agent: str | None = None,
        action: str | None = None,
        key: str | None = None,
    ) -> Attempt:
        """Begin a step by hand: end it with ``finish``, ``fail`` or ``skip``.

        As a context manager the attempt becomes the current scope, and its end follows from how
        the block is left. If the log has its outcome already, ``done`` is set and nothing is
        written.

        :param step_id: its place, where the executor has names of its own: it is matched by that
        :param inputs: JSON-native; they tell one call of a name from another
        """
        call = Call(name, agent=agent, action=action)
        entered = self.enter(
            self.scope_here(), call, None if inputs is None else digest_of(inputs), key, step_id
        )
        if isinstance(entered, Attempt):
            entered.by_hand = True
            entered.start()
            return entered
        attempt = Attempt(self, self.root, call, "" if entered is None else entered.step_id, 0)
        attempt.state = COMPLETED
        attempt.result = None if entered is None else entered.result
        attempt.by_hand = True
        return attempt

    def annotate(
        self, name: str, attributes: Mapping[str, Any], scope: Scope | None = None
    ) -> None:
        """Write an event of the user's own into the log and onto the span."""
        at = clock.time_ns()
        where = scope or self.root
        event = Event(
            event_type="annotation",
            workflow_id=self.workflow_id,
            timestamp=clock.timestamp(at),
            execution=self.execution,
            name=name,
        )
        if where.step_id is not None:
            event.step_id = where.step_id
        if attributes:
            event.attributes = dict(attributes)
        if where.span_id:
            event.trace_id, event.span_id = self.trace_id, where.span_id
        self.write(event)
        if where.span is not None:
            where.span.record(event)

    def enter_root(self) -> None:
        """Make the workflow the current scope; ordered calls come from this thread and task."""
        self.root.thread, self.root.task = _here()
        self._token = current_scope.set(self.root)
        if self.root.span is not None:
            self._span_token = self.root.span.attach()

    async def __aenter__(self) -> Self:
        self.enter_root()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()
        if error is None:
            await self.complete_async(lambda: b"null")
            return
        raised = await self.fail_async(error)
        if raised is not error:
            raise raised from error

    def leave(self) -> None:
        """Undo :meth:`enter_root`."""
        if self.root.span is not None:
            self.root.span.detach(self._span_token)
        current_scope.reset(self._token)

    def __enter__(self) -> Self:
        self.enter_root()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()
        if error is None:
            self.complete(lambda: b"null")
            return
        raised = self.fail(error)
        if raised is not error:
            raise raised from error

    # -- entering steps

    def scope_here(self) -> Scope:
        """The current scope, if it is of this run; else the workflow itself."""
        scope = current_scope.get()
        return scope if scope is not None and scope.run is self else self.root

    def new_matcher(self, step_id: str | None) -> Matcher:
        """What an attempt of this scope may take from the log."""
        matcher = Matcher(self._plan.past(step_id))
        if step_id is None:
            self._plan.forget_scope(None)
        return matcher

    def enter(
        self,
        scope: Scope,
        call: Call,
        digest: str | None,
        key: str | None,
        step_id: str | None = None,
    ) -> Attempt | Stored | None:
        """Decide what a call does: run as a new attempt, or take its outcome from the log.

        ``None``: a plain call, for the run is over and complete.

        :raises Exception: a failure that was handled before, raised again from the log
        :raises RefusalError: going on might do something twice
        :raises RunEndedError: the scope is over and did not complete
        """
        thread, task = _here()
        with self.lock:
            if self._refusal is not None:
                raise self._refusal
            if scope.state is not OPEN:
                self._check_outlived(scope, call.name)
                return None
            order = scope.order_of_call(call.name, thread, task)
            matcher = scope.matcher
            if step_id is None:
                record = matcher.claim(call.name, digest, key)
            else:
                step_id = join_step_id(scope.step_id, escape(step_id), 1)
                record = matcher.claim_id(step_id)
            if record is not None:
                self._note_change(scope, call, record)
                if record.stored:
                    return Stored(record.step_id, self._stored_result(call, record))
                if record.handled:
                    self._raise_again(record)
                if self.done:
                    self._check_outlived(scope, call.name)
                    return None
                self._check_interruptions(call, record)
                number, step_id = record.last.number + 1, record.step_id
            else:
                if self.done:
                    self._check_outlived(scope, call.name)
                    return None
                self._check_new(scope, call, digest, key, order)
                ordinal = matcher.next_number(call.name)
                number, step_id = 1, step_id or join_step_id(scope.step_id, call.escaped, ordinal)
            attempt = Attempt(self, scope, call, step_id, number)
            attempt.thread, attempt.task = thread, task
            attempt.order, attempt.key, attempt.digest = order, key, digest
            scope.enclose(attempt)
            return attempt

    def _check_outlived(self, scope: Scope, name: str) -> None:
        """A call from code that outlived its scope: plain if that completed, else an error."""
        if scope.state is COMPLETED or self.done:
            self.warn_once(
                f"step {name!r} was called after {self.scope_name(scope)} had completed: it runs "
                "as a plain call, without a log"
            )
            return
        raise RunEndedError(name, self.scope_name(scope))

    def scope_name(self, scope: Scope) -> str:
        """How a message calls a scope."""
        own = f"run {self.workflow_id!r}"
        return own if scope.step_id is None else f"step {scope.step_id!r} of {own}"

    def _stored_result(self, call: Call, record: StepHistory) -> Any:
        data = record.result
        if record.result_blob is not None:
            data = self._blobs.get(record.result_blob)
        if record.parent is None:  # nobody asks twice, and large runs have many
            self._plan.forget(record.step_id)
        return None if data is None else call.read_result(data)

    def _raise_again(self, record: StepHistory) -> NoReturn:
        error = failures.rebuild(record.last.error)
        if record.status == "timeout" and not isinstance(error, StepTimeoutError):
            error = StepTimeoutError(str(error))
        error.add_note(
            f"raised again from the log of run {self.workflow_id}: it was handled before"
        )
        failures.mark(error, self.workflow_id, record.step_id)
        raise error

    def _note_change(self, scope: Scope, call: Call, record: StepHistory) -> None:
        reused = record.stored or record.handled
        if (
            reused
            and call.definition is not None
            and record.definition
            not in {
                None,
                call.definition,
            }
        ):
            if scope.changed is None:
                scope.changed = {}
            scope.changed[record.step_id] = None

    def _check_interruptions(self, call: Call, record: StepHistory) -> None:
        policy = call.policy
        if record.status != "interrupted" or record.resolved:
            return
        if policy.on_interrupted == "fail":
            self._refuse_interrupted(record)
        if record.interruptions > policy.max_interruptions:
            msg = (
                f"step {record.step_id!r} was interrupted {record.interruptions} times in a row, "
                f"more than max_interruptions={policy.max_interruptions}: does it kill its "
                f"process? `tapps-otel resolve {self.workflow_id} {record.step_id} --rerun` lets "
                "it run again, --result JSON says what it gave"
            )
            self._refuse(InterruptedTooOftenError(msg, record.step_id))

    def _check_new(
        self, scope: Scope, call: Call, digest: str | None, key: str | None, order: int | None
    ) -> None:
        """A call that no record fits: new, unless the guard knows where it came from."""
        once = call.policy.on_interrupted == "fail"
        lost = scope.matcher.lost(call.name, digest, key) if once else None
        if lost is not None:
            self._refuse_interrupted(lost)
        if order is None or key is not None or self._on_divergence == "rerun":
            return
        found = scope.matcher.guard(
            call.name, order, lambda record: self._plan.loss(record, interruptible=not once)
        )
        if found is not None:
            self._refuse(_divergence(*found, order, digest))

    def _refuse_interrupted(self, record: StepHistory) -> NoReturn:
        msg = (
            f"step {record.step_id!r} was interrupted, and is not run again by itself "
            "(on_interrupted='fail'): find out what it did, then "
            f"`tapps-otel resolve {self.workflow_id} {record.step_id} --result JSON`, or --rerun"
        )
        self._refuse(StepInterruptedError(msg, record.step_id))

    def _refuse(self, error: RefusalError) -> NoReturn:
        failures.mark(error, self.workflow_id, error.step_id)
        self._refusal = error
        raise error

    def is_detached(self) -> bool:
        """Whether steps are plain calls here; in a forked child that is said once."""
        if self.detached and not self._off:
            self.warn_once(
                f"run {self.workflow_id} belongs to the parent process: steps called in a forked "
                "child are plain calls, without a log"
            )
        return self.detached

    def warn_once(self, text: str) -> None:
        """Say something once a run, through the logger ``tapps_otel``."""
        if text not in self._warned:
            self._warned.add(text)
            _log.warning("%s", text)

    # -- writing

    def write(self, event: Event) -> int | None:
        """Write an event; its seq, or ``None`` while the log fails or is not this process's.

        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        writer = self._writer
        if writer is None or self.detached:
            return None
        return writer.append(event)

    def write_synced(self, event: Event) -> int | None:
        """The same, synced before it returns, whatever the event is."""
        writer = self._writer
        if writer is None or self.detached:
            return None
        return writer.append(event, sync=True)

    def follow(
        self, attempt: Attempt, event: Event, seq: int | None, *, forget: bool = False
    ) -> None:
        """Keep the history of what may be tried again in this execution up to date.

        That is: steps inside steps, what encloses them, and what the log knew before. A step of
        the workflow itself that encloses nothing is not kept: a long run would grow.

        :param forget: it ended well: nobody will ask for it again
        """
        with self.lock:
            history = self._fold.history
            event.seq = seq if seq is not None else history.seq + 1
            known = len(history.by_id)
            enclosing = attempt.scope
            if isinstance(enclosing, Attempt) and enclosing.step_id not in history.by_id:
                self.follow(enclosing, enclosing.start_event, enclosing.start_event.seq)
                known = len(history.by_id)
            self._fold.feed(event)
            if len(history.by_id) > known and attempt.scope.step_id is not None:
                self._plan.add(history.by_id[str(attempt.step_id)])
            if forget and attempt.scope.step_id is None:
                self._plan.forget(str(attempt.step_id))

    def follows(self, attempt: Attempt) -> bool:
        """Whether the history of this step is kept."""
        return attempt.scope.step_id is not None or attempt.step_id in self._fold.history.by_id

    def store(self, event: Event, data: bytes) -> None:
        """Put a result into its event, or into a blob if it is large."""
        if len(data) <= INLINE_LIMIT or self.detached:
            event.result = Raw(data)
            return
        try:
            event.result_blob = self._blobs.put(data)
        except OSError as error:
            if self._writer is not None and self._writer.stops:
                raise LogWriteError(self._writer.path, f"a large result: {error}") from error
            _log.error("run %s: a large result cannot be stored: %s", self.workflow_id, error)
            event.result_omitted = f"it could not be stored: {error}"

    def start_span(self, scope: Scope, event: Event, started_ns: int, parent: Scope | None) -> None:
        """Give the event its span's ids: the SDK's where there is one, else our own."""
        if self._tracing is None:
            event.trace_id = self.trace_id
            scope.span_id = event.span_id = new_span_id()
            if parent is not None:
                event.parent_span_id = parent.span_id
            return
        span = self._tracing.start(
            event, start_ns=started_ns, parent=None if parent is None else parent.span
        )
        scope.span, scope.span_id = span, span.span_id

    # -- ending

    def complete(self, result_json: Callable[[], bytes]) -> None:
        """End the run as completed, once everything open inside has ended.

        :param result_json: writes the result
        :raises RefusalError: one was raised before, whoever caught it
        :raises StepResultError: the result cannot be stored
        """
        if self.done:
            return
        try:
            self._begin_end()
            self.root.drain()
        except BaseException as error:
            self._write_failed(error)
            raise
        self._write_completed(result_json)

    async def complete_async(self, result_json: Callable[[], bytes]) -> None:
        """The same from a coroutine."""
        if self.done:
            return
        try:
            self._begin_end()
            await self.root.drain_async()
        except BaseException as error:
            self._write_failed(error)
            raise
        self._write_completed(result_json)

    def fail(self, error: BaseException) -> BaseException:
        """End the run by an exception, once everything open inside has ended.

        :returns: what is to be raised: ``error``, unless it hides a refusal
        """
        if self.done:
            return error
        try:
            self._begin_end()
            self.root.drain()
        finally:
            self._write_failed(error)
        return self._refusal or error

    async def fail_async(self, error: BaseException) -> BaseException:
        """The same from a coroutine."""
        if self.done:
            return error
        try:
            self._begin_end()
            await self.root.drain_async()
        finally:
            self._write_failed(error)
        return self._refusal or error

    def _begin_end(self) -> None:
        """From here on, code that is left over cannot begin steps."""
        with self.lock:
            self.root.state = CLOSING

    def _write_completed(self, result_json: Callable[[], bytes]) -> None:
        event = self._end_event("completed")
        try:
            if self._refusal is not None:
                raise self._refusal
            self.store(event, result_json())
            self.remark(self.root)
        except BaseException as error:
            self._write_failed(error)
            raise
        try:
            self._end(event, COMPLETED)
        finally:
            self._close()

    def _write_failed(self, error: BaseException) -> None:
        cause = self._refusal or error
        status = "interrupted" if self._terminated else status_of(cause, self.workflow_id)
        event = self._end_event(status)
        event.error = failures.describe(cause)
        blamed = {
            step_id: None
            for one in (error, cause)
            for step_id in failures.caused_by(one, self.workflow_id, None)
        }
        if blamed:
            event.caused_by = list(blamed)
        self._advise(cause)
        try:
            self._end(event, FAILED)
        except LogWriteError as failure:
            _log.error("%s", failure)
        finally:
            self._close()

    def _advise(self, error: BaseException) -> None:
        if self._off:
            return
        note = f"to go on with this run: tapps-otel resume {self.workflow_id}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)

    def _end_event(self, status: str) -> Event:
        duration = clock.monotonic_ns() - self._started_monotonic
        return Event(
            event_type="workflow_end",
            workflow_id=self.workflow_id,
            timestamp=clock.timestamp(self._started_ns + duration),
            trace_id=self.trace_id,
            span_id=self.root.span_id,
            execution=self.execution,
            status=status,
            duration_ns=duration,
        )

    def _end(self, event: Event, state: str) -> None:
        span = self.root.span
        if span is not None:
            span.hold(event)
        try:
            self.write(event)
        finally:
            with self.lock:
                self.root.state = state
            if span is not None:
                span.end(event, sha=None if self._writer is None else self._writer.sha)

    def remark(self, scope: Scope) -> None:
        """Say, when a scope completes, what of its past nobody asked for, or was changed."""
        if not scope.called and not self._plan.knows(scope.step_id):
            return
        unasked = [record.step_id for record in scope.matcher.unasked()]
        self._remark(scope, "tapps.unasked", "completed before, and not asked for now", unasked)
        changed = scope.changed or ()
        self._remark(
            scope,
            "tapps.definition_changed",
            "taken from the log, though its code changed",
            changed,
        )

    def _remark(self, scope: Scope, name: str, text: str, step_ids: Iterable[str]) -> None:
        found = list(step_ids)
        if not found:
            return
        shown = found[:_SHOWN]
        _log.warning("%s: %s: %s", self.scope_name(scope), text, ", ".join(shown))
        self.annotate(name, {"steps": shown, "count": len(found)}, scope)

    def handle_sigterm(self) -> None:
        """Record SIGTERM as an interruption, until the run ends."""
        self._sigterm = SigtermHandler(self._note_sigterm)

    def _note_sigterm(self) -> None:
        self._terminated = True

    def _close(self) -> None:
        if self._sigterm is not None:
            self._sigterm.restore()
        if self._writer is not None:
            self._writer.close()
        if self._lease is not None:
            self._lease.release()

    def begin_execution(
        self,
        event: Event,
        interrupted: Iterable[Event] = (),
        *,
        first: SpanRef | None = None,
        links: tuple[SpanRef, ...] = (),
    ) -> None:
        """Write how this execution began, and what the one before left open.

        :param first: the span of execution 1, under which later executions stand
        :param links: the spans of what was interrupted
        """
        root = self.root
        if self._tracing is None:
            event.trace_id, event.span_id = self.trace_id, new_span_id()
            if first is not None:
                event.parent_span_id = first.span_id
            root.span_id = event.span_id
        else:
            resource = self._tracing.resource
            if resource is not None:
                event.resource = resource
            root.span = self._tracing.start(
                event, start_ns=self._started_ns, parent=first, links=links
            )
            root.span_id, self.trace_id = root.span.span_id, root.span.trace_id
        self.write(event)
        if root.span is not None:
            root.span.record(event)
        for end in interrupted:
            seq = self.write(end)
            end.seq = self._fold.history.seq + 1 if seq is None else seq
            self._fold.feed(end)

    @property
    def started_ns(self) -> int:
        """When this execution began: wall clock, ns since 1970 UTC."""
        return self._started_ns

    def detach(self) -> None:
        """In a forked child: the run is the parent's, its steps are plain calls here."""
        self.detached = True
        self.lock = threading.RLock()  # a thread that is not in this process may hold the old one
        if self._lease is not None:
            self._lease.release()

    def __repr__(self) -> str:
        return f"<Run {self.workflow_id!r}, execution {self.execution}>"


class Attempt(Scope):
    """One try of a step; the scope of what it calls.

    :ivar done: whether the log had the outcome already; then nothing is written
    :ivar result: the outcome, once there is one
    """

    __slots__ = (
        "_monotonic",
        "_started_ns",
        "_token",
        "by_hand",
        "call",
        "digest",
        "inputs",
        "key",
        "number",
        "order",
        "result",
        "scope",
        "start_event",
    )

    start_event: Event

    def __init__(self, run: Run, scope: Scope, call: Call, step_id: str, number: int) -> None:
        super().__init__(run, step_id, 0, None)
        self.scope, self.call, self.number = scope, call, number
        self.order: int | None = None
        self.key: str | None = None
        self.digest: str | None = None
        self.inputs: Any = UNSET
        self.by_hand = False
        self.result: Any = None
        self._token: Any = None
        self._started_ns = self._monotonic = 0

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
        run, call = self.run, self.call
        self._started_ns = started = clock.time_ns()
        self._monotonic = clock.monotonic_ns()
        event = Event(
            event_type="step_start",
            workflow_id=run.workflow_id,
            timestamp=clock.timestamp(started),
            execution=run.execution,
            step_id=self.step_id,  # type: ignore[arg-type]
            step=call.name,
            agent=call.agent,
            action=call.action,
            attempt=self.number,
            status="running",
            order=UNSET if self.order is None else self.order,
            key=UNSET if self.key is None else self.key,
            inputs_digest=UNSET if self.digest is None else self.digest,
            definition=UNSET if call.definition is None else call.definition,
            inputs=self.inputs,
        )
        run.start_span(self, event, started, self.scope)
        self.start_event = event
        try:
            if call.policy.on_interrupted == "fail":
                seq = run.write_synced(event)
            else:
                seq = run.write(event)
        except BaseException as error:
            if event.seq and not isinstance(error, LogError):
                self.fail_drained(error)  # Ctrl-C at that very moment: it stands in the log
            else:
                self._close(FAILED)
            raise
        if run.follows(self):
            run.follow(self, event, seq)
        if self.span is not None:
            self.span.record(event)

    def again(self) -> Attempt:
        """The next try of the same step.

        :raises RunEndedError: the scope has ended meanwhile
        """
        run, scope = self.run, self.scope
        following = Attempt(run, scope, self.call, str(self.step_id), self.number + 1)
        following.thread, following.task = self.thread, self.task
        following.order, following.key, following.digest = self.order, self.key, self.digest
        following.inputs = self.inputs
        with run.lock:
            if scope.state is not OPEN:
                scope.release(self)
                raise RunEndedError(self.call.name, run.scope_name(scope))
            scope.enclose(following)
            scope.release(self)
        return following

    # -- ends: what is open inside first

    def begin_end(self) -> bool:
        """From here on, code that is left over cannot begin steps inside; whether any is open."""
        with self.run.lock:
            self.state = CLOSING
            return bool(self.open)

    def finish(self, result: Any = None, artifacts: Iterable[Artifact] = ()) -> None:
        """End the step with its result.

        :param artifacts: files that it made, by their paths (they are hashed now), or summaries:
            ``{"name", "path", "sha256", "bytes", "media_type"}``
        :raises StepResultError: the result cannot be stored; the step has failed then
        """
        if self._is_over():
            return
        try:
            if self.begin_end():
                self.drain()
        except BaseException as error:
            self.fail_drained(error)
            raise
        self.finish_drained(result, artifacts)

    def finish_drained(self, result: Any, artifacts: Iterable[Artifact] = ()) -> None:
        """The same, when nothing is open inside any more."""
        run, call = self.run, self.call
        event = self._end_event("step_finish", "completed")
        try:
            if call.policy.persist:
                run.store(event, call.write_result(result))
            else:
                event.result_omitted = "persist=False"
            if artifacts:
                event.artifacts = [summarize(one) for one in artifacts]
        except Exception as error:
            self.fail_drained(error)
            raise
        run.remark(self)
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
        if self._is_over():
            return None
        try:
            if self.begin_end():
                self.drain()
        finally:
            wait = self.fail_drained(error, failures_so_far)
        return wait

    def fail_drained(self, error: BaseException, failures_so_far: int | None = None) -> int | None:
        """The same, when nothing is open inside any more."""
        run = self.run
        event = self._end_event("step_fail", status_of(error, run.workflow_id))
        event.error = failures.describe(error)
        wait = None
        if failures_so_far is not None and not run.refused:
            wait = self.call.policy.retry_in_ns(error, failures_so_far)
        if wait is not None:
            event.retry_in_ns = wait
        left = failures.caused_by(error, run.workflow_id, self.step_id)
        if left:
            event.caused_by = left
        failures.mark(error, run.workflow_id, str(self.step_id))
        self._end(event, FAILED, release=wait is None)
        return wait

    def skip(self, reason: str, result: Any = None) -> None:
        """End the step as skipped; on resume it stays so, with this result.

        :raises StepResultError: the result cannot be stored; the step has failed then
        """
        if self._is_over():
            return
        try:
            if self.begin_end():
                self.drain()
        except BaseException as error:
            self.fail_drained(error)
            raise
        self.skip_drained(reason, result)

    def skip_drained(self, reason: str, result: Any) -> None:
        """The same, when nothing is open inside any more."""
        event = self._end_event("step_skip", "skipped")
        event.reason = reason
        try:
            self.run.store(event, raw_result(self.call, result))
        except Exception as error:
            self.fail_drained(error)
            raise
        self.result = result
        self._end(event, COMPLETED)

    def abandon(self) -> None:
        """End it for a scope that ends while nobody is left who could end it."""
        if self.state is OPEN:
            self.begin_end()
            self.fail_drained(RunEndedError(self.call.name, "the code that began it"))
        self.release_self()

    async def drained(self) -> None:
        """Wait, without blocking the event loop, until nothing is open inside."""
        if self.begin_end():
            try:
                await self.drain_async()
            except BaseException as error:
                self.fail_drained(error)
                raise

    def release_self(self) -> None:
        """Let the enclosing scope end: no other try follows."""
        with self.run.lock:
            self.scope.release(self)

    def _is_over(self) -> bool:
        """An end after the end changes nothing."""
        if self.state is OPEN:
            return False
        self.run.warn_once(f"step {self.step_id!r} was ended twice: its first end holds")
        return True

    def _end_event(self, event_type: str, status: str) -> Event:
        run, call = self.run, self.call
        duration = clock.monotonic_ns() - self._monotonic
        return Event(
            event_type=event_type,
            workflow_id=run.workflow_id,
            timestamp=clock.timestamp(self._started_ns + duration),
            trace_id=self.start_event.trace_id,
            span_id=self.start_event.span_id,
            parent_span_id=self.start_event.parent_span_id,
            execution=run.execution,
            step_id=self.step_id,  # type: ignore[arg-type]
            step=call.name,
            agent=call.agent,
            action=call.action,
            attempt=self.number,
            status=status,
            duration_ns=duration,
        )

    def _end(self, event: Event, state: str, *, release: bool = True) -> None:
        run, span = self.run, self.span
        if span is not None:
            span.hold(event)
        try:
            seq = run.write(event)
        except BaseException as error:
            if event.seq or isinstance(error, LogError):
                self._close(FAILED)
            else:  # Ctrl-C just before: it has to end in the log all the same
                self.fail_drained(error)
            raise
        if run.follows(self):
            run.follow(self, event, seq, forget=state is COMPLETED)
        # Only now may the enclosing scope end: its own end stands behind this one in the log.
        self._close(state, release=release)
        if span is not None:
            span.end(event)

    def _close(self, state: str, *, release: bool = True) -> None:
        with self.run.lock:
            self.state = state
            if release:
                self.scope.release(self)

    def current(self) -> _Current:
        """A context in which this attempt is the current scope, and its span the current one."""
        return _Current(self)

    def __enter__(self) -> Self:
        self._token = current_scope.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        current_scope.reset(self._token)
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
        current_scope.reset(self._token)


def _divergence(record: StepHistory, loss: str, order: int, digest: str | None) -> DivergenceError:
    then = record.inputs.decode(errors="replace") if record.inputs else record.inputs_digest
    return DivergenceError(
        f"step {record.name!r} was called with other inputs than before, in the same place (call "
        f"{order} of that name). The log has {record.step_id!r} there, with {loss} that would be "
        f"passed over:\n  then: {then}\n  now:  {digest}\nNothing was run. If a clock or a random "
        "id is among the inputs, make it a step of its own, or give the call a key. If the change "
        'is meant, @workflow(on_divergence="rerun") runs it as a new step. (Digests are shown; '
        "TAPPS_OTEL_CAPTURE_INPUTS=1 keeps the inputs themselves.)",
        record.step_id,
    )


def _here() -> tuple[int, asyncio.Task[Any] | None]:
    return threading.get_ident(), running_task()


def raw_result(call: Call, result: Any) -> bytes:
    """A skip's result: ``None`` is one whatever the annotation says."""
    return b"null" if result is None else call.write_result(result)


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
