"""Artifacts: files that a step made, summarised. Their content is never copied into the log."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from tapps_otel.log import files as _files

__all__ = ["Artifact", "summarize"]

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
        told = dict(artifact) if isinstance(artifact, Mapping) else _summary(Path(artifact))
        size += len(msgspec.json.encode(told))
        if size <= _LIMIT:
            summaries.append(told)
        else:
            omitted += 1
    return [*summaries, {"omitted": omitted}] if omitted else summaries


def _summary(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = {"name": path.name, "path": str(path)}
    try:
        with _files.system().open_read(path) as file:
            digest, size = sha256(), 0
            while block := file.read(1 << 18):
                digest.update(block)
                size += len(block)
    except OSError as error:
        return {**told, "error": str(error)}
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {**told, "sha256": digest.hexdigest(), "bytes": size, "media_type": media_type}
