"""Spans of libraries in the logs of runs: whole, once, in the right log, harming no run."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

import tapps_otel
from capabilities import need
from independent_checker import check
from logs import Settable, event, start, write
from tapps_otel import JsonlSpanExporter, Run, clock, step, workflow
from tapps_otel.log import files
from tapps_otel.log.files import FaultyFiles, Files
from tapps_otel.log.lease import Lease
from tapps_otel.log.store import Store
from tapps_otel.log.writer import LogWriter
from tapps_otel.otel import run_registry
from tapps_otel.otel.capture import side_logs
from tapps_otel.otel.live import catch_up
from tapps_otel.otel.mapping.owner import own_run_id
from tapps_otel.otel.replay.run_spans import RunSpans

SUCCESS, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE


class Traced:
    """A program with a provider of its own; its spans wait until they are exported.

    :ivar exporter: the one under test
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waiting = InMemorySpanExporter()
        self.provider = self.made()
        self.tracer = self.provider.get_tracer("library", "1.2", "https://example.org/schema")
        self.exporter = JsonlSpanExporter()
        self.given: list[ReadableSpan] = []

    def made(self, **options: Any) -> TracerProvider:
        options = {"resource": Resource({"service.name": "test"}), **options}
        provider = TracerProvider(shutdown_on_exit=False, **options)
        provider.add_span_processor(SimpleSpanProcessor(self.waiting))
        return provider

    def call(self, name: str = "GET", **options: Any) -> trace.Span:
        """What a library does."""
        span = self.tracer.start_span(name, kind=SpanKind.CLIENT, **options)
        span.end()
        return span

    def flush(self) -> SpanExportResult:
        """Export what waits, as a batch processor does every few seconds."""
        spans = self.waiting.get_finished_spans()
        self.waiting.clear()
        self.given += spans
        return self.exporter.export(spans)

    def rebuilt(self, run: str = "r") -> list[ReadableSpan]:
        """All spans of a run, from its files alone."""
        found = RunSpans(Store(self.folder), run)
        spans = [one.span for one in found]
        assert found.problems == []
        return spans

    def names(self, run: str = "r") -> list[str]:
        return [span.name for span in self.rebuilt(run)]

    def beside(self, run: str = "r") -> list[Path]:
        return Store(self.folder).side_paths().get(run, [])


@pytest.fixture
def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    folder = tmp_path / "logs"
    tapps_otel.configure(log_dir=folder, durability="os")
    made = Traced(folder)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", made.provider)
    yield made
    if catch_up._worker is not None:  # of a resume: what the execution before could not send
        catch_up._worker.shutdown()
    made.exporter.shutdown()
    for path in folder.glob("*.jsonl"):
        check(path)


def by_id(spans: Sequence[ReadableSpan]) -> dict[int, bytes]:
    """Each span as a collector gets it, with resource and scope; none of them twice."""
    made = {span.context.span_id: encode_spans([span]).SerializeToString() for span in spans}
    assert len(made) == len(spans)
    return made


def writer_of(run: Run) -> LogWriter:
    writer = run._recorder.writer
    assert writer is not None
    return writer


def span_lines(path: Path) -> list[dict[str, Any]]:
    events = check(path)
    return [one for one in events if one["event_type"] == "span"]


# ---------------------------------------------------------------- whole


def test_the_whole_trace_is_rebuilt_from_the_log(traced: Traced) -> None:
    @step
    def fetch() -> int:
        with traced.tracer.start_as_current_span("outer", kind=SpanKind.SERVER):
            traced.call(attributes={"http.request.method": "GET", "server.port": 443})
        return 1

    @workflow
    def flow() -> int:
        return fetch()

    with traced.tracer.start_as_current_span("the request that all of it serves"):
        flow.options(workflow_id="r")()

    assert traced.flush() is SUCCESS
    markers = [span for span in traced.given if "tapps.marker" in (span.attributes or {})]
    assert len(markers) == 1
    assert by_id(traced.rebuilt()) == by_id([span for span in traced.given if span not in markers])
    assert traced.beside() == []


ODD: dict[str, Any] = {
    "bytes": b"\x00\xff",
    "nan": float("nan"),
    "huge": 1 << 70,
    "surrogate": "\ud800",
    "escape": "\x1b]0;title\x07\n\u2028",
    "list": ["a", "b"],
    "mixed": [1, "two", None, 3.5],
    "nested": {"a": [{"b": b"c"}]},
    "none": None,
    "empty": "",
    "float": 1e22,
}


class Word(str):
    """A subclass of text."""

    __slots__ = ()


class Number(float):
    """A subclass of a number, as NumPy's are."""


def test_values_that_json_lacks_are_rebuilt_exactly(traced: Traced) -> None:
    with Run.open("flow", workflow_id="r"):
        traced.call(attributes={**ODD, "word": Word("x"), "number": Number(1.5)})
        assert traced.flush() is SUCCESS

    (rebuilt,) = [span for span in traced.rebuilt() if span.name == "GET"]
    (line,) = span_lines(traced.folder / "r.jsonl")
    held = dict(rebuilt.attributes or {})
    assert repr(held.pop("nan")) == "nan"
    expected = dict(traced.given[-1].attributes or {})
    expected.pop("nan")
    assert held == expected
    assert line["name"] == "GET"


def test_everything_on_a_span_is_rebuilt(traced: Traced) -> None:
    limited = traced.made(
        resource=Resource({"service.name": "other"}, "https://example.org/resource"),
        span_limits=SpanLimits(max_span_attributes=2, max_events=2, max_links=1),
    )
    remote = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1))
    with Run.open("flow", workflow_id="r"):
        span = limited.get_tracer("limited").start_span(
            "POST",
            kind=SpanKind.PRODUCER,
            attributes={"a": 1, "b": 2, "c": 3},
            links=[Link(remote, {"x": 1}), Link(remote)],
        )
        for number in range(3):
            span.add_event(f"event {number}", {"n": number}, 1_000 + number)
        span.record_exception(ValueError("no"))
        span.set_status(Status(StatusCode.ERROR, "it failed"))
        span.end()
        limited.get_tracer("limited").start_span("x" * 5_000).end()
        traced.call()
        traced.flush()

    wanted = by_id([span for span in traced.given if own_run_id(span) is None])
    assert len(wanted) == 3
    found = by_id(traced.rebuilt())
    assert {span_id: found[span_id] for span_id in wanted} == wanted


def test_a_value_too_large_for_a_line_is_in_a_blob(traced: Traced) -> None:
    prompt = "\ud800 say this " * 200_000
    with Run.open("flow", workflow_id="r"):
        traced.call(attributes={"prompt": prompt})
        assert traced.flush() is SUCCESS
    traced.call(attributes={"prompt": prompt})
    assert traced.flush() is SUCCESS

    (span,) = [span for span in traced.rebuilt() if span.name == "GET"]
    (alone,) = traced.rebuilt("traces")
    assert (span.attributes or {})["prompt"] == (alone.attributes or {})["prompt"] == prompt
    assert (traced.folder / "r.jsonl").stat().st_size < 10_000
    assert tapps_otel.verify("r").ok


@pytest.mark.parametrize(("start", "end"), [(-5, 10), (10, 1 << 64)])
def test_a_span_with_an_invalid_time_does_not_affect_others(
    traced: Traced, start: int, end: int, caplog: pytest.LogCaptureFixture
) -> None:
    with Run.open("flow", workflow_id="r"):
        traced.tracer.start_span("odd", start_time=start).end(end)
        traced.call()

        assert traced.flush() is FAILURE
    assert traced.names() == ["GET", "workflow flow"]
    assert "ns is not the time of a span" in caplog.text


# ---------------------------------------------------------------- which log


def test_spans_of_a_run_in_progress_are_written_by_its_own_writer(traced: Traced) -> None:
    with Run.open("flow", workflow_id="r") as run:
        traced.call()
        assert traced.flush() is SUCCESS
        run.call("more", lambda: 1)
        traced.call()
        assert traced.flush() is SUCCESS

    kinds = [one["event_type"] for one in check(traced.folder / "r.jsonl")]
    assert kinds == [
        "workflow_start", "span", "step_start", "step_finish", "span", "workflow_end",
    ]  # fmt: skip


def test_spans_after_the_run_are_in_its_log_and_it_stays_completed(traced: Traced) -> None:
    @workflow
    def flow() -> int:
        traced.call()
        return 1

    assert flow.options(workflow_id="r")() == 1
    assert traced.flush() is SUCCESS
    last = tapps_otel.last_run()

    assert check(traced.folder / "r.jsonl")[-1]["event_type"] == "span"
    assert traced.beside() == []
    assert last is not None
    assert (last.workflow_id, last.status) == ("r", "completed")
    assert [run.status for run in tapps_otel.list_runs()] == ["completed"]
    assert flow.options(workflow_id="r")() == 1  # its stored result
    assert tapps_otel.verify("r").ok


def test_spans_after_a_failed_run_are_in_a_side_log(traced: Traced) -> None:
    fail = True

    @workflow
    def flow() -> int:
        traced.call()
        if fail:
            raise ValueError("not yet")
        return 1

    named = flow.options(workflow_id="r")
    with pytest.raises(ValueError, match="not yet"):
        named()
    before = (traced.folder / "r.jsonl").read_bytes()
    assert traced.flush() is SUCCESS
    fail = False

    assert (traced.folder / "r.jsonl").read_bytes() == before
    assert len(traced.beside()) == 1
    assert named() == 1
    assert traced.flush() is SUCCESS
    assert traced.names().count("GET") == 2


def test_while_the_lease_is_held_spans_go_to_a_side_log(traced: Traced) -> None:
    with Run.open("flow", workflow_id="r"):
        traced.call()
    lease = Lease(Store(traced.folder).lease_path("r"), "r")
    try:
        assert traced.flush() is SUCCESS
    finally:
        lease.release()

    assert [line["seq"] for line in span_lines(traced.beside()[0])] == [1]
    assert sorted(traced.names()) == ["GET", "workflow flow"]


def test_a_damaged_log_is_not_written_to(traced: Traced) -> None:
    with Run.open("flow", workflow_id="r"):
        traced.call()
        traced.flush()
        traced.call("late")
    path = traced.folder / "r.jsonl"
    damaged = path.read_bytes().replace(b'"GET"', b'"PUT"')
    path.write_bytes(damaged)

    assert traced.flush() is SUCCESS
    assert path.read_bytes() == damaged
    assert [line["name"] for line in span_lines(traced.beside()[0])] == ["late"]
    path.unlink()  # so that the rest can be checked


def test_a_removed_log_is_not_created_again(traced: Traced) -> None:
    with Run.open("flow", workflow_id="r"):
        traced.call()
    (traced.folder / "r.jsonl").unlink()

    assert traced.flush() is SUCCESS
    assert not (traced.folder / "r.jsonl").exists()
    assert traced.names() == ["GET"]


def test_a_nested_run_has_only_its_own_spans(traced: Traced) -> None:
    with Run.open("outer", workflow_id="outer"):
        traced.call("before")
        with Run.open("inner", workflow_id="inner"):
            traced.call("inside")
        traced.call("after")
    traced.flush()

    assert {"before", "after"} <= set(traced.names("outer"))
    assert traced.names("inner") == ["workflow inner", "inside"]


def test_traces_without_a_run_have_logs_of_their_own_and_are_not_listed(traced: Traced) -> None:
    with traced.tracer.start_as_current_span("request"):
        traced.call()
    assert traced.flush() is SUCCESS
    traced.call("another")
    assert traced.flush() is SUCCESS

    (path,) = traced.beside("traces")
    assert by_id(traced.rebuilt("traces")) == by_id(traced.given)
    assert path.name.startswith("traces+")
    assert list(tapps_otel.list_runs()) == []
    assert tapps_otel.last_run() is None
    assert tapps_otel.verify("traces").ok
    assert ["resource" in line for line in span_lines(path)] == [True, False, False]


def test_traces_without_a_run_can_be_ignored(traced: Traced) -> None:
    traced.exporter = JsonlSpanExporter(only_runs=True)
    traced.call()

    assert traced.flush() is SUCCESS
    assert not traced.folder.exists()


def test_traces_without_a_run_go_to_the_given_folder(traced: Traced, tmp_path: Path) -> None:
    traced.exporter = JsonlSpanExporter(log_dir="elsewhere")
    traced.call()
    traced.flush()
    traced.exporter.shutdown()

    assert [path.parent for path in Store(tmp_path / "elsewhere").side_paths()["traces"]] == [
        tmp_path / "elsewhere"
    ]


def test_a_large_side_log_is_followed_by_another(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traced.exporter._router, "_side_logs", side_logs.SideLogs(largest=2_000))
    for _ in range(8):
        traced.call()
        traced.flush()
    traced.exporter.shutdown()

    assert len(traced.beside("traces")) > 1
    assert by_id(traced.rebuilt("traces")) == by_id(traced.given)


def fail(traced: Traced, run: str) -> None:
    """A run that calls a library and does not complete."""
    with suppress(ValueError), Run.open("flow", workflow_id=run):
        traced.call()
        raise ValueError("no")


def test_few_logs_are_open_however_many_runs_there_are(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("proc")
    monkeypatch.setattr(side_logs, "_MOST_OPEN", 3)
    for number in range(9):
        fail(traced, f"r{number}")
    assert traced.flush() is SUCCESS
    held = [str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]

    assert len([path for path in held if path.startswith(str(traced.folder))]) == 3
    assert all(traced.names(f"r{number}") == ["workflow flow", "GET"] for number in range(9))


def test_switched_off_nothing_is_written(traced: Traced) -> None:
    tapps_otel.configure(enabled=False)
    traced.call()

    assert traced.flush() is SUCCESS
    assert not traced.folder.exists()


@contextmanager
def forked(body: Callable[[], int]) -> Iterator[int]:
    """What ``body`` returns in a forked child, as an exit code."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = body()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    yield os.waitstatus_to_exitcode(status)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_writes_side_logs_and_never_its_parents_logs(traced: Traced) -> None:
    need("fork")

    def child() -> int:
        traced.call("in the child")
        return int(traced.flush() is not SUCCESS)

    with Run.open("flow", workflow_id="r"):
        traced.call("before")
        traced.call("no run's")
        traced.flush()
        before = (traced.folder / "r.jsonl").read_bytes()
        with forked(child) as code:
            assert (traced.folder / "r.jsonl").read_bytes() == before
            assert code == 0
        traced.call("after")
        traced.flush()

    (path,) = traced.beside()
    assert [line["name"] for line in span_lines(path)] == ["in the child"]
    assert {"before", "in the child", "after"} <= set(traced.names())


def test_a_side_log_does_not_end_the_run(traced: Traced) -> None:
    fail(traced, "r")
    traced.flush()
    with Run.open("flow", workflow_id="r"):
        found = RunSpans(Store(traced.folder), "r")
        names = [one.span.name for one in found]

        assert traced.beside()
        assert found.running
        assert names == ["workflow flow", "GET"]  # of the first execution; the second is open


# ---------------------------------------------------------------- our own spans


def test_our_own_spans_are_not_written_if_the_log_has_them(traced: Traced) -> None:
    with Run.open("flow", workflow_id="r") as run:
        run.call("one", lambda: 1)
        assert traced.flush() is SUCCESS
    before = (traced.folder / "r.jsonl").read_bytes()
    assert traced.flush() is SUCCESS

    assert traced.exporter.export(traced.given) is SUCCESS
    assert traced.exporter.export(traced.rebuilt()) is SUCCESS
    assert (traced.folder / "r.jsonl").read_bytes() == before
    assert traced.beside() == []


def test_a_run_unknown_to_this_process_is_looked_up(traced: Traced, tmp_path: Path) -> None:
    with Run.open("flow", workflow_id="r") as run:
        run.call("one", lambda: 1)
    own = traced.rebuilt()
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "r.jsonl").write_bytes((traced.folder / "r.jsonl").read_bytes())
    for span in own:
        span._context = SpanContext(  # a trace that this process has never seen
            1, span.context.span_id, is_remote=False, trace_flags=TraceFlags(1)
        )
    exporter, empty = JsonlSpanExporter(copy), JsonlSpanExporter(tmp_path / "empty")

    assert (exporter.export(own), empty.export(own)) == (SUCCESS, SUCCESS)
    assert empty.export(own) is SUCCESS
    empty.shutdown()
    assert [path.name for path in copy.iterdir()] == ["r.jsonl"]
    (path,) = Store(tmp_path / "empty").side_paths()["r"]
    assert [(line["name"], line["late"]) for line in span_lines(path)] == [
        ("step one", True),
        ("workflow flow", True),
    ]


def test_a_step_whose_lines_were_lost_is_written_whole_and_late(traced: Traced) -> None:
    tapps_otel.configure(buffer_events=0)  # what cannot be written is lost
    full = FaultyFiles("write", 3, times=3)
    with files.use(full), Run.open("flow", workflow_id="r") as run:
        run.call("kept", lambda: 1)
        run.call("lost", lambda: 2)
    assert traced.flush() is SUCCESS
    lines = span_lines(traced.folder / "r.jsonl")

    assert full.calls > 3
    assert lines
    assert all(line["late"] for line in lines)
    wanted = {s.context.span_id for s in traced.given if "tapps.marker" not in (s.attributes or {})}
    assert set(by_id(traced.rebuilt())) == wanted


def test_pending_lines_are_not_duplicated(traced: Traced) -> None:
    disk, time = FaultyFiles("write", nth=1 << 40), Settable()
    with files.use(disk), clock.use(time):
        with Run.open("flow", workflow_id="r") as run:
            disk._nth = 0
            run.call("waits", lambda: 1)
            assert run.log_failure is not None
            assert traced.flush() is SUCCESS  # its lines may still come
            disk._nth = 1 << 40
            time.sleep(2)
            run.call("goes", lambda: 2)
        assert traced.flush() is SUCCESS

    assert sorted(traced.names()) == ["step goes", "step waits", "workflow flow"]
    assert span_lines(traced.folder / "r.jsonl") == []


# ---------------------------------------------------------------- failing


def test_a_full_disk_is_logged_once_and_harms_no_run(
    traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    disk, time = FaultyFiles("write", nth=1 << 40), Settable()
    with files.use(disk), clock.use(time):
        traced.call("kept")
        assert traced.flush() is SUCCESS
        disk._nth = 0
        for _ in range(3):
            traced.call("lost")
            assert traced.flush() is FAILURE
            time.sleep(2)
        disk._nth = 1 << 40
        traced.call("kept too")
        assert traced.flush() is SUCCESS

    said = [r for r in caplog.records if "spans could not be written" in r.message]
    assert [r.levelno for r in said if r.levelno > logging.DEBUG] == [logging.ERROR]
    assert traced.names("traces") == ["kept", "kept too"]


def test_a_folder_that_cannot_be_created_harms_no_run(
    traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    traced.folder.write_text("a file stands here")
    traced.call()

    assert traced.flush() is FAILURE
    assert "spans could not be written to a log" in caplog.text


def test_a_failure_of_one_run_does_not_affect_another(traced: Traced, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with Run.open("flow", workflow_id="bad", log_dir=gone):
        traced.call()
    with Run.open("flow", workflow_id="good"):
        traced.call()
    shutil.rmtree(gone)
    gone.write_text("a file stands here")

    assert traced.flush() is FAILURE
    assert "GET" in traced.names("good")


def test_a_failing_log_keeps_its_buffer_for_its_own_events(traced: Traced) -> None:
    with Run.open("flow", workflow_id="r") as run:
        with files.use(FaultyFiles("open_append")):
            writer_of(run)._log.fail(OSError("gone"))
            traced.call()
        assert traced.flush() is SUCCESS
        assert not writer_of(run)._backlog.events

    assert "GET" in traced.names()


def test_after_its_shutdown_it_accepts_nothing(traced: Traced) -> None:
    traced.exporter.shutdown()
    traced.exporter.shutdown()
    traced.call()

    assert traced.flush() is FAILURE
    assert traced.exporter.force_flush()


def test_logs_of_a_killed_process_are_whole_to_the_last_line(
    traced: Traced, tmp_path: Path
) -> None:
    need("fork")

    def child() -> int:
        traced.exporter = JsonlSpanExporter()
        for number in range(20):
            traced.call(f"call {number}")
        traced.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with forked(child) as code:
        assert code == -signal.SIGKILL
    assert traced.names("traces") == [f"call {number}" for number in range(20)]


# ---------------------------------------------------------------- rebuilding


def test_a_late_span_ends_what_the_log_left_open(tmp_path: Path) -> None:
    ids = {"trace_id": "1" * 32, "span_id": "2" * 16}
    events = [
        start(**ids),
        event("step_start", trace_id="1" * 32, span_id="3" * 16, parent_span_id="2" * 16),
        event(
            "span", trace_id="1" * 32, span_id="3" * 16, name="step whole", duration_ns=5, late=True
        ),
    ]
    write(tmp_path / "r.jsonl", events)
    spans = list(RunSpans(Store(tmp_path), "r"))

    assert [(one.span.name, one.seq) for one in spans] == [
        ("step whole", 3),
        ("workflow article", 0),
    ]


class Meanwhile(Files):
    """Something happens between two looks at the lease, the second of which is the reader's last.

    There is no lease, as of a process that has given it up already.
    """

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens = happens
        self._looks = 0

    def open_read(self, path: Path) -> BinaryIO:
        if path.suffix == ".lease":
            self._looks += 1
            if self._looks == 2:
                self._happens()
        return super().open_read(path)


def test_a_run_that_ends_while_it_is_read_is_not_taken_for_interrupted(tmp_path: Path) -> None:
    ids = {"trace_id": "1" * 32, "span_id": "2" * 16}
    path = tmp_path / "r.jsonl"
    write(path, [start(**ids)])
    ended = event("workflow_end", **ids, status="completed", duration_ns=5)
    first, second = RunSpans(Store(tmp_path), "r"), RunSpans(Store(tmp_path), "r")
    with files.use(Meanwhile(lambda: write(path, [ended]))):
        before = list(first)
    after = [(one.span.name, one.seq) for one in second]

    assert (before, first.running, first.ends) == ([], True, {})
    assert (after, second.running) == ([("workflow article", 2)], False)


def test_a_fork_while_an_exporter_looks_a_run_up_does_not_hang_the_child() -> None:
    need("fork")
    with run_registry._lock:  # as by an exporter's thread, which is not in the child
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            run_registry.find(1)
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
