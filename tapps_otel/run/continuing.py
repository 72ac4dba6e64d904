"""Which paused runs can continue, and which run a resume begins with. Reads logs only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tapps_otel import clock
from tapps_otel.errors import InvalidIdError, LogError, RunNotFoundError, StoreError
from tapps_otel.log.pulling import pull_if_reachable
from tapps_otel.log.store import Store
from tapps_otel.names import log_name
from tapps_otel.run.lookup import fold_log, folder_of_parent

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from tapps_otel.log.store import RunSummary
    from tapps_otel.past.fold import RunHistory

__all__ = ["WAITING", "called_can_continue", "can_continue", "outermost"]

WAITING: Final = frozenset({"paused", "answered", "interrupted"})
# A run that a person has cancelled is not continued by itself.
_ENDED: Final = frozenset({"completed", "failed", "interrupted"})


def can_continue(store: Store, run: RunSummary) -> bool:
    """Whether a paused run has what it waits for: an answer, its time, or the end of a called run.

    :param store: the folder of its log
    """
    return _can_continue(store, run, set())


def called_can_continue(store: Store, history: RunHistory) -> bool:
    """Whether a run that a paused run waits for has ended, or can continue.

    :param store: the folder of the paused run's log
    """
    return _any_can_continue(_called(store, history), {(store.folder, history.workflow_id)})


def _can_continue(store: Store, run: RunSummary, seen: set[tuple[Path, str]]) -> bool:
    if run.status != "paused" or (store.folder, run.workflow_id) in seen:
        return run.status == "answered"
    seen.add((store.folder, run.workflow_id))
    if run.until_ns is not None and run.until_ns <= clock.time_ns():
        return True
    try:
        pull_if_reachable(store, run.workflow_id)
        history = fold_log(store, run.workflow_id).history
    except (RunNotFoundError, LogError, OSError):
        return False
    return _any_can_continue(_called(store, history), seen)


def _any_can_continue(called: Iterable[tuple[Store, str]], seen: set[tuple[Path, str]]) -> bool:
    for place, name in called:
        run = _summary(place, name)
        if run is not None and (run.status in _ENDED or _can_continue(place, run, seen)):
            return True
    return False


def _called(store: Store, history: RunHistory) -> Iterator[tuple[Store, str]]:
    """The runs that a paused run waits for."""
    for step in history.steps:
        if step.child is not None and step.status == "paused":
            folder = step.child.log_dir
            # A log must not tell into which other folder runs are pulled.
            place = store if folder is None else Store(Path(folder))
            yield place, log_name(step.child.workflow_id)


def outermost(store: Store, run: RunSummary, statuses: Container[str] | None = None) -> RunSummary:
    """The run whose resume resumes one that a step called; it has its log in the same folder.

    :param statuses: of the runs around it that count; by default, all but completed ones
    """
    seen = {run.workflow_id}
    while (parent := _parent(store, run)) is not None:
        counts = parent.status != "completed" if statuses is None else parent.status in statuses
        if parent.workflow_id in seen or not counts:
            break
        seen.add(parent.workflow_id)
        run = parent
    return run


def _parent(store: Store, run: RunSummary) -> RunSummary | None:
    """The run whose step called a run first; ``None`` if its log is not in this folder."""
    if run.parent is None:
        return None
    try:
        pull_if_reachable(store, run.workflow_id)
        folder = folder_of_parent(store, run.workflow_id)
    except (RunNotFoundError, LogError, OSError):
        return None
    return _summary(store, run.parent) if folder == store.folder else None


def _summary(store: Store, name: str) -> RunSummary | None:
    try:
        pull_if_reachable(store, name)
        return store.summary(name)
    except (RunNotFoundError, InvalidIdError, StoreError):  # deleted, made up, or not to be had
        return None
