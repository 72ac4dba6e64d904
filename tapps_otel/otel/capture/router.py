"""Where captured spans are written: to the run's log, or to a side log.

- By the run's own writer, while the run is in progress in this process.
- Under its lease, once the run has completed here: no process will resume it.
- Else to a side log: by other processes (children, forks), and after a run that did not complete,
  whose lease is left to the process that resumes it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from msgspec import UNSET

from tapps_otel import settings
from tapps_otel.errors import (
    LogError,
    LogWriteError,
    RunBusyError,
    RunNotFoundError,
    StoreError,
)
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.home import home_of
from tapps_otel.log.reader import read
from tapps_otel.log.reports import held_back
from tapps_otel.log.store import Store
from tapps_otel.log.writer import LogWriter
from tapps_otel.otel.capture.event import Captured, Resources, capture, capture_start
from tapps_otel.otel.capture.side_logs import SideLogs
from tapps_otel.otel.mapping.redacted import redacted
from tapps_otel.redact import rules_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.log.event import Event
    from tapps_otel.otel.run_registry import KnownRun
    from tapps_otel.settings_types import Durability

__all__ = ["Router", "Written"]


class Written(NamedTuple):
    """What became of spans.

    :ivar problem: why not all of them are in a log; some may wait in memory until it can be written
    :ivar lost: those that are in no log, and wait for none
    """

    problem: Exception | None
    lost: Sequence[ReadableSpan]


class Router:
    """Writes spans into logs.

    Once a method returns, its spans are as safe as the durability promises, if they were to be
    synced.
    """

    def __init__(self) -> None:
        # Never held while a run's own lock is taken. A finalizer may come back in the middle.
        self._lock = threading.RLock()
        self._queued: deque[Callable[[], None]] = deque()
        self._busy = False
        self._resources = Resources()
        self._side_logs = SideLogs()

    def write(
        self,
        run: KnownRun,
        spans: Sequence[ReadableSpan],
        durability: Durability,
        *,
        sync: bool = True,
    ) -> Written:
        """Write spans of libraries; one that fails does not affect the others.

        :param sync: once for all of them; if not, the log's next sync covers them
        """
        captured, problem = self._capture(run, spans, durability)
        done = {id(one.span) for one in captured}
        lost = [span for span in spans if id(span) not in done]
        left, waiting = _append(run, captured, sync=sync)
        if left:
            try:
                self._beside(partial(self._append_left, run, left, durability, sync=sync))
            except Exception as error:  # noqa: BLE001 - of a log, or a disk
                problem = error
                lost += [one.span for one in left]
        return Written(problem or waiting, lost)

    def write_start(self, run: KnownRun, span: ReadableSpan) -> Written:
        """Write that a library's span has started, unsynced; not once the run has ended here.

        :raises Exception: of the disk, of a value
        """
        started = capture_start(redacted(span, run.rules or rules_here()), run, self._resources)
        left, waiting = _append(run, [started], sync=False)
        if left and run.pid != os.getpid():
            self._beside(partial(self._append_to_side_log, run, left, "os"))
        return Written(waiting, [])

    def _append_left(
        self, run: KnownRun, spans: Sequence[Captured], durability: Durability, *, sync: bool
    ) -> None:
        """Append what the run's own writer does not take."""
        if not self._append_to_completed(run, spans, durability):
            self._append_to_side_log(run, spans, durability if sync else "os")

    def _beside(self, work: Callable[[], None]) -> None:
        """Do something with other logs than those of runs in progress.

        What a finalizer asks for in the middle of that is done after it.
        """
        with held_back(), self._lock:
            if self._busy:
                self._queued.append(work)
                return
            self._busy = True
            try:
                work()
            finally:
                while self._queued:
                    with suppress(Exception):  # of a disk; the finalizer has ended
                        self._queued.popleft()()
                self._busy = False

    def write_missing(
        self, run: KnownRun, spans: Sequence[ReadableSpan], durability: Durability
    ) -> None:
        """Write our own spans that the run's logs lack whole, as late events.

        If the run's log has a span's start, its end is written there too, and nowhere else: a
        second span of that id would be rebuilt.

        :raises Exception: not all of them are written
        """
        captured, problem = self._capture(run, spans, durability, late=True)
        whole, begun = _in_logs(run, {str(one.event.span_id) for one in captured})
        missing = [one for one in captured if one.event.span_id not in whole]
        inside = [one for one in missing if one.event.span_id in begun]
        outside = [one for one in missing if one.event.span_id not in begun]
        if inside:
            try:
                self._beside(partial(_append_inside, run, inside, durability))
            except LogError as error:
                problem = problem or error
        if outside:
            self._beside(partial(self._append_to_side_log, run, outside, durability))
        if problem:
            raise problem

    def close(self, timeout: float = 1) -> None:
        """Close the side logs, unless a write hangs: then the exit must not hang too."""
        if self._lock.acquire(timeout=timeout):
            self._side_logs.close()
            self._lock.release()

    def _capture(
        self,
        run: KnownRun,
        spans: Iterable[ReadableSpan],
        durability: Durability,
        *,
        late: bool = False,
    ) -> tuple[list[Captured], Exception | None]:
        """Return their events, and the error of one that no log can hold."""
        put = partial(_put_blob, run, durability) if run.has_blobs else None
        captured, problem = [], None
        rules = run.rules or rules_here()
        for span in spans:
            try:
                clean = redacted(span, rules)
                captured.append(capture(clean, run, self._resources, put, late=late))
            except Exception as error:  # noqa: BLE001 - of odd values, a disk
                problem = error
        return captured, problem

    def _append_to_side_log(
        self, run: KnownRun, spans: Sequence[Captured], durability: Durability
    ) -> None:
        self._side_logs.append(_store(run), run.log_name, spans, durability)

    def _append_to_completed(
        self, run: KnownRun, spans: Sequence[Captured], durability: Durability
    ) -> bool:
        """Append to the log of a run that completed here; whether that was done."""
        if run.pid != os.getpid():
            return False
        try:
            found = Store(run.folder).summary(run.log_name)
        except RunNotFoundError:
            return False
        if (found.status, found.execution) != ("completed", run.execution):
            return False
        return _append_under_lease(run, spans, durability)


def _put_blob(run: KnownRun, durability: Durability, data: bytes) -> str:
    return Blobs(Store(run.folder).blobs_folder(run.log_name), sync=durability != "os").put(data)


def _store(run: KnownRun) -> Store:
    """The folder of a run's logs, with its home."""
    return Store(run.folder, home_of(settings.current()))


def _append(
    run: KnownRun, spans: Sequence[Captured], *, sync: bool
) -> tuple[Sequence[Captured], LogWriteError | None]:
    """Let the run's own writer append them.

    :returns: the spans that it refused, and the error if it fails
    """
    waiting = None
    for at, span in enumerate(spans):
        try:
            seq = run.append(span.name_resource(run.resource), sync and at == len(spans) - 1)
        except (LookupError, LogError):
            return spans[at:], waiting
        if seq is None:
            path = Store(run.folder).log_path(run.log_name)
            waiting = LogWriteError(path, "a span waits until the log can be written again")
    return (), waiting


def _append_inside(run: KnownRun, spans: Sequence[Captured], durability: Durability) -> None:
    """Append to the run's log, and nowhere else.

    :raises LogWriteError: another process has its lease
    """
    if not _append_under_lease(run, spans, durability):
        path = Store(run.folder).log_path(run.log_name)
        raise LogWriteError(path, "another process writes it")


def _append_under_lease(run: KnownRun, spans: Sequence[Captured], durability: Durability) -> bool:
    """Append to the run's log under its lease; whether it could be had."""
    store = _store(run)
    try:
        lease = store.lease(run.log_name)
    except (RunBusyError, StoreError, OSError):
        return False
    try:
        path = store.log_path(run.log_name)
        writer = LogWriter(path, run.log_name, durability=durability, stop=True, home=lease.session)
    except (LogError, RunBusyError, OSError):  # damaged: it waits for `tapps-otel repair`
        lease.release()
        return False
    try:
        for span in spans:
            writer.append(span.name_resource(run.resource), sync=span is spans[-1])
    finally:
        writer.close()
        lease.release()
    return True


def _in_logs(run: KnownRun, wanted: set[str]) -> tuple[set[str], set[str]]:
    """Return which of these spans the run's logs have whole, and which in part.

    They have an interrupted one whole: later executions have ended it.
    """
    store = Store(run.folder)
    begun: dict[str, int] = {}
    whole: set[str] = set()
    side_logs = store.side_paths().get(run.log_name, [])
    for path in (store.log_path(run.log_name), *side_logs):
        last = 0
        for event in _events(path, run.log_name):
            last = max(last, event.execution)
            if event.span_id not in wanted:
                continue
            if event.event_type.endswith(("_start", "_resume")):
                begun[str(event.span_id)] = event.execution
            elif event.duration_ns is not UNSET:
                whole.add(str(event.span_id))
        whole |= {span_id for span_id, execution in begun.items() if execution < last}
    return whole, set(begun)


def _events(path: Path, workflow_id: str) -> Iterator[Event]:
    """Read what can be read: of a damaged log, the events before the damage."""
    with suppress(LogError, FileNotFoundError):
        yield from read(path, workflow_id)
