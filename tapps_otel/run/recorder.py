"""Recording a run: every event is written to the log first, then given to its span.

:class:`RunRecorder` holds the lease, the log and the state of the replay;
:class:`~tapps_otel.run.attempt.AttemptRecorder` records one attempt of a step.
:mod:`~tapps_otel.run.opening` opens runs; what users get is :class:`tapps_otel.run.api.Run`.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from contextlib import contextmanager
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import UNSET, Raw

from tapps_otel import clock
from tapps_otel.errors import (
    FailureDetailError,
    LogError,
    LogWriteError,
    ResultOmittedError,
    RunEndedError,
    RunPausedError,
    StepInputError,
    StepNestingError,
)
from tapps_otel.log.blobs import INLINE_LIMIT
from tapps_otel.log.encrypted import CodecFailedError
from tapps_otel.log.event import Event
from tapps_otel.log.reports import held_back, report
from tapps_otel.names import (
    MOST_NESTED,
    escape,
    join_step_id,
    log_name,
    new_span_id,
    new_trace_id,
)
from tapps_otel.otel import run_registry
from tapps_otel.otel.resource import of_process
from tapps_otel.otel.seam import note_of_links, warn_once
from tapps_otel.past.advice import RESUME_NOTE, how_to_resume
from tapps_otel.redact import NO_RULES, REDACTED
from tapps_otel.run import failures
from tapps_otel.run.attempt import AttemptRecorder, interruption, status_of
from tapps_otel.run.codecs.native import check_text, from_json
from tapps_otel.run.ends_from_history import given_up
from tapps_otel.run.outside import note_closed, note_open
from tapps_otel.run.replay_state import ReplayState
from tapps_otel.run.scope import (
    CLOSING,
    COMPLETED,
    FAILED,
    OPEN,
    Scope,
    current_scope,
    leave_scope,
    paused_signal,
    running_task,
)
from tapps_otel.run.signals import SigtermHandler
from tapps_otel.run.step_spec import Paused, shown_cause

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from tapps_otel.errors import Question, RefusalError
    from tapps_otel.log.blobs import Blobs
    from tapps_otel.log.lease import Lease
    from tapps_otel.log.writer import LogWriter
    from tapps_otel.otel.seam import Measures, SpanRef, Tracing
    from tapps_otel.past.fold import Fold, StepHistory
    from tapps_otel.redact import Rules
    from tapps_otel.run.caller import Caller
    from tapps_otel.run.policy import OnDivergence
    from tapps_otel.run.scope import OpenAttempt
    from tapps_otel.run.step_spec import StepSpec, Stored

__all__ = ["RunRecorder", "Write", "make_writer"]

_log = logging.getLogger("tapps_otel")
_SHOWN: Final = 100  # step ids in a report of leftovers
_QUESTIONS: Final = 5  # in the end of a run that waits; the starts of its pauses have all
_WORDS: Final = 1000  # characters of each of these questions


class Write(Protocol):
    """Writes events of a run."""

    def __call__(self, event: Event, /, *, sync: bool = False) -> int | None:
        """Write an event.

        :param sync: sync before it returns, whatever the event is
        :returns: its seq; ``None`` while the log fails, or where it belongs to another process
        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        :raises LeaseLostError: another process has taken the run over
        """


def _write_nothing(_: Event, /, *, sync: bool = False) -> None:
    """Write nothing: there is no log, or it belongs to another process."""


def make_writer(writer: LogWriter | None, measures: Measures | None) -> Write:
    """The function that writes events. Made once, because every event goes through it."""
    if writer is None:
        return _write_nothing
    if measures is None:
        return writer.append

    def write(event: Event, /, *, sync: bool = False) -> int | None:
        began = clock.monotonic_ns()
        seq = writer.append(event, sync=sync)
        measures.wrote(event, clock.monotonic_ns() - began)
        return seq

    return write


class RunRecorder:
    """Records one execution of a run, by this process.

    :param strict: whether a step that changes its arguments fails
    :param module: of the workflow's function
    :param off: the library is switched off: steps are plain calls
    :ivar caller: the step of another run that called this one
    :ivar workflow_id: names the run and its log
    :ivar execution: 1, 2, ...: which of the run's executions this is
    :ivar rules: what is redacted before it is logged or sent
    :ivar redacts_results: whether a result is not stored if redaction would alter it
    :ivar hides_values: whether a codec encrypts values
    :ivar captures_inputs: whether the inputs of steps are logged, not only their digests
    :ivar renamed: by the name of a module, the one by which the log knows its steps
    :ivar write: writes an event
    :ivar root: the scope of the workflow itself
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
        measures: Measures | None = None,
        capture_inputs: bool = False,
        rules: Rules | None = None,
        redact_results: bool = False,
        strict: bool = False,
        on_divergence: OnDivergence = "fail",
        module: failures.WorkflowModule | None = None,
        renamed: Mapping[str, str] | None = None,
        caller: Caller | None = None,
        off: bool = False,
    ) -> None:
        self.workflow_id, self.name, self.execution = workflow_id, name, execution
        self.caller, self.renamed = caller, renamed
        self.lock = threading.RLock()
        self.trace_id = new_trace_id()  # until the log or the SDK gives another
        # Not executed by this process: switched off, or a forked child's copy of its parent's run.
        self.detached, self._off = off, off
        self._sigterm: SigtermHandler | None = None
        self._terminated = False
        self.replay = ReplayState(workflow_id, fold, blobs, on_divergence, module)
        self._blobs, self._tracing, self._measures = blobs, tracing, measures
        self.hides_values = blobs.codec is not None
        self.captures_inputs, self._strict = capture_inputs, strict
        self.rules = rules or NO_RULES
        self.redacts_results = redact_results
        self._attach_log(lease, writer)
        self._warned: set[str] = set()
        self._started_ns, self._started_monotonic = clock.now_ns()
        self._workflow: Mapping[str, Any] = {}  # the field of that name in the log
        self._ending: Event | None = None  # how this execution ends, once that is decided
        self._waits: dict[str, tuple[Question, ...]] = {}  # what it waits for, by step
        self._signal = object()  # marks the contexts of code that Paused was raised in
        self._token: Any = None
        self._span_token: object = None
        self.root = Scope(run=self, step_id=None, thread=get_ident(), task=None)

    def _attach_log(self, lease: Lease | None, writer: LogWriter | None) -> None:
        self._lease, self._writer = lease, writer
        self.write = make_writer(None if self.detached else writer, self._measures)

    @property
    def done(self) -> bool:
        """Whether the run was complete when it was opened: nothing more is written."""
        return self._writer is None and not self.detached

    @property
    def result(self) -> Any:
        """The stored result of a run that is ``done``, as plain JSON values."""
        return None if not self.done else from_json(self.result_json)

    @property
    def result_json(self) -> bytes:
        """The stored result of a run that is ``done``, as JSON.

        :raises ResultOmittedError: it is not in the log
        :raises DecryptionError: it cannot be decrypted
        """
        history = self.replay.history
        if history.result_locked is not None:
            raise history.result_locked.error(self.workflow_id)
        if history.result_omitted is not None:
            raise ResultOmittedError(self.workflow_id, history.result_omitted)
        if history.result_blob is not None:
            return self._blobs.get(history.result_blob)
        return history.result_json or b"null"

    @property
    def encloses_workflows(self) -> bool:
        """Whether a workflow that is called in one of its scopes is a step of this run."""
        return not self.detached

    @property
    def can_wait(self) -> bool:
        """Whether a call of ``pause`` can end it as paused."""
        return True

    @property
    def refused(self) -> bool:
        """Whether a refusal was raised: from then on every call raises it."""
        return self.replay.refusal is not None

    @property
    def detail_lost(self) -> bool:
        """Whether a handler was refused a part of a recorded failure."""
        return isinstance(self.replay.refusal, FailureDetailError)

    def refuse(self, error: RefusalError) -> None:
        """Let every later call raise a refusal, unless one was raised before."""
        with self.lock:
            self.replay.refusal = self.replay.refusal or error

    def caused_by(self, error: BaseException, scope_id: str | None) -> list[str]:
        """The steps of a scope whose exception left it with ``error``.

        None if a detail of a failure was refused: that failure stays handled.
        """
        if self.detail_lost:
            return []
        return failures.caused_by(error, self.workflow_id, scope_id)

    @property
    def started_ns(self) -> int:
        """When this execution began: wall clock, ns since 1970 UTC."""
        return self._started_ns

    @property
    def log_dir(self) -> Path | None:
        """Folder of its log; ``None`` where this process writes none."""
        return None if self._writer is None else self._writer.path.parent

    @property
    def log_failure(self) -> str | None:
        """Why events are queued in memory; ``None`` while the log can be written."""
        return None if self._writer is None else self._writer.failure

    @property
    def _takes_events(self) -> bool:
        """Whether events may still be written: the run has not ended."""
        return self.root.state not in {COMPLETED, FAILED}

    # -- the current scope

    def enter_root(self) -> None:
        """Make the workflow the current scope; ordered calls come from this thread and task."""
        self.root.thread, self.root.task = get_ident(), running_task()
        before = current_scope.get()
        try:
            self._token = current_scope.set(self.root)
            if self.root.span is not None:
                self._span_token = self.root.span.attach()
        except BaseException:
            current_scope.set(before)
            raise

    def leave(self) -> None:
        """Undo :meth:`enter_root`; a second call does nothing."""
        if self._token is None:
            return
        if self.root.span is not None:
            self.root.span.detach(self._span_token)
        leave_scope(self._token)
        self._token = self.root.task = None  # a task keeps its exception, and that the run: a cycle

    def exit(self, error: BaseException | None) -> None:
        """End the run as the block of its context manager ended.

        :raises RefusalError: one was raised before, even if the block caught it
        :raises RunPausedError: it waits
        """
        try:
            self.leave()
            if error is None:
                self.complete(lambda: b"null")
                return
            raised = self.fail(error)
            if raised is not error:
                raise raised from shown_cause(raised, error)
        finally:  # Ctrl-C may come between any two of these
            self.close()

    async def exit_async(self, error: BaseException | None) -> None:
        """End the run as :meth:`exit` does, without blocking the event loop."""
        try:
            self.leave()
            if error is None:
                await self.complete_async(lambda: b"null")
                return
            raised = await self.fail_async(error)
            if raised is not error:
                raise raised from shown_cause(raised, error)
        finally:  # Ctrl-C may come between any two of these
            self.close()

    def scope_here(self) -> Scope:
        """The current scope, if it belongs to this run; otherwise the workflow itself."""
        scope = current_scope.get()
        return scope if scope is not None and scope.run is self else self.root

    # -- entering steps

    def enter(
        self,
        scope: Scope,
        spec: StepSpec,
        digest: str | None,
        key: str | None,
        step_id: str | None = None,
        *,
        arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
        by_hand: bool = False,
        make: type[AttemptRecorder] = AttemptRecorder,
    ) -> AttemptRecorder | Stored | None:
        """Decide what a call does: run as a new attempt, or take its outcome from the log.

        ``None``: a plain call, because the run has completed; the caller warns of it.

        :param arguments: of the call, for a message
        :param by_hand: only its caller can end it
        :param make: makes the attempt
        :raises Exception: a failure that was handled before, raised again from the log
        :raises RefusalError: to run it might do something twice
        :raises RunEndedError: the scope has ended and did not complete
        """
        if key is not None:
            check_text(key, f"the key of step {spec.name!r}")
        thread, task, replay = get_ident(), running_task(), self.replay
        with self.lock:
            if replay.stopped:
                self._check_stopped(scope, thread, task)
            if scope.state is not OPEN and self._is_plain_in(scope, spec.name):
                return None
            order = scope.order_of_call(spec.name, thread, task)
            matcher = scope.matcher or replay.matcher_of(scope)
            if step_id is not None:
                step_id = join_step_id(scope.step_id, escape(step_id), 1)
                record = matcher.claim_id(step_id)
            else:
                record = (
                    None
                    if matcher.fresh
                    else matcher.claim(spec.name, digest, key, spec.definition)
                )
            if record is not None:
                stored = replay.answer(scope, spec, record)
                if stored is not None:
                    return stored
            if self._writer is None and self.done and self._is_plain_in(scope, spec.name):
                return None
            if record is not None:
                replay.check_rerun(spec, record)
                number, step_id = record.last.number + 1, record.step_id
            else:
                if not matcher.fresh:
                    replay.check_new(scope, spec, digest, key, order, arguments=arguments)
                if scope.step_id is not None or self.caller is not None:
                    self._check_depth(spec, scope)
                ordinal = matcher.next_number(spec.name)
                number, step_id = 1, step_id or join_step_id(scope.step_id, spec.escaped, ordinal)
            attempt = make(
                run=self,
                scope=scope,
                spec=spec,
                step_id=step_id,
                number=number,
                thread=thread,
                task=task,
                order=order,
                key=key,
                digest=digest,
                kept=record is not None or scope.step_id is not None,
                by_hand=by_hand,
            )
            scope.enclose(attempt)
            return attempt

    # -- waiting: calls of `pause`, and of runs that wait

    def pause_with(self, attempt: Scope, questions: tuple[Question, ...]) -> None:
        """Note that the run waits: for what an attempt asks, or the run that it called.

        Code that catches the signal and continues is stopped at its next call. What other tasks
        and threads have begun may end, and ask what it has to ask.
        """
        with self.lock:
            self._waits[str(attempt.step_id)] = questions
            self.replay.stopped = True
        paused_signal.set(self._signal)

    @property
    def waits(self) -> bool:
        """Whether a call waits, so that the run will end as paused."""
        return bool(self._waits)

    def paused(self, scope: Scope | None = None) -> Paused:
        """The signal that the run waits.

        :param scope: for what is asked inside it; by default, anywhere in the run
        """
        inside = self._waits if scope is None else self._waits_in(scope)
        return Paused(
            self.workflow_id, tuple(one for step_id in inside for one in self._waits[step_id])
        )

    def is_paused_in(self, scope: Scope) -> bool:
        """Whether a call inside a scope waits, so that the scope cannot end otherwise."""
        return bool(self._waits and self._waits_in(scope))

    def check_not_paused(self, scope: Scope) -> None:
        """Raise it again, if a call inside a scope waits.

        :raises Paused: one does, and the scope's code has caught that
        """
        if self.is_paused_in(scope):
            raise self.paused(scope)

    def _waits_in(self, scope: Scope) -> list[str]:
        if scope.step_id is None:
            return list(self._waits)
        return [one for one in self._waits if f"{one}/".startswith(f"{scope.step_id}/")]

    def _check_stopped(self, scope: Scope, thread: int, task: asyncio.Task[Any] | None) -> None:
        """Stop a call after a refusal, and one of code in which Paused was raised.

        :raises RefusalError: one was raised before
        :raises Paused: a call of that code waits
        """
        if self.replay.refusal is not None:
            raise self.replay.refusal
        is_own = thread == scope.thread and task is scope.task
        was_raised = paused_signal.get() is self._signal
        if was_raised or (is_own and self.is_paused_in(scope)):
            raise self.paused()

    def _check_depth(self, spec: StepSpec, scope: Scope) -> None:
        """Refuse a step that is nested too deep, while the stack has room to record its ends.

        :raises StepNestingError: it is
        """
        if self.depth_of(scope) >= MOST_NESTED:
            outer = scope.step_id or self.workflow_id
            raise StepNestingError(
                f"step {spec.name!r} was called inside {MOST_NESTED} steps, which is the limit: "
                f"{outer[:60]}.../{spec.escaped}. If the recursion is intended, let plain "
                "functions recurse, and make a step of the work that is worth a record"
            )

    def depth_of(self, scope: Scope) -> int:
        """Number of steps around the calls of a scope, with those around the run itself."""
        inside = 0 if scope.step_id is None else scope.step_id.count("/") + 1
        return inside + (0 if self.caller is None else self.caller.depth)

    def begin(
        self, spec: StepSpec, digest: str | None, key: str | None, step_id: str | None
    ) -> AttemptRecorder:
        """Begin a step by hand in the current scope; its caller ends it.

        Where the log has its outcome, the attempt is ``done`` and nothing is written.

        :raises RunEndedError: the scope has ended and did not complete
        """
        scope = self.scope_here()
        entered = self.enter(scope, spec, digest, key, step_id, by_hand=True)
        if isinstance(entered, AttemptRecorder):
            entered.start()
            if entered.state is not OPEN:  # its scope has ended meanwhile, and cannot wait for it
                entered.abandon()
                raise RunEndedError(spec.name, self.scope_name(scope))
            return entered
        if entered is None:
            self.warn_of_plain_call(scope, spec.name)
        return AttemptRecorder(
            run=self,
            scope=self.root,
            spec=spec,
            step_id="" if entered is None else entered.step_id,
            number=0,
            thread=0,
            task=None,
            state=COMPLETED,
            result=None if entered is None else entered.result,
            by_hand=True,
        )

    def _is_plain_in(self, scope: Scope, name: str) -> bool:
        """Whether a call after its scope's end is a plain one: the scope completed.

        :raises RunEndedError: it did not
        """
        if scope.state is COMPLETED or self.done:
            return True
        raise RunEndedError(name, self.scope_name(scope))

    def warn_of_plain_call(self, scope: Scope, name: str) -> None:
        """Log a warning that a step runs without a log, because its scope has completed."""
        self.warn_once(
            f"step {name!r} was called after {self.scope_name(scope)} had completed: it runs "
            "as a plain call, without a log"
        )

    def scope_name(self, scope: Scope) -> str:
        """Name a scope in a message."""
        own = f"run {self.workflow_id!r}"
        return own if scope.step_id is None else f"step {scope.step_id!r} of {own}"

    def is_detached(self) -> bool:
        """Whether steps are plain calls here; a forked child logs one warning of that."""
        if self.detached and not self._off:
            self.warn_once(
                f"run {self.workflow_id} belongs to the parent process: steps called in a forked "
                "child are plain calls, without a log"
            )
        return self.detached

    def warn_once(self, text: str) -> None:
        """Log a warning, once a run, through the logger ``tapps_otel``."""
        if text not in self._warned:
            self._warned.add(text)
            report(_log.warning, "%s", text)

    # -- writing

    def has(self, event: Event) -> bool:
        """Whether an event is in the log, or waits to be written."""
        return bool(event.seq) or (self._writer is not None and self._writer.has(event))

    def put_blob(self, data: bytes) -> str:
        """Store what is too large for a line, of spans; return its name.

        :raises OSError: it cannot be stored
        """
        return self._blobs.put(data)

    def store(self, event: Event, data: bytes) -> None:
        """Put a result into its event, or into a blob if it is large."""
        if len(data) <= INLINE_LIMIT or self.detached:
            event.result = Raw(data)
            return
        try:
            event.result_blob = self._blobs.put_value(data)
        except CodecFailedError:  # it waits with its event
            event.result = Raw(data)
        except OSError as error:
            if self._writer is not None and self._writer.stops:
                raise LogWriteError(self._writer.path, f"a large result: {error}") from error
            _log.error("run %s: a large result cannot be stored: %s", self.workflow_id, error)
            event.result_omitted = f"it could not be stored: {error}"

    def store_result(
        self, event: Event, data: bytes, rules: Rules, what: str, *, refuse: bool = False
    ) -> None:
        """Put a result into its event, unless it is a secret and those are not stored.

        What a codec encrypts is stored.

        :param what: returned it
        :param refuse: whether this one is not stored if redaction would alter it
        """
        refuse = (refuse or self.redacts_results) and self._blobs.codec is None
        if refuse and rules.alters_json(data):
            event.result_omitted = REDACTED
            self.warn_once(
                f"the result of {what} is not stored, because redaction would alter it "
                "(redact_results): a resume cannot take it from the log"
            )
        else:
            self.store(event, data)

    def store_inputs(self, event: Event, data: bytes) -> None:
        """Put captured inputs into their event, or into a blob if they are large."""
        if len(data) <= INLINE_LIMIT or self.detached:
            event.inputs = Raw(data)
            return
        try:
            event.inputs_blob = self._blobs.put_value(data)
        except CodecFailedError:
            event.inputs = Raw(data)
        except OSError as error:  # the step does not depend on them
            _log.error("run %s: large inputs cannot be stored: %s", self.workflow_id, error)

    def start_span(self, scope: Scope, event: Event, started_ns: int, parent: Scope | None) -> None:
        """Start a scope's span and put its ids into the start event.

        The ids are the SDK's if there is one, otherwise the library's own.
        """
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

    def annotate(
        self, name: str, attributes: Mapping[str, Any], scope: Scope | None = None
    ) -> None:
        """Write an annotation of the user into the log and onto the span.

        :raises TypeError: ``name`` is not a string
        """
        check_text(name, "the name of an annotation")
        if not self._takes_events:
            self.warn_once(f"annotation {name!r} came after the end of run {self.workflow_id!r}")
            return
        at = clock.time_ns()
        where = scope or self.root
        event = Event(
            event_type="annotation",
            workflow_id=self.workflow_id,
            timestamp=clock.timestamp(at),
            execution=self.execution,
            name=where.rules.text(name),
        )
        if where.step_id is not None:
            event.step_id = where.step_id
        if attributes:
            event.attributes = where.rules.attributes(dict(attributes))
        if where.span_id:
            event.trace_id, event.span_id = self.trace_id, where.span_id
        self.write(event)
        if where.span is not None:
            where.span.record(event)

    def annotate_step(
        self,
        step_id: str,
        name: str,
        attributes: Mapping[str, Any],
        *,
        attempt: int | None = None,
    ) -> None:
        """Write an annotation about a step that has ended, and onto the run's span.

        :param step_id: its place in the run
        :param attempt: of that step; by default, the last one
        """
        if not self._takes_events:
            return  # the end of the run did not wait for it
        event = Event(
            event_type="annotation",
            workflow_id=self.workflow_id,
            timestamp=clock.timestamp(clock.time_ns()),
            execution=self.execution,
            step_id=step_id,
            name=name,
            attributes=self.rules.attributes(dict(attributes)),
            attempt=UNSET if attempt is None else attempt,
        )
        root, is_open = self.root, self.root.state in {OPEN, CLOSING}
        if is_open and root.span_id:
            event.trace_id, event.span_id = self.trace_id, root.span_id
        self.write(event)
        if is_open and root.span is not None:
            root.span.record(event)

    def await_digests(self, digests: Iterable[OpenAttempt]) -> None:
        """Let the run end only after these digests."""
        with self.lock:
            for one in digests:
                self.root.enclose(one)

    def remember(
        self, attempt: Any, event: Event, seq: int | None, *, forget: bool = False
    ) -> None:
        """Keep the history of a step up to date. The attempt is ``kept``.

        :param forget: it ended, and no other try follows: no call will ask for it again
        """
        with self.lock:
            self.replay.remember(attempt, event, seq, forget=forget)

    def report_leftovers(self, scope: Scope) -> None:
        """Report, when a scope completes, records that no call took, and code that has changed."""
        if scope.matcher is None and scope.step_id not in self.replay.children:
            return  # nothing was recorded in it before, and nothing was called in it now
        matcher = self.replay.matcher_of(scope)
        unasked = [one.step_id for one in matcher.unasked() if self._is_asked_for(one)]
        self._report(scope, "tapps.unasked", "completed before, and not called now", unasked)
        changed = scope.changed or ()
        self._report(
            scope,
            "tapps.definition_changed",
            "taken from the log, though its code changed",
            changed,
        )

    def _is_asked_for(self, _: StepHistory) -> bool:
        """Whether the code of a run has to ask for this step."""
        return True

    def _report(self, scope: Scope, name: str, text: str, step_ids: Iterable[str]) -> None:
        found = list(step_ids)
        if not found:
            return
        shown = found[:_SHOWN]
        _log.warning("%s: %s: %s", self.scope_name(scope), text, ", ".join(shown))
        self.annotate(name, {"steps": shown, "count": len(found)}, scope)

    def report_changed_arguments(
        self, scope: Scope, step: str, names: list[str], *, failing: bool = False
    ) -> None:
        """Report, once a run for each step, that a step changed its arguments.

        :param failing: it has an error of its own
        :raises StepInputError: it has none, and the setting ``strict`` is on
        """
        text = (
            f"step {step!r} changed {', '.join(names)} while it ran: when its outcome comes from "
            "the log it does not run, and what it was given stays as it was. Let it work on a copy "
            "and return that"
        )
        if self._strict and not failing:
            raise StepInputError(
                f"{text} (the setting strict makes this an error)", f"$.{names[0]}"
            )
        if text not in self._warned:
            self.warn_once(text)
            self.annotate("tapps.arguments_changed", {"step": step, "arguments": names}, scope)

    # -- ending

    def complete(self, result_json: Callable[[], bytes]) -> None:
        """End the run as completed, once everything open inside has ended.

        :param result_json: writes the result
        :raises RefusalError: one was raised before, even if the workflow caught it
        :raises RunPausedError: it waits, even if the workflow caught the signal
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
        """End the run as :meth:`complete` does, without blocking the event loop."""
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

        :returns: the exception to raise: ``error``, unless it hides a refusal, or the run waits
        """
        if not self.done:
            with self._recording_failure(error):
                self._begin_end()
                self.root.drain(interruption(error))
        return self._to_raise(error)

    async def fail_async(self, error: BaseException) -> BaseException:
        """End the run as :meth:`fail` does, without blocking the event loop."""
        if not self.done:
            with self._recording_failure(error):
                self._begin_end()
                await self.root.drain_async(interruption(error))
        return self._to_raise(error)

    @contextmanager
    def _recording_failure(self, error: BaseException) -> Iterator[None]:
        """Write the end of a run that fails after this block; no error of ours hides ``error``."""
        try:
            try:
                yield
            finally:
                self._write_failed(error)
        except Exception as problem:  # noqa: BLE001 - the user's is raised
            _log.error("run %r: its end cannot be recorded: %r", self.workflow_id, problem)

    def _begin_end(self) -> None:
        """Refuse further steps."""
        with self.lock:
            if self.root.state is OPEN:
                self.root.state = CLOSING

    def _write_completed(self, result_json: Callable[[], bytes]) -> None:
        try:
            event = self._end_event("completed")
            if self.replay.refusal is not None:
                raise self.replay.refusal
            self.check_not_paused(self.root)
            self.store_result(event, result_json(), self.rules, f"run {self.workflow_id!r}")
            self.report_leftovers(self.root)
            self._end_unasked_pauses()
        except BaseException as error:
            self._write_failed(error)
            raised = self._to_raise(error)
            if raised is error:
                raise
            raise raised from shown_cause(raised, error)
        try:
            self._end(event, COMPLETED)
        finally:
            self.close()

    def _write_failed(self, error: BaseException) -> None:
        if self.root.open:  # the wait for it was interrupted
            self.root.give_up(error)
        cause = self._ends_by(error)
        status = "interrupted" if self._terminated else status_of(cause)
        event = self._end_event(status)
        if isinstance(cause, Paused):
            _put_questions(event, cause.questions)
        else:
            event.error = failures.describe(cause, self.rules, hides_values=self.hides_values)
            self._advise(cause)
        both = (error, cause)
        blamed = {step_id: None for one in both for step_id in self.caused_by(one, None)}
        if blamed:
            event.caused_by = list(blamed)
        try:
            self._end(event, FAILED)
        except LogWriteError as failure:
            _log.error("%s", failure)
        finally:
            self.close()

    def _ends_by(self, error: BaseException) -> BaseException:
        """What ends the run whose code ``error`` left: a refusal, or that it waits, come first.

        Whoever interrupts or cancels it while it ends, interrupts or cancels it.
        """
        if self.replay.refusal is not None:
            return self.replay.refusal
        if self._waits and status_of(error) in {"failed", "timeout", "paused"}:
            return self.paused()
        return error

    def _to_raise(self, error: BaseException) -> BaseException:
        """What the caller of the run gets in place of ``error``."""
        cause = self._ends_by(error)
        if not isinstance(cause, Paused):
            return cause
        if self.caller is not None:  # the run around it waits, too
            return error if isinstance(error, Paused) else cause
        return RunPausedError(self.workflow_id, cause.questions)

    def _end_unasked_pauses(self) -> None:
        """End the pauses of earlier executions that this one, which completes, did not call."""
        for step in self.replay.pauses:
            if step.waits:
                self.write(given_up(self.replay.history, step))

    def _advise(self, error: BaseException) -> None:
        if self._off:
            return
        name = log_name(self.workflow_id)
        if self.caller is None:
            advice = how_to_resume(self.workflow_id, self._workflow)
            command = "tapps-otel " if advice.is_command else ""
            note = f"{RESUME_NOTE}{command}{advice.text}"
        else:  # the resume of the run around it resumes it too
            note = (
                f"in run {self.workflow_id!r}, which step {self.caller.step_id!r} of run "
                f"{self.caller.workflow_id!r} called: tapps-otel show {name}"
            )
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
        """Decide how the run ends, and write that. Only the first decision counts."""
        if self.root.span is not None:
            self.root.span.hold(event, self.rules, self.put_blob)
        try:
            with self.lock:
                if self._ending is not None:
                    return
                self._ending, self.root.state = event, state
            self._write_ending(event)
        except BaseException as error:
            if self._ending is event and not isinstance(error, LogError):
                self._write_ending(event)  # Ctrl-C in the middle of it
            raise

    def _write_ending(self, event: Event) -> None:
        """Do what follows from the decision. Idempotent."""
        span = self.root.span
        try:
            if not event.seq:
                self.write(event)
        finally:
            if span is not None:
                run_registry.end(self.trace_id, self.workflow_id, clock.time_ns())
                span.end(event, sha=None if self._writer is None else self._writer.sha)

    def handle_sigterm(self) -> None:
        """Record SIGTERM as an interruption, until the run ends."""
        self._sigterm = SigtermHandler(self._note_sigterm)

    def _note_sigterm(self) -> None:
        self._terminated = True

    def close(self) -> None:
        """Release the scope, the log and the lease; a second call does nothing."""
        try:
            self.leave()
            note_closed(self.root)
            if self._sigterm is not None:
                self._sigterm.restore()
        finally:  # Ctrl-C may come between any two of these
            try:
                if self._writer is not None:
                    self._writer.close()
            finally:
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
        """Write the start of this execution, and an end for each step that was interrupted.

        :param interrupted: the ends of steps that the execution before left open
        :param first: the span of execution 1, the parent of those of later executions
        :param links: the spans of the interrupted steps
        """
        root, caller = self.root, self.caller
        if self._tracing is None:
            outer = current_scope.get()
            if first is None and outer is not None and not outer.run.detached:
                self.trace_id, event.parent_span_id = outer.run.trace_id, outer.span_id
            event.trace_id, event.span_id = self.trace_id, new_span_id()
            event.resource = of_process()
            if first is not None:
                event.parent_span_id = first.span_id
                note = {} if event.otel is UNSET else event.otel
                noted = note_of_links(links, None if caller is None else caller.span)
                event.otel = {"parent_is_remote": True, "links": noted, **note}
            root.span_id = event.span_id
        else:
            event.resource = self._tracing.resource or of_process()
            parent = first
            if caller is not None and not caller.is_current:  # spans are made only since then
                parent = first or caller.span
            root.span = self._tracing.start(
                event, start_ns=self._started_ns, parent=parent, links=links
            )
            root.span_id, self.trace_id = root.span.span_id, root.span.trace_id
            self._enter_trace(event)
        self.write(event)
        self._workflow = event.workflow or {}
        if root.span is not None:
            root.span.record(event)
        for end in interrupted:
            self.replay.feed(end, self.write(end))
        if first is not None and first.flags & 1 and self._tracing is not None:
            self._catch_up(self._tracing)
        _runs.add(self)
        note_open(root)

    def _catch_up(self, tracing: Tracing) -> None:
        """Send spans that earlier executions could not send. The run does not depend on it."""
        if self._writer is not None:
            try:
                name = log_name(self.workflow_id)
                tracing.catch_up(self._writer.path.parent, name, self.execution)
            except Exception as error:  # noqa: BLE001 - no thread available, a broken import
                warn_once("catching up", error)

    def _enter_trace(self, event: Event) -> None:
        """Register the run by its trace, for exporters, without keeping it alive."""
        me = weakref.ref(self)

        def append(event: Event, sync: bool) -> int | None:  # noqa: FBT001 - every span comes here
            run = me()
            if run is None:
                raise LookupError
            return run.append_captured(event, sync=sync)

        if self._writer is not None:
            note = event.otel if isinstance(event.otel, dict) else {}
            run = run_registry.KnownRun(
                self.workflow_id,
                self._writer.path.parent,
                self.execution,
                self._started_ns,
                pid=os.getpid(),
                resource=(event.resource or {}, note.get("resource_schema", "")),
                append=append,
            )
            run_registry.enter(self.trace_id, run)

    def append_captured(self, event: Event, *, sync: bool) -> int | None:
        """Write a span that another library made, while the run is in progress.

        :returns: its seq; ``None``: the log has just failed, and the event is queued
        :raises LookupError: the run is not in progress here, or its log failed before: the queue
            is for the run's own events
        """
        with held_back(), self.lock:  # so that nothing is written after the run's end
            in_progress = self.root.state is OPEN and not self.detached and self._writer is not None
            if not in_progress or self.log_failure is not None:
                raise LookupError
            return self.write(event, sync=sync)

    def detach(self) -> None:
        """Give the run up in a forked child: it is the parent's, steps are plain calls here."""
        self.detached, self.write = True, _write_nothing
        self.lock = threading.RLock()  # a thread of the parent may hold the old one
        if self._lease is not None:
            self._lease.detach()

    def __repr__(self) -> str:
        return f"<Run {self.workflow_id!r}, execution {self.execution}>"


def _put_questions(event: Event, questions: tuple[Question, ...]) -> None:
    """Put what a run waits for into its end: the words, and the earliest time."""
    words = [_shortened(one.question) for one in questions if one.question is not None]
    times = [one.until for one in questions if one.until is not None]
    if words:
        event.question = "; ".join(words[:_QUESTIONS])
        if len(words) > _QUESTIONS:
            event.question += f"; and {len(words) - _QUESTIONS} more"
    if times:
        event.until = min(times)


def _shortened(words: str) -> str:
    return words if len(words) <= _WORDS else f"{words[: _WORDS - 3]}..."


# A forked child must not write to its parent's runs: both would execute them.
_runs: weakref.WeakSet[RunRecorder] = weakref.WeakSet()


def _detach_all() -> None:
    for run in list(_runs):
        run.detach()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_all)
