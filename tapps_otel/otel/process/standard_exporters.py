"""The exporters of metrics and of logs that standard variables name: the SDK's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel.otel.environment import address_of, otlp_variable
from tapps_otel.otel.process.plugins import OTLP_EXPORTERS, load, named_exporters, resolve_otlp

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["StandardExporters"]

_HTTP: Final = OTLP_EXPORTERS["http/protobuf"]


class StandardExporters(NamedTuple):
    """The exporters of one signal.

    :ivar signal: ``METRICS`` or ``LOGS``
    """

    signal: str

    def names(self) -> list[str]:
        """Return the names of those that the variables ask for."""
        names = named_exporters(f"OTEL_{self.signal}_EXPORTER")
        return resolve_otlp(names, otlp_variable(self.signal, "PROTOCOL") or "grpc")

    def load(self, name: str) -> Callable[..., Any]:
        """Load what a package offers under this name.

        :raises LookupError: no installed package offers it
        """
        return load(f"opentelemetry_{self.signal.lower()}_exporter", name)

    def make(self, name: str, offered: Callable[..., Any]) -> Any:
        """Make an exporter of what was loaded."""
        # With a plug-in for credentials, the SDK's exporter gets its session from that.
        if name != _HTTP or any(map(os.environ.get, self._credential_plugins)):
            return offered()
        return offered(session=_session())

    @property
    def _credential_plugins(self) -> tuple[str, ...]:
        start, end = "OTEL_PYTHON_EXPORTER_OTLP_HTTP", "CREDENTIAL_PROVIDER"
        return f"{start}_{self.signal}_{end}", f"{start}_{end}"

    def target(self, name: str) -> str:
        """Return where an exporter sends, without secrets."""
        otlp = name in OTLP_EXPORTERS.values()
        endpoint = otlp_variable(self.signal, "ENDPOINT") if otlp else ""
        return address_of(endpoint) if endpoint else name


def _session() -> Any:
    import requests

    from tapps_otel.otel.process.http_credentials import OnlyExplicit

    session = requests.Session()
    session.auth = OnlyExplicit()
    return session
