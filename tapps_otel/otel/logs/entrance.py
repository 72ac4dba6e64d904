"""The entrance to log records: what makes them of events in this process, if anything does.

OpenTelemetry is imported inside the function, so that a process without them does not pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapps_otel.otel.environment import logs_wanted
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from tapps_otel.otel.seam import EventWatcher
    from tapps_otel.settings_model import Settings

__all__ = ["event_logs"]


def event_logs(settings: Settings) -> EventWatcher | None:
    """Return what makes log records of one run's events; ``None`` if nothing does.

    The first call that is asked for them, and finds no logger provider, sets one up.
    """
    if not logs_wanted(settings):
        return None
    try:
        from tapps_otel.otel.logs import emitter

        return emitter.event_logs(settings)
    except Exception as error:  # noqa: BLE001 - a broken OpenTelemetry must not stop a run
        warn_once("log records", error)
        return None
