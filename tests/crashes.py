"""Child processes that crash at a chosen point, and the side effects that they leave behind.

A crash is a child process that calls ``os._exit`` in the middle of a run, so that no handler, no
``finally`` and no flush runs after it. The child is forked, which takes milliseconds, and uses the
closures of the test.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import UNSET

from tapps_otel.log.event import Event
from tapps_otel.log.files import Files
from tapps_otel.log.writer import LogWriter
from tapps_otel.testing.children import CRASHED, Forked, Outcome, die, in_child

__all__ = [
    "CRASHED",
    "Deadly",
    "Effects",
    "Forked",
    "Injected",
    "Outcome",
    "appends",
    "die",
    "die_at",
    "go",
    "in_child",
    "killed",
    "label",
    "on_append",
]

_deadly: str | None = None


class Effects:
    """Side effects of step bodies, kept as lines of a file so that they survive a crash."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, what: str) -> int:
        """Note one effect, and return how often it has been noted."""
        self.note(what)
        return self.count(what)

    def note(self, what: str) -> None:
        """Note one effect."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, what.encode() + b"\n")
        finally:
            os.close(descriptor)

    @property
    def all(self) -> list[str]:
        """All effects so far, in order."""
        return self._path.read_text().splitlines() if self._path.exists() else []

    def count(self, what: str) -> int:
        """Return how often this effect was noted."""
        return self.all.count(what)

    def forget(self) -> None:
        """Forget all effects."""
        self._path.unlink(missing_ok=True)


class Deadly(Files):
    """Ends the process before the n-th call that changes a disk.

    :param calls: names of the methods that are counted
    :ivar left: how many more calls, the deadly one included
    """

    CHANGING = (
        "make_folder", "move", "new_file", "open_append", "open_lock", "remove", "remove_folder",
        "replace_content", "sync", "sync_folder", "write",
    )  # fmt: skip

    def __init__(self, nth: int, calls: Sequence[str] = CHANGING) -> None:
        self.left = nth
        for name in calls:
            setattr(self, name, self._counted(name))

    def _counted(self, name: str) -> object:
        def call(*args: object, **named: object) -> object:
            self.left -= 1
            if not self.left:
                die()
            return getattr(Files, name)(self, *args, **named)

        return call


def die_at(point: str) -> None:
    """End this process if the test asked for a crash at this point of a step's body."""
    if point == _deadly:
        die()


def killed(
    call: Callable[[], object],
    *,
    at: str | None = None,
    before: str | int | None = None,
    after: str | int | None = None,
    finished: int = 0,
) -> None:
    """Run ``call`` in a child process that must crash before its end.

    :param at: crash at this point, which a body passes to :func:`die_at`
    :param before: crash just before this event is written: its number in this execution, or
        its type and step id, as in ``step_finish outer/inner``
    :param after: crash just after this event was written
    :param finished: crash once this many steps have finished in this execution
    """
    left = finished

    def count(_: int, event: Event) -> None:
        nonlocal left
        left -= event.event_type == "step_finish"
        if not left:
            die()

    def doomed() -> None:
        global _deadly  # noqa: PLW0603 - of the child alone
        _deadly = at
        if finished:
            on_append(after=count)
        if before is not None or after is not None:
            on_append(
                before=lambda number, event: die() if _is(before, number, event) else None,
                after=lambda number, event: die() if _is(after, number, event) else None,
            )
        call()

    outcome = in_child(doomed)
    assert outcome.code == CRASHED, f"expected a crash, got {outcome}"


def _is(wanted: str | int | None, number: int, event: Event) -> bool:
    return wanted in {number, label(event)} if wanted is not None else False


def label(event: Event) -> str:
    """Name an event for these tests: its type, and its step id if it has one."""
    return event.event_type if event.step_id is UNSET else f"{event.event_type} {event.step_id}"


Hook = Callable[[int, Event], object]


def on_append(*, before: Hook = lambda n, e: None, after: Hook = lambda n, e: None) -> None:
    """Call hooks around every event that this process writes from now on."""
    LogWriter.append = _hooked(LogWriter.append, before, after)  # type: ignore[method-assign]


@contextmanager
def appends(*, before: Hook = lambda n, e: None, after: Hook = lambda n, e: None) -> Iterator[None]:
    """Call hooks around every event that this process writes inside the block."""
    original = LogWriter.append
    on_append(before=before, after=after)
    try:
        yield
    finally:
        LogWriter.append = original  # type: ignore[method-assign]


def _hooked(original: Callable[..., int | None], before: Hook, after: Hook) -> Any:
    lock = threading.Lock()
    count = 0

    def append(self: LogWriter, event: Event, **options: Any) -> int | None:
        nonlocal count
        with lock:
            count += 1
            number = count
        before(number, event)
        seq = original(self, event, **options)
        after(number, event)
        return seq

    return append


def go(flow: Any, *args: Any, workflow_id: str = "r", **kwargs: Any) -> Any:
    """Start or resume a run, of a sync or async workflow."""
    made = flow.options(workflow_id=workflow_id)(*args, **kwargs)
    return asyncio.run(_awaited(made)) if inspect.isawaitable(made) else made


async def _awaited(made: Any) -> Any:
    return await made


class Injected(BaseException):
    """An exception that no code catches, like one raised by a signal handler."""
