"""Spans as OTLP JSON Lines, which a collector's ``otlp_json_file`` receiver and Jaeger's UI read.

The format is that of the OpenTelemetry specification, "OpenTelemetry Protocol File Exporter": each
line is one whole ``ExportTraceServiceRequest`` in the JSON of OTLP ("JSON Protobuf Encoding":
ids are lower-case hex, 64-bit integers are strings, enums are numbers, empty fields are left out).
A line has the same fields of its spans that ``tapps-otel send`` sends.
"""

from __future__ import annotations

import logging
import threading
from base64 import b64decode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from tapps_otel.audit.export.outcome import UNENCODABLE
from tapps_otel.otel.replay.send import batches
from tapps_otel.otel.sdk_internals import ENCODER_LOGGER
from tapps_otel.report.text import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tapps_otel.audit.export.outcome import Outcome
    from tapps_otel.otel.replay.run_spans import Found

__all__ = ["MOST_BYTES", "lines"]

MOST_BYTES: Final = 1 << 20  # the collector's receiver splits longer lines and reads no part
_BATCH: Final = 128  # spans; such a line has some 200 kB
_IDS: Final = ("traceId", "spanId", "parentSpanId")
_encoder_log = logging.getLogger(ENCODER_LOGGER)


def lines(spans: Iterable[Found], outcome: Outcome) -> Iterator[str]:
    """Yield lines of less than 1 MiB with their newline; one span alone may be longer.

    What OTLP cannot hold is left out and noted in ``outcome``.
    """
    for batch in batches(spans, _BATCH):
        yield from _lines(batch, outcome)


def _lines(batch: Sequence[Found], outcome: Outcome) -> Iterator[str]:
    """Yield one line, or those of its parts if it is too long or has an invalid span."""
    alone = len(batch) == 1
    try:
        line, dropped = _line(batch)
    except UNENCODABLE as error:
        if alone:
            outcome.leave_out(batch[0], error)
            return
        line, dropped = "", []
    size = len(line.encode())
    if not alone and (not line or dropped or size >= MOST_BYTES):
        part = max(1, len(batch) // max(2, size // MOST_BYTES + 1))
        for at in range(0, len(batch), part):
            yield from _lines(batch[at : at + part], outcome)
        return
    for what in dropped:
        outcome.remark(batch[0], what)
    outcome.count += len(batch)
    yield line


def _line(batch: Sequence[Found]) -> tuple[str, list[str]]:
    """Return the line, and what the encoder reports as left out."""
    with _dropped() as dropped:
        message = encode_spans([found.span for found in batch])
    request = MessageToDict(message, use_integers_for_enums=True)
    for of_resource in request["resourceSpans"]:
        for of_scope in of_resource["scopeSpans"]:
            for span in of_scope["spans"]:
                _write_ids_in_hex(span)
                for link in span.get("links", ()):
                    _write_ids_in_hex(link)
    return json_text(request) + "\n", dropped


def _write_ids_in_hex(fields: dict[str, Any]) -> None:
    """Write ids in hex: the only place where OTLP's JSON differs from protobuf's, with base64."""
    for name in _IDS:
        if name in fields:
            fields[name] = b64decode(fields[name]).hex()


@contextmanager
def _dropped() -> Iterator[list[str]]:
    """Collect what the encoder logs: it drops attributes that OTLP cannot hold.

    Records of other threads are logged as usual.
    """
    messages: list[str] = []
    thread = threading.get_ident()

    def take(record: logging.LogRecord) -> bool:
        if record.thread == thread:
            messages.append(record.getMessage()[:200])
        return record.thread != thread

    _encoder_log.addFilter(take)
    try:
        yield messages
    finally:
        _encoder_log.removeFilter(take)
