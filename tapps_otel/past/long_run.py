"""The history of a run of any length in bounded memory: finished steps are summed up. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from tapps_otel.names import without_numbers
from tapps_otel.past.fold import DONE, Fold
from tapps_otel.past.plan import not_run_again
from tapps_otel.past.usage import NO_USAGE, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tapps_otel.log.event import Event
    from tapps_otel.past.fold import RunHistory, StepHistory

__all__ = ["LongFold", "StepGroup", "merged"]

_MOST: Final = 10_000  # steps that are kept one by one
_MOST_INPUTS: Final = 400  # bytes of a step's inputs that are kept
_STORED: Final = Raw(b"null")  # in place of a result: that there is one is what matters


class StepGroup(Struct):
    """The steps of one name in one place, summed up.

    :ivar place: their ids without numbers: ``outer/inner``
    :ivar first_seq: seq of the first start of one of them
    :ivar agent: that of the first
    :ivar failed: how many failed, timed out, were cancelled or interrupted
    :ivar open: how many have not ended
    :ivar total_ns: time in all attempts
    :ivar slowest: id of the step that took longest
    :ivar done_in: how many were completed or skipped, by the execution that did it
    :ivar kept: how many of these a resume does not run again
    :ivar usage: what captured spans of libraries used in all attempts
    """

    place: str
    name: str
    first_seq: int = 0
    agent: str | None = None
    count: int = 0
    failed: int = 0
    open: int = 0
    total_ns: int = 0
    slowest: str = ""
    slowest_ns: int = -1
    done_in: dict[int, int] = {}
    kept: int = 0
    usage: Usage = NO_USAGE

    def add(self, step: StepHistory, *, foreign: bool) -> None:
        """Add a step.

        :param foreign: whether it is one of a third-party executor
        """
        duration_ns, started = step.duration_ns, step.attempts[0].start_seq
        self.first_seq = min(self.first_seq or started, started)
        self.agent = self.agent or step.agent
        self.count += 1
        self.total_ns += duration_ns
        self.usage = self.usage.plus(step.usage)
        if duration_ns > self.slowest_ns:
            self.slowest, self.slowest_ns = step.step_id, duration_ns
        if step.status in DONE:
            execution = step.last.execution
            self.done_in[execution] = self.done_in.get(execution, 0) + 1
            self.kept += not_run_again(step, foreign=foreign)
        elif not step.last.end_seq:
            self.open += 1
        else:
            self.failed += 1

    def take_back(self) -> None:
        """Count a step no longer as done: another attempt of it has begun."""
        execution = min((number for number, count in self.done_in.items() if count), default=None)
        if execution is None:
            return
        if self.kept == sum(self.done_in.values()):  # otherwise it is one without a result
            self.kept -= 1
        self.done_in[execution] -= 1
        self.count -= 1

    def done_before(self, execution: int) -> int:
        """Return how many were done before this execution."""
        return sum(count for number, count in self.done_in.items() if number < execution)


def _add_to_group(groups: dict[str, StepGroup], step: StepHistory, *, foreign: bool) -> StepGroup:
    """Add a step to its group, which is created if needed; return the group."""
    place = without_numbers(step.step_id)
    group = groups.get(place)
    if group is None:
        group = groups[place] = StepGroup(place, step.name)
    group.add(step, foreign=foreign)
    return group


def merged(
    groups: Mapping[str, StepGroup], steps: Iterable[StepHistory], *, foreign: bool
) -> dict[str, StepGroup]:
    """Return new groups, of what was summed up before and of more steps."""
    found = {place: replace(one, done_in={**one.done_in}) for place, one in groups.items()}
    for step in steps:
        _add_to_group(found, step, foreign=foreign)
    return found


class LongFold:
    """Folds a run's events, fed in order, as far as a report needs it.

    Once a run has many steps, those that are done are removed from :attr:`history` and summed up.
    Results of steps are not kept, and of their inputs only the beginning.

    :ivar summed_up: what was removed from the history, by place
    :ivar chosen: the part of it that ``is_chosen`` accepts
    :param is_chosen: steps that matter more: they are removed last
    :param keep_chosen: never remove these
    :param keep_values: whether the values of an event are kept whole
    """

    def __init__(
        self,
        workflow_id: str,
        *,
        is_chosen: Callable[[StepHistory], bool] | None = None,
        keep_chosen: bool = False,
        keep_values: Callable[[Event], bool] | None = None,
    ) -> None:
        self._fold = Fold(workflow_id)
        self._is_chosen, self._keep_chosen = is_chosen, keep_chosen
        self._keep_values = keep_values
        self._limit = _MOST
        self.summed_up: dict[str, StepGroup] = {}
        self.chosen: dict[str, StepGroup] = {}

    @property
    def history(self) -> RunHistory:
        """The history, without the steps that were summed up."""
        return self._fold.history

    def feed(self, event: Event) -> None:
        """Add the next event."""
        if self._keep_values is None or not self._keep_values(event):
            _shorten(event)
        if self.summed_up and event.event_type == "step_start":
            self._take_back(event)
        self._fold.feed(event)
        if len(self.history.by_id) > self._limit:
            self._sum_up()

    def feed_beside(self, event: Event) -> None:
        """Add an event of a side log: only captured spans matter."""
        self._fold.feed_beside(event)

    def _take_back(self, event: Event) -> None:
        """Correct the sums if a step begins again that is in them."""
        is_first = event.attempt is UNSET or event.attempt <= 1
        if is_first or event.step_id is UNSET or event.step_id in self.history.by_id:
            return
        for groups in (self.summed_up, self.chosen):
            group = groups.get(without_numbers(event.step_id))
            if group is not None:
                group.take_back()

    def _sum_up(self) -> None:
        by_id, foreign = self.history.by_id, self.history.foreign
        done = [step for step in by_id.values() if step.status in DONE and not step.open_attempts]
        chosen = self._is_chosen
        if chosen is not None:
            important = [step for step in done if chosen(step)]
            if self._keep_chosen or len(important) <= _MOST // 2:
                done = [step for step in done if not chosen(step)]
            else:
                for step in important:
                    _add_to_group(self.chosen, step, foreign=foreign)
        for step in done:
            group = _add_to_group(self.summed_up, step, foreign=foreign)
            self._fold.hand_over(step, group)
            del by_id[step.step_id]
        self._limit = max(_MOST, 2 * len(by_id))  # so that all sums together take linear time


def _shorten(event: Event) -> None:
    """Shorten the values of a step's event."""
    if event.event_type == "step_finish":
        if event.result is not UNSET:
            event.result = _STORED
    elif event.event_type == "step_start" and event.inputs is not UNSET:
        event.inputs = Raw(bytes(event.inputs)[:_MOST_INPUTS])
