"""Ctrl-C in an async workflow: raised where the workflow is, once, as KeyboardInterrupt."""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["run_to_end"]


def run_to_end(result: Any) -> Any:
    """Return ``result``; a coroutine is run first, in an event loop of its own."""
    if not inspect.iscoroutine(result):
        return result
    coroutine = _Interruptible(result)
    before = signal.signal(signal.SIGINT, coroutine.interrupt)
    try:
        return asyncio.run(coroutine)
    finally:
        signal.signal(signal.SIGINT, before)


class _Interruptible(Coroutine[Any, Any, Any]):
    """A coroutine in which Ctrl-C raises KeyboardInterrupt, where asyncio would cancel it.

    A second Ctrl-C ends the process at once, whatever the workflow waits for.
    """

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner
        self._task: asyncio.Task[Any] | None = None
        self._pressed = self._raised = False

    def interrupt(self, *_: object) -> None:
        """Handle the signal."""
        if self._pressed or self._task is None:
            raise KeyboardInterrupt
        self._pressed = True
        self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def send(self, value: Any) -> Any:
        """Continue the coroutine."""
        self._task = self._task or asyncio.current_task()
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an exception inside the coroutine."""
        if self._pressed and not self._raised and isinstance(error[0], asyncio.CancelledError):
            self._raised = True
            return self._inner.throw(KeyboardInterrupt())
        return self._inner.throw(*error)

    def close(self) -> None:
        """Close the coroutine."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()
