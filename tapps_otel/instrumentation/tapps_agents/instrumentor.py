"""The instrumentor, as OpenTelemetry's launcher and its users know such things."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)

from tapps_otel.instrumentation import registry
from tapps_otel.instrumentation.tapps_agents.functions import TARGET, patches

if TYPE_CHECKING:
    from collections.abc import Collection

    from tapps_otel.instrumentation.patching import Report

__all__ = ["TappsAgentsInstrumentor"]


class TappsAgentsInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """``TappsAgentsInstrumentor().instrument()`` is ``instrument("tapps_agents")``.

    The settings of this package say the rest; there are no arguments.
    """

    @property
    def report(self) -> Report:
        """How the hooks stand at this moment."""
        return registry.report(TARGET)

    def instrumentation_dependencies(self) -> Collection[str]:
        """What must be installed for it to be of use."""
        return ("tapps-agents >= 3.5.38",)

    def _instrument(self, **_: Any) -> None:
        if find_spec(TARGET) is None:  # the launcher asks for every instrumentor that there is
            return
        registry.add(TARGET, patches)

    def _uninstrument(self, **_: Any) -> None:
        registry.remove(TARGET)
