"""The files of runs, by run: their sizes, and removing them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tapps_otel.log import files as _files
from tapps_otel.log.store import run_of_side_log
from tapps_otel.names import PRUNED, is_workflow_id

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tapps_otel.log.store import Store

__all__ = ["RunFiles", "list_files", "remove_run", "remove_side_log"]

# What a run's files are called after its id. `.runs` is no part of a run: it keeps the numbers of
# the runs of an executor's id from being given twice.
_KINDS: Final = (".jsonl", ".ledger", ".lease", ".blobs")


@dataclass(slots=True)
class RunFiles:
    """What is on the disk of a run.

    :ivar has_log: whether there is its own log
    :ivar changed_ns: when a log of it was last written to, ns since 1970 UTC
    :ivar size: of all its files, bytes
    :ivar side_logs: each with the time when it was last written to
    """

    has_log: bool = False
    changed_ns: int = 0
    size: int = 0
    side_logs: dict[Path, int] = field(default_factory=dict)


def list_files(store: Store) -> dict[str, RunFiles]:
    """Return what is on the disk of each run, also of one that has no log; one listing.

    The side logs of spans outside any run are listed as those of :data:`~tapps_otel.names.NO_RUN`.

    :raises OSError: the folder cannot be listed
    """
    found: dict[str, RunFiles] = {}
    for entry in _files.system().entries(store.folder, follow=True):
        beside = run_of_side_log(entry.name)
        name = beside or _run_of(entry.name)
        if name is None or name == PRUNED:
            continue
        of_run = found.setdefault(name, RunFiles())
        if entry.name.endswith(".jsonl"):
            of_run.changed_ns = max(of_run.changed_ns, entry.changed_ns)
            of_run.has_log = of_run.has_log or beside is None
        if beside is not None:
            of_run.side_logs[store.folder / entry.name] = entry.changed_ns
        of_run.size += _size(store.folder, entry)
    return found


def _run_of(name: str) -> str | None:
    kind = next((kind for kind in _KINDS if name.endswith(kind)), "+")
    run = name.removesuffix(kind)
    return run if is_workflow_id(run) and run != name else None


def _size(folder: Path, entry: _files.Entry) -> int:
    if entry.is_file:
        return entry.size
    if entry.name.endswith(".blobs"):
        with suppress(_files.NotRegularFileError):  # a link, which may lead anywhere
            blobs = _files.system().entries(folder / entry.name, follow=False)
            return sum(one.size for one in blobs)
    return 0


def remove_run(store: Store, workflow_id: str, side_logs: Iterable[Path]) -> None:
    """Remove a run's files, except its lease, which the caller holds.

    Until the log goes, the run can be verified and resumed: what comes before is only needed to
    send its spans, and the large values come after. The folder is synced in between, so that a
    power cut keeps that order.

    :param side_logs: those that the caller has checked: there may be newer ones
    :raises OSError: a file cannot be removed
    """
    files = _files.system()
    ledger = store.ledger_path(workflow_id)
    _remove(files, ledger)  # first: it names the side logs
    for path in side_logs:
        _remove(files, path)
    files.sync_folder(store.folder)
    _remove(files, store.log_path(workflow_id))
    files.sync_folder(store.folder)
    files.remove_folder(store.blobs_folder(workflow_id))


def remove_side_log(path: Path) -> None:
    """Remove a side log of spans outside any run."""
    _remove(_files.system(), path)


def _remove(files: _files.Files, path: Path) -> None:
    with suppress(FileNotFoundError):
        files.remove(path)
