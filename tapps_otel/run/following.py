"""The events of a run while they are written, for programs with and without an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Final

from tapps_otel import clock, settings
from tapps_otel.log import lease
from tapps_otel.log.follower import follow_with_waits
from tapps_otel.log.model import WorkflowEvent
from tapps_otel.run.lookup import find

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tapps_otel.log.event import Event

__all__ = ["EventStream", "follow"]

_POLL: Final = 0.05  # seconds


def follow(workflow_id: str, *, log_dir: Path | str | None = None) -> EventStream:
    """The run's events as they are written; ends when no process executes the run.

    For ``for``, and in async code for ``async for``, which does not block the event loop. Values
    that are encrypted are decrypted if their key is configured.

    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: at the end, if the log is damaged
    """
    return EventStream(workflow_id, log_dir)


class EventStream(Iterator[WorkflowEvent], AsyncIterator[WorkflowEvent]):
    """Events of a run, each as soon as it is written: what ``follow`` returns."""

    def __init__(self, workflow_id: str, log_dir: Path | str | None) -> None:
        self._found = _found(workflow_id, log_dir)
        self._codec = settings.current().codec

    def __next__(self) -> WorkflowEvent:
        while isinstance(found := next(self._found), float):
            if found:
                clock.sleep(found)
        return WorkflowEvent.from_line(found[1], codec=self._codec)

    def close(self) -> None:
        """Close the log."""
        self._found.close()

    async def __anext__(self) -> WorkflowEvent:
        try:
            while isinstance(found := next(self._found), float):
                await clock.sleep_async(found)
        except StopIteration:
            raise StopAsyncIteration from None
        return WorkflowEvent.from_line(found[1], codec=self._codec)

    async def aclose(self) -> None:
        """Close the log."""
        self._found.close()


def _found(
    workflow_id: str, log_dir: Path | str | None
) -> Generator[tuple[Event, bytes] | float, None, None]:
    """Yield what is found in the log; it is looked up when the first event is asked for."""
    store, workflow_id = find(workflow_id, log_dir)
    path, lease_path = store.log_path(workflow_id), store.lease_path(workflow_id)
    try:
        yield from follow_with_waits(
            path, workflow_id, done=lambda: lease.holder(lease_path) is None, poll=_POLL
        )
    except FileNotFoundError:
        raise store.not_found(workflow_id) from None
