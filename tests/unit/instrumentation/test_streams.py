"""Executors whose methods are generators: runs and steps that are consumed item by item."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapps_otel import ExecutorSpec, current_run, current_step, instrument, uninstrument
from tapps_otel.instrumentation import MethodCall
from tapps_otel.log.lease import holder

LOGS = Path(".tapps-agents/workflow-state/events")
Story = Callable[..., list[str]]


def here() -> str | None:
    """Which run and step the calling code belongs to."""
    try:
        run = current_run().workflow_id
    except LookupError:
        return None
    try:
        return f"{run} {current_step().step_id}"
    except LookupError:
        return run


class Stream:
    """Yields what its step yields, and where the code was that did it."""

    def run(self, name: str = "r", items: int = 3) -> Generator[Any, None, None]:
        yield here()
        result = yield from self.work("a", items)
        yield result
        yield here()

    def work(self, name: str, items: int = 3) -> Generator[Any, None, str]:
        for _ in range(items):
            yield here()
        return name


class AsyncStream:
    async def run(self, name: str = "r", items: int = 3) -> AsyncGenerator[Any, None]:
        yield here()
        async for item in self.work("a", items):
            yield item
        await asyncio.sleep(0)
        yield here()

    async def work(self, name: str, items: int = 3) -> AsyncIterator[Any]:
        for _ in range(items):
            await asyncio.sleep(0)
            yield here()


SPEC = ExecutorSpec(
    executor="stream",
    run="run",
    step="work",
    streams=True,
    run_id=lambda call: call.arguments["name"],
    step_id=lambda call: call.arguments["name"],
)
WHOLE = ["workflow_start", "step_start a 1", "step_finish a 1", "workflow_end completed"]
LEFT = ["workflow_start", "step_start a 1", "step_fail a 1 cancelled", "workflow_end cancelled"]


def test_the_scope_is_entered_for_each_item_and_never_around_the_consumer(story: Story) -> None:
    instrument(Stream, SPEC)
    stream = Stream().run()

    assert inspect.isgenerator(stream)
    assert not LOGS.exists()  # the work begins with the first item
    assert [(item, here()) for item in stream] == [
        ("r", None), ("r a", None), ("r a", None), ("r a", None), ("a", None), ("r", None),
    ]  # fmt: skip
    assert story("r") == WHOLE
    assert holder(LOGS / "r.lease") is None


async def test_the_same_for_async_generators(story: Story) -> None:
    instrument(AsyncStream, SPEC)
    stream = AsyncStream().run()

    assert inspect.isasyncgen(stream)
    assert [(item, here()) async for item in stream] == [
        ("r", None), ("r a", None), ("r a", None), ("r a", None), ("r", None),
    ]  # fmt: skip
    assert story("r") == WHOLE


def test_interleaved_streams_keep_apart(story: Story) -> None:
    instrument(Stream, SPEC)
    pairs = list(zip(Stream().run("one"), Stream().run("two"), strict=True))

    assert pairs[:2] == [("one", "two"), ("one a", "two a")]
    assert story("one") == story("two") == WHOLE


async def test_interleaved_async_streams_keep_apart(story: Story) -> None:
    instrument(AsyncStream, SPEC)

    async def consume(name: str) -> list[Any]:
        return [item async for item in AsyncStream().run(name)]

    one, two = await asyncio.gather(consume("one"), consume("two"))
    assert one == [item.replace("two", "one") for item in two]
    assert story("one") == story("two") == WHOLE


def test_a_stream_that_is_left_early_is_cancelled(story: Story) -> None:
    instrument(Stream, SPEC)
    for item in Stream().run():
        if item == "r a":
            break

    assert story("r") == LEFT


async def test_an_async_stream_that_is_left_early_is_cancelled(story: Story) -> None:
    instrument(AsyncStream, SPEC)
    async with contextlib.aclosing(AsyncStream().run()) as stream:
        async for item in stream:
            if item == "r a":
                break
    await asyncio.sleep(0)  # its step is closed by the event loop
    await asyncio.sleep(0)

    assert story("r") == [*LEFT[:2], LEFT[3], LEFT[2]]


def test_an_async_stream_that_is_forgotten_is_closed_as_without_a_log(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(AsyncStream, SPEC)
    kept: list[Any] = []

    async def main() -> None:
        kept.append(AsyncStream().run())
        await anext(kept[0])
        await anext(kept[0])

    asyncio.run(main())

    assert sorted(story("r")) == sorted(LEFT)
    assert not caplog.records


@pytest.mark.parametrize("kind", [Stream, AsyncStream])
async def test_a_stream_that_is_never_read_is_no_run(kind: Any) -> None:
    instrument(kind, SPEC)
    made = kind().run()
    del made

    assert not LOGS.exists()


class Either:
    """Its methods are plain functions, or coroutines, that may return a generator."""

    def run(self, name: str = "r", *, stream: bool = True) -> Any:
        return self._items() if stream else list(self._items())

    def _items(self) -> Iterator[Any]:
        yield here()
        yield from self.work("a")

    def work(self, name: str) -> Any:
        def items() -> Iterator[Any]:
            yield here()

        return items()


class AsyncEither:
    async def run(self, name: str = "r", *, stream: bool = True) -> Any:
        items = self._items()
        return items if stream else [item async for item in items]

    async def _items(self) -> AsyncIterator[Any]:
        yield here()
        async for item in await self.work("a"):
            yield item

    async def work(self, name: str) -> Any:
        async def items() -> AsyncIterator[Any]:
            yield here()

        return items()


@pytest.mark.parametrize("stream", [True, False])
def test_a_method_may_return_a_generator_or_not(story: Story, stream: bool) -> None:
    instrument(Either, SPEC)

    assert list(Either().run(stream=stream)) == ["r", "r a"]
    assert story("r") == WHOLE


@pytest.mark.parametrize("stream", [True, False])
async def test_a_coroutine_may_return_a_generator_or_not(story: Story, stream: bool) -> None:
    instrument(AsyncEither, SPEC)
    made = await AsyncEither().run(stream=stream)

    assert ([item async for item in made] if stream else made) == ["r", "r a"]
    assert story("r") == WHOLE


def test_a_returned_generator_that_is_dropped_is_cancelled(story: Story) -> None:
    instrument(Either, SPEC)
    made = Either().run()
    assert story("r") == ["workflow_start"]
    del made
    gc.collect()

    assert story("r") == ["workflow_start", "workflow_end cancelled"]
    assert holder(LOGS / "r.lease") is None


def test_readers_get_the_last_item(story: Story) -> None:
    seen: list[Any] = []

    def outcome(call: MethodCall) -> str:
        seen.append(call.result)
        return "completed"

    instrument(Stream, ExecutorSpec(**{**vars(SPEC), "outcome": outcome}))
    list(Stream().run())

    assert seen == ["r"]


# ---------------------------------------------------------------- as without a log


class Scripted:
    """A generator that answers whatever its consumer does, by a script."""

    def __init__(self, script: list[str]) -> None:
        self.script, self.seen = script, list[Any]()

    def run(self, name: str) -> Any:
        return (yield from self.work("a"))

    def work(self, name: str) -> Any:
        try:
            for word in self.script:
                try:
                    self.seen.append((yield word))
                except ValueError as error:
                    self.seen.append(str(error))
                    if word == "reraise":
                        raise
                    if word == "replace":
                        raise KeyError(word) from error
                except GeneratorExit:
                    self.seen.append("closed")
                    raise
                if word == "fail":
                    raise TypeError(word)
            return "returned"
        finally:
            self.seen.append("finally")


WORDS = st.sampled_from(["plain", "reraise", "replace", "fail"])
MOVES = st.sampled_from(["next", "send", "throw", "close"])


def play(executor: Any, moves: list[str], name: str) -> list[Any]:
    """Consume a stream, and keep everything that the consumer can see."""
    stream, got = executor.run(name), []
    for at, move in enumerate(moves):
        try:
            match move:
                case "next":
                    got.append(next(stream))
                case "send":
                    got.append(stream.send(at if got else None))
                case "throw":
                    got.append(stream.throw(ValueError(f"thrown {at}")))
                case _:
                    got.append(stream.close())
        except BaseException as error:  # noqa: BLE001 - all that a generator may raise
            cause = type(error.__cause__)
            got.append((type(error), str(error), getattr(error, "value", None), cause))
    return got


_runs = itertools.count()


@given(st.lists(WORDS, max_size=4), st.lists(MOVES, max_size=6))
@pytest.mark.slow
def test_a_consumer_sees_the_same_with_and_without_a_log(
    script: list[str], moves: list[str]
) -> None:
    alone, watched = Scripted(script), Scripted(script)
    expected = play(alone, moves, "r")
    instrument(Scripted, SPEC)
    try:
        name = f"r{next(_runs)}"
        assert play(watched, moves, name) == expected
    finally:
        uninstrument(Scripted)
    gc.collect()

    assert watched.seen == alone.seen


BREAKABLE = [
    *("stages.RunStage.begin", "stages.StepStage.begin", "stages.Execution.current"),
    *("stages.Execution.open", "stages.Execution.end", "stages.Execution.end_with_error"),
    *("stages.Execution.close", "stages.Execution.begin_step"),
    *("stages.finish_step", "stages.fail_step", "stages.open_run"),
    *("spec_hooks.finish_step", "spec_hooks.fail_step", "spec_hooks.open_run"),
    *("spec_hooks._streamed", "spec_hooks.MethodCall.bind"),
]


@pytest.mark.parametrize("broken", BREAKABLE)
async def test_a_failing_hook_costs_only_the_log(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a mistake in a hook")

    for kind in (Stream, AsyncStream, Either, AsyncEither):
        instrument(kind, SPEC)
    monkeypatch.setattr(f"tapps_otel.instrumentation.{broken}", fail)

    assert len(list(Stream().run())) == 6
    assert len([item async for item in AsyncStream().run()]) == 5
    assert len(list(Either().run())) == 2
    assert len([item async for item in await AsyncEither().run()]) == 2
    closing = Stream().run()
    next(closing)
    closing.close()
