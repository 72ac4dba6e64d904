"""From history to resume: which records each scope offers, and where a run would go on. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from tapps_otel.names import number_in

if TYPE_CHECKING:
    from tapps_otel.past.fold import RunHistory, ScopeHistory, StepHistory

__all__ = ["Past", "Plan", "goes_on_at", "open_steps"]


class Past(Struct):
    """What an attempt of a scope finds in the log.

    :ivar records: that count, in the order of their first start
    :ivar used: the highest number of each name: numbers are not used twice
    :ivar lost: interrupted records that count no more, and that nobody resolved
    :ivar scope: what is known of the scope itself
    """

    scope: ScopeHistory
    records: list[StepHistory] = []
    used: dict[str, int] = {}
    lost: list[StepHistory] = []


class Plan:
    """The records of every scope of a run, kept up to date while it goes on.

    :ivar children: of each scope that ever had a step, unless it was forgotten
    """

    def __init__(self, history: RunHistory) -> None:
        self._history = history
        self.children: dict[str | None, list[StepHistory]] = {}
        top = []
        for step_id, step in history.by_id.items():
            if "/" in step_id:
                self.add(step)
            else:
                top.append(step)  # nearly all of a large run
        if top:
            self.children[None] = top

    def add(self, step: StepHistory) -> None:
        """Take in a step that the history has come to know."""
        self.children.setdefault(step.parent, []).append(step)

    def past(self, scope_id: str | None) -> Past | None:
        """What a new attempt of this scope finds; ``None`` for a scope that never had a step."""
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
            elif record.status == "interrupted" and not record.resolved:
                past.lost.append(record)
        return past

    def forget(self, step_id: str) -> None:
        """Let go of a step that has ended, and of all inside it: nobody will ask again."""
        history = self._history
        history.by_id.pop(step_id, None)
        history.scopes.pop(step_id, None)
        for child in self.children.pop(step_id, ()):
            self.forget(child.step_id)

    def forget_scope(self, scope_id: str | None) -> None:
        """Let go of a scope's list of records, which a matcher has taken over."""
        self.children.pop(scope_id, None)

    def loss(self, record: StepHistory, *, interruptible: bool) -> str | None:
        """What would be lost if this record were passed over; ``None``: nothing.

        :param interruptible: an interruption alone loses nothing (``on_interrupted="rerun"``)
        """
        if record.status == "completed" and record.stored:
            return "a stored result"
        if record.status in {"interrupted", "running"}:
            if self._progress(record):
                return "finished steps inside"
            if not interruptible:
                return "an interruption that nobody resolved"
        return None

    def _progress(self, record: StepHistory) -> bool:
        scope = self._history.scopes.get(record.step_id)
        reset = 0 if scope is None else scope.reset_seq
        return any(
            child.last.start_seq > reset and (child.stored or self._progress(child))
            for child in self.children.get(record.step_id, ())
        )


def _highest_numbers(steps: list[StepHistory]) -> dict[str, int]:
    """Of each name. Not a count: a start that the crash kept out of the log leaves a gap."""
    highest: dict[str, int] = {}
    for step in steps:
        number, name = number_in(step.step_id), step.name
        if number > highest.get(name, 0):
            highest[name] = number
    return highest


def open_steps(history: RunHistory) -> list[StepHistory]:
    """Steps that started and never ended, innermost first."""
    found = [step for step in history.by_id.values() if not step.last.end_seq]
    return sorted(found, key=lambda step: -step.step_id.count("/"))


def goes_on_at(history: RunHistory) -> list[StepHistory]:
    """The steps at which a resume would do work that began before: open or failed, unhandled.

    Empty where it goes on with a step that never started, or has nothing left to do.
    """
    return [
        step
        for step in history.by_id.values()
        if not step.handled and step.status not in {"completed", "skipped"}
    ]
