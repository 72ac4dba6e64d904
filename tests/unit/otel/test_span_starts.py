"""Spans of libraries in the log from their start: what a killed process was doing is known."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

import tapps_otel
from crashes import die_at, go, killed
from independent_checker import check
from logs import event, start, write
from tapps_otel import JsonlSpanExporter, JsonlSpanProcessor, Redaction, Run, bind, step, workflow
from tapps_otel.log.event import Event
from tapps_otel.log.open_log import OpenLog
from tapps_otel.log.store import Store
from tapps_otel.otel import run_registry
from tapps_otel.otel.capture import claims
from tapps_otel.otel.live import catch_up
from tapps_otel.otel.mapping.owner import is_marker
from tapps_otel.otel.replay.run_spans import RunSpans

LOGS = Path("logs")


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    tapps_otel.configure(log_dir=LOGS, durability="os")
    yield
    for path in LOGS.glob("*.jsonl"):
        check(path)


class Program:
    """A program with a provider of its own, whose finished spans are kept."""

    def __init__(self, *processors: SpanProcessor, **options: Any) -> None:
        self.sent = InMemorySpanExporter()
        self.provider = TracerProvider(
            resource=Resource({"service.name": "t"}), shutdown_on_exit=False, **options
        )
        self.provider.add_span_processor(SimpleSpanProcessor(self.sent))
        for processor in processors:
            self.provider.add_span_processor(processor)
        trace._TRACER_PROVIDER = self.provider
        self.tracer = self.provider.get_tracer("library", "1.2")

    def given(self) -> list[ReadableSpan]:
        """What it sends, without markers."""
        return [span for span in self.sent.get_finished_spans() if not is_marker(span)]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    yield Program(JsonlSpanProcessor())
    if catch_up._worker is not None:  # of a resume
        catch_up._worker.shutdown()


def rebuilt(run: str = "r") -> list[ReadableSpan]:
    found = RunSpans(Store(LOGS), run)
    spans = [one.span for one in found]
    assert found.problems == []
    assert len({span.context.span_id for span in spans}) == len(spans)
    return spans


def encoded(spans: Any) -> dict[int, bytes]:
    return {span.context.span_id: encode_spans([span]).SerializeToString() for span in spans}


class Named:
    """A span as a claim sees it."""

    def __init__(self, context: SpanContext) -> None:
        self.context = context


def times(span: ReadableSpan) -> tuple[int, int]:
    return span.start_time or 0, span.end_time or 0


def types(run: str = "r") -> list[str]:
    return [one["event_type"] for one in check(LOGS / f"{run}.jsonl")]


def call(tracer: trace.Tracer, name: str = "GET") -> None:
    """What a library does; it may be killed in the middle."""
    with tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes={"a": 1}) as span:
        die_at(name)
        span.set_attribute("b", 2)


@step
def fetch() -> int:
    tracer = trace.get_tracer("library", "1.2")
    with tracer.start_as_current_span("session"):
        call(tracer, "before")
        call(tracer)
    return 1


@workflow
def flow() -> int:
    return fetch()


# ---------------------------------------------------------------- spans that end


def test_a_span_is_in_the_log_from_its_start(program: Program) -> None:
    with Run.open("flow", workflow_id="r"), program.tracer.start_as_current_span("GET"):
        assert types() == ["workflow_start", "span_start"]
    assert types() == ["workflow_start", "span_start", "span", "workflow_end"]


def test_spans_are_rebuilt_as_they_were_sent(program: Program) -> None:
    go(flow)
    ours = {span.context.span_id for span in rebuilt()}

    assert len(ours) == 5
    assert encoded(rebuilt()) == encoded(program.given())


@pytest.mark.parametrize("exporter_first", [True, False])
def test_no_span_is_written_twice_beside_an_exporter(
    monkeypatch: pytest.MonkeyPatch, *, exporter_first: bool
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    both = [SimpleSpanProcessor(JsonlSpanExporter()), JsonlSpanProcessor()]
    program = Program(*(both if exporter_first else reversed(both)))
    with Run.open("flow", workflow_id="r"):
        call(program.tracer)

    assert types().count("span") == 1
    assert encoded(rebuilt()) == encoded(program.given())


def test_an_exporter_writes_what_the_processor_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    processor, exporter = JsonlSpanProcessor(), JsonlSpanExporter()
    program = Program(processor)
    with Run.open("flow", workflow_id="r"):
        with monkeypatch.context() as patched:
            patched.setattr(processor._router, "_capture", lambda *_, **__: ([], OSError(5)))
            call(program.tracer)
        exporter.export(program.given())

    assert types() == ["workflow_start", "span_start", "span", "workflow_end"]


def test_two_processors_write_each_span_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    program = Program(JsonlSpanProcessor(), JsonlSpanProcessor())
    with Run.open("flow", workflow_id="r"):
        call(program.tracer)

    assert types() == ["workflow_start", "span_start", "span", "workflow_end"]


def test_ids_that_come_again_in_other_traces_are_other_spans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Seeded(RandomIdGenerator):
        def generate_span_id(self) -> int:
            return next(ids)

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    program = Program(
        JsonlSpanProcessor(), SimpleSpanProcessor(JsonlSpanExporter()), id_generator=Seeded()
    )
    for run in ("r", "s"):
        ids = iter(range(1, 100))
        with Run.open("flow", workflow_id=run):
            call(program.tracer)

    assert types("r") == types("s") == ["workflow_start", "span_start", "span", "workflow_end"]


def test_a_span_that_ends_in_the_middle_of_an_append_is_written_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    program = Program(JsonlSpanProcessor(), SimpleSpanProcessor(JsonlSpanExporter()))
    original = OpenLog.write

    def write(log: OpenLog, event: Event, *rest: Any, **options: Any) -> Any:
        if event.event_type == "step_finish":
            span.end()  # as a finalizer does, whenever the garbage collection comes
        return original(log, event, *rest, **options)

    with Run.open("flow", workflow_id="r") as run:
        span = program.tracer.start_span("stream")
        monkeypatch.setattr(OpenLog, "write", write)
        run.call("a", len, "abc")

    assert types().count("span") == 1
    assert [one.name for one in rebuilt()].count("stream") == 1
    assert "missing" not in caplog.text


def test_a_finalizer_may_start_spans_while_a_run_is_looked_for(program: Program) -> None:
    def in_the_middle() -> None:
        with run_registry._lock:
            call(program.tracer)

    with Run.open("flow", workflow_id="r"):
        thread = threading.Thread(target=bind(in_the_middle), daemon=True)
        thread.start()
        thread.join(60)

        assert not thread.is_alive()


def test_claims_take_bounded_memory() -> None:
    run = run_registry.KnownRun("r", LOGS, 1, 0)
    for number in range(1, 50_000):
        claims.claim(run, Named(SpanContext(number, number, is_remote=False)))  # type: ignore[arg-type]

    assert len(claims._newer) + len(claims._older) < 40_000


@pytest.mark.parametrize("what", ["outside", "unsampled", "own"])
def test_only_sampled_spans_of_libraries_in_a_run_are_written(program: Program, what: str) -> None:
    if what == "outside":
        call(program.tracer)
    with Run.open("flow", workflow_id="r") as run:
        if what == "unsampled":
            context = trace.SpanContext(1 << 100, 7, is_remote=True)
            with trace.use_span(trace.NonRecordingSpan(context)):
                call(program.tracer)
        else:
            run.call("a", len, "abc")

    assert {"span", "span_start"}.isdisjoint(types())
    assert [path.name for path in LOGS.glob("*.jsonl")] == ["r.jsonl"]


def test_a_span_that_outlives_its_run_is_not_sent_as_interrupted(program: Program) -> None:
    with Run.open("flow", workflow_id="r"):
        span = program.tracer.start_span("long")

    assert types() == ["workflow_start", "span_start", "workflow_end"]
    assert [one.name for one in rebuilt()] == ["workflow flow"]
    span.end()


def test_a_failed_execution_may_still_be_at_work_when_it_is_resumed(program: Program) -> None:
    started, go_on = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def download() -> None:
        with program.tracer.start_as_current_span("download"):
            started.set()
            go_on.wait()

    @step
    def fetch_beside() -> None:
        if not threads:
            threads.append(threading.Thread(target=bind(download)))
            threads[0].start()
            started.wait()
            raise ValueError("failed")

    @workflow
    def beside() -> None:
        fetch_beside()

    with pytest.raises(ValueError, match="failed"):
        go(beside)
    go(beside)
    assert catch_up._worker is not None
    catch_up._worker.shutdown()
    go_on.set()
    threads[0].join()

    assert [one.name for one in program.given()].count("download") == 1
    assert [one.status.status_code for one in rebuilt() if one.name == "download"] in (
        [],  # its process wrote no end into the log: the run had ended there
        [StatusCode.UNSET],
    )


def test_secrets_are_redacted(program: Program) -> None:
    tapps_otel.configure(redact=Redaction())
    with Run.open("flow", workflow_id="r"):
        program.tracer.start_span("GET", attributes={"api_key": "hunter2-secret"}).end()

    assert b"hunter2-secret" not in (LOGS / "r.jsonl").read_bytes()
    assert types().count("span_start") == 1


def test_a_failure_harms_no_span_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    processor = JsonlSpanProcessor()
    program = Program(processor)
    with Run.open("flow", workflow_id="r"), monkeypatch.context() as patched:
        patched.setattr(processor._router, "write", lambda *_, **__: 1 / 0)
        patched.setattr(processor._router, "write_start", lambda *_, **__: 1 / 0)
        call(program.tracer)
        call(program.tracer)

    assert [one.name for one in program.given()] == ["GET", "GET", "workflow flow"]
    assert caplog.text.count("spans could not be written to a log") == 1


# ---------------------------------------------------------------- spans that do not


def test_what_a_killed_process_was_doing_is_interrupted_below_its_step(program: Program) -> None:
    killed(partial(go, flow), at="GET")
    spans = {span.name: span for span in rebuilt()}

    assert sorted(spans) == ["GET", "before", "session", "step fetch", "workflow flow"]
    assert spans["before"].status.status_code is StatusCode.UNSET
    for name in ("GET", "session"):
        span = spans[name]
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "execution 1 ended without ending this span"
        assert (span.attributes or {})["tapps.status"] == "interrupted"
    assert spans["GET"].kind is SpanKind.CLIENT
    assert dict(spans["GET"].attributes or {}) == {
        "a": 1, "tapps.status": "interrupted", "error.type": "interrupted"
    }  # fmt: skip
    parents = {name: span.parent.span_id for name, span in spans.items() if span.parent}
    ids = {name: span.context.span_id for name, span in spans.items()}
    assert (parents["GET"], parents["session"]) == (ids["session"], ids["step fetch"])
    for name, span in spans.items():
        if name in parents:
            outer = next(one for one in spans.values() if one.context.span_id == parents[name])
            assert times(outer)[0] <= times(span)[0] < times(span)[1] <= times(outer)[1]


def test_a_resume_does_not_change_them(program: Program) -> None:
    killed(partial(go, flow), at="GET")
    before = encoded(rebuilt())

    go(flow)
    after = encoded(rebuilt())

    assert before.items() <= after.items()
    assert len(after) == len(before) + 5


def test_a_resume_hands_them_to_the_provider_of_the_program(program: Program) -> None:
    killed(partial(go, flow), at="GET")
    cut = {one.name for one in rebuilt() if one.status.status_code is StatusCode.ERROR}

    go(flow)
    assert catch_up._worker is not None
    catch_up._worker.shutdown()
    handed = encoded(program.given())

    assert cut == {"GET", "session", "step fetch", "workflow flow"}
    assert handed.items() <= encoded(rebuilt()).items()
    assert {one.name for one in program.given()} >= cut
    assert types().count("span") == 4  # one of the first execution, three of the second
    assert not Store(LOGS).side_paths()


# ---------------------------------------------------------------- logs as they may be

BEGUN: dict[str, Any] = {
    "event_type": "span_start",
    "trace_id": "1" * 32,
    "name": "GET",
    "otel": {"flags": 1},
}


def logged(*events: dict[str, Any], name: str = "r") -> None:
    write(LOGS / f"{name}.jsonl", [start(), *(event(**one) for one in events)])


def test_the_end_may_be_in_a_side_log(program: Program) -> None:
    logged({**BEGUN, "span_id": "a" * 16}, {**BEGUN, "span_id": "b" * 16})
    end: dict[str, Any] = {**BEGUN, "event_type": "span", "span_id": "a" * 16, "duration_ns": 5}
    write(LOGS / "r+01234567.jsonl", [event(**end)])

    spans = [span for span in rebuilt() if span.name == "GET"]
    assert [
        (span.status.status_code is StatusCode.ERROR, f"{span.context.span_id:016x}")
        for span in spans
    ] == [(False, "a" * 16), (True, "b" * 16)]


def test_starts_of_a_child_are_not_interrupted_once_the_run_has_ended(program: Program) -> None:
    end = event("workflow_end", status="completed", duration_ns=5)
    write(LOGS / "r.jsonl", [start(), end])
    write(LOGS / "r+01234567.jsonl", [event(**{**BEGUN, "span_id": "a" * 16})])

    assert "GET" not in [span.name for span in rebuilt()]


@pytest.mark.parametrize("order", [0, 1])
def test_start_and_end_may_be_in_two_side_logs_in_any_order(program: Program, order: int) -> None:
    end: dict[str, Any] = {**BEGUN, "event_type": "span", "duration_ns": 5}
    names = ["r+00000000.jsonl", "r+11111111.jsonl"]
    logged()
    for one, name in zip((BEGUN, end), names[:: 1 - 2 * order], strict=True):
        write(LOGS / name, [event(**{**one, "span_id": "a" * 16})])

    (span,) = (one for one in rebuilt() if one.name == "GET")
    assert span.status.status_code is StatusCode.UNSET


def test_large_starts_take_bounded_memory(program: Program) -> None:
    large = {"flags": 1, "attributes": {"prompt": "x" * 900_000}}
    logged(*({**BEGUN, "span_id": f"{one:016x}", "otel": large} for one in range(1, 51)))
    found = RunSpans(Store(LOGS), "r")

    assert sum(one.span.name == "GET" for one in found) == 37
    assert "too many spans have begun" in found.problems[0]


@pytest.mark.slow
def test_starts_without_number_take_bounded_memory(program: Program) -> None:
    logged(*({**BEGUN, "span_id": f"{one:016x}"} for one in range(1, 10_102)))
    found = RunSpans(Store(LOGS), "r")

    assert sum(one.span.name == "GET" for one in found) == 10_000
    assert "too many spans have begun" in found.problems[0]


@pytest.mark.parametrize(
    "odd",
    [{"span_id": "zz"}, {"otel": {"flags": 1, "kind": 99}}, {"timestamp": "1969-01-01T00:00:00Z"}],
    ids=["id", "kind", "time"],
)
def test_a_malformed_start_is_a_problem_with_its_place(
    program: Program, odd: dict[str, Any]
) -> None:
    logged({**BEGUN, "span_id": "a" * 16, **odd}, {**BEGUN, "span_id": "b" * 16})
    found = RunSpans(Store(LOGS), "r")

    assert [one.span.name for one in found].count("GET") == 1
    assert "seq 2: this span cannot be rebuilt" in found.problems[0]
