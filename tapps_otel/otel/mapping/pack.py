"""Events, links and spans of OpenTelemetry as JSON of the ``otel`` field.

Pure.
Defaults are left out; ``unpack.py`` reads all of it back. Only the API of OpenTelemetry is imported
here: live spans are packed also where another SDK than Python's own made them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET
from opentelemetry.trace import SpanKind, StatusCode

from tapps_otel.log.blobs import INLINE_LIMIT
from tapps_otel.log.event import EVENT_TYPES, raw_json
from tapps_otel.names import ATTR
from tapps_otel.otel.mapping.content import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Link

    from tapps_otel.log.event import Event

__all__ = ["keep", "pack_attributes", "pack_event", "pack_link", "pack_resource", "pack_span"]


_DROPPED: Final = tuple((what, f"dropped_{what}") for what in ("attributes", "events", "links"))


def pack_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Pack attributes in their order."""
    return {str(name): pack(value) for name, value in (attributes or {}).items()}


def pack_link(link: Link) -> dict[str, Any]:
    """Pack a link."""
    context = link.context
    packed: dict[str, Any] = {
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "flags": int(context.trace_flags),
    }
    if context.is_remote:
        packed["is_remote"] = True
    if context.trace_state:
        packed["trace_state"] = context.trace_state.to_header()
    if link.attributes:
        packed["attributes"] = pack_attributes(link.attributes)
    if dropped := getattr(link, "dropped_attributes", 0):
        packed["dropped_attributes"] = dropped
    return packed


def pack_event(event: Any) -> Any:
    """Return the ``seq`` of an event of the log; pack another one whole."""
    attributes = event.attributes or {}
    seq = attributes.get(ATTR.SEQ)
    if event.name in EVENT_TYPES and isinstance(seq, int):
        return seq
    return _pack_whole_event(event)


def _pack_whole_event(event: Any) -> list[Any]:
    packed = [event.name, event.timestamp, pack_attributes(event.attributes)]
    return [*packed, event.dropped_attributes] if event.dropped_attributes else packed


def pack_resource(resource: Any) -> dict[str, Any]:
    """Pack the attributes of a resource."""
    return pack_attributes(resource.attributes)


def _pack_scope(scope: Any) -> dict[str, Any]:
    packed = {"name": scope.name}
    if scope.version:
        packed["version"] = scope.version
    if scope.schema_url:
        packed["schema_url"] = scope.schema_url
    if attributes := getattr(scope, "attributes", None):
        packed["attributes"] = pack_attributes(attributes)
    return packed


def keep(note: dict[str, Any], event: Event, put: Callable[[bytes], str] | None) -> None:
    """Put a note into its event; a large one, as of a whole prompt, in a blob.

    :raises OSError: of ``put``; the event notes by then that something is missing
    """
    data = bytes(raw_json(note))
    if len(data) <= INLINE_LIMIT:
        event.otel = note
        return
    event.otel = {"omitted": f"{len(data)} bytes"}  # also if the blob cannot be written
    if put is not None:
        event.otel_blob = put(data)
        event.otel = UNSET


def pack_span(span: ReadableSpan) -> dict[str, Any]:
    """Pack a span without its name, ids, times and resource, which its event has."""
    context, parent, status = span.context, span.parent, span.status
    packed: dict[str, Any] = {"flags": int(context.trace_flags)}
    if span.kind is not SpanKind.INTERNAL:
        packed["kind"] = span.kind.value
    if span.instrumentation_scope is not None:
        packed["scope"] = _pack_scope(span.instrumentation_scope)
    if context.trace_state:
        packed["trace_state"] = context.trace_state.to_header()
    if parent is not None and parent.is_remote:
        packed["parent_is_remote"] = True
    # The SDK copies them at each look.
    attributes, events, links = span.attributes, span.events, span.links
    if attributes:
        packed["attributes"] = pack_attributes(attributes)
    if events:
        packed["events"] = [_pack_whole_event(one) for one in events]
    if links:
        packed["links"] = [pack_link(link) for link in links]
    if status.status_code is not StatusCode.UNSET or status.description:
        packed["status"] = [status.status_code.value, status.description]
    for what, name in _DROPPED:
        if dropped := getattr(span, name, 0):
            packed.setdefault("dropped", {})[what] = dropped
    if schema := span.resource.schema_url:
        packed["resource_schema"] = schema
    return packed
