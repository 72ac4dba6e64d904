"""What a run's log says for a resume: what is done, and what it has left for the steps to come."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tapps_otel.errors import BlobDamagedError
from tapps_otel.instrumentation.tapps_agents import snapshots
from tapps_otel.log.artifacts import summary_of
from tapps_otel.log.reader import read
from tapps_otel.names import ATTR, escape, log_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tapps_otel.log.blobs import Blobs
    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory, StepHistory

__all__ = ["Past", "done_steps", "inputs_of", "variables_of"]

_log = logging.getLogger("tapps_otel")
_DONE: Final = frozenset({"completed", "skipped"})


@dataclass(slots=True)
class Past:
    """A run's history, and what the fold of its events passes over.

    :ivar workflow_id: the executor's own
    :ivar names: of the variables that its steps had left, when the last of them finished
    """

    history: RunHistory
    workflow_id: str
    names: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, store: Store, history: RunHistory) -> Past:
        """Read the log once more, for its own words.

        :raises LogDamagedError: the log was changed
        """
        past = cls(history, history.workflow_id)
        for event in read(store.log_path(history.workflow_id), history.workflow_id):
            if event.event_type == "workflow_start":
                past.workflow_id = event.workflow_id
            elif event.event_type == "step_finish" and isinstance(event.attributes, dict):
                names = event.attributes.get(ATTR.VARIABLES)
                if isinstance(names, list):
                    past.names = {str(name) for name in names}
        return past


# -- what is done


def done_steps(executor: Any, history: RunHistory, root: Path) -> dict[str, StepHistory]:
    """The steps that need not run again, by their id, in the order of the workflow.

    Their engine follows requirements, or (since 3.5.40) the chain of ``next`` alone: a step that
    it could not have come to without one that has to run again has to run again, too. So it is
    asked itself; but not of a run that is completed, of which nothing runs.

    :param root: artifacts are looked for under it
    """
    if history.status == "completed":
        return {
            step.name: step
            for step in history.steps
            if step.parent is None and step.status in _DONE
        }
    whole = {}
    for step in executor.workflow.steps:
        record = history.by_id.get(escape(str(step.id)))
        if record is not None and record.status in _DONE and _is_whole(record, root):
            whole[step.id] = record
    reached = _reached(executor, whole)
    again = [step_id for step_id in whole if step_id not in reached]
    if again:
        _log.warning(
            "run %s: run again, for what comes before them does: %s",
            history.workflow_id,
            ", ".join(again),
        )
    return {step_id: record for step_id, record in whole.items() if step_id in reached}


def _is_whole(record: StepHistory, root: Path) -> bool:
    """Whether the files that a step made are there still."""
    for artifact in record.last.artifacts:
        path = artifact.get("path")
        if not path or "error" in artifact:
            continue
        now = summary_of(root / str(path))
        if "error" in now:
            _log.warning("step %s runs again: its artifact %s is gone", record.step_id, path)
            return False
        if now.get("sha256") != artifact.get("sha256"):
            _log.warning(
                "artifact %s of step %s was changed since; the step is not run again",
                path,
                record.step_id,
            )
    return True


def _reached(executor: Any, done: Mapping[str, StepHistory]) -> set[str]:
    """Which of the done steps their engine comes to, when it finds them done one by one."""
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


# -- what was left


def inputs_of(history: RunHistory) -> dict[str, Any]:
    """What the run was asked for."""
    found = msgspec.json.decode(history.inputs or b"{}")
    return found if isinstance(found, dict) else {}


def variables_of(past: Past, root: Path, blobs: Blobs) -> dict[str, Any]:
    """The variables, from the newest of: a readable snapshot, the log; and what the run was asked.

    What neither has, although the log knows its name, is warned of.
    """
    history = past.history
    asked = {name: value for name, value in inputs_of(history).items() if name != "max_steps"}
    snapshot = snapshots.newest(root, past.workflow_id)
    at_ns, logged = _logged(history, blobs)
    kept = snapshot.variables if snapshot is not None and snapshot.saved_ns > at_ns else logged
    if kept is None and snapshot is not None:
        kept = snapshot.variables
    found = {**asked, **(kept or {})}
    missing = sorted(name for name in past.names - found.keys() if not name.startswith("_"))
    if missing:
        _log.warning(
            "run %s: no snapshot is left, and the log does not hold what earlier steps left for "
            "later ones: %s. With TAPPS_OTEL_EXECUTOR_VARIABLES=1 it does",
            log_name(past.workflow_id),
            ", ".join(missing),
        )
    return found


def _logged(history: RunHistory, blobs: Blobs) -> tuple[int, dict[str, Any] | None]:
    """The variables that the last finished step has in the log, and when that was."""
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
        _log.warning("the variables that the log holds cannot be read: %s", error)
        return 0, None
    at_ns = last.last.started_ns + (last.last.duration_ns or 0)
    return at_ns, found if isinstance(found, dict) else None
