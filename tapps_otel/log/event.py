"""One event: its fields, its line, and the hash chain between the lines. Pure.

A line is one JSON object that begins ``{"v":1,"seq":N,"event_type":"...",`` and ends with
``,"sha":"<64 hex>"}`` and a newline. ``sha`` is the SHA-256 of the previous line's ``sha`` (its 64
ASCII characters; for line 1 the hex SHA-256 of the workflow_id) followed by this line's bytes
before its last 75. The hash is over bytes, so that JSON needs no canonical form.
"""

from __future__ import annotations

import json
import math
from hashlib import sha256
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

__all__ = [
    "EVENT_TYPES",
    "MAX_LINE",
    "SYNCED",
    "TRAILER",
    "VERSION",
    "Encrypted",
    "Event",
    "decode",
    "decode_as",
    "decode_plain",
    "encode",
    "genesis",
    "json_of",
    "line_start",
    "loads",
    "raw_json",
    "trailing_sha",
]

VERSION: Final = 1
MAX_LINE: Final = 1 << 20  # bytes; a longer line is damage, and is never held in memory as a whole
TRAILER: Final = 75  # bytes: ,"sha":"  + 64 hex + "} + newline
_SHA_KEY: Final = b',"sha":"'
_NEWLINE: Final = 10  # as an integer, which is found faster than b"\n"

# With durability `commit`, events of these types are synced before they are acknowledged. That sync
# covers the events before them in the file, too.
SYNCED: Final = frozenset(
    {"workflow_start", "workflow_end", "step_finish", "step_fail", "step_skip", "log_repair"}
)
EVENT_TYPES: Final = SYNCED | {
    "step_start", "workflow_resume", "annotation", "span", "span_start", "log_gap"
}  # fmt: skip

Text = str | UnsetType
NullableText = str | None | UnsetType
Number = int | UnsetType
Json = Raw | UnsetType

_T = TypeVar("_T", bound=msgspec.Struct)


class Encrypted(msgspec.Struct, gc=False):
    """The encrypted values of an event: see :mod:`tapps_otel.log.encrypted`.

    :ivar key: id of the key
    :ivar data: the ciphertext, base64 in the line
    """

    key: str
    data: bytes


class Event(msgspec.Struct, kw_only=True, gc=False):
    """One event, as this package uses it; ``UNSET`` fields are left out of the line.

    Its fields are in the order of the line. :class:`tapps_otel.log.model.WorkflowEvent` is the
    public, validated model of these fields.
    """

    v: int = VERSION
    seq: int = 0
    event_type: str
    workflow_id: str
    timestamp: str
    wall_time: Text = UNSET
    trace_id: Text = UNSET
    span_id: Text = UNSET
    parent_span_id: Text = UNSET
    execution: int
    step_id: Text = UNSET
    step: Text = UNSET
    agent: NullableText = UNSET
    action: NullableText = UNSET
    attempt: Number = UNSET
    order: Number = UNSET
    key: Text = UNSET
    retry_in_ns: Number = UNSET
    caused_by: list[str] | UnsetType = UNSET
    name: Text = UNSET
    reason: Text = UNSET
    question: Text = UNSET
    answer_schema: dict[str, Any] | UnsetType = UNSET
    until: Text = UNSET
    answered: dict[str, Any] | UnsetType = UNSET
    status: Text = UNSET
    error: dict[str, Any] | UnsetType = UNSET
    artifacts: list[dict[str, Any]] | UnsetType = UNSET
    inputs: Json = UNSET
    inputs_blob: Text = UNSET
    inputs_digest: Text = UNSET
    definition: NullableText = UNSET
    result: Json = UNSET
    result_blob: Text = UNSET
    result_omitted: Text = UNSET
    duration_ns: Number = UNSET
    attributes: dict[str, Any] | UnsetType = UNSET
    otel: dict[str, Any] | UnsetType = UNSET
    otel_blob: Text = UNSET
    resource: dict[str, Any] | UnsetType = UNSET
    workflow: dict[str, Any] | UnsetType = UNSET
    process: dict[str, Any] | UnsetType = UNSET
    origin: dict[str, Any] | UnsetType = UNSET
    late: bool | UnsetType = UNSET
    unsynced: Number = UNSET
    damage: list[tuple[int, int, str]] | UnsetType = UNSET
    encrypted: Encrypted | UnsetType = UNSET


_RAW_FIELDS: Final = frozenset({"inputs", "result"})
_COMPACT: Final[dict[str, Any]] = {"allow_nan": False, "separators": (",", ":")}
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


# The fast path of `decode`. It rejects escaped lone surrogates, and raises RecursionError if a line
# is nested too deep.
decode_plain: Final = _decoder.decode


def genesis(workflow_id: str) -> bytes:
    """Return the start of the hash chain of this run's log: 64 ASCII characters.

    :param workflow_id: as the log's first line has it
    """
    return sha256(workflow_id.encode("utf-8", "surrogatepass")).hexdigest().encode()


def line_start(seq: int) -> bytes:
    """Return the bytes that the line with this ``seq`` begins with."""
    return b'{"v":1,"seq":%d,' % seq


def encode(event: Event, previous: bytes) -> tuple[bytes, bytes]:
    """Return the event's line and its ``sha``, chained to that of the ``previous`` line.

    The first line has none, and is chained to its own ``workflow_id``.

    Floats must be finite: a NaN is written as null (:mod:`tapps_otel.run.values` rejects it).

    :raises TypeError: a value is not of a JSON type
    :raises ValueError: an integer has more than 4300 digits, or raw JSON contains a newline
    """
    try:
        body = _encoder.encode(event)[:-1]
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot hold
        body = _encode_escaped(event)[:-1]
    if _NEWLINE in body:  # pretty-printed raw JSON would split the line
        raise ValueError("an event's raw JSON contains a newline")
    sha = sha256((previous or genesis(event.workflow_id)) + body).hexdigest().encode()
    return b"".join((body, _SHA_KEY, sha, b'"}\n')), sha  # twice as fast as formatting


def trailing_sha(line: bytes) -> bytes | None:
    """Return the ``sha`` at the end of a line; ``None`` without a complete trailer."""
    end = len(line) - 1 if line.endswith(b"\n") else len(line)
    sha = line[end - 66 : end - 2]
    if len(sha) != 64 or line[end - 74 : end - 66] != _SHA_KEY or line[end - 2 : end] != b'"}':
        return None
    return sha if all(c in b"0123456789abcdef" for c in sha) else None


def decode(line: bytes) -> Event:
    """Decode one line, with or without newline. Unknown fields are ignored.

    :raises ValueError: not JSON, nested too deep, a field of a wrong type, an infinite number
    """
    return decode_as(line, _decoder)


def decode_as(data: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decode JSON as what a decoder makes of it; lone surrogates may be in it.

    :raises ValueError: as :func:`decode`
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except RecursionError:
        msg = "nested too deep"
        raise ValueError(msg) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if b"\\ud" not in data.lower():
            raise ValueError(str(error)) from None
        return _decode_escaped(data, cast("type[_T]", decoder.type))


def loads(line: bytes) -> dict[str, Any]:
    """Decode one line as plain Python values. Slow, but keeps unknown fields.

    :raises ValueError: not a JSON object, nested too deep, a number out of range
    """
    try:
        fields = json.loads(line.decode(), parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the line is bad, not its type
    return fields


def readable(data: bytes) -> Any:
    """Decode JSON as plain Python values, whatever the log's decoder skips over. Slow.

    A number that Python cannot hold stays text, and bytes that are not UTF-8 become U+FFFD.

    :raises ValueError: not JSON, nested too deep
    """

    def number(digits: str) -> Any:
        try:
            return _finite(digits) if "." in digits or "e" in digits.lower() else int(digits)
        except ValueError:  # infinite, or more digits than Python converts
            return digits

    text = data.decode(errors="replace")
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=number, parse_int=number)
    except RecursionError:
        raise ValueError("nested too deep") from None


def raw_json(value: object) -> Raw:
    """Encode a JSON value for a ``Raw`` field; large integers stay exact."""
    try:
        return Raw(_encoder.encode(value))
    except UnicodeEncodeError:
        return Raw(json.dumps(_finite_only(value), **_COMPACT).encode())


def json_of(struct: msgspec.Struct) -> bytes:
    """Encode a part of an event; lone surrogates may be in it.

    :raises TypeError: a value is not of a JSON type
    """
    try:
        return _encoder.encode(struct)
    except UnicodeEncodeError:
        return _encode_escaped(struct)


def _encode_escaped(struct: msgspec.Struct) -> bytes:
    """Encode with all non-ASCII characters escaped, which lone surrogates need."""
    parts = []
    for field in struct.__struct_fields__:
        value = getattr(struct, field)
        if isinstance(value, Encrypted):
            value = msgspec.to_builtins(value)
        if value is not UNSET:
            raw = value if isinstance(value, Raw) else json.dumps(_finite_only(value), **_COMPACT)
            text = raw.encode() if isinstance(raw, str) else bytes(raw)
            parts.append(b'"%b":%b' % (field.encode(), text))
    return b"{" + b",".join(parts) + b"}"


def _decode_escaped(data: bytes, kind: type[_T]) -> _T:
    """Decode JSON with escaped lone surrogates, which the fast decoder rejects."""
    fields = loads(data)
    raws = {name: raw_json(fields.pop(name)) for name in _RAW_FIELDS & fields.keys()}
    struct = msgspec.convert(fields, kind)
    for name, raw in raws.items():
        setattr(struct, name, raw)
    return struct


def _finite_only(value: Any) -> Any:
    """Replace non-finite numbers by null, as the fast encoder does."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite_only(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_only(one) for one in value]
    return value


def _refuse(constant: str) -> float:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = "a number out of range"
        raise ValueError(msg)
    return number
