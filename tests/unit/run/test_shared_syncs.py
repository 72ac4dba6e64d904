"""Durable steps of tasks and threads share syncs; none ends before its own is done."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

from crashes import go
from group_syncs import Held
from tapps_otel import Backoff, bind, configure, skip, step, verify, workflow
from tapps_otel.errors import LogWriteError
from tapps_otel.log import files as log_files
from waiting import until, until_async

Log = Callable[..., list[dict[str, Any]]]
MANY = 20


@pytest.fixture(autouse=True)
def _durable(log_dir: Path) -> None:
    configure(durability="commit")


@step
async def work(number: int) -> int:
    await asyncio.sleep(0)
    return number


@contextmanager
def held(fail: Callable[[int], object] = lambda nth: None) -> Iterator[Held]:
    """Syncs that a test can hold; none stays held when the block ends."""
    files = Held(fail)
    with log_files.use(files):
        try:
            yield files
        finally:
            files.let_go()


awaits = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="needs Python 3.13: older ones block the loop for a sync"
)


@awaits
def test_the_loop_runs_other_tasks_while_steps_are_synced(log: Log) -> None:
    ended: list[int] = []

    async def ending(number: int) -> None:
        ended.append(await work(number))

    @workflow
    async def flow() -> None:
        files.hold()
        both = asyncio.gather(*(ending(number) for number in range(MANY)))
        # Only a loop that runs can see that, and let the sync go.
        await until_async(lambda: files.waiting and files.written == 1 + 2 * MANY)
        assert ended == []  # no step has ended that is not synced
        files.let_go()
        await both

    with held() as files:
        go(flow)
        assert sorted(ended) == list(range(MANY))
        assert len(files.syncers) <= 5  # start, two for the steps, end, and one to spare
    assert [one["status"] for one in log("step_finish")] == ["completed"] * MANY
    verify("r").raise_if_bad()


def test_steps_one_after_another_are_synced_without_another_thread() -> None:
    @workflow
    async def flow() -> None:
        for number in range(5):
            await work(number)

    with held() as files:
        go(flow)
        assert set(files.syncers) == {get_ident()}
        assert len(files.syncers) == 7


@awaits
def test_the_end_of_a_scope_comes_after_the_ends_of_its_steps(log: Log) -> None:
    @step
    async def outer(number: int) -> int:
        return sum(await asyncio.gather(work(number), work(number + 1)))

    @workflow
    async def flow() -> int:
        return sum(await asyncio.gather(*(outer(10 * number) for number in range(5))))

    with held():
        assert go(flow) == 2 * (0 + 10 + 20 + 30 + 40) + 5
    ends = {one["step_id"]: one["seq"] for one in log("step_finish")}
    for place, seq in ends.items():
        outer_place = place.rpartition("/")[0]
        assert not outer_place or seq < ends[outer_place]


@awaits
def test_failures_retries_and_skips_are_synced_together_too(log: Log) -> None:
    tried: set[int] = set()

    @step(retries=1, backoff=Backoff(0, 1, 0))
    async def flaky(number: int) -> int:
        await asyncio.sleep(0)
        if number not in tried:
            tried.add(number)
            raise ValueError(number)
        return number

    @step
    async def skipped(number: int) -> int | None:
        await asyncio.sleep(0)
        skip("not today", None)

    @step
    async def bad(number: int) -> None:
        await asyncio.sleep(0)
        raise KeyError(number)

    @workflow
    async def flow() -> list[Any]:
        files.hold()
        steps = [one(number) for number in range(MANY) for one in (flaky, skipped, bad)]
        ending = asyncio.gather(*steps, return_exceptions=True)
        await until_async(lambda: files.written == 1 + 2 * 3 * MANY)
        files.let_go()
        return [str(one) for one in await ending]

    with held() as files:
        assert go(flow) == [
            text for number in range(MANY) for text in (str(number), "None", str(number))
        ]
        assert len(files.syncers) <= 4 + MANY  # of the second tries, each may have its own
    assert len(log("step_fail")) == 2 * MANY
    assert len(log("step_skip")) == MANY
    assert len(log("step_finish")) == MANY
    verify("r").raise_if_bad()


@awaits
@pytest.mark.parametrize("cancel", ["cancel", "timeout"])
def test_a_task_that_is_cancelled_while_it_awaits_its_sync_has_the_result_of_its_step(
    log: Log, cancel: str
) -> None:
    got: list[int] = []
    limits: list[asyncio.Timeout] = []

    async def caller(number: int) -> None:
        if cancel == "cancel":
            got.append(await work(number))
            await asyncio.sleep(0)  # where the cancellation is raised
        else:
            async with asyncio.timeout(None) as limit:
                limits.append(limit)
                got.append(await work(number))

    def let_go_once_cancelled(tasks: list[asyncio.Task[None]]) -> None:
        until(lambda: any(one.cancelling() for one in tasks))
        files.let_go()

    @workflow
    async def flow() -> list[bool]:
        files.hold()
        tasks = [asyncio.create_task(caller(number)) for number in range(2)]
        await until_async(lambda: files.waiting and files.written == 5)
        threading.Thread(target=let_go_once_cancelled, args=(tasks,)).start()
        if cancel == "cancel":
            for one in tasks:
                one.cancel()
        for limit in limits:
            limit.reschedule(0)  # it is over
        await asyncio.wait(tasks)
        return [one.cancelled() for one in tasks]

    with held() as files:
        assert go(flow) == [cancel == "cancel"] * 2
    assert sorted(got) == [0, 1]
    assert [one["status"] for one in log("step_finish")] == ["completed"] * 2
    verify("r").raise_if_bad()


@pytest.mark.parametrize("drive", ["send", "another loop"])
def test_a_step_that_no_loop_of_asyncio_drives_ends_as_usual(log: Log, drive: str) -> None:
    @step
    async def plain(number: int) -> int:
        return number

    def drive_it(number: int) -> int:
        call: Any = plain(number)
        try:
            call.send(None)
        except StopIteration as end:
            return int(end.value)
        raise AssertionError

    @workflow
    def flow() -> list[int]:
        if drive == "send":
            return [drive_it(1), drive_it(2)]
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(bind(drive_it), [1, 2]))

    assert go(flow) == [1, 2]
    assert len(log("step_finish")) == 2
    verify("r").raise_if_bad()


@awaits
def test_a_coroutine_that_is_closed_while_it_awaits_its_sync_has_finished_its_step(
    log: Log,
) -> None:
    @workflow
    async def flow() -> str:
        files.hold()
        other = asyncio.create_task(work(2))
        await asyncio.sleep(0)  # that has begun
        call: Any = work(1)
        call.send(None)  # into its body
        call.send(None)  # to the sync of its end
        files.let_go()
        call.close()
        await other
        return "closed"

    with held() as files:
        assert go(flow) == "closed"
    assert len(log("step_finish")) == 2
    verify("r").raise_if_bad()


@awaits
def test_a_sync_that_fails_is_learned_by_all_tasks_and_the_run_continues(log: Log) -> None:
    def fail(number: int) -> None:
        if number == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    @workflow
    async def flow() -> int:
        return sum(await asyncio.gather(*(work(number) for number in range(MANY))))

    with held(fail):
        assert go(flow) == sum(range(MANY))
    assert len(log("step_finish")) == MANY
    verify("r").raise_if_bad()


@awaits
def test_a_log_that_must_not_fail_stops_all_tasks() -> None:
    configure(on_log_failure="stop")
    raised: list[object] = []

    def fail(number: int) -> None:
        if number >= 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    @workflow
    async def flow() -> None:
        calls = (work(number) for number in range(MANY))
        raised.extend(await asyncio.gather(*calls, return_exceptions=True))

    with held(fail), contextlib.suppress(LogWriteError):
        go(flow)
    assert len(raised) == MANY
    assert all(isinstance(one, LogWriteError) for one in raised)


def test_steps_of_threads_share_syncs(log: Log) -> None:
    @step
    def plain(number: int) -> int:
        return number

    @workflow
    def flow() -> int:
        files.hold()
        with ThreadPoolExecutor(8) as pool:
            results = pool.map(bind(plain), range(200))
            until(lambda: files.written == 1 + 2 * 8)
            files.let_go()
            return sum(results)

    with held() as files:
        assert go(flow) == sum(range(200))
        assert len(files.syncers) < 200
    assert len(log("step_finish")) == 200
    verify("r").raise_if_bad()
