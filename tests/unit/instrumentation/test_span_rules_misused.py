"""Rules over spans where programs make spans in odd ways: nothing is raised, every log is whole."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import StatusCode

import tapps_otel
from crashes import die, killed
from independent_checker import check
from tapps_otel import history, instrument, list_runs, timeline, uninstrument
from tapps_otel.instrumentation import SpanMatch, SpanRules
from tapps_otel.otel.capture import roots
from tapps_otel.past import span_rules

LOGS = Path("logs")
CHATS = SpanRules(root=SpanMatch("chat"), steps=SpanMatch("work*"), thread="thread")


class Stop(BaseException):
    """What is no exception."""


@pytest.fixture(autouse=True)
def tracer(monkeypatch: pytest.MonkeyPatch) -> Iterator[trace.Tracer]:
    monkeypatch.setattr(roots, "_roots", None)
    monkeypatch.setattr(span_rules, "_known", dict(span_rules.PRESETS))
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    tapps_otel.configure(log_dir=LOGS, durability="os", metrics=False)
    instrument("chats", CHATS)
    yield provider.get_tracer("library")
    uninstrument("chats")
    for path in LOGS.glob("*.jsonl"):
        check(path)


def statuses() -> dict[str, str]:
    return {one.workflow_id: one.status for one in list_runs()}


def steps(run: str) -> dict[str, str]:
    return {one.step_id: one.status for one in history(run).steps}


def turn(tracer: trace.Tracer, thread: Any = "t", *names: str) -> None:
    with tracer.start_as_current_span("chat", attributes={"thread": thread}):
        for name in names:
            with tracer.start_as_current_span(name):
                pass


# -- turns


def test_two_turns_at_once_on_a_thread_are_two_runs(tracer: trace.Tracer) -> None:
    both = threading.Barrier(2, timeout=60)

    def chat() -> None:
        with tracer.start_as_current_span("chat", attributes={"thread": "t"}):
            both.wait()
            with tracer.start_as_current_span("work"):
                both.wait()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(chat) for _ in range(2)]:
            done.result()

    assert statuses() == {"t": "completed", "t.2": "completed"}
    assert steps("t") == steps("t.2") == {"work": "completed"}


def test_a_turn_after_one_that_was_killed_is_the_next_run(tracer: trace.Tracer) -> None:
    def doomed() -> None:
        with tracer.start_as_current_span("chat", attributes={"thread": "t"}):
            tracer.start_span("work")
            die()

    killed(doomed)
    turn(tracer, "t", "work")

    assert statuses() == {"t": "interrupted", "t.2": "completed"}
    assert [one.status for one in timeline("t").steps] == ["interrupted"]


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_a_thread_of_2000_turns(tracer: trace.Tracer) -> None:
    for _ in range(2000):
        turn(tracer)

    assert history("t.2000").status == "completed"
    assert len(list(list_runs())) == 2000


@pytest.mark.parametrize("thread", ["", "../up", "a/b", "ä" * 300, "x.events", 7, True], ids=ascii)
def test_any_thread_id_is_taken(tracer: trace.Tracer, thread: Any) -> None:
    turn(tracer, thread, "work")

    ((run, status),) = statuses().items()
    assert status == "completed"
    assert steps(run) == {"work": "completed"}


# -- spans that end in odd ways, or not at all


def test_what_is_no_exception_passes_and_ends_the_run(tracer: trace.Tracer) -> None:
    error = Stop("now")

    with (
        pytest.raises(Stop) as caught,
        tracer.start_as_current_span("chat", attributes={"thread": "t"}),
        tracer.start_as_current_span("work"),
    ):
        raise error

    assert caught.value is error
    assert statuses() == {"t": "completed"}  # the SDK ends such spans without an error


def test_a_span_that_is_never_ended_leaves_its_step_open(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("chat", attributes={"thread": "t"}):
        left = tracer.start_span("work")

    assert statuses() == {"t": "completed"}
    assert steps("t")["work"] != "completed"
    left.end()


def test_a_root_that_is_never_ended_is_a_run_in_progress(tracer: trace.Tracer) -> None:
    left = tracer.start_span("chat", attributes={"thread": "t"})
    turn(tracer)

    assert statuses() == {"t": "running", "t.2": "completed"}
    left.end()
    assert statuses() == {"t": "completed", "t.2": "completed"}


def test_a_root_that_is_ended_twice_ends_once(tracer: trace.Tracer) -> None:
    root = tracer.start_span("chat", attributes={"thread": "t"})
    root.end()
    root.end()

    events = [one["event_type"] for one in check(LOGS / "t.jsonl")]
    assert events.count("workflow_end") == 1


def test_a_root_may_end_in_another_thread(tracer: trace.Tracer) -> None:
    root = tracer.start_span("chat", attributes={"thread": "t"})
    other = threading.Thread(target=root.end)
    other.start()
    other.join()

    assert statuses() == {"t": "completed"}


async def test_tasks_at_once_keep_apart(tracer: trace.Tracer) -> None:
    async def chat(name: str) -> None:
        with tracer.start_as_current_span("chat", attributes={"thread": name}):
            await asyncio.sleep(0)
            with tracer.start_as_current_span(f"work {name}"):
                await asyncio.sleep(0)

    await asyncio.gather(*(chat(f"t{n}") for n in range(8)))

    for n in range(8):
        assert steps(f"t{n}") == {f"work t{n}": "completed"}


# -- what spans hold


def test_odd_names_and_attributes_are_kept_out_of_the_way(tracer: trace.Tracer) -> None:
    names = ["work\n\x1b[31m", "work " + "x" * 10_000, "work/1#2", "work \ud800", "work "]
    turn(tracer, "t", *names)

    assert statuses() == {"t": "completed"}
    assert list(steps("t").values()) == ["completed"] * len(names)


def test_attributes_that_cannot_be_kept_cost_nothing_else(tracer: trace.Tracer) -> None:
    odd: Any = {"thread": "t", "object": object(), "nan": float("nan"), "mixed": [1, "a"]}
    with tracer.start_as_current_span("chat", attributes=odd) as root:
        root.set_attribute("big", "x" * 2_000_000)
        with tracer.start_as_current_span("work") as work:
            work.set_status(StatusCode.ERROR)

    assert statuses() == {"t": "completed"}
    assert steps("t") == {"work": "failed"}


# -- the rules


def test_instrumented_while_a_root_is_open_that_one_is_left_alone(tracer: trace.Tracer) -> None:
    uninstrument("chats")
    with tracer.start_as_current_span("chat", attributes={"thread": "t"}):
        instrument("chats", CHATS)
        with tracer.start_as_current_span("work"):
            pass
    assert statuses() == {}

    turn(tracer, "t", "work")
    assert statuses() == {"t": "completed"}


def test_of_two_rules_for_one_span_the_first_opens_a_run(tracer: trace.Tracer) -> None:
    instrument("others", SpanRules(root=SpanMatch("c*"), steps=SpanMatch("*")))
    turn(tracer, "t", "work", "rest")
    uninstrument("others")

    assert statuses() == {"t": "completed"}
    assert steps("t") == {"work": "completed"}
