"""The processor that writes starts of spans, for a provider whose exporters write whole spans."""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakSet

from tapps_otel.otel.capture.processor import JsonlSpanProcessor

__all__ = ["add_span_starts"]

_have: Final[WeakSet[Any]] = WeakSet()


def add_span_starts(provider: Any) -> None:
    """Add the processor to a provider, once.

    :raises Exception: of a provider of another library
    """
    if provider not in _have and hasattr(provider, "add_span_processor"):
        _have.add(provider)
        provider.add_span_processor(JsonlSpanProcessor())
