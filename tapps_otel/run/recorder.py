"""Recording a run: every event is written to the log first, then given to its span.

:class:`RunRecorder` decides what the calls of steps do, and has the parts that write;
:class:`~tapps_otel.run.attempt.AttemptRecorder` records one attempt of a step.
:mod:`~tapps_otel.run.opening` opens runs; what users get is :class:`tapps_otel.run.api.Run`.
"""

from __future__ import annotations

import os
import weakref
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from tapps_otel import clock
from tapps_otel.errors import RunEndedError, StepNestingError
from tapps_otel.log.reports import held_back
from tapps_otel.names import MOST_NESTED, escape, join_step_id
from tapps_otel.run.annotations import Annotations
from tapps_otel.run.attempt import AttemptRecorder
from tapps_otel.run.awaited_write import AwaitedWrite, can_await_writes, other_callbacks_ready
from tapps_otel.run.codecs.native import check_text
from tapps_otel.run.ending import RunEnding
from tapps_otel.run.outside import note_open
from tapps_otel.run.run_state import RunState
from tapps_otel.run.scope import COMPLETED, OPEN, Scope, current_scope, running_loop, running_task
from tapps_otel.run.value_store import ValueStore

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from tapps_otel.errors import Question
    from tapps_otel.log.event import Event
    from tapps_otel.otel.seam import Tracing
    from tapps_otel.run.scope import OpenAttempt
    from tapps_otel.run.step_spec import StepSpec, Stored

__all__ = ["RunRecorder"]


class RunRecorder(RunState):
    """Records one execution of a run, by this process.

    What its parts do is bound to it, so that no step pays for a call that only passes it on. The
    code of a step takes these into local names: ``run.write(...)`` would look for a method first.

    :ivar ending: ends the run
    """

    def _compose(self) -> None:
        self.root = Scope(run=self, step_id=None, thread=get_ident(), task=None)
        values = ValueStore(self)
        self.put_blob = values.put_blob
        self.store_inputs, self.store_result = values.store_inputs, values.store_result
        annotations = Annotations(self, strict=self.strict)
        self.annotate, self.annotate_step = annotations.annotate, annotations.annotate_step
        self.report_leftovers = annotations.report_leftovers
        self.report_changed_arguments = annotations.report_changed_arguments
        self.ending = RunEnding(self, values, annotations)

    # -- entering steps

    def scope_here(self) -> Scope:
        """The current scope, if it belongs to this run; otherwise the workflow itself."""
        scope = current_scope.get()
        return scope if scope is not None and scope.run is self else self.root

    def enter(  # noqa: PLR0917 - positional for speed
        self,
        scope: Scope,
        spec: StepSpec,
        digest: str | None,
        key: str | None,
        step_id: str | None = None,
        arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
        make: Callable[..., AttemptRecorder] = AttemptRecorder,
    ) -> AttemptRecorder | Stored | None:
        """Decide what a call does: run as a new attempt, or take its outcome from the log.

        ``None``: a plain call, because the run has completed; the caller warns of it.

        :param arguments: of the call, for a message
        :param make: makes the attempt
        :raises Exception: a failure that was handled before, raised again from the log
        :raises RefusalError: to run it might do something twice
        :raises RunEndedError: the scope has ended and did not complete
        """
        if key is not None:
            check_text(key, f"the key of step {spec.name!r}")
        thread, replay = get_ident(), self.replay
        task = running_task() if running_loop() else None  # most steps have no loop
        with self.lock:
            if replay.stopped:
                self._check_stopped(scope, thread, task)
            if scope.state is not OPEN and self._is_plain_in(scope, spec.name):
                return None
            order = scope.order_of_call(spec.name, thread, task)
            matcher = scope.matcher or replay.matcher_of(scope)
            outer, record = scope.step_id, None
            if step_id is not None:
                step_id = join_step_id(outer, escape(step_id), 1)
                record = matcher.claim_id(step_id)
            elif not matcher.fresh:
                record = matcher.claim(spec.name, digest, key, spec.definition)
            if record is not None:
                stored = replay.answer(scope, spec, record)
                if stored is not None:
                    return stored
            if self.writer is None and self.done and self._is_plain_in(scope, spec.name):
                return None
            if record is not None:
                replay.check_rerun(spec, record)
                number, step_id = record.last.number + 1, record.step_id
                make = partial(make, failed_before=record.failed_tries)
            else:
                if spec.syncs_start or not matcher.fresh:
                    replay.check_new(scope, spec, digest, key, order, arguments=arguments)
                if outer is not None or self.caller is not None:
                    self._check_depth(spec, scope)
                number, ordinal = 1, matcher.next_number(spec.name)
                step_id = step_id or join_step_id(outer, spec.escaped, ordinal)
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
                kept=record is not None or outer is not None,
            )
            scope.enclose(attempt)
            return attempt

    def pause_with(self, attempt: Scope, questions: tuple[Question, ...]) -> None:
        """Note that the run waits: for what an attempt asks, or the run that it called.

        Code that catches the signal and continues is stopped at its next call. What other tasks
        and threads have begun may end, and ask what it has to ask.
        """
        with self.lock:
            self.waits.add(attempt, questions)
            self.replay.stopped = True
        self.waits.note_raised()

    def _check_stopped(self, scope: Scope, thread: int, task: asyncio.Task[Any] | None) -> None:
        """Stop a call after a refusal, and one of code in which Paused was raised.

        :raises RefusalError: one was raised before
        :raises Paused: a call of that code waits
        """
        if self.replay.refusal is not None:
            raise self.replay.refusal
        is_own = thread == scope.thread and task is scope.task
        if self.waits.was_raised() or (is_own and self.waits.is_paused_in(scope)):
            raise self.waits.paused()

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
        make = partial(AttemptRecorder, by_hand=True)
        entered = self.enter(scope, spec, digest, key, step_id, make=make)
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

    # -- writing

    def write_soon(self, event: Event, scope: Scope) -> AwaitedWrite | None:
        """Write an event that ends a step, whose sync the step's task awaits.

        :param scope: where the step was called
        :returns: ``None``: it is not written, because the task is alone, or has nothing to await
        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        writer = self.writer
        if writer is None or self.detached or not writer.is_synced or not can_await_writes():
            return None
        has_company = len(scope.open or ()) > 1 or other_callbacks_ready()
        return AwaitedWrite.begin(writer, self._watchers, event) if has_company else None

    def write_ahead(self, event: Event) -> AwaitedWrite | None:
        """Write an event that ends a step, whose sync is shared with others.

        :returns: ``None``: it is not written, because nothing is synced here
        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        writer = self.writer
        if writer is None or self.detached or not writer.is_synced:
            return None
        return AwaitedWrite.ahead(writer, self._watchers, event)

    def start_span(self, tracing: Tracing, attempt: Any, event: Event) -> None:
        """Start the span of an attempt, and put its ids into the start event."""
        span = tracing.start(event, start_ns=attempt.started_ns, parent=attempt.scope.span)
        attempt.span, attempt.span_id = span, span.span_id

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

    def note_begun(self) -> None:
        """Note that it is in progress here: forked children and calls outside it can tell."""
        _runs.add(self)
        note_open(self.root)

    def append_captured(self, event: Event, *, sync: bool) -> int | None:
        """Write a span that another library made, while the run is in progress.

        :returns: its seq; ``None``: the log has just failed, and the event is queued
        :raises LookupError: the run is not in progress here, or its log failed before: the queue
            is for the run's own events
        """
        with held_back():
            with self.lock:  # so that nothing is written after the run's end
                writer = self.writer
                in_progress = self.root.state is OPEN and not self.detached
                if writer is None or not in_progress or self.log_failure is not None:
                    raise LookupError
                began_ns = clock.monotonic_ns()
                seq = writer.append(event, sync=sync, wait=False)
            # Not with the lock: what a finalizer ends in the syncing thread needs it, too.
            if seq is not None and (sync or writer.syncs_each):
                seq = writer.settle(event)
            for watcher in self._watchers:
                watcher.wrote(event, clock.monotonic_ns() - began_ns)
            return seq


# A forked child must not write to its parent's runs: both would execute them.
_runs: weakref.WeakSet[RunRecorder] = weakref.WeakSet()


def _detach_all() -> None:
    for run in list(_runs):
        run.detach()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_all)
