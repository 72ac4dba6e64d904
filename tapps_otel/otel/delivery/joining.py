"""Settings of the delivery where the program, or a library, has set a provider of its own.

The provider stays as it is. If a setting names an endpoint, our delivery is added to its
processors. What cannot be used of the settings is named in a warning.
"""

from __future__ import annotations

import logging
from inspect import signature
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.otel import sdk_internals
from tapps_otel.otel.delivery.processor import JoinedDelivery
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
from tapps_otel.otel.transport.destination import protocol_of

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer, TracerProvider

    from tapps_otel.settings import Settings

__all__ = ["join"]

_log = logging.getLogger(__name__)
_joined: Final[list[tuple[object, str]]] = []  # providers, and where their spans go by a setting
_told: Final[set[str]] = set()
_lock = ForkLock(lambda: None)


def join(provider: TracerProvider, tracer: Tracer, settings: Settings) -> None:
    """Send a provider's spans where the settings say; warn of settings that cannot be used.

    :param tracer: of the provider
    """
    address = address_of(settings.otlp_endpoint or "")
    if is_built_here(provider):
        targets = {one.exporter.target for one in deliveries()}
        if address and address not in targets:
            _warn_elsewhere(address, f"they go to {', '.join(sorted(targets))}")
        return
    if address:
        _add_delivery(provider, tracer, settings, address)
    unused = ", ".join(_unused(provider, settings))
    if unused and _is_new(unused):
        _log.warning(
            "settings not used: %s. The program's own tracer provider was there first, with "
            "exporters and a resource of its own; configure that one.",
            unused,
        )


def _add_delivery(
    provider: TracerProvider, tracer: Tracer, settings: Settings, address: str
) -> None:
    takes_processors = hasattr(provider, "add_span_processor")
    with _lock:
        before = [where for known, where in _joined if known is provider]
        if takes_processors and not before:
            _joined.append((provider, address))
    if address in before:
        return
    if before or not takes_processors:
        why = f"they go to {before[0]}" if before else "the tracer provider takes no processors"
        _warn_elsewhere(address, why)
        return
    endpoints = sdk_internals.endpoints_of(provider, tracer)
    if address in map(address_of, endpoints):
        return  # the program sends them there itself
    (name,) = resolve_otlp(["otlp"], protocol_of(settings))
    delivery = JoinedDelivery(make_exporter(name, settings))
    _add(provider, delivery)
    add_outlet(delivery)
    closing = SimpleNamespace(shutdown=delivery.close)
    ExitFlush(closing, [delivery], settings.shutdown_timeout).register()


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


def _warn_elsewhere(address: str, why: str) -> None:
    if _is_new(address):
        _log.warning(
            "otlp_endpoint: spans of this process are not sent to %s, because %s. The log has "
            "them: `tapps-otel send` sends them.",
            address,
            why,
        )


def _is_new(warning: str) -> bool:
    """Whether this was not warned of before."""
    is_new = warning not in _told
    _told.add(warning)
    return is_new
