"""A clock for tests: waits take no time, and it can be set."""

from __future__ import annotations

from datetime import UTC, datetime

from tapps_otel import clock

__all__ = ["SetClock"]

_NS = 1_000_000_000


class SetClock:
    """The system's clock until it is set; then time passes only by waits and :meth:`advance`.

    :ivar waits: the waits so far, seconds: back-offs of retries
    """

    def __init__(self) -> None:
        self._time_ns, self._monotonic_ns = clock.time_ns, clock.monotonic_ns
        self._ahead = 0
        self._stopped: tuple[int, int] | None = None
        self.waits: list[float] = []

    def set(self, at: datetime | str) -> None:
        """Stop the clock at this time.

        :param at: a time, or ISO 8601; UTC if it names no zone
        """
        moment = datetime.fromisoformat(at) if isinstance(at, str) else at
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        ns = ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
        self._stopped, self._ahead = (ns, self.monotonic_ns()), 0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._ahead += int(seconds * _NS)

    def time_ns(self) -> int:
        """Return the wall clock, ns since 1970 UTC."""
        return (self._time_ns() if self._stopped is None else self._stopped[0]) + self._ahead

    def monotonic_ns(self) -> int:
        """Return a clock that never goes back, ns since any origin."""
        return (self._monotonic_ns() if self._stopped is None else self._stopped[1]) + self._ahead

    def sleep(self, seconds: float) -> None:
        """Wait: time passes, and the test does not."""
        self.waits.append(seconds)
        self.advance(seconds)
