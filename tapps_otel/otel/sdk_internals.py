"""The only module that uses names which the OpenTelemetry SDK keeps private.

The SDK has no public function for what is done here, nor has OpenInference, which wraps it.
``tests/unit/otel/test_sdk_internals.py`` holds each function against the installed SDK, and finds
private names in any other module; ``test_libraries.py`` has the libraries. Where an SDK lacks such
a name, a function does nothing, or returns what its docstring says.

The SDK itself is not imported at the top: live spans need the API alone.
"""

from __future__ import annotations

import atexit
import threading
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import StatusCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = [
    "ENCODER_LOGGER",
    "change_process_id",
    "endpoints_of",
    "is_proxy_logger_provider",
    "is_proxy_meter_provider",
    "is_unchanged",
    "logs_api",
    "logs_sdk",
    "on_end_of",
    "preferences_of",
    "reset_metrics",
    "sdk_tracer",
    "set_late_attributes",
    "span_limits_of",
    "unregister_exit_handler",
]

ENCODER_LOGGER: Final = "opentelemetry.exporter.otlp.proto.common._internal"
"""Name of the logger of the SDK's OTLP encoder."""
_MOST_WRAPPERS: Final = 8  # around a tracer; an object that makes up its attributes has no end
_MOST_PARTS: Final = 100  # processors and exporters of a provider that are looked at


# ---------------------------------------------------------------- spans


def is_unchanged(span: Any, attributes: dict[str, Any], events: int, links: int, name: str) -> bool:
    """Whether a span holds this and nothing else, and has not ended.

    Read where the SDK keeps it: the public properties copy all that they show, and every step pays
    for this. ``False`` where the SDK keeps it elsewhere: then the public properties are read.
    """
    try:
        held = span._attributes._dict  # noqa: SLF001
        return (
            held == attributes
            and list(held) == list(attributes)
            and len(span._events) == events  # noqa: SLF001
            and not span._events.dropped  # noqa: SLF001 - else their number may be equal by chance
            and len(span._links) == links  # noqa: SLF001
            and not span._links.dropped  # noqa: SLF001
            and span._name == name  # noqa: SLF001
            and span._status.status_code is StatusCode.UNSET  # noqa: SLF001
            and span._end_time is None  # noqa: SLF001
        )
    except AttributeError:
        return False


def set_late_attributes(span: Any) -> None:
    """Set now what a library's wrapper of a span would set only while the span ends.

    OpenInference keeps back the kind of its spans, so that no limit drops it.
    """
    late = getattr(span, "_self_important_attributes", None)
    if late:
        span.__wrapped__.set_attributes(dict(late))
        late.clear()


def sdk_tracer(tracer: object) -> Any:
    """Return the SDK's tracer that this one is, or wraps; ``None`` if none is found.

    Libraries wrap it in a proxy of ``wrapt`` (OpenInference, Phoenix) or in an object of their own
    that keeps it as ``tracer`` (Logfire).
    """
    for _ in range(_MOST_WRAPPERS):
        if _is_sdk_tracer(tracer):
            return tracer
        inside = getattr(tracer, "__wrapped__", None)
        tracer = getattr(tracer, "tracer", None) if inside is None else inside
    return None


def _is_sdk_tracer(tracer: object) -> bool:
    """Whether the object itself is one: a proxy claims to be what it wraps."""
    names = {"id_generator", "span_processor"}
    return names <= getattr(tracer, "__dict__", {}).keys() and not hasattr(tracer, "__wrapped__")


def span_limits_of(tracer: object) -> Any:
    """Return the limits of a tracer's spans; ``None`` where they are not to be had."""
    return getattr(sdk_tracer(tracer), "_span_limits", None)


def on_end_of(provider: object, tracer: object) -> Callable[[ReadableSpan], None] | None:
    """Return what gives a finished span to the processors of a provider, or of its tracer.

    ``None`` where neither is, or wraps, one of the SDK.
    """
    processor = _processor_of(provider, tracer)
    on_end: Callable[[ReadableSpan], None] | None = getattr(processor, "on_end", None)
    return on_end


def _processor_of(provider: object, tracer: object) -> Any:
    processor = getattr(provider, "_active_span_processor", None)
    if processor is None:  # a wrapper of another library
        processor = getattr(sdk_tracer(tracer), "span_processor", None)
    return processor


def endpoints_of(provider: object, tracer: object) -> set[str]:
    """Return the endpoints of the OTLP exporters that get a provider's spans.

    Those of exporters that other libraries wrap in objects without attributes are not found.
    """
    found: set[str] = set()
    seen: dict[int, object] = {}
    waiting = [_processor_of(provider, tracer)]
    while waiting and len(seen) < _MOST_PARTS:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        held = getattr(one, "__dict__", {})
        if isinstance(endpoint := held.get("_endpoint"), str):
            found.add(endpoint)
        for value in held.values():
            parts = value if isinstance(value, list | tuple) else [value]
            waiting += [part for part in parts if _is_delivery_part(part)]
    return found


def _is_delivery_part(one: object) -> bool:
    """Whether this may be a processor or an exporter, or hold one."""
    return any(hasattr(one, name) for name in ("on_end", "export", "_exporter"))


# ---------------------------------------------------------------- providers


def unregister_exit_handler(provider: object) -> bool:
    """Keep a provider from shutting down by itself at exit; whether it would have."""
    handler = getattr(provider, "_atexit_handler", None)
    if handler is None:
        return False
    atexit.unregister(handler)
    return True


def change_process_id(provider: Any, pid: int) -> None:
    """Set the process id in a provider's resource, if it has one there."""
    update = getattr(provider, "_update_resource", None)
    home = getattr(provider, "_sdk_config", provider)  # a meter provider keeps its resource there
    resource = getattr(home, "resource", None)
    if update is not None and resource is not None and "process.pid" in resource.attributes:
        from opentelemetry.sdk.resources import Resource

        update(Resource({"process.pid": pid}))


# ---------------------------------------------------------------- metrics


def is_proxy_meter_provider(provider: object) -> bool:
    """Whether this is the API's placeholder, which stands in until a provider is set."""
    return type(provider).__name__ == "_ProxyMeterProvider"


def preferences_of(exporter: MetricExporter) -> dict[str, Any]:
    """Return temporality and aggregation of an exporter, as keywords.

    :raises AttributeError: the SDK keeps them elsewhere
    """
    return {
        "preferred_temporality": exporter._preferred_temporality,  # noqa: SLF001
        "preferred_aggregation": exporter._preferred_aggregation,  # noqa: SLF001
    }


def reset_metrics(provider: Any) -> None:
    """Drop a meter provider's numbers and held locks, in a forked child.

    The child would report its parent's numbers as its own.

    :raises AttributeError: the SDK keeps them elsewhere
    """
    consumer = provider._measurement_consumer  # noqa: SLF001
    consumer._lock = threading.Lock()  # noqa: SLF001
    for reader, storage in consumer._reader_storages.items():  # noqa: SLF001
        storage._lock = threading.RLock()  # noqa: SLF001
        storage._instrument_view_instrument_matches = {}  # noqa: SLF001
        if hasattr(reader, "_export_lock"):
            reader._export_lock = threading.Lock()  # noqa: SLF001


# ---------------------------------------------------------------- logs


def logs_api() -> Any:
    """Return the module of the logs API, whose name is private until events are stable."""
    from opentelemetry import _logs

    return _logs


def logs_sdk() -> tuple[Any, Any]:
    """Return the modules of the logs SDK and of its exporters, whose names are private, too."""
    from opentelemetry.sdk import _logs
    from opentelemetry.sdk._logs import export

    return _logs, export


def is_proxy_logger_provider(provider: object) -> bool:
    """Whether this is the API's placeholder, which stands in until a provider is set."""
    return type(provider).__name__ == "ProxyLoggerProvider"
