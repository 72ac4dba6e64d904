"""``pause()``: a run waits for an answer, or for a time, and its process need not.

A pause is a step. Its start has the question; its end is written by whoever answers, or by the
execution that finds its time has come. Until then its attempt stays open: in later executions too.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from tapps_otel import clock
from tapps_otel.errors import LogWriteError, Question
from tapps_otel.past.fold import Pause
from tapps_otel.run.attempt import AttemptRecorder, status_of
from tapps_otel.run.codecs.native import MOST_TEXT, check_text, to_json
from tapps_otel.run.current_recorder import recorder_of
from tapps_otel.run.ends_from_history import no_answer, type_changed
from tapps_otel.run.policy import Policy
from tapps_otel.run.question_types import AnswerType
from tapps_otel.run.scope import current_scope
from tapps_otel.run.step_spec import StepSpec, Stored
from tapps_otel.run.time_limit import TimeLimit, time_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.log.event import Event
    from tapps_otel.past.fold import StepHistory
    from tapps_otel.run.recorder import RunRecorder
    from tapps_otel.run.scope import Scope

__all__ = ["apause", "pause"]

T = TypeVar("T")
Until = datetime | timedelta | float

_POLICY: Final = Policy(max_interruptions=sys.maxsize)  # an interrupted question is asked again
# Passes of the event loop: a task that was given a result takes a few to begin its next step.
_PASSES: Final = 8
_LOOK: Final = 0.01  # seconds between two looks at steps in progress
_PATIENCE_NS: Final = 10 * 10**9  # until a warning names these steps
_SHOWN: Final = 10  # steps in that warning


@overload
def pause(*, until: Until, name: str = ...) -> None: ...
@overload
def pause(question: str, *, type: type[T], name: str = ...) -> T: ...
@overload
def pause(question: str, *, type: type[T], until: Until, name: str = ...) -> T | None: ...
@overload
def pause(question: str, *, type: Any = ..., until: Until | None = ..., name: str = ...) -> Any: ...
def pause(
    question: str | None = None,
    *,
    type: Any = Any,  # noqa: A002 - what it is
    until: Until | None = None,
    name: str = "pause",
) -> Any:
    """Wait for an answer, or for a time: the run ends as paused, and is resumed later.

    The first time it does not return: :class:`~tapps_otel.errors.RunPausedError` leaves the call
    of the workflow. An answer is given by :func:`answer`, or by ``tapps-otel answer``; a resume
    then returns it here. No ``except Exception`` catches the pause. In ``async def`` code, call
    :func:`apause`.

    :param question: for whoever answers; without one it is a timer, which needs ``until``
    :param type: of the answer: whatever pydantic can read from JSON; by default any JSON value
    :param until: when to stop to wait: a time with a zone, a time span, or seconds from now. Then
        ``None`` is returned. It is computed once: a later execution waits for the same time. A
        time in the past is due at once
    :param name: of the step
    :returns: the answer; ``None`` for a timer, and for a question without an answer in time
    :raises LookupError: it is not called inside a run that can wait
    :raises TypeError: it is called in ``async def`` code, or a parameter is of another type
    :raises ValueError: ``until`` is a time without a zone, or a negative span; the question has
        more than 16 KiB
    """
    caller = sys._getframe(1).f_code  # noqa: SLF001 - nothing else tells who calls
    if caller.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        msg = f"pause() is called in the async code of {caller.co_qualname}: write await apause()"
        raise TypeError(msg)
    wait = _Wait(question, type, until, name)
    entered = wait.enter()
    if isinstance(entered, Stored):
        return entered.result
    try:
        if entered.end_if_due():
            return None
        entered.stop()
    except BaseException as error:  # Ctrl-C
        entered.lose(error)
        raise


@overload
async def apause(*, until: Until, name: str = ...) -> None: ...
@overload
async def apause(question: str, *, type: type[T], name: str = ...) -> T: ...
@overload
async def apause(question: str, *, type: type[T], until: Until, name: str = ...) -> T | None: ...
@overload
async def apause(
    question: str, *, type: Any = ..., until: Until | None = ..., name: str = ...
) -> Any: ...
async def apause(
    question: str | None = None,
    *,
    type: Any = Any,  # noqa: A002 - what it is
    until: Until | None = None,
    name: str = "pause",
) -> Any:
    """Wait as :func:`pause` does, in async code.

    Before the run ends, other tasks may go on until each of them waits, too, or has no step in
    progress: several questions can be open at once.
    """
    wait = _Wait(question, type, until, name)
    entered = wait.enter()
    if isinstance(entered, Stored):
        return entered.result
    try:
        if entered.end_if_due():
            return None
        await _until_all_wait(entered)
        entered.stop()
    except BaseException as error:
        entered.give_way(error)
        raise


class _Wait:
    """What one call of ``pause`` waits for.

    :raises LookupError: it is not called inside a run that can wait
    """

    def __init__(self, question: str | None, kind: Any, until: Until | None, name: str) -> None:
        if question is not None:
            check_text(question, "the question of a pause", most=MOST_TEXT)
        elif until is None:
            msg = "pause() needs a question, or until= for a timer"
            raise TypeError(msg)
        elif kind is not Any:
            msg = "pause() has a type= and no question: a timer has no answer"
            raise TypeError(msg)
        self._question = question
        self._type = AnswerType(kind)
        self._until = None if until is None else _deadline(until)
        self._spec = StepSpec(name, policy=_POLICY)
        self._spec.read_result = self._type.read
        self._spec.inputs_json = self._inputs_json

    def _inputs_json(self, *_: object) -> bytes:
        return to_json({"question": self._question})

    def enter(self) -> PauseRecorder | Stored:
        """The answer that the log has, or the attempt that waits."""
        scope = current_scope.get()
        if scope is not None and recorder_of(scope).in_worker:
            raise LookupError(
                "pause() cannot wait in a worker of an executor: call it in the workflow, or in a "
                "step that the workflow calls"
            )
        if scope is None or scope.run.is_detached():
            raise LookupError(
                "pause() can only wait inside a run: call it in a workflow or its steps. (With "
                "TAPPS_OTEL_ENABLED=0, and in forked children, there is none.)"
            )
        run = recorder_of(scope)
        if not run.can_wait:
            msg = f"run {run.workflow_id!r} is a third-party executor's, which decides when it ends"
            raise LookupError(msg)
        # The deadline does not count: it is computed anew by each execution.
        digest = sha256(to_json(self._question)).hexdigest()
        entered = run.enter(scope, self._spec, digest, None, arguments=((), {}), make=PauseRecorder)
        if isinstance(entered, Stored):
            return entered
        if not isinstance(entered, PauseRecorder):  # it is None: no attempt, no outcome
            raise LookupError(  # noqa: TRY004 - not about a type that was given
                f"pause() was called after the end of run {run.workflow_id!r}"
            )
        self._begin(run, entered)
        return entered

    def _begin(self, run: RunRecorder, attempt: PauseRecorder) -> None:
        """Start the attempt, unless an earlier execution did that and left it open."""
        record = run.replay.by_id.get(attempt.step_id)
        until = self._time_until(record)
        if record is not None and record.waits:
            if record.pause is not None and record.pause.schema == self._type.schema:
                attempt.continue_from(record.last.number, record.pause)
                return
            event = type_changed(run.replay.history, record)
            run.replay.feed(event, run.write(event))
        words = None if self._question is None else attempt.scope.rules.text(self._question)
        attempt.waits_for = Pause(words, self._type.schema, until)
        attempt.start()
        if run.log_dir is not None and (run.log_failure or not attempt.has_started):
            # A question that is not in the log cannot be answered.
            problem = run.log_failure or "the question does not fit into a line of the log"
            error = LogWriteError(run.log_dir / f"{run.workflow_id}.jsonl", problem)
            attempt.fail(error)
            raise error

    def _time_until(self, before: StepHistory | None) -> str | None:
        """When to stop to wait: the time of an earlier attempt counts, unless it was cancelled."""
        if before is None or before.pause is None or before.status == "cancelled":
            return self._until
        return before.pause.until or self._until


class PauseRecorder(AttemptRecorder, kw_only=True, eq=False):
    """Records the attempt of a pause.

    :ivar waits_for: what it waits for
    :ivar is_continued: an earlier execution began it, and its start is in the log
    """

    waits_for: Pause = Pause()
    is_continued: bool = False

    def _start_event(self) -> Event:
        event = super()._start_event()
        pause = self.waits_for
        if pause.question is not None:
            event.question = pause.question
        if pause.schema is not None:
            event.answer_schema = pause.schema
        if pause.until is not None:
            event.until = pause.until
        return event

    def continue_from(self, number: int, pause: Pause) -> None:
        """Wait as the attempt that an earlier execution began, and left open."""
        self.number, self.waits_for, self.is_continued = number, pause, True

    def end_if_due(self) -> bool:
        """End it if its time has come before it waited at all; return whether."""
        if self.is_continued or not self.waits_for.is_due(clock.time_ns()):
            return False
        if self.waits_for.question is None:
            self.finish(None)
        else:
            self.skip(no_answer(self.waits_for.until), None)
        return True

    def stop(self) -> None:
        """Leave it open, and let its run end as paused.

        :raises Paused: always
        """
        run = recorder_of(self)
        run.pause_with(self, (self._as_question(),))
        self.release_self()
        raise run.waits.paused(self)

    def give_way(self, error: BaseException) -> None:
        """End it as its task is cancelled; it stays open if the run waits by now, or did before."""
        run = recorder_of(self)
        if run.waits and status_of(error) in {"cancelled", "paused"}:
            run.pause_with(self, (self._as_question(),))
            self.release_self()
        elif self.is_continued:
            self.release_self()
        else:
            self.fail(error)

    def _as_question(self) -> Question:
        pause = self.waits_for
        return Question(self.run.workflow_id, self.step_id, pause.question, pause.until)


async def _until_all_wait(own: PauseRecorder) -> None:
    """Wait until no task or thread of the run is inside a step that does not wait, too.

    Of several pauses, one looks for all.
    """
    place = (recorder_of(own).root, asyncio.get_running_loop())
    watch = _watches.setdefault(place, _Watch())
    watch.join(own)
    try:
        async with watch.turn:
            while not watch.is_quiet:
                await watch.look(own)
    except BaseException:
        for limit in time_limits.get():
            limit.start_clock()
        raise
    finally:
        watch.leave(own)
        if watch.is_idle:
            _watches.pop(place, None)


class _Watch:
    """Looks what is in progress, for the pauses of a run that wait in one event loop.

    It looks from time to time: a hook at the end of every step would cost all steps.

    :ivar turn: held by the pause that looks
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._pauses: dict[PauseRecorder, tuple[TimeLimit, ...]] = {}
        self._quiet = 0  # passes of the event loop
        self._began_ns = clock.monotonic_ns()
        self._has_warned = False

    def join(self, pause: PauseRecorder) -> None:
        """Look for a pause, too; its task has only just come to it."""
        self._pauses[pause] = time_limits.get()
        self._quiet = 0

    def leave(self, pause: PauseRecorder) -> None:
        """Look no longer for a pause."""
        del self._pauses[pause]

    @property
    def is_idle(self) -> bool:
        """Whether no pause waits."""
        return not self._pauses

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has been in progress for so long that no task begins a step."""
        return self._quiet >= _PASSES

    async def look(self, pause: PauseRecorder) -> None:
        """Look once, and wait until it is worth to look again."""
        tasks = {one.task for one in self._pauses if one.task is not None}
        for limit in {limit: None for limits in self._pauses.values() for limit in limits}:
            _let_time_pass(limit, tasks)
        steps = sorted(set(_at_work(recorder_of(pause).root, tasks)))
        self._quiet = 0 if steps else self._quiet + 1
        if steps and clock.monotonic_ns() - self._began_ns > _PATIENCE_NS and not self._has_warned:
            self._has_warned = True
            _warn_of_wait(pause, steps)
        await asyncio.sleep(_LOOK if steps else 0)


_watches: Final[dict[tuple[Scope, asyncio.AbstractEventLoop], _Watch]] = {}


def _let_time_pass(limit: TimeLimit, tasks: set[asyncio.Task[Any]]) -> None:
    """Let the time-out of a step count only while something inside does not wait."""
    if limit.scope is not None and any(_at_work(limit.scope, tasks)):
        limit.start_clock()
    else:
        limit.stop_clock()


def _warn_of_wait(pause: PauseRecorder, steps: list[str]) -> None:
    """Log a warning which steps keep a run from pausing."""
    shown = ", ".join(map(repr, steps[:_SHOWN])) + (", ..." if len(steps) > _SHOWN else "")
    pause.run.warn_once(
        f"run {pause.run.workflow_id!r} does not pause yet for its question in step "
        f"{pause.step_id!r}: it waits for steps in progress: {shown}. If these wait for that "
        "pause, as for a semaphore that is held around it, ask outside of it "
        "(tapps-otel docs pauses)"
    )


def _at_work(scope: Scope, tasks: set[asyncio.Task[Any]]) -> Iterator[str]:
    """Yield the steps inside that are in progress, do not wait for an answer, and can end.

    :param tasks: those of the pauses that wait: a step of such a task cannot end before them
    """
    for one in list(scope.open or ()):
        if not isinstance(one, AttemptRecorder) or isinstance(one, PauseRecorder):
            continue
        if one.open:
            yield from _at_work(one, tasks)
        elif not (one.by_hand or one.task in tasks or (one.task and one.task.done())):
            yield one.step_id


def _deadline(until: Until) -> str:
    """A time in the form of the log.

    :raises TypeError: it is neither a time nor a span
    :raises ValueError: a time without a zone, a negative span, or one beyond the calendar
    """
    if isinstance(until, bool) or not isinstance(until, datetime | timedelta | int | float):
        msg = f"until={until!r:.80}: expected a datetime with a zone, a timedelta, or seconds"
        raise TypeError(msg)
    if until != until:  # noqa: PLR0124 - only NaN is not equal to itself
        msg = f"until={until!r}: it is not a number of seconds"
        raise ValueError(msg)
    try:
        if isinstance(until, datetime):
            return clock.timestamp(_ns_of(until))
        span = until if isinstance(until, timedelta) else timedelta(seconds=until)
        if span < timedelta():
            msg = f"until={until!r}: a span of time cannot be negative"
            raise ValueError(msg)
        return clock.timestamp(clock.time_ns() + span // timedelta(microseconds=1) * 1000)
    except OverflowError as error:
        msg = f"until={until!r}: it is beyond the calendar"
        raise ValueError(msg) from error


def _ns_of(at: datetime) -> int:
    if at.utcoffset() is None:
        msg = (
            f"until={at!r}: a time without a zone means another moment elsewhere: give it one, as "
            "datetime.now(UTC) + timedelta(hours=2), or give the time span"
        )
        raise ValueError(msg)
    since = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return max(0, since // timedelta(microseconds=1) * 1000)
