"""Generators of an executor, as runs and steps: what each ``next`` does is inside, nothing else.

The consumer gets a generator of the same kind. Its own code, between two items, is outside the run
or step; values that it sends, exceptions that it throws and its ``close`` reach the executor's
generator as they are.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from tapps_otel.errors import LogWriteError
from tapps_otel.instrumentation.guarding import GuardedContext, guarded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
    from contextlib import AbstractContextManager

__all__ = ["Consumer", "Stage", "stream", "stream_async"]


class Stage(Protocol):
    """The run, or the step, whose work a generator does. What its methods raise is logged."""

    def begin(self) -> None:
        """Write that it begins, unless that was done before.

        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """

    def current(self) -> AbstractContextManager[None]:
        """A context in which its code runs."""

    def end(self, item: Any) -> None:
        """Write that it ended.

        :param item: what it yielded last
        """

    def fail(self, error: BaseException) -> None:
        """Write that it ended by an exception; a generator that is closed early has been left."""


def _begin(stage: Stage) -> None:
    with guarded("a generator's work continues without a log", passes=(LogWriteError,)):
        stage.begin()


def _end(stage: Stage, item: Any) -> None:
    with guarded("the end of a generator's work is not logged"):
        stage.end(item)


def _fail(stage: Stage, error: BaseException) -> None:
    with guarded("the end of a generator's work is not logged"):
        stage.fail(error)


class Consumer:
    """A function of an executor that consumes one of its own generators, to return what that did.

    No other code runs between two items, so that the stage is current for all of them: to make it
    current for each would cost more than to log what it does.
    """

    def __init__(self) -> None:
        self._stage: Stage | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it has asked for the generator."""
        return self._stage is not None

    def begin(self, stage: Stage) -> None:
        """Begin the stage and make it current, for a generator that is used as it is."""
        _begin(stage)
        self._stage, self._context = stage, GuardedContext(stage.current)
        self._context.__enter__()

    def end(self, error: BaseException | None) -> None:
        """End the stage as the function ended, by this exception or without one."""
        if self._stage is None:
            return
        if error is None:
            _end(self._stage, None)
        else:
            _fail(self._stage, error)
        self._context.__exit__(None, None, None)


def stream(work: Generator[Any, Any, Any], stage: Stage) -> Generator[Any, Any, Any]:
    """Iterate over the work of a stage. It begins with the first ``next``."""
    _begin(stage)
    item: Any = None
    advance: Callable[[], Any] = partial(next, work)
    while True:
        with GuardedContext(stage.current):
            try:
                item = advance()
            except StopIteration as stop:
                _end(stage, item)
                return stop.value
            except BaseException as error:
                _fail(stage, error)
                raise
        try:
            advance = partial(work.send, (yield item))
        except GeneratorExit as left:
            return _close(work, stage, left)
        except BaseException as thrown:  # noqa: BLE001 - whatever its consumer throws into it
            advance = partial(work.throw, thrown)


def _close(work: Generator[Any, Any, Any], stage: Stage, left: GeneratorExit) -> Any:
    with GuardedContext(stage.current):
        try:
            value: Any = work.close()  # type: ignore[func-returns-value]  # since 3.13 it does
        except BaseException as error:
            _fail(stage, error)
            raise
        _fail(stage, left)
        return value


async def stream_async(work: AsyncGenerator[Any, Any], stage: Stage) -> AsyncGenerator[Any, Any]:
    """Iterate over the work of a stage, as :func:`stream` does."""
    _begin(stage)
    item: Any = None
    advance: Callable[[], Awaitable[Any]] = partial(_first, work)
    while True:
        with GuardedContext(stage.current):
            try:
                item = await advance()
            except StopAsyncIteration:
                _end(stage, item)
                return
            except BaseException as error:
                _fail(stage, error)
                raise
        try:
            advance = partial(work.asend, (yield item))
        except GeneratorExit as left:
            await _close_async(work, stage, left)
            raise
        except BaseException as thrown:  # noqa: BLE001 - whatever its consumer throws into it
            advance = partial(work.athrow, thrown)


def _first(work: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Ask for the first item, unknown to the event loop.

    A loop that shuts down closes every generator that it knows, at once and in any order. It knows
    the one around this one, which closes it.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return work.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


async def _close_async(work: AsyncGenerator[Any, Any], stage: Stage, left: GeneratorExit) -> None:
    with GuardedContext(stage.current):
        try:
            await work.aclose()
        except BaseException as error:
            _fail(stage, error)
            raise
        _fail(stage, left)
