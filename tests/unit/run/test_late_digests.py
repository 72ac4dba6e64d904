"""Digests of large files, computed after their steps."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from tapps_otel.log.artifacts import LargeFile
from tapps_otel.run.late_digests import hash_later


def large(path: Path) -> LargeFile:
    path.write_bytes(b"large")
    found = path.stat()
    return LargeFile(path, path.name, found.st_size, found.st_mtime_ns)


def test_a_process_that_could_start_no_thread_hashes_the_next_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[tuple[str, str | None, str | None]] = []
    done = threading.Event()

    def report(file: LargeFile, sha: str | None, problem: str | None) -> None:
        reported.append((file.shown, sha, problem))
        if sha:
            done.set()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        hash_later(large(tmp_path / "first"), report)
    hash_later(large(tmp_path / "second"), report)

    assert done.wait(60)
    assert reported == [
        ("first", None, "can't start new thread"),
        ("second", hashlib.sha256(b"large").hexdigest(), None),
    ]
