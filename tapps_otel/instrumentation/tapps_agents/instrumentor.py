"""The instrumentor that ``opentelemetry-instrument`` finds by its entry point."""

from __future__ import annotations

from tapps_otel.instrumentation.entry_point import Instrumentor
from tapps_otel.instrumentation.tapps_agents.functions import TARGET, patches

__all__ = ["TappsAgentsInstrumentor"]


class TappsAgentsInstrumentor(Instrumentor):
    """``TappsAgentsInstrumentor().instrument()`` does what ``instrument("tapps_agents")`` does."""

    target = TARGET
    versions = "tapps-agents >= 3.5.38"
    patches = staticmethod(patches)
