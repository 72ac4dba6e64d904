"""Summaries of the files that a step produced; the log never has their content."""

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

_LIMIT: Final = 256 * 1024  # bytes of JSON: an event must fit into its line


def summarize(artifacts: Iterable[Artifact]) -> list[dict[str, Any]]:
    """Summarize each artifact as :func:`summary_of` does; a mapping is its own summary.

    Summaries that would not fit into an event are replaced by a final ``{"omitted": N}``.

    :raises TypeError: a mapping contains values that are not JSON
    """
    summaries: list[dict[str, Any]] = []
    size = omitted = 0
    for artifact in artifacts:
        summary = dict(artifact) if isinstance(artifact, Mapping) else summary_of(Path(artifact))
        size += len(msgspec.json.encode(summary))
        if size <= _LIMIT:
            summaries.append(summary)
        else:
            omitted += 1
    return [*summaries, {"omitted": omitted}] if omitted else summaries


def summary_of(path: Path, *, name: str | None = None, root: Path | None = None) -> dict[str, Any]:
    """Return ``{"name", "path", "sha256", "bytes", "media_type"}`` of a file.

    The file is read once, in blocks. A folder has the media type ``inode/directory``, the number
    of its ``entries`` and no hash; a file that cannot be read has an ``error`` instead of its hash.

    :param name: name of the artifact, by default that of the file
    :param root: make the path relative to this folder, if it is below
    """
    shown = path.relative_to(root) if root is not None and path.is_relative_to(root) else path
    summary: dict[str, Any] = {"name": path.name if name is None else name, "path": str(shown)}
    files = _files.system()
    try:
        if files.is_folder(path):
            entries = files.count_entries(path)
            return {**summary, "entries": entries, "media_type": "inode/directory"}
        with files.open_read(path) as file:
            digest, size = sha256(), 0
            while block := file.read(1 << 18):
                digest.update(block)
                size += len(block)
    except (OSError, ValueError) as error:  # ValueError: a NUL in a path
        return {**summary, "error": str(error)}
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {**summary, "sha256": digest.hexdigest(), "bytes": size, "media_type": media_type}
