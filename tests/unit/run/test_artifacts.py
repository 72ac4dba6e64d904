"""Artifacts: files that a step has made, as their summaries in the log."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from commands import Cli
from crashes import go
from tapps_otel import Backoff, Run, bind, current_step, history, step, workflow
from tapps_otel.log import artifacts
from tapps_otel.log.artifacts import summarize
from waiting import until_async

LARGE = (1 << 20) + 1  # bytes: hashed after the step


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def made(step_id: str, workflow_id: str = "r") -> list[dict[str, Any]]:
    return list(history(workflow_id).by_id[step_id].last.artifacts)


@step
def write(name: str, data: str) -> str:
    Path(name).write_text(data)
    current_step().artifact(name)
    return name


@workflow
def report(data: str) -> str:
    return write("report.txt", data)


def test_a_step_notes_a_file_that_it_made(cli: Cli) -> None:
    go(report, "all is well")

    [entry] = made("write")
    assert entry == {
        "name": "report.txt",
        "path": "report.txt",
        "sha256": sha(b"all is well"),
        "bytes": 11,
        "media_type": "text/plain",
    }
    shown = cli("show", "r", "write").out
    assert "report.txt" in shown
    assert sha(b"all is well") in shown
    assert "made report.txt" in cli("show", "r").out


def test_an_absolute_path_is_shown_from_the_working_directory(tmp_path: Path) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere.bin"
    elsewhere.write_bytes(b"1")

    @step
    def build() -> None:
        inside = tmp_path / "out" / "a.bin"
        inside.parent.mkdir()
        inside.write_bytes(b"0")
        current_step().artifact(inside, media_type="application/x-build")
        current_step().artifact(elsewhere)

    @workflow
    def flow() -> None:
        build()

    go(flow)

    first, second = made("build")
    assert (first["path"], first["media_type"]) == ("out/a.bin", "application/x-build")
    assert (second["path"], second["sha256"]) == (str(elsewhere), sha(b"1"))


def test_the_last_note_of_a_file_counts() -> None:
    @step
    def build() -> None:
        for text in ("draft", "final"):
            Path("page.txt").write_text(text)
            current_step().artifact("page.txt")

    @workflow
    def flow() -> None:
        build()

    go(flow)

    assert [entry["sha256"] for entry in made("build")] == [sha(b"final")]


@pytest.mark.slow
def test_a_failed_attempt_keeps_what_it_made_and_a_retry_begins_anew() -> None:
    @step(retries=1)
    def build() -> None:
        number = current_step().number
        Path(f"log-{number}").write_text("x")
        current_step().artifact(f"log-{number}")
        if number == 1:
            raise ValueError("no")

    @workflow
    def flow() -> None:
        build()

    go(flow)

    attempts = history("r").by_id["build"].attempts
    assert [[one["path"] for one in attempt.artifacts] for attempt in attempts] == [
        ["log-1"],
        ["log-2"],
    ]


async def test_a_run_that_ends_cancels_the_next_try_of_a_step_that_made_a_file(log: Any) -> None:
    tasks = []

    @step(retries=1, backoff=Backoff(3600, 1, 3600))
    async def build() -> None:
        Path("log").write_text("failed")
        current_step().artifact("log")
        raise ValueError("no")

    @workflow
    async def flow() -> None:
        tasks.append(asyncio.create_task(build()))
        await until_async(lambda: log("step_fail"))

    await flow.options(workflow_id="r")()

    assert tasks[0].cancelled()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_run_ends_after_the_digests_of_its_large_files(
    asynchronous: bool, log: Any, labels: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytes(LARGE)

    def make() -> None:
        Path("film").write_bytes(data)
        current_step().artifact("film")

    @step
    def sync_film() -> None:
        make()

    @step
    async def async_film() -> None:
        make()

    @workflow
    def sync_flow() -> None:
        sync_film()

    @workflow
    async def async_flow() -> None:
        await async_film()

    go(async_flow if asynchronous else sync_flow)

    [entry] = made("async_film" if asynchronous else "sync_film")
    assert (entry["bytes"], entry["sha256"]) == (LARGE, sha(data))
    [finish] = log("step_finish")
    assert "sha256" not in finish["artifacts"][0]  # the step did not wait
    assert labels()[-1] == "workflow_end"
    assert caplog.text == ""


def test_a_run_that_fails_waits_for_digests_too() -> None:
    @step
    def film() -> None:
        Path("film").write_bytes(bytes(LARGE))
        current_step().artifact("film")

    @workflow
    def flow() -> None:
        film()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        go(flow)

    assert made("film")[0]["sha256"] == sha(bytes(LARGE))


def test_an_interrupted_wait_for_a_digest_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, labels: Any
) -> None:
    """A large file on a slow disk: a second Ctrl-C must not hang."""
    from tapps_otel.run import late_digests
    from tapps_otel.run.scope import Scope

    monkeypatch.setattr(late_digests, "digest_of", lambda file: pytest.fail("not computed"))
    monkeypatch.setattr(late_digests._HASHER, "add", lambda file, report: None)  # never done

    def interrupted(scope: Scope, error: BaseException | None = None) -> None:
        scope.give_up(KeyboardInterrupt())
        raise KeyboardInterrupt

    @step
    def film() -> None:
        Path("film").write_bytes(bytes(LARGE))
        current_step().artifact("film")

    @workflow
    def flow() -> None:
        film()

    monkeypatch.setattr(Scope, "drain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(flow)

    assert labels()[-1] == "workflow_end"


def test_threads_of_a_step_note_files_together() -> None:
    def make(number: int) -> None:
        Path(f"part-{number}").write_text(str(number))
        current_step().artifact(f"part-{number}")

    @step
    def build() -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(bind(make), range(100)))

    @workflow
    def flow() -> None:
        build()

    go(flow)

    assert {entry["sha256"] for entry in made("build")} == {
        sha(str(number).encode()) for number in range(100)
    }


def test_too_many_files_for_one_event_are_counted() -> None:
    @step
    def build() -> None:
        Path("one").touch()
        for number in range(3000):
            current_step().artifact(Path("one").absolute().parent / f"{number:0200}")

    @workflow
    def flow() -> None:
        build()

    logging.getLogger("tapps_otel").setLevel(logging.CRITICAL)
    try:
        go(flow)
    finally:
        logging.getLogger("tapps_otel").setLevel(logging.NOTSET)

    *entries, last = made("build")
    assert last == {"omitted": 3000 - len(entries)}


@pytest.mark.parametrize("kind", ["missing", "fifo", "link", "nul"])
def test_what_cannot_be_read_is_a_warning_and_an_entry_with_the_reason(
    kind: str, caplog: pytest.LogCaptureFixture, cli: Cli
) -> None:
    if kind == "fifo":
        os.mkfifo("fifo")
    elif kind == "link":
        Path("link").symlink_to("nowhere")
    name = "n\0ul" if kind == "nul" else kind

    @step
    def build() -> str:
        current_step().artifact(name)
        return "done"

    @workflow
    def flow() -> str:
        return build()

    assert go(flow) == "done"

    [entry] = made("build")
    assert entry["error"]
    assert "sha256" not in entry
    assert "cannot be read" in caplog.text
    assert cli("show", "r", "build").code == 0


def test_a_caller_that_hashes_nothing_later_gets_the_digest_of_a_large_file() -> None:
    Path("film").write_bytes(bytes(LARGE))

    assert summarize(["film"])[0]["sha256"] == sha(bytes(LARGE))


def test_a_folder_is_counted() -> None:
    @step
    def build() -> None:
        Path("dist").mkdir()
        Path("dist/a").touch()
        current_step().artifact("dist")

    @workflow
    def flow() -> None:
        build()

    go(flow)

    [entry] = made("build")
    assert (entry["entries"], entry["media_type"]) == (1, "inode/directory")


def test_a_file_that_changes_before_it_is_hashed_has_no_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def changed(file: artifacts.LargeFile) -> str | None:
        file.path.write_bytes(b"short now")
        return artifacts.digest_of(file)

    from tapps_otel.run import late_digests

    monkeypatch.setattr(late_digests, "digest_of", changed)

    @step
    def film() -> None:
        Path("film").write_bytes(bytes(LARGE))
        current_step().artifact("film")

    @workflow
    def flow() -> None:
        film()

    go(flow)

    assert "sha256" not in made("film")[0]


@pytest.mark.parametrize("path", [7, None, b"bytes"])
def test_what_is_no_path_is_a_type_error(path: Any) -> None:
    @step
    def build() -> None:
        current_step().artifact(path)

    @workflow
    def flow() -> None:
        build()

    with pytest.raises(TypeError):
        go(flow)


def test_a_media_type_is_text() -> None:
    with (
        Run.open("build", workflow_id="b") as run,
        run.begin("compile") as attempt,
        pytest.raises(TypeError, match="media type"),
    ):
        attempt.artifact("x", media_type=7)  # type: ignore[arg-type]


def test_an_attempt_by_hand_takes_both_kinds() -> None:
    for name in ("a", "b"):
        Path(name).write_text(name)
    with Run.open("build", workflow_id="b") as run:
        attempt = run.begin("compile")
        attempt.artifact("a")
        attempt.finish(artifacts=["b"])

    assert [entry["path"] for entry in made("compile", "b")] == ["a", "b"]


def test_after_the_end_of_its_step_a_note_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    Path("late").touch()
    with Run.open("build", workflow_id="b") as run:
        attempt = run.begin("compile")
        attempt.finish()
        attempt.artifact("late")

    assert made("compile", "b") == []
    assert "came after the end of step 'compile' of run 'b'" in caplog.text


def test_a_replayed_step_keeps_its_artifacts() -> None:
    @step
    def fail_once() -> None:
        if not Path("tried").exists():
            Path("tried").touch()
            raise ValueError("no")

    @workflow
    def flow() -> None:
        write("report.txt", "1")
        fail_once()

    with pytest.raises(ValueError, match="no"):
        go(flow)
    go(flow)

    assert [entry["path"] for entry in made("write")] == ["report.txt"]


def test_an_async_step_and_its_tasks_note_files() -> None:
    @step
    async def build() -> None:
        async def part(name: str) -> None:
            Path(name).write_text(name)
            current_step().artifact(name)

        await asyncio.gather(part("a"), part("b"))

    @workflow
    async def flow() -> None:
        await build()

    go(flow)

    assert sorted(entry["path"] for entry in made("build")) == ["a", "b"]
