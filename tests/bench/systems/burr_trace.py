"""Burr with its OpenTelemetry bridge: six steps, each of which says when it begins."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from burr.core import Application, ApplicationBuilder, State, action, when
from burr.integrations.opentelemetry import OpenTelemetryBridge
from burr.tracking import LocalTrackingClient
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


@action(reads=["i"], writes=["i"])  # type: ignore[untyped-decorator]
def work(state: State) -> State:
    """One step."""
    i = state["i"] + 1
    Path(f"began-{i}").touch()
    time.sleep(float(sys.argv[1]))
    return state.update(i=i)


@action(reads=["i"], writes=[])  # type: ignore[untyped-decorator]
def done(state: State) -> State:
    """The end of the run."""
    return state


def build() -> Application[int]:
    """The run, from its tracker's log where there is one."""
    tracker = LocalTrackingClient(project="six", storage_dir=str(Path.cwd() / "burr"))
    return (
        ApplicationBuilder()
        .with_actions(work, done)
        .with_transitions(("work", "done", when(i=6)), ("work", "work"))
        .with_tracker(tracker)
        .with_hooks(OpenTelemetryBridge(tracer=trace.get_tracer("burr")))
        .with_identifiers(app_id="six")
        .initialize_from(
            tracker, resume_at_next_action=True, default_state={"i": 0}, default_entrypoint="work"
        )
        .build()
    )


if __name__ == "__main__":
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    build().run(halt_after=["done"])
    provider.shutdown()
