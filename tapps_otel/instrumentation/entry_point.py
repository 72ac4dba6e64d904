"""What ``opentelemetry-instrument`` finds by an entry point."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)

from tapps_otel.instrumentation import registry

if TYPE_CHECKING:
    from collections.abc import Collection

    from tapps_otel.instrumentation.patching import Patches, Report

__all__ = ["Instrumentor"]


class Instrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Base class of the instrumentors.

    They take no arguments: they are configured by the settings of this package.

    :cvar target: the module that is instrumented
    :cvar versions: the versions that can be instrumented, as a requirement
    """

    target: ClassVar[str]
    versions: ClassVar[str]

    @staticmethod
    def patches() -> Patches:
        """Make the hooks."""
        raise NotImplementedError

    @property
    def report(self) -> Report:
        """The live report of the hooks.

        :raises LookupError: the target is not instrumented
        """
        return registry.report(self.target)

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions that can be instrumented."""
        return (self.versions,)

    def is_installed(self) -> bool:
        """Whether the target can be imported."""
        return find_spec(self.target) is not None

    def _instrument(self, **_: Any) -> None:
        if not self.is_installed():  # the launcher calls every instrumentor there is
            return
        registry.add(self.target, self.patches)

    def _uninstrument(self, **_: Any) -> None:
        registry.remove(self.target)
