"""The attempts of a task: each call of what the task executes is one.

LangGraph calls it again for a retry, within one call of its own function for tasks.
"""

from __future__ import annotations

from asyncio import CancelledError
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

from tapps_otel.instrumentation.guarding import GuardedContext
from tapps_otel.instrumentation.langgraph.adapter import TASKS
from tapps_otel.instrumentation.method_call import MethodCall
from tapps_otel.instrumentation.stages import StepStage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tapps_otel.instrumentation.langgraph.turn import Turn

__all__ = ["Attempts"]


class Attempts:
    """Stands in for what a task executes, and logs each call of it.

    A node that exceeds its time limit is cancelled from inside, and only then does LangGraph raise
    that as a time-out. So the end of a cancelled attempt that has a limit is written with the next
    attempt, or when the task is left.

    :ivar task: the task, with this in the place of what it executes
    """

    def __init__(self, task: Any, turn: Turn) -> None:
        self._proc, self._turn = task.proc, turn
        self._has_limit = getattr(task, "timeout", None) is not None
        self._stage: StepStage | None = None  # the attempt in progress, or the undecided one
        self.task = _with_proc(task, self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._proc, name)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        """Make an attempt, in a sync task."""
        stage = self._begin()
        with GuardedContext(stage.current):
            try:
                result = self._proc.invoke(*args, **kwargs)
            except BaseException as error:
                self._fail(stage, error)
                raise
        self._end(stage)
        return result

    async def ainvoke(self, *args: Any, **kwargs: Any) -> Any:
        """Make an attempt, in an async task."""
        stage = self._begin()
        with GuardedContext(stage.current):
            try:
                result = await self._proc.ainvoke(*args, **kwargs)
            except BaseException as error:
                self._fail(stage, error)
                raise
        self._end(stage)
        return result

    async def astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Make an attempt, in an async task whose output is streamed.

        It is current between two items, too: LangGraph alone consumes them.
        """
        stage = self._begin()
        with GuardedContext(stage.current):
            try:
                async for item in self._proc.astream(*args, **kwargs):
                    yield item
            except BaseException as error:
                self._fail(stage, error)
                raise
        self._end(stage)

    def leave(self, error: BaseException) -> None:
        """End an attempt whose end waits for how the task is left."""
        if self._stage is not None:
            self._stage.fail(error)

    # -- one attempt

    def _begin(self) -> StepStage:
        if self._stage is not None:  # only a time-out is retried
            self._stage.end_as("timeout", "the node exceeded its time limit")
        stage = StepStage(TASKS, MethodCall(self.task, {}), self._turn)
        stage.begin()
        self._stage = stage if self._has_limit else None
        return stage

    def _end(self, stage: StepStage) -> None:
        self._decide(stage)
        stage.end_as("completed")  # there is nothing that an adapter could read

    def _fail(self, stage: StepStage, error: BaseException) -> None:
        if self._has_limit and isinstance(error, CancelledError):
            stage.stop()
            return
        self._decide(stage)
        stage.fail(error)

    def _decide(self, stage: StepStage) -> None:
        """Note that this attempt's outcome is known; a later one may be in progress already."""
        if self._stage is stage:
            self._stage = None


def _with_proc(task: Any, proc: Any) -> Any:
    """A copy of a task that executes this; ``dataclasses.replace`` takes three times as long."""
    kind: Any = type(task)
    copied = object.__new__(kind)
    for name in _field_names(kind):
        object.__setattr__(copied, name, getattr(task, name))  # the class is frozen
    object.__setattr__(copied, "proc", proc)
    return copied


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
