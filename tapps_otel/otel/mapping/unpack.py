"""Objects of the SDK from what ``pack.py`` packed. Pure.

Malformed JSON (ids that are not hex, a list in place of a mapping) raises :class:`ValueError`,
:class:`TypeError`, :class:`KeyError` or :class:`AttributeError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from tapps_otel.otel.mapping.content import unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "NO_STATE",
    "UNSET_STATUS",
    "bounded",
    "context_of",
    "counted",
    "kept",
    "trace_state",
    "unpack_attributes",
    "unpack_event",
    "unpack_link",
    "unpack_resource",
    "unpack_scope",
    "unpack_span",
]

NO_STATE: Final = TraceState()
UNSET_STATUS: Final = Status(StatusCode.UNSET)


def unpack_attributes(packed: Mapping[str, Any], dropped: int = 0) -> Any:
    """Unpack attributes; with a count of dropped ones, as the SDK holds them."""
    attributes = {name: unpack(value) for name, value in packed.items()}
    return counted(attributes, dropped) if dropped else attributes


def bounded(attributes: dict[str, Any], most: int | None, longest: int | None) -> Any:
    """Return attributes as the SDK holds them under these limits.

    A plain dictionary if no limit is exceeded: the SDK's own costs ten times as much.
    """
    if longest is None and (most is None or len(attributes) <= most):
        return attributes
    return BoundedAttributes(most, attributes, immutable=False, max_value_len=longest)


def counted(attributes: dict[str, Any], dropped: int) -> BoundedAttributes:
    """Return attributes of which so many were dropped before, as the SDK holds them."""
    held = BoundedAttributes(attributes=attributes, immutable=False)
    held.dropped = dropped
    return held


def context_of(
    trace_id: str, span_id: str, *, remote: bool = False, flags: int = 1, state: str = ""
) -> SpanContext:
    """Return a span's context by its ids in hex.

    :raises ValueError: they are not 32 and 16 hex digits, or all zero
    """
    if len(trace_id) != 32 or len(span_id) != 16:
        raise ValueError(f"{trace_id!r:.80}, {span_id!r:.80} are not ids of a span")
    context = SpanContext(
        int(trace_id, 16), int(span_id, 16), remote, TraceFlags(flags), trace_state(state)
    )
    if not context.is_valid:
        raise ValueError("ids of a span that are all zero")
    return context


def trace_state(header: str) -> TraceState:
    """Parse the content of a W3C ``tracestate`` header."""
    return TraceState.from_header([header]) if header else NO_STATE


def unpack_link(packed: Mapping[str, Any]) -> Link:
    """Unpack a link.

    :raises ValueError: it is not one
    """
    context = context_of(
        packed["trace_id"],
        packed["span_id"],
        remote=packed.get("is_remote", False),
        flags=packed.get("flags", 1),
        state=packed.get("trace_state", ""),
    )
    dropped = packed.get("dropped_attributes", 0)
    return Link(context, unpack_attributes(packed.get("attributes", {}), dropped))


def unpack_event(packed: Sequence[Any]) -> SpanEvent:
    """Unpack an event that was packed whole.

    :raises ValueError: it is not one
    """
    name, at, attributes, *rest = packed
    return SpanEvent(name, unpack_attributes(attributes, rest[0] if rest else 0), at)


def unpack_resource(packed: Mapping[str, Any], schema: str | None = None) -> Resource:
    """Unpack a resource, without anything of this process's environment."""
    return Resource(unpack_attributes(packed), schema)


def unpack_scope(packed: Mapping[str, Any]) -> InstrumentationScope:
    """Unpack an instrumentation scope."""
    return InstrumentationScope(
        packed["name"],
        packed.get("version"),
        packed.get("schema_url"),
        unpack_attributes(packed.get("attributes", {})) or None,
    )


def unpack_span(
    packed: Mapping[str, Any],
    *,
    name: str,
    ids: tuple[str, str, str | None],
    times: tuple[int, int],
    resource: Resource,
) -> ReadableSpan:
    """Unpack a span.

    :param ids: of its trace, its own, its parent's, in hex
    :param times: its start and its end, ns since 1970 UTC
    :raises ValueError: it is not one
    """
    trace_id, span_id, parent_id = ids
    dropped = packed.get("dropped", {})
    code, description = packed.get("status", (0, None))
    parent = None
    if parent_id is not None:
        parent = context_of(trace_id, parent_id, remote=packed.get("parent_is_remote", False))
    return ReadableSpan(
        name,
        context=context_of(
            trace_id,
            span_id,
            flags=packed.get("flags", 1),
            state=packed.get("trace_state", ""),
        ),
        parent=parent,
        resource=resource,
        attributes=unpack_attributes(packed.get("attributes", {}), dropped.get("attributes", 0)),
        events=kept(map(unpack_event, packed.get("events", ())), dropped.get("events", 0)),
        links=kept(map(unpack_link, packed.get("links", ())), dropped.get("links", 0)),
        kind=SpanKind(packed.get("kind", SpanKind.INTERNAL.value)),
        status=Status(StatusCode(code), description) if code else UNSET_STATUS,
        start_time=times[0],
        end_time=times[1],
        instrumentation_scope=unpack_scope(packed["scope"]) if "scope" in packed else None,
    )


def kept(items: Iterable[Any], dropped: int, most: int | None = None) -> Sequence[Any]:
    """Return a list as the SDK holds it: the last ``most``, a dropped count."""
    found = tuple(items)
    if not dropped and (most is None or len(found) <= most):
        return found
    held = BoundedList.from_seq(most, found)
    held.dropped += dropped
    return held
