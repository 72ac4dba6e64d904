"""This project with the SDK: what a span adds to an unsynced step, and the SDK's own beside it.

The SDK's span has exactly the attributes and events that a step's span had in the warm-up, and is a
current child of the same workflow span. Steps with a span, steps of a second run without, and the
SDK's spans come in turns of a hundred.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import Tracer

from tapps_otel import Run, configure, step

from .common import CHUNK, Arguments, answer, arguments, result
from .otel_span import Dropping, provider

WARM = 200


class KeepingOne(Dropping):
    """Drops all spans but the last step's, while ``keep`` is on."""

    def __init__(self) -> None:
        self.keep = True
        self.span: ReadableSpan | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Done at once."""
        if self.keep:
            self.span = next((s for s in spans if s.name.startswith("step ")), self.span)
        return SpanExportResult.SUCCESS


@step
def work(i: int) -> dict[str, Any]:
    """One step."""
    return result(i)


def sdk_span(tracer: Tracer, like: ReadableSpan) -> None:
    """One span of the SDK's, with the attributes and events of ``like``."""
    with tracer.start_as_current_span(like.name, attributes=like.attributes) as span:
        for event in like.events:
            span.add_event(event.name, event.attributes)


def steps_s(run: Run, numbers: range) -> float:
    """The time of some steps of ``run``."""
    run._recorder.enter_root()
    began = time.perf_counter()
    for i in numbers:
        work(i)
    took = time.perf_counter() - began
    run._recorder.leave()
    return took


def sdk_s(run: Run, tracer: Tracer, like: ReadableSpan, count: int) -> float:
    """The time of as many spans of the SDK's, under the span of ``run``."""
    run._recorder.enter_root()
    began = time.perf_counter()
    for _ in range(count):
        sdk_span(tracer, like)
    took = time.perf_counter() - began
    run._recorder.leave()
    return took


def measure(args: Arguments) -> dict[str, float]:
    """All three, in turns."""
    exporter = KeepingOne()
    made = provider(exporter)
    trace.set_tracer_provider(made)
    tracer = made.get_tracer("bench")
    configure(log_dir=args.folder / "log", durability="os", spans=True)
    spanned = Run.open("steps")
    configure(spans=False)
    bare = Run.open("steps")
    steps_s(spanned, range(WARM))
    steps_s(bare, range(WARM))
    made.force_flush()
    like, exporter.keep = exporter.span, False
    if like is None:
        raise RuntimeError("no step span was exported")
    ours = without = sdk = 0.0
    for chunk in range(0, args.n, CHUNK):
        numbers = range(chunk, chunk + CHUNK)
        ours += steps_s(spanned, numbers)
        without += steps_s(bare, numbers)
        sdk += sdk_s(spanned, tracer, like, CHUNK)
    return {
        "step_us": ours / args.n * 1e6,
        "bare_us": without / args.n * 1e6,
        "sdk_us": sdk / args.n * 1e6,
        "attributes": len(like.attributes or ()),
        "events": len(like.events),
    }


if __name__ == "__main__":
    answer("opentelemetry-sdk", "msgspec", **measure(arguments()))
