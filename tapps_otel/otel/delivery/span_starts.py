"""The processor that writes starts of spans, for a provider whose exporters write whole spans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from tapps_otel.otel.capture.processor import JsonlSpanProcessor
from tapps_otel.otel.process.plugins import named_exporters
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from tapps_otel.settings import Settings

__all__ = ["add_span_starts"]

_seen: Final[WeakSet[Any]] = WeakSet()


def add_span_starts(provider: Any, settings: Settings) -> None:
    """Add the processor, once, if settings and ``OTEL_TRACES_EXPORTER`` ask for it."""
    if provider in _seen:
        return
    _seen.add(provider)
    if not settings.span_starts or "tapps_jsonl" not in named_exporters("OTEL_TRACES_EXPORTER"):
        return
    try:
        provider.add_span_processor(JsonlSpanProcessor())
    except Exception as error:  # noqa: BLE001 - of another provider
        warn_once("span starts", error)
