"""The metric of tokens, from the spans of libraries that are captured."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tapps_otel.otel.metrics.measures import count_tokens
from tapps_otel.otel.seam import warn_once
from tapps_otel.past.usage import NO_USAGE, InnermostSpans, sum_of, usage_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.otel.run_registry import KnownRun
    from tapps_otel.past.usage import Usage

__all__ = ["TokenCounter"]


class TokenCounter:
    """Counts the tokens of spans, each once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans = InnermostSpans()

    def count(self, run: KnownRun, spans: Iterable[ReadableSpan]) -> None:
        """Count what spans of a run used. No exception leaves it."""
        try:
            with self._lock:
                used = sum_of(self._used(span) for span in spans)
            if used.models:
                count_tokens(run.workflow, used)
        except Exception as error:  # noqa: BLE001 - of odd values: they are captured all the same
            warn_once("tokens", error)

    def _used(self, span: ReadableSpan) -> Usage:
        """Return what a span adds; it is less than nothing if one above it was counted before."""
        parent = None if span.parent is None else f"{span.parent.span_id:016x}"
        own = usage_of(span.attributes or {})
        added = self._spans.add(f"{span.context.span_id:016x}", parent, own)
        if added is None:
            return NO_USAGE
        if added.place is not None:
            self._spans.hold(added.place, added.below)
        return added.total
