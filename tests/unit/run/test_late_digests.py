"""Digests of large files, computed after their steps."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest

from tapps_otel.log.artifacts import LargeFile
from tapps_otel.run import late_digests
from tapps_otel.run.late_digests import hash_later
from tapps_otel.run.made_files import PendingDigest


def large(path: Path) -> LargeFile:
    path.write_bytes(b"large")
    found = path.stat()
    return LargeFile(path, path.name, found.st_size, found.st_mtime_ns)


def test_an_interrupt_before_the_thread_starts_leaves_no_run_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[tuple[str, str | None]] = []
    done = threading.Event()

    def report(file: LargeFile, _: str | None, problem: str | None) -> None:
        reported.append((file.shown, problem))
        if len(reported) == 2:
            done.set()

    def interrupt(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            hash_later(large(tmp_path / "first"), report)
    hash_later(large(tmp_path / "second"), report)

    assert done.wait(60)
    assert reported == [("first", "the computation was interrupted"), ("second", None)]


class Noted:
    """A run, and the scope of its workflow, that keep what they get."""

    def __init__(self) -> None:
        self.annotations: list[tuple[str, dict[str, Any]]] = []

    def annotate_step(self, step_id: str, _: str, attributes: Any, *, attempt: int) -> None:
        self.annotations.append((f"{step_id} {attempt}", attributes))

    def release(self, _: object) -> None:
        pass


def test_a_digest_or_the_reason_why_there_is_none_is_noted(tmp_path: Path) -> None:
    run: Any = Noted()
    file = large(tmp_path / "file")
    PendingDigest(file, run, run, "step", 2)._report(file, "ab" * 32, None)
    PendingDigest(file, run, run, "step", 3)._report(file, None, "it has changed")

    assert run.annotations == [
        ("step 2", {"path": "file", "sha256": "ab" * 32}),
        ("step 3", {"path": "file", "reason": "it has changed"}),
    ]


class FailingRun:
    """A run whose log cannot be written. It stands for the scope of its workflow, too."""

    def __init__(self) -> None:
        self.released: list[object] = []

    def annotate_step(self, *_: object, **__: object) -> None:
        raise OSError("the disk is full")

    def release(self, attempt: object) -> None:
        self.released.append(attempt)


def test_a_digest_that_cannot_be_logged_is_a_warning_and_the_run_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run: Any = FailingRun()
    file = large(tmp_path / "file")
    digest = PendingDigest(file, run, run, "step", 1)
    digest._report(file, "ab" * 32, None)

    assert [one.getMessage() for one in caplog.records] == [
        f"the digest of {file.path} is not logged: the disk is full"
    ]
    assert run.released == [digest]


def test_a_process_without_memory_reports_that_there_is_no_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[str | None] = []
    done = threading.Event()

    def report(_: LargeFile, __: str | None, problem: str | None) -> None:
        reported.append(problem)
        done.set()

    def refuse(_: LargeFile) -> str:
        raise MemoryError

    monkeypatch.setattr(late_digests, "digest_of", refuse)
    hash_later(large(tmp_path / "file"), report)

    assert done.wait(60)
    assert reported == ["MemoryError"]


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
