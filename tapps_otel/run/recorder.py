"""A run being carried out: every event is written first, then told to its span.

:class:`Run` holds the lease, the log and what the log said before; :class:`Attempt` is one try of
a step. How a run is opened, and what it finds there, is :mod:`tapps_otel.run.opening`'s.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from msgspec import UNSET, Raw

from tapps_otel import clock
from tapps_otel.errors import (
    LogWriteError,
    RunEndedError,
)
from tapps_otel.log.blobs import INLINE_LIMIT
from tapps_otel.log.event import Event
from tapps_otel.names import escape, join_step_id, log_name, new_span_id, new_trace_id
from tapps_otel.otel import run_registry
from tapps_otel.otel.resource import of_process
from tapps_otel.otel.seam import note_of_links, warn_once
from tapps_otel.run import failures
from tapps_otel.run.attempt import Attempt, status_of
from tapps_otel.run.replay_state import Memory
from tapps_otel.run.scope import (
    CLOSING,
    COMPLETED,
    FAILED,
    OPEN,
    Scope,
    current_scope,
    leave_scope,
    running_task,
)
from tapps_otel.run.signals import SigtermHandler
from tapps_otel.run.step_spec import Call, Stored
from tapps_otel.run.values import check_text, from_json
from tapps_otel.run.values import digest as digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from tapps_otel.log.blobs import Blobs
    from tapps_otel.log.lease import Lease
    from tapps_otel.log.writer import LogWriter
    from tapps_otel.otel.seam import Measures, SpanRef, Tracing
    from tapps_otel.past.fold import Fold

__all__ = ["Run"]

_log = logging.getLogger("tapps_otel")
_SHOWN: Final = 100  # step ids in a remark


class _Write(Protocol):
    def __call__(self, event: Event, /, *, sync: bool = False) -> int | None:
        """Write an event; its seq, or ``None`` while the log fails or is not this process's.

        :param sync: before it returns, whatever the event is
        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """


def _write_nothing(_: Event, /, *, sync: bool = False) -> None:
    """Nobody's log is to be written."""


def _way_to(writer: LogWriter | None, measures: Measures | None) -> _Write:
    """How events get into a log. Chosen once, for every event of every step goes this way."""
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


class Run:
    """One carrying out of a workflow, by this process.

    Obtained from :meth:`open`, which starts or resumes it, and used as a context manager::

        with Run.open("build", workflow_id="b1") as run:
            out = run.call("compile", compile_all, src, agent="cc")

    An exception that leaves the block ends the run as failed (cancelled, interrupted); it goes on
    when it is opened again under its id. What a completed run did is answered from its log.

    :ivar workflow_id: names the run and its log
    :ivar execution: 1, 2, ...: this process's go at it
    :ivar captures_inputs: whether the inputs of steps are logged, not their digests alone
    :ivar write: writes an event
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
        measures: Measures | None = None,
        capture_inputs: bool = False,
        on_divergence: str = "fail",
        home: str | None = None,
        off: bool = False,
    ) -> None:
        self.workflow_id, self.name, self.execution = workflow_id, name, execution
        self.lock = threading.RLock()
        self.trace_id = new_trace_id()  # until its log, or an SDK, says otherwise
        # Not carried on by this process: switched off, or a forked child's copy of its parent's.
        self.detached, self._off = off, off
        self._sigterm: SigtermHandler | None = None
        self._terminated = False
        self.memory = Memory(workflow_id, fold, blobs, on_divergence, home)
        self._blobs, self._tracing, self._measures = blobs, tracing, measures
        self.captures_inputs = capture_inputs
        self._hold(lease, writer)
        self._warned: set[str] = set()
        self._started_ns = clock.time_ns()
        self._started_monotonic = clock.monotonic_ns()
        self._token: Any = None
        self._span_token: object = None
        self.root = Scope(run=self, step_id=None, thread=get_ident(), task=None)

    def _hold(self, lease: Lease | None, writer: LogWriter | None) -> None:
        self._lease, self._writer = lease, writer
        self.write = _way_to(None if self.detached else writer, self._measures)

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
        history = self.memory.history
        if history.result_blob is not None:
            return self._blobs.get(history.result_blob)
        return history.result_json or b"null"

    @property
    def refused(self) -> bool:
        """Whether a refusal was raised: from then on every call raises it."""
        return self.memory.refusal is not None

    @property
    def log_dir(self) -> Path | None:
        """Folder of its log; ``None`` where this process writes none."""
        return None if self._writer is None else self._writer.path.parent

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
        from tapps_otel.run.step import Step

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
        from tapps_otel.run.step import Step

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
        return Attempt(
            run=self,
            scope=self.root,
            call=call,
            step_id="" if entered is None else entered.step_id,
            number=0,
            thread=0,
            task=None,
            state=COMPLETED,
            result=None if entered is None else entered.result,
            by_hand=True,
        )

    def annotate(
        self, name: str, attributes: Mapping[str, Any], scope: Scope | None = None
    ) -> None:
        """Write an event of the user's own into the log and onto the span.

        :raises TypeError: ``name`` is no string
        """
        check_text(name, "the name of an annotation")
        if self.root.state in {COMPLETED, FAILED}:
            self.warn_once(f"annotation {name!r} came after the end of run {self.workflow_id!r}")
            return
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
        self.root.thread, self.root.task = get_ident(), running_task()
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
        try:
            self.leave()
            if error is None:
                await self.complete_async(lambda: b"null")
                return
            raised = await self.fail_async(error)
            if raised is not error:
                raise raised from error
        finally:  # Ctrl-C may come between any two of these
            self.close()

    def leave(self) -> None:
        """Undo :meth:`enter_root`; once more changes nothing."""
        if self._token is None:
            return
        if self.root.span is not None:
            self.root.span.detach(self._span_token)
        leave_scope(self._token)
        self._token = None

    def __enter__(self) -> Self:
        self.enter_root()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.leave()
            if error is None:
                self.complete(lambda: b"null")
                return
            raised = self.fail(error)
            if raised is not error:
                raise raised from error
        finally:  # Ctrl-C may come between any two of these
            self.close()

    # -- entering steps

    def scope_here(self) -> Scope:
        """The current scope, if it is of this run; else the workflow itself."""
        scope = current_scope.get()
        return scope if scope is not None and scope.run is self else self.root

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
        if key is not None:
            check_text(key, f"the key of step {call.name!r}")
        thread, task, memory = get_ident(), running_task(), self.memory
        with self.lock:
            if memory.refusal is not None:
                raise memory.refusal
            if scope.state is not OPEN:
                self._check_outlived(scope, call.name)
                return None
            order = scope.order_of_call(call.name, thread, task)
            matcher = scope.matcher or memory.matcher_of(scope)
            if step_id is not None:
                step_id = join_step_id(scope.step_id, escape(step_id), 1)
                record = matcher.claim_id(step_id)
            else:
                record = None if matcher.fresh else matcher.claim(call.name, digest, key)
            if record is not None:
                stored = memory.answer(scope, call, record)
                if stored is not None:
                    return stored
            if self._writer is None and self.done:
                self._check_outlived(scope, call.name)
                return None
            if record is not None:
                memory.check_rerun(call, record)
                number, step_id = record.last.number + 1, record.step_id
            else:
                if not matcher.fresh:
                    memory.check_new(scope, call, digest, key, order)
                ordinal = matcher.next_number(call.name)
                number, step_id = 1, step_id or join_step_id(scope.step_id, call.escaped, ordinal)
            attempt = Attempt(
                run=self,
                scope=scope,
                call=call,
                step_id=step_id,
                number=number,
                thread=thread,
                task=task,
                order=order,
                key=key,
                digest=digest,
            )
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

    def put_blob(self, data: bytes) -> str:
        """Keep what is too large for a line; gives its name.

        :raises OSError: it cannot be stored
        """
        return self._blobs.put(data)

    def store(self, event: Event, data: bytes) -> None:
        """Put a result into its event, or into a blob if it is large."""
        if len(data) <= INLINE_LIMIT or self.detached:
            event.result = Raw(data)
            return
        try:
            event.result_blob = self.put_blob(data)
        except OSError as error:
            if self._writer is not None and self._writer.stops:
                raise LogWriteError(self._writer.path, f"a large result: {error}") from error
            _log.error("run %s: a large result cannot be stored: %s", self.workflow_id, error)
            event.result_omitted = f"it could not be stored: {error}"

    def store_inputs(self, event: Event, data: bytes) -> None:
        """Put captured inputs into their event, or into a blob if they are large."""
        if len(data) <= INLINE_LIMIT or self.detached:
            event.inputs = Raw(data)
            return
        try:
            event.inputs_blob = self.put_blob(data)
        except OSError as error:  # the step does not depend on them
            _log.error("run %s: large inputs cannot be stored: %s", self.workflow_id, error)

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
        return self.memory.refusal or error

    async def fail_async(self, error: BaseException) -> BaseException:
        """The same from a coroutine."""
        if self.done:
            return error
        try:
            self._begin_end()
            await self.root.drain_async()
        finally:
            self._write_failed(error)
        return self.memory.refusal or error

    def _begin_end(self) -> None:
        """From here on, code that is left over cannot begin steps."""
        with self.lock:
            self.root.state = CLOSING

    def _write_completed(self, result_json: Callable[[], bytes]) -> None:
        try:
            event = self._end_event("completed")
            if self.memory.refusal is not None:
                raise self.memory.refusal
            self.store(event, result_json())
            if self.root.matcher is not None or None in self.memory.children:
                self.remark(self.root)
        except BaseException as error:
            self._write_failed(error)
            raise
        try:
            self._end(event, COMPLETED)
        finally:
            self.close()

    def _write_failed(self, error: BaseException) -> None:
        cause = self.memory.refusal or error
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
            self.close()

    def _advise(self, error: BaseException) -> None:
        if self._off:
            return
        note = f"to go on with this run: tapps-otel resume {log_name(self.workflow_id)}"
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
            span.hold(event, self.put_blob)
        try:
            self.write(event)
        finally:
            with self.lock:
                self.root.state = state
            if span is not None:
                run_registry.end(self.trace_id, self.workflow_id, clock.time_ns())
                span.end(event, sha=None if self._writer is None else self._writer.sha)

    def remark(self, scope: Scope) -> None:
        """Say, when a scope completes, what of its past nobody asked for, or was changed."""
        matcher = self.memory.matcher_of(scope)
        unasked = [record.step_id for record in matcher.unasked()]
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

    def close(self) -> None:
        """Let go of the scope, the log and the lease; once more changes nothing."""
        self.leave()
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
            outer = current_scope.get()
            if first is None and outer is not None and not outer.run.detached:
                self.trace_id, event.parent_span_id = outer.run.trace_id, outer.span_id
            event.trace_id, event.span_id = self.trace_id, new_span_id()
            event.resource = of_process()
            if first is not None:
                event.parent_span_id = first.span_id
                note = {} if event.otel is UNSET else event.otel
                event.otel = {"parent_is_remote": True, "links": note_of_links(links), **note}
            root.span_id = event.span_id
        else:
            event.resource = self._tracing.resource or of_process()
            root.span = self._tracing.start(
                event, start_ns=self._started_ns, parent=first, links=links
            )
            root.span_id, self.trace_id = root.span.span_id, root.span.trace_id
            self._enter_trace(event)
        self.write(event)
        if root.span is not None:
            root.span.record(event)
        for end in interrupted:
            self.memory.feed(end, self.write(end))
        if first is not None and first.flags & 1 and self._tracing is not None:
            self._catch_up(self._tracing)

    def _catch_up(self, tracing: Tracing) -> None:
        """Let what earlier executions could not send be sent. The run does not depend on it."""
        if self._writer is not None:
            try:
                name = log_name(self.workflow_id)
                tracing.catch_up(self._writer.path.parent, name, self.execution)
            except Exception as error:  # noqa: BLE001 - no thread to be had, a broken import
                warn_once("catching up", error)

    def _enter_trace(self, event: Event) -> None:
        """Let exporters find this run by its trace, without keeping it alive."""
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
        """Write a span of somebody else's, while the run goes on.

        :returns: its seq; ``None``: the log has just failed, and the event waits like any other
        :raises LookupError: the run does not go on here, or its log fails already: what waits
            there is the run's own
        """
        with self.lock:  # so that nothing comes between the run's end and what is told of it
            going_on = self.root.state is OPEN and not self.detached and self._writer is not None
            if not going_on or self.log_failure is not None:
                raise LookupError
            return self.write(event, sync=sync)

    @property
    def started_ns(self) -> int:
        """When this execution began: wall clock, ns since 1970 UTC."""
        return self._started_ns

    def detach(self) -> None:
        """In a forked child: the run is the parent's, its steps are plain calls here."""
        self.detached, self.write = True, _write_nothing
        self.lock = threading.RLock()  # a thread that is not in this process may hold the old one
        if self._lease is not None:
            self._lease.release()

    def __repr__(self) -> str:
        return f"<Run {self.workflow_id!r}, execution {self.execution}>"
