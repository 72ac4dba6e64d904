"""A batch of steps that ``ParallelStepExecutor`` carries out, each in a task of its own.

A step's events are written where it begins and ends, not when its slowest sibling does: what has
finished survives a kill. A time-out reaches a step as a cancellation, like any other; which it was
is known when its task has ended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tapps_otel import settings
from tapps_otel.instrumentation.execution import ending, finish
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.instrumentation.spec import Seen
from tapps_otel.instrumentation.tapps_agents.adapter import READING, plain_variables
from tapps_otel.names import ATTR

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tapps_otel.instrumentation.tapps_agents.execution import TappsCarrying
    from tapps_otel.run.external_run import ExternalAttempt

__all__ = ["Batch"]

_Task = asyncio.Task[Any]


class Batch:
    """Stands in for the function by which the batch carries out a step.

    :param execute: that function
    """

    def __init__(self, carrying: TappsCarrying, execute: Callable[[Any], Awaitable[Any]]) -> None:
        self._carrying, self._execute = carrying, execute
        self._stopped: dict[_Task | None, ExternalAttempt] = {}

    async def __call__(self, step: Any) -> Any:
        """Carry a step out; its result or its exception passes unchanged."""
        task = asyncio.current_task()
        self._time_out(task)
        given: dict[str, Any] = {"step": step}
        seen = Seen(self._carrying.executor, given)
        attempt = self._carrying.begin(READING, seen)
        if attempt is None:
            return await self._execute(step)
        with attempt.current():
            try:
                seen.result = await self._execute(step)
            except asyncio.CancelledError:
                self._stop(attempt, task)
                raise
            except BaseException as error:
                with ending(attempt):
                    if await attempt.settle_async():
                        attempt.fail_drained(error)
                raise
        with ending(attempt):
            if await attempt.settle_async():
                given["skipped"] = attempt.skip_reason
                finish(READING, seen, attempt, self._variables(attempt))
        return seen.result

    def _variables(self, attempt: ExternalAttempt) -> dict[str, Any] | None:
        """Tell the names of the variables, where the log does not know them; and keep the values.

        :returns: the values, if a setting asks for them
        """
        with guarded("an executor's variables are not logged"):
            variables = getattr(self._carrying.executor.state, "variables", None) or {}
            names = frozenset(map(str, variables))
            if names != self._carrying.names:
                attempt.attributes = {ATTR.VARIABLES: sorted(names)}
                self._carrying.names = names
            if settings.current().executor_variables:
                return plain_variables(variables)
        return None

    # -- what was cancelled, or ran out of time

    def _stop(self, attempt: ExternalAttempt, task: _Task | None) -> None:
        attempt.stop()
        self._stopped[task] = attempt
        if task is not None:
            task.add_done_callback(self._settle)

    def _time_out(self, task: _Task | None) -> None:
        """Another try in the same task: what stopped the one before was its time-out."""
        attempt = self._stopped.pop(task, None)
        if attempt is not None:
            with ending(attempt):
                attempt.fail_as("timeout", TimeoutError("it took longer than its executor allows"))

    def _settle(self, task: _Task) -> None:
        attempt = self._stopped.pop(task, None)
        if attempt is None:
            return
        with ending(attempt):
            error = None if task.cancelled() else task.exception() or task.result().error
            if isinstance(error, TimeoutError):
                attempt.fail_as("timeout", error)
            else:
                attempt.fail_as("cancelled", asyncio.CancelledError())

    def settle(self, results: Iterable[Any] = ()) -> None:
        """The batch is over: what no task could tell is told by its results."""
        timed_out = {result.step.id for result in results if isinstance(result.error, TimeoutError)}
        for attempt in [*self._stopped.values()]:
            with ending(attempt):
                late = attempt.spec.name in timed_out
                attempt.fail_as(
                    "timeout" if late else "cancelled",
                    TimeoutError() if late else asyncio.CancelledError(),
                )
        self._stopped.clear()
