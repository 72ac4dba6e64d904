"""A wrapper of exporters that are flushed at exit and used across forks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tapps_otel.otel.process.shutdown import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ManagedExporter"]


class _Exporter(Protocol):
    """What exporters of spans and of metrics have in common."""

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int) -> bool: ...


ExporterT = TypeVar("ExporterT", bound=_Exporter)


class ManagedExporter(Generic[ExporterT]):
    """Wraps an exporter: it can give up, and is made again in a forked process.

    :param target: where it sends, without secrets
    :param make: makes the exporter, once in each process that uses it
    :ivar gate: closed while the process forks
    """

    def __init__(self, target: str, make: Callable[[], ExporterT]) -> None:
        self.target, self._make = target, make
        self.gate = Gate()
        self.given_up = self._closed = False
        self._wrapped, self._pid = make(), os.getpid()
        self._parents: list[ExporterT] = []

    @property
    def wrapped(self) -> ExporterT:
        """The exporter of this process: connections belong to the process that made them."""
        if self._pid != os.getpid():
            self._parents.append(self._wrapped)  # kept: closing it would disturb the parent's
            self._wrapped, self._pid = self._make(), os.getpid()
        return self._wrapped

    def give_up(self) -> None:
        """Fail from now on, also in the request that is being sent."""
        self.given_up = True
        self.shutdown()

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:  # noqa: ARG002 - the SDK's
        """Close the connections."""
        if self._pid == os.getpid() and not self._closed:
            self._closed = True
            self._wrapped.shutdown()

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Flush the exporter, which holds nothing itself in most cases."""
        return self.wrapped.force_flush(int(timeout_millis))
