"""Reads a log from its end: its last lines, newest first, in blocks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from tapps_otel.errors import LogDamagedError
from tapps_otel.log import files as _files
from tapps_otel.log.event import MAX_LINE, TRAILER, Event, decode, trailing_sha
from tapps_otel.log.reader import Checker, raise_if_damaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["WINDOW", "Tail", "event_type_of", "head_of", "older_lines", "read_tail"]

WINDOW: Final = 64 * 1024  # bytes: a hundred lines, read in a few dozen microseconds
_LARGEST: Final = 4 * (MAX_LINE + TRAILER)  # larger than a torn line and its repair
_START: Final = re.compile(rb'\{"v":1,"seq":(\d{1,18}),"event_type":"([^"\\]*)"')


class Tail(NamedTuple):
    """The end of a log.

    :ivar events: events of the last lines, oldest first; all events of a small log
    :ivar offset: offset of the first of them
    :ivar checker: the checker at the end; the chain is verified from the first of ``events`` on
    """

    events: list[Event]
    offset: int
    checker: Checker


def read_tail(descriptor: int, path: Path, workflow_id: str) -> Tail:
    """Read the last 64 KiB of an open log, or more if they contain no complete line.

    :raises OSError: the log cannot be read
    :raises LogDamagedError: its end contains no line of a log
    :raises LogVersionError: the log has a newer format
    """
    files = _files.system()
    size, length = files.size(descriptor), WINDOW
    while length < size:
        tail = _tail_of(files.read_at(descriptor, length, size - length), size - length, path)
        if tail is not None:
            return tail
        if length >= _LARGEST:
            raise LogDamagedError(
                path, size - length, 0, f"its last {length} bytes contain no line of a log"
            )
        length *= 4
    checker = Checker(path, workflow_id)
    return Tail(_events(checker, files.read_at(descriptor, size, 0)), 0, checker)


def head_of(path: Path, workflow_id: str) -> tuple[int, str]:
    """Return ``(seq, sha)`` of the last complete line of a log; seq 0 if it has none.

    A torn end is ignored.

    :raises OSError: the log cannot be read
    :raises LogDamagedError: its end is damaged
    :raises LogVersionError: the log has a newer format
    """
    with _files.system().open_read(path) as file:
        checker = read_tail(file.fileno(), path, workflow_id).checker
    raise_if_damaged(checker, path)
    return checker.seq, checker.sha.decode()


def _tail_of(block: bytes, offset: int, path: Path) -> Tail | None:
    """Start at the first complete line of ``block``, which the lines after it verify."""
    start = block.find(b"\n") + 1
    while 0 < start < len(block):
        end = block.find(b"\n", start) + 1 or len(block)
        line = block[start:end]
        event = _event(line)
        if event is not None:
            checker = Checker.after(path, event.seq, line, offset + end)
            return Tail([event, *_events(checker, block[end:])], offset + start, checker)
        start = end
    return None


def _event(line: bytes) -> Event | None:
    if trailing_sha(line) is None or not _START.match(line):
        return None
    try:
        return decode(line)
    except ValueError:
        return None


def _events(checker: Checker, block: bytes) -> list[Event]:
    *lines, rest = block.split(b"\n")  # not splitlines(): a lone CR does not end a line
    events = [event for line in lines if (event := checker.feed(line + b"\n")) is not None]
    if rest and (last := checker.feed(rest)) is not None:
        events.append(last)
    return events


def older_lines(descriptor: int, offset: int) -> Iterator[bytes]:
    """Yield the lines before ``offset``, newest first and unverified.

    At most two blocks are in memory. A line that is too long for a log is left out.
    """
    files, rest, block_size = _files.system(), b"", WINDOW
    while offset > 0:
        length = min(block_size, offset)
        offset -= length
        block = files.read_at(descriptor, length, offset) + rest
        first, *lines = block.split(b"\n")
        yield from (line for line in reversed(lines) if line)
        rest = first if len(first) <= MAX_LINE else b""
        block_size = min(block_size * 2, 1 << 20)
    if rest:
        yield rest


def event_type_of(line: bytes) -> str:
    """Return the event type at the start of a line, or an empty string."""
    start = _START.match(line)
    return start[2].decode(errors="replace") if start else ""
