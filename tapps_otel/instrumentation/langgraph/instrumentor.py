"""The instrumentor that ``opentelemetry-instrument`` finds by its entry point."""

from __future__ import annotations

from tapps_otel.instrumentation.entry_point import Instrumentor
from tapps_otel.instrumentation.langgraph.functions import TARGET, patches

__all__ = ["LangGraphInstrumentor"]


class LangGraphInstrumentor(Instrumentor):
    """``LangGraphInstrumentor().instrument()`` does what ``instrument("langgraph")`` does."""

    target = TARGET
    versions = "langgraph >= 0.6"
    patches = staticmethod(patches)
