"""A processor that writes spans of libraries into the log of their run as they start and end.

A span that its process never ends, because it is killed in the middle of a request, is in the log
by its start: ``send`` and ``show`` end it as interrupted. An exporter alone never sees it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import SpanProcessor

from tapps_otel import settings
from tapps_otel.otel import propagation
from tapps_otel.otel.capture import claims
from tapps_otel.otel.capture.failure_log import FailureLog
from tapps_otel.otel.capture.roots import asked
from tapps_otel.otel.capture.router import Router
from tapps_otel.otel.capture.tokens import token_counter
from tapps_otel.otel.mapping.owner import is_cut_off, own_run_id, run_of_library_span

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from tapps_otel.otel.capture.router import Written
    from tapps_otel.otel.run_registry import KnownRun

__all__ = ["JsonlSpanProcessor"]


class JsonlSpanProcessor(SpanProcessor):
    """Writes the spans of libraries into the logs of runs: each as it starts, and as it ends.

    The next event of the run that is synced covers them. So they survive the death of the process
    at once, and a power cut from then on. Only ends of steps, in a run that a rule over spans has
    opened, are synced themselves. What cannot be written is logged as an error once, and harms no
    span and no step. Spans of runs and steps, spans that are not sampled, and those of no run in
    progress are left to a
    :class:`~tapps_otel.JsonlSpanExporter`, which leaves out what this processor has written.
    """

    def __init__(self) -> None:
        self._failures = FailureLog()
        self._harmless = _Harmless(self._failures)
        self._reset()
        propagation.join()

    def _reset(self) -> None:
        """Start afresh, also in a forked child: open logs are the parent's."""
        self._pid = os.getpid()
        self._router, self._tokens = Router(), token_counter()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's
        """Write that a span has started."""
        roots = asked()
        with self._harmless:
            if not _is_captured(span):
                return
            if roots is not None:
                roots.started(span)
            run = self._run_of(span)
            if run is not None and claims.claim(run, span, "start"):
                self._note(self._router.write_start(run, span))

    def on_end(self, span: ReadableSpan) -> None:
        """Write a span whole."""
        roots = asked()
        with self._harmless:
            run = self._run_of(span) if _is_captured(span) else None
            if run is not None and not is_cut_off(span) and claims.claim(run, span):
                durability = settings.current().durability
                sync = roots is not None and roots.is_step(span)
                written = self._router.write(run, (span,), durability, sync=sync)
                if written.lost:
                    claims.release(run, span)
                else:
                    self._tokens.count(run, (span,))
                self._note(written)
        if roots is not None:
            roots.ended(span)

    def shutdown(self) -> None:
        """Close the logs."""
        if self._pid == os.getpid():
            self._router.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's
        """Do nothing: nothing waits."""
        return True

    def _run_of(self, span: ReadableSpan) -> KnownRun | None:
        """The run of a library's span, if that is in progress."""
        if self._pid != os.getpid():
            self._reset()
        run = run_of_library_span(span)
        if run is None or run.ended_ns is not None or not settings.current().enabled:
            return None
        return run

    def _note(self, written: Written) -> None:
        """Report what failed; what waits in memory is reported by the log itself."""
        if written.lost and written.problem is not None:
            self._failures.failed(written.problem)
        elif written.problem is None:
            self._failures.worked()


class _Harmless:
    """Reports what its block raises; a class, because a generator would cost each span more."""

    __slots__ = ("_failures",)

    def __init__(self, failures: FailureLog) -> None:
        self._failures = failures

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._failures.failed(error)
        return True


def _is_captured(span: ReadableSpan) -> bool:
    """Whether it is a library's, and sampled."""
    return span.context.trace_flags.sampled and own_run_id(span) is None
