"""The local file of a log and its copy in a home: which of them lacks lines, and which.

Lines are compared by the ``sha`` of one of them, which covers all lines before it. Either file or
copy has the other's lines and maybe more, or two processes have continued the log without knowing
of each other: that is a fork. Then the home's lines hold, because only those were acknowledged, and
the file is set aside.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Final, NamedTuple

from tapps_otel.errors import BlobDamagedError, LogDamagedError, StoreError
from tapps_otel.log import files as _files
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.event import line_start, trailing_sha
from tapps_otel.log.home import NO_LINES, Head, blobs_named_in
from tapps_otel.log.reader import Checker, check, lines, may_be_log
from tapps_otel.log.tail import older_lines, read_tail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tapps_otel.log.home import Copy
    from tapps_otel.log.reader import Region

__all__ = ["Chunk", "blobs_beside", "chunks", "complete", "restore_values"]

_log = logging.getLogger("tapps_otel")
_BLOCK: Final = 1 << 20  # bytes that are written at once


class Chunk(NamedTuple):
    """A line of a local file, with the damaged bytes before it that it declares."""

    head: Head
    data: bytes


class _Local(NamedTuple):
    """A local file: its last line, and what follows it.

    :ivar size: of the file
    :ivar torn: an incomplete line at its end
    :ivar whole: ``False``: the last line lacks its newline
    :ivar damage: what else follows it
    """

    head: Head
    size: int = 0
    torn: bytes = b""
    whole: bool = True
    damage: Region | None = None


_NO_FILE: Final = _Local(NO_LINES)


def complete(path: Path, copy: Copy, *, replace_damaged: bool = False) -> bool:
    """Let a local file have all lines of its copy; return whether it was changed.

    :param path: of the file, which need not exist; the caller has its lease
    :param replace_damaged: set a damaged file aside, too
    :raises LogDamagedError: it is damaged; nothing was changed
    :raises StoreError: the copy that is to replace it is damaged; nothing was changed
    :raises OSError: it cannot be read or written
    """
    if not copy.head.seq:
        return False
    if replace_damaged and _is_damaged(path, copy.name):
        return _replace(path, copy)
    local = _look(path, copy.name)
    if local.damage is not None:
        return _complete_damaged(path, copy, local, local.damage)
    if local.head.seq >= copy.head.seq:
        if _sha_of(path, local, copy.head.seq) == copy.head.sha:
            return False
    elif not local.head.seq or copy.sha(local.head.seq) == local.head.sha:
        missing = _missing(local, copy)
        if missing is not None:
            _append(path, missing)
            return True
    return _replace(path, copy)


def _complete_damaged(path: Path, copy: Copy, local: _Local, damage: Region) -> bool:
    """Replace a file with a hole, which a power cut leaves, if the copy has what it lacks.

    Whoever opens a file that lacks nothing of the copy decides about its damage.
    """
    seq = local.head.seq
    if seq >= copy.head.seq and _sha_of(path, local, copy.head.seq) == copy.head.sha:
        return False
    if not damage.has_nul:
        raise LogDamagedError(path, damage.offset, seq + 1, damage.problem, in_store=True)
    return _replace(path, copy)


def _replace(path: Path, copy: Copy) -> bool:
    """Set a file aside, once it is known that its copy is intact.

    :raises StoreError: it is not; nothing was changed
    """
    _check(copy)
    _set_aside(path)
    _append(path, _parts(_NO_FILE, copy, b"", copy.content(0)))
    return True


def _check(copy: Copy) -> None:
    checker = Checker(copy.name, copy.name)
    for data in copy.content(0):
        for line in lines(BytesIO(data)):
            checker.feed(line)
    if checker.region is not None or (checker.seq, checker.sha) != copy.head:
        raise StoreError(
            copy.store,
            f"its log {copy.name!r} is damaged after seq {checker.seq}, so that it does not take "
            "the place of the local one",
            "Restore it from a backup; or remove it there and `tapps-otel push` the local one",
        )


def restore_values(path: Path, copy: Copy) -> bool:
    """Restore large values of a local file that are missing or changed; return whether any was.

    :raises OSError: one cannot be stored
    """
    blobs = blobs_beside(path)
    names = (name for chunk in chunks(path, copy.name) for name in blobs_named_in(chunk.data))
    restored = False
    for name in names:
        value = None if _is_intact(blobs, name) else copy.blob(name)
        restored = (value is not None and blobs.put(value) == name) or restored
    return restored


def _is_intact(blobs: Blobs, name: str) -> bool:
    try:
        blobs.check(name)
    except BlobDamagedError:
        return False
    return True


def chunks(path: Path, name: str) -> Iterator[Chunk]:
    """Yield the verified lines of a local file, in order.

    :raises OSError: it cannot be read
    """
    checker, data = Checker(path, name), b""
    with _files.system().open_read(path) as file:
        for line in lines(file):
            data += line
            if checker.feed(line) is not None:
                yield Chunk(Head(checker.seq, checker.sha), data)
                data = b""


def blobs_beside(path: Path) -> Blobs:
    """Return the large values of a run, given the path of its log or of a side log."""
    return Blobs(path.with_name(f"{path.stem.partition('+')[0]}.blobs"))


# -- the local file


def _is_damaged(path: Path, name: str) -> bool:
    """Whether a local file is damaged anywhere; all of it is read."""
    try:
        return not check(path, name).ok
    except FileNotFoundError:
        return False


def _look(path: Path, name: str) -> _Local:
    files = _files.system()
    try:
        file = files.open_read(path)
    except FileNotFoundError:
        return _NO_FILE
    with file:
        descriptor = file.fileno()
        files.sync(descriptor)
        files.evict(descriptor)  # a failed sync may have lost lines that the page cache shows
        if not may_be_log(files.read_at(descriptor, 64, 0)):
            raise LogDamagedError(path, 0, 1, "this is not a log of tapps_otel")
        checker = read_tail(descriptor, path, name).checker
        region, head = checker.region, Head(checker.seq, checker.sha)
        if region is None or not region.torn:
            return _Local(head, files.size(descriptor), b"", checker.whole, region)
        torn = files.read_at(descriptor, region.length, region.offset)
        return _Local(head, files.size(descriptor), torn, checker.whole)


def _sha_of(path: Path, local: _Local, seq: int) -> bytes | None:
    """Return the ``sha`` of a line of a local file, which has it."""
    if seq == local.head.seq:
        return local.head.sha
    start = line_start(seq)
    with _files.system().open_read(path) as file:
        for line in older_lines(file.fileno(), local.size):
            if line.startswith(start) and (sha := trailing_sha(line)) is not None:
                return sha
    return None


def _missing(local: _Local, copy: Copy) -> Iterator[_Part] | None:
    """Return what completes a local file; ``None`` if its torn end is that of another line."""
    parts = copy.content(local.head.seq)
    begun, first = b"", list[bytes]()
    while len(begun) < len(local.torn):
        part = next(parts, None)
        if part is None:
            return None
        begun += part
        first.append(part)
    if not begun.startswith(local.torn):
        return None
    return _parts(local, copy, begun, parts)


class _Part(NamedTuple):
    """Bytes to append, and the large values that must be there before."""

    data: bytes
    blobs: Iterator[bytes]


def _parts(local: _Local, copy: Copy, begun: bytes, rest: Iterator[bytes]) -> Iterator[_Part]:
    newline = b"" if local.whole else b"\n"
    yield _Part(newline + begun[len(local.torn) :], _blobs(copy, begun))
    for data in rest:
        yield _Part(data, _blobs(copy, data))


def _blobs(copy: Copy, data: bytes) -> Iterator[bytes]:
    found = map(copy.blob, blobs_named_in(data))
    return (value for value in found if value is not None)


def _append(path: Path, parts: Iterator[_Part]) -> None:
    """Append to a local file, and sync. A crash leaves a torn end, which is completed next time."""
    files, blobs, block = _files.system(), blobs_beside(path), bytearray()
    descriptor = files.open_append(path, create=True)
    try:
        for part in parts:
            for value in part.blobs:
                blobs.put(value)
            block += part.data
            if len(block) >= _BLOCK:
                files.write(descriptor, bytes(block))
                block.clear()
        files.write(descriptor, bytes(block))
        files.sync(descriptor)
    finally:
        files.close(descriptor)


def _set_aside(path: Path) -> None:
    """Rename a file that has other lines than the home, with the ledger of what was sent of it."""
    files, mark = _files.system(), f"aside-{os.urandom(4).hex()}"
    aside = path.with_name(f"{path.name}.{mark}")
    ledger = path.with_suffix(".ledger")
    with suppress(FileNotFoundError):
        files.move(ledger, ledger.with_name(f"{ledger.name}.{mark}"))
    files.move(path, aside)
    files.sync_folder(path.parent)
    _log.error(
        "%s: it is damaged, or another process has continued the run, whose lines the store has. "
        "It was set aside as %s; now it has the lines of the store",
        path,
        aside.name,
    )
