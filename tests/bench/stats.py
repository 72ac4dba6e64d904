"""From repetitions to one line: medians with their range, and ratios taken inside one round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Round = Mapping[str, Mapping[str, float]]
"""What one round measured: case -> metric -> number."""

NEAR = 1.2
"""A goal counts as done within this factor of its target."""


UNITS = {
    "us": "us",
    "ms": "ms",
    "mb": "MB",
    "floor": "x",
    "step": "B",
    "event": "B",
    "s": "/s",
    "percent": "%",
}


def unit(metric: str) -> str:
    """A metric's unit is the end of its name."""
    return UNITS.get(metric.rsplit("_", 1)[-1], "")


@dataclass(frozen=True)
class Summary:
    """The median of some repetitions and their range."""

    median: float
    least: float
    most: float
    count: int


def summary(values: Sequence[float]) -> Summary:
    """Of at least one value."""
    return Summary(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Ref:
    """One number of one case."""

    case: str
    metric: str

    def of(self, measured: Round) -> float | None:
        """The number in this round, or None."""
        return measured.get(self.case, {}).get(self.metric)


@dataclass(frozen=True)
class Goal:
    """A performance goal: ``(top - less) / bottom``, each part of one round.

    ``at_most`` says which side of the target is good; ``floor`` is the value below which the
    measurement itself is wrong (a durable step that is quicker than its own sync did not sync).
    """

    what: str
    top: Ref
    bottom: Ref | None = None
    less: Ref | None = None
    target: float | None = None
    at_most: bool = True
    floor: float | None = None

    @property
    def unit(self) -> str:
        """A ratio's is ``x``; without a bottom it is that of the top."""
        return "x" if self.bottom else unit(self.top.metric)

    def refs(self) -> list[Ref]:
        """The numbers that it needs."""
        return [ref for ref in (self.top, self.less, self.bottom) if ref is not None]

    def value(self, measured: Round) -> float | None:
        """Its value in one round, or None if a part was not measured."""
        parts = {ref: ref.of(measured) for ref in self.refs()}
        if None in parts.values():
            return None
        known = {ref: value for ref, value in parts.items() if value is not None}
        top = known[self.top] - (known[self.less] if self.less else 0.0)
        return top / known[self.bottom] if self.bottom else top

    def verdict(self, median: float) -> str:
        """Compare the median with the target."""
        if self.floor is not None and median < self.floor:
            return "WRONG: it did not sync"
        if self.target is None:
            return ""
        off = median / self.target if self.at_most else self.target / median
        if off <= 1:
            return "reached"
        return f"near ({off:.2f} x off)" if off <= NEAR else f"MISSED ({off:.2f} x off)"


def collect(rounds: Sequence[Round]) -> dict[str, dict[str, Summary]]:
    """Case -> metric -> summary over the rounds that have it."""
    values: dict[str, dict[str, list[float]]] = {}
    for measured in rounds:
        for case, numbers in measured.items():
            for metric, number in numbers.items():
                values.setdefault(case, {}).setdefault(metric, []).append(number)
    return {case: {m: summary(v) for m, v in by.items()} for case, by in values.items()}


def reach(goal: Goal, rounds: Sequence[Round]) -> Summary | None:
    """The goal's value over the rounds that have all its parts."""
    values = [value for measured in rounds if (value := goal.value(measured)) is not None]
    return summary(values) if values else None
