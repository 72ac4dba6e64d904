"""Reading a log: as a stream, with its chain checked, in bounded memory and without a lock.

A :class:`Checker` is given the lines in order and says which of them the chain vouches for. Bytes
that it does not vouch for are forgiven only where a later line of the chain declares exactly them
(a ``log_repair``); at the end of the file they are a :class:`Region`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, Final

from tapps_otel import clock
from tapps_otel.errors import LogDamagedError, LogVersionError
from tapps_otel.log import files as _files
from tapps_otel.log.event import (
    MAX_LINE,
    TRAILER,
    Event,
    decode,
    genesis,
    line_start,
    trailing_sha,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["CheckReport", "Checker", "Region", "check", "follow", "is_ours", "lines", "read"]

_KEY: Final = b',"sha":"'
_VERSION: Final = re.compile(rb'\{"v":(\d{1,9}),"seq":')
_OURS: Final = b'{"v":1,"seq":1,'


@dataclass(slots=True)
class Region:
    """Bytes that the chain does not vouch for, from ``offset`` on.

    :ivar problem: what is wrong with the first line of them
    :ivar readable: event types of the lines in it that end with a whole ``sha``
    :ivar terminated: whether its last byte is a newline
    """

    offset: int
    problem: str
    length: int = 0
    lines: int = 0
    holds_nul: bool = False
    terminated: bool = True
    readable: set[str] = field(default_factory=set)

    @property
    def torn(self) -> bool:
        """Whether a write that a crash cut short can have left this, or one that is under way.

        A torn line has no newline, or lost a block (NULs); a repair of one, itself cut short, can
        leave one whole line that is no event. A line with a whole ``sha`` was written whole.
        """
        return not self.readable and (
            not self.terminated or self.holds_nul or (self.lines == 1 and self.terminated)
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

    def feed(self, line: bytes) -> Event | None:
        """Take the next line, or the piece of one that the file ends with.

        Gives its event if the chain vouches for it.

        :raises LogVersionError: a newer format
        """
        if self.region is None:
            whole = line[-1:] == b"\n"
            text = line if whole else line + b"\n"  # a record that only lacks its newline is whole
            if self._is_next(text):
                event = _decode_next(text, self.seq + 1)
                if event is not None:
                    self.seq += 1
                    self.sha = text[-67:-3]
                    self.end += len(line)
                    self.whole = whole
                    return event
            self._begin_region(line)
        elif self._is_next(line):
            event = self._repair(line)
            if event is not None:
                return event
        self._grow_region(line)
        return None

    def _is_next(self, line: bytes) -> bool:
        return (
            line.startswith(b'{"v":1,"seq":%d,' % (self.seq + 1))
            and line[-TRAILER:-67] == _KEY
            and line[-3:] == b'"}\n'
            and sha256(self.sha + line[:-TRAILER]).hexdigest().encode() == line[-67:-3]
            and self.whole
        )

    def _begin_region(self, line: bytes) -> None:
        version = _VERSION.match(line)
        if version and int(version[1]) > 1:
            raise LogVersionError(self._path, self.end, int(version[1]))
        self.region = Region(self.end, self._explain(line))
        self._hash = sha256()

    def _grow_region(self, line: bytes) -> None:
        region = self.region
        assert region is not None
        self._hash.update(line)
        region.length += len(line)
        region.lines += 1
        region.holds_nul = region.holds_nul or b"\0" in line
        region.terminated = line.endswith(b"\n")
        if trailing_sha(line) is not None:
            region.readable.add(_type_of(line))

    def _repair(self, line: bytes) -> Event | None:
        """Take a good line behind a region, if it declares exactly the region."""
        region = self.region
        assert region is not None
        event = _decode_next(line, self.seq + 1)
        claim = [(region.offset, region.length, self._hash.hexdigest())]
        if event is None or event.event_type != "log_repair" or event.damage != claim:
            return None
        self.repairs.append((region.offset, region.length))
        self.region = None
        self.seq += 1
        self.sha = line[-67:-3]
        self.end = region.offset + region.length + len(line)
        return event

    def claim(self) -> list[tuple[int, int, str]]:
        """What a repair written now has to declare, but for a newline that it adds itself."""
        region = self.region
        assert region is not None
        digest, length = self._hash.copy(), region.length
        if not region.terminated:
            digest.update(b"\n")
            length += 1
        return [(region.offset, length, digest.hexdigest())]

    def _explain(self, line: bytes) -> str:
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
        if sha256(self.sha + line[:-TRAILER]).hexdigest().encode() != line[-67:-3]:
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
        return decode(line).event_type
    except ValueError:
        return "?"


def is_ours(head: bytes) -> bool:
    """Whether a file that begins so can be a log: empty, cut short, or never brought to disk."""
    start = head[: len(_OURS)]
    return _OURS.startswith(start) or not start.strip(b"\0")


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, split at newlines alone; what is too long comes in pieces.

    Ends at the first line without a newline: what a writer adds meanwhile is not its next line.
    """
    limit = MAX_LINE + TRAILER + 1
    while line := file.readline(limit):
        yield line
        if len(line) < limit and line[-1:] != b"\n":
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
    _refuse_damage(checker, path)


def _refuse_damage(checker: Checker, path: Path) -> None:
    region = checker.region
    if region is not None and not region.torn:
        raise LogDamagedError(path, region.offset, checker.seq + 1, region.problem)


@dataclass(frozen=True, slots=True)
class CheckReport:
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


def check(path: Path, workflow_id: str) -> CheckReport:
    """Check every byte of a log against its chain. Memory does not grow with the file.

    Finds any byte changed, and any line changed, moved, doubled or removed before the last one.
    Lines cut off the end leave a chain that is whole: compare ``seq`` and ``sha`` with a copy kept
    elsewhere.

    :raises FileNotFoundError: no such file
    :raises LogVersionError: a newer format
    """
    checker = Checker(path, workflow_id)
    with _files.system().open_read(path) as file:
        for line in lines(file):
            checker.feed(line)
    region = checker.region
    size = checker.end if region is None else region.offset + region.length
    head = checker.sha.decode() if checker.seq else ""
    return CheckReport(path, checker.seq, head, size, tuple(checker.repairs), region)


def follow(
    path: Path, workflow_id: str, *, done: Callable[[], bool], poll: float = 0.05
) -> Iterator[Event]:
    """Stream the events of a log that is being written, as they come.

    :param done: asked at the file's end whether to stop; what came meanwhile is still given
    :param poll: seconds between two looks at the file's end
    :raises FileNotFoundError: no such file
    :raises LogDamagedError: at the end, where there is damage that nothing declares
    """
    checker = Checker(path, workflow_id)
    files = _files.system()
    with files.open_read(path) as file:
        offset, rest, stopping = 0, b"", False
        while True:
            block = files.read_at(file.fileno(), 1 << 18, offset)
            offset += len(block)
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                event = checker.feed(line + b"\n")
                if event is not None:
                    yield event
            if len(rest) > MAX_LINE + TRAILER:
                checker.feed(rest)
                rest = b""
            if block:
                continue
            if stopping:
                _refuse_damage(checker, path)
                return
            stopping = done()
            if not stopping:
                clock.sleep(poll)
