"""This project: sending a run's spans from its log, beside the encoding that any exporter does.

The collector here takes every request at once, so that what is timed is reading, checking,
rebuilding, encoding, digests and the ledger. The encoding alone is timed on the same spans, batch
by batch in turns with the sending.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from tapps_otel.log.store import Store
from tapps_otel.otel.replay.run_spans import Found, RunSpans
from tapps_otel.otel.replay.send import batches
from tapps_otel.otel.replay.send_report import SendReport
from tapps_otel.otel.replay.sender import Sender
from tapps_otel.otel.transport.client import Answer, Client
from tapps_otel.otel.transport.destination import HTTP, Destination

from .common import Arguments, answer, arguments, peak_rss_mb


class Taking(Client):
    """An exporter that accepts everything."""

    def _send_once(self, request: bytes, seconds: float) -> Answer:
        return Answer()

    def close(self) -> None:
        """Nothing is open."""


def measure(args: Arguments) -> dict[str, float]:
    """The whole log, once. With the option ``memory`` nothing else is measured."""
    store = Store(Path(args.folder) / "log")
    client = Taking(Destination(HTTP, "http://127.0.0.1:4318/v1/traces"))
    report = SendReport("bench", client.destination.name)
    sender = Sender(store, report, client, force=True)
    encoding_s = 0.0
    began = time.perf_counter()
    for batch in batches(sender.new(RunSpans(store, "bench"))):
        if args.option != "memory":
            encoding_s += encoding_time(batch)
        sender.send(batch)
    took = time.perf_counter() - began - encoding_s
    if not report.ok or report.sent != args.n // 2:
        raise RuntimeError(f"it was not all sent: {report}")
    numbers = {"send_per_s": report.sent / took, "peak_rss_mb": peak_rss_mb()}
    if encoding_s:
        numbers["encode_per_s"] = report.sent / encoding_s
    return numbers


def encoding_time(batch: Sequence[Found]) -> float:
    """What any exporter does with these spans, in seconds."""
    spans = [found.span for found in batch]
    began = time.perf_counter()
    encode_spans(spans).SerializeToString()
    return time.perf_counter() - began


if __name__ == "__main__":
    answer("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-common", **measure(arguments()))
