"""The files of runs, by run: their sizes, and removing them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tapps_otel.log import files as _files
from tapps_otel.names import is_workflow_id

if TYPE_CHECKING:
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
    """Return what is on the disk of each run, also of one that has no log; one listing each.

    :raises OSError: the folder cannot be listed
    """
    files, found = _files.system(), dict[str, RunFiles]()
    sides = {path.name: name for name, paths in store.side_paths().items() for path in paths}
    for entry in files.entries(store.folder):
        name = sides.get(entry.name) or _run_of(entry.name)
        if name is None:
            continue
        of_run = found.setdefault(name, RunFiles())
        if entry.name.endswith(".jsonl"):
            of_run.changed_ns = max(of_run.changed_ns, entry.changed_ns)
            of_run.has_log = of_run.has_log or entry.name not in sides
        if entry.name in sides:
            of_run.side_logs[store.folder / entry.name] = entry.changed_ns
        if entry.is_file:
            of_run.size += entry.size
        elif entry.name.endswith(".blobs"):
            of_run.size += sum(one.size for one in files.entries(store.folder / entry.name))
    return found


def _run_of(name: str) -> str | None:
    kind = next((kind for kind in _KINDS if name.endswith(kind)), "+")
    run = name.removesuffix(kind)
    return run if is_workflow_id(run) and run != name else None


def remove_run(store: Store, workflow_id: str) -> None:
    """Remove a run's files, except its lease, which the caller holds.

    Until the log goes, the run can be verified and resumed: what comes before is only needed to
    send its spans, and the large values come after. The folder is synced in between, so that a
    power cut keeps that order.

    :raises OSError: a file cannot be removed
    """
    files = _files.system()
    ledger = store.ledger_path(workflow_id)
    _remove(files, ledger)  # first: it names the side logs
    for path in store.side_paths().get(workflow_id, []):
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
