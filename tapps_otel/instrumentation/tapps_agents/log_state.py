"""What the log of a run tells a resume: which steps are done, and which variables they left."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import UNSET

from tapps_otel.clock import timestamp_ns
from tapps_otel.errors import BlobDamagedError, LogError, RunNotFoundError
from tapps_otel.instrumentation.tapps_agents import snapshots
from tapps_otel.log import files as _files
from tapps_otel.log.artifacts import summary_of
from tapps_otel.log.encrypted import decrypt_event
from tapps_otel.log.reader import read
from tapps_otel.log.run_numbers import RunNumbers
from tapps_otel.names import ATTR, escape, log_name
from tapps_otel.past.fold import DONE
from tapps_otel.run.codecs.native import from_json
from tapps_otel.run.lookup import StoredRun
from tapps_otel.run.lookup import inputs_of as stored_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tapps_otel.log.blobs import Blobs
    from tapps_otel.log.event import Event
    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory, StepHistory

__all__ = ["LogState", "done_steps", "inputs_of", "log_of", "variables_of"]

_log = logging.getLogger("tapps_otel")
_MOST_LOOKED_AT: Final = 100  # runs of one id
# File systems take the time of a change from a clock that may be this much behind.
_TICK_NS: Final = 10_000_000


class _Value(NamedTuple):
    """A variable in the log, and when the step that changed it ended: ns since 1970 UTC."""

    ended_ns: int
    value: Any


class _Lost(NamedTuple):
    """The step that changed a variable whose value the log does not have, and when it ended."""

    ended_ns: int
    step_id: str


@dataclass(slots=True)
class LogState:
    """A run's history, and what that leaves out of the log's events.

    :ivar workflow_id: the run's id in tapps-agents
    :ivar state_ids: the ids that its snapshots may have
    :ivar started_at: the start time that its snapshots have; ``None`` if the log is too old
    :ivar inputs: of the run
    :ivar names: of the variables that existed when the last step finished
    :ivar values: the variables that the log has
    :ivar lost: the variables that steps left and the log does not have
    :ivar unreadable: ids of the steps whose variables cannot be read
    """

    history: RunHistory
    workflow_id: str
    state_ids: set[str] = field(default_factory=set)
    started_at: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    values: dict[str, _Value] = field(default_factory=dict)
    lost: dict[str, _Lost] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, store: Store, history: RunHistory, blobs: Blobs) -> LogState:
        """Read the log for what its history leaves out.

        :raises LogDamagedError: the log was changed
        :raises DecryptionError: values in it cannot be decrypted
        """
        if history.locked is not None:
            raise history.locked.error(history.workflow_id)
        state = cls(history, history.workflow_id, inputs=inputs_of(history, blobs))
        initial = state.inputs.pop("variables", None)
        if isinstance(initial, dict):
            state._put(initial, 0)
        for event in read(store.log_path(history.workflow_id), history.workflow_id):
            decrypt_event(event, blobs.codec)
            if event.event_type in {"workflow_start", "workflow_resume"}:
                state._feed_start(event)
            elif event.event_type == "step_finish" and "/" not in str(event.step_id):
                state._feed_finish(event, blobs)
        return state

    def _feed_start(self, event: Event) -> None:
        self.workflow_id = event.workflow_id
        known = event.workflow.get("state") if isinstance(event.workflow, dict) else None
        if isinstance(known, dict):
            self.state_ids.add(str(known.get("workflow_id")))
            self.started_at = self.started_at or known.get("started_at")

    def _feed_finish(self, event: Event, blobs: Blobs) -> None:
        ended_ns, step_id = timestamp_ns(event.timestamp), str(event.step_id)
        attributes = event.attributes if isinstance(event.attributes, dict) else {}
        names = attributes.get(ATTR.VARIABLES)
        values = self._values(event, blobs)
        omitted = set(attributes.get(ATTR.VARIABLES_OMITTED) or ())
        if values is None and not omitted and names:
            omitted = {*names} - self.names  # logged by a version that logged names alone
        self._put(values or {}, ended_ns)
        for name in omitted:
            self.values.pop(name, None)
            self.lost[name] = _Lost(ended_ns, step_id)
        if names:
            self.names = {*names}
            self.values = {name: one for name, one in self.values.items() if name in self.names}
            self.lost = {name: one for name, one in self.lost.items() if name in self.names}

    def _values(self, event: Event, blobs: Blobs) -> dict[str, Any] | None:
        """The variables that a finished step has logged; ``None`` if it has logged none."""
        step_id = str(event.step_id)
        self.unreadable.discard(step_id)
        try:
            if event.result_omitted is not UNSET:
                raise ValueError(event.result_omitted)
            data = blobs.get(event.result_blob) if event.result_blob is not UNSET else event.result
            found = None if data is UNSET else from_json(bytes(data))
        except (BlobDamagedError, ValueError) as error:
            _log.warning("the variables that step %s left cannot be read: %s", step_id, error)
            self.unreadable.add(step_id)
            return None
        return found if isinstance(found, dict) else None

    def _put(self, values: Mapping[str, Any], ended_ns: int) -> None:
        for name, value in values.items():
            self.values[name] = _Value(ended_ns, value)
            self.lost.pop(name, None)
            self.names.add(name)


# -- which log is that of a state


def log_of(store: Store, state: Any) -> str | None:
    """The id that the run of a state has in its log; ``None`` if none is found.

    Two runs may have the same id in tapps-agents; their start times tell them apart. Only the
    newest runs of the id are looked at, with a warning if there are older ones.

    :raises LogError: no log is, and one cannot be read
    """
    unreadable: LogError | None = None
    numbers = RunNumbers(store, str(state.workflow_id))
    last = numbers.last()
    oldest = max(1, last - _MOST_LOOKED_AT + 1)
    for number in range(last, oldest - 1, -1):
        own_id = numbers.id_of(number)
        try:
            with StoredRun(store, log_name(own_id)) as found:
                logged = found.history.workflow.get("state") or {}
        except RunNotFoundError:
            continue
        except LogError as error:
            unreadable = unreadable or error
            continue
        if logged.get("started_at") == state.started_at.isoformat():
            return own_id
    if unreadable is not None:
        raise unreadable
    if oldest > 1:
        _log.warning(
            "run %s: its log is not among those of the newest %d runs of this id, and older ones "
            "are not looked at",
            state.workflow_id,
            _MOST_LOOKED_AT,
        )
    return None


# -- which steps are done


def done_steps(
    executor: Any, history: RunHistory, root: Path, lost: Mapping[str, Iterable[str]]
) -> dict[str, StepHistory]:
    """The steps that need not run again, by their id, in the order of the workflow.

    A step must run again if its files or its variables are missing: what follows needs them.

    tapps-agents starts the steps whose requirements exist, or (since 3.5.40) the ``next`` of a
    completed step. So a step must run again if the engine cannot reach it without one that must:
    the engine itself is asked, unless the run is completed and nothing runs.

    :param root: the folder that artifacts are looked for in
    :param lost: variables that cannot be had, by the id of the step that left them
    """
    if history.status == "completed":
        return {
            step.name: step for step in history.steps if step.parent is None and step.status in DONE
        }
    intact, artifacts = {}, _Artifacts(history, root)
    for step in executor.workflow.steps:
        record = history.by_id.get(escape(str(step.id)))
        if record is None or record.status not in DONE or not artifacts.are_there(record):
            continue
        if record.step_id in lost:
            _log.warning(
                "step %s runs again: neither the log nor a snapshot has what it left in the "
                "variables %s",
                record.name,
                ", ".join(lost[record.step_id]) or "that it changed",
            )
            continue
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


class _Artifacts:
    """The files that the steps of a run have made, and what has become of them.

    :param root: the folder that their paths refer to
    """

    def __init__(self, history: RunHistory, root: Path) -> None:
        self._root = root
        self._ended_ns = timestamp_ns(history.last_timestamp)
        # As the last step left them that made them: later steps may edit the same files.
        self._summaries = {
            artifact.get("path"): artifact
            for step in sorted(history.steps, key=lambda one: one.last.end_seq)
            for artifact in step.last.artifacts
        }

    def are_there(self, record: StepHistory) -> bool:
        """Whether the files and folders that a step made still exist, folders with content."""
        for artifact in record.last.artifacts:
            path = artifact.get("path")
            if not path or "error" in artifact:
                continue
            now = summary_of(self._root / str(path), hashes_large=False)
            is_emptied = now.get("entries") == 0 and artifact.get("entries") != 0
            if "error" in now or is_emptied:
                what = "empty" if is_emptied else "missing"
                _log.warning("step %s runs again: its artifact %s is %s", record.name, path, what)
                return False
            if self._has_changed_since(path, now):
                _log.warning(
                    "artifact %s of step %s has changed since; the step does not run again",
                    path,
                    record.name,
                )
        return True

    def _has_changed_since(self, path: str, now: Mapping[str, Any]) -> bool:
        """Whether it is not as the run left it: what changed while it ran is its own doing.

        A large file is not hashed again: the time of its last change tells.
        """
        then = self._summaries[path].get("sha256")
        if "entries" in now or ("sha256" in now and now["sha256"] == then):
            return False
        return _files.system().modified_ns(self._root / path) > self._ended_ns


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


def inputs_of(history: RunHistory, blobs: Blobs) -> dict[str, Any]:
    """The inputs of a run."""
    try:
        inputs = from_json(stored_inputs(history, blobs))
    except BlobDamagedError as error:
        _log.warning("the inputs of run %s cannot be read: %s", history.workflow_id, error)
        return {}
    return inputs if isinstance(inputs, dict) else {}


def variables_of(state: LogState, root: Path) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The run's variables: from the log, and from the newest readable snapshot.

    Of the two, the one that is newer counts; what the log says of the user's prompt always counts.

    :returns: the variables; and those whose values are lost, by the id of the step that left them
    """
    snapshot = None
    if state.started_at is not None:
        snapshot = snapshots.newest(root, state.state_ids | {state.workflow_id}, state.started_at)
    saved_ns, saved = snapshot or snapshots.Snapshot(0, {})
    older = {name: one.value for name, one in state.values.items() if one.ended_ns <= saved_ns}
    newer = {name: one.value for name, one in state.values.items() if one.ended_ns > saved_ns}
    found = {**older, **saved, **newer}
    if "user_prompt" in state.inputs:
        found["user_prompt"] = {**state.inputs, **older, **newer}["user_prompt"]
    return found, _lost_by_step(state, saved, saved_ns)


def _lost_by_step(state: LogState, saved: Mapping[str, Any], saved_ns: int) -> dict[str, list[str]]:
    """The variables that neither the log nor the snapshot has, by the step that left them."""
    lost: dict[str, list[str]] = {step_id: [] for step_id in state.unreadable}
    for name, (ended_ns, step_id) in sorted(state.lost.items()):
        is_saved = name in saved and saved_ns + _TICK_NS >= ended_ns
        if not is_saved and not name.startswith("_"):  # those are of tapps-agents itself
            lost.setdefault(step_id, []).append(name)
    return lost
