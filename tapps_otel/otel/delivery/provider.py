"""Setting OpenTelemetry up where nobody has.

A provider is built only where there is none and a setting or a standard variable names an endpoint
or an exporter; one that exists is never replaced. The variables mean what they mean to the SDK's
own configurator, which is private to `opentelemetry-instrument`; settings win over them.
"""

from __future__ import annotations

import os
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import TracerProvider

from tapps_otel.otel import sdk_internals
from tapps_otel.otel.delivery.otlp_exporter import OtlpExporter
from tapps_otel.otel.delivery.processor import Delivery, Exporter
from tapps_otel.otel.environment import traces_wanted
from tapps_otel.otel.process.fork_lock import ProcessLock
from tapps_otel.otel.process.plugins import PROTOCOLS, load, resource_of_process
from tapps_otel.otel.process.shutdown import Exit, Uncounted
from tapps_otel.otel.seam import warn_once
from tapps_otel.otel.transport.client import connect
from tapps_otel.otel.transport.destination import destination, protocol_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import Sampler

    from tapps_otel.settings import Settings

__all__ = ["deliveries", "ensure_provider"]

# Exporters in whose place answers are checked and ledgers kept, and the protocol they speak.
_CHECKED: Final = {"otlp_proto_grpc": "grpc", "otlp_proto_http": "http/protobuf"}
# Where credentials come from a plug-in of the SDK's exporters, those know how to ask it.
_PLUGGED: Final = (
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
)
_tried = False
_made: Exit[Delivery] | None = None


def _begin_anew() -> None:
    global _tried  # noqa: PLW0603 - a process is set up once
    _tried = False


_lock = ProcessLock(_begin_anew)


def ensure_provider(settings: Settings) -> trace.TracerProvider | None:
    """The process's tracer provider, built here if there is none and somebody asks for it.

    ``None`` if nobody does, or for what cannot be had; that is said once.
    """
    global _tried  # noqa: PLW0603 - a process is set up once
    with _lock:
        provider = trace.get_tracer_provider()
        if not isinstance(provider, trace.ProxyTracerProvider):
            return provider
        if _tried or not traces_wanted(settings):
            return None
        _tried = True
        if file := os.environ.get("OTEL_CONFIG_FILE", "").strip():
            return _configure_by(file, settings.shutdown_timeout)
        made = _deliveries(settings)
        return _install(made, settings) if made else None


def deliveries() -> list[Delivery]:
    """What the provider delivers to, if it was built here."""
    return [] if _made is None else _made.deliveries


def _install(made: list[Delivery], settings: Settings) -> trace.TracerProvider:
    global _made  # noqa: PLW0603 - a process is set up once
    provider = TracerProvider(
        resource=resource_of_process(settings.service_name),
        sampler=_sampler(),
        id_generator=_id_generator(),
        shutdown_on_exit=False,  # it would wait too long
    )
    for delivery in made:
        provider.add_span_processor(delivery)
    trace.set_tracer_provider(provider)
    if trace.get_tracer_provider() is not provider:  # the program was faster
        provider.shutdown()
        return trace.get_tracer_provider()
    _made = Exit(provider, made, settings.shutdown_timeout)
    _made.register()
    return provider


def _configure_by(file: str, timeout: float) -> trace.TracerProvider | None:
    """Leave all of it to the SDK's declarative configuration, as the standard asks.

    But for the end: the SDK would wait for its exporters as long as they please.
    """
    try:
        from opentelemetry.configuration import configure_sdk, load_config_file

        configure_sdk(load_config_file(file))
    except Exception as error:  # noqa: BLE001 - a bad file, or a package that is not there
        warn_once(f"OTEL_CONFIG_FILE={file}", error)
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        return None
    _bound(
        provider,
        timeout,
        f"spans were not all sent in {timeout:g} s; the log has them: "
        "`tapps-otel send --all` sends them later.",
    )
    _bound(metrics.get_meter_provider(), timeout, f"metrics were not all sent in {timeout:g} s.")
    return provider


def _bound(provider: Any, timeout: float, words: str) -> None:
    """Let the process wait no longer than this for a provider that would end with it."""
    if sdk_internals.unregister_exit_handler(provider):
        Exit(provider, [Uncounted(words)], timeout).register()


# ---------------------------------------------------------------- what the environment asks for


def _deliveries(settings: Settings) -> list[Delivery]:
    """A batch processor for each exporter that is asked for and can be made."""
    made = []
    for name in dict.fromkeys(_exporter_names(settings)):
        try:
            made.append(Delivery(_exporter(name, settings)))
        except Exception as error:  # noqa: BLE001 - a bad variable or a missing package
            warn_once(f"exporter {name}", error)
    return made


def _exporter(name: str, settings: Settings) -> Exporter:
    protocol = _CHECKED.get(name)
    if protocol is not None and not any(os.environ.get(plugged) for plugged in _PLUGGED):
        found = destination(settings, protocol=protocol, local=True)
        if found is not None:
            return Exporter(found.address, lambda: OtlpExporter(connect(found)))
    return Exporter(name, partial(_make, name))


def _make(name: str) -> Any:
    return load("opentelemetry_traces_exporter", name)()


def _exporter_names(settings: Settings) -> list[str]:
    asked = os.environ.get("OTEL_TRACES_EXPORTER", "").strip()
    names = [name.strip() for name in (asked or "otlp").split(",")]
    if settings.otlp_endpoint and not {"otlp", *_CHECKED} & set(names):
        names.append("otlp")  # whoever gave an endpoint wants spans there
    asked_protocol = protocol_of(settings)
    otlp = PROTOCOLS.get(asked_protocol, asked_protocol)
    return [otlp if name == "otlp" else name for name in names if name not in {"", "none"}]


def _sampler() -> Sampler | None:
    """A sampler that a package offers; ``None`` leaves the SDK's own names to the SDK."""
    name = os.environ.get("OTEL_TRACES_SAMPLER", "").strip()
    if not any(entry_points(group="opentelemetry_traces_sampler", name=name)):
        return None
    try:
        make = load("opentelemetry_traces_sampler", name)
        sampler: Sampler = make(os.environ.get("OTEL_TRACES_SAMPLER_ARG"))
    except Exception as error:  # noqa: BLE001 - another package's code
        warn_once(f"sampler {name}", error)
        return None
    return sampler


def _id_generator() -> IdGenerator | None:
    name = os.environ.get("OTEL_PYTHON_ID_GENERATOR", "").strip()
    if not name:
        return None
    try:
        generator: IdGenerator = load("opentelemetry_id_generator", name)()
    except Exception as error:  # noqa: BLE001 - another package's code
        warn_once(f"id generator {name}", error)
        return None
    return generator
