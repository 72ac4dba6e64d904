"""The only module that reads clocks, so that tests can set them.

Times are wall-clock nanoseconds since 1970 UTC and label events; durations come from the
monotonic clock. Order never depends on either: it is the log's ``seq``.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Clock",
    "monotonic_ns",
    "parse_timestamp",
    "sleep",
    "sleep_async",
    "time_ns",
    "timestamp",
    "use",
]

_NS = 1_000_000_000
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z, the last that RFC 3339 can write


class Clock(Protocol):
    """What a settable clock offers; the system's own is the default."""

    def time_ns(self) -> int:
        """Wall clock, ns since 1970 UTC."""

    def monotonic_ns(self) -> int:
        """A clock that never goes back, ns from any origin."""

    def sleep(self, seconds: float) -> None:
        """Let this much time pass."""


class _System:
    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)
    sleep = staticmethod(time.sleep)


_clock: Clock = _System()
_cached = (-1, "")


def time_ns() -> int:
    """Wall clock, ns since 1970 UTC."""
    return _clock.time_ns()


def monotonic_ns() -> int:
    """A clock that never goes back, ns from any origin; only differences mean anything."""
    return _clock.monotonic_ns()


def sleep(seconds: float) -> None:
    """Block this thread for ``seconds``."""
    _clock.sleep(seconds)


async def sleep_async(seconds: float) -> None:
    """Let ``seconds`` pass for this task alone."""
    import asyncio

    if isinstance(_clock, _System):
        await asyncio.sleep(seconds)
    else:
        _clock.sleep(seconds)
        await asyncio.sleep(0)


@contextmanager
def use(clock: Clock) -> Iterator[None]:
    """Let the whole process read ``clock`` for a while. For tests."""
    global _clock  # noqa: PLW0603 - the one switch between the system's clock and a test's
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before


def timestamp(ns: int) -> str:
    """Write ``ns`` as RFC 3339 UTC with nine digits and ``Z`` (years 1970 to 9999)."""
    global _cached  # noqa: PLW0603 - most events share the second of the one before
    second, rest = divmod(ns, _NS)
    cached = _cached  # read once: another thread may replace the pair meanwhile
    if cached[0] != second:
        at = datetime.fromtimestamp(min(max(second, 0), _LAST_SECOND), UTC)
        cached = _cached = (second, at.strftime("%Y-%m-%dT%H:%M:%S"))
    return f"{cached[1]}.{rest:09d}Z"


def parse_timestamp(text: str) -> int:
    """Read what :func:`timestamp` writes; ns since 1970 UTC.

    :raises ValueError: anything else, a missing digit included
    """
    if len(text) != 30 or text[19] != "." or text[29] != "Z" or not text[20:29].isdecimal():
        msg = f"not an RFC 3339 UTC time with nine digits: {text[:40]!r}"
        raise ValueError(msg)
    at = datetime.fromisoformat(text[:19] + "+00:00")
    return int(at.timestamp()) * _NS + int(text[20:29])
