"""Spans of agents: by rules over spans, and by the tracing of OpenAI Agents; nothing is synced.

Each span is one tool call with the attributes of the conventions, in the middle of its agent's run:
bare, and with everything that is written for it.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from tapps_otel import configure, instrument
from tapps_otel.instrumentation.openai_agents import Processor

from .common import Arguments, answer, arguments

BATCH = 200  # spans of one run


def tool_calls(tracer: trace.Tracer) -> float:
    """Make the spans of one run; return seconds."""
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "writer"}
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.agent.name": "writer"}
    with tracer.start_as_current_span("invoke_agent writer", attributes=agent):
        began = time.perf_counter()
        for number in range(BATCH):
            with tracer.start_as_current_span("execute_tool search", attributes=tool) as span:
                span.set_attribute("gen_ai.tool.call.id", f"call {number}")
        return time.perf_counter() - began


def traced_calls(processor: Processor, run: int) -> float:
    """Tell the processor of the same calls, as the SDK does; return seconds."""
    name = f"trace_{run}"
    processor.on_trace_start(SimpleNamespace(trace_id=name, name="write", group_id=None))
    data = SimpleNamespace(type="function", name="search")
    began = time.perf_counter()
    for number in range(BATCH):
        span = SimpleNamespace(
            trace_id=name, span_id=f"{run} {number}", parent_id=None, span_data=data, error=None
        )
        processor.on_span_start(span)
        processor.on_span_end(span)
    took = time.perf_counter() - began
    processor.on_trace_end(SimpleNamespace(trace_id=name))
    return took


def measure(args: Arguments) -> dict[str, float]:
    """All, in turns."""
    configure(log_dir=args.folder / "log", durability="os", spans=False)
    bare, ruled = TracerProvider(), TracerProvider()
    trace.set_tracer_provider(ruled)
    instrument("genai")
    processor = Processor()
    took = {"sdk_us": 0.0, "rules_us": 0.0, "agents_us": 0.0}
    runs = args.n // BATCH
    for run in range(-1, runs):  # the first is for warming up
        found = {
            "sdk_us": tool_calls(bare.get_tracer("bench")),
            "rules_us": tool_calls(ruled.get_tracer("bench")),
            "agents_us": traced_calls(processor, run),
        }
        if run >= 0:
            took = {name: took[name] + found[name] for name in took}
    return {name: seconds / (runs * BATCH) * 1e6 for name, seconds in took.items()}


if __name__ == "__main__":
    answer("opentelemetry-sdk", "msgspec", **measure(arguments()))
