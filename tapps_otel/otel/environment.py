"""What settings and the standard environment variables ask for.

The variables are those of the OpenTelemetry specification, and mean what they mean to its SDK.
OpenTelemetry is not imported here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tapps_otel.masking import public_url

if TYPE_CHECKING:
    from tapps_otel.settings_model import Settings

__all__ = [
    "address_of",
    "delivery_settings",
    "delivery_variables",
    "logs_wanted",
    "metrics_wanted",
    "otlp_variable",
    "span_starts_wanted",
    "traces_wanted",
]

_TRACE_VARIABLES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_PYTHON_TRACER_PROVIDER",
    "OTEL_CONFIG_FILE",
)
_DELIVERY = ("otlp_endpoint", "otlp_headers", "otlp_protocol", "service_name")
# OTEL_EXPORTER_OTLP_ENDPOINT is not among these: what listens there is often a store of traces,
# which takes no metrics.
_METRIC_VARIABLES = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_PYTHON_METER_PROVIDER")


def traces_wanted(settings: Settings) -> bool:
    """Whether a setting or a standard variable asks for spans."""
    if _sdk_disabled():
        return False
    if settings.otlp_endpoint:
        return True
    return _asked_for("OTEL_TRACES_EXPORTER", _TRACE_VARIABLES)


def delivery_settings(settings: Settings) -> list[str]:
    """Return the names of the settings that say where spans are sent, and how, if any does."""
    return [name for name in _DELIVERY if getattr(settings, name) is not None]


def delivery_variables() -> dict[str, str]:
    """Return the variables that say where and how spans are sent, for a process elsewhere.

    Not the configuration file: it is on this machine.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("OTEL_") and name != "OTEL_CONFIG_FILE"
    }


def span_starts_wanted(settings: Settings) -> bool:
    """Whether libraries' spans are to be in the logs of runs from their start."""
    names = _variable("OTEL_TRACES_EXPORTER").split(",")
    return settings.span_starts and "tapps_jsonl" in map(str.strip, names)


def metrics_wanted() -> bool:
    """Whether a standard variable asks for metrics by name."""
    return not _sdk_disabled() and _asked_for("OTEL_METRICS_EXPORTER", _METRIC_VARIABLES)


def logs_wanted(settings: Settings) -> bool:
    """Whether the setting, or else the standard variable, asks for log records of events."""
    if _sdk_disabled():
        return False
    if settings.event_logs is not None:
        return settings.event_logs
    return _asked_for("OTEL_LOGS_EXPORTER", ())


def _sdk_disabled() -> bool:
    return _variable("OTEL_SDK_DISABLED").lower() == "true"


def _asked_for(exporters: str, others: tuple[str, ...]) -> bool:
    """Whether exporters are named, or if not, another variable is set."""
    named = _variable(exporters).lower()
    return named != "none" if named else any(map(_variable, others))


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()


def otlp_variable(signal: str, name: str, *, common: bool = True) -> str:
    """Return an exporter's variable: the signal's own, else the one for all signals.

    :param signal: ``TRACES``, ``METRICS`` or ``LOGS``
    :param name: ``ENDPOINT``, ``PROTOCOL``, ...
    :param common: whether the variable for all signals counts
    """
    found = _variable(f"OTEL_EXPORTER_OTLP_{signal}_{name}")
    return found or (_variable(f"OTEL_EXPORTER_OTLP_{name}") if common else "")


def address_of(endpoint: str) -> str:
    """Return host and port of an endpoint, without the secrets that it may hold."""
    url = public_url(endpoint)
    return url.partition("://")[2].partition("/")[0] or url
