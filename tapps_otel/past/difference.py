"""How two runs differ: which steps only one has, and what differs in the others. Pure.

Steps are matched as a resume would match them: in scopes that match, by name and key, by name and
inputs, and what is left by name in the order of the calls.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Struct

from tapps_otel.clock import timestamp_ns
from tapps_otel.past.changes import Change, changes
from tapps_otel.past.fold import DONE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from tapps_otel.past.fold import RunHistory, StepHistory

__all__ = ["RunDiff", "RunSide", "StepDiff", "StepSide", "StepTime", "compare"]

_DETAILED: Final = 200  # steps whose changed values are listed
# What differs before a step does anything. The rest is its outcome.
_AT_START: Final = frozenset({"presence", "inputs", "code", "agent", "action"})


class StepSide(Struct, frozen=True):
    """A step as one of the runs has it.

    :ivar position: its place in the order in which the run's steps began, from 1
    :ivar attempts: number of attempts
    :ivar duration_ns: time in all attempts
    :ivar inside: number of steps inside it, if only this run has it
    """

    step_id: str
    position: int
    status: str
    attempts: int
    duration_ns: int
    inside: int
    error: dict[str, Any] | None = None
    reason: str | None = None


class StepDiff(Struct, frozen=True):
    """A step that differs, or that only one run has. What is inside that one is not listed.

    :ivar a: the step in the first run; ``None`` if only the second has it
    :ivar b: the step in the second run
    :ivar differs: what differs: ``presence``, ``inputs``, ``code``, ``agent``, ``action``,
        ``status``, ``error``, ``reason``, ``attempts``, ``result``, ``artifacts``
    :ivar inputs: where the inputs differ, if the logs have them; of the first 200 steps
    :ivar result: where the results differ; of the first 200 steps
    """

    name: str
    a: StepSide | None
    b: StepSide | None
    differs: tuple[str, ...]
    inputs: tuple[Change, ...] = ()
    result: tuple[Change, ...] = ()


class RunSide(Struct, frozen=True):
    """One of the runs.

    :ivar steps: number of its steps
    :ivar duration_ns: from its start to its last event
    :ivar damage: what ended the reading of its log, if anything did
    """

    workflow_id: str
    name: str
    status: str
    executions: int
    steps: int
    duration_ns: int
    error: dict[str, Any] | None = None
    damage: str | None = None


class StepTime(Struct, frozen=True):
    """The time in all steps of one name."""

    name: str
    a_ns: int
    b_ns: int


class RunDiff(Struct, frozen=True):
    """How two runs differ.

    Durations always differ: they are in ``times``, and do not count as differences.

    :ivar differs: what differs of the runs themselves: ``workflow``, ``inputs``, ``status``,
        ``error``, ``result``
    :ivar inputs: where the workflow's inputs differ
    :ivar result: where its results differ
    :ivar steps: the steps that differ: the first divergence first
    :ivar same: number of steps that both have, and that do not differ
    :ivar times: time by name of the steps, the largest change first
    """

    a: RunSide
    b: RunSide
    differs: tuple[str, ...]
    inputs: tuple[Change, ...]
    result: tuple[Change, ...]
    steps: tuple[StepDiff, ...]
    same: int
    times: tuple[StepTime, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing but times differs."""
        return not self.differs and not self.steps

    @property
    def first(self) -> StepDiff | None:
        """The first step at which the runs diverge."""
        return self.steps[0] if self.steps else None


def compare(
    a: RunHistory, b: RunHistory, *, damage: tuple[str | None, str | None] = (None, None)
) -> RunDiff:
    """Compare two runs.

    :param damage: what ended the reading of each log, if anything did
    """
    comparison = _Comparison(a, b)
    steps = tuple(comparison.differences())
    inputs = changes(a.inputs, b.inputs)
    both_ended = a.status == b.status == "completed"  # else only one may have a result
    result = changes(a.result_json, b.result_json) if both_ended else ()
    differing = {
        "workflow": a.name != b.name,
        "inputs": inputs or a.inputs_blob != b.inputs_blob,
        "status": a.status != b.status,
        "error": _error(a.error) != _error(b.error),
        "result": both_ended and (result or a.result_blob != b.result_blob),
    }
    return RunDiff(
        _run_side(a, damage[0]),
        _run_side(b, damage[1]),
        tuple(name for name, differs in differing.items() if differs),
        inputs,
        result,
        steps,
        comparison.same,
        tuple(_times(a, b)),
    )


def _run_side(run: RunHistory, damage: str | None) -> RunSide:
    start = run.executions[0].started_ns if run.executions else 0
    took = max(0, timestamp_ns(run.last_timestamp) - start) if start else 0
    return RunSide(
        run.workflow_id,
        run.name,
        run.status,
        len(run.executions),
        len(run.by_id),
        took,
        run.error,
        damage,
    )


def _times(a: RunHistory, b: RunHistory) -> list[StepTime]:
    totals: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    for total, run in zip(totals, (a, b), strict=True):
        for step in run.by_id.values():
            total[step.name] += step.duration_ns
    names = {**totals[0], **totals[1]}
    found = [StepTime(name, totals[0][name], totals[1][name]) for name in names]
    return sorted(found, key=lambda one: -abs(one.b_ns - one.a_ns))


# -- the steps of a run


class _Run:
    """A run's steps by the scope they are in, and the order in which they began and ended."""

    def __init__(self, run: RunHistory) -> None:
        self.inside: dict[str | None, list[StepHistory]] = defaultdict(list)
        self.began = {step_id: at for at, step_id in enumerate(run.by_id)}
        self._starts = [step.attempts[0].start_seq for step in run.by_id.values()]
        for step in run.by_id.values():
            self.inside[step.parent if step.parent in run.by_id else None].append(step)

    def ended(self, step: StepHistory) -> int:
        """Return how many steps had begun when this one ended."""
        last = step.last
        return bisect_left(self._starts, last.end_seq) if last.end_seq else len(self._starts)

    def side(self, step: StepHistory, *, alone: bool) -> StepSide:
        """Describe a step.

        :param alone: whether only this run has it, with all that is inside
        """
        return StepSide(
            step.step_id,
            self.began[step.step_id] + 1,
            step.status,
            len(step.attempts),
            step.duration_ns,
            self._count_inside(step) if alone else 0,
            step.last.error,
            step.last.reason,
        )

    def _count_inside(self, step: StepHistory) -> int:
        waiting, count = [step], 0
        while waiting:
            inner = self.inside.get(waiting.pop().step_id, ())
            waiting += inner
            count += len(inner)
        return count


class _Place(NamedTuple):
    """Where in the course of the runs something differs: what comes first is the smallest.

    :ivar began: number of steps that had begun
    :ivar at_start: whether it is the start of the next one; an end comes before that
    :ivar depth: negative: of two ends, that of the inner step comes first
    """

    began: int
    at_start: bool
    depth: int


class _Comparison:
    """The pairs of steps of two runs.

    :ivar same: number of pairs in which nothing differs
    """

    def __init__(self, a: RunHistory, b: RunHistory) -> None:
        self._a, self._b = _Run(a), _Run(b)
        self.same = 0

    def differences(self) -> list[StepDiff]:
        """Return the pairs in which something differs, in the course of the runs."""
        found = []
        for pair in self._pairs():
            if differing := _differing(*pair):
                found.append((self._place(pair, differing), pair, differing))
            else:
                self.same += 1
        found.sort(key=lambda one: one[0])
        return [
            self._diff(pair, differing, detailed=number < _DETAILED)
            for number, (_, pair, differing) in enumerate(found)
        ]

    def _pairs(self) -> Iterator[Pair]:
        scopes: list[tuple[str | None, str | None]] = [(None, None)]
        while scopes:
            outer, other = scopes.pop()
            for a, b in _matched(self._a.inside.get(outer, ()), self._b.inside.get(other, ())):
                yield a, b
                if a is not None and b is not None:
                    scopes.append((a.step_id, b.step_id))

    def _place(self, pair: Pair, differing: tuple[str, ...]) -> _Place:
        at_start = not _AT_START.isdisjoint(differing)
        sides = [
            (run, step)
            for run, step in zip((self._a, self._b), pair, strict=True)
            if step is not None
        ]
        began = min(run.began[one.step_id] if at_start else run.ended(one) for run, one in sides)
        return _Place(began, at_start, -sides[0][1].step_id.count("/"))

    def _diff(self, pair: Pair, differing: tuple[str, ...], *, detailed: bool) -> StepDiff:
        a, b = pair
        inputs: tuple[Change, ...] = ()
        result: tuple[Change, ...] = ()
        if detailed and a is not None and b is not None:
            inputs = changes(a.inputs, b.inputs) if "inputs" in differing else ()
            result = changes(a.result, b.result) if "result" in differing else ()
        alone = "presence" in differing
        left = None if a is None else self._a.side(a, alone=alone)
        right = None if b is None else self._b.side(b, alone=alone)
        name = next(step.name for step in pair if step is not None)
        return StepDiff(name, left, right, differing, inputs, result)


Pair = tuple["StepHistory | None", "StepHistory | None"]


def _matched(a: Iterable[StepHistory], b: Iterable[StepHistory]) -> Iterator[Pair]:
    """Match the steps of two scopes: each is in one pair."""
    left, right = list(a), list(b)
    for key_of in (_by_key, _by_inputs, _by_name):
        pairs, left, right = _match(left, right, key_of)
        yield from pairs
    yield from ((one, None) for one in left)
    yield from ((None, one) for one in right)


def _by_key(step: StepHistory) -> Hashable:
    return None if step.key is None else (step.name, step.key)


def _by_inputs(step: StepHistory) -> Hashable:
    return (step.name, step.inputs_digest) if step.key is None else None


def _by_name(step: StepHistory) -> Hashable:
    return step.name if step.key is None else None


def _match(
    a: list[StepHistory], b: list[StepHistory], key_of: Callable[[StepHistory], Hashable]
) -> tuple[list[Pair], list[StepHistory], list[StepHistory]]:
    """Pair steps with equal keys, in their order; return the pairs, and what is left of each."""
    waiting: dict[Hashable, deque[StepHistory]] = defaultdict(deque)
    for step in b:
        waiting[key_of(step)].append(step)
    waiting.pop(None, None)  # no key, no match
    pairs: list[Pair] = []
    left, taken = [], set()
    for step in a:
        queue = waiting.get(key_of(step))
        if queue:
            other = queue.popleft()
            taken.add(other.step_id)
            pairs.append((step, other))
        else:
            left.append(step)
    return pairs, left, [step for step in b if step.step_id not in taken]


# -- one pair


def _differing(a: StepHistory | None, b: StepHistory | None) -> tuple[str, ...]:
    if a is None or b is None:
        return ("presence",)
    ended = a.status in DONE and b.status in DONE
    found = {
        "inputs": a.inputs_digest != b.inputs_digest or _have_other(a.inputs, b.inputs),
        "code": _have_other(a.definition, b.definition),
        "agent": a.agent != b.agent,
        "action": a.action != b.action,
        "status": a.status != b.status,
        "error": a.status == b.status and _error(a.last.error) != _error(b.last.error),
        "reason": a.status == b.status and a.last.reason != b.last.reason,
        "attempts": len(a.attempts) != len(b.attempts),
        "result": ended and _have_other_result(a, b),
        "artifacts": ended and _artifacts(a) != _artifacts(b),
    }
    return tuple(name for name, differs in found.items() if differs)


def _have_other(a: object, b: object) -> bool:
    return a is not None and b is not None and a != b


def _have_other_result(a: StepHistory, b: StepHistory) -> bool:
    if a.result_omitted or b.result_omitted:  # not known
        return False
    return a.result_blob != b.result_blob or bool(changes(a.result, b.result))


def _error(error: dict[str, Any] | None) -> tuple[str, str] | None:
    return None if error is None else (str(error.get("type")), str(error.get("message")))


def _artifacts(step: StepHistory) -> list[Any]:
    return [one.get("sha256") for one in step.last.artifacts]
