"""The end of a log without the rest of it: its last lines, newest first, in blocks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from tapps_otel.errors import LogDamagedError
from tapps_otel.log import files as _files
from tapps_otel.log.event import MAX_LINE, TRAILER, Event, decode, trailing_sha
from tapps_otel.log.reader import Checker, refuse_damage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["WINDOW", "Tail", "event_type_of", "head_of", "older_lines", "read_tail"]

WINDOW: Final = 64 * 1024  # bytes: a hundred lines, and one read of a few dozen microseconds
_LARGEST: Final = 4 * (MAX_LINE + TRAILER)  # a torn line and the repair of it fit well inside
_START: Final = re.compile(rb'\{"v":1,"seq":(\d{1,18}),"event_type":"([^"\\]*)"')


class Tail(NamedTuple):
    """The end of a log.

    :ivar events: the events of its last lines, oldest first; all of a small log's
    :ivar offset: where the first of them begins (bytes)
    :ivar checker: stands at the end; its chain is checked from the first of ``events`` on
    """

    events: list[Event]
    offset: int
    checker: Checker


def read_tail(descriptor: int, path: Path, workflow_id: str) -> Tail:
    """Read the last lines of an open log: 64 KiB of them, more only where that holds no line.

    :raises OSError: it cannot be read
    :raises LogDamagedError: nothing at its end is a line of a log
    :raises LogVersionError: a newer format
    """
    files = _files.system()
    size, length = files.size(descriptor), WINDOW
    while length < size:
        tail = _tail_of(files.read_at(descriptor, length, size - length), size - length, path)
        if tail is not None:
            return tail
        if length >= _LARGEST:
            raise LogDamagedError(
                path, size - length, 0, f"its last {length} bytes hold no line of a log"
            )
        length *= 4
    checker = Checker(path, workflow_id)
    return Tail(_events(checker, files.read_at(descriptor, size, 0)), 0, checker)


def head_of(path: Path, workflow_id: str) -> tuple[int, str]:
    """The last whole line of a log as ``(seq, sha)``, from its tail; 0 where it has none.

    An end that a crash can have torn is passed over.

    :raises OSError: it cannot be read
    :raises LogDamagedError: its end is damaged
    :raises LogVersionError: a newer format
    """
    with _files.system().open_read(path) as file:
        checker = read_tail(file.fileno(), path, workflow_id).checker
    refuse_damage(checker, path)
    return checker.seq, checker.sha.decode()


def _tail_of(block: bytes, offset: int, path: Path) -> Tail | None:
    """Begin at the first whole line of ``block``: nothing vouches for it but what follows it."""
    start = block.find(b"\n") + 1
    while 0 < start < len(block):
        end = block.find(b"\n", start) + 1 or len(block)
        line = block[start:end]
        event = _event(line)
        if event is not None:
            checker = Checker.behind(path, event.seq, line, offset + end)
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
    *lines, rest = block.split(b"\n")  # not splitlines: a lone CR ends no line
    events = [event for line in lines if (event := checker.feed(line + b"\n")) is not None]
    if rest and (last := checker.feed(rest)) is not None:
        events.append(last)
    return events


def older_lines(descriptor: int, offset: int) -> Iterator[bytes]:
    """The lines before ``offset``, newest first, unchecked; memory is bounded by two blocks.

    A line longer than a log's may be is passed over.
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
    """What kind of event a line begins as; empty if it begins as none."""
    start = _START.match(line)
    return start[2].decode(errors="replace") if start else ""
