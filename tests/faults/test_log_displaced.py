"""A log that is deleted, renamed or replaced while it is written is put back, whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import independent_checker
from crashes import CRASHED, Deadly, in_child
from logs import ID, Settable, event, marks, start, writing
from tapps_otel import clock
from tapps_otel.errors import LogWriteError
from tapps_otel.log import files as log_files
from tapps_otel.log.files import FaultyFiles, UntrustedFileError
from tapps_otel.log.open_log import RESTORED
from tapps_otel.log.writer import LogWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / f"{ID}.jsonl"


def deleted(path: Path) -> None:
    path.unlink()


def renamed(path: Path) -> None:
    path.rename(path.with_suffix(".old"))


def folder_deleted(path: Path) -> None:
    shutil.rmtree(path.parent)


WAYS = [deleted, renamed, folder_deleted]


@pytest.mark.parametrize("lose", WAYS)
@pytest.mark.parametrize("durability", ["commit", "os"])
def test_the_next_event_that_ends_something_puts_it_back(
    path: Path, lose: Callable[[Path], None], durability: str, caplog: pytest.LogCaptureFixture
) -> None:
    now = Settable()
    with clock.use(now), writing(path, durability=durability) as writer:
        writer.append(start())
        writer.append(event("step_start", 1))
        lose(path)
        now.now += 10_000_000  # without syncs it looks at the name a hundred times a second
        assert writer.append(event("step_finish", 2)) == 3
        found = independent_checker.check(path)
        assert [one["event_type"] for one in found][:3] == [
            "workflow_start", "step_start", "step_finish",
        ]  # fmt: skip
        writer.append(event("workflow_end", 3))
    events = independent_checker.check(path)

    assert [one["name"] for one in events if one["event_type"] == "annotation"] == [RESTORED]
    assert marks(path) == [1, 2, 3]
    assert "deleted, renamed or replaced" in caplog.text
    assert "the complete log was restored" in caplog.text
    assert not any(one.get("late") for one in events)
    assert [one.name for one in path.parent.iterdir() if ".jsonl." in one.name] == []
    if lose is renamed:
        independent_checker.check(path.with_suffix(".old"))


def test_a_log_that_was_lost_after_its_last_event_is_put_back_when_it_is_closed(path: Path) -> None:
    with writing(path) as writer:
        writer.append(start())
        writer.append(event("annotation", 1))
        path.unlink()

    assert marks(path) == [1]


def test_that_it_was_put_back_is_noted_for_the_execution_that_lost_it(path: Path) -> None:
    with writing(path) as writer:
        writer.append(start())
        writer.append(event("workflow_resume", 1, execution=2))
        path.unlink()
        writer.append(event("step_finish", 2, execution=2))

    executions = {one["event_type"]: one["execution"] for one in independent_checker.check(path)}
    assert executions["annotation"] == 2


def test_it_is_put_back_each_time(path: Path) -> None:
    with writing(path) as writer:
        for mark in range(5):
            writer.append(event("step_finish", mark))
            path.unlink()

    assert marks(path) == [0, 1, 2, 3, 4]


def test_a_file_that_has_taken_the_name_is_not_touched(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = Settable()
    with clock.use(now), writing(path) as writer:
        writer.append(start())
        path.unlink()
        path.write_text("of another")
        assert writer.append(event("step_finish", 1)) is None
        assert "another file has taken the name" in str(writer.failure)
        assert path.read_text() == "of another"
        path.unlink()
        now.now += 2_000_000_000
        assert writer.append(event("step_finish", 2)) is not None

    assert marks(path) == [1, 2]
    assert "still cannot write to the log: [Errno 17] another file has taken" in caplog.text


def test_with_stop_nothing_goes_on_without_its_log(path: Path) -> None:
    now = Settable()
    with clock.use(now), writing(path, stop=True) as writer:
        writer.append(start())
        shutil.rmtree(path.parent)
        path.parent.write_text("of another")
        with pytest.raises(LogWriteError):
            writer.append(event("step_finish", 1))
        path.parent.unlink()
        now.now += 2_000_000_000
        writer.append(event("step_finish", 2))

    assert marks(path) == [1, 2]  # the one that raised had reached the file before


def test_a_log_whose_name_stays_taken_is_saved_beside_it(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with writing(path) as writer:
        writer.append(start())
        path.unlink()
        path.write_text("of another")
        for mark in range(3):
            assert writer.append(event("step_finish", mark)) is None
    (saved,) = path.parent.glob(f"{ID}.jsonl.*")

    assert path.read_text() == "of another"
    assert f"another file has this name: the log was saved as {saved.name}" in caplog.text
    assert [
        one["attributes"]["mark"]
        for one in independent_checker.check(saved)
        if "mark" in one.get("attributes", {})
    ] == [0, 1, 2]


def test_a_log_that_can_be_put_nowhere_is_reported_as_lost(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with writing(path) as writer:
        writer.append(start())
        shutil.rmtree(path.parent)
        path.parent.write_text("of another")
        writer.append(event("step_finish", 1))

    assert "the whole log is lost" in caplog.text
    assert path.parent.read_text() == "of another"


@pytest.mark.parametrize("call", ["write", "sync", "make_folder", "sync_folder", "read_at"])
@pytest.mark.parametrize("nth", range(1, 8))
def test_a_failure_while_it_is_put_back_loses_nothing(path: Path, call: str, nth: int) -> None:
    now = Settable()
    files = FaultyFiles(call, 10**6)
    with log_files.use(files), clock.use(now), writing(path) as writer:
        writer.append(start())
        writer.append(event("step_start", 1))
        path.unlink()
        files._nth, files._last = files.calls + nth, files.calls + nth
        writer.append(event("step_finish", 2))
        if path.exists():
            independent_checker.check(path)
        now.now += 2_000_000_000
        writer.append(event("step_finish", 3))

    assert marks(path) == [1, 2, 3]
    independent_checker.check(path)


def put_back_until(nth: int, path: Path) -> int:
    """Lose a log, and end the process before the n-th call that changes the disk after that."""

    def doomed() -> None:
        deadly = Deadly(10**6)
        with log_files.use(deadly):
            writer = LogWriter(path, ID)
            writer.append(start())
            writer.append(event("step_finish", 1))
            path.unlink()
            deadly.left = nth
            writer.append(event("step_finish", 2))

    return in_child(doomed).code


def test_a_kill_while_it_is_put_back_leaves_it_whole_or_not_there(path: Path) -> None:
    """A second name that a kill left would make it look like a file of another user."""
    nth, code, whole = 0, CRASHED, 0
    while code == CRASHED:
        nth += 1
        code = put_back_until(nth, path)
        if path.exists():
            whole += 1
            with writing(path) as writer:
                writer.append(event("step_finish", 3))
            assert marks(path) in ([1, 2, 3], [1, 3])
            assert path.stat().st_nlink == 1
        for one in path.parent.glob("*"):
            one.unlink()
    assert code == 0
    assert whole > 2


def test_a_second_name_that_is_not_ours_stays_refused(path: Path) -> None:
    with writing(path) as writer:
        writer.append(start())
    other = path.with_name(f"{path.name}.copy")
    other.hardlink_to(path)

    with pytest.raises(UntrustedFileError, match="2 names"), writing(path):
        pass
    assert other.exists()
