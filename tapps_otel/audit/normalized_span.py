"""A span's content in a form in which spans of different stores can be compared. Pure.

Stores sort attributes and events as they like, so their bytes cannot be compared. Two spans are
equal if their fields are: values with their types, times to the nanosecond, attributes and events
in any order. (OTLP 1.x, ``trace/v1/trace.proto``.)
"""

from __future__ import annotations

import math
from collections import Counter
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from tapps_otel.names import ATTR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Names", "NormalizedSpan", "differences", "names_of", "normalized", "without_others"]

_NO_PARENT: Final = "0" * 16
_AGAIN: Final = " (again, as number "  # of an attribute that is there twice
_OURS: Final = "tapps."  # no other program adds attributes of such names
_encoder = msgspec.msgpack.Encoder(order="deterministic")


class Names(NamedTuple):
    """Names of attributes: of a span, and of its resource."""

    attributes: frozenset[str]
    resource: frozenset[str]


class NormalizedSpan(NamedTuple):
    """A span in plain values.

    :ivar trace_id: 32 hex digits if it is valid
    :ivar span_id: 16 hex digits if it is valid
    :ivar fields: ``name``, ``parent``, ``start``, ... as :func:`normalized` reads them
    """

    trace_id: str
    span_id: str
    fields: dict[str, Any]

    def digest(self) -> bytes:
        """Return 16 bytes that are equal for two spans if their fields are."""
        return blake2b(_encoder.encode(self.fields), digest_size=16).digest()

    def process(self) -> bytes:
        """Return 16 bytes that are equal for two spans if their resources are."""
        return blake2b(_encoder.encode(self.fields["resource"]), digest_size=16).digest()


def normalized(resource: Any, scope: Any, span: Any) -> NormalizedSpan:
    """Normalize a span of OTLP.

    :param resource: a ``ResourceSpans`` message, or an object with its fields
    :param scope: the ``ScopeSpans`` that the span is in
    :param span: the ``Span``
    :raises ValueError: a number or value is outside what OTLP allows
    """
    made: dict[str, Any] = {
        "name": span.name,
        "kind": _number(span.kind),
        "parent": _id(span.parent_span_id),
        "start": _number(span.start_time_unix_nano),
        "end": _number(span.end_time_unix_nano),
        "status": [_number(span.status.code), span.status.message],
        "attributes": _mapping(span.attributes),
        "events": sorted((_event(one) for one in span.events), key=_encoder.encode),
        "links": sorted((_link(one) for one in span.links), key=_encoder.encode),
        "resource": _mapping(resource.resource.attributes),
        "scope": {
            "name": scope.scope.name,
            "version": scope.scope.version,
            "attributes": _mapping(scope.scope.attributes),
        },
        "flags": _number(span.flags),
        "trace state": span.trace_state,
        "dropped counts": [
            span.dropped_attributes_count,
            span.dropped_events_count,
            span.dropped_links_count,
            [one.dropped_attributes_count for one in (*span.events, *span.links)],
        ],
        "schemas": [resource.schema_url, scope.schema_url],
    }
    made["dropped counts"][3].sort()
    return NormalizedSpan(_id(span.trace_id), _id(span.span_id), made)


def names_of(span: NormalizedSpan) -> Names:
    """Return the names of its attributes."""
    return Names(frozenset(span.fields["attributes"]), frozenset(span.fields["resource"]))


def without_others(span: NormalizedSpan, names: Names) -> tuple[NormalizedSpan, set[str]]:
    """Return the span with attributes of these names and of ours alone, and the other names."""
    fields, others = dict(span.fields), set[str]()
    for part, known in names._asdict().items():
        held = fields[part]
        other = {
            name
            for name in held
            if name.partition(_AGAIN)[0] not in known and not name.startswith(_OURS)
        }
        if other:
            fields[part] = {name: value for name, value in held.items() if name not in other}
            others |= other
    return span._replace(fields=fields), others


# ---------------------------------------------------------------- reading


def _event(event: Any) -> dict[str, Any]:
    return {
        "at": _number(event.time_unix_nano),
        "name": event.name,
        "attributes": _mapping(event.attributes),
    }


def _link(link: Any) -> dict[str, Any]:
    return {
        "trace_id": _id(link.trace_id),
        "span_id": _id(link.span_id),
        "attributes": _mapping(link.attributes),
    }


def _id(text: bytes | str) -> str:
    """Return the hex digits; empty for the id of no parent."""
    shown = text.hex() if isinstance(text, bytes) else text.lower()
    return "" if shown == _NO_PARENT else shown


def _mapping(pairs: Iterable[Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for pair in pairs:
        key = pair.key
        if key in made:  # OTLP forbids it; neither may hide the other
            key = f"{key}{_AGAIN}{len(made) + 1})"
        made[key] = _value(pair.value)
    return made


def _value(value: Any) -> Any:
    """Convert to str, bool, int, float, bytes, list or dict, by the type of the value."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    held = getattr(value, kind)
    if kind == "array_value":
        return [_value(one) for one in held.values]
    if kind == "kvlist_value":
        return _mapping(held.values)
    if kind == "int_value":
        return _number(held)
    if kind == "double_value":
        number = float(held)
        return math.nan if math.isnan(number) else number
    return held


def _number(text: int | str) -> int:
    number = int(text)
    if not -(1 << 63) <= number < 1 << 64:
        raise ValueError(f"a number of more than 64 bits: {number!r:.40}")
    return number


# ---------------------------------------------------------------- comparing


def differences(there: NormalizedSpan, log: NormalizedSpan) -> Iterator[str]:
    """Describe each difference in a sentence; the text is not safe to show."""
    for name, one in there.fields.items():
        other = log.fields[name]
        if _same(one, other):
            continue
        if name in {"attributes", "resource"}:
            yield from _of_mappings("attribute" if name == "attributes" else name, one, other)
        elif name == "events":
            yield from _of_events(one, other)
        elif name == "links":
            yield from _of_links(one, other)
        else:
            yield f"{name} is {_shown(one)} there, {_shown(other)} in the log"


def _same(one: Any, other: Any) -> bool:
    """Compare values with their types: for Python 1, True and 1.0 are equal."""
    return _encoder.encode(one) == _encoder.encode(other)


def _of_mappings(what: str, there: dict[str, Any], log: dict[str, Any]) -> Iterator[str]:
    for key in sorted(there.keys() | log.keys()):
        place = f"{what} {_word(key)}"
        if key not in there:
            yield f"{place} is not there; it is {_shown(log[key])} in the log"
        elif key not in log:
            yield f"{place} is {_shown(there[key])} there, and not in the log"
        elif not _same(there[key], log[key]):
            yield f"{place} is {_shown(there[key])} there, {_shown(log[key])} in the log"


def _of_events(there: list[Any], log: list[Any]) -> Iterator[str]:
    only_there, only_log = _without_common(there, log)
    # An event that was made from the same line is the same event, changed.
    lines = {_line(one): one for one in only_log}
    for one in only_there:
        other = lines.pop(_line(one), None)
        place = f"event {_word(one['name'])}"
        if other is None:
            yield f"{place} at {one['at']} ns is there, and not in the log"
            continue
        if one["at"] != other["at"]:
            yield f"{place} is at {one['at']} ns there, at {other['at']} ns in the log"
        of_event = f"{place}, attribute"
        yield from _of_mappings(of_event, one["attributes"], other["attributes"])
    for other in lines.values():
        yield f"event {_word(other['name'])} at {other['at']} ns is not there"


def _line(event: dict[str, Any]) -> bytes:
    seq = event["attributes"].get(ATTR.SEQ)
    return _encoder.encode([event["name"], event["at"] if seq is None else seq])


def _of_links(there: list[Any], log: list[Any]) -> Iterator[str]:
    only_there, only_log = _without_common(there, log)
    yield from (f"a link is there, and not in the log: {_shown(one)}" for one in only_there)
    yield from (f"a link is not there: {_shown(one)}" for one in only_log)


def _without_common(there: list[Any], log: list[Any]) -> tuple[list[Any], list[Any]]:
    ones, others = Counter(map(_encoder.encode, there)), Counter(map(_encoder.encode, log))
    return (
        [msgspec.msgpack.decode(one) for one in (ones - others).elements()],
        [msgspec.msgpack.decode(one) for one in (others - ones).elements()],
    )


def _shown(value: Any) -> str:
    return f"{value!r:.100}"


def _word(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}..."
