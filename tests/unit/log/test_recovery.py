"""Recovery: torn ends are sealed, what a failing disk refused is written later, or is counted."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import independent_checker
from disks import CachedDisk
from logs import BOOT, ID, Settable, event, lines_of, marks, start, story, write, writing
from tapps_otel import clock
from tapps_otel.errors import LogDamagedError
from tapps_otel.log import files as log_files
from tapps_otel.log.event import MAX_LINE, encode, genesis, raw_json
from tapps_otel.log.files import FaultyFiles
from tapps_otel.log.writer import LogWriter
from tapps_otel.names import log_name

OTHER_BOOT = "22222222-2222-4222-8222-222222222222"
FULL_DISK = "[Errno 28] No space left on device"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{ID}.jsonl"


# ---------------------------------------------------------------- torn ends


def test_the_seal_of_a_torn_end_survives_a_power_cut(path: Path) -> None:
    torn = write(path, story())[:-40]
    path.write_bytes(torn)
    disk = CachedDisk(path)
    with log_files.use(disk):
        LogWriter(path, ID).detach()  # killed before it could write an event
    disk.lose_power()

    assert path.read_bytes().startswith(torn)
    assert [one["event_type"] for one in independent_checker.check(path)][-1] == "log_repair"


def test_a_seal_without_a_later_event_is_of_the_next_execution_and_of_the_logs_own_id(
    tmp_path: Path,
) -> None:
    """The id of a third-party executor need not be the name of its log."""
    path = tmp_path / f"{log_name('their own/id')}.jsonl"
    events = [start("their own/id", execution=4), event("annotation", workflow_id="their own/id")]
    path.write_bytes(write(path, events)[:-10])
    with writing(path):
        pass
    seal = independent_checker.check(path)[-1]

    assert (seal["event_type"], seal["workflow_id"], seal["execution"]) == (
        "log_repair",
        "their own/id",
        5,
    )


def test_after_a_line_that_lacks_its_newline_the_log_continues(path: Path) -> None:
    path.write_bytes(write(path, story())[:-1])
    with writing(path) as writer:
        assert writer.size == path.stat().st_size
        assert writer.append(event("workflow_end")) == 8
        assert writer.failure is None
    assert len(independent_checker.check(path)) == 8


def with_a_hole(durability: str) -> bytes:
    """A synced start, and an event of which a power cut lost the first block."""
    process = {"boot_id": BOOT, "durability": durability}
    head, sha = encode(start(process=process, seq=1), genesis(ID))
    line, _ = encode(event("step_start", 1, seq=2), sha)
    return head + b"\0" * 40 + line[40:]


@pytest.mark.parametrize("durability", ["commit", "always"])
def test_the_hole_of_a_power_cut_is_sealed_after_a_reboot(path: Path, durability: str) -> None:
    path.write_bytes(with_a_hole(durability))
    with writing(path, boot_id=OTHER_BOOT) as writer:
        assert writer.append(event("workflow_resume", execution=2)) == 3
    assert [one["event_type"] for one in independent_checker.check(path)] == [
        "workflow_start",
        "log_repair",
        "workflow_resume",
    ]


@pytest.mark.parametrize(
    ("durability", "boot_id"),
    [("commit", BOOT), ("commit", None), ("always", BOOT), ("os", OTHER_BOOT)],
)
def test_a_hole_that_no_power_cut_explains_is_refused(
    path: Path, durability: str, boot_id: str | None
) -> None:
    left = with_a_hole(durability)
    path.write_bytes(left)

    with pytest.raises(LogDamagedError, match="NUL bytes") as caught:
        LogWriter(path, ID, boot_id=boot_id)
    good = left[: left[: left.index(b"\0")].rindex(b"\n") + 1]
    assert (caught.value.offset, caught.value.seq) == (len(good), good.count(b"\n") + 1)
    assert path.read_bytes() == left


# ---------------------------------------------------------------- writing again


def test_an_event_that_is_written_again_is_late_and_as_safe_as_promised(path: Path) -> None:
    disk = CachedDisk(path)
    with log_files.use(disk), writing(path) as writer:
        writer.append(start())
        disk.fail_write = True
        assert writer.append(event("step_finish", 1)) == 2  # failed, and was written again
        disk.lose_power()
    (found,) = [one for one in independent_checker.check(path) if one["seq"] == 2]

    assert found["late"] is True
    assert found["attributes"] == {"mark": 1}


def test_events_that_waited_are_as_safe_as_promised_once_they_are_written(path: Path) -> None:
    disk, now = CachedDisk(path), Settable()
    with log_files.use(disk), clock.use(now), writing(path) as writer:
        writer.append(start())
        disk.fail_write = disk.fail_open = True
        assert writer.append(event("annotation", 1)) is None
        assert writer.append(event("annotation", 2)) is None
        disk.fail_open = False
        now.now += 2_000_000_000
        assert writer.append(event("annotation", 3)) == 4
        disk.lose_power()
    assert marks(path) == [1, 2]  # the third needs no sync of its own


def test_the_longest_line_can_be_written_again(path: Path) -> None:
    """Marked late it is longer than a line may be at first."""
    one = event("annotation", 1, seq=2)
    room = MAX_LINE - len(encode(one, b"0" * 64)[0]) - len(b',"result":""')
    one.result, one.seq = raw_json("x" * room), 0
    disk = CachedDisk(path)
    with log_files.use(disk), writing(path) as writer:
        writer.append(start())
        disk.fail_write = True
        assert writer.append(one) == 2
    lines = lines_of(path.read_bytes())

    assert len(lines[1]) == MAX_LINE + len(b',"late":true')
    assert marks(path) == [1]


def test_a_line_that_is_one_byte_too_long_is_not_written(path: Path) -> None:
    one = event("annotation", 1, seq=2)
    room = MAX_LINE - len(encode(one, b"0" * 64)[0]) - len(b',"result":""')
    one.result, one.seq = raw_json("x" * (room + 1)), 0
    with writing(path) as writer:
        writer.append(start())
        assert writer.append(one) is None
    assert marks(path) == []


def test_a_gap_is_of_the_execution_that_dropped_the_events(path: Path) -> None:
    with writing(path) as writer:
        writer.append(start())
        writer.append(event("workflow_resume", execution=3))
        writer.append(event("annotation", attributes={"a": object()}, execution=3))
    gap = independent_checker.check(path)[-1]

    assert (gap["event_type"], gap["execution"], gap["attributes"]) == (
        "log_gap",
        3,
        {"dropped": 1},
    )


def test_dropped_events_are_counted_in_one_gap(path: Path) -> None:
    with writing(path) as writer:
        writer.append(start())
        for mark in range(2):
            writer.append(event("annotation", attributes={"a": object()}))
            writer.append(event("annotation", mark))
    gaps = [one for one in independent_checker.check(path) if one["event_type"] == "log_gap"]

    assert [one["attributes"] for one in gaps] == [{"dropped": 1}, {"dropped": 1}]


def test_a_torn_repair_is_sealed_again(path: Path) -> None:
    path.write_bytes(write(path, story())[:-40])
    with writing(path):
        pass
    path.write_bytes(path.read_bytes()[:-40])
    with writing(path) as writer:
        assert writer.append(event("workflow_end", execution=2)) == 8
    kinds = [one["event_type"] for one in independent_checker.check(path)]

    assert kinds[-2:] == ["log_repair", "workflow_end"]
    assert kinds.count("log_repair") == 1


CUT_REPAIR = b'{"v":1,"seq":8,"event_type":"log_repair",'


@pytest.mark.parametrize(
    "junk",
    [
        b"one\n",
        b"one",
        b"one\ntwo",
        b"one\n" + CUT_REPAIR + b"\n",
        b"one\n" + CUT_REPAIR + b'"workflow_id":"r\n',
        b"one\n{\n" + CUT_REPAIR,
    ],
)
def test_an_end_that_a_crash_can_leave_is_sealed(path: Path, junk: bytes) -> None:
    path.write_bytes(write(path, story()) + junk)
    with writing(path) as writer:
        assert writer.append(event("workflow_resume", execution=2)) == 9
    assert len(independent_checker.check(path)) == 9


@pytest.mark.parametrize("junk", [b"one\ntwo\n", b"\n\n"])
def test_two_lines_that_no_crash_leaves_are_refused(path: Path, junk: bytes) -> None:
    left = write(path, story()) + junk
    path.write_bytes(left)

    with pytest.raises(LogDamagedError, match="where seq 8 was expected"):
        LogWriter(path, ID)
    assert path.read_bytes() == left


def test_failure_and_recovery_are_logged_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "tapps_otel")
    now = Settable()
    with log_files.use(FaultyFiles("write", 2, times=2)), clock.use(now), writing(path) as writer:
        writer.append(start())
        writer.append(event("annotation", 1))
        now.now += 1_000_000_000
        writer.append(event("annotation", 2))

    assert [one.message for one in caplog.records] == [
        f"{path}: cannot write to the log: {FULL_DISK}",
        f"{path}: the log can be written again",
    ]


# ---------------------------------------------------------------- what the observer learns


class Observed:
    """Notes what a writer reports."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.dropped: list[int] = []

    def log_failed(self, error: BaseException) -> None:
        self.failed.append(str(error))

    def log_dropped(self, events: int) -> None:
        self.dropped.append(events)


def test_the_observer_learns_of_every_failed_write(path: Path) -> None:
    observer, now = Observed(), Settable()
    with (
        log_files.use(FaultyFiles("write", 2, times=3)),
        clock.use(now),
        writing(path, observer=observer) as writer,
    ):
        writer.append(start())
        writer.append(event("annotation", 1))  # fails, and so does writing it again at once
        writer.append(event("annotation", 2))  # waits: it was tried less than a second ago
        now.now += 1_000_000_000
        writer.append(event("annotation", 3))  # fails
        now.now += 1_000_000_000
        writer.append(event("annotation", 4))
    assert observer.failed == [FULL_DISK] * 3
    assert observer.dropped == []
    assert marks(path) == [1, 2, 3, 4]


def test_the_observer_learns_of_events_that_did_not_fit_into_memory(path: Path) -> None:
    observer = Observed()
    with (
        log_files.use(FaultyFiles("write", 2)),
        clock.use(Settable()),
        writing(path, observer=observer, limit=2) as writer,
    ):
        writer.append(start())
        for mark in range(5):  # one may be in the file, two wait, two are dropped
            writer.append(event("annotation", mark))
        assert observer.dropped == [1, 1]
    assert observer.dropped == [1, 1, 3]  # at the close, those that never got written


def test_the_observer_learns_of_an_event_that_cannot_be_a_line(path: Path) -> None:
    observer = Observed()
    with writing(path, observer=observer) as writer:
        writer.append(start())
        writer.append(event("annotation", attributes={"a": object()}))
    assert (observer.failed, observer.dropped) == ([], [1])


def test_the_observer_learns_nothing_of_a_log_that_is_written(path: Path) -> None:
    observer = Observed()
    write(path, story(), observer=observer)

    assert (observer.failed, observer.dropped) == ([], [])
