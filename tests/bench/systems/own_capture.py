"""Spans of libraries into a run's log, beside the bare OTLP encoding of the same spans.

Half are HTTP calls, half database queries, one in sixteen has an exception; they come in the SDK's
own batches. All sides take each batch in turn: the exporter writes it into the log of the run,
which goes on, as durable as it comes; the encoder makes the bytes that would be sent; the processor
writes each span as it starts and as it ends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.util.types import AttributeValue

from tapps_otel import JsonlSpanExporter, JsonlSpanProcessor, Run, configure
from tapps_otel.otel.capture import claims

from .common import Arguments, answer, arguments
from .otel_span import Dropping

BATCH = 512  # as the SDK's batch processor takes them


class Keeping(Dropping):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Done at once."""
        self.spans += spans
        return SpanExportResult.SUCCESS


def http(tracer: Tracer, i: int) -> None:
    """A call as the conventions describe it."""
    attributes: dict[str, AttributeValue] = {
        "http.request.method": "GET",
        "url.full": f"https://example.org/chapters/{i}?lang=en",
        "server.address": "example.org",
        "server.port": 443,
        "network.protocol.version": "1.1",
        "user_agent.original": "bench/1.0",
    }
    with tracer.start_as_current_span("GET", kind=SpanKind.CLIENT, attributes=attributes) as span:
        span.set_attribute("http.response.status_code", 200)
        if i % 8 == 0:
            span.record_exception(TimeoutError(f"no answer from host {i % 5}"))


def query(tracer: Tracer, i: int) -> None:
    """A query as the conventions describe it."""
    attributes: dict[str, AttributeValue] = {
        "db.system.name": "sqlite",
        "db.namespace": "books.db",
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT id, title, words FROM chapter WHERE book = ? ORDER BY id",
        "db.response.returned_rows": i % 40,
    }
    with tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT, attributes=attributes):
        pass


def spans_of(run: Run, tracer: Tracer, kept: Keeping, count: int) -> list[ReadableSpan]:
    """Spans under the span of ``run``."""
    kept.spans = []
    run._recorder.enter_root()
    for i in range(count):
        (http if i % 2 else query)(tracer, i)
    run._recorder.leave()
    return kept.spans


def by_itself() -> JsonlSpanProcessor:
    """A processor that writes what an exporter has written already."""
    made = JsonlSpanProcessor()
    claims.claim = lambda *_: True
    return made


def measure(args: Arguments) -> dict[str, float]:
    """All, in turns."""
    kept = Keeping()
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(made)
    configure(log_dir=args.folder / "log")
    tracer, exporter, processor = made.get_tracer("bench"), JsonlSpanExporter(), by_itself()
    capture_s = encode_s = process_s = 0.0
    size = 0
    with Run.open("captured") as run:
        for batch in range(-1, args.n // BATCH):  # the first is for warming up
            spans = spans_of(run, tracer, kept, BATCH)
            began = time.perf_counter()
            done = exporter.export(spans)
            between = time.perf_counter()
            data = encode_spans(spans).SerializeToString()
            ended = time.perf_counter()
            for span in spans:
                processor.on_start(span)  # type: ignore[arg-type]  # with what it has at its end
                processor.on_end(span)
            processed = time.perf_counter()
            if done is not SpanExportResult.SUCCESS:
                raise RuntimeError("a batch was not written")
            if batch >= 0:
                capture_s += between - began
                encode_s += ended - between
                process_s += processed - ended
                size = len(data)
    exporter.shutdown()
    count = args.n // BATCH * BATCH
    return {
        "capture_us": capture_s / count * 1e6,
        "encode_us": encode_s / count * 1e6,
        "process_us": process_s / count * 1e6,
        "otlp_bytes": size / BATCH,
    }


if __name__ == "__main__":
    answer("opentelemetry-sdk", "msgspec", **measure(arguments()))
