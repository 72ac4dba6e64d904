"""The entrance to metrics: what measures in this process, if anything.

OpenTelemetry is imported inside the functions, so that a process without metrics does not pay for
it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tapps_otel import settings as _settings
from tapps_otel.otel.environment import metrics_wanted
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from tapps_otel.otel.metrics.instruments import Meters
    from tapps_otel.otel.seam import Measures
    from tapps_otel.past.usage import Usage
    from tapps_otel.settings_model import Settings

__all__ = ["count_spans", "count_tokens", "measures"]


def measures(settings: Settings, workflow: str) -> Measures | None:
    """Return what measures a workflow's runs; ``None`` if nothing does.

    The first call that finds a standard variable asking for metrics, and no meter provider, sets
    one up. Later calls are cheap.
    """
    try:
        meters = _meters(settings)
        return None if meters is None else meters.of(workflow)
    except Exception as error:  # noqa: BLE001 - a broken OpenTelemetry must not stop a run
        warn_once("metrics", error)
        return None


def count_spans(address: str, spans: int, error_type: str | None = None) -> None:
    """Count spans that a collector accepted, or that it did not accept and why.

    :param address: the collector's, ``host:port``
    """
    if not spans:
        return
    try:
        meters = _meters(_settings.current())
        if meters is not None:
            meters.count_spans(address, spans, error_type)
    except Exception as error:  # noqa: BLE001 - a broken OpenTelemetry must not stop a delivery
        warn_once("metrics", error)


def count_tokens(workflow: str | None, usage: Usage) -> None:
    """Count tokens that calls of models inside a run used.

    :param workflow: name of the run's workflow; ``None`` if it is not known here
    """
    try:
        meters = _meters(_settings.current())
        if meters is not None:
            meters.count_tokens(workflow, usage)
    except Exception as error:  # noqa: BLE001 - a broken OpenTelemetry must not stop a capture
        warn_once("metrics", error)


def _meters(settings: Settings) -> Meters | None:
    if not settings.metrics:
        return None
    if "opentelemetry.metrics" not in sys.modules and not metrics_wanted():
        return None
    from tapps_otel.otel.metrics import instruments

    return instruments.meters(settings)
