"""Sending spans from a log: what a collector has not confirmed yet.

Delivery is at least once: a process that dies between a collector's answer and the ledger's line
sends the spans again, with identical ids and bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapps_otel import settings
from tapps_otel.errors import LedgerError, LogError, SettingsError, SpanFilterError
from tapps_otel.otel.replay.run_spans import RunSpans
from tapps_otel.otel.replay.send_report import SendReport
from tapps_otel.otel.replay.sender import Sender
from tapps_otel.otel.transport.client import connect
from tapps_otel.otel.transport.destination import destination
from tapps_otel.otel.transport.encoding import MOST_SPANS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from tapps_otel.log.store import Store
    from tapps_otel.otel.replay.run_spans import Found
    from tapps_otel.otel.transport.client import Client

__all__ = ["batches", "client_of", "send_run"]


def client_of(
    *,
    endpoint: str | None = None,
    protocol: str | None = None,
    waiting: Callable[[str, float], None] | None = None,
) -> Client:
    """Make a client of the collector that arguments or settings name.

    Standard variables count as settings.

    :param waiting: called while the collector does not accept a request, as :class:`Client` says
    :raises SettingsError: none of them does
    """
    found = destination(settings.current(), endpoint=endpoint, protocol=protocol)
    if found is None:
        raise SettingsError(
            "no collector is configured: set OTEL_EXPORTER_OTLP_ENDPOINT (for example to "
            "http://localhost:4317), call configure(otlp_endpoint=...) or use "
            "`tapps-otel send --endpoint`"
        )
    client = connect(found)
    if waiting is not None:
        client.waiting = waiting
    return client


def send_run(
    store: Store,
    workflow_id: str,
    client: Client,
    *,
    force: bool = False,
    before: int | None = None,
    side_logs: Sequence[Path] | None = None,
    report: SendReport | None = None,
    progress: Callable[[SendReport], None] = lambda _: None,
    patience: float | None = None,
) -> SendReport:
    """Send what the collector has not confirmed; memory stays flat.

    A log that has not grown since all of it was confirmed is not read again.

    :param force: send everything, confirmed or not
    :param before: only what belongs to executions before this one
    :param side_logs: the run's side logs, if the caller knows them; else they are looked for
    :param report: filled in on the way, for callers that need it after an error too
    :param progress: called at the start and after each answer, with the report so far
    :param patience: for how long a request is retried, seconds
    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: at the place of the damage; the spans before it were sent
    :raises LedgerError: the ledger names lines that the log does not have; nothing is sent
        after that
    :raises SpanFilterError: the setting ``span_filter`` failed; the spans before that were sent
    :raises SendError: the collector could not be reached, or refused; what it had confirmed by
        then is in the ledger
    """
    report = report or SendReport(workflow_id, client.destination.name)
    sender = Sender(store, report, client, force=force, patience=patience)
    if side_logs is None:
        side_logs = store.side_paths().get(workflow_id, [])
    done = sender.skip_confirmed([store.log_path(workflow_id), *side_logs])
    spans = RunSpans(
        store,
        workflow_id,
        side_logs=side_logs,
        before=before,
        skip=done,
        on_left_out=sender.pass_over,
    )
    progress(report)
    try:
        for batch in batches(sender.new(spans)):
            sender.send(batch)
            progress(report)
        if before is None:
            sender.report_refusals()
            sender.finish(spans.ends)
    finally:
        report.children += spans.children
        report.running, report.left_out = spans.running, spans.left_out
        report.problems += spans.problems
    return report


def batches(spans: Iterable[Found], most: int = MOST_SPANS) -> Iterator[list[Found]]:
    """Yield spans in lists; before an error of the log, those before it.

    :raises LogError: as ``spans`` does
    """
    batch: list[Found] = []
    try:
        for found in spans:
            batch.append(found)
            if len(batch) == most:
                yield batch
                batch = []
    except LedgerError:
        raise  # log and ledger disagree: nothing more is sent
    except (LogError, SpanFilterError):
        if batch:
            yield batch
        raise
    if batch:
        yield batch
