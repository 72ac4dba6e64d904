"""Settings of the delivery where the program, or a library, has set a provider of its own.

The provider stays as it is. If a setting names an endpoint, our delivery is added to its
processors. What cannot be used of the settings is named in a warning.
"""

from __future__ import annotations

import logging
from inspect import signature
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.masking import public_url
from tapps_otel.otel import sdk_internals
from tapps_otel.otel.delivery.otlp_exporter import OtlpExporter
from tapps_otel.otel.delivery.processor import Delivery, JoinedDelivery
from tapps_otel.otel.delivery.provider import (
    add_outlet,
    deliveries,
    is_built_here,
    make_exporter,
)
from tapps_otel.otel.environment import address_of, delivery_settings
from tapps_otel.otel.process.fork_lock import ForkLock
from tapps_otel.otel.process.plugins import resolve_otlp
from tapps_otel.otel.process.shutdown import ExitFlush
from tapps_otel.otel.transport.destination import endpoint_by, protocol_of

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer, TracerProvider

    from tapps_otel.settings_model import Settings

__all__ = ["join"]

_log = logging.getLogger(__name__)
_joined: Final[list[tuple[object, str]]] = []  # providers, and where their spans go by a setting
_told: Final[set[str]] = set()
_lock = ForkLock(lambda: None)


def join(provider: TracerProvider, tracer: Tracer, settings: Settings) -> None:
    """Send a provider's spans where the settings say; warn of settings that cannot be used.

    :param tracer: of the provider
    """
    endpoint = endpoint_by(settings)
    if is_built_here(provider):
        endpoints = set(map(_endpoint_of, deliveries()))
        if endpoint and endpoint not in endpoints:
            _warn_elsewhere(endpoint, f"they go to {', '.join(sorted(map(public_url, endpoints)))}")
        return
    if endpoint:
        _add_delivery(provider, tracer, settings, endpoint)
    unused = ", ".join(_unused(provider, settings))
    if unused and _is_new(unused):
        _log.warning(
            "settings not used: %s. The program's own tracer provider was there first, with "
            "exporters and a resource of its own; configure that one.",
            unused,
        )


def _endpoint_of(delivery: Delivery) -> str:
    live = delivery.exporter.wrapped
    if isinstance(live, OtlpExporter):
        return live.client.destination.endpoint
    return delivery.exporter.target


def _add_delivery(
    provider: TracerProvider, tracer: Tracer, settings: Settings, endpoint: str
) -> None:
    takes_processors = hasattr(provider, "add_span_processor")
    with _lock:
        before = [where for known, where in _joined if known is provider]
        if takes_processors and not before:
            _joined.append((provider, endpoint))
    if endpoint in before:
        return
    if before or not takes_processors:
        why = "the tracer provider takes no processors"
        _warn_elsewhere(endpoint, f"they go to {public_url(before[0])}" if before else why)
        return
    if any(_is_same(endpoint, one) for one in sdk_internals.endpoints_of(provider, tracer)):
        return  # the program sends them there itself
    (name,) = resolve_otlp(["otlp"], protocol_of(settings))
    delivery = JoinedDelivery(make_exporter(name, settings))
    _add(provider, delivery)
    add_outlet(delivery)
    closing = SimpleNamespace(shutdown=delivery.close)
    ExitFlush(closing, [delivery], settings.shutdown_timeout).register()


def _is_same(endpoint: str, theirs: str) -> bool:
    """Whether an exporter's endpoint is ours: the whole address, or by gRPC host and port."""
    is_whole = "://" in endpoint
    return endpoint.rstrip("/") == (theirs.rstrip("/") if is_whole else address_of(theirs))


def _add(provider: Any, delivery: JoinedDelivery) -> None:
    add = provider.add_span_processor
    # Phoenix replaces its own exporter otherwise.
    kept = {"replace_default_processor": False}
    add(delivery, **(kept if kept.keys() <= signature(add).parameters.keys() else {}))


def _unused(provider: Any, settings: Settings) -> list[str]:
    """Return the names of the settings that this provider does not respect."""
    resource = getattr(provider, "resource", None)
    service = getattr(resource, "attributes", {}).get("service.name")
    used = {"otlp_endpoint"}
    if settings.otlp_endpoint:
        used |= {"otlp_headers", "otlp_protocol"}
    if settings.service_name == service:
        used.add("service_name")
    return [name for name in delivery_settings(settings) if name not in used]


def _warn_elsewhere(endpoint: str, why: str) -> None:
    if _is_new(endpoint):
        _log.warning(
            "otlp_endpoint: spans of this process are not sent to %s, because %s. The log has "
            "them: `tapps-otel send` sends them.",
            public_url(endpoint),
            why,
        )


def _is_new(warning: str) -> bool:
    """Whether this was not warned of before."""
    is_new = warning not in _told
    _told.add(warning)
    return is_new
