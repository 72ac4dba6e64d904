"""The instrumentors that ``opentelemetry-instrument`` finds by their entry points."""

from __future__ import annotations

from functools import partial

from tapps_otel.instrumentation.entry_point import Instrumentor
from tapps_otel.instrumentation.spans.hooks import patches

__all__ = ["AgentFrameworkInstrumentor", "PydanticAiInstrumentor"]


class PydanticAiInstrumentor(Instrumentor):
    """``PydanticAiInstrumentor().instrument()`` does what ``instrument("pydantic_ai")`` does."""

    target = "pydantic_ai"
    versions = "pydantic-ai-slim >= 2"
    patches = staticmethod(partial(patches, target))


class AgentFrameworkInstrumentor(Instrumentor):
    """It does what ``instrument("agent_framework")`` does."""

    target = "agent_framework"
    versions = "agent-framework-core >= 1"
    patches = staticmethod(partial(patches, target))
