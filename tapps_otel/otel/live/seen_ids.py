"""Ids of spans that come twice, as from a program that seeds ``random``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from tapps_otel.log.reports import report

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

__all__ = ["SeenIds"]

_MOST: Final = 4096  # ids that are kept: a seed in a loop repeats them within a few spans
_log = logging.getLogger(__name__)


class SeenIds:
    """The latest ids that a provider gave to spans. It warns once of one that comes again."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._warned = False

    def note(self, context: SpanContext) -> None:
        """Note a span of an earlier execution or of another run."""
        self._seen.add(context.trace_id ^ context.span_id)

    def check(self, context: SpanContext, workflow_id: str) -> None:
        """Note a new span, and log a warning if an older one has its id."""
        key = context.trace_id ^ context.span_id
        if key in self._seen:
            self._warn(context, workflow_id)
        elif len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen.add(key)

    def _warn(self, context: SpanContext, workflow_id: str) -> None:
        if self._warned:
            return
        self._warned = True
        report(
            _log.warning,
            "run %s: the program's tracer provider gave span id %s to two spans of a trace. A "
            "trace store shows only one of them, or mixes them up. The SDK takes ids from Python's "
            "`random`, and repeats them when the program calls random.seed(): use an instance "
            "random.Random(seed) there, or give the TracerProvider an id_generator of its own.",
            workflow_id,
            f"{context.span_id:016x}",
        )
