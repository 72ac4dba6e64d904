"""The seam between a run and its metrics.

The recorder tells of every event that it wrote, the log's writer of what it could not write, and
the client of a collector of the spans that it sent. Nothing that OpenTelemetry does, or fails to
do, reaches them.

Nothing of OpenTelemetry is imported here: a process that measures nothing does not pay for it.
What does import it is ``metrics.py``.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from tapps_otel import settings as _settings
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from tapps_otel.log.event import Event
    from tapps_otel.otel.metrics.instruments import Meters
    from tapps_otel.otel.transport.destination import Destination
    from tapps_otel.settings import Settings

__all__ = ["Measures", "count_spans", "measures", "wanted"]


class Measures(ABC):
    """What is measured of one workflow's runs. No method raises because of OpenTelemetry.

    It is also the ``LogObserver`` of the run's log.
    """

    __slots__ = ()

    @abstractmethod
    def wrote(self, event: Event, took_ns: int) -> None:
        """Take in an event that was given to the log.

        :param took_ns: for how long the workflow waited for that
        """

    @abstractmethod
    def log_failed(self, error: BaseException) -> None:
        """Count a write, a sync or an opening of the log that failed."""

    @abstractmethod
    def log_dropped(self, events: int) -> None:
        """Count events that will never be in the log."""


def measures(settings: Settings, workflow: str) -> Measures | None:
    """What measures the runs of a workflow in this process; ``None`` if nobody wants to know.

    The first call that finds a standard variable asking for metrics, and no meter provider, sets
    one up. Later calls are cheap.
    """
    try:
        meters = _meters(settings)
        return None if meters is None else meters.of(workflow)
    except Exception as error:  # noqa: BLE001 - a broken OpenTelemetry must not stop a run
        warn_once("metrics", error)
        return None


def count_spans(destination: Destination, spans: int, error_type: str | None = None) -> None:
    """Count spans that a collector took, or that it did not take and why."""
    if not spans:
        return
    try:
        meters = _meters(_settings.current())
        if meters is not None:
            meters.count_spans(destination, spans, error_type)
    except Exception as error:  # noqa: BLE001 - a broken OpenTelemetry must not stop a delivery
        warn_once("metrics", error)


def _meters(settings: Settings) -> Meters | None:
    if not settings.metrics or ("opentelemetry.metrics" not in sys.modules and not wanted()):
        return None
    from tapps_otel.otel.metrics import instruments

    return instruments.meters(settings)


def wanted() -> bool:
    """Whether a standard variable asks for metrics by name; imports nothing.

    ``OTEL_EXPORTER_OTLP_ENDPOINT`` alone does not: there is often a store of traces behind it,
    which takes no metrics.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = os.environ.get("OTEL_METRICS_EXPORTER", "").strip().lower()
    if exporters:
        return exporters != "none"
    return any(
        os.environ.get(name, "").strip()
        for name in ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_PYTHON_METER_PROVIDER")
    )
