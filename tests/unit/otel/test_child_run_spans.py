"""Runs that call runs, in the trace: one trace, one tree, each span in the log of its own run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from crashes import die_at, go, killed
from independent_checker import check
from otlp_files import as_json, keep, requests_of
from tapps_otel import JsonlSpanExporter, configure, events, history, step, verify, workflow
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.run_spans import RunSpans

LOGS = Path("logs")


@step
def work(what: str) -> str:
    tracer = trace.get_tracer("library")
    with tracer.start_as_current_span(f"GET {what}"):
        die_at(what)
    return what


@workflow
def inner(what: str) -> str:
    return work(what)


@workflow
def outer() -> list[str]:
    return [
        work("before"),
        inner.options(workflow_id="i")("inside"),
        inner.options(workflow_id="j")("beside"),
        work("after"),
    ]


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    configure(log_dir=LOGS, durability="os", announce="off")
    yield
    for path in LOGS.glob("*.jsonl"):
        check(path)


def rebuilt(run: str) -> list[ReadableSpan]:
    found = RunSpans(Store(LOGS.absolute()), run)
    spans = [one.span for one in found]
    assert found.problems == []
    return spans


def tree(spans: Sequence[ReadableSpan]) -> dict[str, str]:
    """The name of each span's parent; all are in one trace."""
    assert len({span.context.trace_id for span in spans}) == 1
    names = {span.context.span_id: _name(span) for span in spans}
    assert len(names) == len(spans)
    return {
        _name(span): "" if span.parent is None else names[span.parent.span_id] for span in spans
    }


def _name(span: ReadableSpan) -> str:
    """A span's name, with its run's where that is one of ours."""
    run = (span.attributes or {}).get("tapps.workflow.id")
    step_id = (span.attributes or {}).get("tapps.step.id")
    return span.name if run is None else f"{run}/{step_id or ''}"


TREE = {
    "r/": "",
    "r/work": "r/",
    "r/inner": "r/",
    "i/": "r/inner",
    "i/work": "i/",
    "r/inner#2": "r/",
    "j/": "r/inner#2",
    "j/work": "j/",
    "r/work#2": "r/",
}
LIBRARY = {
    "GET before": "r/work",
    "GET inside": "i/work",
    "GET beside": "j/work",
    "GET after": "r/work#2",
}
RUNS = ("r", "i", "j")


def by_id(spans: Sequence[ReadableSpan]) -> dict[int, bytes]:
    return {span.context.span_id: encode_spans([span]).SerializeToString() for span in spans}


def test_a_child_run_is_in_the_trace_of_the_run_that_calls_it(sent: InMemorySpanExporter) -> None:
    go(outer)

    assert tree(sent.get_finished_spans()) == TREE | LIBRARY
    assert len({history(run).trace_id for run in RUNS}) == 1


def test_without_an_sdk_it_is_too() -> None:
    go(outer)

    assert tree([span for run in RUNS for span in rebuilt(run)]) == TREE


def test_spans_name_the_other_run(sent: InMemorySpanExporter) -> None:
    go(outer)

    spans = {_name(span): dict(span.attributes or {}) for span in sent.get_finished_spans()}
    assert spans["r/inner#2"]["tapps.child.workflow_id"] == "j"
    assert spans["j/"]["tapps.parent.workflow_id"] == "r"
    assert spans["j/"]["tapps.parent.step_id"] == "inner#2"
    assert not [name for name, of in spans.items() if name != "j/" and "tapps.parent.x" in of]
    for run in RUNS:
        ours = by_id(rebuilt(run))
        live = by_id([one for one in sent.get_finished_spans() if _name(one).startswith(f"{run}/")])
        assert ours == live  # to the byte


def test_spans_of_libraries_are_in_the_log_of_the_run_that_made_them(
    sent: InMemorySpanExporter,
) -> None:
    exporter = JsonlSpanExporter()
    try:
        go(outer)
        exporter.export(sent.get_finished_spans())
    finally:
        exporter.shutdown()

    captured = {run: [one.name for one in events(run) if one.event_type == "span"] for run in RUNS}
    assert captured == {"r": ["GET before", "GET after"], "i": ["GET inside"], "j": ["GET beside"]}
    assert tree([span for run in RUNS for span in rebuilt(run)]) == TREE | LIBRARY


def test_each_log_agrees_with_a_store_of_the_whole_trace(sent: InMemorySpanExporter) -> None:
    go(outer)
    whole = [as_json(encode_spans([span])) for span in sent.get_finished_spans()]
    stored = keep(Path("stored.jsonl"), whole)

    for run, count in (("r", 5), ("i", 2), ("j", 2)):
        report = verify(run, against=stored)
        report.raise_if_bad()
        assert report.against is not None
        assert report.against.equal == count


def test_a_missing_child_is_missed_by_its_own_log_alone(sent: InMemorySpanExporter) -> None:
    go(outer)
    stored = keep(Path("stored.jsonl"), [*requests_of(LOGS, "r"), *requests_of(LOGS, "i")])

    assert verify("r", against=stored).ok
    assert verify("i", against=stored).ok
    assert not verify("j", against=stored).ok


# ---------------------------------------------------------------- resumed


@pytest.mark.parametrize("with_sdk", [True, False])
def test_a_resumed_child_run_stays_in_its_trace_and_names_who_resumed_it(
    request: pytest.FixtureRequest, *, with_sdk: bool
) -> None:
    if with_sdk:
        request.getfixturevalue("sent")
    killed(lambda: go(outer), at="inside")
    go(outer)

    spans = [span for run in RUNS for span in rebuilt(run)]
    by_execution = {(_name(span), _execution(span)): span for span in spans}
    again = by_execution["i/", 2]
    assert len({span.context.trace_id for span in spans}) == 1
    assert again.parent is not None
    assert again.parent.span_id == by_execution["i/", 1].context.span_id
    assert _links(again) == {
        ("interrupted", by_execution["i/work", 1].context.span_id),
        ("caller", by_execution["r/inner", 2].context.span_id),
    }


@pytest.mark.parametrize("with_sdk", [True, False])
def test_a_run_that_was_there_before_keeps_its_trace_and_links_to_its_caller(
    request: pytest.FixtureRequest, *, with_sdk: bool
) -> None:
    if with_sdk:
        request.getfixturevalue("sent")
    killed(lambda: go(inner, "inside", workflow_id="i"), at="inside")
    go(outer)

    assert history("i").trace_id != history("r").trace_id
    (caller,) = [span for span in rebuilt("r") if _name(span) == "r/inner"]
    (again,) = [span for span in rebuilt("i") if _name(span) == "i/" and _execution(span) == 2]
    assert ("caller", caller.context.span_id) in _links(again)
    assert {link.context.trace_id for link in again.links} == {
        caller.context.trace_id,
        again.context.trace_id,
    }


def test_a_child_run_is_under_a_step_that_was_begun_before_there_were_spans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @step
    def late() -> str:
        provider = TracerProvider(shutdown_on_exit=False)
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        return inner.options(workflow_id="i")("inside")

    @workflow
    def flow() -> str:
        return late()

    go(flow)
    assert history("i").trace_id == history("r").trace_id
    spans = [*rebuilt("r"), *rebuilt("i")]
    assert tree(spans)["i/"] == "r/late/inner"


def _execution(span: ReadableSpan) -> Any:
    return (span.attributes or {})["tapps.execution"]


def _links(span: ReadableSpan) -> set[tuple[Any, int]]:
    return {((link.attributes or {})["tapps.link"], link.context.span_id) for link in span.links}
