"""``follow``: the events of a run as they are written, with and without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from logs import forge
from tapps_otel import follow, step, workflow
from tapps_otel.errors import LogDamagedError, RunNotFoundError


@step
async def turn(number: int) -> int:
    await asyncio.sleep(0)
    return number


@workflow
async def turning(count: int) -> int:
    return sum([await turn(number) for number in range(count)])


async def test_the_events_of_a_run_in_progress_are_an_async_iterator() -> None:
    run = asyncio.create_task(turning.options(workflow_id="a")(3))
    await asyncio.sleep(0)  # its log is there when it first waits
    found = [event.event_type async for event in follow("a")]

    assert await run == 3
    assert found == ["workflow_start", *["step_start", "step_finish"] * 3, "workflow_end"]


async def test_it_does_not_block_the_loop(log_dir: Path) -> None:
    await turning.options(workflow_id="a")(600)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    size = (log_dir / "a.jsonl").stat().st_size
    found = [event async for event in follow("a")]
    counting.cancel()

    assert len(found) == 1202
    assert 2 << 18 < size < 3 << 18  # blocks
    assert turns == 2  # one after each full block


async def test_both_kinds_of_iteration_yield_the_same_events() -> None:
    await turning.options(workflow_id="a")(2)

    assert [event async for event in follow("a")] == list(follow("a"))
    assert isinstance(follow("a"), Iterator)
    assert isinstance(follow("a"), AsyncIterator)


async def test_a_stream_that_is_left_early_can_be_closed() -> None:
    await turning.options(workflow_id="a")(2)
    with closing(follow("a")) as stream:
        assert next(stream).seq == 1
    async with aclosing(follow("a")) as later:
        assert (await anext(later)).seq == 1
    assert [*stream] == []


async def test_a_missing_run_and_a_damaged_log_are_errors(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError):
        next(follow("nobody"))
    with pytest.raises(RunNotFoundError):
        await anext(follow("nobody"))

    path = forge(tmp_path, "d", [{"event_type": "workflow_start"}])
    path.write_bytes(path.read_bytes() + b"junk\njunk\n")
    stream = follow("d", log_dir=tmp_path)
    assert (await anext(stream)).seq == 1
    with pytest.raises(LogDamagedError):
        await anext(stream)


def test_no_file_stays_open_after_a_loop_that_is_left(tmp_path: Path) -> None:
    forge(tmp_path, "a", [{"event_type": "workflow_start"}] * 3)
    for event in follow("a", log_dir=tmp_path):
        assert event.seq == 1
        break  # a fixture of all tests looks for open files
