"""Follows a log while it is written: reads what is new, checks it, and takes no lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final, Self

from tapps_otel import clock
from tapps_otel.log import files as _files
from tapps_otel.log.event import MAX_LINE, TRAILER
from tapps_otel.log.reader import Checker, raise_if_damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from tapps_otel.log.event import Event

__all__ = ["Follower", "follow", "follow_with_waits"]

_BLOCK: Final = 1 << 18  # bytes read at once


class Follower:
    """A log that is read as it grows. As a context manager it closes the log in the end.

    :param file: the log, if it is open already; it stays open
    :param checker: pass one to learn the state of the chain
    :ivar at_end: whether the last :meth:`read` reached the end of the log
    :raises FileNotFoundError: no such file
    """

    def __init__(
        self,
        path: Path,
        workflow_id: str,
        *,
        file: BinaryIO | None = None,
        checker: Checker | None = None,
    ) -> None:
        self._path, self._files = path, _files.system()
        self._log = self._files.open_read(path) if file is None else file
        self._is_ours = file is None
        self._checker = checker or Checker(path, workflow_id)
        self._offset, self._rest = 0, b""
        self.at_end = False

    def read(self) -> Iterator[tuple[Event, bytes]]:
        """Yield the events of the next block of the log, each with its line."""
        block = self._files.read_at(self._log.fileno(), _BLOCK, self._offset)
        self.at_end = len(block) < _BLOCK
        self._offset += len(block)
        *whole, self._rest = (self._rest + block).split(b"\n")
        for line in whole:
            event = self._checker.feed(line + b"\n")
            if event is not None:
                yield event, line
        if len(self._rest) > MAX_LINE + TRAILER:
            self._checker.feed(self._rest)
            self._rest = b""

    def read_last(self) -> Iterator[tuple[Event, bytes]]:
        """Yield the event of a last line that lacks its newline, once nothing is written any more.

        Before that, the line may be half written.
        """
        line, self._rest = self._rest, b""
        event = self._checker.feed(line) if line else None
        if event is not None:
            yield event, line

    def raise_if_damaged(self) -> None:
        """Raise for what was read and is not verified.

        :raises LogDamagedError: no crash can have left it
        """
        raise_if_damaged(self._checker, self._path)

    @property
    def is_replaced(self) -> bool:
        """Whether the log's path names another file now, or none, or the file was cut."""
        files, descriptor = self._files, self._log.fileno()
        is_same = files.identity_of_name(str(self._path)) == files.identity(descriptor)
        return not is_same or files.size(descriptor) < self._offset

    def close(self) -> None:
        """Close the log, unless it was open before."""
        if self._is_ours:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def follow(
    path: Path,
    workflow_id: str,
    *,
    done: Callable[[], bool],
    poll: float = 0.05,
    checker: Checker | None = None,
) -> Iterator[Event]:
    """Yield the events of a log while it is being written, and wait between them.

    :param done: called at the end of the file; if true, stop after the events written meanwhile
    :param poll: seconds to wait at the end of the file
    :param checker: pass one to learn the state of the chain
    :raises FileNotFoundError: no such file
    :raises LogDamagedError: at the end, if the log has undeclared damage
    """
    for found in follow_with_waits(path, workflow_id, done=done, poll=poll, checker=checker):
        if not isinstance(found, float):
            yield found[0]
        elif found:
            clock.sleep(found)


def follow_with_waits(
    path: Path,
    workflow_id: str,
    *,
    done: Callable[[], bool],
    poll: float,
    checker: Checker | None = None,
) -> Generator[tuple[Event, bytes] | float, None, None]:
    """Yield the events as :func:`follow` does, each with its line, and the seconds to wait.

    After each block of the log they are 0: a caller that may not block can do something else.
    """
    with Follower(path, workflow_id, checker=checker) as follower:
        stopping = False
        while True:
            yield from follower.read()
            if not follower.at_end:
                yield 0.0
                continue
            if stopping:
                break
            stopping = done()
            if not stopping:
                yield poll
        yield from follower.read_last()
        follower.raise_if_damaged()
