"""A run's timeline, from its log as far as that can be read. Takes no lease and changes nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from tapps_otel import clock
from tapps_otel.errors import LogDamagedError, LogError, LogVersionError, RunNotFoundError
from tapps_otel.log import lease
from tapps_otel.log.reader import Checker, read
from tapps_otel.past.fold import Fold, collector_paused
from tapps_otel.past.timeline import LogState, make_timeline
from tapps_otel.run.lookup import find

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tapps_otel.log.event import Event
    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory
    from tapps_otel.past.timeline import Timeline

__all__ = ["FoundHistory", "read_history", "read_side_logs", "read_timeline", "timeline"]


def timeline(workflow_id: str, *, log_dir: Path | str | None = None) -> Timeline:
    """The run as intervals of time: executions, downtimes, attempts, and the critical path.

    A damaged log is used up to the damage, and ``log`` tells of it. Of a run in progress, the
    timeline ends now.

    :raises RunNotFoundError: there is no such run
    """
    return read_timeline(*find(workflow_id, log_dir))[0]


def read_timeline(
    store: Store, workflow_id: str, *, see: Callable[[Event], None] | None = None
) -> tuple[Timeline, RunHistory]:
    """Read a run's log once, for its timeline and its history.

    :param see: called with every event
    :raises RunNotFoundError: there is no such run
    """
    found = read_history(store, workflow_id, see=see)
    now_ns = clock.time_ns() if found.is_executed and found.log.damage is None else None
    return make_timeline(found.history, now_ns=now_ns, log=found.log), found.history


class FoundHistory(NamedTuple):
    """A run's history, as far as its log can be read.

    :ivar is_executed: whether a process executes it
    """

    history: RunHistory
    log: LogState
    is_executed: bool


def read_history(
    store: Store, workflow_id: str, *, see: Callable[[Event], None] | None = None
) -> FoundHistory:
    """Read a run's log once.

    :param see: called with every event
    :raises RunNotFoundError: there is no such run
    """
    store.summary(workflow_id)  # raises for a file that is not a log
    path = store.log_path(workflow_id)
    fold, checker, damage = Fold(workflow_id), Checker(path, workflow_id), None
    try:
        with collector_paused():
            for event in read(path, workflow_id, checker=checker):
                fold.feed(event)
                if see is not None:
                    see(event)
    except FileNotFoundError:
        raise RunNotFoundError(workflow_id, path.parent) from None
    except (LogDamagedError, LogVersionError) as error:
        damage = str(error)
    history = fold.history
    held = history.status == "running" and lease.holder(store.lease_path(workflow_id)) is not None
    if history.status == "running" and not held and history.executions:
        status = "interrupted" if damage is None else "damaged"
        history.status = history.executions[-1].status = status
    return FoundHistory(history, _state(path, checker, damage), held)


def read_side_logs(store: Store, workflow_id: str, *, see: Callable[[Event], None]) -> None:
    """Read the logs that other processes wrote beside a run's own, as far as they can be read.

    :param see: called with every event
    """
    for path in store.side_paths().get(workflow_id, []):
        with suppress(LogError, OSError):  # verify tells what is wrong with it
            for event in read(path, workflow_id):
                see(event)


def _state(path: Path, checker: Checker, damage: str | None) -> LogState:
    region = checker.region if damage is None else None
    return LogState(
        path=str(path),
        seq=checker.seq,
        sha=checker.sha.decode() if checker.seq else "",
        repairs=tuple(checker.repairs),
        unfinished=None
        if region is None
        else f"{region.length} bytes at byte {region.offset}: {region.problem} (no damage)",
        damage=damage,
    )
