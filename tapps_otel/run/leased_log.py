"""A run's log under its lease: this process is the only one that writes it."""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from tapps_otel.errors import InvalidIdError, LogWriteError, RunBusyError
from tapps_otel.log import files as _files
from tapps_otel.log.cipher import cipher_of
from tapps_otel.log.encrypted import decrypting
from tapps_otel.log.writer import LogWriter
from tapps_otel.names import NO_RUN, PRUNED
from tapps_otel.otel.logs.entrance import event_logs
from tapps_otel.otel.metrics.measures import measures
from tapps_otel.otel.tracing import tracing
from tapps_otel.past.fold import Fold, collector_paused
from tapps_otel.run.lookup import blobs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.log.lease import Lease
    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory
    from tapps_otel.settings_model import Settings

__all__ = ["LeasedLog", "boot_id", "lease_log"]


class LeasedLog:
    """A run's lease and its open log.

    :param name: of its workflow
    :ivar fold: of the events in the log
    :ivar tracing: makes the run's spans, if spans are made
    :ivar watchers: are told of its events: for metrics, and for log records
    :raises RunBusyError: another process executes the run
    :raises LogDamagedError: its log was changed; nothing was written
    """

    def __init__(self, store: Store, workflow_id: str, name: str, config: Settings) -> None:
        self.config = config
        # Spans before metrics: at exit spans are sent first, and can still be counted.
        self.tracing, measuring = tracing(config), measures(config, name)
        self.watchers = [one for one in (measuring, event_logs(config)) if one is not None]
        self.fold = Fold(workflow_id)
        self.blobs = blobs_of(store, workflow_id, config)
        self.lease = _take_lease(store, workflow_id)
        writer = None
        try:
            with collector_paused():
                writer = self.writer = LogWriter(
                    store.log_path(workflow_id),
                    workflow_id,
                    durability=config.durability,
                    boot_id=boot_id(),
                    stop=config.on_log_failure == "stop",
                    limit=config.buffer_events,
                    on_event=decrypting(self.fold.feed, config.codec),
                    observer=measuring,
                    lease=self.lease,
                    cipher=cipher_of(self.blobs),
                    home=self.lease.session,
                )
        except BaseException:
            if writer is not None:  # Ctrl-C
                writer.close()
            self.lease.release()
            raise

    @property
    def history(self) -> RunHistory:
        """What the log said when it was opened, and what was fed to the fold since."""
        return self.fold.history

    @property
    def execution(self) -> int:
        """Number of the execution that begins now."""
        executions = self.history.executions
        return executions[-1].number + 1 if executions else 1

    def release(self) -> None:
        """Close the log and release the lease; a second call does nothing."""
        self.writer.close()
        self.lease.release()


def _take_lease(store: Store, workflow_id: str) -> Lease:
    try:
        return store.lease(workflow_id)
    except RunBusyError as busy:
        if busy.pid != os.getpid():
            raise
    gc.collect()  # a run that was dropped, as by Ctrl-C, is held until then by its own cycles
    return store.lease(workflow_id)


@contextmanager
def lease_log(store: Store, workflow_id: str, name: str, config: Settings) -> Iterator[LeasedLog]:
    """Take a run's lease and open its log; both are released if the block fails.

    :param name: of its workflow
    :raises RunBusyError: another process executes the run
    :raises LogDamagedError: its log was changed; nothing was written
    :raises InvalidIdError: a new run would have the name of traces of no run
    :raises LogWriteError: the log cannot be opened, or is full
    """
    leased: LeasedLog | None = None
    try:
        if workflow_id == PRUNED or (workflow_id == NO_RUN and not store.has_log(workflow_id)):
            raise InvalidIdError(workflow_id)
        leased = LeasedLog(store, workflow_id, name, config)
        yield leased
    except BaseException as error:
        if leased is not None:
            leased.release()
        if isinstance(error, OSError):
            raise LogWriteError(store.log_path(workflow_id), str(error)) from error
        raise


@cache
def boot_id() -> str | None:
    """Identifies this boot of the machine; ``None`` where the system does not tell (Linux does)."""
    files = _files.system()
    text = files.read_text("/proc/sys/kernel/random/boot_id")
    return text.strip() if text else None
