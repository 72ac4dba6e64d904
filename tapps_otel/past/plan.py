"""The records of each scope for a resume, and where it continues. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from tapps_otel.errors import Question
from tapps_otel.names import number_in

if TYPE_CHECKING:
    from tapps_otel.past.fold import RunHistory, ScopeHistory, StepHistory

__all__ = ["Past", "Plan", "not_run_again", "open_steps", "questions_of", "resume_points"]


_STOPPED: Final = frozenset({"running", "interrupted", "cancelled", "paused"})


class Past(Struct):
    """What an attempt of a scope finds in the log.

    :ivar scope: history of the scope itself
    :ivar records: the records that count, in the order of their first start
    :ivar used: the highest number in use, by step name: numbers are never used twice
    """

    scope: ScopeHistory
    records: list[StepHistory] = []
    used: dict[str, int] = {}


class Plan:
    """The records of every scope of a run, kept up to date while the run is in progress.

    :ivar children: records by scope; forgotten scopes are left out
    """

    def __init__(self, history: RunHistory) -> None:
        self._history = history
        self.children: dict[str | None, list[StepHistory]] = {}
        self._unsettled: dict[str, list[StepHistory]] | None = None
        top = []
        for step_id, step in history.by_id.items():
            if "/" in step_id:
                self.add(step)
            else:
                top.append(step)  # nearly all of a large run
        if top:
            self.children[None] = top

    def add(self, step: StepHistory) -> None:
        """Add a step that is new in the history."""
        self.children.setdefault(step.parent, []).append(step)

    def add_missing(self, step: StepHistory) -> None:
        """Add a step unless it is already there."""
        if not any(one is step for one in self.children.get(step.parent, ())):
            self.add(step)

    def past(self, scope_id: str | None) -> Past | None:
        """Return what a new attempt of a scope finds; ``None`` if it never had a step."""
        children = self.children.get(scope_id)
        if children is None:
            return None
        scope = self._history.scope(scope_id)
        past = Past(scope, used=_highest_numbers(children))
        if not scope.reset_seq:
            past.records = children.copy()
            return past
        for record in children:
            if record.last.start_seq > scope.reset_seq:
                past.records.append(record)
        return past

    def forget(self, step_id: str) -> None:
        """Free a step that has ended and all steps inside it: they are not called again."""
        history = self._history
        history.by_id.pop(step_id, None)
        history.scopes.pop(step_id, None)
        for child in self.children.pop(step_id, ()):
            self.forget(child.step_id)

    def forget_scope(self, scope_id: str | None) -> None:
        """Free the list of a scope's records, which a matcher now owns."""
        self.children.pop(scope_id, None)

    def loss(self, record: StepHistory) -> str | None:
        """Return what would be lost if this record were not used, ``None`` if nothing.

        After a failure other inputs are no surprise: it may be them that were mended.
        """
        if record.status == "completed" and record.stored:
            return "a stored result"
        if record.status in _STOPPED and self._progress(record):
            return "finished steps inside"
        return None

    def unsettled(self, name: str, execution: int) -> list[StepHistory]:
        """Return the steps of a name whose outcome in an execution before this one is not known.

        Wherever they are: a step that must not run twice may be called at another place now, with
        other inputs, or by another attempt of the step around it.
        """
        if self._unsettled is None:
            self._unsettled = {}
            for step in self._history.by_id.values():
                if step.outcome_unknown:
                    self._unsettled.setdefault(step.name, []).append(step)
        return [
            step
            for step in self._unsettled.get(name, ())
            if step.outcome_unknown and step.last.execution < execution
            if not (step.resolved or step.handled)  # by a person, or by the workflow
        ]

    def _progress(self, record: StepHistory) -> bool:
        scope = self._history.scopes.get(record.step_id)
        reset = 0 if scope is None else scope.reset_seq
        return any(
            child.last.start_seq > reset and (child.stored or self._progress(child))
            for child in self.children.get(record.step_id, ())
        )


def _highest_numbers(steps: list[StepHistory]) -> dict[str, int]:
    """Return the highest number by name; a crash can leave gaps."""
    highest: dict[str, int] = {}
    for step in steps:
        number, name = number_in(step.step_id), step.name
        if number > highest.get(name, 0):
            highest[name] = number
    return highest


def open_steps(history: RunHistory) -> list[StepHistory]:
    """Return the steps that started and never ended, innermost first."""
    found = [
        step
        for step in history.by_id.values()
        if not step.last.end_seq or (history.foreign and step.open_attempts)
    ]
    return sorted(found, key=lambda step: -step.step_id.count("/"))


def questions_of(history: RunHistory) -> tuple[Question, ...]:
    """Return what a run waits for: its pauses that have not ended."""
    return tuple(
        Question(history.workflow_id, step.step_id, step.pause.question, step.pause.until)
        for step in history.waiting
        if step.pause is not None
    )


def resume_points(history: RunHistory) -> list[StepHistory]:
    """Return the steps that a resume runs again: open, or failed and unhandled.

    Empty if it would continue with a step that never started, or has nothing left to do.
    """
    return [
        step
        for step in history.by_id.values()
        if not step.handled and step.status not in {"completed", "skipped"}
    ]


def not_run_again(step: StepHistory, *, foreign: bool) -> bool:
    """Return whether a resume takes the step from the log.

    :param foreign: whether a third-party executor runs it, which needs no result of it
    """
    return step.stored or (foreign and step.status == "completed")
