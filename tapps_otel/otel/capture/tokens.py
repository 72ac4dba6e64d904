"""The metric of tokens, from the spans of libraries that are captured."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from tapps_otel.otel.metrics.measures import count_tokens
from tapps_otel.otel.seam import warn_once
from tapps_otel.past.usage import NO_USAGE, InnermostSpans, usage_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.otel.run_registry import KnownRun
    from tapps_otel.past.usage import Usage

__all__ = ["TokenCounter", "token_counter"]


class TokenCounter:
    """Counts the tokens of spans, each once.

    It may be called again while it counts, in the same thread too: a garbage collection can end a
    span anywhere. Whoever counts takes what others bring meanwhile; no caller waits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[KnownRun, ReadableSpan]] = deque()
        self._spans = InnermostSpans()

    def count(self, run: KnownRun, spans: Iterable[ReadableSpan]) -> None:
        """Count what spans of a run used. No exception leaves it."""
        self._waiting.extend((run, span) for span in spans)
        # Asked again after each release: spans may have come since the last one was taken.
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                self._count_waiting()
            finally:
                self._lock.release()

    def _count_waiting(self) -> None:
        by_workflow: dict[str | None, Usage] = {}
        while self._waiting:
            run, span = self._waiting.popleft()
            try:
                used = self._used(run, span)
            except Exception as error:  # noqa: BLE001 - of odd values: it is captured all the same
                warn_once("tokens", error)
            else:
                by_workflow[run.workflow] = by_workflow.get(run.workflow, NO_USAGE).plus(used)
        for workflow, used in by_workflow.items():
            if used.models:
                count_tokens(workflow, used)

    def _used(self, run: KnownRun, span: ReadableSpan) -> Usage:
        """Return what a span adds; it is less than nothing if one above it was counted before."""
        if run.pid and (span.start_time or 0) < run.started_ns:
            return NO_USAGE  # it encloses the run, whose process this is, and may repeat all of it
        parent = None if span.parent is None else f"{span.parent.span_id:016x}"
        own = usage_of(span.attributes or {})
        added = self._spans.add(f"{span.context.span_id:016x}", parent, own)
        if added is None:
            return NO_USAGE
        if added.place is not None:
            self._spans.hold(added.place, added.below)
        return added.total


_counters: Final[dict[int, TokenCounter]] = {}  # by process: a fork copies those of its parents


def token_counter() -> TokenCounter:
    """Return the one counter of this process: exporter and processor may get the same spans."""
    return _counters.setdefault(os.getpid(), TokenCounter())
