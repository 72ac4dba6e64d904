"""What a fork takes over of a run: which of its steps, and in which state. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from tapps_otel.names import steps_around
from tapps_otel.past.fold import DIGEST, DONE

if TYPE_CHECKING:
    from tapps_otel.log.event import Event
    from tapps_otel.past.fold import RunHistory, StepHistory

__all__ = ["Taken", "taken_over"]

_STOPPED = frozenset({"running", "interrupted", "cancelled", "paused"})
_FAILED = frozenset({"failed", "timeout"})


class Taken(Struct):
    """The steps that a fork takes over.

    :ivar before: seq of the event that starts the step from which the fork runs
    :ivar done: ids of the steps that had finished before it
    :ivar begun: steps that had not finished, and enclose finished ones or that step: the fork runs
        them again, as the run would, and does not repeat what had finished inside
    :ivar handled: steps that had failed, and whose scope had continued after that
    """

    before: int
    done: set[str]
    begun: dict[str, StepHistory]
    handled: list[StepHistory]

    @property
    def open(self) -> list[StepHistory]:
        """Steps that the fork ends as cancelled, the last one first: in progress, or failed.

        The fork has all events in one execution: with the end of a step that failed, it would look
        as if the workflow had handled that, and had continued.
        """
        steps = self.begun.values()
        found = [one for one in steps if not one.last.end_seq or one.status in _FAILED]
        return sorted(found, key=lambda step: -step.last.start_seq)

    def takes(self, event: Event) -> bool:
        """Whether an event of the run is one of the fork, too."""
        step_id = event.step_id
        if not isinstance(step_id, str) or not (step_id in self.done or step_id in self.begun):
            return False
        step = self.begun.get(step_id)
        if step is not None and step.status in _FAILED and event.seq == step.last.end_seq:
            return False
        if event.event_type == "annotation":  # of a file, its digest may come much later
            return event.seq < self.before or (event.name == DIGEST and step_id in self.done)
        return event.seq < self.before and event.event_type.startswith("step_")


def taken_over(history: RunHistory, step_id: str) -> Taken:
    """Decide what a fork takes over.

    :param history: up to the event that first starts the step, and no further
    """
    around = set(steps_around(step_id))
    done = {
        step.step_id
        for step in history.by_id.values()
        if step.step_id != step_id and (step.status in DONE or step.handled)
    }
    with_progress = around.union(*map(steps_around, done)) - done
    begun = {
        found: step
        for found in with_progress
        if (step := history.by_id.get(found)) is not None and _keeps_its_inside(step)
    }
    reached = {one for one in done if all(o in done or o in begun for o in steps_around(one))}
    return Taken(
        before=history.by_id[step_id].last.start_seq,
        done=reached,
        begun=begun,
        handled=[step for step in history.steps if step.step_id in reached and step.handled],
    )


def _keeps_its_inside(step: StepHistory) -> bool:
    """Whether a step that runs again does not repeat what had finished inside."""
    passed_through = step.status == "timeout" or bool(step.last.caused_by)
    return step.status in _STOPPED or (step.status in _FAILED and passed_through)
