"""Whether a workflow resumes: it is killed after each of its events, and resumed."""

from __future__ import annotations

import asyncio
import copy
import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, TypeVar, overload

from tapps_otel import clock
from tapps_otel.errors import RunPausedError, StepInterruptedError
from tapps_otel.log import files
from tapps_otel.run.answering import answer
from tapps_otel.run.workflow import Workflow
from tapps_otel.testing.children import CRASHED, die, in_child
from tapps_otel.testing.crashes import watching
from tapps_otel.testing.runs import Runs, isolated_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from tapps_otel.past.fold import RunHistory

__all__ = ["answering", "assert_resumes"]

P = ParamSpec("P")
R = TypeVar("R")

_ID: Final = "resumed"
_MOST: Final = 200  # events after which a workflow is killed
_MOST_PAUSES: Final = 200  # of one run, one after the other
_CHANGED: Final = "tapps.arguments_changed"
_UNASKED: Final = "tapps.unasked"
_answers: ContextVar[Mapping[str, Any] | None] = ContextVar("tapps_otel_answers", default=None)


# Of callables, because the result of a workflow is invariant and a coroutine has several types.
@overload
def assert_resumes(
    workflow: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
) -> R: ...
@overload
def assert_resumes(workflow: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
def assert_resumes(workflow: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Assert that a workflow comes to the same end wherever it is killed.

    It runs once as it is. Then it is killed after each of its events (after 200 of them, if there
    are more), in this process and in a child process, and resumed: it must return the same, or fail
    by the same exception; nothing that had finished may run again; and the logs must be whole. A
    step that changes its arguments is found, too: a resume would not see that. A run that waits
    ends as ``RunPausedError``: it must wait for the same questions; inside :func:`answering` it is
    answered and continues. All runs are in a
    folder of their own, without syncs and waits. The arguments are copied for each run.

    What its steps do elsewhere they do once for each run: give them something that may be changed.
    A step with ``on_interrupted="fail"`` may refuse to be repeated.

    :returns: what the workflow returns
    :raises AssertionError: it does not resume; the message says after which event, and why
    :raises Exception: what the workflow raises by itself
    :raises TypeError: it is not a workflow
    """
    if not isinstance(workflow, Workflow):
        msg = f"assert_resumes takes a function with @workflow, not {workflow!r}"
        raise TypeError(msg)
    with files.system().temporary_folder() as folder:
        trials = _Trials(workflow, args, kwargs, Path(folder))
        uncrashed = trials.uncrashed()
        for nth in _points(len(trials.labels)):
            trials.killed_here(nth)
            trials.killed_in_child(nth)
    if uncrashed.error is not None:
        raise uncrashed.error
    return uncrashed.value


@contextmanager
def answering(answers: Mapping[str, Any]) -> Iterator[None]:
    """Let ``assert_resumes`` answer the questions of its workflow in this block.

    As::

        with answering({"pause": True}):
            assert assert_resumes(release) == "release 7 is out"

    Timers, and questions with ``until=`` that get no answer, run out: the clock is set forward.

    :param answers: by the ids of the pauses
    """
    token = _answers.set(answers)
    try:
        yield
    finally:
        _answers.reset(token)


def _continues(error: RunPausedError) -> bool:
    """Give a paused run what it waits for; return whether there was anything to give."""
    answers, gave = _answers.get(), False
    if answers is None:
        return False
    for one in error.questions:
        if one.question is not None and one.step_id in answers:
            answer(one.workflow_id, answers[one.step_id], step=one.step_id)
            gave = True
        elif one.until is not None:
            clock.sleep(max(0, clock.parse_timestamp(one.until) - clock.time_ns()) / 1e9)
            gave = True
    return gave


def _points(events: int) -> list[int]:
    """Return after which events to kill: all, or as many as are allowed, at equal distances."""
    if events <= _MOST:
        return list(range(1, events + 1))
    return sorted({1 + at * (events - 1) // (_MOST - 1) for at in range(_MOST)})


class _End(NamedTuple):
    """How a call of the workflow ended."""

    value: Any = None
    error: Exception | None = None

    def is_as(self, other: _End) -> bool:
        if self.error is None or other.error is None:
            return self.error is other.error and bool(self.value == other.value)
        if isinstance(self.error, RunPausedError) and isinstance(other.error, RunPausedError):
            return _asked(self.error) == _asked(other.error)
        return type(self.error) is type(other.error) and str(self.error) == str(other.error)

    def __str__(self) -> str:
        return f"returned {self.value!r}" if self.error is None else f"raised {self.error!r}"


def _asked(error: RunPausedError) -> list[tuple[str, str, str | None]]:
    """What a run waits for, without the time: each run counts from its own beginning."""
    return sorted(
        ((one.workflow_id, one.step_id, one.question) for one in error.questions),
        key=lambda one: one[:2],
    )


class _Trials:
    """One workflow, called again and again.

    :ivar labels: of the events of the run that was not killed
    """

    def __init__(
        self,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        folder: Path,
    ) -> None:
        self._flow, self._call = workflow.options(workflow_id=_ID), (args, kwargs)
        self._name, self._folder = workflow.name, folder
        self.labels: list[str] = []
        self._end = _End()

    def uncrashed(self) -> _End:
        """Run it as it is."""
        with isolated_runs(self._folder / "uncrashed") as runs:
            with watching(lambda _: False) as written:
                self._end = self._run()
            self.labels = written.labels
            changes = [note for run in runs for note in run.annotations if note.name == _CHANGED]
            for note in changes:
                self._refuse(
                    f"step {note.attributes.get('step')!r} changed what it was given "
                    f"({', '.join(note.attributes.get('arguments', ()))}): when its result comes "
                    "from the log, that stays as it was. Let it work on a copy and return that"
                )
            self._check(runs, "as it is")
            self._compare(self._run(), "called again")
        return self._end

    def killed_here(self, nth: int) -> None:
        """Kill it after an event by an exception, and resume it."""
        place = f"killed after event {nth} ({self.labels[nth - 1]}), in this process"
        with isolated_runs(self._folder / f"{nth}-here") as runs:
            with watching(_counted(nth)):
                self._run()
            self._resume(runs, place)

    def killed_in_child(self, nth: int) -> None:
        """Kill a child process that runs it after an event, and resume it here."""
        place = f"killed after event {nth} ({self.labels[nth - 1]}), in a child process"
        with isolated_runs(self._folder / f"{nth}-child") as runs:

            def doomed() -> None:
                with watching(_counted(nth), die=die):
                    self._run()

            outcome = in_child(doomed)
            if outcome.code not in {CRASHED, 0}:  # 0: it wrote fewer events this time
                self._refuse(f"{place}: the child process failed\n{outcome.error}")
            self._resume(runs, place)

    def _resume(self, runs: Runs, place: str) -> None:
        done = {run.workflow_id: dict(_finished(run)) for run in runs}
        end = self._run()
        self._check(runs, place)
        if isinstance(end.error, StepInterruptedError):
            return  # a person has to decide: nothing was repeated
        self._compare(end, place)
        for run in runs:
            before, again = done.get(run.workflow_id, {}), dict(_finished(run))
            twice = [step_id for step_id, seq in before.items() if again.get(step_id) != seq]
            if twice:
                self._refuse(f"{place}: steps that had finished ran again: {', '.join(twice)}")
            for note in run.annotations:
                if note.name == _UNASKED:
                    steps = ", ".join(map(str, note.attributes.get("steps", ())))
                    self._refuse(f"{place}: steps that had finished were not called again: {steps}")

    def _run(self) -> _End:
        """Call it until it ends, or waits for what is not given."""
        end = self._called()
        for _ in range(_MOST_PAUSES):
            if not (isinstance(end.error, RunPausedError) and _continues(end.error)):
                break
            end = self._called()
        return end

    def _called(self) -> _End:
        args, kwargs = _copied(self._call)
        try:
            made = self._flow(*args, **kwargs)
            if inspect.isawaitable(made):
                made = asyncio.run(_awaited(made))
        except Exception as error:  # noqa: BLE001 - compared with that of the other runs
            return _End(error=error)
        return _End(made)

    def _check(self, runs: Runs, place: str) -> None:
        try:
            runs.check()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a log
            self._refuse(f"{place}: {error}")

    def _compare(self, end: _End, place: str) -> None:
        if not end.is_as(self._end):
            self._refuse(f"{place}: it {end}\nwithout that: it {self._end}")

    def _refuse(self, problem: str) -> None:
        msg = f"workflow {self._name!r} does not resume: {problem}"
        raise AssertionError(msg)


def _counted(nth: int) -> Callable[[object], bool]:
    left = nth

    def is_last(_: object) -> bool:
        nonlocal left
        left -= 1
        return not left

    return is_last


def _finished(run: RunHistory) -> Iterator[tuple[str, int]]:
    """Yield the steps whose result is in the log, with the seq of their ends."""
    return ((step.step_id, step.last.end_seq) for step in run.steps if step.stored)


def _copied(call: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        return copy.deepcopy(call)
    except Exception:  # noqa: BLE001 - a client, a lock
        return call


async def _awaited(made: Any) -> Any:
    return await made
