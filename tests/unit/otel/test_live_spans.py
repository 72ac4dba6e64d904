"""Live spans: their ids, their content, and that they can be rebuilt from the log."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from msgspec import UNSET
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ReadableSpan,
    Span,
    SpanLimits,
    SpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags, TraceState

from tapps_otel import clock
from tapps_otel.log.event import Event, decode, encode
from tapps_otel.otel import seam
from tapps_otel.otel.live import spans
from tapps_otel.otel.mapping.content import time_of
from tapps_otel.otel.replay.rebuild import Rebuilder
from tapps_otel.otel.seam import LiveSpan, SpanRef
from tapps_otel.redact import NO_RULES
from tapps_otel.settings_model import Settings
from tapps_otel.version import __version__

T0 = 1_760_000_000_000_000_000
SHA = "ab" * 32


class Driver:
    """Plays the recorder: numbers events, "writes" them, and adds them to spans."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self.tracing = spans._Tracing(provider, Settings(announce="off"))
        self.now = T0
        self.lines: list[Event] = []

    def event(self, event_type: str, **fields: Any) -> Event:
        self.now += 1_000
        return Event(
            event_type=event_type,
            workflow_id="nightly-42",
            timestamp=clock.timestamp(self.now),
            execution=1,
            **fields,
        )

    def write(self, event: Event) -> Event:
        """Number it and keep what a reader of its line would see."""
        event.seq = len(self.lines) + 1
        self.lines.append(decode(encode(event, b"0" * 64)[0]))
        return event

    def begin(
        self,
        event: Event,
        parent: SpanRef | LiveSpan | None = None,
        links: Sequence[SpanRef] = (),
    ) -> LiveSpan:
        if event.workflow is not UNSET:  # an execution's own event
            event.resource = self.tracing.resource or UNSET
        span = self.tracing.start(event, start_ns=self.now, parent=parent, links=links)
        span.record(self.write(event))
        return span

    def workflow(self, **fields: Any) -> LiveSpan:
        fields = {"status": "running", "workflow": {"name": "article"}, **fields}
        return self.begin(self.event("workflow_start", **fields))

    def step(self, parent: LiveSpan, name: str = "draft", **fields: Any) -> LiveSpan:
        fields = {"step_id": name, "step": name, "attempt": 1, "status": "running", **fields}
        return self.begin(self.event("step_start", **fields), parent)

    def end(self, span: LiveSpan, event_type: str = "step_finish", **fields: Any) -> Event:
        fields = {"status": "completed", "duration_ns": 5_000, **fields}
        event = self.event(event_type, **fields)
        event.trace_id, event.span_id = span.trace_id, span.span_id
        if event_type != "workflow_end":
            event.step_id = event.step = "draft"
        span.hold(event, NO_RULES)
        span.end(self.write(event), sha=SHA if event_type == "workflow_end" else None)
        return event


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def provider_to(exporter: InMemorySpanExporter, **options: Any) -> TracerProvider:
    made = TracerProvider(
        resource=Resource({"service.name": "test", "host.name": "here"}),
        shutdown_on_exit=False,
        **options,
    )
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


@pytest.fixture
def driver(exporter: InMemorySpanExporter) -> Driver:
    return Driver(provider_to(exporter))


@pytest.fixture(autouse=True)
def warnings_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "_warned", set())


@pytest.fixture
def attached() -> Iterator[Callable[[trace.Span], None]]:
    """Make spans current, and undo it."""
    tokens = []
    yield lambda span: tokens.append(contexts.attach(trace.set_span_in_context(span)))
    for token in reversed(tokens):
        contexts.detach(token)


# ---------------------------------------------------------------- ids and content


def test_a_run_is_one_trace_with_the_ids_of_the_log(
    driver: Driver, exporter: InMemorySpanExporter
) -> None:
    run = driver.workflow()
    step = driver.step(run)
    inner = driver.step(step, "inner", step_id="draft/inner")
    driver.end(inner)
    driver.end(step)
    driver.end(run, "workflow_end")
    sent = {span.name: span for span in exporter.get_finished_spans()}
    starts = [e for e in driver.lines if e.event_type.endswith("_start")]

    assert list(sent) == ["step inner", "step draft", "workflow article"]
    for name, event in zip(["workflow article", "step draft", "step inner"], starts, strict=True):
        span = sent[name]
        assert event.trace_id == f"{span.context.trace_id:032x}"
        assert event.span_id == f"{span.context.span_id:016x}"
        assert span.start_time == clock.parse_timestamp(event.timestamp)
        assert span.end_time == span.start_time + 5_000
    assert sent["workflow article"].parent is None
    assert starts[0].parent_span_id is UNSET
    assert sent["step draft"].parent == sent["workflow article"].context
    assert starts[1].parent_span_id == run.span_id
    assert inner.parent_span_id == step.span_id


def test_the_span_of_a_completed_run(driver: Driver, exporter: InMemorySpanExporter) -> None:
    run = driver.workflow(workflow={"name": "article", "path": "app.flows:article"})
    step = driver.step(run, agent="writer", action="write", attempt=2)
    driver.end(step, artifacts=[{"name": "page", "path": "out/a.md", "bytes": 12}])
    driver.end(run, "workflow_end")
    of_step, of_run = exporter.get_finished_spans()

    assert dict(of_run.attributes or {}) == {
        "tapps.execution": 1,
        "tapps.workflow.id": "nightly-42",
        "tapps.workflow.name": "article",
        "code.function.name": "app.flows.article",
        "tapps.status": "completed",
        "tapps.seq.first": 1,
        "tapps.seq.last": 4,
        "tapps.log.sha": SHA,
    }
    assert dict(of_step.attributes or {}) == {
        "tapps.execution": 1,
        "tapps.workflow.id": "nightly-42",
        "tapps.workflow.name": "article",
        "tapps.attempt": 2,
        "tapps.agent.name": "writer",
        "tapps.action": "write",
        "tapps.step.id": "draft",
        "tapps.step.name": "draft",
        "tapps.status": "completed",
        "tapps.artifacts": 1,
    }
    assert [(e.name, dict(e.attributes or {})) for e in of_step.events] == [
        ("step_start", {"tapps.seq": 2, "tapps.step.id": "draft", "tapps.status": "running"}),
        (
            "tapps.artifact",
            {
                "tapps.artifact.name": "page",
                "tapps.artifact.path": "out/a.md",
                "tapps.artifact.bytes": 12,
            },
        ),
        ("step_finish", {"tapps.seq": 3, "tapps.step.id": "draft", "tapps.status": "completed"}),
    ]
    assert of_step.kind is of_run.kind is trace.SpanKind.INTERNAL
    assert of_step.status.status_code is of_run.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("status", ["failed", "timeout", "cancelled", "interrupted"])
def test_an_unsuccessful_status_is_an_error(
    driver: Driver, exporter: InMemorySpanExporter, status: str
) -> None:
    error = {"type": "app.NoPaper", "message": "tray 2 is empty", "stack": "Traceback ...\n"}
    driver.end(driver.step(driver.workflow()), "step_fail", status=status, error=error)
    (span,) = exporter.get_finished_spans()

    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "tray 2 is empty"
    assert (span.attributes or {})["error.type"] == "app.NoPaper"
    assert (span.attributes or {})["tapps.status"] == status
    assert [(e.name, dict(e.attributes or {})) for e in span.events[1:]] == [
        (
            "exception",
            {
                "tapps.seq": 3,
                "exception.type": "app.NoPaper",
                "exception.message": "tray 2 is empty",
                "exception.stacktrace": "Traceback ...\n",
            },
        ),
        ("step_fail", {"tapps.seq": 3, "tapps.step.id": "draft", "tapps.status": status}),
    ]


def test_a_skip_is_not_an_error(driver: Driver, exporter: InMemorySpanExporter) -> None:
    driver.end(driver.step(driver.workflow()), "step_skip", status="skipped", reason="no change")
    (span,) = exporter.get_finished_spans()

    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})["tapps.reason"] == "no change"
    assert "error.type" not in (span.attributes or {})


def test_the_start_event_notes_what_a_rebuild_needs(driver: Driver) -> None:
    run = driver.workflow()
    driver.step(run)
    start, step = driver.lines

    assert start.otel == {"flags": 3, "scope": {"name": "tapps_otel", "version": __version__}}
    assert step.otel is UNSET  # all as the scope's
    assert driver.tracing.resource == {"service.name": "test", "host.name": "here"}


def test_a_run_is_a_child_of_the_callers_span(
    driver: Driver, attached: Callable[[trace.Span], None]
) -> None:
    context = SpanContext(
        0xA1, 0xB2, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("k", "v")])
    )
    attached(trace.NonRecordingSpan(context))
    run = driver.workflow()

    assert (run.trace_id, run.parent_span_id) == (f"{0xA1:032x}", f"{0xB2:016x}")
    assert driver.lines[0].parent_span_id == f"{0xB2:016x}"
    assert isinstance(driver.lines[0].otel, dict)
    assert driver.lines[0].otel["parent_is_remote"] is True
    assert driver.lines[0].otel["trace_state"] == "k=v"


def test_a_resumed_execution_is_in_the_same_trace_with_a_link(
    driver: Driver, exporter: InMemorySpanExporter
) -> None:
    first, killed = SpanRef("0a" * 16, "0b" * 8), SpanRef("0a" * 16, "0c" * 8, flags=3)
    event = driver.event("workflow_resume", status="running", workflow={"name": "article"})
    run = driver.begin(event, first, [killed])
    driver.end(run, "workflow_end")
    (span,) = exporter.get_finished_spans()

    assert (run.trace_id, run.parent_span_id) == (first.trace_id, first.span_id)
    assert [f"{link.context.span_id:016x}" for link in span.links] == [killed.span_id]
    assert isinstance(driver.lines[0].otel, dict)
    assert driver.lines[0].otel["links"] == [
        {
            "trace_id": killed.trace_id,
            "span_id": killed.span_id,
            "flags": 3,
            "is_remote": True,
            "attributes": {"tapps.link": "interrupted"},
        }
    ]


def test_a_span_that_the_user_opened_between_is_linked_not_the_parent(
    driver: Driver, exporter: InMemorySpanExporter, attached: Callable[[trace.Span], None]
) -> None:
    run = driver.workflow()
    attached(run.span)  # type: ignore[attr-defined]
    between = trace.NonRecordingSpan(SpanContext(0xA1, 0xB2, is_remote=False))
    attached(between)
    step = driver.step(run)
    driver.end(step)
    (span,) = exporter.get_finished_spans()

    assert step.parent_span_id == run.span_id
    assert [(link.context.span_id, dict(link.attributes or {})) for link in span.links] == [
        (0xB2, {"tapps.link": "caller"})
    ]


def test_spans_of_libraries_are_children_of_the_step(
    driver: Driver, exporter: InMemorySpanExporter
) -> None:
    step = driver.step(driver.workflow())
    token = step.attach()
    with driver.tracing.provider.get_tracer("library").start_as_current_span("GET"):
        pass
    step.detach(token)

    assert f"{exporter.get_finished_spans()[0].parent.span_id:016x}" == step.span_id  # type: ignore[union-attr]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_detaching_in_another_task_is_silent(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    step = driver.step(driver.workflow())

    async def attach() -> object:
        return step.attach()

    token = await asyncio.create_task(attach())
    step.detach(token)
    step.detach(token)
    step.detach(None)

    assert not caplog.records


# ---------------------------------------------------------------- without an SDK that works


class Broken(SpanProcessor):
    """A processor that raises: the SDK lets its exceptions through to the caller."""

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        raise RuntimeError("on_start is broken")

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("on_end is broken")


class BrokenSampler(Sampler):
    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        raise ValueError("no opinion")

    def get_description(self) -> str:
        return "broken"


def broken_start() -> TracerProvider:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(Broken())
    return made


def disabled(monkeypatch: pytest.MonkeyPatch) -> trace.TracerProvider:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    return TracerProvider(shutdown_on_exit=False)


@pytest.mark.parametrize(
    ("make", "warned"),
    [
        (lambda _: trace.NoOpTracerProvider(), False),
        (disabled, False),
        (lambda _: broken_start(), True),
        (lambda _: TracerProvider(sampler=BrokenSampler(), shutdown_on_exit=False), True),
    ],
    ids=["no SDK", "SDK disabled", "broken processor", "broken sampler"],
)
def test_without_an_sdk_that_works_the_ids_are_our_own(
    make: Callable[[pytest.MonkeyPatch], trace.TracerProvider],
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = Driver(make(monkeypatch))
    run = driver.workflow()
    token = run.attach()
    steps = [driver.step(run), driver.step(run, "edit")]
    for step in steps:
        driver.end(step, "step_fail", status="failed", error={"type": "E", "message": "m"})
    run.detach(token)
    end = driver.end(run, "workflow_end")
    ids = {run.span_id, *(step.span_id for step in steps)}

    assert len(ids) == 3
    assert "0" * 16 not in ids
    assert int(run.trace_id, 16)
    assert {step.trace_id for step in steps} == {run.trace_id}
    assert {step.parent_span_id for step in steps} == {run.span_id}
    assert [e.otel for e in driver.lines if e.event_type == "step_start"] == [UNSET, UNSET]
    assert "flags" not in (driver.lines[0].otel or {})
    assert end.otel is UNSET
    said = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) == (1 if warned else 0)  # once, not at every span


def test_without_an_sdk_the_callers_trace_is_kept(
    attached: Callable[[trace.Span], None],
) -> None:
    attached(trace.NonRecordingSpan(SpanContext(0xA1, 0xB2, True, TraceFlags(1))))
    run = Driver(trace.NoOpTracerProvider()).workflow()

    assert (run.trace_id, run.parent_span_id) == (f"{0xA1:032x}", f"{0xB2:016x}")
    assert run.span_id != f"{0xB2:016x}"


def test_an_unsampled_run_has_the_sdks_ids(exporter: InMemorySpanExporter) -> None:
    driver = Driver(provider_to(exporter, sampler=ParentBased(ALWAYS_OFF)))
    run = driver.workflow()
    step = driver.step(run)
    end = driver.end(step)
    driver.end(run, "workflow_end")

    assert step.trace_id == run.trace_id
    assert step.parent_span_id == run.span_id
    assert isinstance(driver.lines[0].otel, dict)
    assert driver.lines[0].otel["flags"] == 2  # random, not sampled
    assert end.otel is UNSET
    assert exporter.get_finished_spans() == ()


def test_a_processor_that_fails_at_the_end_is_logged_once(
    exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    provider = provider_to(exporter)

    class BreaksAtEnd(Broken):
        def on_start(self, span: Span, parent_context: Any = None) -> None:
            pass

    provider.add_span_processor(BreaksAtEnd())
    driver = Driver(provider)
    run = driver.workflow()
    driver.end(driver.step(run))
    driver.end(run, "workflow_end")

    assert len(exporter.get_finished_spans()) == 2
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "on_end is broken" in caplog.text


def test_spans_of_another_sdk_are_left_alone() -> None:
    """Spans of a provider that is not the SDK need not show what they hold."""

    class Foreign(trace.NonRecordingSpan):
        def is_recording(self) -> bool:
            return True

    class ForeignTracer(trace.NoOpTracer):
        def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
            ids = RandomIdGenerator()
            return Foreign(SpanContext(ids.generate_trace_id(), ids.generate_span_id(), False))

    class ForeignProvider(trace.NoOpTracerProvider):
        def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
            return ForeignTracer()

    driver = Driver(ForeignProvider())
    end = driver.end(driver.workflow(), "workflow_end")

    assert driver.tracing.resource is None
    assert end.otel is UNSET


# ---------------------------------------------------------------- rebuilt from the log


class Adding(Sampler):
    """Samples, and adds attributes and a trace state."""

    def __init__(self, trace_state: TraceState, **attributes: Any) -> None:
        self.trace_state, self.attributes = trace_state, attributes

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        asked = inspect.signature(Sampler.should_sample).bind(self, *args, **kwargs).arguments
        added = {**asked["attributes"], **self.attributes}
        return SamplingResult(Decision.RECORD_AND_SAMPLE, added, self.trace_state)

    def get_description(self) -> str:
        return "says"


def rebuilt(lines: list[Event]) -> dict[int, ReadableSpan]:
    """The spans rebuilt from the lines alone."""
    rebuilder = Rebuilder(blob=lambda name: b"{}")
    found = [one.span for line in lines for one in rebuilder.feed(line, SHA.encode())]

    assert rebuilder.problems == []
    return {span.context.span_id: span for span in found}


User = Callable[[Any], None]


def assert_rebuilds(driver: Driver, exporter: InMemorySpanExporter) -> None:
    again = rebuilt(driver.lines)
    sent = exporter.get_finished_spans()

    assert {span.context.span_id for span in sent} == set(again)
    for span in sent:
        assert encoded(again[span.context.span_id]) == encoded(span)


def encoded(span: ReadableSpan) -> tuple[Any, bytes]:
    """What the collector gets: as a message, to show differences, and as bytes."""
    request = encode_spans([span])
    return request, request.SerializeToString()


def other_context() -> SpanContext:
    return SpanContext(0xA1, 0xB2, is_remote=True, trace_flags=TraceFlags(1))


@pytest.mark.parametrize(
    "user",
    [
        lambda span: None,
        lambda span: span.set_attribute("mine", 1),
        lambda span: span.set_attribute("tapps.step.id", "draft"),  # the same, in another place
        lambda span: span.set_attributes({"a": [1, 2], "b": b"\x00", "c": None, "d": {"e": 1.5}}),
        lambda span: span.set_attribute("f", [float("nan"), float("inf"), -0.0]),
        lambda span: span.add_event("progress", {"part": 3}, T0 + 5),
        lambda span: span.record_exception(ValueError("handled")),
        lambda span: [span.add_event(f"e{i}", timestamp=T0) for i in range(300)],
        lambda span: [span.set_attribute(f"a{i}", i) for i in range(200)],
        lambda span: span.add_link(other_context(), {"why": "asked"}),
        lambda span: span.update_name("renamed"),
        lambda span: span.set_status(Status(StatusCode.OK)),
        lambda span: span.set_status(StatusCode.ERROR, "the user's"),
        lambda span: span.end(T0 + 77),
    ],
)
@pytest.mark.parametrize("status", ["completed", "failed"])
def test_the_log_has_what_the_user_put_on_the_span(
    driver: Driver, exporter: InMemorySpanExporter, user: User, status: str
) -> None:
    run = driver.workflow()
    step = driver.step(run)
    user(step.span)  # type: ignore[attr-defined]
    error = {"error": {"type": "E", "message": "m", "stack": None}} if status == "failed" else {}
    kind = "step_fail" if status == "failed" else "step_finish"
    driver.end(step, kind, status=status, **error)
    driver.end(run, "workflow_end")

    assert len(exporter.get_finished_spans()) == 2
    assert_rebuilds(driver, exporter)


def test_an_unchanged_span_needs_no_note(driver: Driver) -> None:
    run = driver.workflow()
    annotation = driver.event("annotation", name="note", attributes={"rows": 3})
    run.record(driver.write(annotation))
    step = driver.step(run)

    assert driver.end(step).otel is UNSET
    assert driver.end(run, "workflow_end").otel is UNSET


def test_a_note_too_large_for_a_line_goes_into_a_blob(driver: Driver) -> None:
    blobs: list[bytes] = []

    def put(data: bytes) -> str:
        blobs.append(data)
        return "digest"

    def full() -> str:
        raise OSError("disk full")

    ends = []
    for keep in (put, None, lambda _: full()):
        step = driver.step(driver.workflow())
        step.span.set_attribute("prompt", "x" * 100_000)  # type: ignore[attr-defined]
        ends.append(driver.event("step_finish", status="completed"))
        step.hold(ends[-1], NO_RULES, keep)
    lost = {"omitted": f"{len(blobs[0])} bytes"}

    assert [(end.otel_blob, end.otel) for end in ends] == [
        ("digest", UNSET),
        (UNSET, lost),
        (UNSET, lost),
    ]
    assert json.loads(blobs[0])["attributes"]["prompt"] == "x" * 100_000


def test_events_out_of_order_are_noted(driver: Driver, exporter: InMemorySpanExporter) -> None:
    run = driver.workflow()
    for_later = []
    for name in ("one", "two"):
        event = driver.event("annotation", name=name, span_id=run.span_id)
        for_later.append(driver.write(event))
    run.record(for_later[1])
    run.record(for_later[0])
    end = driver.end(run, "workflow_end")

    assert isinstance(end.otel, dict)
    assert end.otel["events"] == [1, 3, 2]
    assert_rebuilds(driver, exporter)


def test_an_event_without_a_number_is_noted_whole(driver: Driver) -> None:
    """As when the log cannot be written, and the event waits."""
    run = driver.workflow()
    run.record(driver.event("annotation", name="waits"))
    end = driver.end(run, "workflow_end")

    assert isinstance(end.otel, dict)
    assert end.otel["events"] == [
        1,
        ["annotation", time_of(driver.lines[0]) + 1_000, {"tapps.annotation.name": "waits"}],
    ]


@pytest.mark.parametrize(
    "limits",
    [
        {"max_attribute_length": 4},
        {"max_span_attributes": 3},
        {"max_events": 1},
        {"max_event_attributes": 1},
        {"max_links": 0},
    ],
    ids=lambda limits: next(iter(limits)),
)
def test_limits_of_the_provider_are_logged(
    exporter: InMemorySpanExporter, limits: dict[str, int]
) -> None:
    driver = Driver(provider_to(exporter, span_limits=SpanLimits(**limits)))
    first = SpanRef("0a" * 16, "0b" * 8)
    event = driver.event("workflow_resume", status="running", workflow={"name": "article"})
    run = driver.begin(event, first, [first])
    step = driver.step(run)
    driver.end(step, "step_fail", status="failed", error={"type": "Long", "message": "longer"})
    driver.end(run, "workflow_end")

    assert_rebuilds(driver, exporter)


@pytest.mark.parametrize("own", [126, 127, 128, 300])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 1), (1, 0), (2, 3)])
def test_events_of_the_user_at_the_limit_are_in_their_places(
    driver: Driver, exporter: InMemorySpanExporter, own: int, before: int, after: int
) -> None:
    """The SDK keeps the last 128: how many there are does not tell whose they are."""
    run = driver.workflow()
    for _ in range(before):
        run.span.add_event("of the user")  # type: ignore[attr-defined]
    for number in range(own):
        event = driver.event("annotation", name=f"note {number}", span_id=run.span_id)
        run.record(driver.write(event))
    for _ in range(after):
        run.span.add_event("of the user")  # type: ignore[attr-defined]
    driver.end(run, "workflow_end")

    assert_rebuilds(driver, exporter)


@pytest.mark.parametrize("links", [127, 128, 200])
def test_links_of_the_user_at_the_limit_are_in_their_places(
    driver: Driver, exporter: InMemorySpanExporter, links: int
) -> None:
    run = driver.workflow()
    for number in range(links):
        context = SpanContext(1, number + 1, is_remote=False)
        run.span.add_link(context)  # type: ignore[attr-defined]
    driver.end(run, "workflow_end")

    assert_rebuilds(driver, exporter)


def test_what_a_sampler_or_a_processor_adds_is_noted(exporter: InMemorySpanExporter) -> None:
    class Names(SpanProcessor):
        def on_start(self, span: Span, parent_context: Any = None) -> None:
            span.update_name(f"{span.name}!")

    provider = provider_to(exporter, sampler=Adding(TraceState([("th", "8")]), added="yes"))
    provider.add_span_processor(Names())
    driver = Driver(provider)
    run = driver.workflow()
    driver.end(driver.step(run))
    driver.end(run, "workflow_end")

    assert [s.name for s in exporter.get_finished_spans()] == ["step draft!", "workflow article!"]
    assert_rebuilds(driver, exporter)


def test_a_step_that_outlives_its_run_is_rebuilt(exporter: InMemorySpanExporter) -> None:
    provider = provider_to(exporter, sampler=Adding(TraceState([("th", "8")])))
    driver = Driver(provider)
    run = driver.workflow()
    early = driver.step(run)
    driver.end(run, "workflow_end")
    late = driver.step(early)
    driver.end(early)
    driver.end(driver.step(run))
    driver.end(driver.step(early))
    driver.end(late)

    assert len(exporter.get_finished_spans()) == 5
    assert_rebuilds(driver, exporter)
