"""Their snapshots of a run's state, read for what no log has: the variables.

Read directly, for their own loader gives up at the first that is torn.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel.log import files as _files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Snapshot", "newest"]

_log = logging.getLogger("tapps_otel")
_FOLDERS: Final = (".tapps-agents/workflow-state", ".tapps-agents/workflow-state/history")
_LIMIT: Final = 64 << 20  # bytes; a larger one is passed over
_MOST: Final = 100  # are tried


class Snapshot(NamedTuple):
    """What a snapshot holds.

    :ivar saved_ns: wall clock, ns since 1970 UTC
    """

    saved_ns: int
    path: Path
    variables: dict[str, Any]


def newest(root: Path, workflow_id: str) -> Snapshot | None:
    """The newest readable snapshot of this run; ``None`` without one.

    :param root: the project's folder
    :param workflow_id: the executor's own; only files in its folders are looked at
    """
    for saved_ns, path in _candidates(root, workflow_id):
        try:
            variables = _read(path, workflow_id)
        except (OSError, ValueError, RecursionError) as error:
            _log.warning("%s: this snapshot cannot be read: %s", path, error)
            continue
        if variables is not None:
            return Snapshot(saved_ns, path, variables)
    return None


def _candidates(root: Path, workflow_id: str) -> Iterator[tuple[int, Path]]:
    name = re.compile(re.escape(workflow_id) + r"(-\d{8}-\d{6})?\.json")
    found = [
        (saved_ns, root / folder / file)
        for folder in _FOLDERS
        for saved_ns, file in _files.system().changes(root / folder, ".json")
        if name.fullmatch(file)
    ]
    yield from sorted(found, reverse=True)[:_MOST]


def _read(path: Path, workflow_id: str) -> dict[str, Any] | None:
    """Its variables; ``None`` if it is another run's.

    :raises ValueError: it is torn, or none of theirs
    """
    with _files.system().open_read(path) as file:
        data = file.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise ValueError(f"more than {_LIMIT} bytes")
    told = json.loads(data)
    if not isinstance(told, dict) or not isinstance(told.get("variables"), dict):
        raise ValueError("it has no variables")  # noqa: TRY004 - the file is bad, not its type
    variables: dict[str, Any] = told["variables"]
    return variables if told.get("workflow_id") == workflow_id else None
