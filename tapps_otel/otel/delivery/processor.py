"""From a span's end to its exporter: a batch processor that can be counted and hurried."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from tapps_otel.otel.capture.exporter import JsonlSpanExporter
from tapps_otel.otel.mapping.owner import is_marker
from tapps_otel.otel.process.shutdown import Gate
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["Delivery", "Exporter"]

_log = logging.getLogger(__name__)


class Exporter(SpanExporter):
    """An exporter that counts what was taken from it, and can be made to give up.

    :param target: where it sends, in words that hold no secret
    :param make: makes the exporter itself, in a forked process once more
    """

    def __init__(self, target: str, make: Callable[[], SpanExporter]) -> None:
        self.target = target
        self.sent = 0
        self._make = make
        self.inner = make()
        self._given_up = self._closed = False
        self._pid = os.getpid()
        self._abandoned: list[SpanExporter] = []
        self.gate = Gate()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, unless it is too late for that."""
        if self._given_up:
            return SpanExportResult.FAILURE
        if self._pid != os.getpid():
            self._replace()
        with self.gate:
            result = self.inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += sum(not is_marker(span) for span in spans)
        return result

    def _replace(self) -> None:
        """Make another for this forked process: connections belong to the parent."""
        self._abandoned.append(self.inner)  # closing it would disturb the parent's
        self.inner = self._make()
        self._pid = os.getpid()

    def give_up(self) -> None:
        """Fail from now on, also in what is being sent."""
        self._given_up = True
        self.shutdown()

    def shutdown(self) -> None:
        """Close the connections."""
        if self._pid == os.getpid() and not self._closed:
            self._closed = True
            self.inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return self.inner.force_flush(timeout_millis)


class Delivery(BatchSpanProcessor):
    """A batch processor that knows how many spans it was given, and sends markers at once."""

    def __init__(self, exporter: Exporter) -> None:
        super().__init__(exporter)
        self.exporter = exporter
        self._forget()

    def _forget(self) -> None:
        self.given = self.exporter.sent = 0
        self._given_lock = threading.Lock()
        self._hurry: threading.Event | None = None

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a sampled span."""
        if not span.context.trace_flags.sampled:
            return
        super().on_end(span)
        with self._given_lock:
            if is_marker(span):
                self._hurry_up()
            else:
                self.given += 1

    def _hurry_up(self) -> None:
        """Let a thread send what is queued: nobody waits for it."""
        if self._hurry is None:
            self._hurry = threading.Event()
            threading.Thread(
                target=self._send_in_hurry,
                args=(self._hurry,),
                name="tapps_otel-markers",
                daemon=True,
            ).start()
        self._hurry.set()

    def _send_in_hurry(self, asked: threading.Event) -> None:
        while asked.wait():
            asked.clear()
            try:
                self.force_flush()
            except Exception as error:  # noqa: BLE001 - of an exporter
                warn_once("markers", error)

    @property
    def unsent(self) -> int:
        """Spans that were given and not taken by the collector."""
        return self.given - self.exporter.sent

    def give_up(self) -> None:
        """Fail from now on, also in what is being sent."""
        self.exporter.give_up()

    def say_unsent(self) -> None:
        """Tell what the collector did not take, and where it is."""
        if isinstance(self.exporter.inner, JsonlSpanExporter):
            return  # it has said so, and there is no collector
        if unsent := self.unsent:
            _log.warning(
                "%d of %d spans were not sent to %s; the log has them: "
                "`tapps-otel send --all` sends them later.",
                unsent,
                self.given,
                self.exporter.target,
            )

    @property
    def gate(self) -> Gate:
        """What a fork closes."""
        return self.exporter.gate

    def after_fork(self) -> None:
        """Begin to count anew, in a forked process: what the parent queued, it sends."""
        self._forget()
