"""Reading a log: as a stream, with its chain checked, in bounded memory and without a lock.

A :class:`Checker` is given the lines in order and says which of them the chain vouches for. Bytes
that it does not vouch for are forgiven only where a later line of the chain declares exactly them
(a ``log_repair``); at the end of the file they are a :class:`Region`.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, Final

from msgspec import Struct

from tapps_otel import clock
from tapps_otel.errors import LogDamagedError, LogVersionError
from tapps_otel.log import files as _files
from tapps_otel.log.event import (
    EVENT_TYPES,
    MAX_LINE,
    TRAILER,
    Event,
    decode,
    decode_plain,
    genesis,
    line_start,
    trailing_sha,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = [
    "CheckReport",
    "Checker",
    "Region",
    "check",
    "follow",
    "follow_lines",
    "is_ours",
    "lines",
    "read",
    "refuse_damage",
]

_BODY: Final = slice(-TRAILER)  # of a line; made once, and not for each of them
_END: Final = slice(-TRAILER, None)
_VERSION: Final = re.compile(rb'\{"v":(\d{1,9}),"seq":')
_NEWER: Final = re.compile(rb'\{"v":\d{1,9},"seq":1,')
_OURS: Final = b'{"v":1,"seq":1,'


class Region(Struct):
    """Bytes that the chain does not vouch for, from ``offset`` on.

    :ivar problem: what is wrong with the first line of them
    :ivar cut_seals: how many of its lines, from the second on, are the beginning of a repair
    :ivar whole_lines: whether any line in it ends with a whole ``sha``
    :ivar readable: event types of those that hold no NUL (``?`` for what is none of ours)
    :ivar terminated: whether its last byte is a newline
    """

    offset: int
    problem: str
    length: int = 0
    lines: int = 0
    cut_seals: int = 0
    holds_nul: bool = False
    terminated: bool = True
    whole_lines: bool = False
    readable: set[str] = set()

    @property
    def torn(self) -> bool:
        """Whether a write that a crash cut short can have left this, or one that is under way.

        A torn line has no newline, or lost a block (NULs). A repair begins with the newline that
        the torn line lacks; cut short, it leaves that line terminated and the beginning of itself,
        and so does the repair of that. A line with a whole ``sha`` was written whole.
        """
        return not self.whole_lines and (
            not self.terminated or self.holds_nul or self.lines - self.cut_seals == 1
        )


class Checker:
    """Follows the chain line by line. Pure: it is given bytes.

    :ivar seq: of the last good line, 0 before the first
    :ivar sha: of the last good line (64 ASCII characters)
    :ivar end: offset behind the last good line, its newline included
    :ivar whole: ``False`` while the last good line lacks its newline
    :ivar region: what stands behind the last good line, if anything does
    :ivar repairs: declared damage passed over so far, ``[(offset, length), ...]``
    """

    __slots__ = ("_hash", "_path", "end", "region", "repairs", "seq", "sha", "whole")

    def __init__(self, path: Path | str, workflow_id: str) -> None:
        self._path = path
        self.seq, self.sha, self.end, self.whole = 0, genesis(workflow_id), 0, True
        self.region: Region | None = None
        self.repairs: list[tuple[int, int]] = []
        self._hash = sha256()

    @classmethod
    def behind(cls, path: Path | str, seq: int, line: bytes, end: int) -> Checker:
        """Stand behind a line from the middle of a log, which is taken at its word.

        :param line: it ends with a whole ``sha``
        :param end: offset behind it
        """
        checker = cls(path, "")
        text = line if line[-1:] == b"\n" else line + b"\n"
        checker.seq, checker.sha, checker.end = seq, text[-67:-3], end
        checker.whole = text is line
        return checker

    def feed(self, line: bytes) -> Event | None:
        """Take the next line, or the piece of one that the file ends with.

        Gives its event if the chain vouches for it.

        :raises LogVersionError: a newer format
        """
        # Nearly every line of nearly every log goes this way; the rest takes its time.
        seq = self.seq + 1
        if self.region is None and self.whole and line.startswith(b'{"v":1,"seq":%d,' % seq):
            sha = sha256(self.sha + line[_BODY]).hexdigest().encode()
            if line[_END] == b',"sha":"%b"}\n' % sha:
                try:
                    event = decode_plain(line)
                except (ValueError, RecursionError):
                    return self._feed_odd(line)
                if event.seq == seq and event.v == 1:
                    self.seq, self.sha = seq, sha
                    self.end += len(line)
                    return event
        return self._feed_odd(line)

    def _feed_odd(self, line: bytes) -> Event | None:
        """A line that only lacks its newline, a repair, or one that nothing vouches for."""
        whole = line[-1:] == b"\n"
        text = line if whole else line + b"\n"  # a record that only lacks its newline is whole
        if self.region is None:
            if self._is_next(text):
                event = _decode_next(text, self.seq + 1)
                if event is not None:
                    self.seq += 1
                    self.sha = text[-67:-3]
                    self.end += len(line)
                    self.whole = whole
                    return event
            self.region = self._begin_region(line)
        elif self._is_next(text):
            event = self._repair(text, self.region)
            if event is not None:
                self.end += len(line)
                self.whole = whole
                return event
        self._grow(self.region, line)
        return None

    def _is_next(self, line: bytes) -> bool:
        return (
            line.startswith(b'{"v":1,"seq":%d,' % (self.seq + 1))
            and line[_END]
            == b',"sha":"%b"}\n' % sha256(self.sha + line[_BODY]).hexdigest().encode()
            and self.whole
        )

    def _begin_region(self, line: bytes) -> Region:
        version = _VERSION.match(line)
        if version and int(version[1]) > 1:
            raise LogVersionError(self._path, self.end, int(version[1]))
        self._hash = sha256()
        return Region(self.end, self._explain(line))

    def _grow(self, region: Region, line: bytes) -> None:
        self._hash.update(line)
        region.length += len(line)
        region.lines += 1
        region.cut_seals += region.lines > 1 and self._is_cut_seal(line)
        holds_nul = b"\0" in line
        region.holds_nul = region.holds_nul or holds_nul
        region.terminated = line.endswith(b"\n")
        if trailing_sha(line) is not None:
            region.whole_lines = True
            if not holds_nul:
                region.readable.add(_type_of(line))

    def _is_cut_seal(self, line: bytes) -> bool:
        start = line_start(self.seq + 1) + b'"event_type":"log_repair",'
        begun = line.removesuffix(b"\n")
        return begun.startswith(start) or (begun != b"" and start.startswith(begun))

    def _repair(self, line: bytes, region: Region) -> Event | None:
        """Take a good line behind a region, if it declares exactly the region."""
        event = _decode_next(line, self.seq + 1)
        claim = [(region.offset, region.length, self._hash.hexdigest())]
        if event is None or event.event_type != "log_repair" or event.damage != claim:
            return None
        self.repairs.append((region.offset, region.length))
        self.region = None
        self.seq += 1
        self.sha = line[-67:-3]
        self.end = region.offset + region.length
        return event

    def claim(self, region: Region) -> list[tuple[int, int, str]]:
        """What a repair of ``region`` has to declare, with the newline that it may have to add."""
        digest, length = self._hash.copy(), region.length
        if not region.terminated:
            digest.update(b"\n")
            length += 1
        return [(region.offset, length, digest.hexdigest())]

    def _explain(self, line: bytes) -> str:  # noqa: PLR0911 - a list of what can be wrong
        due = self.seq + 1
        if len(line) > MAX_LINE + TRAILER:
            return f"a line of more than {MAX_LINE} bytes"
        if b"\0" in line:
            return "NUL bytes: the disk never got this block"
        if not line.endswith(b"\n"):
            return "an unfinished line"
        if not line.startswith(line_start(due)):
            return f"the line does not begin with seq {due}: lines were removed, moved or doubled"
        if trailing_sha(line) is None:
            return "the line has no whole sha at its end"
        if sha256(self.sha + line[_BODY]).hexdigest().encode() != line[-67:-3]:
            return "the line's sha does not fit: it, or a line before it, was changed"
        return "the sha fits, but the line is not an event"


def _decode_next(line: bytes, seq: int) -> Event | None:
    try:
        event = decode(line)
    except ValueError:
        return None
    # JSON takes the last of two equal keys: the prefix alone does not say what was decoded.
    return event if event.seq == seq and event.v == 1 else None


def _type_of(line: bytes) -> str:
    try:
        event_type = decode(line).event_type
    except ValueError:
        return "?"
    return event_type if event_type in EVENT_TYPES else "?"  # a hostile file may hold millions


def is_ours(head: bytes) -> bool:
    """Whether a file that begins so can be a log: empty, cut short, or never brought to disk.

    One of a newer format can, too: reading it says so.
    """
    if _NEWER.match(head):
        return True
    first, newline, rest = head.partition(b"\n")
    start = first[: len(_OURS)]
    if start.strip(b"\0") and not _OURS.startswith(start):
        return False
    # A first line that was cut before it said whose it is, and sealed: the next one says it.
    return len(first) >= len(_OURS) or not newline or (first != b"" and is_ours(rest))


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, split at newlines alone; what is too long comes in pieces.

    Ends at the first line without a newline: what a writer adds meanwhile is not its next line.
    """
    limit = MAX_LINE + TRAILER + 1
    while line := file.readline(limit):
        yield line
        if line[-1:] != b"\n" and len(line) < limit:
            return


def read(path: Path, workflow_id: str, *, checker: Checker | None = None) -> Iterator[Event]:
    """Stream the events of a log, in order, each only once the chain vouches for it.

    A torn end is passed over in silence: it is an event in the making, or a crash's.

    :param checker: holds where the chain stands, for a caller that wants to know
    :raises FileNotFoundError: no such file
    :raises LogDamagedError: at the place of the damage, after the events before it
    :raises LogVersionError: a newer format
    """
    checker = checker or Checker(path, workflow_id)
    with _files.system().open_read(path) as file:
        for line in lines(file):
            event = checker.feed(line)
            if event is not None:
                yield event
    refuse_damage(checker, path)


def refuse_damage(checker: Checker, path: Path) -> None:
    """At a file's end, tell damage from an end that a crash can have torn.

    :raises LogDamagedError: damage
    """
    region = checker.region
    if region is not None and not region.torn:
        raise LogDamagedError(path, region.offset, checker.seq + 1, region.problem)


class CheckReport(Struct, frozen=True):
    """What a check of a log found.

    :ivar seq: of the last good line
    :ivar sha: of the last good line: the head to keep elsewhere, if cutting the end must show
    :ivar size: bytes in the file
    :ivar repairs: damage that the log itself declares, ``((offset, length), ...)``
    :ivar region: bytes at the end that nothing vouches for
    """

    path: Path
    seq: int
    sha: str
    size: int
    repairs: tuple[tuple[int, int], ...]
    region: Region | None

    @property
    def ok(self) -> bool:
        """Every byte is vouched for or declared, but for an end that a crash can have torn."""
        return self.region is None or self.region.torn


def check(
    path: Path, workflow_id: str, *, on_event: Callable[[Event, bytes], None] | None = None
) -> CheckReport:
    """Check every byte of a log against its chain. Memory does not grow with the file.

    Finds any byte changed, and any line changed, moved, doubled or removed before the last one.
    Lines cut off the end leave a chain that is whole: compare ``seq`` and ``sha`` with a copy kept
    elsewhere.

    :param on_event: is given every event that the chain vouches for, and its line's ``sha``
    :raises FileNotFoundError: no such file
    :raises LogVersionError: a newer format
    """
    checker = Checker(path, workflow_id)
    with _files.system().open_read(path) as file:
        for line in lines(file):
            event = checker.feed(line)
            if event is not None and on_event is not None:
                on_event(event, checker.sha)
    region = checker.region
    size = checker.end if region is None else region.offset + region.length
    head = checker.sha.decode() if checker.seq else ""
    return CheckReport(path, checker.seq, head, size, tuple(checker.repairs), region)


def follow(
    path: Path,
    workflow_id: str,
    *,
    done: Callable[[], bool],
    poll: float = 0.05,
    file: BinaryIO | None = None,
) -> Iterator[Event]:
    """Stream the events of a log that is being written, as they come.

    :param done: asked at the file's end whether to stop; what came meanwhile is still given
    :param poll: seconds between two looks at the file's end
    :param file: the log, if it is open already; it stays open
    :raises FileNotFoundError: no such file
    :raises LogDamagedError: at the end, where there is damage that nothing declares
    """
    for event, _ in follow_lines(path, workflow_id, done=done, poll=poll, file=file):
        yield event


def follow_lines(
    path: Path,
    workflow_id: str,
    *,
    done: Callable[[], bool],
    poll: float = 0.05,
    file: BinaryIO | None = None,
) -> Iterator[tuple[Event, bytes]]:
    """Stream events as :func:`follow` does, each with its line."""
    checker = Checker(path, workflow_id)
    files = _files.system()
    with files.open_read(path) if file is None else nullcontext(file) as log:
        offset, rest, stopping = 0, b"", False
        while True:
            block = files.read_at(log.fileno(), 1 << 18, offset)
            offset += len(block)
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                event = checker.feed(line + b"\n")
                if event is not None:
                    yield event, line
            if len(rest) > MAX_LINE + TRAILER:
                checker.feed(rest)
                rest = b""
            if block:
                continue
            if stopping:
                # A record that only lacks its newline is whole; before, it may be half written.
                event = checker.feed(rest) if rest else None
                if event is not None:
                    yield event, rest
                refuse_damage(checker, path)
                return
            stopping = done()
            if not stopping:
                clock.sleep(poll)
