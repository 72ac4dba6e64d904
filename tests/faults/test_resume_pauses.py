"""Runs that wait, killed at every event, answered by other processes: as if never killed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crashes import Effects, appends, go, in_child, killed, label
from effort import examples, sample
from independent_checker import check
from tapps_otel import (
    answer,
    apause,
    bind,
    clock,
    configure,
    history,
    pause,
    settings,
    step,
    verify,
    workflow,
)
from tapps_otel.errors import RunPausedError
from tapps_otel.log.event import Event

did = Effects(Path())  # every test gives its own
logs = Path()
ahead_s = 0  # of the wall clock


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings, "_given", settings._given)
    monkeypatch.setattr(settings, "_current", settings._current)
    monkeypatch.setitem(globals(), "did", Effects(tmp_path / "effects"))
    monkeypatch.setitem(globals(), "logs", tmp_path / "logs")
    monkeypatch.setitem(globals(), "ahead_s", 0)
    real = clock.time_ns
    monkeypatch.setattr(clock, "time_ns", lambda: real() + ahead_s * 10**9)
    configure(log_dir=tmp_path / "logs", durability="os")
    return tmp_path / "logs"


@step
def draft(number: int) -> str:
    did(f"draft {number}")
    return f"draft {number}"


@step
async def adraft(number: int) -> str:
    did(f"draft {number}")
    return f"draft {number}"


@step
def review(number: int) -> bool:
    return pause(f"Is {draft(number)} good?", type=bool)


@workflow
def nested() -> list[bool]:
    return [review(1), review(2)]


@workflow
async def gathered() -> list[bool]:
    async def one(number: int) -> bool:
        return await apause(f"Is {await adraft(number)} good?", type=bool)

    return list(await asyncio.gather(*(one(number) for number in range(3))))


@workflow
def pooled() -> list[bool]:
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(bind(review), number) for number in range(3)]
    return [one.result() for one in futures]


@workflow
def parent() -> list[bool]:
    return [review(1), *nested.options(workflow_id="child")()]


@workflow
async def timed() -> list[Any]:
    async def one(number: int) -> str:
        await apause(until=60, name="timer")
        return await adraft(number)

    return list(await asyncio.gather(one(1), one(2), apause("Is draft 1 good?", type=bool)))


FLOWS = [nested, gathered, pooled, parent, timed]


def is_good(question: str | None) -> bool:
    return question == "Is draft 1 good?"


def pass_time() -> None:
    global ahead_s  # noqa: PLW0603 - the clock of a test
    ahead_s += 3600


def answer_all(error: RunPausedError) -> None:
    for one in error.questions:
        if one.question is not None:
            answer(one.workflow_id, is_good(one.question), step=one.step_id)


def to_the_end(flow: Any) -> Any:
    """Resume and answer until the run has completed."""
    for _ in range(20):
        try:
            return go(flow)
        except RunPausedError as error:
            answer_all(error)
            pass_time()
    raise AssertionError("it does not come to its end")


def events_of(flow: Any) -> int:
    """How many events an uncrashed run writes, answers included."""
    written: list[str] = []

    def note(_: int, event: Event) -> None:
        written.append(label(event))

    with appends(after=note):
        to_the_end(flow)
    return len(written)


def start_afresh() -> None:
    did.forget()
    for path in logs.glob("*"):
        if path.is_file():
            path.unlink()


def check_outcome(result: Any, wanted: Any, drafts: Counter[str]) -> None:
    assert result == wanted
    assert Counter(did.all).keys() == drafts.keys()
    for path in logs.glob("*.jsonl"):
        check(path)
        assert verify(path.stem).ok
        assert not history(path.stem).waiting


@pytest.mark.slow
@pytest.mark.parametrize("flow", sample(FLOWS, 1), ids=lambda one: one.name)
def test_killed_at_every_event_it_comes_to_the_same_result(flow: Any) -> None:
    wanted = to_the_end(flow)
    drafts = Counter(did.all)
    start_afresh()
    count = events_of(flow)

    for number in range(1, count + 1):
        for when in ("before", "after"):
            start_afresh()
            at: dict[str, Any] = {when: number}
            killed(lambda: to_the_end(flow), **at)
            check_outcome(to_the_end(flow), wanted, drafts)


@pytest.mark.parametrize("number", range(1, 6))
def test_killed_while_due_pauses_end_it_can_continue_although_a_question_is_open(
    number: int,
) -> None:
    with suppress(RunPausedError):
        go(timed)
    pass_time()
    killed(lambda: go(timed), after=number)
    with pytest.raises(RunPausedError) as caught:
        go(timed)

    assert [one.question for one in caught.value.questions] == ["Is draft 1 good?"]
    assert set(did.all) == {"draft 1", "draft 2"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_answer_that_was_killed_is_given_or_not(when: str) -> None:
    with suppress(RunPausedError):
        go(nested)
    at: dict[str, Any] = {when: "step_finish review/pause"}
    killed(lambda: answer("r", True), **at)

    assert len(history("r").waiting) == (when == "before")
    assert to_the_end(nested) == [True, False]


def test_of_many_answers_at_once_one_is_given() -> None:
    with suppress(RunPausedError):
        go(nested)

    def try_to(number: int) -> Callable[[], str | None]:
        def call() -> str | None:
            with suppress(Exception):
                return answer("r", number % 2 == 0, by=f"person {number}")
            return None

        return call

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda number: in_child(try_to(number)), range(4)))
    given_to = [one.value for one in outcomes if one.value is not None]

    assert given_to == ["review/pause"]
    assert sum(one["event_type"] == "step_finish" for one in check(logs / "r.jsonl")) == 2


@hypothesis_settings(
    max_examples=examples(30),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kinds=st.lists(st.sampled_from(["step", "pause", "review", "gather"]), min_size=1, max_size=5),
    crash=st.integers(1, 40),
    seed=st.integers(0, 1 << 16),
)
def test_random_workflows_with_a_kill_and_answers_in_any_order(
    kinds: list[str], crash: int, seed: int
) -> None:
    @workflow
    async def flow() -> list[Any]:
        found: list[Any] = []
        for at, kind in enumerate(kinds):
            if kind == "step":
                found.append(draft(10 * at))
            elif kind == "pause":
                found.append(await apause(f"Question {at}?", type=int))
            elif kind == "review":
                found.append(await asyncio.to_thread(review, 10 * at))
            else:
                found += await asyncio.gather(
                    apause(f"Left {at}?", type=int), apause(f"Right {at}?", type=int)
                )
        return found

    order = random.Random(seed)

    def reply(error: RunPausedError) -> None:
        # Some of the questions, in any order: the others stay open.
        for one in order.sample(list(error.questions), order.randint(1, len(error.questions))):
            value: Any = len(one.question or "")
            if "good" in (one.question or ""):
                value = True
            answer(one.workflow_id, value, step=one.step_id)

    def run_on() -> Any:
        for _ in range(50):
            try:
                return go(flow)
            except RunPausedError as error:
                reply(error)
        raise AssertionError("it does not come to its end")

    start_afresh()
    wanted = run_on()
    drafts = Counter(did.all)
    start_afresh()
    with suppress(AssertionError):  # it had ended before the event of the crash
        killed(run_on, after=crash)
    check_outcome(run_on(), wanted, drafts)
