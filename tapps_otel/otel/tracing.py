"""The entrance to spans: what makes them in this process, if anything does.

OpenTelemetry is imported inside the function, so that a process without spans does not pay for it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tapps_otel.otel.environment import traces_wanted
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from tapps_otel.otel.seam import Tracing
    from tapps_otel.settings_model import Settings

__all__ = ["tracing"]


def tracing(settings: Settings) -> Tracing | None:
    """Return what makes spans in this process; ``None`` if nothing does.

    The first call that finds a standard variable naming an endpoint or an exporter, and no
    provider, sets one up. Later calls are cheap.
    """
    if not settings.spans:
        return None
    if "opentelemetry.trace" not in sys.modules and not traces_wanted(settings):
        return None
    try:
        from tapps_otel.otel.live import spans

        return spans.tracing(settings)
    except Exception as error:  # noqa: BLE001 - a broken OpenTelemetry must not stop a run
        warn_once("set-up", error)
        return None
