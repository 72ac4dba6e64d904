"""Sending the spans of runs from their logs to a collector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapps_otel.errors import LogError, RunNotFoundError, SpanFilterError
from tapps_otel.log.pulling import pull_if_reachable
from tapps_otel.run.lookup import find, store_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tapps_otel.otel.replay.send_report import SendReport
    from tapps_otel.settings_types import OtlpProtocol

__all__ = ["send", "send_all"]


def _ignore(_: SendReport) -> None:
    pass


def send(
    workflow_id: str,
    *,
    endpoint: str | None = None,
    protocol: OtlpProtocol | None = None,
    force: bool = False,
    log_dir: Path | str | None = None,
    progress: Callable[[SendReport], None] = _ignore,
    waiting: Callable[[str, float], None] | None = None,
) -> SendReport:
    """Send a run's spans from its log: those that the collector has not acknowledged yet.

    This works for a run that was killed, that ran without OpenTelemetry, or whose collector was
    down. Spans that an SDK made are sent as it sent them, byte for byte; an interrupted span ends,
    as an error, at the last event of its execution. Delivery is at least once.

    :param endpoint: as ``http://collector:4317``; otherwise the one in the settings or in the
        standard variables
    :param protocol: ``grpc`` or ``http/protobuf``
    :param force: send all spans, acknowledged or not
    :param progress: called at the start and after each answer, with the report so far
    :param waiting: called while the collector does not accept a request, with the reason, and with
        the seconds after which it is given up
    :returns: how many were sent, and what failed: check ``ok``
    :raises RunNotFoundError: there is no such run
    :raises SettingsError: no collector is configured
    :raises SendError: the collector cannot be reached, or refuses
    :raises LogDamagedError: the log was changed; the spans before the damage were sent
    :raises LedgerError: the log no longer has the spans that the collector acknowledged
    :raises SpanFilterError: the setting ``span_filter`` failed; the spans before that were sent
    """
    from tapps_otel.otel.replay.send import (  # heavy: only for those who send
        client_of,
        send_run,
    )

    store, workflow_id = find(workflow_id, log_dir)  # before a connection is opened
    client = client_of(endpoint=endpoint, protocol=protocol, waiting=waiting)
    try:
        return send_run(store, workflow_id, client, force=force, progress=progress)
    finally:
        client.close()


def send_all(
    *,
    since_ns: int | None = None,
    endpoint: str | None = None,
    protocol: OtlpProtocol | None = None,
    force: bool = False,
    log_dir: Path | str | None = None,
    progress: Callable[[SendReport], None] = _ignore,
    waiting: Callable[[str, float], None] | None = None,
) -> Iterator[SendReport]:
    """Send the spans of every run in the folder, and of traces of no run, as :func:`send` does.

    A damaged log or ledger does not stop the others: it becomes a problem in its report.

    :param since_ns: only runs whose log was written to at this time or later, ns since 1970 UTC
    :raises SettingsError: no collector is configured
    :raises SendError: the collector cannot be reached, or refuses; the rest was not tried
    """
    from tapps_otel.otel.replay.send import client_of, send_run
    from tapps_otel.otel.replay.send_report import SendReport

    store = store_of(log_dir)
    client = client_of(endpoint=endpoint, protocol=protocol, waiting=waiting)
    side = store.side_paths()
    of_runs = [run.workflow_id for run in store.runs(since_ns=since_ns)]
    alone = [] if since_ns is not None else sorted(side.keys() - set(of_runs))
    try:
        for workflow_id in [*of_runs, *alone]:
            report = SendReport(workflow_id, client.destination.name)
            try:
                pull_if_reachable(store, workflow_id)
                send_run(
                    store,
                    workflow_id,
                    client,
                    force=force,
                    side_logs=side.get(workflow_id, []),
                    report=report,
                    progress=progress,
                )
            except (LogError, SpanFilterError, OSError) as error:
                report.problems.append(str(error))
            except RunNotFoundError:  # pruned meanwhile
                continue
            yield report
    finally:
        client.close()
