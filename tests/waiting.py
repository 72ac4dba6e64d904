"""Waiting for a condition, where a sleep could only hope that it holds by then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["until", "until_async"]

_POLL = 0.001  # seconds
_PATIENCE = 30.0  # seconds; a failing test, not a slow one, gets there


def until(condition: Callable[[], object], patience: float = _PATIENCE) -> None:
    """Return once ``condition`` holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(_POLL)


async def until_async(condition: Callable[[], object]) -> None:
    """Return once ``condition`` holds, and let other tasks run meanwhile."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        await asyncio.sleep(_POLL)
