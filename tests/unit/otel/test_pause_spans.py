"""Runs that wait, in the trace: the question is an event, nothing is an error, ids are unique."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from crashes import go
from independent_checker import check
from tapps_otel import answer, configure, pause, step, workflow
from tapps_otel.errors import RunPausedError
from tapps_otel.log.store import Store
from tapps_otel.otel.live import catch_up
from tapps_otel.otel.replay.run_spans import RunSpans

LOGS = Path("logs")


@step
def review() -> bool:
    return pause("Publish?", type=bool)


@workflow
def flow() -> list[bool | None]:
    return [review(), pause(until=0), pause("Late?", until=0.001)]


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    configure(log_dir=LOGS, durability="os", announce="off")
    yield
    for path in LOGS.glob("*.jsonl"):
        check(path)


def rebuilt() -> list[ReadableSpan]:
    found = RunSpans(Store(LOGS.absolute()), "r")
    spans = [one.span for one in found]
    assert found.problems == []
    return spans


def check_tree(spans: Sequence[ReadableSpan]) -> None:
    ids = {span.context.span_id for span in spans}
    assert len(ids) == len(spans)
    assert len({span.context.trace_id for span in spans}) == 1
    assert sum(span.parent is None for span in spans) == 1
    assert all(span.parent is None or span.parent.span_id in ids for span in spans)
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}


def to_the_end() -> None:
    for _ in range(5):
        with suppress(RunPausedError):
            go(flow)
            return


def questions(spans: Sequence[ReadableSpan]) -> list[tuple[str, object]]:
    return [
        (span.name, (event.attributes or {})["tapps.question"])
        for span in spans
        for event in span.events
        if "tapps.question" in (event.attributes or {})
    ]


def test_while_it_waits_its_question_is_on_the_span_of_the_run() -> None:
    with suppress(RunPausedError):
        go(flow)
    spans = rebuilt()

    check_tree(spans)
    assert sorted(span.name for span in spans) == ["step review", "workflow flow"]
    assert questions(spans) == [("workflow flow", "Publish?")]


def test_the_span_of_a_pause_lasts_until_its_answer() -> None:
    with suppress(RunPausedError):
        go(flow)
    answer("r", True, by="ann")
    to_the_end()
    spans = rebuilt()
    asked = next(span for span in spans if ("step pause", "Publish?") in questions([span]))
    last = dict(asked.events[-1].attributes or {})

    check_tree(spans)
    assert (last["tapps.answered.by"], last["tapps.status"]) == ("ann", "completed")
    assert sum(span.name == "step pause" for span in spans) == 3


def test_a_provider_of_the_program_gets_each_span_once_and_as_it_is_rebuilt(
    sent: InMemorySpanExporter,
) -> None:
    with suppress(RunPausedError):
        go(flow)
    answer("r", True, by="ann")
    to_the_end()
    if catch_up._worker is not None:
        catch_up._worker.shutdown()
    live = sent.get_finished_spans()

    check_tree(live)
    assert {span.context.span_id: encode_spans([span]).SerializeToString() for span in live} == {
        span.context.span_id: encode_spans([span]).SerializeToString() for span in rebuilt()
    }
