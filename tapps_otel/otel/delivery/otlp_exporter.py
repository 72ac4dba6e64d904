"""The exporter of live spans: it checks every answer, and keeps ledgers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tapps_otel.errors import SendError
from tapps_otel.log.store import Store
from tapps_otel.otel.mapping.owner import run_of
from tapps_otel.otel.mapping.redacted import redacted
from tapps_otel.otel.replay.ledger import Ledger
from tapps_otel.otel.seam import warn_once
from tapps_otel.otel.transport.encoding import encoded, id_of
from tapps_otel.redact import rules_here

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.otel.run_registry import KnownRun
    from tapps_otel.otel.transport.client import Client
    from tapps_otel.otel.transport.encoding import Request

__all__ = ["OtlpExporter"]

_log = logging.getLogger(__name__)


class OtlpExporter(SpanExporter):
    """Sends spans to one collector, and notes in ledgers what it accepts."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; ``SUCCESS`` only if the collector accepted all of it."""
        result = SpanExportResult.SUCCESS
        try:
            rules = rules_here()
            for request in encoded([redacted(span, rules) for span in spans]):
                if not self._send(request):
                    result = SpanExportResult.FAILURE
        except SendError as error:
            warn_once(f"sending to {error.destination}", error)
            return SpanExportResult.FAILURE
        except Exception as error:  # noqa: BLE001 - of the libraries below; it must not harm a run
            warn_once("sending", error)
            return SpanExportResult.FAILURE
        return result

    def _send(self, request: Request) -> bool:
        if request.problem:
            _log.warning("a span cannot be encoded, and is not sent: %s", request.problem)
            return False
        answer = self.client.send(request.data, spans=len(request.spans))
        if answer.rejected:
            where, reason = self.client.destination.name, answer.message or "no reason given"
            _log.warning("%s rejected %d spans: %s", where, answer.rejected, reason)
            return False
        self._confirm(request)
        return True

    def _confirm(self, request: Request) -> None:
        by_run: dict[KnownRun, dict[str, str]] = {}
        for span in request.spans:
            run = run_of(span)
            if run is not None:
                span_id = id_of(span)
                by_run.setdefault(run, {})[span_id] = request.digests[span_id]
        for run, digests in by_run.items():
            try:
                path = Store(run.folder).ledger_path(run.log_name)
                Ledger(path, self.client.destination.name).confirm(digests)
            except Exception as error:  # noqa: BLE001 - a later send repeats them, identically
                warn_once("ledger", error)

    def shutdown(self) -> None:
        """Stop retrying, and close the connections."""
        self.client.give_up()
        self.client.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's
        """Do nothing: ``export`` sends before it returns."""
        return True
