"""What variables and installed packages offer to providers built here."""

from __future__ import annotations

import os
import socket
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.resources import Resource

from tapps_otel.otel.resource import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.util.types import AttributeValue

__all__ = ["OTLP_EXPORTERS", "load", "named_exporters", "process_resource", "resolve_otlp"]

OTLP_EXPORTERS: Final = {
    "grpc": "otlp_proto_grpc",
    "http/protobuf": "otlp_proto_http",
    "http/json": "otlp_json_http",  # if that exporter is installed
}
"""Names of the OTLP exporters, by what ``OTEL_EXPORTER_OTLP_PROTOCOL`` may hold."""


def named_exporters(variable: str) -> list[str]:
    """Return the exporters that a variable names; ``otlp`` if it is not set."""
    names = os.environ.get(variable, "").strip() or "otlp"
    return [name for name in map(str.strip, names.split(",")) if name not in {"", "none"}]


def resolve_otlp(names: Iterable[str], protocol: str) -> list[str]:
    """Replace ``otlp`` by the exporter of this protocol; each name once."""
    otlp = OTLP_EXPORTERS.get(protocol, protocol)
    return list(dict.fromkeys(otlp if name == "otlp" else name for name in names))


def load(group: str, name: str) -> Callable[..., Any]:
    """Load what an installed package offers to OpenTelemetry under this name.

    :raises LookupError: no package offers it
    """
    for point in entry_points(group=group, name=name):
        loaded: Callable[..., Any] = point.load()
        return loaded
    raise LookupError(f"no installed package offers {name!r} as {group}{_hint(name)}")


def _hint(name: str) -> str:
    """Tell the protocols, where the name is that of one that there is not."""
    asked = {
        value.strip()
        for variable, value in os.environ.items()
        if variable.startswith("OTEL_EXPORTER_OTLP_") and variable.endswith("PROTOCOL")
    }
    valid = "; OTEL_EXPORTER_OTLP_PROTOCOL can be grpc or http/protobuf"
    return valid if name in asked else ""


def process_resource(service_name: str | None) -> Resource:
    """Return the SDK's resource, completed by host, process and program."""
    resource = Resource.create()
    known = resource.attributes
    # Jaeger warns of clock skew at every span of a resource without a host.
    own: dict[str, AttributeValue] = {"host.name": socket.gethostname(), "process.pid": os.getpid()}
    own = {name: value for name, value in own.items() if name not in known}
    if service_name:
        own["service.name"] = service_name
    elif str(known.get("service.name", "")).startswith("unknown_service"):
        own["service.name"] = program()
    return resource.merge(Resource(own))
