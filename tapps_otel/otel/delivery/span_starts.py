"""The processor that writes starts of spans, for a provider whose exporters write whole spans."""

from __future__ import annotations

from typing import Any, Final

from tapps_otel.otel.capture.processor import JsonlSpanProcessor

__all__ = ["add_span_starts"]

_have: Final[list[Any]] = []  # providers; a process has one or two, and some cannot be hashed


def add_span_starts(provider: Any) -> None:
    """Add the processor to a provider, once.

    :raises Exception: of a provider of another library
    """
    is_new = all(one is not provider for one in _have)
    if is_new and hasattr(provider, "add_span_processor"):
        _have.append(provider)
        provider.add_span_processor(JsonlSpanProcessor())
