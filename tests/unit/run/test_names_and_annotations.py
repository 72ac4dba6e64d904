"""Names, keys, reasons and annotations that the log's format can hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from crashes import go
from tapps_otel import annotate, history, skip, step, workflow


@pytest.mark.parametrize("call", [skip, annotate])
def test_a_name_or_reason_that_is_not_a_string_is_refused(call: Callable[..., None]) -> None:
    @step
    def work() -> None:
        call(5)

    @workflow
    def flow() -> None:
        work()

    with pytest.raises(TypeError, match="must be a string"):
        go(flow)
    assert [one.status for one in history("r").steps] == ["failed"]


def test_a_key_that_is_not_a_string_is_refused() -> None:
    @step(key=lambda number: number)
    def work(number: int) -> None: ...

    @workflow
    def flow() -> None:
        work(5)

    with pytest.raises(TypeError, match="key of step 'work' must be a string"):
        go(flow)
    assert history("r").status == "failed"


@pytest.mark.parametrize("word", ["name", "agent", "action"])
def test_a_step_name_that_is_not_a_string_is_refused(word: str) -> None:
    with pytest.raises(TypeError, match="must be a string"):
        step(**{word: 5})(lambda: None)  # type: ignore[call-overload]


def test_retry_on_is_checked_at_once() -> None:
    with pytest.raises(TypeError, match="tuple of exception classes"):
        step(retries=1, retry_on=[ValueError])  # type: ignore[call-overload]


async def test_an_annotation_after_the_end_is_not_an_error(log: Callable[..., list[Any]]) -> None:
    ended = asyncio.Event()

    async def left_over() -> None:
        await ended.wait()
        annotate("late")

    @workflow
    async def flow() -> None:
        tasks.append(asyncio.create_task(left_over()))

    tasks: list[asyncio.Task[None]] = []
    await flow.options(workflow_id="r")()
    ended.set()
    await tasks[0]
    assert not log("annotation")


def test_an_annotation_may_have_an_attribute_called_name() -> None:
    @workflow
    def flow() -> None:
        annotate("tool", name="search")

    flow.options(workflow_id="r")()
    (note,) = history("r").annotations
    assert (note.name, note.attributes) == ("tool", {"name": "search"})
