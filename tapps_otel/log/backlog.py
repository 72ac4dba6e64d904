"""Events of a log that cannot be written, or not yet: they wait, and what is dropped is counted."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tapps_otel.log.open_log import InvalidEventError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapps_otel.log.event import Event
    from tapps_otel.log.open_log import OpenLog
    from tapps_otel.log.reports import Reports

__all__ = ["Backlog"]


class Backlog:
    """What a log does not have yet. Its caller holds the lock of the log, except for :meth:`add`.

    :param limit: maximum number of events to keep; later ones are dropped and counted
    :ivar events: that wait to be written
    :ivar dropped: how many events were dropped since the log counted any (``log_gap``)
    :ivar execution: of the events that the log has of itself
    """

    def __init__(self, log: OpenLog, limit: int, reports: Reports) -> None:
        self._log, self._limit, self._reports = log, limit, reports
        self.execution: int | None = None
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.events: deque[Event] = deque()
        self.dropped = 0

    def add(self, event: Event) -> None:
        """Keep an event, if there is room for it."""
        self.execution = event.execution
        if len(self.events) < self._limit:
            self.events.append(event)
        else:
            self._count_dropped()

    def put_back(self, missing: Iterable[Event]) -> None:
        """Write again what was written and is not in the log; the rest was found there."""
        events = list(missing)
        for event in events:
            event.seq = 0
        self.events, self._log.unsettled = deque((*events, *self.events)), deque()

    def drop(self, error: Exception) -> None:
        """Count an event that cannot be encoded."""
        self._count_dropped()
        self._reports.error("an event was dropped: %s", str(error))

    def _count_dropped(self) -> None:
        self.dropped += 1
        self._reports.dropped(1)

    def discard(self, event: Event) -> None:
        """Do not write an event later for which its writer raises."""
        event.seq = 0
        self._log.unsettled = deque(one for one in self._log.unsettled if one[0] is not event)
        # A list first: a signal handler may add an event meanwhile.
        self.events = deque(one for one in list(self.events) if one is not event)

    def write(self) -> None:
        """Write what waits, and how much was dropped; settle it.

        :raises OSError: the log cannot be written
        """
        if not self.events and not self.dropped:
            return
        while self.events:
            event = self.events[0]
            try:
                if not event.seq:  # otherwise it was appended twice
                    event.late = True
                    self._log.write(event, self._log.is_synced(event))
            except InvalidEventError as error:
                self.drop(error)
            except BaseException:
                if event.seq:  # it is among the unsettled ones
                    self.events.popleft()
                raise
            self.events.popleft()
        if self.dropped:
            counted = {"dropped": self.dropped}
            gap = self._log.make_event("log_gap", self.execution, attributes=counted)
            self._log.write(gap, due=False)
            self.dropped = 0
        self._log.settle()

    def try_write(self) -> None:
        """Write as :meth:`write` does; if that fails, the log has failed."""
        try:
            self.write()
        except OSError as error:
            self._log.fail(error)
