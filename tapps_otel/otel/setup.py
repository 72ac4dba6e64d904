"""Setting OpenTelemetry up where nobody has, and leaving it in bounded time.

A provider is built only where there is none and a standard variable names an endpoint or an
exporter; one that exists is never replaced. The variables mean what they mean to the SDK's own
configurator, which is private to `opentelemetry-instrument`.

The SDK's own shutdown waits for a collector that does not answer, thirty seconds if need be. Here
a thread that was started long before does that (from Python 3.12 on none can be started once the
interpreter shuts down), and the interpreter waits for the thread no longer than
``shutdown_timeout``. What was not sent by then is said; the log has it.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from tapps_otel.otel.resource import program
from tapps_otel.otel.spans import wanted, warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.util.types import AttributeValue

    from tapps_otel.settings import Settings

__all__ = ["ensure_provider"]

_log = logging.getLogger(__name__)
_PROTOCOLS: Final = {
    "grpc": "otlp_proto_grpc",
    "http/protobuf": "otlp_proto_http",
    "http/json": "otlp_json_http",  # if that exporter is installed
}
_lock = threading.Lock()
_tried = False


def ensure_provider(settings: Settings) -> trace.TracerProvider | None:
    """The process's tracer provider, built here if there is none and the environment asks.

    ``None`` if it does not ask, or asks for what cannot be had; that is said once.
    """
    global _tried  # noqa: PLW0603 - a process is set up once
    with _lock:
        provider = trace.get_tracer_provider()
        if not isinstance(provider, trace.ProxyTracerProvider):
            return provider
        if _tried or not wanted():
            return None
        _tried = True
        deliveries = _deliveries()
        if not deliveries:
            return None
        return _install(deliveries, settings.shutdown_timeout)


def _install(deliveries: list[_Delivery], timeout: float) -> trace.TracerProvider:
    provider = TracerProvider(
        resource=_resource(),
        sampler=_sampler(),
        id_generator=_id_generator(),
        shutdown_on_exit=False,  # it would wait too long
    )
    for delivery in deliveries:
        provider.add_span_processor(delivery)
    trace.set_tracer_provider(provider)
    if trace.get_tracer_provider() is not provider:  # the program was faster
        provider.shutdown()
        return trace.get_tracer_provider()
    _Exit(provider, deliveries, timeout).register()
    return provider


# ---------------------------------------------------------------- what the environment asks for


def _deliveries() -> list[_Delivery]:
    """A batch processor for each exporter that is asked for and can be made."""
    made = []
    for name in dict.fromkeys(_exporter_names()):
        try:
            made.append(_Delivery(_Exporter(name, _load("opentelemetry_traces_exporter", name))))
        except Exception as error:  # noqa: BLE001 - a bad variable or a missing package
            warn_once(f"exporter {name}", error)
    return made


def _exporter_names() -> list[str]:
    asked = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    names = [name.strip() for name in asked.split(",")]
    return [_protocol() if name == "otlp" else name for name in names if name not in {"", "none"}]


def _protocol() -> str:
    asked = _first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    return _PROTOCOLS.get(asked, asked)


def _sampler() -> Sampler | None:
    """A sampler that a package offers; ``None`` leaves the SDK's own names to the SDK."""
    name = os.environ.get("OTEL_TRACES_SAMPLER", "").strip()
    if not any(entry_points(group="opentelemetry_traces_sampler", name=name)):
        return None
    try:
        make = _load("opentelemetry_traces_sampler", name)
        sampler: Sampler = make(os.environ.get("OTEL_TRACES_SAMPLER_ARG"))
    except Exception as error:  # noqa: BLE001 - another package's code
        warn_once(f"sampler {name}", error)
        return None
    return sampler


def _id_generator() -> IdGenerator | None:
    name = os.environ.get("OTEL_PYTHON_ID_GENERATOR", "").strip()
    if not name:
        return None
    try:
        generator: IdGenerator = _load("opentelemetry_id_generator", name)()
    except Exception as error:  # noqa: BLE001 - another package's code
        warn_once(f"id generator {name}", error)
        return None
    return generator


def _load(group: str, name: str) -> Callable[..., Any]:
    for point in entry_points(group=group, name=name):
        loaded: Callable[..., Any] = point.load()
        return loaded
    raise LookupError(f"no installed package offers {name!r} as {group}")


def _resource() -> Resource:
    """The SDK's resource by the environment; where that is silent, host, process and program."""
    resource = Resource.create()
    known = resource.attributes
    # Jaeger warns of clock skew at every span of a resource without a host.
    own: dict[str, AttributeValue] = {"host.name": socket.gethostname(), "process.pid": os.getpid()}
    own = {name: value for name, value in own.items() if name not in known}
    if str(known.get("service.name", "")).startswith("unknown_service"):
        own["service.name"] = program()
    return resource.merge(Resource(own))


def _first(*names: str) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")


# ---------------------------------------------------------------- sending


class _Exporter(SpanExporter):
    """An exporter that counts what was taken from it, and can be made to give up."""

    def __init__(self, name: str, make: Callable[[], SpanExporter]) -> None:
        self.target = _target(name)
        self.sent = 0
        self._make = make
        self._exporter = make()
        self._given_up = self._closed = False
        self._pid = os.getpid()
        self._abandoned: list[SpanExporter] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, unless it is too late for that."""
        if self._given_up:
            return SpanExportResult.FAILURE
        if self._pid != os.getpid():
            self._replace()
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += len(spans)
        return result

    def _replace(self) -> None:
        """Make another for this forked process: connections belong to the parent."""
        self._abandoned.append(self._exporter)  # closing it would disturb the parent's
        self._exporter = self._make()
        self._pid = os.getpid()

    def give_up(self) -> None:
        """Fail from now on, also in what is being sent."""
        self._given_up = True
        self.shutdown()

    def shutdown(self) -> None:
        """Close the connections."""
        if self._pid == os.getpid() and not self._closed:
            self._closed = True
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return self._exporter.force_flush(timeout_millis)


class _Delivery(BatchSpanProcessor):
    """A batch processor that knows how many spans it was given."""

    def __init__(self, exporter: _Exporter) -> None:
        super().__init__(exporter)
        self.exporter = exporter
        self.given = 0
        self._given_lock = threading.Lock()

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a sampled span."""
        if span.context.trace_flags.sampled:
            with self._given_lock:
                self.given += 1
            super().on_end(span)

    @property
    def unsent(self) -> int:
        """Spans that were given and not taken by the collector."""
        return self.given - self.exporter.sent

    def forget(self) -> None:
        """Begin to count anew, in a forked process: what the parent queued, it sends."""
        self._given_lock = threading.Lock()
        self.given = self.exporter.sent = 0


class _Exit:
    """The last flush, in a thread that exists from the beginning."""

    def __init__(
        self, provider: TracerProvider, deliveries: list[_Delivery], timeout: float
    ) -> None:
        self._provider = provider
        self._deliveries = deliveries
        self._timeout = timeout
        self._start()

    def register(self) -> None:
        """Let the interpreter call this when it shuts down, and when it forks."""
        atexit.register(self._leave)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

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

    def _after_fork(self) -> None:
        """No thread survives a fork, and the process has another number."""
        for delivery in self._deliveries:
            delivery.forget()
        update = getattr(self._provider, "_update_resource", None)
        if update is not None and "process.pid" in self._provider.resource.attributes:
            update(Resource({"process.pid": os.getpid()}))
        self._start()

    def _leave(self) -> None:
        self._asked.set()
        if not self._done.wait(self._timeout):
            for delivery in self._deliveries:
                delivery.exporter.give_up()
        for delivery in self._deliveries:
            if unsent := delivery.unsent:
                _log.warning(
                    "%d of %d spans were not sent to %s; the log has them.",
                    unsent,
                    delivery.given,
                    delivery.exporter.target,
                )


def _target(name: str) -> str:
    """Where spans go, in words that hold no secret: host and port of the endpoint."""
    if not name.startswith("otlp"):
        return name
    endpoint = _first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        return "the collector on this host"
    address = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").netloc
    return address.rpartition("@")[2] or "the collector"
