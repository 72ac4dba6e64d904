"""Failing disks: acknowledged events are in the log, none is there twice, the chain is intact."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import independent_checker
from disks import CachedDisk
from logs import ID, Settable, event, marks, start, writing
from tapps_otel import clock
from tapps_otel.errors import LogWriteError
from tapps_otel.log import files as log_files
from tapps_otel.log.files import FaultyFiles, Files
from tapps_otel.log.writer import LogWriter

CALLS = [
    "write", "sync", "position", "identity", "identity_of_name", "open_append", "evict", "size",
    "read_at", "reader",
    "sync_folder", "make_folder",
]  # fmt: skip
KINDS = ["step_start", "annotation", "step_finish", "step_start", "step_fail", "workflow_end"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / f"{ID}.jsonl"


@contextmanager
def failing(files: Files) -> Iterator[Settable]:
    """Use this disk, and a clock that only the test moves."""
    now = Settable()
    with log_files.use(files), clock.use(now):
        yield now


def run_on(path: Path, now: Settable, **options: Any) -> tuple[list[int], list[int]]:
    """A run on a failing disk; returns the marks that were acknowledged, and those that raised."""
    acknowledged, raised = [], []
    try:
        writer = LogWriter(path, ID, **options)
    except OSError:
        return [], list(range(len(KINDS)))
    for mark, kind in enumerate(KINDS):
        try:
            if writer.append(event(kind, mark)) is not None:
                acknowledged.append(mark)
        except LogWriteError as error:
            assert str(path) in str(error)  # noqa: PT017 - it may pass, too
            raised.append(mark)
        now.now += 2_000_000_000
    writer.close()
    return acknowledged, raised


def audit(path: Path) -> tuple[list[int], list[dict[str, Any]]]:
    """Continue what the failing disk left, then check it independently."""
    with writing(path) as writer:
        writer.append(event("workflow_resume", execution=2))
    events = independent_checker.check(path)
    found = [one["attributes"]["mark"] for one in events if "mark" in one.get("attributes", {})]
    assert len(found) == len(set(found)), "an event is there twice"
    assert found == sorted(found), "the order was not kept"
    return found, events


FAULTS = [
    (call, nth, times, keep)
    for call, nth, times in product(CALLS, range(1, 9), (1, 2, None))
    for keep in ((0, 1, 40, 10_000) if call == "write" else (0,))
]


@pytest.mark.parametrize("stop", [False, True], ids=["continue", "stop"])
@pytest.mark.parametrize("call", CALLS)
def test_acknowledged_events_survive_any_failing_call(
    tmp_path: Path, call: str, stop: bool
) -> None:
    for number, (_, nth, times, keep) in enumerate(one for one in FAULTS if one[0] == call):
        path = tmp_path / str(number) / f"{ID}.jsonl"
        with failing(FaultyFiles(call, nth, times=times, keep=keep)) as now:
            acknowledged, raised = run_on(path, now, stop=stop)
        found, _ = audit(path)
        case = (call, nth, times, keep, acknowledged, raised, found)

        assert set(acknowledged) <= set(found), case
        if times is not None and not stop and not raised:  # it worked again: nothing is missing
            assert found == list(range(len(KINDS))), case
        if not stop:
            assert not raised or raised == list(range(len(KINDS))), case


def test_an_event_that_failed_once_is_written_again_late(path: Path) -> None:
    for keep in (0, 50, 10_000):
        path.unlink(missing_ok=True)
        with failing(FaultyFiles("write", 2, times=1, keep=keep)), writing(path) as writer:
            assert writer.append(start()) == 1
            assert writer.append(event("step_finish", 1)) is not None
            assert writer.failure is None
        found = [
            one for one in independent_checker.check(path) if one["event_type"] == "step_finish"
        ]

        assert len(found) == 1
        # Whole in the file before the error: found there by its sha, and not written again.
        assert found[0].get("late") == (None if keep == 10_000 else True)


def test_an_event_whose_sync_failed_is_not_written_twice(path: Path) -> None:
    with failing(FaultyFiles("sync", 2, times=1)), writing(path) as writer:
        writer.append(start())
        assert writer.append(event("step_finish", 1)) == 2
    assert marks(path) == [1]


def test_failure_and_recovery_are_each_logged_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tapps_otel")
    with failing(FaultyFiles("write", 2, times=3)) as now, writing(path) as writer:
        for n in range(6):
            writer.append(event("annotation", n))
            now.now += 2_000_000_000
    said = [one.message for one in caplog.records]

    assert said == [
        f"{path}: cannot write to the log: [Errno 28] No space left on device",
        f"{path}: the log can be written again",
    ]
    assert marks(path) == [0, 1, 2, 3, 4, 5]


def test_a_log_that_fails_for_good_logs_how_much_is_lost(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with failing(FaultyFiles("write", 2)), writing(path) as writer:
        for n in range(4):
            writer.append(event("annotation", n))
        assert writer.failure == "[Errno 28] No space left on device"
    assert f"{path}: up to 3 events are lost: [Errno 28] No space left on device" in caplog.text
    assert marks(path) == [0]


def test_events_that_did_not_fit_into_memory_are_counted_in_the_log(path: Path) -> None:
    with failing(FaultyFiles("write", 2, times=2)) as now, writing(path, limit=3) as writer:
        for n in range(10):
            if n == 9:
                now.now += 2_000_000_000  # it is tried again now, and works
            seq = writer.append(event("annotation", n))
            assert (seq is None) == (0 < n < 9)
    events = independent_checker.check(path)
    gaps = [one["attributes"] for one in events if one["event_type"] == "log_gap"]

    # The first that failed may be in the file, and is remembered apart from the three.
    assert gaps == [{"dropped": 4}]
    assert marks(path) == [0, 1, 2, 3, 4, 9]
    assert [one["attributes"]["mark"] for one in events if one.get("late")] == [1, 2, 3, 4]


def test_a_failing_log_is_tried_once_a_second_not_at_each_event(path: Path) -> None:
    files = FaultyFiles("write", 2)
    with failing(files) as now, writing(path) as writer:
        writer.append(event("annotation", 0))
        for n in range(1000):
            writer.append(event("annotation", n))
        assert files.calls < 5
        now.now += 1_000_000_000
        writer.append(event("annotation", 1000))
        assert 3 < files.calls < 7


def test_with_stop_an_event_that_raised_is_not_written_later(path: Path) -> None:
    with failing(FaultyFiles("write", 2, times=2)) as now, writing(path, stop=True) as writer:
        writer.append(start())
        with pytest.raises(LogWriteError) as caught:
            writer.append(event("step_start", 1))
        now.now += 2_000_000_000
        writer.append(event("step_start", 2))
    said = str(caught.value)

    assert str(path) in said
    assert "No space left on device" in said
    assert "run the workflow again under the same id. `tapps-otel doctor`" in said
    assert marks(path) == [2]


def test_with_stop_a_failed_sync_that_fails_again_loses_no_later_event(path: Path) -> None:
    with failing(FaultyFiles("sync", 2, times=3)) as now, writing(path, stop=True) as writer:
        writer.append(start())
        for _ in range(2):
            with pytest.raises(LogWriteError):
                writer.append(event("step_finish", 1))
            now.now += 2_000_000_000
        assert writer.append(event("step_finish", 2)) is not None
    assert 2 in marks(path)
    independent_checker.check(path)


@pytest.mark.parametrize("call", ["open_append", "sync", "evict", "reader", "write"])
def test_a_log_that_cannot_be_opened_is_an_error_and_stays_unchanged(path: Path, call: str) -> None:
    with writing(path) as writer:
        writer.append(start())
    left = path.read_bytes()[:-5]
    path.write_bytes(left)
    with failing(FaultyFiles(call, error=errno.EIO)), pytest.raises(OSError, match="Input/output"):
        LogWriter(path, ID)

    assert path.read_bytes() == left


# ---------------------------------------------------------------- failed syncs, and what they lose


def syncing_fails(path: Path, disk: CachedDisk) -> tuple[list[int], list[int]]:
    """A run with one failing sync, then a power cut; returns the marks acknowledged and found."""
    acknowledged = []
    with log_files.use(disk), writing(path) as writer:
        for n in range(6):
            disk.fail_sync = n == 3
            if writer.append(event("step_finish", n)):
                acknowledged.append(n)
    disk.lose_power()
    with writing(path, accept_damage=True):
        pass
    return acknowledged, marks(path)


def test_a_failed_sync_is_never_taken_for_success_later(path: Path) -> None:
    acknowledged, found = syncing_fails(path, CachedDisk(path))

    assert acknowledged == found == [0, 1, 2, 3, 4, 5]
    independent_checker.check(path)


def test_without_eviction_the_lost_record_would_seem_written(path: Path) -> None:
    acknowledged, found = syncing_fails(path, CachedDisk(path, evicts=False))

    assert 3 in acknowledged
    assert 3 not in found


def test_without_syncs_a_power_cut_takes_everything(path: Path) -> None:
    acknowledged, found = syncing_fails(path, CachedDisk(path, syncs=False))

    assert len(acknowledged) == 6
    assert found == []


def test_events_of_a_crashed_writer_are_synced_before_new_ones(
    path: Path,
) -> None:
    disk = CachedDisk(path)
    with log_files.use(disk):
        writer = LogWriter(path, ID)
        writer.append(start())
        writer.append(event("step_start", 1))  # in the page cache alone
        writer.detach()  # killed
        with writing(path) as again:
            again.append(event("step_finish", 2))
    disk.lose_power()

    assert marks(path) == [1, 2]
    assert len(independent_checker.check(path)) == 3


def test_a_disk_that_loses_synced_events_stops_the_writer(path: Path) -> None:
    disk = CachedDisk(path)
    with log_files.use(disk), writing(path) as writer:
        writer.append(start())
        writer.append(event("step_finish", 1))
        disk.on_disk = disk.on_disk[:300]
        path.write_bytes(disk.on_disk)
        assert writer.append(event("step_finish", 2)) is None
        assert "ends before seq 2, which had been acknowledged" in str(writer.failure)


class FailingOnce(Files):
    """A disk one of whose calls fails once, when it is armed."""

    def __init__(self, call: str) -> None:
        self.armed = False
        genuine = getattr(Files, call)

        def in_turn(*args: Any, **named: Any) -> Any:
            if self.armed:
                self.armed = False
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return genuine(self, *args, **named)

        setattr(self, call, in_turn)


@pytest.mark.parametrize("call", ["write", "sync", "position"])
@pytest.mark.parametrize("stop", [False, True], ids=["continue", "stop"])
def test_an_interrupt_while_a_failure_is_handled_loses_no_event(
    path: Path, call: str, *, stop: bool
) -> None:
    """The event has its seq by then, so that its caller takes it for written."""
    disk = FailingOnce(call)
    with failing(disk) as now:
        writer = LogWriter(path, ID, stop=stop)
        writer.append(event("step_start", 1))
        disk.armed = True
        with interrupt_at("fail"), pytest.raises(KeyboardInterrupt):
            writer.append(event("step_finish", 2))
        now.now += 2_000_000_000
        writer.append(event("step_start", 3))
        writer.append(event("workflow_end", 4))
        writer.close()

    assert audit(path)[0] == [1, 2, 3, 4]


@contextmanager
def interrupt_at(name: str) -> Iterator[None]:
    """Raise KeyboardInterrupt where a function of this name of the package begins, once."""

    def called(frame: FrameType, what: str, _: object) -> None:
        code = frame.f_code
        if what == "call" and code.co_name == name and "tapps_otel" in code.co_filename:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(None)
