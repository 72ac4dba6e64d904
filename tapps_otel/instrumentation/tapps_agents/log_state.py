"""What the log of a run tells a resume: which steps are done, and which variables they left."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tapps_otel.errors import BlobDamagedError
from tapps_otel.instrumentation.tapps_agents import snapshots
from tapps_otel.instrumentation.tapps_agents.states import ended_ns
from tapps_otel.log.artifacts import summary_of
from tapps_otel.log.reader import read
from tapps_otel.names import ATTR, escape, log_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tapps_otel.log.blobs import Blobs
    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory, StepHistory

__all__ = ["LogState", "done_steps", "inputs_of", "variables_of"]

_log = logging.getLogger("tapps_otel")
_DONE: Final = frozenset({"completed", "skipped"})


@dataclass(slots=True)
class LogState:
    """A run's history, and what that leaves out of the log's events.

    :ivar workflow_id: the run's id in tapps-agents
    :ivar names: of the variables that existed when the last step finished
    """

    history: RunHistory
    workflow_id: str
    names: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, store: Store, history: RunHistory) -> LogState:
        """Read the log for what its history leaves out.

        :raises LogDamagedError: the log was changed
        """
        state = cls(history, history.workflow_id)
        for event in read(store.log_path(history.workflow_id), history.workflow_id):
            if event.event_type == "workflow_start":
                state.workflow_id = event.workflow_id
            elif event.event_type == "step_finish" and isinstance(event.attributes, dict):
                names = event.attributes.get(ATTR.VARIABLES)
                if isinstance(names, list):
                    state.names = {str(name) for name in names}
        return state


# -- which steps are done


def done_steps(executor: Any, history: RunHistory, root: Path) -> dict[str, StepHistory]:
    """The steps that need not run again, by their id, in the order of the workflow.

    tapps-agents starts the steps whose requirements exist, or (since 3.5.40) the ``next`` of a
    completed step. So a step must run again if the engine cannot reach it without one that must:
    the engine itself is asked, unless the run is completed and nothing runs.

    :param root: the folder that artifacts are looked for in
    """
    if history.status == "completed":
        return {
            step.name: step
            for step in history.steps
            if step.parent is None and step.status in _DONE
        }
    intact = {}
    for step in executor.workflow.steps:
        record = history.by_id.get(escape(str(step.id)))
        if record is not None and record.status in _DONE and _is_intact(record, root):
            intact[step.id] = record
    reached = _reached(executor, intact)
    unreached = [step_id for step_id in intact if step_id not in reached]
    if unreached:
        _log.warning(
            "run %s: these steps run again, because steps before them do: %s",
            history.workflow_id,
            ", ".join(unreached),
        )
    return {step_id: record for step_id, record in intact.items() if step_id in reached}


def _is_intact(record: StepHistory, root: Path) -> bool:
    """Whether the files that a step created still exist."""
    for artifact in record.last.artifacts:
        path = artifact.get("path")
        if not path or "error" in artifact:
            continue
        now = summary_of(root / str(path))
        if "error" in now:
            _log.warning("step %s runs again: its artifact %s is missing", record.step_id, path)
            return False
        if now.get("sha256") != artifact.get("sha256"):
            _log.warning(
                "artifact %s of step %s has changed since; the step does not run again",
                path,
                record.step_id,
            )
    return True


def _reached(executor: Any, done: Mapping[str, StepHistory]) -> set[str]:
    """Which of these steps the engine reaches, if each is done when it gets there."""
    reached: set[str] = set()
    artifacts: set[str] = set()
    while True:
        ready = executor.parallel_executor.find_ready_steps(
            workflow_steps=executor.workflow.steps,
            completed_step_ids=reached,
            running_step_ids=set(),
            available_artifacts=artifacts,
        )
        new = {step.id for step in ready if step.id in done} - reached
        if not new:
            return reached
        reached |= new
        for step_id in new:
            artifacts |= {str(one.get("name")) for one in done[step_id].last.artifacts}


# -- inputs and variables


def inputs_of(history: RunHistory) -> dict[str, Any]:
    """The inputs of a run."""
    inputs = msgspec.json.decode(history.inputs or b"{}")
    return inputs if isinstance(inputs, dict) else {}


def variables_of(state: LogState, root: Path, blobs: Blobs) -> dict[str, Any]:
    """The run's inputs, and the variables of the newest readable snapshot or of the log.

    Variables whose values are lost, although the log knows their names, are logged as a warning.
    """
    history = state.history
    inputs = {name: value for name, value in inputs_of(history).items() if name != "max_steps"}
    snapshot = snapshots.newest(root, state.workflow_id)
    logged_ns, logged = _logged(history, blobs)
    variables = logged
    if snapshot is not None and (logged is None or snapshot.saved_ns > logged_ns):
        variables = snapshot.variables
    found = {**inputs, **(variables or {})}
    missing = sorted(name for name in state.names - found.keys() if not name.startswith("_"))
    if missing:
        _log.warning(
            "run %s: no snapshot is left, and the log does not hold these variables of earlier "
            "steps: %s. It does with TAPPS_OTEL_EXECUTOR_VARIABLES=1",
            log_name(state.workflow_id),
            ", ".join(missing),
        )
    return found


def _logged(history: RunHistory, blobs: Blobs) -> tuple[int, dict[str, Any] | None]:
    """The variables that the log holds of the last finished step, and when it finished."""
    finished = [
        step
        for step in history.steps
        if step.status == "completed" and step.parent is None and step.stored
    ]
    if not finished:
        return 0, None
    last = max(finished, key=lambda step: step.last.end_seq)
    try:
        data = blobs.get(last.result_blob) if last.result_blob is not None else last.result
        found = msgspec.json.decode(data or b"null")
    except (BlobDamagedError, msgspec.DecodeError) as error:
        _log.warning("the variables in the log cannot be read: %s", error)
        return 0, None
    return ended_ns(last.last), found if isinstance(found, dict) else None
