"""Where captured spans go: into the run's log, or into one beside it.

- By the run's own writer, while the run goes on in this process.
- Under its lease, once the run has completed here: nobody carries that on any more.
- Else beside it: from other processes (children, forks), and after a run that did not complete,
  whose lease is left to who resumes it.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import UNSET

from tapps_otel.errors import LogError, LogWriteError, RunBusyError, RunNotFoundError
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.lease import Lease
from tapps_otel.log.reader import read
from tapps_otel.log.store import Store
from tapps_otel.log.writer import LogWriter
from tapps_otel.otel.capture.event import Captured, Resources, capture
from tapps_otel.otel.capture.side_logs import SideLogs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.log.event import Event
    from tapps_otel.otel.run_registry import KnownRun
    from tapps_otel.settings import Durability

__all__ = ["Keeper"]


class Keeper:
    """Writes spans into logs; what ``keep`` returned from is as safe as the durability promises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # never held while a run's is asked for
        self._resources = Resources()
        self._beside = SideLogs()

    def keep(self, run: KnownRun, spans: Iterable[ReadableSpan], durability: Durability) -> None:
        """Write spans of libraries; one that cannot be written does not keep out the others.

        :raises Exception: not all of them are written; of the log, of the disk, of a value
        """
        captured, problem = self._capture(run, spans, durability)
        left, waiting = _append(run, captured)
        if left:
            with self._lock:
                if not self._into_completed(run, left, durability):
                    self._put_beside(run, left, durability)
        if waiting or problem:
            raise problem or waiting  # type: ignore[misc]  # one of them is there

    def keep_missing(
        self, run: KnownRun, spans: Sequence[ReadableSpan], durability: Durability
    ) -> None:
        """Write those of our own spans whole, as late, that the logs of the run do not tell.

        Where the log has a span's beginning, its end belongs there too, and nowhere else: a second
        span of one id would be told.

        :raises Exception: not all of them are written
        """
        captured, problem = self._capture(run, spans, durability, late=True)
        told, begun = _told(run, {str(one.event.span_id) for one in captured})
        missing = [one for one in captured if one.event.span_id not in told]
        inside = [one for one in missing if one.event.span_id in begun]
        outside = [one for one in missing if one.event.span_id not in begun]
        with self._lock:
            if inside and not _under_lease(run, inside, durability):
                path = Store(run.folder).log_path(run.log_name)
                problem = problem or LogWriteError(path, "it is another's to write")
            if outside:
                self._put_beside(run, outside, durability)
        if problem:
            raise problem

    def close(self, timeout: float = 1) -> None:
        """Close what is open; not at any price: a disk that hangs must not hang an exit."""
        if self._lock.acquire(timeout=timeout):
            self._beside.close()
            self._lock.release()

    def _capture(
        self,
        run: KnownRun,
        spans: Iterable[ReadableSpan],
        durability: Durability,
        *,
        late: bool = False,
    ) -> tuple[list[Captured], Exception | None]:
        """Their events, and what was wrong with one that no log can hold."""
        folder = Store(run.folder).blobs_folder(run.log_name)
        put, captured, problem = Blobs(folder, sync=durability != "os").put, [], None
        for span in spans:
            try:
                captured.append(capture(span, run, self._resources, put, late=late))
            except Exception as error:  # noqa: BLE001 - of values that somebody put there, a disk
                problem = error
        return captured, problem

    def _put_beside(self, run: KnownRun, spans: Sequence[Captured], durability: Durability) -> None:
        self._beside.append(Store(run.folder), run.log_name, spans, durability)

    def _into_completed(
        self, run: KnownRun, spans: Sequence[Captured], durability: Durability
    ) -> bool:
        """Into the log of a run that this process has completed; ``False``: not there."""
        if run.pid != os.getpid():
            return False
        try:
            found = Store(run.folder).summary(run.log_name)
        except RunNotFoundError:
            return False
        if (found.status, found.execution) != ("completed", run.execution):
            return False
        return _under_lease(run, spans, durability)


def _append(
    run: KnownRun, spans: Sequence[Captured]
) -> tuple[Sequence[Captured], LogWriteError | None]:
    """Let the run's own writer write them; what it did not take, and what it could not write."""
    waiting = None
    for at, span in enumerate(spans):
        try:
            seq = run.append(span.name_resource(run.resource), at == len(spans) - 1)
        except (LookupError, LogError):
            return spans[at:], waiting
        if seq is None:
            path = Store(run.folder).log_path(run.log_name)
            waiting = LogWriteError(path, "a span waits until it can be written again")
    return (), waiting


def _under_lease(run: KnownRun, spans: Sequence[Captured], durability: Durability) -> bool:
    """Write into the run's log; ``False``, and nothing is written, where that is not to be had."""
    store = Store(run.folder)
    try:
        lease = Lease(store.lease_path(run.log_name), run.log_name)
    except (RunBusyError, OSError):
        return False
    try:
        path = store.log_path(run.log_name)
        writer = LogWriter(path, run.log_name, durability=durability, stop=True)
    except (LogError, OSError):  # damaged: a person decides, and nothing is written to it
        lease.release()
        return False
    try:
        for span in spans:
            writer.append(span.name_resource(run.resource), sync=span is spans[-1])
    finally:
        writer.close()
        lease.release()
    return True


def _told(run: KnownRun, wanted: set[str]) -> tuple[set[str], set[str]]:
    """Which of these spans the run's logs tell whole, and which they tell the beginning of.

    One that was cut short is told whole: later executions have ended it.
    """
    store = Store(run.folder)
    begun: dict[str, int] = {}
    told: set[str] = set()
    beside = store.side_paths().get(run.log_name, [])
    for path in (store.log_path(run.log_name), *beside):
        last = 0
        for event in _events(path, run.log_name):
            last = max(last, event.execution)
            if event.span_id not in wanted:
                continue
            if event.event_type.endswith(("_start", "_resume")):
                begun[str(event.span_id)] = event.execution
            elif event.duration_ns is not UNSET:
                told.add(str(event.span_id))
        told |= {span_id for span_id, execution in begun.items() if execution < last}
    return told, set(begun)


def _events(path: Path, workflow_id: str) -> Iterator[Event]:
    """What can be read; a damaged log tells what stands before the damage."""
    with suppress(LogError, FileNotFoundError):
        yield from read(path, workflow_id)
