"""How a run ends: as completed or by an exception, once everything open inside it has ended."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from tapps_otel import clock, settings
from tapps_otel.errors import LogError, LogWriteError, RunPausedError
from tapps_otel.log.event import Event
from tapps_otel.names import log_name
from tapps_otel.otel import run_registry
from tapps_otel.past.advice import RESUME_NOTE, how_to_resume
from tapps_otel.run import failures
from tapps_otel.run.attempt import interruption, status_of
from tapps_otel.run.ends_from_history import given_up
from tapps_otel.run.scope import CLOSING, COMPLETED, FAILED, OPEN
from tapps_otel.run.step_spec import Paused, shown_cause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapps_otel.errors import Question
    from tapps_otel.run.annotations import Annotations
    from tapps_otel.run.run_state import RunState
    from tapps_otel.run.value_store import ValueStore

__all__ = ["RunEnding"]

_log = logging.getLogger("tapps_otel")
_QUESTIONS: Final = 5  # in the end of a run that waits; the starts of its pauses have all
_WORDS: Final = 1000  # characters of each of these questions


class RunEnding:
    """Ends a run: waits for what is open inside, decides how it ends, and writes that."""

    def __init__(self, run: RunState, values: ValueStore, annotations: Annotations) -> None:
        self._run, self._values, self._annotations = run, values, annotations
        self._decided: Event | None = None  # how this execution ends, once that is decided

    # -- the ends of its code

    def exit(self, error: BaseException | None) -> None:
        """End the run as the block of its context manager ended.

        :raises RefusalError: one was raised before, even if the block caught it
        :raises RunPausedError: it waits
        """
        try:
            self._run.leave()
            if error is None:
                self.complete(lambda: b"null")
                return
            raised = self.fail(error)
            if raised is not error:
                raise raised from shown_cause(raised, error)
        finally:  # Ctrl-C may come between any two of these
            self._run.close()

    async def exit_async(self, error: BaseException | None) -> None:
        """End the run as :meth:`exit` does, without blocking the event loop."""
        try:
            self._run.leave()
            if error is None:
                await self.complete_async(lambda: b"null")
                return
            raised = await self.fail_async(error)
            if raised is not error:
                raise raised from shown_cause(raised, error)
        finally:  # Ctrl-C may come between any two of these
            self._run.close()

    def complete(self, result_json: Callable[[], bytes]) -> None:
        """End the run as completed, once everything open inside has ended.

        :param result_json: writes the result
        :raises RefusalError: one was raised before, even if the workflow caught it
        :raises RunPausedError: it waits, even if the workflow caught the signal
        :raises StepResultError: the result cannot be stored
        """
        if self._run.done:
            return
        try:
            self.begin()
            self._run.root.drain()
        except BaseException as error:
            self._write_failed(error)
            raise
        self._write_completed(result_json)

    async def complete_async(self, result_json: Callable[[], bytes]) -> None:
        """End the run as :meth:`complete` does, without blocking the event loop."""
        if self._run.done:
            return
        try:
            self.begin()
            await self._run.root.drain_async()
        except BaseException as error:
            self._write_failed(error)
            raise
        self._write_completed(result_json)

    def fail(self, error: BaseException) -> BaseException:
        """End the run by an exception, once everything open inside has ended.

        :returns: the exception to raise: ``error``, unless it hides a refusal, or the run waits
        """
        if not self._run.done:
            with self._recording_failure(error):
                self.begin()
                self._run.root.drain(interruption(error))
        return self._to_raise(error)

    async def fail_async(self, error: BaseException) -> BaseException:
        """End the run as :meth:`fail` does, without blocking the event loop."""
        if not self._run.done:
            with self._recording_failure(error):
                self.begin()
                await self._run.root.drain_async(interruption(error))
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
            _log.error("run %r: its end cannot be recorded: %r", self._run.workflow_id, problem)

    def begin(self) -> None:
        """Refuse further steps."""
        root = self._run.root
        with self._run.lock:
            if root.state is OPEN:
                root.state = CLOSING

    # -- how it ends

    def _write_completed(self, result_json: Callable[[], bytes]) -> None:
        run = self._run
        try:
            event = self.event("completed")
            if run.replay.refusal is not None:
                raise run.replay.refusal
            run.waits.check_not_paused(run.root)
            self._values.store_result(event, result_json(), f"run {run.workflow_id!r}")
            self._annotations.report_leftovers(run.root)
            self._end_unasked_pauses()
        except BaseException as error:
            self._write_failed(error)
            raised = self._to_raise(error)
            if raised is error:
                raise
            raise raised from shown_cause(raised, error)
        try:
            self.decide(event, COMPLETED)
        finally:
            run.close()

    def _end_unasked_pauses(self) -> None:
        """End the pauses of earlier executions that this one, which completes, did not call."""
        replay = self._run.replay
        for step in replay.pauses:
            if step.waits:
                self._run.write(given_up(replay.history, step))

    def _write_failed(self, error: BaseException) -> None:
        run = self._run
        if run.root.open:  # the wait for it was interrupted
            run.root.give_up(error)
        cause = self._ends_by(error)
        event = self.event("interrupted" if run.terminated else status_of(cause))
        if isinstance(cause, Paused):
            _put_questions(event, cause.questions)
        else:
            event.error = failures.describe(cause, run.rules, hides_values=run.hides_values)
            if not run.off:
                _add_note(cause, _advice(run))
        both = (error, cause)
        blamed = {step_id: None for one in both for step_id in run.caused_by(one, None)}
        if blamed:
            event.caused_by = list(blamed)
        try:
            self.decide(event, FAILED)
        except LogWriteError as failure:
            _log.error("%s", failure)
        finally:
            run.close()

    def _ends_by(self, error: BaseException) -> BaseException:
        """What ends the run whose code ``error`` left: a refusal, or that it waits, come first.

        Whoever interrupts or cancels it while it ends, interrupts or cancels it.
        """
        run = self._run
        if run.replay.refusal is not None:
            return run.replay.refusal
        if run.waits and status_of(error) in {"failed", "timeout", "paused"}:
            return run.waits.paused()
        return error

    def _to_raise(self, error: BaseException) -> BaseException:
        """What the caller of the run gets in place of ``error``."""
        cause = self._ends_by(error)
        if not isinstance(cause, Paused):
            return cause
        if self._run.caller is not None:  # the run around it waits, too
            return error if isinstance(error, Paused) else cause
        return RunPausedError(self._run.workflow_id, cause.questions, _options(self._run))

    # -- writing it

    def event(self, status: str) -> Event:
        """The event that ends the run now, with this status."""
        run, now = self._run, clock.monotonic_ns()
        return Event(
            event_type="workflow_end",
            workflow_id=run.workflow_id,
            **run.clock.times(now),
            trace_id=run.trace_id,
            span_id=run.root.span_id,
            execution=run.execution,
            status=status,
            duration_ns=now - run.started_monotonic,
        )

    def decide(self, event: Event, state: str) -> None:
        """Decide how the run ends, and write that. Only the first decision counts."""
        run, root = self._run, self._run.root
        if root.span is not None:
            root.span.hold(event, run.rules, self._values.put_blob)
        try:
            with run.lock:
                if self._decided is not None:
                    return
                self._decided, root.state = event, state
            self._write(event)
        except BaseException as error:
            if self._decided is event and not isinstance(error, LogError):
                with suppress(LogError):  # which would hide Ctrl-C, in the middle of it
                    self._write(event)
            raise

    def _write(self, event: Event) -> None:
        """Do what follows from the decision. Idempotent."""
        run, span = self._run, self._run.root.span
        try:
            run.write(event)
        finally:
            if span is not None:
                run_registry.end(run.trace_id, run.workflow_id, clock.time_ns())
                span.end(event, sha=None if run.writer is None else run.writer.sha)


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


def _advice(run: RunState) -> str:
    """What to do next with a run that failed."""
    if run.caller is None:
        advice = how_to_resume(run.workflow_id, run.workflow)
        command = "tapps-otel " if advice.is_command else ""
        options = _options(run) if advice.is_command else ""
        return f"{RESUME_NOTE}{command}{advice.text}{options}"
    # The resume of the run around it resumes it too.
    return (
        f"in run {run.workflow_id!r}, which step {run.caller.step_id!r} of run "
        f"{run.caller.workflow_id!r} called: tapps-otel show {log_name(run.workflow_id)}"
        f"{_options(run)}"
    )


def _options(run: RunState) -> str:
    """What commands about a run need besides its id."""
    return "" if run.log_dir is None else settings.log_dir_option(run.log_dir)


def _add_note(error: BaseException, note: str) -> None:
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
