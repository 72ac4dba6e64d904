"""Artifacts: files that a step made, summarised. Their content is never copied into the log."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from tapps_otel.log import files as _files

__all__ = ["Artifact", "summarize", "summary_of"]

Artifact: TypeAlias = Path | str | Mapping[str, Any]

_LIMIT: Final = 256 * 1024  # bytes of JSON: an event has to fit into its line


def summarize(artifacts: Iterable[Artifact]) -> list[dict[str, Any]]:
    """``{"name", "path", "sha256", "bytes", "media_type"}`` of each; a mapping is taken as it is.

    A file is read once, in pieces. One that cannot be read has an ``error`` in place of its hash.
    What would not fit into an event is left out, and counted in a last ``{"omitted": N}``.

    :raises TypeError: a mapping holds what is not JSON
    """
    summaries: list[dict[str, Any]] = []
    size = omitted = 0
    for artifact in artifacts:
        told = dict(artifact) if isinstance(artifact, Mapping) else summary_of(Path(artifact))
        size += len(msgspec.json.encode(told))
        if size <= _LIMIT:
            summaries.append(told)
        else:
            omitted += 1
    return [*summaries, {"omitted": omitted}] if omitted else summaries


def summary_of(path: Path, *, name: str | None = None, root: Path | None = None) -> dict[str, Any]:
    """``{"name", "path", "sha256", "bytes", "media_type"}`` of a file, which is read once.

    It is read in pieces. A folder has the media type ``inode/directory`` and no hash. What cannot
    be read has an ``error`` in place of its hash.

    :param name: what its maker calls it, where that is not the file's name
    :param root: the path is told relative to it, if it is below
    """
    shown = path.relative_to(root) if root is not None and path.is_relative_to(root) else path
    told: dict[str, Any] = {"name": path.name if name is None else name, "path": str(shown)}
    files = _files.system()
    try:
        if files.is_folder(path):
            return {**told, "media_type": "inode/directory"}
        with files.open_read(path) as file:
            digest, size = sha256(), 0
            while block := file.read(1 << 18):
                digest.update(block)
                size += len(block)
    except (OSError, ValueError) as error:  # ValueError: a NUL in a path
        return {**told, "error": str(error)}
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {**told, "sha256": digest.hexdigest(), "bytes": size, "media_type": media_type}
