"""Metrics: what is counted, what is not, and that their failures harm no workflow."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import metrics as api
from opentelemetry import trace
from opentelemetry.metrics import _internal as api_internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from tapps_otel import Backoff, Run, configure, events, skip, step, workflow
from tapps_otel.log import files
from tapps_otel.log.event import Event
from tapps_otel.otel import seam
from tapps_otel.otel.environment import metrics_wanted
from tapps_otel.otel.metrics import instruments, measures, provider
from tapps_otel.otel.metrics.instruments import METRICS
from tapps_otel.otel.metrics.provider import ManagedMetricExporter
from tapps_otel.otel.process import standard_exporters
from tapps_otel.otel.process.shutdown import ExitFlush, flush_all
from tapps_otel.otel.transport.client import Answer, Client
from tapps_otel.otel.transport.destination import Destination
from tapps_otel.settings_model import Settings

Point = tuple[dict[str, Any], Any]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ExitFlush[ManagedMetricExporter]]]:
    """A process without providers; the flushes at its exit are kept, not registered."""
    kept: list[ExitFlush[ManagedMetricExporter]] = []

    def keep(flush: ExitFlush[ManagedMetricExporter]) -> None:
        kept.append(flush)

    monkeypatch.setattr(api_internal, "_METER_PROVIDER", None)
    monkeypatch.setattr(api_internal, "_METER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(instruments, "_made", None)
    monkeypatch.setattr(provider._setup, "_tried", False)
    monkeypatch.setattr(seam, "_warned", set())
    monkeypatch.setattr(ExitFlush, "register", keep)
    yield kept
    flush_all(kept)


class Reading:
    """What the program's own meter provider has measured."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def all(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for of_resource in data.resource_metrics
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
        }

    def points(self, name: str) -> list[Point]:
        """Attributes and value (or count) of each point, in a steady order."""
        found = [
            (dict(point.attributes), getattr(point, "value", getattr(point, "count", None)))
            for point in self.all()[name].data.data_points
        ]
        return sorted(found, key=str)


@pytest.fixture
def reading(fresh: list[ExitFlush[ManagedMetricExporter]]) -> Iterator[Reading]:
    made = Reading()
    api.set_meter_provider(made.provider)
    yield made
    made.provider.shutdown()


tries = 0


@step(retries=1, backoff=Backoff(0, 1, 0), agent="writer")
def flaky(n: int) -> int:
    global tries  # noqa: PLW0603 - what a retry sees
    tries += 1
    if tries == 1:
        raise ValueError(f"not yet: {n}")
    return n


@step
def plain(n: int) -> int:
    return n


@step
def unneeded(n: int) -> None:
    skip(f"nothing to do for {n}")


@workflow
def report(n: int, fail: bool = False) -> int:
    unneeded(n)
    made = flaky(n) + plain(n)
    if fail:
        raise KeyError(n)
    return made


@pytest.fixture(autouse=True)
def first_try() -> None:
    global tries  # noqa: PLW0603 - what a retry sees
    tries = 0


REPORT = {"tapps.workflow.name": "report"}
FLAKY = {**REPORT, "tapps.step.name": "flaky", "tapps.agent.name": "writer"}
PLAIN = {**REPORT, "tapps.step.name": "plain"}
UNNEEDED = {**REPORT, "tapps.step.name": "unneeded"}
FAILED = {"tapps.status": "failed", "error.type": "ValueError"}
COMPLETED = {"tapps.status": "completed"}


# ---------------------------------------------------------------- what is counted


def test_attempts_failures_skips_and_durations_are_measured(reading: Reading) -> None:
    report(3)

    assert reading.points("tapps.run.duration") == [({**REPORT, **COMPLETED}, 1)]
    assert reading.points("tapps.step.attempts") == [(FLAKY, 2), (PLAIN, 1), (UNNEEDED, 1)]
    assert reading.points("tapps.step.failures") == [({**FLAKY, **FAILED}, 1)]
    assert reading.points("tapps.step.skips") == [(UNNEEDED, 1)]
    assert reading.points("tapps.step.duration") == sorted(
        [
            ({**FLAKY, **FAILED}, 1),
            ({**FLAKY, **COMPLETED}, 1),
            ({**PLAIN, **COMPLETED}, 1),
            ({**UNNEEDED, "tapps.status": "skipped"}, 1),
        ],
        key=str,
    )


def test_every_event_is_an_append(reading: Reading) -> None:
    with Run.open("build", workflow_id="b1") as run:
        run.call("compile", doubled, 1)
    assert reading.points("tapps.log.append.duration") == [({}, 4)]


def test_a_failed_run_is_measured_by_its_error(reading: Reading) -> None:
    with pytest.raises(KeyError):
        report(3, fail=True)

    assert reading.points("tapps.run.duration") == [
        ({**REPORT, "tapps.status": "failed", "error.type": "KeyError"}, 1)
    ]


def test_stored_results_count_nothing(reading: Reading) -> None:
    named = report.options(workflow_id="r1")
    with pytest.raises(KeyError):
        named(3, fail=True)
    before = reading.points("tapps.step.attempts")
    with pytest.raises(KeyError):
        report.resume("r1")

    assert reading.points("tapps.step.attempts") == before
    assert reading.points("tapps.run.duration")[0][1] == 2


def test_a_completed_run_that_is_called_again_counts_nothing(reading: Reading) -> None:
    named = report.options(workflow_id="r1")
    named(3)
    before = {name: reading.points(name) for name in reading.all()}
    named(3)

    assert {name: reading.points(name) for name in reading.all()} == before


def test_an_interrupted_attempt_is_counted_by_the_resuming_process(reading: Reading) -> None:
    run = Run.open("build", workflow_id="b1")
    run.begin("compile")
    run.close()  # nothing is ended: as when the process dies
    with Run.open("build", workflow_id="b1") as run:
        run.begin("compile").finish()
    step_of_build = {"tapps.workflow.name": "build", "tapps.step.name": "compile"}
    interrupted = {"tapps.status": "interrupted", "error.type": "interrupted"}

    assert reading.points("tapps.step.attempts") == [(step_of_build, 2)]
    assert reading.points("tapps.step.failures") == [({**step_of_build, **interrupted}, 1)]


def test_names_units_and_attributes_are_those_that_are_documented(reading: Reading) -> None:
    report(3)
    with pytest.raises(KeyError):
        report(4, fail=True)
    known = {metric.name: metric for metric in METRICS}
    for name, metric in reading.all().items():
        attributes = {key for point, _ in reading.points(name) for key in point}

        assert metric.unit == known[name].unit
        assert attributes <= set(known[name].attributes)


def test_no_attribute_tells_one_run_from_another(reading: Reading) -> None:
    for number in range(20):
        report.options(workflow_id=f"r{number}")(number)

    assert len(reading.points("tapps.run.duration")) == 1
    assert len(reading.points("tapps.step.attempts")) == 3


def test_buckets_fit_long_work_and_short_writes(reading: Reading) -> None:
    report(3)
    made = reading.all()
    work = made["tapps.run.duration"].data.data_points[0].explicit_bounds
    append = made["tapps.log.append.duration"].data.data_points[0].explicit_bounds

    assert (work[0], work[-1]) == (0.005, 86_400)
    assert (append[0], append[-1]) == (0.00001, 10)


# ---------------------------------------------------------------- failures of the log


def doubled(n: int) -> int:
    return 2 * n


def test_failures_and_losses_of_a_log_are_counted(reading: Reading) -> None:
    configure(buffer_events=1)
    full_for_a_moment = files.FaultyFiles("write", nth=2, times=2)
    with files.use(full_for_a_moment), Run.open("build", workflow_id="b1") as run:
        for number in range(3):
            run.call("double", doubled, number)
    (gap,) = [e for e in events("b1") if e.event_type == "log_gap"]
    ((failed, times),) = reading.points("tapps.log.failures")
    ((dropped, number),) = reading.points("tapps.log.dropped")
    ((_, attempts),) = reading.points("tapps.step.attempts")

    assert failed == {"tapps.workflow.name": "build", "error.type": "ENOSPC"}
    assert times == 2
    assert (dropped, {"dropped": number}) == ({"tapps.workflow.name": "build"}, gap.attributes)
    assert attempts == 3  # the work was done, and is counted


def test_lost_events_are_counted_when_the_log_closes(reading: Reading) -> None:
    full = files.FaultyFiles("write", nth=2)
    with files.use(full), Run.open("build", workflow_id="b1") as run:
        run.call("double", doubled, 1)

    assert reading.points("tapps.log.dropped") == [({"tapps.workflow.name": "build"}, 3)]


# ---------------------------------------------------------------- sends


class Answering(Client):
    def __init__(self, answer: Answer | Exception) -> None:
        super().__init__(Destination("grpc", "user:secret@collector:4317"))
        self.answer = answer

    def _send_once(self, request: bytes, seconds: float) -> Answer:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        pass


COLLECTOR = {"server.address": "collector", "server.port": 4317}


def test_spans_that_were_sent_are_counted_by_destination(reading: Reading) -> None:
    Answering(Answer()).send(b"", spans=5)
    Answering(Answer(rejected=2)).send(b"", spans=3)

    assert reading.points("tapps.send.spans") == [
        ({**COLLECTOR, "error.type": "rejected"}, 2),
        (COLLECTOR, 6),
    ]


def test_spans_that_could_not_be_sent_are_counted_by_reason(reading: Reading) -> None:
    from tapps_otel.errors import SendError
    from tapps_otel.otel.transport.client import _RetryableError

    for error in (SendError("collector", "401"), _RetryableError("no answer", 60)):
        with pytest.raises(SendError):
            Answering(error).send(b"", spans=4, patience=0.1)

    assert reading.points("tapps.send.spans") == [
        ({**COLLECTOR, "error.type": "refused"}, 4),
        ({**COLLECTOR, "error.type": "unavailable"}, 4),
    ]


# ---------------------------------------------------------------- not asked for


@pytest.mark.parametrize(
    ("env", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4317"}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "console"}, True),
        (
            {
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4317",
            },
            False,
        ),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_only_variables_that_name_metrics_ask_for_them(
    env: dict[str, str],
    asked: bool,
    fresh: list[ExitFlush[ManagedMetricExporter]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    assert metrics_wanted() is asked
    assert (measures.measures(Settings(shutdown_timeout=0), "report") is not None) is asked
    assert isinstance(api.get_meter_provider(), MeterProvider) is asked


def test_the_setting_switches_metrics_off(reading: Reading) -> None:
    configure(metrics=False)
    report(3)
    Answering(Answer()).send(b"", spans=5)

    assert not reading.all()


def test_a_process_without_metrics_does_not_import_opentelemetry() -> None:
    script = """
import sys
from tapps_otel import step, workflow

@step
def work(n: int) -> int:
    return n

@workflow
def report(n: int) -> int:
    return work(n)

report(1)
print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")


# ---------------------------------------------------------------- broken OpenTelemetry


class Broken(api.NoOpMeter):
    """An SDK whose instruments raise."""

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        return _Raising()

    def create_histogram(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return _Raising()


class _Raising:
    def add(self, *_: Any) -> None:
        raise RuntimeError("no counter today")

    record = add


class BrokenProvider(api.MeterProvider):
    def get_meter(self, name: str, *args: Any, **kwargs: Any) -> api.Meter:
        return Broken(name)


class NoMeter(api.MeterProvider):
    def get_meter(self, name: str, *args: Any, **kwargs: Any) -> api.Meter:
        raise RuntimeError("no meter today")


@pytest.mark.parametrize("make", [BrokenProvider, NoMeter])
def test_broken_metrics_are_logged_once_and_harm_no_run(
    make: Callable[[], api.MeterProvider],
    fresh: list[ExitFlush[ManagedMetricExporter]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    api.set_meter_provider(make())
    result = report(3)
    Answering(Answer()).send(b"", spans=5)
    said = [r for r in caplog.records if r.levelno >= logging.WARNING]

    assert result == 6
    assert len(said) == 1
    assert "OpenTelemetry failed (metrics): RuntimeError" in said[0].getMessage()


def test_odd_names_become_what_a_collector_accepts(reading: Reading) -> None:
    with Run.open("build", workflow_id="b1") as run:
        run.begin("caf\udce9", agent="a" * 40_000).finish()
    ((attributes, _),) = reading.points("tapps.step.attempts")

    assert attributes["tapps.step.name"] == "caf?"
    assert attributes["tapps.agent.name"].endswith("characters left out")


# ---------------------------------------------------------------- set up here


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({}, ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ["otlp_proto_http"]),
        (
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc",
            },
            ["otlp_proto_grpc"],
        ),
        ({"OTEL_METRICS_EXPORTER": "console, otlp"}, ["console", "otlp_proto_grpc"]),
    ],
)
def test_exporters_are_those_that_the_variables_name(
    env: dict[str, str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    assert provider._exporters.names() == names


@pytest.mark.parametrize("variable", ["ENDPOINT", "METRICS_ENDPOINT"])
def test_the_target_of_metrics_has_no_secrets(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{variable}", "http://user:secret@collector:4318/a?b=c")

    assert provider._exporters.target("otlp_proto_http") == "collector:4318"


def test_a_provider_is_set_up_once_and_only_where_there_is_none(
    fresh: list[ExitFlush[ManagedMetricExporter]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    made = provider.ensure_provider(Settings())
    (flush,) = fresh

    assert isinstance(made, MeterProvider)
    assert api.get_meter_provider() is made
    assert provider.ensure_provider(Settings()) is made
    assert isinstance(flush.outlets[0].wrapped, ConsoleMetricExporter)


def test_the_programs_own_provider_is_left_alone(
    reading: Reading, fresh: list[ExitFlush[ManagedMetricExporter]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    report(3)

    assert api.get_meter_provider() is reading.provider
    assert reading.points("tapps.step.skips") == [(UNNEEDED, 1)]
    assert not fresh


def test_an_unknown_exporter_is_logged_once(
    fresh: list[ExitFlush[ManagedMetricExporter]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "pigeon")
    results = [report(3), report(4)]
    (said,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]

    assert results == [6, 8]
    assert "no installed package offers 'pigeon'" in said


class Kept(MetricExporter):
    """Keeps the number of attempts of each export; accepts it or not."""

    def __init__(self, result: MetricExportResult = MetricExportResult.SUCCESS) -> None:
        super().__init__()
        self.result = result
        self.attempts: list[int] = []

    def export(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
        self.attempts.append(
            sum(
                point.value
                for of_resource in metrics_data.resource_metrics
                for of_scope in of_resource.scope_metrics
                for metric in of_scope.metrics
                if metric.name == "tapps.step.attempts"
                for point in metric.data.data_points
            )
        )
        return self.result

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        pass


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Kept]]:
    """Let the environment name an exporter that keeps what it gets."""

    def offer(result: MetricExportResult = MetricExportResult.SUCCESS) -> list[Kept]:
        made: list[Kept] = []

        def make() -> Kept:
            made.append(Kept(result))
            return made[-1]

        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "kept")
        monkeypatch.setattr(standard_exporters, "load", lambda _group, _name: make)
        return made

    return offer


def test_a_package_may_offer_a_reader_of_its_own(
    fresh: list[ExitFlush[ManagedMetricExporter]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    monkeypatch.setattr(standard_exporters, "load", lambda _group, _name: InMemoryMetricReader)
    report(3)
    (flush,) = fresh

    assert flush.outlets == []
    assert isinstance(api.get_meter_provider(), MeterProvider)


def test_at_exit_the_last_numbers_are_sent(
    fresh: list[ExitFlush[ManagedMetricExporter]],
    kept: Callable[..., list[Kept]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = kept()
    report(3)
    flush_all(fresh)

    assert made[0].attempts == [4]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_metrics_not_accepted_at_exit_are_reported(
    fresh: list[ExitFlush[ManagedMetricExporter]],
    kept: Callable[..., list[Kept]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept(MetricExportResult.FAILURE)
    report(3)
    flush_all(fresh)

    assert "the last metrics were not sent to kept" in caplog.text


def test_a_forked_child_counts_from_zero_and_reconnects(
    fresh: list[ExitFlush[ManagedMetricExporter]],
    kept: Callable[..., list[Kept]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = kept()
    report(3)
    (flush,) = fresh
    monkeypatch.setattr(os, "getpid", lambda: 424242)
    flush.after_fork()
    Run.open("mine").__exit__(None, None, None)
    with Run.open("childs") as run:
        run.begin("s").finish()
    flush_all(fresh)
    of_parent, of_child = made

    assert of_parent.attempts == []
    assert of_child.attempts == [1]


def test_events_of_any_kind_are_accepted(reading: Reading) -> None:
    measured = measures.measures(Settings(), "report")
    assert measured is not None
    for kind in ("span", "annotation", "step_skip", "log_gap", "somebody_elses"):
        event = Event(event_type=kind, workflow_id="r", timestamp="", execution=1)
        measured.wrote(event, 10)

    assert reading.points("tapps.log.append.duration") == [({}, 5)]


# ---------------------------------------------------------------- exemplars


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What the program's own tracer provider exports."""
    memory = InMemorySpanExporter()
    traces = TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", traces)
    return memory


def exemplars(reading: Reading) -> dict[str, set[tuple[int, int]]]:
    """The spans that the exemplars of each metric refer to. Reading them removes them."""
    return {
        name: {
            (one.trace_id, one.span_id)
            for point in metric.data.data_points
            for one in point.exemplars
        }
        for name, metric in reading.all().items()
    }


def test_exemplars_refer_to_the_span_of_the_step_or_the_run(
    reading: Reading, spans: InMemorySpanExporter
) -> None:
    with trace.get_tracer("the program").start_as_current_span("outside"):
        report(1)
    assert tries == 2
    ids: dict[str, set[tuple[int, int]]] = {}
    for span in spans.get_finished_spans():
        ids.setdefault(span.name, set()).add((span.context.trace_id, span.context.span_id))
    steps = ids["step flaky"] | ids["step plain"] | ids["step unneeded"]
    found = exemplars(reading)

    assert ids["step plain"] <= found["tapps.step.duration"] <= steps
    assert found["tapps.step.attempts"] >= ids["step plain"] | ids["step unneeded"]
    assert found["tapps.step.attempts"] <= steps
    assert found["tapps.step.skips"] == ids["step unneeded"]
    assert len(found["tapps.step.failures"] & ids["step flaky"]) == 1
    assert found["tapps.run.duration"] == ids["workflow report"]
    assert found["tapps.log.append.duration"] <= steps | ids["workflow report"]


def test_runs_without_spans_have_no_exemplars(reading: Reading) -> None:
    report(1)

    assert not any(exemplars(reading).values())
