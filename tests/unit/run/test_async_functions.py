"""Async steps and workflows are coroutine functions to frameworks; what hides that is refused."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from httpx import ASGITransport, AsyncClient

from crashes import Effects
from tapps_otel import step, workflow
from tapps_otel.errors import StepResultError


@step
async def fetch() -> int:
    return 1


@workflow
async def flow() -> int:
    return await fetch()


class Shop:
    @step
    async def price(self) -> int:
        return 2

    @workflow
    async def sell(self: Any) -> int:
        return 3


class Priced:
    async def __call__(self) -> int:
        return 4


ASYNC = [
    fetch,
    flow,
    fetch.options(key="k"),
    flow.options(workflow_id="r"),
    Shop().price,
    Shop().price.options(key="k"),
    Shop().sell,
    step(Priced()),
    step(functools.partial(Priced().__call__)),
]


@pytest.mark.parametrize("one", ASYNC, ids=lambda one: type(one).__name__)
def test_async_functions_count_as_such(one: Any) -> None:
    assert inspect.iscoroutinefunction(one)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # asyncio's, of Python 3.14
        assert asyncio.iscoroutinefunction(one)
    assert inspect.iscoroutinefunction(functools.partial(one))


def test_sync_functions_do_not() -> None:
    @step
    def plain() -> None: ...

    assert not inspect.iscoroutinefunction(plain)
    assert not inspect.iscoroutinefunction(workflow(lambda: None))


def test_signatures_are_those_of_the_functions() -> None:
    @step
    async def work(a: int, /, b: int = 2, *, c: int = 3) -> None: ...

    assert str(inspect.signature(work)) == "(a: 'int', /, b: 'int' = 2, *, c: 'int' = 3) -> 'None'"


async def test_frameworks_await_them(did: Effects) -> None:
    app = FastAPI()

    @workflow
    async def later(what: str) -> None:
        did(what)

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(later, "background")
        return "accepted"

    @app.get("/endpoint")
    @workflow
    async def endpoint(given: int) -> int:
        return given + await fetch()

    @app.get("/dependency")
    async def dependency(found: Annotated[int, Depends(fetch)]) -> int:
        return found

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/background")).json() == "accepted"
        assert did.all == ["background"]
        assert (await client.get("/endpoint", params={"given": 2})).json() == 3
        assert (await client.get("/dependency")).json() == 1


# -- generators


def numbers() -> Iterator[int]:
    yield 1


async def async_numbers() -> AsyncIterator[int]:
    yield 1


class Numbers:
    def method(self) -> Iterator[int]:
        yield 1

    def __call__(self) -> Iterator[int]:
        yield 1


@functools.wraps(numbers)
def generating_wrapper() -> Iterator[int]:
    yield from numbers()


@pytest.mark.parametrize("decorate", [step, workflow])
@pytest.mark.parametrize(
    "fn",
    [
        numbers,
        async_numbers,
        functools.partial(numbers),
        functools.partial(functools.partial(async_numbers)),
        Numbers().method,
        Numbers.method,
        functools.partial(Numbers().method),
        Numbers(),
        generating_wrapper,
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_generators_are_refused_where_they_are_decorated(
    decorate: Callable[..., Any], fn: Callable[..., Any]
) -> None:
    with pytest.raises(TypeError, match=r"is a generator: .*Return a list instead"):
        decorate(fn)


def test_a_wrapper_that_makes_a_list_of_a_generator_is_a_step() -> None:
    def unannotated():  # type: ignore[no-untyped-def]  # noqa: ANN202
        yield 1

    @functools.wraps(unannotated)
    def listed() -> Any:
        return list(unannotated())  # type: ignore[no-untyped-call]

    assert workflow(step(listed))() == [1]


# -- wrappers that are not async


def passing(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that does not know that it wraps an async function."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize("persist", [True, False])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_coroutine_of_a_sync_wrapper_is_refused(
    did: Effects, log: Any, persist: bool, retries: int
) -> None:
    @step(persist=persist, retries=retries)
    @passing
    async def work() -> int:
        did("work")
        return 1

    @workflow
    def run() -> None:
        work()

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "was never awaited"
        with pytest.raises(StepResultError, match=r"returned a coroutine.*make its wrapper `async"):
            run.options(workflow_id="r")()
        gc.collect()
    assert did.all == []
    assert [one["status"] for one in log("step_fail")] == ["failed"]


def test_a_workflow_that_returns_a_coroutine_fails() -> None:
    @workflow
    @passing
    async def run() -> int:
        return 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StepResultError, match="workflow 'run' returned a coroutine"):
            run()


def test_a_sync_wrapper_that_runs_the_coroutine_is_a_step() -> None:
    async def one() -> int:
        return 1

    @functools.wraps(one)
    def blocking() -> Any:
        return asyncio.run(one())

    assert workflow(step(blocking))() == 1
