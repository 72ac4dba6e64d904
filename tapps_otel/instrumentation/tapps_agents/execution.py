"""One execution of a workflow by tapps-agents: how its run is found, and where it ends.

A run's id is final only after ``_initialize_execution`` (``execute()`` restarts a run that
``start()`` made), and in Cursor mode another executor executes the workflow than the one that was
called. So the run is opened on the way, not at the call.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tapps_otel import settings
from tapps_otel.instrumentation.execution import (
    Execution,
    current_execution,
    is_enabled,
    open_run,
)
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.instrumentation.method_call import MethodCall
from tapps_otel.instrumentation.tapps_agents.adapter import ADAPTER, is_cursor_executor
from tapps_otel.instrumentation.tapps_agents.executor_state import ExecutorState, executor_state
from tapps_otel.instrumentation.tapps_agents.variables import VariableTracker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tapps_otel.run.external_run import ExternalRunRecorder

__all__ = [
    "TappsExecution",
    "current_tapps_execution",
    "end_manual_run",
    "execute",
    "record_manual_call",
]


class TappsExecution(Execution):
    """A call of ``execute()``, or of the Cursor executor's ``run()``.

    :ivar call: that call
    :ivar executor: the one whose state the run is in: in Cursor mode, not the one that was called
    :ivar variables: tells which variables a step has changed
    """

    def __init__(self, call: MethodCall) -> None:
        super().__init__(call.executor)
        self.call = call
        self.variables = VariableTracker({}, logs_values=False)  # until the run is open: no steps

    @property
    def in_cursor_mode(self) -> bool:
        """Whether the Cursor executor executes the workflow."""
        return is_cursor_executor(self.executor)

    def open_on(self, executor: Any, *, failed: bool) -> None:
        """Open the run, after the executor has made its state, or failed to.

        :param failed: a run is opened even then, if there is a new state: it failed at its start
        """
        with guarded("this run continues without a log"):
            called, self.executor, state = self.executor, executor, executor.state
            known = executor_state(executor)
            if known.loaded is None:  # the Cursor executor gets the called one's workflow
                known.loaded = executor_state(called).loaded
            if known.restored_run is not None and state is known.restored_state:
                self.adopt(known.restored_run)
                known.restored_run = None
            elif state is not None and (not failed or state is known.new_state):
                self._open(known, state)
            if self.run is not None:
                logs_values = settings.current().executor_variables
                self.variables = VariableTracker(state.variables, logs_values=logs_values)
            known.new_state = None
            known.execution = executor_state(called).execution = self
        self.opened = True  # even if that failed: what a step executes is another run

    def _open(self, known: ExecutorState, state: Any) -> None:
        manual_run = known.manual_run if known.manual_state is state else None
        known.manual_run = known.manual_state = None
        if manual_run is not None and manual_run.reacquire_log():
            self.adopt(manual_run)
        elif known.new_state is state or state.status == "running":
            call = MethodCall(self.executor, self.call.arguments)
            self.open(partial(open_run, ADAPTER, call))
        # else the state was loaded and its run has ended: nothing will be executed


def current_tapps_execution() -> TappsExecution | None:
    """The execution by tapps-agents that the calling code is part of, if any."""
    execution = current_execution()
    return execution if isinstance(execution, TappsExecution) else None


async def execute(proceed: Callable[[], Awaitable[Any]], call: MethodCall) -> Any:
    """Execute a workflow, and write how its run ended."""
    with TappsExecution(call) as execution:
        try:
            state = await proceed()
        except BaseException as error:
            execution.end_with_error(error)
            raise
        finally:
            for executor in (call.executor, execution.executor):
                known = executor_state(executor)
                known.execution = known.restored_state = None
        execution.end(ADAPTER, MethodCall(execution.executor, call.arguments, state))
        return state


# -- runs that are driven by single calls, without execute()


def record_manual_call(executor: Any, record: Callable[[ExternalRunRecorder], None]) -> None:
    """Record a call that is made outside ``execute()``. The log's lease is held meanwhile.

    The run starts with the first such call, and ends when its state is no longer ``running``.

    :param record: writes it to the run
    """
    if not is_enabled():
        return
    with guarded("a call outside execute() is not logged"):
        known, state = executor_state(executor), executor.state
        run = known.manual_run if known.manual_state is state else None
        if run is None or not run.reacquire_log():
            run = open_run(ADAPTER, MethodCall(executor, {}))
            known.manual_run, known.manual_state, known.new_state = run, state, None
        try:
            record(run)
            if state.status != "running":
                run.end(state.status, state.error)
                known.manual_run = known.manual_state = None
        finally:
            run.close()


def end_manual_run(executor: Any) -> None:
    """End the executor's manual run as cancelled, if there is one: it starts another run."""
    known = executor_state(executor)
    run, known.manual_run, known.manual_state = known.manual_run, None, None
    if run is not None:
        with guarded("the end of a run is not logged"):
            if run.reacquire_log():
                run.end("cancelled")
