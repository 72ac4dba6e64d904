"""The tracer provider of a process that has none.

It is built only where a setting or a standard variable names an endpoint or an exporter. The
variables mean what they mean to the SDK's own configurator, which is private to
``opentelemetry-instrument``; settings win over them.
"""

from __future__ import annotations

import os
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from tapps_otel.otel import sdk_internals
from tapps_otel.otel.delivery.id_generator import UnseededIds
from tapps_otel.otel.delivery.otlp_exporter import OtlpExporter
from tapps_otel.otel.delivery.processor import Delivery, ManagedSpanExporter
from tapps_otel.otel.environment import traces_wanted
from tapps_otel.otel.process.plugins import load, named_exporters, process_resource, resolve_otlp
from tapps_otel.otel.process.setup import ProviderSetup, make_each
from tapps_otel.otel.process.shutdown import ExitFlush, ThirdPartyOutlet
from tapps_otel.otel.seam import warn_once
from tapps_otel.otel.transport.client import connect
from tapps_otel.otel.transport.destination import destination, protocol_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import Sampler

    from tapps_otel.settings_model import Settings

__all__ = [
    "add_outlet",
    "deliveries",
    "ensure_provider",
    "is_built_here",
    "make_exporter",
    "make_local_provider",
]

# Exporters replaced by ours, which checks answers and keeps ledgers; and the protocol they use.
_REPLACED: Final = {"otlp_proto_grpc": "grpc", "otlp_proto_http": "http/protobuf"}
_STANDARD_SAMPLERS: Final = frozenset({
    "always_on", "always_off", "traceidratio",
    "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
})  # fmt: skip
# With these, credentials come from a plug-in that only the SDK's exporters know how to use.
_CREDENTIAL_PLUGINS: Final = (
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
)


class _TracerSetup(ProviderSetup[trace.TracerProvider, Delivery]):
    def _existing(self) -> trace.TracerProvider | None:
        provider = trace.get_tracer_provider()
        return None if isinstance(provider, trace.ProxyTracerProvider) else provider

    def _wanted(self, settings: Settings) -> bool:
        return traces_wanted(settings)

    def _set(self, provider: trace.TracerProvider) -> None:
        trace.set_tracer_provider(provider)

    def _build(self, settings: Settings) -> trace.TracerProvider | None:
        if file := os.environ.get("OTEL_CONFIG_FILE", "").strip():
            return self._configure_by(file, settings.shutdown_timeout)
        made = make_each(
            _exporter_names(settings),
            lambda name: Delivery(make_exporter(name, settings)),
            "exporter",
        )
        if not made:
            return None
        provider = TracerProvider(
            resource=process_resource(settings.service_name),
            sampler=_sampler(),
            id_generator=_id_generator(),
            shutdown_on_exit=False,  # it would wait too long
        )
        for delivery in made:
            provider.add_span_processor(delivery)
        return self._install(provider, made, settings)

    def _configure_by(self, file: str, timeout: float) -> trace.TracerProvider | None:
        """Leave all to the SDK's declarative configuration, as the standard requires.

        All but the end: the SDK would wait for its exporters without a limit.
        """
        try:
            from opentelemetry.configuration import configure_sdk, load_config_file

            configure_sdk(load_config_file(file))
        except Exception as error:  # noqa: BLE001 - a bad file, or a package that is not there
            warn_once(f"OTEL_CONFIG_FILE={file}", error)
            return None
        provider = self._existing()
        if provider is not None:
            if type(getattr(provider, "id_generator", None)) is RandomIdGenerator:
                provider.id_generator = UnseededIds()  # type: ignore[attr-defined]
            unsent = f"not all sent in {timeout:g} s"
            _limit_exit(
                provider,
                timeout,
                f"spans were {unsent}; the log has them: `tapps-otel send --all` sends them later.",
            )
            _limit_exit(metrics.get_meter_provider(), timeout, f"metrics were {unsent}.")
        return provider


_setup = _TracerSetup()


def ensure_provider(settings: Settings) -> trace.TracerProvider | None:
    """Return the process's tracer provider; build one if that is asked for.

    ``None`` if nothing asks for one, or if it cannot be built: then a warning is logged once.
    """
    return _setup.ensure(settings)


def make_local_provider(settings: Settings) -> trace.TracerProvider:
    """Set up a provider that sends nothing, for what is captured in logs; return the process's."""
    provider = TracerProvider(
        resource=process_resource(settings.service_name),
        sampler=_sampler(),
        id_generator=_id_generator(),
        shutdown_on_exit=False,  # nothing waits to be sent
    )
    trace.set_tracer_provider(provider)
    return trace.get_tracer_provider()


def is_built_here(provider: object) -> bool:
    """Whether the provider was built here, by the settings."""
    return provider is _setup.built


def add_outlet(delivery: Delivery) -> None:
    """Add a delivery that sends what the program's own provider makes."""
    _setup.outlets.append(delivery)


def deliveries() -> list[Delivery]:
    """Return what was made here to send the process's spans."""
    return _setup.outlets


def _limit_exit(provider: Any, timeout: float, warning: str) -> None:
    """Let the exit wait no longer than this for a provider."""
    if sdk_internals.unregister_exit_handler(provider):
        ExitFlush(provider, [ThirdPartyOutlet(warning)], timeout).register()


# ---------------------------------------------------------------- what the environment asks for


def _exporter_names(settings: Settings) -> list[str]:
    names = named_exporters("OTEL_TRACES_EXPORTER")
    if settings.otlp_endpoint and not {"otlp", *_REPLACED} & set(names):
        names.append("otlp")  # a setting that names an endpoint asks for spans there
    return resolve_otlp(names, protocol_of(settings))


def make_exporter(name: str, settings: Settings) -> ManagedSpanExporter:
    """Make the exporter of this name: for OTLP ours, which checks answers and keeps ledgers."""
    protocol = _REPLACED.get(name)
    if protocol is not None and not any(os.environ.get(plugin) for plugin in _CREDENTIAL_PLUGINS):
        found = destination(settings, protocol=protocol, local=True)
        if found is not None:
            return ManagedSpanExporter(found.address, lambda: OtlpExporter(connect(found)))
    return ManagedSpanExporter(name, partial(_load_exporter, name))


def _load_exporter(name: str) -> Any:
    return load("opentelemetry_traces_exporter", name)()


def _sampler() -> Sampler | None:
    """Make a sampler that a package offers; ``None``: the SDK makes its own by itself."""
    name = os.environ.get("OTEL_TRACES_SAMPLER", "").strip()
    if name.lower() in _STANDARD_SAMPLERS:  # it offers these as a package does, with another call
        return None
    if not any(entry_points(group="opentelemetry_traces_sampler", name=name)):
        return None
    try:
        make = load("opentelemetry_traces_sampler", name)
        sampler: Sampler = make(os.environ.get("OTEL_TRACES_SAMPLER_ARG"))
    except Exception as error:  # noqa: BLE001 - another package's code
        warn_once(f"sampler {name}", error)
        return None
    return sampler


def _id_generator() -> IdGenerator:
    """Make the generator that a variable names, by default our own."""
    name = os.environ.get("OTEL_PYTHON_ID_GENERATOR", "").strip()
    if not name:
        return UnseededIds()
    try:
        generator: IdGenerator = load("opentelemetry_id_generator", name)()
    except Exception as error:  # noqa: BLE001 - another package's code
        warn_once(f"id generator {name}", error)
        return UnseededIds()
    return generator
