"""The attempt of a step that a worker executes, as its driver records it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, Struct, convert
from msgspec.structs import replace

from tapps_otel import clock
from tapps_otel.errors import LogError, RefusalError, StepResultError
from tapps_otel.names import ATTR
from tapps_otel.otel import run_registry
from tapps_otel.otel.seam import SpanRef
from tapps_otel.run.attempt import AttemptRecorder
from tapps_otel.run.current_recorder import recorder_of
from tapps_otel.run.remote.messages import Note
from tapps_otel.run.scope import COMPLETED
from tapps_otel.run.step_spec import NOT_PERSISTED

if TYPE_CHECKING:
    from tapps_otel.log.event import Event
    from tapps_otel.run.recorder import RunRecorder
    from tapps_otel.run.remote.messages import Answer

__all__ = ["Outcome", "RemoteAttempt"]

_ELSEWHERE: Final = -1  # the thread of its code: none that could wait for it
_FAILED: Final = frozenset({"failed", "timeout", "cancelled", "interrupted"})


class Outcome(Struct, eq=False):
    """How an attempt ended.

    :ivar value: its result
    :ivar error: what it raised
    :ivar wait_ns: how long to wait before the next try; ``None``: there is none
    """

    value: Any = None
    error: BaseException | None = None
    wait_ns: int | None = None


class RemoteAttempt(AttemptRecorder, kw_only=True, eq=False):
    """Records one try of a step that a worker executes.

    To its scope it is like one in another thread, which is waited for.

    :ivar engine: name of the executor
    :ivar answer: of the worker; ``None`` until it has come, or if it never comes
    """

    engine: str = ""
    answer: Answer | None = None
    _broken_with: int | None = None
    _has_begun: bool = True
    _runs_again: bool = False

    def send_to(self, engine: str) -> None:
        """Note that another thread or process executes it."""
        self.thread, self.task, self.watched, self.engine = _ELSEWHERE, None, None, engine

    def again(self) -> RemoteAttempt:
        """The next try of the step.

        :raises RunEndedError: the scope has ended meanwhile
        """
        following = super().again()
        assert isinstance(following, RemoteAttempt)  # noqa: S101 - for the type checker
        following.send_to(self.engine)
        return following

    def drop(self) -> None:
        """Give it up before it has started: nothing was written."""
        self.release_self()

    def never_began(self, error: BaseException) -> None:
        """End it, because its code was not executed: it runs again, and has nothing to answer for.

        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        self._has_begun = False
        self.abandon(error)

    def refusal(self) -> Exception:
        """What was refused before in its run, and is raised by every later call."""
        refusal = self._recorder.replay.refusal
        assert refusal is not None  # noqa: S101 - for the type checker
        return refusal

    @property
    def _recorder(self) -> RunRecorder:
        return recorder_of(self)

    def _start_event(self) -> Event:
        event = super()._start_event()
        given = {} if event.attributes is UNSET else event.attributes
        event.attributes = {**given, ATTR.ENGINE: self.engine}
        return event

    def context(self) -> dict[str, str]:
        """The current context with its span, as variables of an environment."""
        span = SpanRef(self.run.trace_id, self.span_id)
        if self.span is None and "opentelemetry.trace" not in sys.modules:
            return {"TRACEPARENT": f"00-{span.trace_id}-{span.span_id}-{span.flags:02x}"}
        from tapps_otel.otel.propagation import inject

        environment: dict[str, str] = {}
        with self.current():
            inject(environment, span)
        return environment

    # -- how it ends: its end is written, and `settle_end` waits until that is synced

    def end_as(self, answer: Answer, spans: list[Event], failures_so_far: int) -> Outcome | None:
        """End it as the worker answers.

        :param failures_so_far: of this call, without this try
        :returns: ``None``: it has ended before, because its scope could not wait
        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        if self.begin_end() is None:
            return None
        self.answer = answer
        try:
            self._write_made(answer, spans)
            self.awaits_end = True
            if answer.status in {"completed", "skipped"}:
                return self._succeed(answer)
            return self._fail(self._rebuilt(answer), failures_so_far)
        except StepResultError as error:  # the code of the driver reads it in another way
            self.answer = replace(answer, status="failed", error=None)
            return self._fail(error, failures_so_far)
        except LogError:
            self._end_without_log()
            raise

    def _succeed(self, answer: Answer) -> Outcome:
        data, spec, skipped = bytes(answer.result), self.spec, answer.status == "skipped"
        value = None if skipped and data == b"null" else spec.read_result(data)
        event = self._end_event("step_skip" if skipped else "step_finish", answer.status)
        if skipped:
            event.reason = answer.reason
        if answer.artifacts:
            event.artifacts = answer.artifacts
        if skipped or spec.policy.persist:
            self.run.store_result(event, data, spec.title, spec.policy)
        else:
            event.result_omitted = NOT_PERSISTED
        self.result = value
        self._end(event, COMPLETED)
        return Outcome(value=value)

    def _fail(self, error: BaseException, failures_so_far: int) -> Outcome:
        wait_ns = self.fail_drained(error, failures_so_far + 1)
        return Outcome(error=error, wait_ns=wait_ns)

    def _rebuilt(self, answer: Answer) -> BaseException:
        """The exception that the step raised, as a resume would raise it."""
        try:
            return self._recorder.replay.rebuild(self.step_id, answer.error or {})
        except RefusalError as refusal:
            return refusal

    def interrupt(
        self, error: BaseException, *, can_rerun: bool, broken_with: int | None = None
    ) -> bool:
        """End it because the engine has lost it; return whether another try follows.

        :param can_rerun: whether the engine could execute that
        :param broken_with: how many other steps the executor had when it broke: if any, it is not
            known which one broke it, and this does not count
        :raises RefusalError: it does not run again by itself
        """
        run, policy = self._recorder, self.spec.policy
        if self.begin_end() is None:
            return False
        if not self.kept:  # its history tells how often it was interrupted
            self.kept = True
            run.remember(self, self.start_event, self.start_event.seq)
        record = run.replay.by_id[self.step_id]
        self._broken_with = broken_with
        counted = record.interruptions + (not broken_with)
        may = policy.on_interrupted == "rerun" and counted <= policy.max_interruptions
        self._runs_again = can_rerun and may and not run.refused
        self.is_lost = True
        self.fail_drained(error)
        if can_rerun:
            with run.lock:
                run.replay.check_rerun(self.spec, record)
        return self._runs_again

    def settle_end(self) -> None:
        """Wait until its end is as safe as promised, and end its span.

        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        pending = self._end_write
        if pending is None:
            return
        try:
            self._write_end(pending.event)
        except LogError:
            self._end_without_log()
            raise

    # -- what its events have

    def _end_event(self, event_type: str, status: str) -> Event:
        event, answer = super()._end_event(event_type, status), self.answer
        if answer is not None:
            assert isinstance(event.duration_ns, int)  # noqa: S101 - for the type checker
            event.attributes = {
                ATTR.WORKER_HOST: answer.host,
                ATTR.WORKER_PID: answer.pid,
                ATTR.WORKER_DURATION: answer.duration_ns / 1e9,
                ATTR.WORKER_WAIT: max(0, event.duration_ns - answer.duration_ns) / 1e9,
            }
        elif self._broken_with is not None:
            event.attributes = {ATTR.BROKEN_WITH: self._broken_with}
        return event

    def _status_of(self, error: BaseException) -> str:
        if not self._has_begun:
            return "cancelled"
        if self.answer is None or self.answer.status not in _FAILED:
            return super()._status_of(error)
        return self.answer.status

    def _put_error(self, event: Event, error: BaseException) -> None:
        if self.answer is None or self.answer.error is None:
            super()._put_error(event, error)
        else:
            event.error = self.answer.error

    def _end(self, event: Event, state: str, release: bool = True) -> None:  # noqa: FBT001, FBT002 - as the base class
        super()._end(event, state, release and not self._runs_again)

    def _write_end(self, event: Event) -> None:
        if self.awaits_end:
            self.awaits_end = False
            self._end_write = self.run.write_ahead(event)
            if self._end_write is not None:
                return
        super()._write_end(event)

    # -- what its code has left besides its result

    def _write_made(self, answer: Answer, spans: list[Event]) -> None:
        run = self._recorder
        for event in spans:
            self._write_span(event)
        if answer.notes:
            self._write_notes(answer.notes)
        for text in answer.warnings:
            run.warn_once(text)
        if answer.notes_dropped or answer.spans_dropped:
            dropped = {"annotations": answer.notes_dropped, "spans": answer.spans_dropped}
            run.annotate("tapps.worker.dropped", dropped, self)
        if answer.definition != self.spec.definition:
            self._compare_code(answer)

    def _write_notes(self, notes: list[dict[str, Any]]) -> None:
        ended = clock.monotonic_ns()
        for note in notes:
            made = convert(note, Note)
            self._recorder.annotate(made.name, made.attributes, self, at=ended - made.before_end_ns)

    def _write_span(self, event: Event) -> None:
        run = self._recorder
        known = run_registry.find(int(run.trace_id, 16), workflow_id=run.workflow_id)
        event.workflow_id, event.execution, event.seq = run.workflow_id, run.execution, 0
        if known is not None and known.resource and known.resource[0] == event.resource:
            event.resource = UNSET
        run.write(event)

    def _compare_code(self, answer: Answer) -> None:
        """Report that the worker has another version of the step's code."""
        ours, theirs = self.spec.definition, answer.definition
        if theirs is None or ours is None:
            return
        run, name = self._recorder, self.spec.name
        text = (
            f"step {name!r} was executed by a worker on {answer.host} with another version of its "
            "code than the driver has: update the code there, or restart the worker"
        )
        if run.warn_once(text):
            changed = {"step": name, "host": answer.host, "driver": ours, "worker": theirs}
            run.annotate("tapps.worker.definition_differs", changed, self)
