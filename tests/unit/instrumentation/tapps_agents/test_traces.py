"""The trace of a run of tapps-agents, and its spans as rebuilt from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tapps_agents_project import FIVE, LOGS, Project, chain, fail, only_run
from tapps_otel import JsonlSpanExporter, configure
from tapps_otel.instrumentation import instrument
from tapps_otel.instrumentation.tapps_agents import resume
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.run_spans import RunSpans
from waiting import until_async

Events = Callable[..., list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def exporter(_own_place: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Gets the spans of this test's own provider."""
    configure(announce="off")
    made = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "test"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(made))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    instrument("tapps_agents")
    yield made
    provider.shutdown()


def rebuilt() -> list[Any]:
    spans = RunSpans(Store(LOGS.absolute()), only_run())
    found = [one.span for one in spans]
    assert spans.problems == []
    return found


def bytes_of(spans: Any) -> set[bytes]:
    return {encode_spans([span]).SerializeToString() for span in spans}


def test_spans_of_steps_are_children_of_the_run_and_parents_of_libraries(
    project: Project, exporter: Any
) -> None:
    async def call() -> None:
        with trace.get_tracer("library").start_as_current_span("HTTP"):
            pass

    project.write()
    project.does["planner"] = call
    project.run()

    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"workflow Demo", "HTTP", *(f"step {name}" for name in FIVE)}
    root = spans["workflow Demo"]
    for name in FIVE:
        assert spans[f"step {name}"].parent.span_id == root.context.span_id
    assert spans["HTTP"].parent.span_id == spans["step s2"].context.span_id
    attributes = spans["step s1"].attributes
    assert attributes["tapps.agent.name"] == "analyst"
    assert "analyst_result" in attributes["tapps.executor.variables"]
    assert {span.status.status_code for span in spans.values()} == {StatusCode.UNSET}


def test_failures_and_skips_have_their_status(project: Project, exporter: Any) -> None:
    passed = {"metadata": {"skip_on_fail": True}, "requires": []}
    project.write([one | passed for one in chain()])
    project.does["architect"] = fail
    project.run()

    spans = exporter.get_finished_spans()
    tries = [span for span in spans if span.name == "step s3"]
    assert [span.attributes["tapps.attempt"] for span in tries] == [1, 2, 3, 4]
    assert {span.status.status_code for span in tries} == {StatusCode.ERROR}
    assert {span.attributes["error.type"] for span in tries} == {"RuntimeError"}
    (root,) = (span for span in spans if span.name == "workflow Demo")
    skip = next(event for event in root.events if event.name == "step_skip")
    assert skip.attributes["tapps.reason"] == "Step failed but configured to skip on failure"
    assert root.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("does", [{}, {"architect": fail}], ids=["good", "failing"])
def test_spans_rebuilt_from_the_log_are_equal_byte_for_byte(
    project: Project, exporter: InMemorySpanExporter, does: dict[str, Any]
) -> None:
    project.write()
    project.does = does
    project.run()

    assert bytes_of(rebuilt()) == bytes_of(exporter.get_finished_spans())


def test_annotations_of_ended_steps_are_on_the_runs_span(
    project: Project, exporter: InMemorySpanExporter, events: Events
) -> None:
    """The result of a gate, and the digest of a large artifact."""
    gate = {"gate": {"condition": "true"}}
    project.write([one | (gate if one["id"] == "s2" else {}) for one in chain()])

    async def write() -> Any:
        Path("requirements.md").write_bytes(bytes(2 << 20))
        return {}

    async def wait() -> Any:
        name = "tapps.artifact.digest"
        await until_async(lambda: any(one.get("name") == name for one in events()))
        return {}

    project.does |= {"analyst": write, "documenter": wait}
    project.run()

    spans = exporter.get_finished_spans()
    (root,) = (span for span in spans if span.name == "workflow Demo")
    noted = [event.attributes or {} for event in root.events if event.name == "annotation"]
    assert {(one["tapps.annotation.name"], one["tapps.step.id"]) for one in noted} == {
        ("tapps.gate", "s2"),
        ("tapps.artifact.digest", "s1"),
    }
    assert bytes_of(rebuilt()) == bytes_of(spans)


def test_a_manual_run_has_a_trace(project: Project, exporter: Any) -> None:
    project.write()
    executor = project.executor()
    executor.start()
    for name in FIVE:
        executor.mark_step_complete(name)

    assert bytes_of(rebuilt()) == bytes_of(exporter.get_finished_spans())
    assert {span.end_time - span.start_time for span in rebuilt() if "step" in span.name} == {0}


def test_a_killed_run_and_its_resume_share_a_trace(project: Project, exporter: Any) -> None:
    project.write()
    project.kill_in("architect")
    asyncio.run(resume(project.executor(), only_run()))

    spans = rebuilt()
    assert len({span.context.trace_id for span in spans}) == 1
    first, second = sorted(
        (span for span in spans if span.name == "workflow Demo"), key=lambda span: span.start_time
    )
    (cut,) = (span for span in spans if span.attributes["tapps.status"] == "interrupted" and
              span.name == "step s3")  # fmt: skip
    assert second.parent.span_id == first.context.span_id
    assert [link.context.span_id for link in second.links] == [cut.context.span_id]
    assert first.attributes["error.type"] == cut.attributes["error.type"] == "interrupted"
    assert bytes_of(exporter.get_finished_spans()) <= bytes_of(spans)
    assert len([span for span in spans if span.name == "step s1"]) == 1


@pytest.mark.parametrize("workflow_id", ["demo", "../../x"])
def test_spans_of_libraries_are_captured_in_its_log(
    project: Project, exporter: Any, workflow_id: str
) -> None:
    provider: Any = trace.get_tracer_provider()
    provider.add_span_processor(SimpleSpanProcessor(JsonlSpanExporter()))

    async def call() -> None:
        with trace.get_tracer("library").start_as_current_span("HTTP"):
            pass

    project.write(workflow_id=workflow_id)
    project.does["planner"] = call
    executor = project.executor()
    executor.save_state = lambda: None  # tapps-agents would write outside the folder
    executor.event_log.emit_event = lambda **_: None
    asyncio.run(executor.execute())

    assert bytes_of(rebuilt()) == bytes_of(exporter.get_finished_spans())
    assert [path.name for path in LOGS.glob("*+*")] == []
