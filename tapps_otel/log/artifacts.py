"""Artifacts: files that a step made, summarised. Their content is never copied into the log."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from tapps_otel.log import files as _files

__all__ = ["summarize"]


def summarize(artifact: Path | str | Mapping[str, Any]) -> dict[str, Any]:
    """``{"name", "path", "sha256", "bytes", "media_type"}`` of a file; a mapping is taken as it is.

    The file is read once, in pieces. One that cannot be read has an ``error`` in place of its hash.
    """
    if isinstance(artifact, Mapping):
        return dict(artifact)
    path = Path(artifact)
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
