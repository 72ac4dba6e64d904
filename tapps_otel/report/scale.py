"""A scale from the time of a run to columns, on which long downtimes take little room. Pure."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from tapps_otel.report.lines import took

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.past.timeline import Downtime, Timeline

__all__ = ["Scale"]

_LONG: Final = 0.2  # of the time in which the run was executed: a longer downtime is shortened
_SHARE: Final = 0.25  # of all columns: the most that shortened downtimes take
_COLUMNS: Final = 13  # that a shortened downtime takes, where there is room
_EVERY: Final = 11  # columns between two ticks, at least
_SECOND: Final = 10**9
_TICKS: Final = [  # ns
    *(factor * 10**power for power in range(3, 10) for factor in (1, 2, 5)),
    *(seconds * _SECOND for seconds in (10, 20, 30)),
    *(minutes * 60 * _SECOND for minutes in (1, 2, 5, 10, 20, 30)),
    *(hours * 3600 * _SECOND for hours in (1, 2, 4, 6, 12)),
    *(factor * 10**power * 86_400 * _SECOND for power in range(5) for factor in (1, 2, 5)),
]


class Scale:
    """The way from times to columns.

    :ivar shortened: downtimes that are drawn shorter than they were
    :ivar column_ns: time in a column outside them
    """

    def __init__(self, timeline: Timeline, columns: int) -> None:
        self.columns = columns
        self.shortened = _long_downtimes(timeline)
        gap = min(_COLUMNS, columns * _SHARE / max(1, len(self.shortened)))
        gaps = sum(one.duration_ns for one in self.shortened)
        shown = max(1, timeline.end_ns - timeline.start_ns - gaps)
        self._per_ns = (columns - gap * len(self.shortened)) / shown
        self.column_ns = 1 / self._per_ns
        self._knots = [(timeline.start_ns, 0.0)]
        for one in self.shortened:
            at = self.position(one.start_ns)
            self._knots += [(one.start_ns, at), (one.end_ns, at + gap)]
        self._start_ns, self._end_ns = timeline.start_ns, timeline.end_ns

    def position(self, ns: int) -> float:
        """Return the column at a time, not rounded."""
        found = bisect_right(self._knots, ns, key=lambda knot: knot[0])
        time, at = self._knots[max(0, found - 1)]
        if found < len(self._knots) and found % 2 == 0:  # inside a shortened downtime
            until, end = self._knots[found]
            return at + (end - at) * (ns - time) / (until - time)
        return at + (ns - time) * self._per_ns

    def cells(self, start_ns: int, end_ns: int) -> range:
        """Return the columns of an interval, at least one."""
        first = min(self.columns - 1, max(0, int(self.position(start_ns) + 1e-9)))
        end = min(self.columns, round(self.position(end_ns)))
        return range(first, max(first + 1, end))

    def ticks(self) -> Iterator[tuple[int, str]]:
        """Yield columns with the time since the run's start there, at round numbers."""
        every = next((one for one in _TICKS if one * self._per_ns >= _EVERY), _TICKS[-1])
        free, last = 0, ""
        for elapsed in self._round_times(every):
            column, label = int(self.position(self._start_ns + elapsed)), _label(elapsed)
            if free <= column <= self.columns - len(label) and label != last:
                free, last = column + len(label) + 2, label
                yield column, label

    def _round_times(self, every: int) -> Iterator[int]:
        """Yield multiples of a time since the run's start, except in shortened downtimes."""
        starts = [self._start_ns, *(one.end_ns for one in self.shortened)]
        ends = [*(one.start_ns for one in self.shortened), self._end_ns]
        for start, end in zip(starts, ends, strict=True):
            first = -((self._start_ns - start) // every) * every
            yield from range(first, end - self._start_ns + 1, every)


def _long_downtimes(timeline: Timeline) -> list[Downtime]:
    """Return those that would take much room; none that overlap, as they do if a clock jumped."""
    found: list[Downtime] = []
    for one in sorted(timeline.downtimes, key=lambda one: one.start_ns):
        if one.duration_ns > _LONG * timeline.running_ns and (
            not found or one.start_ns >= found[-1].end_ns
        ):
            found.append(one)
    return found


def _label(ns: int) -> str:
    if ns < _SECOND:
        return "0" if not ns else f"{ns / 1e6:g} ms"
    if ns < 60 * _SECOND:
        return f"{ns / 1e9:g} s"
    return took(ns).removesuffix(" 00 s").removesuffix(" 00 min")
