"""Lanes for spans that run side by side, so that in each lane one is wholly inside another. Pure.

Viewers draw a lane's spans as a stack: two that overlap without one being inside the other come
out garbled. Where a step's parallel steps run, each gets a lane of its own, with what it calls.

A span's lane is thought of when it starts, and settled when it has ended, for only then its times
are sure: clocks are set, and a task may outlive the step that began it. What is held does not grow
with the run: of what a lane has, only hulls of neighbours that have the same owner, their nearest
ancestor that has not ended yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Lanes"]

_MOST_LANES: Final = 4096  # that are looked through; spans beyond get lanes that are new each time
_MOST_HULLS: Final = 64  # of a lane; the oldest become one, which nothing fits around
_MOST_OPEN: Final = 10_000  # a log that somebody made up may start without end


@dataclass(slots=True)
class _Hull:
    """Neighbours in a lane, from the first one's start to the last one's end, ns."""

    start: int
    end: int
    owner: str | None

    def belongs_in(self, span_id: str, start: int, end: int) -> bool:
        """Whether this span is the owner, and wholly around it."""
        return self.owner == span_id and start <= self.start and self.end <= end


@dataclass(slots=True)
class _Lane:
    """One lane, as far as it matters for what is still to come.

    :ivar hulls: in the order of time, and apart
    :ivar open: spans that are meant to stand here once they have ended, the innermost last
    """

    number: int
    hulls: list[_Hull] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def fits(self, span_id: str, start: int, end: int) -> bool:
        """Whether it overlaps nothing here but what it is wholly around, and the owner of."""
        for hull in reversed(self.hulls):
            if hull.end <= start:
                return True
            if hull.start < end and not hull.belongs_in(span_id, start, end):
                return False
        return True

    def put(self, span_id: str, owner: str | None, start: int, end: int) -> None:
        """Put a span that fits here."""
        self.hulls = [one for one in self.hulls if not one.belongs_in(span_id, start, end)]
        self.hulls.append(_Hull(start, end, owner))
        self.hulls.sort(key=lambda hull: (hull.start, hull.end))
        self.join()

    def pass_on(self, owner: str, heir: str | None) -> None:
        """The owner has ended, and stands elsewhere."""
        for hull in self.hulls:
            if hull.owner == owner:
                hull.owner = heir
        self.join()

    def join(self) -> None:
        """Make one of neighbours that have the same owner."""
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
    """Gives spans their lanes.

    :param number: makes a number for a new lane
    """

    def __init__(self, number: Callable[[], int]) -> None:
        self._number = number
        self._lanes: dict[int, _Lane] = {}
        self._meant: dict[str, _Lane] = {}  # of open spans
        self._owned: dict[str, set[int]] = {}  # lanes in which an open span owns something

    def begin(self, span_id: str, parent: str | None) -> None:
        """A span has started: under its parent, where that has nothing else open, or by itself."""
        if len(self._meant) >= _MOST_OPEN or span_id in self._meant:
            return
        lane = self._meant.get(parent or "")
        if lane is None or lane.open[-1] != parent:
            lane = next(self._free(), None) or self._add()
        lane.open.append(span_id)
        self._meant[span_id] = lane

    def place(self, span_id: str, parent: str | None, start: int, end: int) -> int:
        """A span has ended: the number of its lane.

        In every lane any two spans are apart, or one is inside the other; in whatever order they
        come, and with or without :meth:`begin`.

        :param start: ns, as ``end``, which is not before it
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
        """Lanes for a span that has ended, the best first."""
        meant = self._meant.pop(span_id, None)
        if meant is not None:
            meant.open.remove(span_id)
            yield meant
        for number in sorted(self._owned.get(span_id, ())):
            if number in self._lanes:
                yield self._lanes[number]
        above = self._meant.get(parent or "")
        if above is not None:
            yield above
        yield from self._free()

    def _free(self) -> Iterator[_Lane]:
        """Lanes in which nothing is open."""
        return (lane for lane in list(self._lanes.values()) if not lane.open)

    def _add(self) -> _Lane:
        if len(self._lanes) >= _MOST_LANES:
            del self._lanes[next(iter(self._lanes))]
        lane = _Lane(self._number())
        self._lanes[lane.number] = lane
        return lane

    def _own(self, owner: str | None, lane: _Lane) -> None:
        if owner is None:
            return
        if len(self._owned) >= _MOST_OPEN:  # of a log that somebody made up: it costs good looks
            self._owned.clear()
        self._owned.setdefault(owner, set()).add(lane.number)
