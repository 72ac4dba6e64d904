"""The meter provider of a process that has none, if a variable asks for one.

The exporters are the SDK's own and read the variables themselves; what is added is that none of
them can delay the exit, and that a forked process starts with numbers of its own.
"""

from __future__ import annotations

import logging
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
from tapps_otel.otel.environment import metrics_wanted
from tapps_otel.otel.process.exporter import ManagedExporter
from tapps_otel.otel.process.plugins import process_resource
from tapps_otel.otel.process.setup import ProviderSetup, make_each
from tapps_otel.otel.process.standard_exporters import StandardExporters
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.metrics.export import MetricsData

    from tapps_otel.settings_model import Settings

__all__ = ["ManagedMetricExporter", "ensure_provider"]

_exporters: Final = StandardExporters("METRICS")
_log = logging.getLogger(__name__)


class ManagedMetricExporter(ManagedExporter[MetricExporter], MetricExporter):
    """Notes whether the last numbers were sent.

    :ivar provider: whose numbers they are
    """

    def __init__(self, target: str, make: Callable[[], MetricExporter]) -> None:
        super().__init__(target, make)
        MetricExporter.__init__(self, **sdk_internals.preferences_of(self.wrapped))
        self.provider: MeterProvider | None = None
        self._failed = False

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Send all numbers, unless it is too late for that."""
        if self.given_up:
            return MetricExportResult.FAILURE
        self._failed = True  # until the answer is known
        exporter = self.wrapped
        with self.gate:
            result = exporter.export(metrics_data, timeout_millis=timeout_millis, **kwargs)
        self._failed = result is not MetricExportResult.SUCCESS
        return result

    # -- flushed at exit

    def warn_unsent(self) -> None:
        """Log a warning if the collector does not have the last numbers."""
        if self._failed or self.given_up:
            _log.warning("the last metrics were not sent to %s.", self.target)

    def after_fork(self) -> None:
        """Count from zero in a forked child: the numbers so far are the parent's."""
        self._failed = False
        try:
            sdk_internals.reset_metrics(self.provider)
        except Exception as error:  # noqa: BLE001 - an SDK that keeps them elsewhere
            warn_once("metrics after a fork", error)


class _MeterSetup(ProviderSetup[metrics.MeterProvider, ManagedMetricExporter]):
    def _existing(self) -> metrics.MeterProvider | None:
        provider = metrics.get_meter_provider()
        return provider if isinstance(provider, MeterProvider) else None

    def _wanted(self, settings: Settings) -> bool:  # noqa: ARG002 - no setting asks for metrics
        return metrics_wanted()

    def _set(self, provider: metrics.MeterProvider) -> None:
        metrics.set_meter_provider(provider)

    def _build(self, settings: Settings) -> metrics.MeterProvider | None:
        exporters: list[ManagedMetricExporter] = []
        readers = make_each(
            _exporters.names(), lambda name: _make_reader(name, exporters), "metrics exporter"
        )
        if not readers:
            return None
        provider = MeterProvider(
            readers,
            resource=process_resource(settings.service_name),
            shutdown_on_exit=False,  # it would wait too long
        )
        for exporter in exporters:
            exporter.provider = provider
        return self._install(provider, exporters, settings)


_setup = _MeterSetup()


def ensure_provider(settings: Settings) -> metrics.MeterProvider | None:
    """Return the process's meter provider; build one if that is asked for.

    ``None`` if nothing asks for one, or if it cannot be built: then a warning is logged once.
    """
    return _setup.ensure(settings)


def _make_reader(name: str, exporters: list[ManagedMetricExporter]) -> MetricReader:
    """Make a reader that a package offers, or one that exports every minute.

    :param exporters: the exporter of the latter is added
    """
    offered = _exporters.load(name)
    if isinstance(offered, type) and issubclass(offered, MetricReader):
        return offered()
    make = partial(_exporters.make, name, offered)
    exporter = ManagedMetricExporter(_exporters.target(name), make)
    reader = PeriodicExportingMetricReader(exporter)
    exporters.append(exporter)
    return reader
