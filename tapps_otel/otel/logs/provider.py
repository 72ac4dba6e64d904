"""The logger provider of a process that has none, if log records are asked for.

The exporters are the SDK's own and read the variables themselves; what is added is that none of
them can delay the exit.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.otel import sdk_internals
from tapps_otel.otel.environment import logs_wanted
from tapps_otel.otel.process.exporter import ManagedExporter
from tapps_otel.otel.process.plugins import process_resource
from tapps_otel.otel.process.setup import ProviderSetup, make_each
from tapps_otel.otel.process.standard_exporters import StandardExporters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapps_otel.settings_model import Settings

__all__ = ["ManagedLogExporter", "ensure_provider"]

_exporters: Final = StandardExporters("LOGS")
_log = logging.getLogger(__name__)


class ManagedLogExporter(ManagedExporter[Any]):
    """Counts the records that were not sent."""

    def __init__(self, target: str, make: Callable[[], Any]) -> None:
        super().__init__(target, make)
        self._results = sdk_internals.logs_sdk()[1].LogRecordExportResult
        self._unsent = 0

    def export(self, batch: Sequence[Any]) -> Any:
        """Send a batch, unless it is too late for that."""
        self._unsent += len(batch)  # until the answer is known
        if self.given_up:
            return self._results.FAILURE
        exporter = self.wrapped
        with self.gate:
            result = exporter.export(batch)
        if result is self._results.SUCCESS:
            self._unsent -= len(batch)
        return result

    # -- flushed at exit

    def warn_unsent(self) -> None:
        """Log a warning if the collector does not have all records."""
        if self._unsent or self.given_up:
            _log.warning(
                "log records of events were not sent to %s; the audit log has the events.",
                self.target,
            )

    def after_fork(self) -> None:
        """Start afresh in a forked child: what the parent has queued, the parent sends."""
        self._unsent = 0


class _LoggerSetup(ProviderSetup[Any, ManagedLogExporter]):
    def _existing(self) -> Any:
        provider = sdk_internals.logs_api().get_logger_provider()
        return None if sdk_internals.is_proxy_logger_provider(provider) else provider

    def _wanted(self, settings: Settings) -> bool:
        return logs_wanted(settings)

    def _set(self, provider: Any) -> None:
        sdk_internals.logs_api().set_logger_provider(provider)

    def _build(self, settings: Settings) -> Any:
        sdk, export = sdk_internals.logs_sdk()
        outlets = make_each(_exporters.names(), _make_exporter, "logs exporter")
        if not outlets:
            return None
        provider = sdk.LoggerProvider(
            resource=process_resource(settings.service_name),
            shutdown_on_exit=False,  # it would wait too long
        )
        for outlet in outlets:
            provider.add_log_record_processor(export.BatchLogRecordProcessor(outlet))
        return self._install(provider, outlets, settings)


_setup = _LoggerSetup()


def ensure_provider(settings: Settings) -> Any:
    """Return the process's logger provider; build one if that is asked for.

    ``None`` if it cannot be built: then a warning is logged once.
    """
    return _setup.ensure(settings)


def _make_exporter(name: str) -> ManagedLogExporter:
    make = partial(_exporters.make, name, _exporters.load(name))
    return ManagedLogExporter(_exporters.target(name), make)
