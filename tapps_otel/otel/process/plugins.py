"""What providers of spans and of metrics that are built here have in common."""

from __future__ import annotations

import os
import socket
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.resources import Resource

from tapps_otel.otel.resource import program

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.util.types import AttributeValue

__all__ = ["PROTOCOLS", "load", "resource_of_process"]

# Which exporter speaks what ``OTEL_EXPORTER_OTLP_PROTOCOL`` asks for.
PROTOCOLS: Final = {
    "grpc": "otlp_proto_grpc",
    "http/protobuf": "otlp_proto_http",
    "http/json": "otlp_json_http",  # if that exporter is installed
}


def load(group: str, name: str) -> Callable[..., Any]:
    """What an installed package offers to OpenTelemetry under this name.

    :raises LookupError: none offers it
    """
    for point in entry_points(group=group, name=name):
        loaded: Callable[..., Any] = point.load()
        return loaded
    raise LookupError(f"no installed package offers {name!r} as {group}")


def resource_of_process(service_name: str | None) -> Resource:
    """The SDK's resource by the environment; where that is silent, host, process and program."""
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
