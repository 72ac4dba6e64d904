"""A wall clock that is set while a run is in progress: times stay in order, the log has both."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from crashes import go
from tapps_otel import Backoff, annotate, clock, step, workflow

HOUR = 3_600_000_000_000
START = 1_700_000_000_000_000_000


class TwoClocks:
    """Each reading takes a microsecond; the wall clock can be set."""

    def __init__(self) -> None:
        self.passed = self.ahead = 0

    def time_ns(self) -> int:
        self.passed += 1000
        return START + self.passed + self.ahead

    def monotonic_ns(self) -> int:
        self.passed += 1000
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += int(seconds * 1e9)


times = TwoClocks()


@pytest.fixture(autouse=True)
def _clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "times", TwoClocks())


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return memory


@step
def set_clock(by: int) -> None:
    annotate("before")
    times.ahead += by
    times.sleep(1)
    annotate("after")


@step(retries=1, backoff=Backoff(0.5, 1, 0.5))
def flaky() -> int:
    times.sleep(1)
    failures.append("")
    if len(failures) % 2:
        raise ValueError("again")
    return 1


failures: list[str] = []


@workflow
def child(by: int) -> None:
    set_clock(by)
    flaky()


@step
def outer(by: int) -> None:
    set_clock(by)
    flaky()


@workflow
def flow(by: int) -> None:
    outer(by)
    child.options(workflow_id="child")(by)
    flaky()


@workflow
def short(by: int) -> None:
    outer(by)
    flaky()


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_every_span_is_inside_its_parent_and_every_event_inside_its_span(
    by: int, sent: InMemorySpanExporter
) -> None:
    with clock.use(times):
        go(flow, by)
    spans = {span.context.span_id: span for span in sent.get_finished_spans()}

    assert len(spans) == 14  # with the markers of both runs
    for span in spans.values():
        moments = [edge(span.start_time), *(one.timestamp for one in span.events)]
        assert moments == sorted(moments)
        assert moments[-1] <= edge(span.end_time) < edge(span.start_time) + HOUR
        if span.parent is not None:
            around = spans[span.parent.span_id]
            assert edge(around.start_time) <= edge(span.start_time)
            assert edge(span.end_time) <= edge(around.end_time)


def edge(time_ns: int | None) -> int:
    assert time_ns is not None
    return time_ns


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_the_log_has_the_wall_clock_beside_the_time_once_they_differ(
    by: int, log: Callable[..., list[dict[str, Any]]]
) -> None:
    with clock.use(times):
        go(short, by)
    events = log(None)
    before, after = events[:4], events[4:]

    assert before[-1]["name"] == "before"
    assert after[0]["name"] == "after"
    assert not any("wall_time" in one for one in before)
    for one in after:
        passed = clock.parse_timestamp(one["wall_time"]) - clock.parse_timestamp(one["timestamp"])
        assert abs(passed - by) < 1_000_000
    moments = [one["timestamp"] for one in events]
    assert moments == sorted(moments)


def test_a_clock_that_keeps_the_time_adds_nothing(
    log: Callable[..., list[dict[str, Any]]],
) -> None:
    with clock.use(times):
        go(flow, 0)

    assert not any("wall_time" in one for one in log(None))


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="needs Linux")
def test_durations_count_while_the_machine_sleeps() -> None:
    before, now, after = (
        time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        clock.monotonic_ns(),
        time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    )

    assert before <= now <= after
