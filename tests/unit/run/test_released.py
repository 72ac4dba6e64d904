"""What a run held is released with it, not by a later garbage collection."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tapps_otel import bind, pause, step, workflow


class Held:
    """Something large that the user's code has while it runs."""


class StepError(Exception):
    """Ends a step."""


held: list[weakref.ref[Held]] = []


def hold() -> Held:
    made = Held()
    held.append(weakref.ref(made))
    return made


@step
def works(number: int) -> int:
    mine = hold()
    return number + (mine is None)


@step
def fails(number: int) -> int:
    mine = hold()
    raise StepError(number, mine is None)


@step(retries=2)
def fails_again(number: int) -> int:
    mine = hold()
    raise StepError(number, mine is None)


@step(timeout=0.01)
async def hangs(number: int) -> int:
    mine = hold()
    await asyncio.Event().wait()
    return number + (mine is None)


@step
async def fails_async(number: int) -> int:
    mine = hold()
    raise StepError(number, mine is None)


@workflow
def completes() -> int:
    mine = hold()
    return works(1) + (mine is None)


@workflow
def handles() -> int:
    mine = hold()
    with suppress(StepError):
        fails_again(1)
    return works(1) + (mine is None)


@workflow
def raises() -> int:
    mine = hold()
    return fails(1) + (mine is None)


@workflow
def raises_other() -> int:
    mine = hold()
    try:
        return fails(1)
    except StepError as error:
        raise ValueError(mine is None) from error


@workflow
def asks() -> bool:
    mine = hold()
    return pause("Go on?", type=bool) and mine is not None


@workflow
def in_thread() -> int:
    mine = hold()
    thread = threading.Thread(target=bind(works), args=(1,))
    thread.start()
    thread.join()
    return int(mine is None)


@workflow
async def gathers() -> list[Any]:
    mine = hold()
    found = await asyncio.gather(fails_async(1), fails_async(2), return_exceptions=True)
    return [str(one) for one in found] + [mine is None]


@workflow
async def raises_async() -> int:
    mine = hold()
    return await fails_async(1) + (mine is None)


@workflow
async def times_out() -> int:
    mine = hold()
    return await hangs(1) + (mine is None)


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    held.clear()


@pytest.mark.parametrize(
    "flow",
    [completes, handles, raises, raises_other, asks, in_thread, gathers, raises_async, times_out],
    ids=lambda flow: flow.name,
)
@pytest.mark.usefixtures("uncollected")
def test_what_user_code_held_is_released_with_the_run(flow: Callable[[], Any]) -> None:
    async def awaited() -> None:
        with suppress(Exception):  # not around asyncio.run(), which makes a cycle of its own
            await flow()

    if inspect.iscoroutinefunction(flow):
        asyncio.run(awaited())
    else:
        with suppress(Exception):
            flow()

    assert held
    assert [one() for one in held] == [None] * len(held)
