"""What is known of each tapps-agents executor, kept beside it: nothing is set on the object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

if TYPE_CHECKING:
    from tapps_otel.instrumentation.execution import Execution
    from tapps_otel.instrumentation.tapps_agents.definition import LoadedWorkflow
    from tapps_otel.instrumentation.tapps_agents.variables import VariableTracker
    from tapps_otel.run.external_run import ExternalRunRecorder

__all__ = ["TARGET", "ExecutorState", "executor_state"]

TARGET: Final = "tapps_agents"  # names the hooks on its functions


@dataclass(slots=True)
class ExecutorState:
    """What is known of one executor. States are its ``WorkflowState`` objects.

    :ivar loaded: the workflow that it loaded last
    :ivar own_state: the last state that its ``start()`` made; any other was loaded
    :ivar new_state: that state, until a run is opened for it
    :ivar restored_state: a state that was made from a log: ``start()`` must keep it
    :ivar restored_run: the run of ``restored_state``, opened already
    :ivar execution: its execution in progress
    :ivar manual_run: the run that is driven by single calls, without ``execute()``
    :ivar manual_state: the state of ``manual_run``
    :ivar hand_calls: number of calls by hand (marks, skips, pauses) that the hooks have seen
    :ivar variables: tells which variables of its run the log does not have yet
    """

    loaded: LoadedWorkflow | None = None
    own_state: Any = None
    new_state: Any = None
    restored_state: Any = None
    restored_run: ExternalRunRecorder | None = None
    execution: Execution | None = None
    manual_run: ExternalRunRecorder | None = None
    manual_state: Any = None
    hand_calls: int = 0
    variables: VariableTracker | None = None


# By identity: a subclass may say that two executors are equal, and then cannot be hashed.
_states: dict[int, tuple[ref[Any], ExecutorState]] = {}


def executor_state(executor: Any) -> ExecutorState:
    """What is known of this executor."""
    key = id(executor)
    found = _states.get(key)
    if found is None:
        forget = ref(executor, lambda _: _states.pop(key, None))
        found = _states.setdefault(key, (forget, ExecutorState()))
    return found[1]
