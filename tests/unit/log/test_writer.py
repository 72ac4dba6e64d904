"""Writing: seq, durability, and what a caller learns."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

import independent_checker
from logs import ID, event, marks, start, story, write, writing
from tapps_otel.errors import LogDamagedError, LogWriteError
from tapps_otel.log import files as log_files
from tapps_otel.log.event import MAX_LINE, Event
from tapps_otel.log.files import FaultyFiles, Files
from tapps_otel.log.reader import check
from tapps_otel.log.writer import LogWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / f"{ID}.jsonl"


class Counting(Files):
    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def sync(self, descriptor: int) -> None:
        self.calls["sync"] += 1

    def write(self, descriptor: int, data: bytes) -> None:
        self.calls["write"] += 1
        super().write(descriptor, data)


def test_seq_counts_from_one_and_continues_in_the_next_execution(path: Path) -> None:
    with writing(path) as writer:
        assert [writer.append(one) for one in story()] == [1, 2, 3, 4, 5, 6, 7]
    with writing(path) as writer:
        assert writer.append(event("workflow_resume", execution=2)) == 8
        assert (writer.seq, writer.sha) == (8, check(path, ID).sha)
    assert len(independent_checker.check(path)) == 8


def test_files_and_folders_are_private(path: Path) -> None:
    write(path, [start()])

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_opening_passes_on_the_events_of_the_log(path: Path) -> None:
    write(path, story())
    seen: list[Event] = []

    with writing(path, on_event=seen.append):
        pass
    assert [one.seq for one in seen] == [1, 2, 3, 4, 5, 6, 7]


def test_every_event_is_one_write(path: Path) -> None:
    files = Counting()
    with log_files.use(files):
        write(path, story())

    assert files.calls["write"] == 7


@pytest.mark.parametrize(
    ("durability", "syncs"),
    [("commit", 4), ("always", 7), ("os", 0)],  # start, finish, fail and end of the story's seven
)
def test_syncs_are_those_that_the_durability_promises(
    path: Path, durability: Any, syncs: int
) -> None:
    files = Counting()
    with log_files.use(files):
        write(path, story(), durability=durability)

    assert files.calls["sync"] == syncs


def test_a_sync_can_be_asked_for_one_event(path: Path) -> None:
    files = Counting()
    with log_files.use(files), writing(path) as writer:
        writer.append(event("step_start", 1), sync=True)

    assert files.calls["sync"] == 1


def test_a_run_that_syncs_nothing_for_long_is_synced_all_the_same(path: Path) -> None:
    files = Counting()
    with log_files.use(files), writing(path) as writer:
        for _ in range(5000):
            writer.append(event("annotation"))

    assert 2 <= files.calls["sync"] <= 5


def test_threads_share_one_order(path: Path) -> None:
    with writing(path, durability="os") as writer:

        def work(name: int) -> None:
            for number in range(200):
                writer.append(event("annotation", [name, number]))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    found = [(one["attributes"]["mark"]) for one in independent_checker.check(path)]

    assert len(found) == 1200
    for name in range(6):
        assert [number for who, number in found if who == name] == list(range(200))


def test_a_closed_writer_raises(path: Path) -> None:
    with writing(path) as writer:
        writer.append(start())
    writer.close()

    with pytest.raises(LogWriteError, match=r"r\.jsonl: cannot write to the log: the log is clos"):
        writer.append(start())


def test_a_closed_writer_continues_where_it_was_left_without_reading(path: Path) -> None:
    unreadable = FaultyFiles("reader", nth=2)
    with log_files.use(unreadable), writing(path) as writer:
        writer.append(start())
        writer.close()
        assert writer.reopen()
        assert writer.append(event("annotation", name="later")) == 2
    independent_checker.check(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b'{"v":1,',
        lambda data: data[:-1],
        lambda data: data[:-67] + bytes(reversed(data[-67:-3])) + data[-3:],  # another sha
        lambda data: b"",
    ],
)
def test_a_closed_writer_notices_that_the_log_is_not_as_it_was_left(
    path: Path, change: Callable[[bytes], bytes]
) -> None:
    with writing(path) as writer:
        for one in story():
            writer.append(one)
        writer.close()
        path.write_bytes(change(path.read_bytes()))

        assert not writer.reopen()
        with pytest.raises(LogWriteError, match="the log is closed"):
            writer.append(event("annotation", name="later"))


def test_a_closed_writer_does_not_make_a_log_that_is_gone(path: Path) -> None:
    with writing(path) as writer:
        writer.append(start())
        writer.close()
        path.unlink()
        with pytest.raises(FileNotFoundError):
            writer.reopen()
    assert not path.exists()


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "not JSON": ({"attributes": {"a": object()}}, "object"),
    "endless digits": ({"attributes": {"a": 10**5000}}, "4300 digits"),
    "pretty raw JSON": ({"result": Raw(b"[\n]")}, "newline"),
    "too long": ({"result": Raw(b'"%b"' % (b"x" * MAX_LINE))}, f"at most {MAX_LINE}"),
}


@pytest.mark.parametrize(("fields", "said"), UNFIT.values(), ids=UNFIT)
def test_an_event_that_cannot_be_encoded_is_dropped_and_counted(
    path: Path, fields: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with writing(path) as writer, caplog.at_level(logging.ERROR, "tapps_otel"):
        writer.append(start())
        assert writer.append(event("annotation", **fields)) is None
        assert writer.append(event("annotation", "next")) == 3
        assert writer.failure is None
    events = independent_checker.check(path)

    assert [one["event_type"] for one in events] == ["workflow_start", "log_gap", "annotation"]
    assert events[1]["attributes"] == {"dropped": 1}
    assert said in caplog.text
    assert str(path) in caplog.text


@pytest.mark.parametrize(("fields", "said"), UNFIT.values(), ids=UNFIT)
def test_with_stop_it_is_an_error_and_the_log_continues(
    path: Path, fields: dict[str, Any], said: str
) -> None:
    with writing(path, stop=True) as writer:
        writer.append(start())
        with pytest.raises(LogWriteError, match=said):
            writer.append(event("annotation", **fields))
        writer.append(event("annotation", "next"))
    assert marks(path) == ["next"]
    assert len(independent_checker.check(path)) == 2


def test_an_unfit_event_that_waited_is_counted_when_the_log_works_again(path: Path) -> None:
    with log_files.use(FaultyFiles("write", 2, times=2)), writing(path) as writer:
        writer.append(start())
        writer.append(event("annotation", "a"))  # fails twice, and waits
        writer.append(event("annotation", attributes={"a": object()}))
        writer.append(event("annotation", "b"))
    events = independent_checker.check(path)

    assert marks(path) == ["a", "b"]
    assert [one["attributes"] for one in events if one["event_type"] == "log_gap"] == [
        {"dropped": 1}
    ]


@pytest.mark.parametrize("durability", ["commit", "os"])
def test_what_another_process_writes_is_declared_and_the_log_continues(
    path: Path, durability: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with writing(path, durability=durability) as writer:
        writer.append(start())
        for mark in range(3):
            with path.open("ab") as file:
                file.write(b'{"not":"ours"}\n')
            assert writer.append(event("step_skip", mark)) is not None
    events = independent_checker.check(path)

    assert marks(path) == [0, 1, 2]
    assert [len(one["damage"]) for one in events if "damage" in one] == [1, 1, 1]
    assert "another process wrote to the log without the lease" in caplog.text
    assert "what it wrote is declared as damage" in caplog.text


def test_with_stop_a_write_of_another_process_stops_the_writer(path: Path) -> None:
    with writing(path, stop=True) as writer:
        writer.append(start())
        with path.open("ab") as file:
            file.write(b'{"not":"ours"}\n')
        with pytest.raises(LogWriteError, match=r"damaged at byte \d+"):
            writer.append(event("step_skip"))
        size = path.stat().st_size
        with pytest.raises(LogWriteError):
            writer.append(event("annotation"))
        assert path.stat().st_size == size
    assert not check(path, ID).ok


def test_a_log_that_lost_synced_events_is_not_continued(path: Path) -> None:
    with log_files.use(FaultyFiles("write", 4, times=1)), writing(path) as writer:
        for one in story()[:3]:
            writer.append(one)
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
        size = path.stat().st_size
        assert writer.append(event("annotation")) is None
        assert "ends before seq 3" in str(writer.failure)
    assert path.stat().st_size == size


def test_ctrl_c_inside_an_append_leaves_a_log_that_continues(path: Path) -> None:
    class Interrupted(Files):
        armed = False

        def write(self, descriptor: int, data: bytes) -> None:
            super().write(descriptor, data)
            if self.armed:
                self.armed = False
                raise KeyboardInterrupt

    files = Interrupted()
    with log_files.use(files), writing(path) as writer:
        writer.append(start())
        files.armed = True
        with pytest.raises(KeyboardInterrupt):
            writer.append(event("step_finish", 1))
        writer.append(event("workflow_end", 2))
    assert marks(path) == [1, 2]
    assert len(independent_checker.check(path)) == 3


def test_a_file_that_is_not_a_log_is_not_touched(path: Path) -> None:
    path.parent.mkdir()
    for data in (b'{"type":"workflow_start"}\n', b"hello", b'{"v":1,"seq":2,', b"\xef\xbb\xbf{"):
        path.write_bytes(data)
        for accept_damage in (False, True):
            with pytest.raises(LogDamagedError, match="this is not a log of tapps_otel"):
                LogWriter(path, ID, accept_damage=accept_damage)
        assert path.read_bytes() == data


def test_accepted_damage_is_declared_and_the_log_continues(path: Path) -> None:
    data = write(path, story())
    broken = data[:500] + b"#" + data[501:]
    path.write_bytes(broken)

    with pytest.raises(LogDamagedError):
        LogWriter(path, ID)
    with writing(path, accept_damage=True) as writer:
        writer.append(event("workflow_resume", "on", execution=2))
    assert path.read_bytes().startswith(broken)
    assert "on" in marks(path)
    assert check(path, ID).repairs
    independent_checker.check(path)
