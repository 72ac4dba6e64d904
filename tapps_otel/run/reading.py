"""A run as its log shows it, as far as that can be read. Takes no lease and changes nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tapps_otel import clock, settings
from tapps_otel.errors import LogDamagedError, LogError, LogVersionError
from tapps_otel.log.encrypted import decrypting
from tapps_otel.log.follower import follow
from tapps_otel.log.reader import Checker, read
from tapps_otel.past.fold import Fold, RunHistory, collector_paused
from tapps_otel.past.timeline import LogState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tapps_otel.log.event import Event
    from tapps_otel.log.home import Holder
    from tapps_otel.log.store import Store

__all__ = ["Folding", "Reading", "feed_log", "read_run", "read_side_logs"]


class Folding(Protocol):
    """What makes a history of events."""

    def feed(self, event: Event) -> None:
        """Add the next event."""

    def feed_beside(self, event: Event) -> None:
        """Add an event of a side log."""

    @property
    def history(self) -> RunHistory:
        """The history so far."""


class Reading(NamedTuple):
    """What one reading of a run's log has found.

    :ivar history: its status is ``running`` only while a process executes the run, otherwise
        ``interrupted``; or ``damaged``, if its end is not in what can be read
    :ivar log: how far the log could be read
    :ivar holder: process and host that hold the lease, if any do
    :ivar now_ns: the present, if the run is in progress
    """

    history: RunHistory
    log: LogState
    holder: Holder | None
    now_ns: int | None


def read_run(
    store: Store,
    workflow_id: str,
    *,
    fold: Folding | None = None,
    see: Callable[[Event], None] | None = None,
) -> Reading:
    """Read a run's log once, up to its end or to the first damage, then its side logs.

    :param fold: what makes the history
    :param see: called with every event, and with the captured spans of side logs
    :raises RunNotFoundError: there is no such run
    """
    store.summary(workflow_id)  # raises for a file that is not a log
    path = store.log_path(workflow_id)
    fold = Fold(workflow_id) if fold is None else fold
    checker, damage, holder = Checker(path, workflow_id), None, None
    try:
        holder = feed_log(store, workflow_id, fold, see=see, checker=checker)
    except (LogDamagedError, LogVersionError) as error:
        damage = str(error)
        holder = store.holder(workflow_id)
    for event in read_side_logs(store, workflow_id):
        if see is not None:
            see(event)
        fold.feed_beside(event)
    history = fold.history
    running = history.status == "running"
    in_progress = running and holder is not None
    if running and not in_progress and history.executions:
        status = "interrupted" if damage is None else "damaged"
        history.status = history.executions[-1].status = status
    now_ns = clock.time_ns() if in_progress and damage is None else None
    return Reading(history, _state(path, checker, damage), holder if running else None, now_ns)


def feed_log(
    store: Store,
    workflow_id: str,
    fold: Folding,
    *,
    see: Callable[[Event], None] | None = None,
    checker: Checker | None = None,
) -> Holder | None:
    """Fold a run's log; return which process executes it, ``None`` if it has ended or none does.

    What is written while that is asked is read, too: a run that ends just now is not taken for one
    whose process died.

    :param see: called with every event
    :param checker: pass one to learn the state of the chain
    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: the log was changed; raised after the events before the damage
    :raises LogVersionError: a newer format
    """
    feed, holder = decrypting(fold.feed, settings.current().codec), None

    def ask() -> bool:
        nonlocal holder
        holder = store.holder(workflow_id) if fold.history.status == "running" else None
        return True

    try:
        with collector_paused():
            for event in follow(
                store.log_path(workflow_id), workflow_id, done=ask, checker=checker
            ):
                if see is not None:
                    see(event)
                feed(event)
    except FileNotFoundError:
        raise store.not_found(workflow_id) from None
    return holder


def read_side_logs(store: Store, workflow_id: str) -> Iterator[Event]:
    """Yield the captured spans of the logs that other processes wrote beside a run's own.

    As far as these can be read: ``verify`` tells what is wrong with them.
    """
    for path in store.side_paths_of(workflow_id):
        with suppress(LogError, OSError):
            for event in read(path, workflow_id):
                if event.event_type in {"span", "span_start"}:
                    yield event


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
