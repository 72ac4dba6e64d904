"""Setting metrics up where nobody has, and a standard variable asks for them by name.

A provider that exists is never replaced. The exporters are the SDK's own and read the variables
themselves; what is added is that none of them can hold up the process's exit, and that a forked
process begins with numbers of its own.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricReader,
    PeriodicExportingMetricReader,
)

from tapps_otel.otel import sdk_internals
from tapps_otel.otel.environment import address_of, metrics_wanted, otlp_variable
from tapps_otel.otel.process.fork_lock import ProcessLock
from tapps_otel.otel.process.plugins import PROTOCOLS, load, resource_of_process
from tapps_otel.otel.process.shutdown import Exit, Gate
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.metrics.export import MetricsData

    from tapps_otel.settings import Settings

__all__ = ["MetricDelivery", "ensure_provider"]

_log = logging.getLogger(__name__)
_variable = partial(otlp_variable, "METRICS")
_GROUP: Final = "opentelemetry_metrics_exporter"
_tried = False


def _begin_anew() -> None:
    global _tried  # noqa: PLW0603 - a process is set up once
    _tried = False


_lock = ProcessLock(_begin_anew)


def ensure_provider(settings: Settings) -> metrics.MeterProvider | None:
    """The process's meter provider, built here if there is none and somebody asks for it.

    ``None`` if nobody does, or for what cannot be had; that is said once.
    """
    global _tried  # noqa: PLW0603 - a process is set up once
    with _lock:
        provider = _theirs()
        if provider is not None or _tried or not metrics_wanted():
            return provider
        _tried = True
        deliveries: list[MetricDelivery] = []
        readers = []
        for name in dict.fromkeys(_exporter_names()):
            try:
                readers.append(_reader(name, deliveries))
            except Exception as error:  # noqa: BLE001 - a bad variable or a missing package
                warn_once(f"metrics exporter {name}", error)
        return _install(readers, deliveries, settings) if readers else None


def _theirs() -> metrics.MeterProvider | None:
    """The provider that stands now: another thread may have been faster, or the program."""
    provider = metrics.get_meter_provider()
    return provider if isinstance(provider, MeterProvider) else None


def _install(
    readers: list[MetricReader], deliveries: list[MetricDelivery], settings: Settings
) -> metrics.MeterProvider | None:
    provider = MeterProvider(
        readers,
        resource=resource_of_process(settings.service_name),
        shutdown_on_exit=False,  # it would wait too long
    )
    metrics.set_meter_provider(provider)
    if metrics.get_meter_provider() is not provider:  # the program was faster
        provider.shutdown()
        return _theirs()
    for delivery in deliveries:
        delivery.provider = provider
    Exit(provider, deliveries, settings.shutdown_timeout).register()
    return provider


# ---------------------------------------------------------------- what the environment asks for


def _exporter_names() -> list[str]:
    asked = os.environ.get("OTEL_METRICS_EXPORTER", "").strip() or "otlp"
    protocol = _variable("PROTOCOL") or "grpc"
    otlp = PROTOCOLS.get(protocol, protocol)
    names = [name.strip() for name in asked.split(",")]
    return [otlp if name == "otlp" else name for name in names if name not in {"", "none"}]


def _reader(name: str, deliveries: list[MetricDelivery]) -> MetricReader:
    """A reader that a package offers, or one that exports every minute."""
    offered = load(_GROUP, name)
    if isinstance(offered, type) and issubclass(offered, MetricReader):
        return offered()
    delivery = MetricDelivery(_target(name), partial(_make, offered))
    reader = PeriodicExportingMetricReader(delivery)
    deliveries.append(delivery)
    return reader


def _make(offered: Callable[..., Any]) -> MetricExporter:
    made: MetricExporter = offered()
    return made


def _target(name: str) -> str:
    """Where an exporter sends, in words that hold no secret."""
    endpoint = _variable("ENDPOINT") if name in PROTOCOLS.values() else ""
    return address_of(endpoint) if endpoint else name


# ---------------------------------------------------------------- delivering


class MetricDelivery(MetricExporter):
    """An exporter that can be made to give up.

    :param target: where it sends, in words that hold no secret
    :param make: makes the exporter itself, in a forked process once more
    :ivar provider: whose numbers it delivers
    """

    def __init__(self, target: str, make: Callable[[], MetricExporter]) -> None:
        self.target, self._make = target, make
        self._inner = inner = make()
        super().__init__(**sdk_internals.preferences_of(inner))
        self.provider: MeterProvider | None = None
        self.gate = Gate()
        self._given_up = self._closed = self._failed = False
        self._abandoned: list[MetricExporter] = []

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Send all numbers, unless it is too late for that."""
        if self._given_up:
            return MetricExportResult.FAILURE
        self._failed = True  # until it is known
        with self.gate:
            result = self._inner.export(metrics_data, timeout_millis=timeout_millis, **kwargs)
        self._failed = result is not MetricExportResult.SUCCESS
        return result

    def give_up(self) -> None:
        """Fail from now on, also in what is being sent."""
        self._given_up = self._failed = True
        self.shutdown()

    def say_unsent(self) -> None:
        """Tell that the collector does not know the last numbers, if it does not."""
        if self._failed:
            _log.warning("the last metrics were not sent to %s.", self.target)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:  # noqa: ARG002 - the SDK's
        """Close the connections."""
        if not self._closed:
            self._closed = True
            self._inner.shutdown()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing waits here."""
        return self._inner.force_flush(timeout_millis)

    def after_fork(self) -> None:
        """Connect anew and count from nothing: connections and numbers are the parent's."""
        self._abandoned.append(self._inner)  # closing it would disturb the parent's
        try:
            self._inner = self._make()
            self._failed = False
            sdk_internals.reset_metrics(self.provider)
        except Exception as error:  # noqa: BLE001 - of an exporter, or an SDK not as we know it
            warn_once("metrics after a fork", error)
