"""A run's log for a person's decision: under the lease, while no process executes the run."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from msgspec import Raw

from tapps_otel import settings
from tapps_otel.errors import LogWriteError
from tapps_otel.log.blobs import INLINE_LIMIT
from tapps_otel.log.cipher import cipher_of
from tapps_otel.log.encrypted import decrypting
from tapps_otel.log.writer import LogWriter
from tapps_otel.past.fold import Fold, collector_paused
from tapps_otel.redact import rules_here
from tapps_otel.run.leased_log import boot_id
from tapps_otel.run.lookup import blobs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.log.event import Event
    from tapps_otel.log.lease import Lease
    from tapps_otel.log.store import Store

__all__ = ["WHY_REFUSED", "is_refused_secret", "leased", "put_result", "writing"]

WHY_REFUSED: Final = (
    "redaction would alter it, and values with secrets in them are not stored (redact_results). "
    "Give instead where the secret is kept, or set a codec, which encrypts what is stored"
)


def is_refused_secret(data: bytes) -> bool:
    """Whether a value, as JSON, holds a secret which the settings do not let into a log."""
    config = settings.current()
    return config.redact_results and config.codec is None and rules_here().alters_json(data)


def put_result(event: Event, data: bytes, store: Store) -> None:
    """Put a result, as JSON, into its event, or into a blob if it is large."""
    if len(data) <= INLINE_LIMIT:
        event.result = Raw(data)
    else:
        event.result_blob = blobs_of(store, event.workflow_id).put_value(data)


@contextmanager
def leased(store: Store, workflow_id: str) -> Iterator[Lease]:
    """Hold the lease of a run.

    :raises RunBusyError: a process executes it
    :raises StoreError: the store of runs cannot be reached
    """
    try:
        lease = store.lease(workflow_id)
    except OSError as error:
        raise LogWriteError(store.lease_path(workflow_id), str(error)) from error
    try:
        yield lease
    finally:
        lease.release()


@contextmanager
def writing(
    store: Store, workflow_id: str, lease: Lease, *, accept_damage: bool = False
) -> Iterator[tuple[Fold, LogWriter]]:
    """Open the log for appending, and fold its events.

    :param lease: of the run
    :raises LogDamagedError: the log was changed; nothing was written
    :raises EncryptionKeyError: values of the run are encrypted with a key that is not configured
    :raises LogWriteError: it cannot be written
    """
    path, fold, config = store.log_path(workflow_id), Fold(workflow_id), settings.current()
    try:
        with collector_paused():
            writer = LogWriter(
                path,
                workflow_id,
                durability=config.durability,
                boot_id=boot_id(),
                stop=True,  # the person who decides must see a failure
                accept_damage=accept_damage,
                on_event=decrypting(fold.feed, config.codec),
                cipher=cipher_of(blobs_of(store, workflow_id, config)),
                home=lease.session,
            )
    except FileNotFoundError:
        raise store.not_found(workflow_id) from None
    except OSError as error:
        raise LogWriteError(path, str(error)) from error
    try:
        if fold.history.locked is not None and not accept_damage:
            raise fold.history.locked.error(workflow_id)
        yield fold, writer
    finally:
        writer.close()
