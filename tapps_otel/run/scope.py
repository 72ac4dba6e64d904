"""Scopes: where steps are called from, and what is open inside them.

The current scope travels in a context variable: tasks and ``asyncio.to_thread`` inherit it by
themselves, thread pools through :func:`bind`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token, copy_context
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from tapps_otel.otel.seam import LiveSpan
    from tapps_otel.run.attempt import Attempt
    from tapps_otel.run.matching import Matcher
    from tapps_otel.run.recorder import Run

__all__ = [
    "CLOSING",
    "COMPLETED",
    "FAILED",
    "OPEN",
    "Scope",
    "bind",
    "current_scope",
    "leave_scope",
    "running_task",
]

OPEN: Final = "open"
CLOSING: Final = "closing"  # its code has returned or raised; what is open inside still ends
COMPLETED: Final = "completed"
FAILED: Final = "failed"

P = ParamSpec("P")
R = TypeVar("R")

current_scope: ContextVar[Scope | None] = ContextVar("tapps_otel_scope", default=None)


# A struct, for its constructor is in C: every step makes one.
class Scope(Struct, kw_only=True, eq=False, weakref=True):
    """The workflow, or an attempt of a step.

    :ivar step_id: of the step; ``None`` for the workflow
    :ivar matcher: the records that calls of this scope may take; ``None`` before the first call
    :ivar counts: ordered calls so far, by name
    :ivar open: attempts inside that have not ended
    :ivar changed: steps taken from the log though their code changed
    """

    run: Run
    step_id: str | None
    thread: int
    task: asyncio.Task[Any] | None
    state: str = OPEN
    span: LiveSpan | None = None
    span_id: str = ""
    matcher: Matcher | None = None
    counts: dict[str, int] | None = None
    open: set[Attempt] | None = None
    changed: dict[str, None] | None = None
    _waiter: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.step_id!r} of {self.run!r}: {self.state}>"

    def order_of_call(self, name: str, thread: int, task: asyncio.Task[Any] | None) -> int | None:
        """Count a call made from the scope's own task and thread; ``None`` for any other."""
        if thread != self.thread or task is not self.task:
            return None
        counts = self.counts
        if counts is None:
            counts = self.counts = {}
        order = counts[name] = counts.get(name, 0) + 1
        return order

    def enclose(self, attempt: Attempt) -> None:
        """Note that ``attempt`` is open inside. With the run's lock held."""
        if self.open is None:
            self.open = set()
        self.open.add(attempt)

    def release(self, attempt: Attempt) -> None:
        """Note that ``attempt`` has ended. With the run's lock held."""
        if self.open is not None:
            self.open.discard(attempt)
            if not self.open and self._waiter is not None:
                self._waiter()

    def drain(self) -> None:
        """Wait until nothing is open inside. For code without an event loop.

        Tasks are cancelled, threads are waited for.
        """
        while self._begin_wait(blocking=True):
            done = threading.Event()
            with self.run.lock:
                if not self.open:
                    break
                self._waiter = done.set
            try:
                done.wait()
            except BaseException as error:  # Ctrl-C: the log is not to hang on a busy thread
                self.give_up(error)
                raise
        self._waiter = None

    async def drain_async(self) -> None:
        """The same without blocking the event loop, and not to be cancelled itself."""
        cancelled: asyncio.CancelledError | None = None
        loop = asyncio.get_running_loop()
        while self._begin_wait(blocking=False):
            done = asyncio.Event()
            with self.run.lock:
                if not self.open:
                    break
                self._waiter = lambda done=done: loop.call_soon_threadsafe(done.set)
            while not done.is_set():
                try:
                    await done.wait()
                except asyncio.CancelledError as error:
                    cancelled = error
        self._waiter = None
        if cancelled is not None:
            raise cancelled

    def _begin_wait(self, *, blocking: bool) -> bool:
        """Cancel what can be cancelled; ``False`` when nothing is left to wait for.

        What nobody can end any more is abandoned: it was begun by hand, or its code cannot run
        before this very code returns.
        """
        if self.run.detached:  # a forked child: the threads that were busy are the parent's
            return False
        own, loop = running_task(), asyncio._get_running_loop()  # noqa: SLF001
        thread = threading.get_ident()
        with self.run.lock:
            inside = list(self.open or ())
        for attempt in inside:
            task = attempt.task
            if task is not None and task is not own:
                _cancel(task, loop)
            if attempt.thread == thread and (blocking or task is None or task is own):
                attempt.begin_end()
                attempt.abandon_after(blocking=blocking)
            elif attempt.by_hand and attempt.begin_end() is not None:
                attempt.abandon_after(blocking=blocking)
        with self.run.lock:
            return bool(self.open)

    def give_up(self, error: BaseException) -> None:
        """End what is open inside, though it may be busy: how it ends is not known."""
        for attempt in list(self.open or ()):
            begun = attempt.begin_end() is not None
            attempt.give_up(error)
            if begun:
                attempt.abandon(error)
            else:  # it writes its own end just now
                attempt.release_self()


def _cancel(task: asyncio.Task[Any], running: asyncio.AbstractEventLoop | None) -> None:
    loop = task.get_loop()
    if loop is running:
        task.cancel()
    elif loop.is_running():
        loop.call_soon_threadsafe(task.cancel)


def leave_scope(token: Token[Scope | None]) -> None:
    """Undo a ``current_scope.set``."""
    # A generator (a fixture, a dependency) may be ended in another context than it was begun in:
    # nothing is to be undone there, and the end is to be written all the same. Ctrl-C may have
    # come just after it was undone.
    with suppress(ValueError, RuntimeError):
        current_scope.reset(token)


def running_task() -> asyncio.Task[Any] | None:
    """The asyncio task that runs in this thread, if one does."""
    # The public get_running_loop() costs an exception where there is no loop: most steps.
    loop = asyncio._get_running_loop()  # noqa: SLF001
    return None if loop is None else asyncio.current_task(loop)


def bind(fn: Callable[P, R]) -> Callable[P, R]:
    """Let ``fn`` call steps of the current scope when a thread pool runs it.

    ``pool.submit(bind(fn), ...)``. Not for process pools: a step called in another process is a
    plain call.
    """
    context = copy_context()

    @wraps(fn)
    def bound(*args: P.args, **kwargs: P.kwargs) -> R:
        # A context can be entered once at a time, and a pool runs many calls.
        return context.copy().run(fn, *args, **kwargs)

    return bound
