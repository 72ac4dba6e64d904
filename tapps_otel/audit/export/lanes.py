"""Lanes for parallel spans, so that spans of one lane are nested or apart. Pure.

Viewers draw a lane's spans as a stack: two that overlap without being nested are drawn wrongly.
Each of a step's parallel steps gets a lane, together with what it calls.

A span's lane is planned when it starts and decided when it has ended, because only then its times
are known: clocks are adjusted, and a task may outlive the step that started it. Memory does not
grow with the run: a lane keeps only the hulls of neighbouring spans with the same owner, which is
their nearest ancestor that has not ended yet.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Lanes"]

_MOST_LANES: Final = 4096  # that are remembered
_MOST_TRIED: Final = 64  # free lanes for one span, which gets a new one if it fits in none
_MOST_HULLS: Final = 64  # of a lane; the oldest are merged into one that no span can enclose
_MOST_OPEN: Final = 10_000  # a made-up log may start spans without end


@dataclass(slots=True)
class _Hull:
    """Neighbouring spans of a lane, from the first start to the last end, ns."""

    start: int
    end: int
    owner: str | None

    def belongs_in(self, span_id: str, start: int, end: int) -> bool:
        """Whether the span is the owner, and encloses the hull."""
        return self.owner == span_id and start <= self.start and self.end <= end


@dataclass(slots=True)
class _Lane:
    """One lane, with what later spans need to know of it.

    :ivar hulls: in the order of time, without overlap
    :ivar open: spans that are planned for this lane, the innermost last
    """

    number: int
    hulls: list[_Hull] = field(default_factory=list)
    open: dict[str, None] = field(default_factory=dict)

    def fits(self, span_id: str, start: int, end: int) -> bool:
        """Whether a span overlaps only hulls that it owns and encloses."""
        for hull in reversed(self.hulls):
            if hull.end <= start:
                return True
            if hull.start < end and not hull.belongs_in(span_id, start, end):
                return False
        return True

    def put(self, span_id: str, owner: str | None, start: int, end: int) -> None:
        """Add a span that fits."""
        self.hulls = [one for one in self.hulls if not one.belongs_in(span_id, start, end)]
        self.hulls.append(_Hull(start, end, owner))
        self.hulls.sort(key=lambda hull: (hull.start, hull.end))
        self.join()

    def pass_on(self, owner: str, heir: str | None) -> None:
        """Give an owner's hulls to its parent; the owner ended in another lane."""
        for hull in self.hulls:
            if hull.owner == owner:
                hull.owner = heir
        self.join()

    def join(self) -> None:
        """Merge neighbouring hulls with the same owner."""
        joined = self.hulls[:1]
        for hull in self.hulls[1:]:
            if hull.owner == joined[-1].owner:
                joined[-1].end = hull.end
            else:
                joined.append(hull)
        while len(joined) > _MOST_HULLS:
            joined[:2] = [_Hull(joined[0].start, joined[1].end, None)]
        self.hulls = joined


class Lanes:
    """Assigns spans to lanes.

    :param number: returns a number for a new lane
    """

    def __init__(self, number: Callable[[], int]) -> None:
        self._number = number
        self._lanes: dict[int, _Lane] = {}
        self._free: list[int] = []  # numbers of lanes without open spans, rising
        self._planned: dict[str, _Lane] = {}  # of open spans
        self._owned: dict[str, set[int]] = {}  # lanes in which an open span owns hulls

    def begin(self, span_id: str, parent: str | None) -> None:
        """Plan a span that has started: in its parent's lane if that is free, else in another."""
        if len(self._planned) >= _MOST_OPEN or span_id in self._planned:
            return
        lane = self._planned.get(parent or "")
        if lane is None or next(reversed(lane.open)) != parent:
            lane = next(self._free_lanes(), None) or self._add()
        if not lane.open:
            self._take(lane)
        lane.open[span_id] = None
        self._planned[span_id] = lane

    def place(self, span_id: str, parent: str | None, start: int, end: int) -> int:
        """Decide the lane of a span that has ended, and return its number.

        In every lane any two spans are apart or nested, whatever their order, and with or without
        :meth:`begin`.

        :param start: ns, like ``end``, which is not before it
        """
        tried = (one for one in self._wanted(span_id, parent) if one.fits(span_id, start, end))
        lane = next(tried, None) or self._add()
        lane.put(span_id, parent, start, end)
        for number in self._owned.pop(span_id, ()):
            other = self._lanes.get(number)
            if other is not None:
                other.pass_on(span_id, parent)
                self._own(parent, other)
        self._own(parent, lane)
        return lane.number

    def _wanted(self, span_id: str, parent: str | None) -> Iterator[_Lane]:
        """Yield lanes for a span that has ended, the best first."""
        planned = self._planned.pop(span_id, None)
        if planned is not None:
            del planned.open[span_id]
            if not planned.open and planned.number in self._lanes:
                insort(self._free, planned.number)
            yield planned
        for number in sorted(self._owned.get(span_id, ())):
            if number in self._lanes:
                yield self._lanes[number]
        above = self._planned.get(parent or "")
        if above is not None:
            yield above
        yield from self._free_lanes()

    def _free_lanes(self) -> Iterator[_Lane]:
        """Yield lanes without open spans."""
        return (self._lanes[number] for number in self._free[:_MOST_TRIED])

    def _take(self, lane: _Lane) -> None:
        at = bisect_left(self._free, lane.number)
        if self._free[at : at + 1] == [lane.number]:
            del self._free[at]

    def _add(self) -> _Lane:
        if len(self._lanes) >= _MOST_LANES:
            self._take(self._lanes.pop(next(iter(self._lanes))))
        lane = _Lane(self._number())
        self._lanes[lane.number] = lane
        insort(self._free, lane.number)
        return lane

    def _own(self, owner: str | None, lane: _Lane) -> None:
        if owner is None:
            return
        if len(self._owned) >= _MOST_OPEN:  # of a made-up log, which then looks worse
            self._owned.clear()
        self._owned.setdefault(owner, set()).add(lane.number)
