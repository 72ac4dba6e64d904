"""Time-outs of steps, whose clocks stop while what is inside waits for an answer."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from tapps_otel import clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.run.scope import Scope

__all__ = ["TimeLimit", "time_limits"]


class TimeLimit:
    """The time-out of one try of a step.

    :ivar scope: that try
    :ivar window: cancels the task of the try when its time is over
    """

    def __init__(self, scope: Scope | None, seconds: float) -> None:
        self.scope = scope
        self.window = asyncio.timeout(seconds)
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        self._left: float | None = None  # seconds, while the clock stands

    @contextmanager
    def current(self) -> Iterator[None]:
        """A context in which it is one of :data:`time_limits`."""
        token = time_limits.set((*time_limits.get(), self))
        try:
            yield
        finally:
            self._is_over = True
            time_limits.reset(token)

    def stop_clock(self) -> None:
        """Let no time pass, until :meth:`start_clock`."""
        at = self.window.when()
        if at is not None and self._can_change:
            self._left = at - clock.loop_time()
            self.window.reschedule(None)

    def start_clock(self) -> None:
        """Let what was left of the time pass."""
        if self._left is not None and self._can_change:
            self.window.reschedule(clock.loop_time() + self._left)
            self._left = None

    @property
    def _can_change(self) -> bool:
        is_here = self._loop is asyncio.get_running_loop()  # a thread may have a loop of its own
        return is_here and not self._is_over and not self.window.expired()


# Those around the code that runs, the outermost first.
time_limits: Final = ContextVar[tuple[TimeLimit, ...]]("tapps_otel_time_limits", default=())
