"""Sets of numbers as intervals, open at the right: merge, cut, find free time."""

from bisect import bisect_right


class Intervals:
    """Intervals that neither touch nor overlap, in order."""

    def __init__(self, pairs=()):
        self._pairs = []
        for start, end in pairs:
            self.add(start, end)

    def add(self, start, end):
        """Put ``[start, end)`` in; what touches becomes one.

        :raises ValueError: it ends before it starts
        """
        if end < start:
            raise ValueError(f"{end} is before {start}")
        if start == end:
            return
        kept = []
        for low, high in self._pairs:
            if high < start or end < low:
                kept.append((low, high))
            else:
                start, end = min(start, low), max(end, high)
        kept.append((start, end))
        self._pairs = sorted(kept)

    def remove(self, start, end):
        """Take ``[start, end)`` out."""
        kept = []
        for low, high in self._pairs:
            if low < start:
                kept.append((low, min(high, start)))
            if end < high:
                kept.append((max(low, end), high))
        self._pairs = sorted(pair for pair in kept if pair[0] < pair[1])

    def __contains__(self, number):
        place = bisect_right(self._pairs, (number, float("inf"))) - 1
        return place >= 0 and self._pairs[place][0] <= number < self._pairs[place][1]

    def __iter__(self):
        return iter(self._pairs)

    def __len__(self):
        return len(self._pairs)

    @property
    def total(self):
        """Length of all together."""
        return sum(end - start for start, end in self._pairs)

    def gaps(self, start, end):
        """What is free between ``start`` and ``end``."""
        at = start
        for low, high in self._pairs:
            if low >= end:
                break
            if low > at:
                yield at, low
            at = max(at, high)
        if at < end:
            yield at, end


def meeting_times(calendars, start, end, length):
    """When all are free for at least ``length``."""
    busy = Intervals(pair for calendar in calendars for pair in calendar)
    return [(low, high) for low, high in busy.gaps(start, end) if high - low >= length]
