"""Reads a log as a stream and verifies its chain, in bounded memory, without a lock.

A :class:`Checker` is fed the lines in order and tells which of them the chain verifies. A line that
ends an attempt of a step a second time is not verified either, whatever its sha. Such bytes are
accepted only if a later line of the chain declares exactly these bytes (a ``log_repair``); at the
end of the file they are a :class:`Region`.
"""

from __future__ import annotations

import re
import sys
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, Final

from msgspec import UNSET, Struct

from tapps_otel.errors import LogDamagedError, LogVersionError
from tapps_otel.log import files as _files
from tapps_otel.log.attempts import STEP_EVENTS, Attempts
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
from tapps_otel.names import log_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = [
    "CheckReport",
    "Checker",
    "Region",
    "check",
    "lines",
    "may_be_log",
    "raise_if_damaged",
    "read",
]

_BODY: Final = slice(-TRAILER)  # of a line; created once, not for each line
_END: Final = slice(-TRAILER, None)
_START: Final = b'{"v":1,"seq":%d,'
_VERSION: Final = re.compile(rb'\{"v":(\d{1,9}),"seq":')
_NEWER_FIRST_LINE: Final = re.compile(rb'\{"v":\d{1,9},"seq":1,')
_FIRST_LINE: Final = b'{"v":1,"seq":1,'


class Region(Struct):
    """Bytes that the chain does not verify, from ``offset`` on.

    :ivar problem: what is wrong with its first line
    :ivar partial_repairs: number of its lines, from the second on, that are the start of a repair
    :ivar has_nul: whether it contains a NUL byte
    :ivar whole_lines: whether any of its lines ends with a complete ``sha``
    :ivar readable: event types of those lines, if they contain no NUL (``?`` for unknown types):
        up to which seq the log was synced at least, as such lines show
    :ivar terminated: whether its last byte is a newline
    """

    offset: int
    problem: str
    length: int = 0
    lines: int = 0
    partial_repairs: int = 0
    has_nul: bool = False
    terminated: bool = True
    whole_lines: bool = False
    readable: dict[str, int] = {}

    @property
    def torn(self) -> bool:
        """Whether an incomplete write, by a crash or still in progress, can have left this.

        A torn line has no newline, or lost a block (NULs). A repair begins with the newline that
        the torn line lacks; if the repair is cut short as well, the torn line is terminated and
        the start of the repair follows. A line with a complete ``sha`` was written completely.
        """
        return not self.whole_lines and (
            not self.terminated or self.has_nul or self.lines - self.partial_repairs == 1
        )


class Checker:
    """Verifies the chain line by line. Pure: it is fed bytes.

    :ivar seq: seq of the last verified line, 0 before the first
    :ivar sha: sha of the last verified line (64 ASCII characters), empty before the first
    :ivar end: offset of the end of the last verified line, after its newline
    :ivar whole: ``False`` while the last verified line lacks its newline
    :ivar region: unverified bytes after the last verified line, if any
    :ivar repairs: declared damage so far, ``[(offset, length), ...]``
    """

    __slots__ = (
        "_attempts", "_hash", "_name", "_path", "end", "region", "repairs", "seq", "sha", "whole",
    )  # fmt: skip

    def __init__(self, path: Path | str, workflow_id: str) -> None:
        """Expect the log of this run.

        :param workflow_id: the name of its log
        """
        self._path, self._name = path, workflow_id
        self.seq, self.sha, self.end, self.whole = 0, b"", 0, True
        self.region: Region | None = None
        self.repairs: list[tuple[int, int]] = []
        self._hash, self._attempts = sha256(), Attempts()

    @classmethod
    def after(cls, path: Path | str, seq: int, line: bytes, end: int) -> Checker:
        """Return a checker that starts after a line in the middle, which it trusts.

        :param line: a line that ends with a complete ``sha``
        :param end: offset of its end
        """
        checker = cls(path, "")
        text = line if line[-1:] == b"\n" else line + b"\n"
        checker.seq, checker.sha, checker.end = seq, text[-67:-3], end
        checker.whole = text is line
        return checker

    def feed(self, line: bytes) -> Event | None:
        """Check the next line, or the partial line that the file ends with.

        :returns: its event if the chain verifies it, else ``None``
        :raises LogVersionError: the line has a newer format
        """
        # The fast path of nearly every line.
        seq = self.seq + 1
        if self.sha and self.region is None and self.whole and line.startswith(_START % seq):
            sha = sha256(self.sha + line[_BODY]).hexdigest().encode()
            if line[_END] == b',"sha":"%b"}\n' % sha:
                try:
                    event = decode_plain(line)
                except (ValueError, RecursionError):
                    return self._feed_slowly(line)
                if event.seq == seq and event.v == 1:
                    if event.event_type in STEP_EVENTS and self._attempts.add(event):
                        return self._feed_slowly(line)
                    self.seq, self.sha = seq, sha
                    self.end += len(line)
                    return event
        return self._feed_slowly(line)

    def _feed_slowly(self, line: bytes) -> Event | None:
        """Check a line without newline, after damage, or with unusual content."""
        whole = line[-1:] == b"\n"
        text = line if whole else line + b"\n"  # a line that only lacks its newline is complete
        if self.region is None:
            problem = None
            if self._is_next(text):
                event = _decode_next(text, self.seq + 1)
                if event is not None and event.event_type in STEP_EVENTS:
                    problem = self._attempts.add(event)
                if event is not None and problem is None:
                    self.seq += 1
                    self.sha = text[-67:-3]
                    self.end += len(line)
                    self.whole = whole
                    return event
            self.region = self._begin_region(line, problem)
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
            line.startswith(_START % (self.seq + 1))
            and line[_END] == b',"sha":"%b"}\n' % self._due(line)
            and self.whole
        )

    def _due(self, line: bytes) -> bytes:
        """The sha that this line must have as the next one; none if it begins another run's log."""
        previous = self.sha or _genesis_of(line, self._name)
        return sha256(previous + line[_BODY]).hexdigest().encode() if previous else b""

    def _begin_region(self, line: bytes, problem: str | None) -> Region:
        version = _VERSION.match(line)
        if version and int(version[1]) > 1:
            raise LogVersionError(self._path, self.end, int(version[1]))
        self._hash = sha256()
        return Region(self.end, problem or self._explain(line))

    def _grow(self, region: Region, line: bytes) -> None:
        self._hash.update(line)
        region.length += len(line)
        region.lines += 1
        region.partial_repairs += region.lines > 1 and self._is_partial_repair(line)
        has_nul = b"\0" in line
        region.has_nul = region.has_nul or has_nul
        region.terminated = line.endswith(b"\n")
        if trailing_sha(line) is not None:
            region.whole_lines = True
            if not has_nul:
                event_type, synced = _shown_by(line)
                region.readable[event_type] = max(synced, region.readable.get(event_type, 0))

    def _is_partial_repair(self, line: bytes) -> bool:
        start = line_start(self.seq + 1) + b'"event_type":"log_repair",'
        begun = line.removesuffix(b"\n")
        return begun.startswith(start) or (begun != b"" and start.startswith(begun))

    def _repair(self, line: bytes, region: Region) -> Event | None:
        """Accept a verified line after a region if it declares exactly this region."""
        event = _decode_next(line, self.seq + 1)
        declared = [(region.offset, region.length, self._hash.hexdigest())]
        if event is None or event.event_type != "log_repair" or event.damage != declared:
            return None
        self.repairs.append((region.offset, region.length))
        self.region = None
        self.seq += 1
        self.sha = line[-67:-3]
        self.end = region.offset + region.length
        return event

    def declaration(self, region: Region) -> list[tuple[int, int, str]]:
        """Return what a repair of ``region`` must declare, including a newline that it adds."""
        digest, length = self._hash.copy(), region.length
        if not region.terminated:
            digest.update(b"\n")
            length += 1
        return [(region.offset, length, digest.hexdigest())]

    def _explain(self, line: bytes) -> str:  # noqa: PLR0911 - one return for each problem
        expected = self.seq + 1
        if len(line) > MAX_LINE + TRAILER:
            return f"a line of more than {MAX_LINE} bytes"
        if b"\0" in line:
            return "NUL bytes: this block was never written to disk"
        if not line.endswith(b"\n"):
            return "an unfinished line"
        if not line.startswith(line_start(expected)):
            return (
                f"the line does not begin with seq {expected}: lines were removed, moved or "
                "duplicated"
            )
        if trailing_sha(line) is None:
            return "the line has no complete sha at its end"
        if self._due(line) != line[-67:-3]:
            return "the line's sha does not match: this line, or one before it, was changed"
        return "the sha matches, but the line is not an event"


def _genesis_of(line: bytes, name: str) -> bytes:
    """The start of the chain of a first line; none if it is not of the log of this name.

    It is made from the line alone: a third-party executor's id may not be able to name a file.
    """
    try:
        workflow_id = decode(line).workflow_id
    except ValueError:
        return b""
    return genesis(workflow_id) if log_name(workflow_id) == name else b""


def _decode_next(line: bytes, seq: int) -> Event | None:
    try:
        event = decode(line)
    except ValueError:
        return None
    # Of two equal keys JSON takes the last: the prefix alone does not tell what was decoded.
    return event if event.seq == seq and event.v == 1 else None


def _shown_by(line: bytes) -> tuple[str, int]:
    """Type of a line's event, and up to which seq the log was synced when it was written.

    An event that does not tell may have been synced itself.
    """
    try:
        event = decode(line)
    except ValueError:
        return "?", sys.maxsize
    if event.event_type not in EVENT_TYPES:  # a hostile file may contain millions of types
        return "?", sys.maxsize
    unsynced = event.unsynced
    return event.event_type, event.seq if unsynced is UNSET else event.seq - 1 - unsynced


def may_be_log(head: bytes) -> bool:
    """Return whether a file with this beginning can be a log.

    It can if it is empty, torn or all NULs. It also can if its format is newer; reading raises.
    """
    if _NEWER_FIRST_LINE.match(head):
        return True
    first, newline, rest = head.partition(b"\n")
    start = first[: len(_FIRST_LINE)]
    if start.strip(b"\0") and not _FIRST_LINE.startswith(start):
        return False
    # The first line was torn too early to tell, and sealed: the next line tells.
    return len(first) >= len(_FIRST_LINE) or not newline or (first != b"" and may_be_log(rest))


def lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file, split only at newlines; too long ones in pieces.

    Ends at the first line without a newline: bytes that a writer adds meanwhile are not a new line.
    """
    limit = MAX_LINE + TRAILER + 1
    while line := file.readline(limit):
        yield line
        if line[-1:] != b"\n" and len(line) < limit:
            return


def read(path: Path, workflow_id: str, *, checker: Checker | None = None) -> Iterator[Event]:
    """Yield the events of a log in order, each once the chain has verified it.

    A torn end is ignored: an event is being written there, or a crash cut it short.

    :param checker: pass one to learn the state of the chain
    :raises FileNotFoundError: no such file
    :raises LogDamagedError: the log is damaged; raised after the events before the damage
    :raises LogVersionError: the log has a newer format
    """
    checker = checker or Checker(path, workflow_id)
    with _files.system().open_read(path) as file:
        for line in lines(file):
            event = checker.feed(line)
            if event is not None:
                yield event
    raise_if_damaged(checker, path)


def raise_if_damaged(checker: Checker, path: Path) -> None:
    """Raise at the end of a file if the unverified bytes there are not merely torn.

    :raises LogDamagedError: no crash can have left them
    """
    region = checker.region
    if region is not None and not region.torn:
        raise LogDamagedError(path, region.offset, checker.seq + 1, region.problem)


class CheckReport(Struct, frozen=True):
    """What a check of a log found.

    :ivar seq: seq of the last verified line
    :ivar sha: sha of the last verified line; a copy kept elsewhere reveals if the end is cut off
    :ivar size: size of the file in bytes
    :ivar repairs: damage that the log itself declares, ``((offset, length), ...)``
    :ivar region: unverified bytes at the end, if any
    """

    path: Path
    seq: int
    sha: str
    size: int
    repairs: tuple[tuple[int, int], ...]
    region: Region | None

    @property
    def ok(self) -> bool:
        """Whether every byte is verified or declared, except for a torn end."""
        return self.region is None or self.region.torn


def check(
    path: Path, workflow_id: str, *, on_event: Callable[[Event, bytes], None] | None = None
) -> CheckReport:
    """Check every byte of a log against its chain, in constant memory.

    Finds every changed byte, and every line before the last one that was changed, moved,
    duplicated or removed. Not found: lines removed from the end, because the rest is a complete
    chain; compare ``seq`` and ``sha`` with a copy kept elsewhere.

    :param on_event: called with every verified event and the ``sha`` of its line
    :raises FileNotFoundError: no such file
    :raises LogVersionError: the log has a newer format
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
