"""The exporter of live spans: it checks every answer, and keeps ledgers."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tapps_otel.errors import SendError
from tapps_otel.log.store import Store
from tapps_otel.otel.mapping.outgoing import Outgoing
from tapps_otel.otel.mapping.owner import is_marker, run_of
from tapps_otel.otel.replay.ledger import Ledger, Refusal
from tapps_otel.otel.seam import warn_once
from tapps_otel.otel.transport.encoding import encoded, id_of
from tapps_otel.otel.transport.halving import deliver

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.otel.run_registry import KnownRun
    from tapps_otel.otel.transport.client import Client
    from tapps_otel.otel.transport.encoding import Request
    from tapps_otel.otel.transport.halving import Delivered

__all__ = ["OtlpExporter"]

_log = logging.getLogger(__name__)


class OtlpExporter(SpanExporter):
    """Sends spans to one collector, and notes in ledgers what it accepts and what it refuses.

    :ivar settled: how many spans of the last batch it accepted or refused by themselves, without
        markers: nothing is left to do for these
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.settled = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; ``SUCCESS`` only if the collector accepted all of it."""
        self.settled = 0
        result = SpanExportResult.SUCCESS
        try:
            for request in encoded(self._prepared(spans)):
                if not self._send(request):
                    result = SpanExportResult.FAILURE
        except SendError as error:
            warn_once(f"sending to {error.destination}", error)
            return SpanExportResult.FAILURE
        except Exception as error:  # noqa: BLE001 - of the libraries below; it must not harm a run
            warn_once("sending", error)
            return SpanExportResult.FAILURE
        return result

    def _prepared(self, spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
        """Return the spans to send; what the setting ``span_filter`` leaves out is settled."""
        outgoing, made = Outgoing(), []
        for span in spans:
            prepared = outgoing(span)
            if prepared is not None:
                made.append(prepared)
            elif not is_marker(span):
                self.settled += 1
        return made

    def _send(self, request: Request) -> bool:
        if request.problem:
            _log.warning("a span cannot be encoded, and is not sent: %s", request.problem)
            return False
        parts = [self._note(part) for part in deliver(self.client, request)]
        return all(parts)

    def _note(self, part: Delivered) -> bool:
        """Note what became of a request, or a part of one; whether all of it was accepted."""
        request, rejected = part.request, part.answer.rejected
        given = sum(not is_marker(span) for span in request.spans)
        self.settled += max(0, given - rejected)
        if rejected:
            where, reason = self.client.destination.name, part.answer.message or "no reason given"
            _log.warning("%s rejected %d spans: %s", where, rejected, reason)
            return False
        if part.refusal:
            self._refuse(request, part.refusal)
        else:
            self._confirm(request)
        return not part.refusal

    def _confirm(self, request: Request) -> None:
        by_run: dict[KnownRun, dict[str, str]] = {}
        for span in request.spans:
            run = run_of(span)
            if run is not None:
                span_id = id_of(span)
                by_run.setdefault(run, {})[span_id] = request.digests[span_id]
        for run, digests in by_run.items():
            with self._ledger(run) as ledger:
                ledger.confirm(digests)

    def _refuse(self, request: Request, reason: str) -> None:
        (span,) = request.spans
        span_id, where = id_of(span), self.client.destination.name
        _log.warning("%s refused span %s (%s): %s", where, span_id, span.name, reason)
        run = run_of(span)
        if run is not None:
            with self._ledger(run) as ledger:
                ledger.refuse(span_id, Refusal(request.digests[span_id], span.name, reason))

    @contextmanager
    def _ledger(self, run: KnownRun) -> Iterator[Ledger]:
        """Give a run's ledger to write to; where that fails, a later send repeats the spans."""
        try:
            path = Store(run.folder).ledger_path(run.log_name)
            yield Ledger(path, self.client.destination.name)
        except Exception as error:  # noqa: BLE001 - of the disk, or of a folder that is not one
            warn_once("ledger", error)

    def shutdown(self) -> None:
        """Stop retrying, and close the connections."""
        self.client.give_up()
        self.client.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's
        """Do nothing: ``export`` sends before it returns."""
        return True
