"""A batch of steps that ``ParallelStepExecutor`` executes, each in its own task.

A step's events are written when it begins and when it ends, not when its slowest sibling does, so
that they survive a kill. A time-out reaches a step as a cancellation like any other; which of them
it was is known when its task has ended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tapps_otel.instrumentation.execution import finish_step, guarded_end
from tapps_otel.instrumentation.method_call import MethodCall
from tapps_otel.instrumentation.tapps_agents.adapter import ADAPTER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tapps_otel.instrumentation.tapps_agents.execution import TappsExecution
    from tapps_otel.run.external_attempt import ExternalAttemptRecorder

__all__ = ["Batch"]

_Task = asyncio.Task[Any]


class Batch:
    """Replaces the function by which ``execute_parallel`` executes each step.

    :param execute_step: that function
    """

    def __init__(
        self, execution: TappsExecution, execute_step: Callable[[Any], Awaitable[Any]]
    ) -> None:
        self._execution, self._execute_step = execution, execute_step
        self._stopped: dict[_Task | None, ExternalAttemptRecorder] = {}

    async def __call__(self, step: Any) -> Any:
        """Execute a step; its result or its exception passes unchanged."""
        task = asyncio.current_task()
        self._end_timed_out(task)
        arguments: dict[str, Any] = {"step": step}
        call = MethodCall(self._execution.executor, arguments)
        attempt = self._execution.begin_step(ADAPTER, call)
        if attempt is None:
            return await self._execute_step(step)
        with attempt.current():
            try:
                call.result = await self._execute_step(step)
            except asyncio.CancelledError:
                self._stop(attempt, task)
                raise
            except BaseException as error:
                with guarded_end(attempt):
                    attempt.fail(error)
                raise
        self._execution.note_gate_in(attempt)
        with guarded_end(attempt):
            if attempt.settle():
                arguments["skipped"] = attempt.skip_reason
                values, attempt.attributes = self._execution.end_variables()
                finish_step(ADAPTER, call, attempt, values)
        return call.result

    # -- attempts that were cancelled or timed out

    def _stop(self, attempt: ExternalAttemptRecorder, task: _Task | None) -> None:
        attempt.stop()
        self._stopped[task] = attempt
        if task is not None:
            task.add_done_callback(self._settle)

    def _end_timed_out(self, task: _Task | None) -> None:
        """End the attempt before this one in the same task: what stopped it was a time-out."""
        attempt = self._stopped.pop(task, None)
        if attempt is not None:
            with guarded_end(attempt):
                attempt.fail_as("timeout", TimeoutError("it took longer than its executor allows"))

    def _settle(self, task: _Task) -> None:
        attempt = self._stopped.pop(task, None)
        if attempt is None:
            return
        with guarded_end(attempt):
            error = None if task.cancelled() else task.exception() or task.result().error
            if isinstance(error, TimeoutError):
                attempt.fail_as("timeout", error)
            else:
                attempt.fail_as("cancelled", asyncio.CancelledError())

    def settle(self, results: Iterable[Any] = ()) -> None:
        """End what no task has ended; the results of the batch show which steps timed out."""
        timed_out = {result.step.id for result in results if isinstance(result.error, TimeoutError)}
        for attempt in [*self._stopped.values()]:
            with guarded_end(attempt):
                if attempt.spec.name in timed_out:
                    attempt.fail_as("timeout", TimeoutError())
                else:
                    attempt.fail_as("cancelled", asyncio.CancelledError())
        self._stopped.clear()
