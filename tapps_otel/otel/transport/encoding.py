"""Spans as OTLP requests, with a digest of each span's content."""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["MOST_SPANS", "Request", "encoded", "id_of"]

MOST_SPANS: Final = 512  # in a request, as the SDK's own batches
_MOST_BYTES: Final = 3 << 20  # gRPC servers accept 4 MiB by default


class Request:
    """An encoded ``ExportTraceServiceRequest``.

    :ivar problem: why its only span cannot be encoded; then there is nothing to send
    """

    def __init__(
        self, spans: Sequence[ReadableSpan], message: Any, data: bytes, problem: str = ""
    ) -> None:
        self.spans, self.data, self.problem = spans, data, problem
        self._message = message

    @cached_property
    def digests(self) -> dict[str, str]:
        """Digests of each span's content, by span id.

        They cover the encoded span with its resource and its scope: all that the collector gets.
        """
        return dict(_digests(self._message))


def encoded(spans: Sequence[ReadableSpan]) -> Iterator[Request]:
    """Encode spans, in as many requests as their size requires.

    A span that cannot be encoded does not affect the others.
    """
    if not spans:
        return
    try:
        message = encode_spans(spans)
        data = message.SerializeToString()
    except Exception as error:  # noqa: BLE001 - it depends on what is on the span
        if len(spans) == 1:
            yield Request(spans, None, b"", f"{type(error).__name__}: {error}")
            return
        data = message = None
    if data is None or (len(data) > _MOST_BYTES and len(spans) > 1):
        half = len(spans) // 2
        yield from encoded(spans[:half])
        yield from encoded(spans[half:])
    else:
        yield Request(spans, message, data)


def _digests(message: Any) -> Iterator[tuple[str, str]]:
    for of_resource in message.resource_spans:
        resource = of_resource.resource.SerializeToString() + of_resource.schema_url.encode()
        for of_scope in of_resource.scope_spans:
            scope = resource + of_scope.scope.SerializeToString() + of_scope.schema_url.encode()
            common = blake2b(scope, digest_size=8)
            for span in of_scope.spans:
                content = common.copy()
                content.update(span.SerializeToString())
                yield span.span_id.hex(), content.hexdigest()


def id_of(span: ReadableSpan) -> str:
    """Return a span's id, 16 hex digits."""
    return f"{span.context.span_id:016x}"
