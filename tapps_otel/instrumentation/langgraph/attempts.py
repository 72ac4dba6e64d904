"""The attempts of a task: each call of what the task executes is one.

LangGraph calls it again for a retry, within one call of its own function for tasks.
"""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from tapps_otel.instrumentation.execution import fail_step, guarded_end, step_spec
from tapps_otel.instrumentation.guarding import GuardedContext
from tapps_otel.instrumentation.langgraph.adapter import TASKS, place_of
from tapps_otel.instrumentation.method_call import MethodCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractContextManager

    from tapps_otel.instrumentation.langgraph.turn import Turn
    from tapps_otel.run.external_attempt import ExternalAttemptRecorder
    from tapps_otel.run.external_run import ExternalRunRecorder

__all__ = ["Attempts"]


class Attempts:
    """In its block, stands in for what a task executes, and logs each call of it.

    A node that exceeds its time limit is cancelled from inside, and only then does LangGraph raise
    that as a time-out. So the end of a cancelled attempt that has a limit is written with the next
    attempt, or when the block is left.

    :ivar task: the task
    :ivar open: the attempt that was begun last, until its outcome is known
    """

    def __init__(self, task: Any, turn: Turn) -> None:
        self.task, self._turn, self._proc = task, turn, task.proc
        self.open: ExternalAttemptRecorder | None = None

    def __enter__(self) -> None:
        # Only the function that runs the task looks at what it executes, and a copy of the task
        # would cost each node more than its two events. The class is frozen.
        object.__setattr__(self.task, "proc", self)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        object.__setattr__(self.task, "proc", self._proc)
        if self.open is not None and error is not None:
            self.fail(self.open, error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._proc, name)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        """Make an attempt, in a sync task."""
        with self._attempt():
            return self._proc.invoke(*args, **kwargs)

    async def ainvoke(self, *args: Any, **kwargs: Any) -> Any:
        """Make an attempt, in an async task."""
        with self._attempt():
            return await self._proc.ainvoke(*args, **kwargs)

    async def astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Make an attempt, in an async task whose output is streamed.

        It is current between two items, too: LangGraph alone consumes them.
        """
        with self._attempt():
            async for item in self._proc.astream(*args, **kwargs):
                yield item

    def _attempt(self) -> AbstractContextManager[None]:
        """Begin an attempt, which ends as the block does."""
        if self.open is not None:  # only a time-out is retried
            with guarded_end(self.open):
                self.open.end_as("timeout", "the node exceeded its time limit")
        self.open = self._turn.begin_step_by(self._begin)
        return nullcontext() if self.open is None else _Attempt(self, self.open)

    def _begin(self, run: ExternalRunRecorder) -> ExternalAttemptRecorder:
        return run.begin_step(place_of(self.task), step_spec(self.task.name))

    def fail(self, attempt: ExternalAttemptRecorder, error: BaseException) -> None:
        """Write that an attempt ended by an exception."""
        fail_step(TASKS, MethodCall(self.task, {}), attempt, error)


class _Attempt(GuardedContext):
    """One attempt: current in its block, and ended as the block is left."""

    __slots__ = ("_attempts", "_recorder")

    def __init__(self, attempts: Attempts, recorder: ExternalAttemptRecorder) -> None:
        super().__init__(recorder.current)
        self._attempts, self._recorder = attempts, recorder

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        super().__exit__(kind, error, trace)
        attempts, recorder = self._attempts, self._recorder
        if isinstance(error, CancelledError) and _has_limit(attempts.task):
            recorder.stop()
            return
        if attempts.open is recorder:  # a later one may be in progress already
            attempts.open = None
        if error is not None:
            attempts.fail(recorder, error)
            return
        try:
            recorder.finish()
        except BaseException:
            with guarded_end(recorder):
                raise


def _has_limit(task: Any) -> bool:
    return getattr(task, "timeout", None) is not None
