"""Moving runs between folders of logs: a run in one file, with all that belongs to it.

The file is a ZIP archive, and is not trusted: it may only contain regular files with the names that
a run's files have, of a bounded size. They are verified in a folder of their own before the run
appears, which it does with its log, the last of its files. What a killed process left equals what
the archive has, and is no conflict.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from msgspec import UNSET

from tapps_otel.errors import ArchiveError, LogError, RunConflictError
from tapps_otel.log import files as _files
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.lease import Lease
from tapps_otel.log.reader import check
from tapps_otel.log.staging import staging
from tapps_otel.names import RESERVED, is_workflow_id, log_name
from tapps_otel.past.fold import child_of
from tapps_otel.run.lookup import find, store_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tapps_otel.log.event import Event
    from tapps_otel.log.store import Store

__all__ = ["PackReport", "pack", "unpack"]

_NAME: Final = re.compile(
    r"(?P<run>[A-Za-z0-9][A-Za-z0-9._-]{0,127}?)"
    r"(?P<kind>\.jsonl|\.ledger|\+[0-9a-f]{8}\.jsonl|\.blobs/[0-9a-f]{64})"
)
_MOST_FILES: Final = 1_000_000
_LARGEST: Final = 64 << 30  # bytes, unpacked
_BLOCK: Final = 1 << 20
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


@dataclass(frozen=True, slots=True)
class PackReport:
    """What an archive holds.

    :ivar runs: the run, and the runs that its steps called
    :ivar files: number of files
    :ivar size: bytes of these files
    """

    runs: tuple[str, ...]
    files: int
    size: int


# -- packing


def pack(workflow_id: str, file: Path, *, log_dir: Path | str | None = None) -> PackReport:
    """Write a run to one file: log, large values, side logs and ledger.

    The runs that its steps called, and that are in the same folder, come along: a resume needs
    them. The folder stays as it is.

    :param file: a new file, readable only by you
    :raises RunNotFoundError: there is no such run
    :raises RunBusyError: a process executes it, or a run that it called
    :raises LogError: a log or a large value is damaged; nothing was written
    :raises OSError: the file cannot be written, or exists
    """
    store, name = find(workflow_id, log_dir)
    if not store.has_log(name) or name in RESERVED:
        raise store.not_found(name)
    with ExitStack() as leases:
        runs: dict[str, list[Path]] = {}
        due, beside = [name], store.side_paths()
        while due:
            run = due.pop()
            if run not in runs and store.has_log(run):
                lease = Lease(store.lease_path(run), run)
                leases.callback(lease.release)
                runs[run], called = _examine(store, run, beside.get(run, []))
                due += called
        paths = [path for found in runs.values() for path in found]
        size = _write(file, store.folder, paths)
    return PackReport(tuple(runs), len(paths), size)


def _examine(store: Store, run: str, side_logs: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Verify a run; return its files, and the runs that its steps called in the same folder.

    :raises LogError: something is damaged
    """
    blobs: set[str] = set()
    called: dict[str, None] = {}

    def look(event: Event, _: bytes) -> None:
        for name in (event.inputs_blob, event.result_blob, event.otel_blob):
            if isinstance(name, str):
                blobs.add(name)
        child = None if event.attributes is UNSET else child_of(event.attributes)
        if child is not None and child.log_dir is None:
            called[log_name(child.workflow_id)] = None

    logs = [store.log_path(run), *side_logs]
    for path in logs:
        found = check(path, run, on_event=look)
        if not found.ok:
            raise LogError(f"{path} is damaged: see `tapps-otel verify {run}`, and repair it first")
    folder = store.blobs_folder(run)
    for name in blobs:
        Blobs(folder).check(name)
    ledger = store.ledger_path(run)
    more = [ledger] if _files.system().is_file(ledger) else []
    return [*(folder / name for name in sorted(blobs)), *logs, *more], list(called)


def _write(file: Path, folder: Path, paths: list[Path]) -> int:
    files, size = _files.system(), 0
    files.make_folder(file.absolute().parent)
    with (
        files.new_file(file, replace=False, sync=True) as descriptor,
        files.writer(descriptor) as output,
        zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive,
    ):
        for path in paths:
            info = zipfile.ZipInfo(str(path.relative_to(folder)))
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o100600 << 16
            with (
                files.open_read(path) as source,
                archive.open(info, "w", force_zip64=True) as target,
            ):
                size += _copy(source, target)
    return size


def _copy(source: IO[bytes], target: IO[bytes]) -> int:
    size = 0
    while block := source.read(_BLOCK):
        target.write(block)
        size += len(block)
    return size


# -- unpacking


def unpack(file: Path, *, log_dir: Path | str | None = None) -> PackReport:
    """Add the runs of an archive of :func:`pack` to a folder of logs.

    The archive is not trusted. Its runs appear only once all of their files are verified, the one
    that was packed last. If the process is killed before that, it can be done again.

    :raises ArchiveError: it is not such an archive, or holds what no run has; nothing was added
    :raises RunConflictError: there is a run of that name; nothing was added
    :raises RunBusyError: a process executes a run of that name
    :raises LogError: a log or a large value in it is damaged; nothing was added
    :raises OSError: the archive cannot be read, or the files cannot be written
    """
    store = store_of(log_dir)
    with (
        _files.system().open_user_file(file) as source,
        _naming(file),
        zipfile.ZipFile(source) as archive,
        ExitStack() as leases,
    ):
        members = _members(file, archive)
        for run in members:
            lease = Lease(store.lease_path(run), run)
            leases.callback(lease.release)
        _refuse_existing(store, next(iter(members)))
        size = sum(info.file_size for found in members.values() for info in found)
        if size > _files.system().free_bytes(store.folder):
            raise ArchiveError(file, f"its files take {size} bytes: the disk has less")
        with staging(store) as staged:
            for found in members.values():
                for info in found:
                    _extract(archive, info, staged)
            beside = staged.side_paths()
            for run, found in members.items():
                _verify(staged, run, found, beside.get(run, []))
            _refuse_other(staged, store, members)
            for run in reversed(members):  # the run after those that it called
                _move(staged, store, run, members[run])
    return PackReport(tuple(members), sum(map(len, members.values())), size)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise ArchiveError(file, str(error) or type(error).__name__) from error


def _members(file: Path, archive: zipfile.ZipFile) -> dict[str, list[zipfile.ZipInfo]]:
    """Return the files of each run, the one that was packed first.

    :raises ArchiveError: there is one that no run has
    """
    found: dict[str, list[zipfile.ZipInfo]] = {}
    names: set[str] = set()
    infos = archive.infolist()
    if len(infos) > _MOST_FILES or sum(info.file_size for info in infos) > _LARGEST:
        raise ArchiveError(file, f"it holds more than {_MOST_FILES} files, or {_LARGEST} bytes")
    for info in infos:
        match = _NAME.fullmatch(info.filename)
        if match is None or not is_workflow_id(match["run"]) or match["run"] in RESERVED:
            raise ArchiveError(file, f"{info.filename[:300]!r} is no file of a run")
        kind = info.external_attr >> 28  # 0 or 8: unknown, or a regular file
        if kind not in {0, 8} or info.flag_bits & 1 or info.compress_type not in _METHODS:
            raise ArchiveError(file, f"{info.filename!r} is not a regular file as pack writes it")
        if info.filename in names:
            raise ArchiveError(file, f"{info.filename!r} is there twice")
        names.add(info.filename)
        found.setdefault(match["run"], []).append(info)
    for run in found:
        if f"{run}.jsonl" not in names:
            raise ArchiveError(file, f"it has no log of run {run!r}")
    if not found:
        raise ArchiveError(file, "it is empty")
    return found


def _refuse_existing(store: Store, run: str) -> None:
    """Refuse a run that is there: its log, which comes last, was moved.

    :raises RunConflictError: it is
    """
    if _files.system().exists(store.log_path(run)):
        raise _conflict(store.log_path(run))


def _refuse_other(staged: Store, store: Store, runs: dict[str, list[zipfile.ZipInfo]]) -> None:
    """Refuse files of these runs that are not those of the archive.

    :raises RunConflictError: there is one
    """
    files, beside = _files.system(), store.side_paths()
    for run, found in runs.items():
        moves = _moves(staged, store, found)
        for path in {store.ledger_path(run), *beside.get(run, []), *moves}:
            if files.exists(path) and not (path in moves and _is_same(path, moves[path])):
                raise _conflict(path)


def _moves(staged: Store, store: Store, found: list[zipfile.ZipInfo]) -> dict[Path, Path]:
    """Return where each file goes, and where it is staged."""
    return {store.folder / info.filename: staged.folder / info.filename for info in found}


def _conflict(path: Path) -> RunConflictError:
    return RunConflictError(
        f"{path} exists: nothing was unpacked. Unpack into another folder (--log-dir)"
    )


def _is_same(path: Path, other: Path) -> bool:
    files = _files.system()
    with files.open_read(path) as one, files.open_read(other) as two:
        while (block := one.read(_BLOCK)) == two.read(_BLOCK):
            if not block:
                return True
    return False


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, staged: Store) -> None:
    files, path = _files.system(), staged.folder / info.filename
    files.make_folder(path.parent)
    with (
        archive.open(info) as source,
        files.new_file(path, replace=False, sync=True) as descriptor,
        files.writer(descriptor) as target,
    ):
        _copy(source, target)


def _verify(
    staged: Store, run: str, found: list[zipfile.ZipInfo], side_logs: Sequence[Path]
) -> None:
    """Verify a run's logs and all large values, named or not.

    :raises LogError: something is damaged
    """
    staged.summary(run)  # raises for a file that is not a log
    _examine(staged, run, side_logs)
    blobs = Blobs(staged.blobs_folder(run))
    for info in found:
        if "/" in info.filename:
            blobs.check(info.filename.rpartition("/")[2])


def _move(staged: Store, store: Store, run: str, found: list[zipfile.ZipInfo]) -> None:
    """Move a run's files, its log once all others are on the disk."""
    files, moves = _files.system(), _moves(staged, store, found)
    log, blobs = store.log_path(run), store.blobs_folder(run)
    if any(path.parent == blobs for path in moves):
        with Blobs(blobs).own_folder():
            pass
    for path in sorted(moves, key=log.__eq__):
        if path == log:
            for folder in {one.parent for one in moves}:
                files.sync_folder(folder)
        if not files.exists(path):  # a killed process may have moved it
            files.move(moves[path], path)
    files.sync_folder(store.folder)
