"""The only module that reads clocks, so that tests can replace them.

Times are nanoseconds since 1970 UTC and label events; durations come from the monotonic clock.
Order never depends on either: it is the log's ``seq``. In a run both come from one reading of the
wall clock (:class:`RunClock`), so that no step seems to end before it began or after its run.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "Clock",
    "RunClock",
    "loop_time",
    "monotonic_ns",
    "parse_timestamp",
    "passes",
    "sleep",
    "sleep_async",
    "time_ns",
    "timestamp",
    "timestamp_ns",
    "use",
]

_NS = 1_000_000_000
_ONE_MOMENT: Final = 10_000  # ns; far less than the shortest step takes
_TRIES: Final = 10
_VALID: Final = 10_000_000  # ns; how long the wall clock can be set without being noticed
_PARTED: Final = 100_000_000  # ns; smaller differences are corrected by clocks' rates
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z, the last that RFC 3339 can write


class Clock(Protocol):
    """A clock that replaces the system's."""

    def time_ns(self) -> int:
        """Return the wall clock, ns since 1970 UTC."""

    def monotonic_ns(self) -> int:
        """Return a clock that never goes back, ns since any origin."""

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""


def _steady() -> Callable[[], int]:
    """Return the clock that never goes back, and counts while the machine sleeps.

    Linux and macOS have one; ``time.monotonic_ns`` stands still meanwhile.
    """
    name = "CLOCK_BOOTTIME" if hasattr(time, "CLOCK_BOOTTIME") else "CLOCK_MONOTONIC"
    with suppress(AttributeError, OSError):  # Windows, a kernel without it
        read = partial(time.clock_gettime_ns, getattr(time, name))
        read()
        return read
    return time.monotonic_ns


_UNKNOWN: Final = (0, 0)
# By how much the wall clock is ahead of the monotonic one, and until when (monotonic) that is used.
_relation = _UNKNOWN

# The system's clock, until `use` replaces it: call clock.time_ns(), do not import the functions.
time_ns = time.time_ns
monotonic_ns = _steady()
sleep: Callable[[float], None] = time.sleep


class RunClock:
    """The clock of a run: the wall clock at its start, and what has passed since.

    The wall clock may be set while a run is in progress, as by a service that keeps the time. Steps
    would lie outside their run, and events outside their steps.

    :ivar ahead: by how much it is ahead of the monotonic clock, ns
    :ivar agrees_until: until when it is known to show what the wall clock shows, monotonic, ns:
        an event before then has no ``wall_time``
    """

    __slots__ = ("agrees_until", "ahead")

    def __init__(self) -> None:
        self.ahead, self.agrees_until = _relate(), 0

    def read(self) -> tuple[int, int]:
        """Return the time, and the monotonic clock at that moment, ns each."""
        monotonic = monotonic_ns()
        return monotonic + self.ahead, monotonic

    def times(self, monotonic: int | None = None) -> dict[str, Any]:
        """Return the fields of an event that tell when it was.

        :param monotonic: the moment, now or just now; by default, now
        """
        moment = monotonic_ns() if monotonic is None else monotonic
        times = {"timestamp": timestamp(moment + self.ahead)}
        wall_time = self.wall_time(moment)
        return times if wall_time is None else {**times, "wall_time": wall_time}

    def wall_time(self, monotonic: int) -> str | None:
        """Format the wall clock at a moment, now or just now; ``None`` if this clock shows that."""
        ahead, valid_until = _relation
        if monotonic >= valid_until:
            ahead, valid_until = _relate(), _relation[1]
        if -_PARTED < ahead - self.ahead < _PARTED:
            self.agrees_until = valid_until
            return None
        return timestamp(monotonic + ahead)


def _relate() -> int:
    """Measure by how much the wall clock is ahead of the monotonic one, ns.

    A thread may lose its processor between two readings: then they are taken again.
    """
    global _relation  # noqa: PLW0603 - of the process, as the clocks are
    before, wall, after = monotonic_ns(), time_ns(), monotonic_ns()
    tries = _TRIES
    while tries and after - before >= _ONE_MOMENT:
        before, wall, after = monotonic_ns(), time_ns(), monotonic_ns()
        tries -= 1
    _relation = (wall - before, after + _VALID)
    return wall - before


async def sleep_async(seconds: float) -> None:
    """Wait for ``seconds`` without blocking the event loop."""
    import asyncio

    if passes():
        await asyncio.sleep(seconds)
    else:
        sleep(seconds)
        await asyncio.sleep(0)


def passes() -> bool:
    """Whether time passes by itself; the clock of a test passes by its ``sleep``."""
    return sleep is time.sleep


def loop_time() -> float:
    """Read the clock of the running event loop, seconds: its time-outs go by it."""
    import asyncio

    return asyncio.get_running_loop().time()


@contextmanager
def use(clock: Clock) -> Iterator[None]:
    """Use ``clock`` in the whole process within the context. For tests."""
    global time_ns, monotonic_ns, sleep, _relation  # noqa: PLW0603 - for tests
    before = time_ns, monotonic_ns, sleep
    time_ns, monotonic_ns, sleep = clock.time_ns, clock.monotonic_ns, clock.sleep
    _relation = _UNKNOWN
    try:
        yield
    finally:
        time_ns, monotonic_ns, sleep = before
        _relation = _UNKNOWN


_cached = (0, 0, 0, "")  # a second, from its first ns to that of the next one; see `timestamp`


def timestamp(ns: int) -> str:
    """Format ``ns`` as RFC 3339 UTC with nine digits and ``Z`` (years 1970 to 9999)."""
    global _cached  # noqa: PLW0603 - most events share the second of the one before
    start, end, offset, prefix = _cached  # read once: another thread may replace it meanwhile
    if not start <= ns < end:
        second = ns // _NS
        at = datetime.fromtimestamp(min(max(second, 0), _LAST_SECOND), UTC)
        # The difference to this offset has ten digits, the first of which is 1.
        offset, prefix = (second - 1) * _NS, at.strftime("%Y-%m-%dT%H:%M:%S.")
        _cached = (second * _NS, (second + 1) * _NS, offset, prefix)
    return f"{prefix}{str(ns - offset)[1:]}Z"


def parse_timestamp(text: str) -> int:
    """Parse the format of :func:`timestamp` to ns since 1970 UTC.

    :raises ValueError: ``text`` is not exactly in this format
    """
    if len(text) != 30 or text[19] != "." or text[29] != "Z" or not text[20:29].isdecimal():
        msg = f"not an RFC 3339 UTC time with nine digits: {text[:40]!r}"
        raise ValueError(msg)
    at = datetime.fromisoformat(text[:19] + "+00:00")
    return int(at.timestamp()) * _NS + int(text[20:29])


def timestamp_ns(text: str) -> int:
    """Parse a timestamp of a log, which may be invalid: 0 then."""
    try:
        return parse_timestamp(text)
    except ValueError:
        return 0
