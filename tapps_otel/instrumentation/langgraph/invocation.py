"""Calls of `invoke`, which consumes the stream of its graph itself."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tapps_otel.instrumentation.streams import Consumer

if TYPE_CHECKING:
    from tapps_otel.instrumentation.streams import Stage

__all__ = ["Invocation", "is_consumed"]

_current: ContextVar[Invocation | None] = ContextVar("tapps_otel_langgraph_invoke", default=None)


class Invocation(Consumer):
    """A call of a graph's `invoke`; its run begins with the stream that it asks for."""

    def __init__(self, graph: Any) -> None:
        super().__init__()
        self.graph = graph

    def __enter__(self) -> None:
        self._token = _current.set(self)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with suppress(ValueError, RuntimeError):  # an abandoned coroutine ends in another context
            _current.reset(self._token)
        self.end(error)


def is_consumed(graph: Any, stage: Stage) -> bool:
    """Whether a stream is consumed by `invoke` of its own graph; if so, begin its run."""
    invocation = _current.get()
    if invocation is None or invocation.graph is not graph or invocation.has_begun:
        return False
    invocation.begin(stage)
    return True
