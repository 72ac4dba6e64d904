"""Sending spans of runs from their logs, to whatever collector is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapps_otel.run.opening import store_of

if TYPE_CHECKING:
    from pathlib import Path

    from tapps_otel.otel.send import SendReport

__all__ = ["send"]


def send(
    workflow_id: str,
    *,
    endpoint: str | None = None,
    protocol: str | None = None,
    force: bool = False,
    log_dir: Path | str | None = None,
) -> SendReport:
    """Send a run's spans from its log: those that the collector has not confirmed yet.

    Also of a run that was killed, or made without OpenTelemetry, or whose collector was down. What
    an SDK made is sent as that sent it, to the byte; what was cut short ends, as an error, at its
    execution's last moment. Delivery is at least once.

    :param endpoint: where to, as ``http://collector:4317``; else what settings or the standard
        variables name
    :param protocol: ``grpc`` or ``http/protobuf``
    :param force: send everything, confirmed or not
    :returns: how many were sent, and what went wrong: look at ``ok``
    :raises RunNotFoundError: there is no such run
    :raises SettingsError: no collector is named
    :raises SendError: it cannot be reached, or refuses
    :raises LogDamagedError: the log was changed; what stands before the damage was sent
    :raises LedgerError: the log has not any more what the collector confirmed
    """
    from tapps_otel.otel.send import client_of, send_run  # heavy, and only for those who send

    store = store_of(log_dir)
    store.log_path(workflow_id)  # refuses an id that is none before anything else
    client = client_of(endpoint=endpoint, protocol=protocol)
    try:
        return send_run(store, workflow_id, client, force=force)
    finally:
        client.close()
