"""Changed, moved, duplicated or removed lines of a log are found, and never overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from logs import ID, Unsynced, event, lines_of, story, write
from tapps_otel.errors import LogError, LogVersionError
from tapps_otel.log import files as log_files
from tapps_otel.log.reader import Checker, check, lines
from tapps_otel.log.writer import LogWriter


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with log_files.use(Unsynced()):
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{ID}.jsonl"


@pytest.fixture
def data(path: Path) -> bytes:
    return write(path, story(), durability="os")


def is_found(path: Path, data: bytes, *, seq: int = 7) -> bool:
    path.write_bytes(data)
    try:
        report = check(path, ID)
    except LogError:
        return True
    return report.region is not None or report.seq != seq


def is_refused(path: Path, data: bytes) -> bool:
    """Opening for writing raises, and leaves every byte as it was."""
    path.write_bytes(data)
    try:
        LogWriter(path, ID).close()
    except LogError:
        assert path.read_bytes() == data
        return True
    return False


def flips(data: bytes, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    for at in range(start, len(data) if end is None else end):
        for bit in range(8):
            yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@pytest.mark.slow
def test_every_flipped_bit_is_found(path: Path, data: bytes) -> None:
    def is_missed(changed: bytes) -> bool:
        checker = Checker(path, ID)
        try:
            for line in lines(BytesIO(changed)):
                checker.feed(line)
        except LogVersionError:
            return False
        return checker.region is None and checker.seq == 7

    assert not is_found(path, data)
    assert [one for one in flips(data) if is_missed(one)] == []
    assert [one for one in list(flips(data))[::41] if not is_found(path, one)] == []


@pytest.mark.slow
def test_without_a_chain_most_flipped_bits_are_missed(data: bytes) -> None:
    def passes(changed: bytes) -> bool:
        try:
            return [json.loads(line)["seq"] for line in lines_of(changed)] == [1, 2, 3, 4, 5, 6, 7]
        except (ValueError, KeyError, TypeError):
            return False

    changed = list(flips(data))
    assert sum(map(passes, changed)) > len(changed) / 2


@pytest.mark.slow
def test_a_flipped_bit_before_the_last_record_is_refused(path: Path, data: bytes) -> None:
    last = len(data) - len(lines_of(data)[-1])
    one_in_a_byte = list(flips(data, 0, last))[3::8]

    assert [one for one in one_in_a_byte if not is_refused(path, one)] == []


def test_a_line_that_was_removed_is_found_and_refused(path: Path, data: bytes) -> None:
    made = lines_of(data)
    for n in range(len(made) - 1):
        changed = b"".join(made[:n] + made[n + 1 :])
        assert is_found(path, changed)
        assert is_refused(path, changed)


def test_lines_that_were_swapped_are_found_and_refused(path: Path, data: bytes) -> None:
    made = lines_of(data)
    for n in range(len(made)):
        for m in range(n):
            changed = made.copy()
            changed[n], changed[m] = changed[m], changed[n]
            assert is_found(path, b"".join(changed))
            assert is_refused(path, b"".join(changed))


def test_a_line_that_was_doubled_is_found_and_refused(path: Path, data: bytes) -> None:
    made = lines_of(data)
    for n in range(len(made)):
        for where in range(n, len(made)):
            changed = b"".join([*made[: where + 1], made[n], *made[where + 1 :]])
            assert is_found(path, changed)
            assert is_refused(path, changed)


def test_a_line_of_another_run_is_found_and_refused(
    path: Path, data: bytes, tmp_path: Path
) -> None:
    other = tmp_path / "other.jsonl"
    foreign = lines_of(write(other, [event(one.event_type, 5) for one in story()]))
    made = lines_of(data)
    for n in range(len(made)):
        changed = b"".join([*made[:n], foreign[n], *made[n + 1 :]])
        assert is_found(path, changed)
        assert is_refused(path, changed)


@pytest.mark.slow
def test_bytes_put_in_anywhere_are_found(path: Path, data: bytes) -> None:
    for at in range(0, len(data), 3):
        for junk in (b"\n", b" ", b"\0", b"\xff"):
            assert is_found(path, data[:at] + junk + data[at:]), (at, junk)


def test_lines_cut_off_the_end_show_against_a_head_kept_elsewhere(path: Path, data: bytes) -> None:
    head = check(path, ID)
    path.write_bytes(b"".join(lines_of(data)[:-2]))
    report = check(path, ID)

    assert report.ok  # the chain alone cannot know
    assert (report.seq, report.sha) != (head.seq, head.sha)
