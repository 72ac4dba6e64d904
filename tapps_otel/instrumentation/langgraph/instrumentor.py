"""The instrumentor that ``opentelemetry-instrument`` finds by its entry point."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)

from tapps_otel.instrumentation import registry
from tapps_otel.instrumentation.langgraph.functions import TARGET, patches

if TYPE_CHECKING:
    from collections.abc import Collection

    from tapps_otel.instrumentation.patching import Report

__all__ = ["LangGraphInstrumentor"]


class LangGraphInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """``LangGraphInstrumentor().instrument()`` does what ``instrument("langgraph")`` does.

    It takes no arguments: it is configured by the settings of this package.
    """

    @property
    def report(self) -> Report:
        """The live report of the hooks.

        :raises LookupError: LangGraph is not instrumented
        """
        return registry.report(TARGET)

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions of LangGraph that can be instrumented."""
        return ("langgraph >= 0.6",)

    def _instrument(self, **_: Any) -> None:
        if find_spec(TARGET) is None:  # the launcher calls every instrumentor that is installed
            return
        registry.add(TARGET, patches)

    def _uninstrument(self, **_: Any) -> None:
        registry.remove(TARGET)
