"""Emits a log record for each event of a run, by the process's logger provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from tapps_otel.otel.logs.provider import ensure_provider
from tapps_otel.otel.logs.records import attributes_of, body_of, severity_of
from tapps_otel.otel.mapping.content import time_of
from tapps_otel.otel.sdk_internals import logs_api
from tapps_otel.otel.seam import SCOPE, EventWatcher, warn_once
from tapps_otel.version import __version__

if TYPE_CHECKING:
    from tapps_otel.log.event import Event
    from tapps_otel.settings_model import Settings

__all__ = ["event_logs"]


def event_logs(settings: Settings) -> EventWatcher | None:
    """Return what makes log records of one run's events; ``None`` without a provider."""
    provider = ensure_provider(settings)
    return None if provider is None else _EventLogs(provider.get_logger(SCOPE, __version__))


class _EventLogs(EventWatcher):
    __slots__ = ("_flags", "_logger", "_severity")

    def __init__(self, logger: Any) -> None:
        self._logger, self._severity = logger, logs_api().SeverityNumber
        self._flags = 0  # of the run's spans: 0 until one was made

    def wrote(self, event: Event, took_ns: int) -> None:  # noqa: ARG002 - for metrics
        if event.event_type.startswith("span"):  # a library's, which exporters of spans send
            return
        try:
            self._emit(event)
        except Exception as error:  # noqa: BLE001 - of the SDK, a processor, an exporter
            warn_once("log records", error)

    def _emit(self, event: Event) -> None:
        number, name = severity_of(event)
        at = time_of(event)
        self._logger.emit(
            timestamp=at,
            observed_timestamp=at,
            context=self._context(event),
            severity_number=self._severity(number),
            severity_text=name,
            body=body_of(event),
            attributes=attributes_of(event),
            event_name=event.event_type,
        )

    def _context(self, event: Event) -> Context:
        """Return the context of the event's span, and of no other that is current."""
        if event.trace_id is UNSET or event.span_id is UNSET:
            return Context()
        if event.otel is not UNSET and "flags" in event.otel:
            self._flags = event.otel["flags"] or 0
        ids = int(event.trace_id, 16), int(event.span_id, 16)
        span = SpanContext(*ids, is_remote=False, trace_flags=TraceFlags(self._flags))
        return set_span_in_context(NonRecordingSpan(span), Context())
