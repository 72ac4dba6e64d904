"""Reads the snapshots that tapps-agents saves of a run's state, for the variables in them.

Read directly, because tapps-agents' own loader gives up at the first torn file.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel.log import files as _files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

__all__ = ["Snapshot", "newest"]

_log = logging.getLogger("tapps_otel")
_FOLDERS: Final = (".tapps-agents/workflow-state", ".tapps-agents/workflow-state/history")
_SIZE_LIMIT: Final = 64 << 20  # bytes
_MOST_TRIED: Final = 100


class Snapshot(NamedTuple):
    """What a snapshot holds.

    :ivar saved_ns: wall clock, ns since 1970 UTC
    """

    saved_ns: int
    variables: dict[str, Any]


def newest(root: Path, workflow_ids: Collection[str], started_at: str) -> Snapshot | None:
    """The newest readable snapshot of a run, if there is one.

    :param root: the project's folder
    :param workflow_ids: ids that the run has had in tapps-agents; no file outside its folders is
        read
    :param started_at: when the run started, as the snapshot has it: two runs of one workflow that
        start in the same second have the same id
    """
    for saved_ns, path in _candidates(root, workflow_ids):
        try:
            state = _read(path)
        except (OSError, ValueError, RecursionError) as error:
            _log.warning("%s: this snapshot cannot be read: %s", path, error)
            continue
        if state["workflow_id"] in workflow_ids and state.get("started_at") == started_at:
            return Snapshot(saved_ns, state["variables"])
    return None


def _candidates(root: Path, workflow_ids: Iterable[str]) -> Iterator[tuple[int, Path]]:
    any_id = "|".join(map(re.escape, workflow_ids))
    name = re.compile(rf"(?:{any_id})(-\d{{8}}-\d{{6}})?\.json")
    found = [
        (saved_ns, root / folder / file)
        for folder in _FOLDERS
        for saved_ns, file in _files.system().modification_times(root / folder, ".json")
        if name.fullmatch(file)
    ]
    yield from sorted(found, reverse=True)[:_MOST_TRIED]


def _read(path: Path) -> dict[str, Any]:
    """Read the state in a snapshot.

    :raises ValueError: it is torn, too large, or no snapshot
    """
    with _files.system().open_read(path) as file:
        data = file.read(_SIZE_LIMIT + 1)
    if len(data) > _SIZE_LIMIT:
        raise ValueError(f"more than {_SIZE_LIMIT} bytes")
    state = json.loads(data)
    if not isinstance(state, dict) or not isinstance(state.get("variables"), dict):
        raise ValueError("it has no variables")  # noqa: TRY004 - the file is bad, not its type
    return {"workflow_id": None, **state}
