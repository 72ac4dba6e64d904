"""A batch processor that counts spans, and sends markers at once."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from tapps_otel.names import ATTR
from tapps_otel.otel.capture.exporter import JsonlSpanExporter
from tapps_otel.otel.delivery.otlp_exporter import OtlpExporter
from tapps_otel.otel.mapping.owner import is_marker
from tapps_otel.otel.process.exporter import ManagedExporter
from tapps_otel.otel.process_end import may_vanish
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.otel.process.shutdown import Gate

__all__ = ["Delivery", "JoinedDelivery", "ManagedSpanExporter", "withheld"]

_log = logging.getLogger(__name__)
_MOMENT: Final = 0.2  # seconds that the end of a run in a child process waits for its spans
_withheld: ContextVar[bool] = ContextVar("tapps_otel_withheld", default=False)


@contextmanager
def withheld() -> Iterator[None]:
    """Keep spans that are given to a program's processors from a delivery among them."""
    token = _withheld.set(True)
    try:
        yield
    finally:
        _withheld.reset(token)


class ManagedSpanExporter(ManagedExporter[SpanExporter], SpanExporter):
    """Counts the spans that were accepted, or refused for good."""

    def __init__(self, target: str, make: Callable[[], SpanExporter]) -> None:
        super().__init__(target, make)
        self.settled = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, unless it is too late for that."""
        if self.given_up:
            return SpanExportResult.FAILURE
        exporter = self.wrapped
        with self.gate:
            result = exporter.export(spans)
        if isinstance(exporter, OtlpExporter):
            self.settled += exporter.settled
        elif result is SpanExportResult.SUCCESS:
            self.settled += sum(not is_marker(span) for span in spans)
        return result


class Delivery(BatchSpanProcessor):
    """A batch processor that counts spans, and sends markers at once.

    So does it with the spans of an execution that ends. In a child process that waits a moment for
    them: a pool kills those that have returned their result. An event loop is not kept waiting.
    """

    def __init__(self, exporter: ManagedSpanExporter) -> None:
        super().__init__(exporter)
        self.exporter = exporter
        self._is_local = isinstance(exporter.wrapped, JsonlSpanExporter)
        self._reset()

    def _reset(self) -> None:
        self.given = self.exporter.settled = 0
        # A garbage collection may end a span here, in the thread that holds it.
        self._given_lock = threading.RLock()
        self._is_shut_down = self._has_warned = False
        self._requests: SimpleQueue[threading.Event] | None = None
        self._waits = True

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a sampled span."""
        if not span.context.trace_flags.sampled:
            return
        super().on_end(span)
        announces = is_marker(span)
        # A log gets what belongs to it once the run that has ended has closed it.
        is_last = not self._is_local and _ends_execution(span)
        with self._given_lock:
            self.given += not announces
            flushed = self._request_flush() if is_last or announces else None
        if self._is_shut_down:
            self._warn_late()
        elif is_last and flushed is not None and self._waits and _may_wait():
            self._waits = flushed.wait(_MOMENT)  # not again for a collector that does not answer

    def shutdown(self) -> None:
        """Send what is queued; later spans cannot be sent."""
        super().shutdown()  # type: ignore[no-untyped-call]
        self._is_shut_down = True

    def _warn_late(self) -> None:
        """Log a warning, once, of spans that end after the flush at exit."""
        if not self._has_warned:
            self._has_warned = True
            self.warn_unsent()

    def _request_flush(self) -> threading.Event:
        """Let a thread flush the queue; return what is set once it has."""
        done = threading.Event()
        if self._requests is None:
            self._requests = SimpleQueue()
            threading.Thread(
                target=self._flush_on_request,
                args=(self._requests,),
                name="tapps_otel-markers",
                daemon=True,
            ).start()
        self._requests.put(done)
        return done

    def _flush_on_request(self, requests: SimpleQueue[threading.Event]) -> None:
        while True:
            waiting = [requests.get()]
            while not requests.empty():
                waiting.append(requests.get())
            try:
                self.force_flush()
            except Exception as error:  # noqa: BLE001 - of an exporter
                warn_once("markers", error)
            for done in waiting:
                done.set()

    @property
    def unsent(self) -> int:
        """Spans that were given, and that the collector neither accepted nor refused for good."""
        return self.given - self.exporter.settled

    # -- flushed at exit

    @property
    def gate(self) -> Gate:
        """Passed by every request; closed while the process forks."""
        return self.exporter.gate

    def give_up(self) -> None:
        """Fail from now on, also in the request that is being sent."""
        self.exporter.give_up()

    def warn_unsent(self) -> None:
        """Log a warning of spans that were not sent, and how to send them."""
        if self._is_local:
            return  # the exporter logs its own failures, and there is no collector to send to
        if unsent := self.unsent:
            _log.warning(
                "%d of %d spans were not sent to %s; the log has them: "
                "`tapps-otel send --all` sends them later.",
                unsent,
                self.given,
                self.exporter.target,
            )

    def after_fork(self) -> None:
        """Count from zero in a forked child: the parent sends what it has queued."""
        self._reset()


class JoinedDelivery(Delivery):
    """A delivery among the processors of a program's own provider."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a sampled span."""
        if not _withheld.get():
            super().on_end(span)

    def shutdown(self) -> None:
        """Do nothing: the program's provider would wait too long; the flush at exit ends this."""

    def close(self) -> None:
        """Send what is queued, and close the connections."""
        super().shutdown()


def _may_wait() -> bool:
    """Whether the process may be killed after a run, and this thread may wait for its spans."""
    return may_vanish() and not _in_event_loop()


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _ends_execution(span: ReadableSpan) -> bool:
    """Whether it is the span of an execution: nothing of its run follows in this process."""
    return ATTR.SEQ_LAST in (span.attributes or ())
