"""Cancelling runs: one that no process executes is ended in its log, a process is asked to end."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tapps_otel import clock
from tapps_otel.errors import RunBusyError, RunConflictError
from tapps_otel.log import lease as _lease
from tapps_otel.log.event import Event
from tapps_otel.log.pulling import pull_if_reachable
from tapps_otel.log.store import Store
from tapps_otel.names import log_name
from tapps_otel.past.plan import open_steps
from tapps_otel.redact import rules_here
from tapps_otel.run.codecs.native import MOST_TEXT, check_text
from tapps_otel.run.decision import leased, writing
from tapps_otel.run.ends_from_history import cancelled
from tapps_otel.run.lookup import find, fold_log
from tapps_otel.run.person import person
from tapps_otel.run.signals import terminate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.log.writer import LogWriter
    from tapps_otel.past.fold import RunHistory

__all__ = ["cancel"]

_ENDED: Final = frozenset({"completed", "failed", "cancelled", "timeout"})
_OPEN: Final = frozenset({"running", "interrupted", "cancelled", "paused"})  # of steps
_POLL_S: Final = 0.05


def cancel(
    workflow_id: str,
    *,
    by: str | None = None,
    reason: str | None = None,
    signal: bool = False,
    wait: float = 30,
    log_dir: Path | str | None = None,
) -> list[str]:
    """Cancel a run that has not ended, and the runs that its open steps have called.

    Its open steps end as interrupted, its questions as cancelled. It can still be resumed.

    :param by: who cancels it; by default, the user of this process
    :param reason: for the log
    :param signal: if a process of this machine executes the run, ask it to end (SIGTERM) and wait
        for that. It ends all runs that it executes; the others are interrupted
    :param wait: for how long, seconds
    :returns: the ids of the cancelled runs, the given one first
    :raises RunNotFoundError: there is no such run
    :raises ValueError: ``by`` or ``reason`` has more than 16 KiB
    :raises RunConflictError: it has ended; the process that executes it is on another machine
    :raises RunBusyError: a process executes it, or a run that it has called; or it has not ended in
        time
    :raises LogDamagedError: a log was changed; nothing was written
    :raises LogWriteError: a log cannot be written
    :raises StoreError: the store cannot be reached, and a log is not in the folder
    """
    for text, what in ((by, "by"), (reason, "the reason of a cancellation")):
        if text is not None:
            check_text(text, what, most=MOST_TEXT)
    store, name = find(workflow_id, log_dir)
    store.summary(name)  # a run that does not exist gets no lease file
    if signal:
        _end_process(store, name, wait)
    with ExitStack() as stack:
        runs = list(_open_runs(store, name, stack))
        for run in reversed(runs):  # the given one last: until then it can be cancelled again
            run.cancel(by, reason)
    return [run.history.workflow_id for run in runs]


class _OpenRun(NamedTuple):
    """A run that has not ended, under its lease."""

    history: RunHistory
    writer: LogWriter

    def cancel(self, by: str | None, reason: str | None) -> None:
        """End what is open, then the run."""
        history, rules, here = self.history, rules_here(), person()
        for step in sorted(open_steps(history), key=lambda step: not step.waits):
            self.writer.append(cancelled(history, step))
        event = Event(
            event_type="workflow_end",
            workflow_id=history.workflow_id,
            timestamp=clock.timestamp(clock.time_ns()),
            execution=history.executions[-1].number + 1 if history.executions else 1,
            status="cancelled",
            attributes={"by": rules.text(by or str(here["user"])), **here},
            late=True,
        )
        if reason is not None:
            event.reason = rules.text(reason)
        self.writer.append(event, sync=True)


def _open_runs(store: Store, name: str, stack: ExitStack) -> Iterator[_OpenRun]:
    """Take the leases of a run and of those that its open steps have called.

    :raises RunConflictError: the run has ended
    """
    due, seen = [(store, name)], set[tuple[Path, str]]()
    while due:
        place, run_id = due.pop()
        if (place.folder, run_id) in seen:
            continue
        seen.add((place.folder, run_id))
        lease = stack.enter_context(leased(place, run_id))
        fold, writer = stack.enter_context(writing(place, run_id, lease))
        history = fold.history
        if history.status in _ENDED:
            if len(seen) > 1:
                continue
            raise RunConflictError(_has_ended(history))
        yield _OpenRun(history, writer)
        due += _called(place, run_id, history)


def _has_ended(history: RunHistory) -> str:
    name = history.workflow_id
    if history.status == "failed":
        return f"run {name!r} has failed: no process executes it, and nothing is left to cancel"
    words = "was cancelled" if history.status == "cancelled" else f"is {history.status}"
    return f"run {name!r} {words} already: there is nothing to cancel"


def _called(store: Store, name: str, history: RunHistory) -> Iterator[tuple[Store, str]]:
    """Yield the runs that open steps have called.

    A log can name any run of any folder: only one whose own log names that step was called by it.
    """
    for step in history.steps:
        if step.child is not None and step.status in _OPEN:
            folder = step.child.log_dir
            place = store if folder is None else Store(Path(folder), store.home)
            called = log_name(step.child.workflow_id)
            if folder is None:  # a log must not tell into which other folder runs are pulled
                pull_if_reachable(store, called)
            parent = fold_log(place, called).history.parent if place.has_log(called) else None
            if parent and (log_name(parent.workflow_id), parent.step_id) == (name, step.step_id):
                yield place, called


# -- a process that executes the run


def _end_process(store: Store, name: str, wait: float) -> None:
    """Ask the process that executes a run to end, and wait for that.

    :raises RunConflictError: it is on another machine
    :raises RunBusyError: it has not ended in time, or is this one
    """
    path = store.lease_path(name)
    holder = _lease.holder(path)
    if holder is None:
        return
    pid, host = holder
    if host != socket.gethostname():
        raise RunConflictError(
            f"run {name!r} is executed by process {pid or '?'} on {host or '?'}, and this is "
            f"{socket.gethostname()}: cancel it there"
        )
    if pid is None or pid == os.getpid():
        raise RunBusyError(name, pid, host)
    # The lease is asked again once nothing else can get that number: it may have changed hands.
    if not terminate(pid, lambda: _lease.holder(path) == holder and _lease.is_open_in(path, pid)):
        if _lease.holder(path) == holder:
            raise RunConflictError(
                f"run {name!r} is executed by process {pid} of {host}, which is not the process of "
                "that number here (another container?): cancel it where it is executed"
            )
        _end_process(store, name, wait)
        return
    until = clock.monotonic_ns() + int(wait * 1e9)
    while _lease.holder(path) == holder:
        if clock.monotonic_ns() >= until:
            raise RunBusyError(name, pid, host)
        clock.sleep(_POLL_S)
