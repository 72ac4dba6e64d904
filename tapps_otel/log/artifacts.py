"""Summaries of the files that a step produced; the log never has their content."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeAlias

import msgspec

from tapps_otel.log import files as _files

__all__ = ["Artifact", "LargeFile", "NamedFile", "digest_of", "summarize", "summary_of"]

_LIMIT: Final = 256 * 1024  # bytes of JSON: an event must fit into its line
_BLOCK: Final = 1 << 18  # bytes, of a file that is read
_LARGE: Final = 1 << 20  # bytes, of a file that is hashed later, if the caller asks for that


class NamedFile(NamedTuple):
    """A file as an artifact, with a name of its own.

    :ivar root: the path is shown relative to this folder, if it is below
    """

    path: Path
    name: str
    root: Path


Artifact: TypeAlias = Path | str | Mapping[str, Any] | NamedFile


class LargeFile(NamedTuple):
    """A file that is still to be hashed.

    :ivar shown: its path in the log
    :ivar size: its length when it was summarized, bytes
    :ivar modified_ns: when it had been changed last by then, ns since 1970 UTC
    """

    path: Path
    shown: str
    size: int
    modified_ns: int


def summarize(
    artifacts: Iterable[Artifact], later: list[LargeFile] | None = None
) -> list[dict[str, Any]]:
    """Summarize each artifact as :func:`summary_of` does; a mapping is its own summary.

    Summaries that would not fit into an event are replaced by a final ``{"omitted": N}``.

    :param later: gets the files that are too large to be hashed now; without it, all are
    :raises TypeError: a mapping contains values that are not JSON
    """
    summaries: list[dict[str, Any]] = []
    size = omitted = 0
    for artifact in artifacts:
        summary = _summary(artifact, later)
        size += len(msgspec.json.encode(summary))
        if size <= _LIMIT:
            summaries.append(summary)
        else:
            omitted += 1
    return [*summaries, {"omitted": omitted}] if omitted else summaries


def _summary(artifact: Artifact, later: list[LargeFile] | None) -> dict[str, Any]:
    if isinstance(artifact, Mapping):
        return dict(artifact)
    name = root = None
    if isinstance(artifact, NamedFile):
        path, name, root = artifact
    else:
        path = Path(artifact)
    summary = summary_of(path, name=name, root=root, hashes_large=later is None)
    if later is not None and "bytes" in summary and "sha256" not in summary:
        with suppress(OSError):  # deleted just now
            changed_ns = _files.system().modified_ns(path)
            later.append(LargeFile(path.absolute(), summary["path"], summary["bytes"], changed_ns))
    return summary


def summary_of(
    path: Path, *, name: str | None = None, root: Path | None = None, hashes_large: bool = True
) -> dict[str, Any]:
    """Return ``{"name", "path", "sha256", "bytes", "media_type"}`` of a file.

    The file is read once, in blocks. A folder has the media type ``inode/directory``, the number
    of its ``entries`` and no hash; a file that cannot be read has an ``error`` instead of its hash.

    :param name: name of the artifact, by default that of the file
    :param root: make the path relative to this folder, if it is below
    :param hashes_large: if false, a large file is not read, and its summary has no hash
    """
    shown = path.relative_to(root) if root is not None and path.is_relative_to(root) else path
    summary: dict[str, Any] = {"name": path.name if name is None else name, "path": str(shown)}
    files = _files.system()
    try:
        if files.is_folder(path):
            entries = files.count_entries(path)
            return {**summary, "entries": entries, "media_type": "inode/directory"}
        with files.open_read(path) as file:
            size = files.size(file.fileno())
            if hashes_large or size <= _LARGE:
                summary["sha256"], size = _digest(file)
    except (OSError, ValueError) as error:  # ValueError: a NUL in a path
        return {**summary, "error": str(error)}
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {**summary, "bytes": size, "media_type": media_type}


def _digest(file: BinaryIO) -> tuple[str, int]:
    """The SHA-256 of a file, hex, and its length."""
    digest, size = sha256(), 0
    while block := file.read(_BLOCK):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def digest_of(large: LargeFile) -> str | None:
    """The SHA-256 of a file, hex; ``None`` if it is not as it was when it was summarized.

    :raises OSError: it cannot be read
    """
    files = _files.system()
    with files.open_read(large.path) as file:
        sha, size = _digest(file)
    unchanged = size == large.size and files.modified_ns(large.path) == large.modified_ns
    return sha if unchanged else None
