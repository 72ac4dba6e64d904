"""Setting OpenTelemetry up where nobody has, and leaving it in bounded time."""

from __future__ import annotations

import os

__all__ = ["wanted"]


def wanted() -> bool:
    """Whether a standard variable asks for spans; reads the environment and imports nothing."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporters:
        return exporters != "none"
    return any(
        os.environ.get(name, "").strip()
        for name in (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_PYTHON_TRACER_PROVIDER",
        )
    )
