"""A run's timeline, from its log as far as that can be read. Takes no lease and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapps_otel.past.timeline import make_timeline
from tapps_otel.run.lookup import find
from tapps_otel.run.reading import read_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tapps_otel.log.event import Event
    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory
    from tapps_otel.past.timeline import Timeline

__all__ = ["read_timeline", "timeline"]


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

    :param see: called with every event, and with the captured spans of side logs
    :raises RunNotFoundError: there is no such run
    """
    found = read_run(store, workflow_id, see=see)
    made = make_timeline(found.history, now_ns=found.now_ns, log=found.log)
    return made, found.history
