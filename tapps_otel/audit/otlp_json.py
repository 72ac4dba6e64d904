"""A streaming reader of OTLP JSON Lines: files of collectors, and responses of Jaeger.

OpenTelemetry specification, "OpenTelemetry Protocol File Exporter", and OTLP 1.x, "JSON Protobuf
Encoding": each line is a request ``{"resourceSpans": [...]}``, ids are hex, 64-bit integers text,
enums numbers. A response of Jaeger's API v3 has the request inside ``{"result": ...}``. The input
is not trusted: what is not OTLP is an error that names the line, and lines are limited to 64 MiB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec
from msgspec import Raw

from tapps_otel.audit.normalized_span import NormalizedSpan, normalized
from tapps_otel.errors import SpansError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["read_spans"]

_LONGEST: Final = 64 << 20  # bytes of a line: a batch of eight thousand spans takes 14 MB


class _Message(msgspec.Struct, rename="camel", gc=False):
    """Base of OTLP's messages; fields have OTLP's names, and a missing one is empty."""


class _Value(_Message):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: str | int | None = None
    double_value: float | str | None = None
    array_value: _Array | None = None
    kvlist_value: _Pairs | None = None
    bytes_value: bytes | None = None  # base64

    def WhichOneof(self, _: str) -> str | None:  # noqa: N802 - protobuf's name
        """Return the name of the field that is set."""
        fields = self.__struct_fields__
        return next((name for name in fields if getattr(self, name) is not None), None)


class _Array(_Message):
    values: list[_Value] = []


class _Pair(_Message):
    key: str = ""
    value: _Value = msgspec.field(default_factory=_Value)


class _Pairs(_Message):
    values: list[_Pair] = []


class _Described(_Message):
    attributes: list[_Pair] = []
    name: str = ""
    version: str = ""


class _Event(_Message):
    time_unix_nano: str | int = 0
    name: str = ""
    attributes: list[_Pair] = []
    dropped_attributes_count: int = 0


class _Link(_Message):
    trace_id: str = ""
    span_id: str = ""
    attributes: list[_Pair] = []
    dropped_attributes_count: int = 0


class _Status(_Message):
    code: int = 0
    message: str = ""


class _Span(_Message):
    trace_id: str = ""
    span_id: str = ""
    trace_state: str = ""
    parent_span_id: str = ""
    flags: int = 0
    name: str = ""
    kind: int = 0
    start_time_unix_nano: str | int = 0
    end_time_unix_nano: str | int = 0
    attributes: list[_Pair] = []
    events: list[_Event] = []
    links: list[_Link] = []
    status: _Status = msgspec.field(default_factory=_Status)
    dropped_attributes_count: int = 0
    dropped_events_count: int = 0
    dropped_links_count: int = 0


class _Trace(_Message):
    trace_id: str = ""


class _OfScope(_Message):
    scope: _Described = msgspec.field(default_factory=_Described)
    spans: list[Raw] = []
    schema_url: str = ""


class _OfResource(_Message):
    resource: _Described = msgspec.field(default_factory=_Described)
    scope_spans: list[_OfScope] = []
    schema_url: str = ""


class _Request(_Message):
    resource_spans: list[_OfResource] | None = None
    result: _Request | None = None


_requests = msgspec.json.Decoder(_Request)
_traces = msgspec.json.Decoder(_Trace)
_spans = msgspec.json.Decoder(_Span)


def read_spans(
    file: BinaryIO, name: str, wanted: Callable[[str, str], bool], notes: list[str]
) -> Iterator[NormalizedSpan]:
    """Yield the spans in a file of OTLP JSON lines.

    An incomplete last line without a newline is still being written: a note, not an error.

    :param name: of the file, for errors
    :param wanted: takes a trace id and a scope's name; returns whether to yield such spans
    :param notes: what is skipped is added here
    :raises SpansError: a line is not OTLP JSON
    """
    number = 0
    for line in iter(lambda: file.readline(_LONGEST + 1), b""):
        number += 1
        if len(line) > _LONGEST:
            raise SpansError(name, f"line {number} has more than {_LONGEST >> 20} MiB")
        if not line.strip():
            continue
        try:
            yield from _spans_of(line, wanted)
        except (ValueError, RecursionError) as error:
            if number > 1 and line[-1:] != b"\n":
                notes.append(f"the last line of {name} is incomplete, and was skipped")
                return
            raise SpansError(
                name,
                f"line {number} is not OTLP JSON: {_reason(error)}. Each line must be a request "
                '{"resourceSpans": [...]}, as the file exporter of a collector writes it',
            ) from None


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else f"{error!s:.200}"


def _spans_of(line: bytes, wanted: Callable[[str, str], bool]) -> Iterator[NormalizedSpan]:
    request = _requests.decode(line)
    request = request.result or request
    if request.resource_spans is None:
        raise ValueError("it has no `resourceSpans`")
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                if wanted(_traces.decode(span).trace_id.lower(), of_scope.scope.name):
                    yield normalized(of_resource, of_scope, _spans.decode(span))
