"""From a span's end to its exporter: a batch processor that can be counted and hurried.

The SDK's own shutdown waits for a collector that does not answer, thirty seconds if need be. Here
a thread that was started long before does that (from Python 3.12 on none can be started once the
interpreter shuts down), and the interpreter waits for the thread no longer than
``shutdown_timeout``. What was not sent by then is said; the log has it.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from tapps_otel.names import ATTR
from tapps_otel.otel.spans import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

__all__ = ["Delivery", "Exit", "Exporter"]

_log = logging.getLogger(__name__)
_BEFORE_FORK: Final = 0.2  # seconds that a fork waits for an answer that is on its way


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
        self._sending = threading.Lock()
        self._held = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, unless it is too late for that."""
        if self._given_up:
            return SpanExportResult.FAILURE
        if self._pid != os.getpid():
            self._replace()
        with self._sending:
            result = self.inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += sum(not is_marker(span) for span in spans)
        return result

    def _replace(self) -> None:
        """Make another for this forked process: connections belong to the parent."""
        self._abandoned.append(self.inner)  # closing it would disturb the parent's
        self.inner = self._make()
        self._pid = os.getpid()

    def hold(self) -> None:
        """Let nothing be sent while the process forks: gRPC may hang in a child else.

        Whoever is sending is waited for a moment, and no longer: a fork is part of a step.
        """
        self._held = self._sending.acquire(timeout=_BEFORE_FORK)

    def release(self, *, in_child: bool = False) -> None:
        """Go on after :meth:`hold`."""
        if in_child:  # whoever was sending is not there
            self._sending = threading.Lock()
        elif self._held:
            self._sending.release()
        self._held = False

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

    def after_fork(self) -> None:
        """Begin to count anew, in a forked process: what the parent queued, it sends."""
        self.exporter.release(in_child=True)
        self._forget()


def is_marker(span: ReadableSpan) -> bool:
    """Whether a span only says that another one has begun."""
    return ATTR.MARKER in (span.attributes or ())


class Exit:
    """The last flush, in a thread that exists from the beginning."""

    def __init__(
        self, provider: TracerProvider, deliveries: list[Delivery], timeout: float
    ) -> None:
        self._provider = provider
        self.deliveries = deliveries
        self._timeout = timeout
        self._start()

    def register(self) -> None:
        """Let the interpreter call this when it shuts down, and when it forks."""
        atexit.register(self._leave)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._after_fork,
            )

    def _start(self) -> None:
        self._asked = threading.Event()
        self._done = threading.Event()
        threading.Thread(target=self._flush, name="tapps_otel-flush", daemon=True).start()

    def _flush(self) -> None:
        self._asked.wait()
        try:
            self._provider.shutdown()
        except Exception as error:  # noqa: BLE001 - of an exporter
            warn_once("shutdown", error)
        self._done.set()

    def _before_fork(self) -> None:
        for delivery in self.deliveries:
            delivery.exporter.hold()

    def _after_fork_in_parent(self) -> None:
        for delivery in self.deliveries:
            delivery.exporter.release()

    def _after_fork(self) -> None:
        """No thread survives a fork, and the process has another number."""
        for delivery in self.deliveries:
            delivery.after_fork()
        update = getattr(self._provider, "_update_resource", None)
        if update is not None and "process.pid" in self._provider.resource.attributes:
            update(Resource({"process.pid": os.getpid()}))
        self._start()

    def _leave(self) -> None:
        self._asked.set()
        if not self._done.wait(self._timeout):
            for delivery in self.deliveries:
                delivery.exporter.give_up()
            if not self.deliveries:  # somebody else's exporters, whose spans nobody counts
                _log.warning(
                    "spans were not all sent in %g s; the log has them: "
                    "`tapps-otel send --all` sends them later.",
                    self._timeout,
                )
        for delivery in self.deliveries:
            if unsent := delivery.unsent:
                _log.warning(
                    "%d of %d spans were not sent to %s; the log has them: "
                    "`tapps-otel send --all` sends them later.",
                    unsent,
                    delivery.given,
                    delivery.exporter.target,
                )
