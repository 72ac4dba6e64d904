"""One execution of a workflow by tapps-agents: how its run is found, and where it ends.

A run's id is final only after ``_initialize_execution`` (``execute()`` restarts a run that
``start()`` made), and in Cursor mode another executor executes the workflow than the one that was
called. So the run is opened on the way, not at the call.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tapps_otel import settings
from tapps_otel.instrumentation.execution import (
    Execution,
    current_execution,
    describe_step,
    describe_workflow,
    is_enabled,
    store_under,
)
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.instrumentation.method_call import MethodCall
from tapps_otel.instrumentation.tapps_agents.adapter import ADAPTER, is_cursor_executor, root_of
from tapps_otel.instrumentation.tapps_agents.definition import type_in, type_of
from tapps_otel.instrumentation.tapps_agents.executor_state import ExecutorState, executor_state
from tapps_otel.instrumentation.tapps_agents.gates import describe_gate, evaluated_in
from tapps_otel.instrumentation.tapps_agents.log_state import log_of
from tapps_otel.instrumentation.tapps_agents.variables import StepEnd, VariableTracker
from tapps_otel.names import escape
from tapps_otel.past.fold import GATE, WORKFLOW_TYPE
from tapps_otel.run.external_start import resume_run, start_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tapps_otel.instrumentation.spec import Adapter
    from tapps_otel.run.external_attempt import ExternalAttemptRecorder
    from tapps_otel.run.external_run import ExternalRunRecorder

__all__ = [
    "TappsExecution",
    "current_tapps_execution",
    "end_manual_run",
    "end_variables",
    "execute",
    "record_manual_call",
    "warn_once",
]

_log = logging.getLogger("tapps_otel")
_warned: WeakKeyDictionary[type[Any], set[str]] = WeakKeyDictionary()


class TappsExecution(Execution):
    """A call of ``execute()``, or of the Cursor executor's ``run()``.

    :ivar call: that call
    :ivar executor: the one whose state the run is in: in Cursor mode, not the one that was called
    :ivar is_override: a subclass has its own method, which may call that of its base class
    :ivar calls_base: it has called that
    """

    def __init__(self, call: MethodCall, *, is_override: bool = False) -> None:
        super().__init__(call.executor)
        self.call, self.is_override, self.calls_base = call, is_override, False
        self._type: str | None = None
        self._gates: dict[str, dict[str, Any]] = {}
        self._unsettled: set[str] = set()  # steps that began, and whose batch has not ended

    @property
    def in_cursor_mode(self) -> bool:
        """Whether the Cursor executor executes the workflow."""
        return is_cursor_executor(self.executor)

    def open_on(self, executor: Any, *, failed: bool) -> None:
        """Open the run, after the executor has made its state, or failed to.

        :param failed: a run is opened even then, if there is a new state: it failed at its start
        """
        with guarded("this run continues without a log"):
            called, self.executor, state = self.call.executor, executor, executor.state
            known = executor_state(executor)
            if known.loaded is None:  # the Cursor executor gets the called one's workflow
                known.loaded = executor_state(called).loaded
            if known.restored_run is not None and state is known.restored_state:
                run, known.restored_run = known.restored_run, None
                self.adopt(run)
                known.variables = _tracker(run, state, known)
            elif state is not None and (not failed or state is known.new_state):
                self._open(known, state)
            if self.run is not None:
                self._type = type_in(self.run.workflow_before) or type_of(executor.workflow)
                self.note_type()
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
            self.open(lambda: _open_run(call))
            if self.run is not None:
                known.variables = _tracker(self.run, state, known)
        # else the state was loaded and its run has ended: nothing will be executed

    def begin(self) -> None:
        """Open the run, if a subclass does not begin as its base class does."""
        if not self.opened:
            self.open_on(self.executor, failed=False)

    # -- steps

    def begin_step(self, adapter: Adapter, call: MethodCall) -> ExternalAttemptRecorder | None:
        """Write that a step begins, and first, if the type of the workflow was changed, that."""
        self.note_type()
        with guarded("the batch and the gate of a step are not known"):
            step_id = call.arguments["step"].id
            self._unsettled.add(step_id)
            self._gates.pop(step_id, None)
        return super().begin_step(adapter, call)

    def note_type(self) -> None:
        """Log that the workflow has another type than before."""
        with guarded("a change of the workflow's type is not logged"):
            now = type_of(self.executor.workflow)
            if self.run is not None and now != self._type:
                self.run.annotate(WORKFLOW_TYPE, {"from": self._type, "to": now})
                self._type = now

    def end_variables(self) -> StepEnd:
        """What the end of a step must log of the variables."""
        with guarded("an executor's variables are not logged"):
            return end_variables(self.executor)
        return StepEnd()

    def note_gate_in(self, attempt: ExternalAttemptRecorder) -> None:
        """Log the result of the gate that a step has evaluated, before it ends."""
        with guarded("the result of a gate is not logged"):
            variables = getattr(self.executor.state, "variables", None) or {}
            step_id = attempt.spec.name
            gate = evaluated_in(variables, step_id)
            if gate is not None and self.run is not None:
                self._gates[step_id] = found = describe_gate(gate.get("passed"), gate)
                self.run.annotate(GATE, found, attempt)

    def note_gate_after(self, step: Any, passed: object, gate: Mapping[str, Any]) -> None:
        """Log the result of a gate of a step that has ended, unless it is logged already."""
        found = describe_gate(passed, gate)
        if self.run is not None and self._gates.get(step.id) != found:
            self._gates[step.id] = found
            self.run.annotate_step(escape(str(step.id)), GATE, found)

    def settle_batch(self, results: list[Any]) -> None:
        """Log the steps of a batch whose execution was not seen: another class executed them."""
        for result in results:
            if result.step.id in self._unsettled:
                self._unsettled.discard(result.step.id)
            elif self.run is not None:
                warn_once(
                    type(self.executor.parallel_executor),
                    "executes steps without tapps-agents' execute_parallel(): they are logged only "
                    "when their batch has ended, without their durations",
                )
                call = MethodCall(self.executor, {"step": result.step}, result.artifacts)
                values, attributes = self.end_variables()
                self.run.mark_step(
                    *describe_step(ADAPTER, call),
                    ADAPTER.artifacts(call),
                    result=values,
                    attributes=attributes,
                    error=result.error,
                )


def end_variables(executor: Any) -> StepEnd:
    """What the end of a step must log of the variables of its executor."""
    tracker = executor_state(executor).variables
    variables = getattr(executor.state, "variables", None) or {}
    return StepEnd() if tracker is None else tracker.step_end(variables)


def _tracker(run: ExternalRunRecorder, state: Any, known: ExecutorState) -> VariableTracker:
    """A tracker of the variables that the log of this run does not have yet.

    A new run has logged them as its inputs. A state that was made from the log has no others.
    """
    is_logged = run.execution == 1 or state is known.restored_state
    variables = (getattr(state, "variables", None) or {}) if is_logged else {}
    return VariableTracker(variables, logs_values=settings.current().executor_variables)


def _open_run(call: MethodCall) -> ExternalRunRecorder:
    """Start a run, or resume that of a loaded state: the one that began when the state did.

    :raises RunBusyError: the run is in progress in another process
    :raises LogError: it cannot be logged
    """
    executor, config = call.executor, settings.current()
    store, workflow = store_under(root_of(executor)), describe_workflow(ADAPTER, call)
    state = executor.state
    is_new = executor_state(executor).new_state is state
    found = None if is_new else log_of(store, state)
    if found is not None:
        return resume_run(store, found, workflow, config)
    return start_run(store, str(state.workflow_id), workflow, config)


def warn_once(kind: type[Any], what: str) -> None:
    """Warn, once of each, of what a class does by itself instead of tapps-agents."""
    said = _warned.setdefault(kind, set())
    if what not in said:
        said.add(what)
        _log.warning("%s %s", kind.__qualname__, what)


def current_tapps_execution() -> TappsExecution | None:
    """The execution by tapps-agents that the calling code is part of, if any."""
    execution = current_execution()
    return execution if isinstance(execution, TappsExecution) else None


async def execute(
    proceed: Callable[[], Awaitable[Any]], call: MethodCall, *, is_override: bool = False
) -> Any:
    """Execute a workflow, and write how its run ended.

    :param is_override: a subclass has its own method, which need not return a state
    """
    with TappsExecution(call, is_override=is_override) as execution:
        try:
            result = await proceed()
        except BaseException as error:
            execution.end_with_error(error)
            raise
        finally:
            for executor in (call.executor, execution.executor):
                known = executor_state(executor)
                known.execution = known.restored_state = None
        execution.note_type()
        with guarded("the end of a run is not logged"):
            state = _own_end(execution) if is_override else result
            execution.end(ADAPTER, MethodCall(execution.executor, call.arguments, state))
        return result


def _own_end(execution: TappsExecution) -> Any:
    """The state that a subclass's own method has left.

    It need not set the status: what has returned is not in progress any more.
    """
    state = execution.executor.state
    if not execution.opened and not execution.calls_base:
        warn_once(
            type(execution.executor),
            "executes workflows without tapps-agents' own methods: its runs are not logged",
        )
    if getattr(state, "status", None) == "running":
        return replace(state, status="completed")
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
            run = _open_run(MethodCall(executor, {}))
            known.manual_run, known.manual_state, known.new_state = run, state, None
            known.variables = _tracker(run, state, known)
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
