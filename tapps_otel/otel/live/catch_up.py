"""Sending, when a run is resumed, what its earlier executions could not send.

A collector of ours is sent what its ledger does not show as confirmed, and of the runs that it
called, too: one that has completed is not resumed by its own. A provider of the program's
own is given the interrupted spans, which no other code will ever end; what it had queued when its
process died only ``tapps-otel send`` can know to be missing.

All of it happens in the background. Only the process's exit waits for it, at most
``shutdown_timeout``.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING

from tapps_otel.errors import RunNotFoundError, TappsError
from tapps_otel.log.lease import holder
from tapps_otel.log.store import Store
from tapps_otel.names import log_name
from tapps_otel.otel.delivery import provider
from tapps_otel.otel.delivery.otlp_exporter import OtlpExporter
from tapps_otel.otel.delivery.processor import JoinedDelivery, withheld
from tapps_otel.otel.process.fork_lock import ForkLock
from tapps_otel.otel.process.shutdown import ExitFlush, Gate
from tapps_otel.otel.replay.run_spans import RunSpans
from tapps_otel.otel.replay.send import send_run
from tapps_otel.otel.seam import warn_once
from tapps_otel.otel.transport.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.otel.transport.client import Client
    from tapps_otel.past.fold import ChildRun

    OnEnd = Callable[[ReadableSpan], None]

__all__ = ["catch_up"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    """A resumed run, and its new execution; ``None`` for a run that it called before.

    :ivar on_end: gives finished spans to the program's own provider; ``None`` where that has no way
    :ivar followed: the runs that it called, so far
    """

    store: Store
    workflow_id: str
    execution: int | None
    on_end: OnEnd | None
    followed: set[tuple[Path, str]] = field(default_factory=set)


class _Worker:
    """Does the jobs, one after the other, in a thread of its own.

    An ``Outlet``, and its provider too: flushing it is to wait until all jobs are done.

    :ivar gate: closed while the process forks
    """

    def __init__(self) -> None:
        self.gate = Gate()
        self._start()

    def _start(self) -> None:
        self._jobs: Queue[_Job] = Queue()
        self._open: deque[_Job] = deque()
        self._client: Client | None = None
        self._given_up = False
        threading.Thread(target=self._work, name="tapps_otel-catch-up", daemon=True).start()

    def add(self, job: _Job) -> None:
        self._open.append(job)
        self._jobs.put(job)

    def _work(self) -> None:
        jobs = self._jobs
        while True:
            job = jobs.get()
            try:
                self._do(job)
            except RunNotFoundError:
                pass  # a run that was called before; its log was removed since
            except TappsError as error:
                _log.warning("%s", error)
            except Exception as error:  # noqa: BLE001 - of a processor, an exporter, the SDK
                warn_once("catching up", error)
            finally:
                self._open.popleft()
                jobs.task_done()

    def _do(self, job: _Job) -> None:
        """Send to our collectors, and hand over to the program's provider if it has one."""
        deliveries = provider.deliveries()
        if all(isinstance(delivery, JoinedDelivery) for delivery in deliveries):
            with withheld():  # which is sent to below, by its ledger
                _hand_over(job)
        for delivery in deliveries:
            live = delivery.exporter.wrapped
            if isinstance(live, OtlpExporter) and not self._given_up:
                self._send(job, live.client)

    def _send(self, job: _Job, live: Client) -> None:
        self._client = client = connect(live.destination)  # of its own: the live one is in use
        try:
            with self.gate:
                report = send_run(job.store, job.workflow_id, client, before=job.execution)
        finally:
            self._client = None
            client.close()
        for problem in report.problems:
            _log.warning("run %s: %s", job.workflow_id, problem)
        for child in report.children:
            self._follow(job, child)

    def _follow(self, job: _Job, child: ChildRun) -> None:
        """Send a called run's spans too, unless a process executes it, which sends them itself."""
        store = job.store if child.log_dir is None else Store(Path(child.log_dir))
        name = log_name(child.workflow_id)
        if (store.folder, name) in job.followed:
            return
        job.followed.add((store.folder, name))
        if holder(store.lease_path(name)) is None:
            self.add(_Job(store, name, None, job.on_end, job.followed))

    # -- flushed at exit

    def shutdown(self) -> None:
        """Wait until all is done."""
        self._jobs.join()

    def give_up(self) -> None:
        """Send nothing from now on."""
        self._given_up = True
        if (client := self._client) is not None:
            client.give_up()

    def warn_unsent(self) -> None:
        """Log a warning for each run that is not done, and how to send it."""
        for workflow_id in dict.fromkeys(job.workflow_id for job in list(self._open)):
            _log.warning(
                "spans of earlier executions were not all sent; the log has them: "
                "`tapps-otel send %s` sends them later.",
                workflow_id,
            )

    def after_fork(self) -> None:
        """Start afresh in a forked child: the parent does what was added there."""
        self._start()


_worker: _Worker | None = None


def _reset() -> None:
    global _worker  # noqa: PLW0603 - one a process
    _worker = None


_lock = ForkLock(_reset)


def catch_up(
    folder: Path, workflow_id: str, execution: int, on_end: OnEnd | None, timeout: float
) -> None:
    """Start to send what belongs to executions before this one.

    :param on_end: gives finished spans to the processors of the program's own provider
    :param timeout: how long the exit may wait for it, seconds
    """
    global _worker  # noqa: PLW0603 - one a process
    with _lock:
        if _worker is None:
            _worker = _Worker()
            ExitFlush(_worker, [_worker], timeout).register()
        worker = _worker
    worker.add(_Job(Store(folder), workflow_id, execution, on_end))


def _hand_over(job: _Job) -> None:
    """Give interrupted spans to the program's provider, as if just ended.

    Those of pauses, too, which have ended since the last execution.
    """
    for found in RunSpans(job.store, job.workflow_id, before=job.execution):
        is_new = found.seq == 0 or (found.waited and found.execution + 1 == job.execution)
        if not is_new or not found.span.context.trace_flags.sampled:
            continue
        if job.on_end is None:
            _log.warning(
                "run %s: spans of an interrupted execution cannot be given to the program's tracer "
                "provider, which is not that of the OpenTelemetry SDK: `tapps-otel send %s` sends "
                "them.",
                job.workflow_id,
                job.workflow_id,
            )
            return
        job.on_end(found.span)
