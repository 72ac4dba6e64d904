"""Reading: as a stream, verified, followed, without changing the file."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

import independent_checker
from logs import ID, Settable, event, lines_of, start, story, write, writing
from tapps_otel import clock
from tapps_otel.errors import LogDamagedError, LogVersionError
from tapps_otel.log import files as log_files
from tapps_otel.log.event import MAX_LINE, TRAILER, encode, genesis
from tapps_otel.log.files import Files
from tapps_otel.log.follower import follow
from tapps_otel.log.model import read_model
from tapps_otel.log.reader import Checker, Region, check, lines, read
from tapps_otel.log.store import Store
from tapps_otel.names import log_name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{ID}.jsonl"


def chained(*bodies: bytes, workflow_id: str = ID) -> bytes:
    """Lines whose chain is right whatever stands in them."""
    from hashlib import sha256

    sha, made = genesis(workflow_id), b""
    for body in bodies:
        sha = sha256(sha + body).hexdigest().encode()
        made += body + b',"sha":"' + sha + b'"}\n'
    return made


def body(seq: int, more: bytes = b"", event_type: bytes = b"annotation") -> bytes:
    return (
        b'{"v":1,"seq":%d,"event_type":"%b","workflow_id":"r","execution":1,'
        b'"timestamp":"2025-11-13T00:00:00.000000000Z"%b' % (seq, event_type, more)
    )


def test_events_come_in_order_with_what_was_written(path: Path) -> None:
    write(path, story())
    events = list(read(path, ID))

    assert [one.seq for one in events] == [1, 2, 3, 4, 5, 6, 7]
    assert bytes(events[2].result) == b'[1,"two"]'  # type: ignore[arg-type]
    assert [one.event_type for one in events] == [one.event_type for one in story()]


def test_an_independent_checker_accepts_the_log(path: Path) -> None:
    write(path, story())

    assert [one["seq"] for one in independent_checker.check(path)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_check_returns_the_head_to_keep_elsewhere(path: Path) -> None:
    data = write(path, story())
    report = check(path, ID)

    assert (report.seq, report.sha) == (7, data[-67:-3].decode())
    assert report.size == len(data)
    assert report.ok


def test_lines_of_the_greatest_length_come_whole_and_longer_ones_in_pieces(path: Path) -> None:
    longest = b"x" * (MAX_LINE + TRAILER) + b"\n"
    path.write_bytes(longest + b"y" + longest + b"z\n")
    with path.open("rb") as file:
        assert [len(line) for line in lines(file)] == [len(longest), len(longest), 1, 2]


def test_a_check_passes_every_event_on_with_its_sha(path: Path) -> None:
    made = lines_of(write(path, story()))
    found: list[tuple[int, bytes]] = []
    check(path, ID, on_event=lambda event, sha: found.append((event.seq, sha)))

    assert found == [(seq, line[-67:-3]) for seq, line in enumerate(made, 1)]


def test_an_empty_log_has_no_head(path: Path) -> None:
    path.touch()

    assert (check(path, ID).seq, check(path, ID).sha, check(path, ID).ok) == (0, "", True)
    assert list(read(path, ID)) == []


def test_a_missing_log_raises_file_not_found(path: Path) -> None:
    for call in (
        lambda: list(read(path, ID)),
        lambda: check(path, ID),
        lambda: list(read_model(path, ID)),
        lambda: list(follow(path, ID, done=lambda: True)),
    ):
        with pytest.raises(FileNotFoundError):
            call()


def test_unknown_fields_and_event_types_are_kept(path: Path) -> None:
    path.write_bytes(chained(body(1, b',"colour":{"deep":[1]}', b"step_dance")))
    (found,) = read_model(path, ID)

    assert check(path, ID).ok
    assert [one.event_type for one in read(path, ID)] == ["step_dance"]
    assert found.model_extra == {"colour": {"deep": [1]}}


def test_a_newer_format_is_refused_by_reader_and_writer(path: Path) -> None:
    made = chained(body(1).replace(b'"v":1', b'"v":2'), body(2))
    path.write_bytes(made)

    for call in (
        lambda: list(read(path, ID)),
        lambda: check(path, ID),
        lambda: write(path, []),
        lambda: list(read_model(path, ID)),
    ):
        with pytest.raises(LogVersionError, match=r"version 2, .* reads version 1: upgrade it"):
            call()
    assert path.read_bytes() == made


def test_a_newer_format_in_the_middle_is_not_damage(path: Path) -> None:
    path.write_bytes(chained(body(1), body(2).replace(b'"v":1', b'"v":2')))

    with pytest.raises(LogVersionError) as caught:
        list(read(path, ID))
    assert caught.value.offset == len(chained(body(1)))


@pytest.mark.parametrize("more", [b',"seq":999', b',"v":1,"seq":1', b',"seq":true', b',"v":2'])
def test_a_line_with_two_seqs_or_versions_is_damage(path: Path, more: bytes) -> None:
    path.write_bytes(chained(body(1), body(2, more), body(3)))

    with pytest.raises(LogDamagedError, match="the sha matches, but the line is not an event"):
        list(read(path, ID))


def test_a_log_of_another_run_is_not_this_runs(tmp_path: Path) -> None:
    data = write(tmp_path / "other.jsonl", [start("other")])
    (tmp_path / "r.jsonl").write_bytes(data)

    assert not check(tmp_path / "r.jsonl", ID).ok


def test_the_chain_begins_with_the_id_in_the_first_line(tmp_path: Path) -> None:
    """The id of a third-party executor may be any text; nothing but the file is needed to check."""
    path = tmp_path / f"{log_name('their own/id')}.jsonl"
    data = write(path, [start("their own/id"), event("annotation", workflow_id="their own/id")])
    first = lines_of(data)[0]
    body, trailer = first[:-TRAILER], first[-67:-3]

    assert sha256(genesis("their own/id") + body).hexdigest().encode() == trailer
    assert check(path, path.stem).ok
    independent_checker.check(path)


def test_events_before_damage_are_yielded_before_the_error(path: Path) -> None:
    made = lines_of(write(path, story()))
    path.write_bytes(b"".join(made[:2] + made[3:]))
    found: list[int] = []

    with pytest.raises(LogDamagedError) as caught:
        found.extend(one.seq for one in read(path, ID))
    assert found == [1, 2]
    assert (caught.value.offset, caught.value.seq) == (len(made[0] + made[1]), 3)


def test_a_record_that_only_lacks_its_newline_is_read(path: Path) -> None:
    path.write_bytes(write(path, story())[:-1])

    assert [one.seq for one in read(path, ID)] == [1, 2, 3, 4, 5, 6, 7]
    assert len(list(read_model(path, ID))) == 7
    assert (check(path, ID).ok, check(path, ID).seq) == (True, 7)


def test_an_unfinished_line_is_not_damage(path: Path) -> None:
    path.write_bytes(write(path, story())[:-9])

    assert len(list(read(path, ID))) == 6
    assert check(path, ID).ok


def test_carriage_returns_and_unicode_line_ends_do_not_split_lines(path: Path) -> None:
    text = "a\rb\x1c\x85\u2028\u2029c"
    write(path, [start(), event("annotation", name=text)])

    assert [one.name for one in read_model(path, ID)] == [None, text]


class ReadOnly(Files):
    """A disk on which nothing can be changed."""

    def _refuse(self, *_: object, **__: object) -> int:
        raise AssertionError("a reader wrote")

    open_append = write = sync = write_file = replace_content = lock = make_folder = _refuse  # type: ignore[assignment]


def test_reading_changes_nothing(path: Path) -> None:
    data = write(path, story())[:-5]
    path.write_bytes(data)
    path.chmod(0o400)
    before = path.stat()

    with log_files.use(ReadOnly()):
        list(read(path, ID))
        list(read_model(path, ID))
        list(follow(path, ID, done=lambda: True))
        check(path, ID)
        Store(path.parent).summary(ID)
    assert path.read_bytes() == data
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert [one.name for one in path.parent.iterdir()] == [path.name]


# ---------------------------------------------------------------- following


def test_a_growing_log_is_followed_through_half_lines(path: Path) -> None:
    data = write(path, story())
    path.write_bytes(b"")
    pieces = [data[at : at + 97] for at in range(0, len(data), 97)]

    def grow() -> None:
        with path.open("ab") as file:
            file.write(pieces.pop(0))

    with clock.use(Settable(on_sleep=grow)):
        found = [one.seq for one in follow(path, ID, done=lambda: not pieces)]
    assert found == [1, 2, 3, 4, 5, 6, 7]


def test_an_event_is_yielded_as_soon_as_it_is_written(path: Path) -> None:
    with writing(path) as writer:
        writer.append(start())
        stream = follow(path, ID, done=lambda: False)
        assert next(stream).seq == 1
        writer.append(event("step_start", 1))
        assert next(stream).seq == 2
        stream.close()  # type: ignore[attr-defined]


def test_events_written_before_the_stop_are_yielded(path: Path) -> None:
    data = write(path, story())
    path.write_bytes(data[:300])

    def done() -> bool:
        path.write_bytes(data[:-1])  # and the last record lacks its newline
        return True

    assert [one.seq for one in follow(path, ID, done=done)] == [1, 2, 3, 4, 5, 6, 7]


def test_following_a_damaged_log_raises_at_its_end(path: Path) -> None:
    made = lines_of(write(path, story()))
    path.write_bytes(b"".join(made[:3] + made[4:]))
    stream = follow(path, ID, done=lambda: True)

    assert [next(stream).seq for _ in range(3)] == [1, 2, 3]
    with pytest.raises(LogDamagedError):
        next(stream)


def test_following_an_endless_line_ends_in_damage_not_in_memory(path: Path) -> None:
    path.write_bytes(chained(body(1)) + b"x" * 5_000_000)

    assert [one.seq for one in follow(path, ID, done=lambda: True)] == [1]


def test_the_longest_line_is_followed_also_before_its_newline_came(path: Path) -> None:
    short = chained(body(1))
    filler = MAX_LINE - len(short) - len(b',"name":""')
    data = chained(body(1, b',"name":"%b"' % (b"x" * filler)), body(2))
    assert data.index(b"\n") == MAX_LINE - 1
    path.write_bytes(data[: MAX_LINE - 1])

    def finish() -> None:
        path.write_bytes(data)

    with clock.use(Settable(on_sleep=finish)):
        found = [one.seq for one in follow(path, ID, done=lambda: path.stat().st_size > MAX_LINE)]
    assert found == [1, 2]


# ---------------------------------------------------------------- the checker itself


@pytest.mark.parametrize(
    ("region", "torn"),
    [
        (Region(0, "", lines=1), True),
        (Region(0, "", lines=2), False),
        (Region(0, "", lines=2, partial_repairs=1), True),
        (Region(0, "", lines=3, partial_repairs=1), False),
        (Region(0, "", lines=2, terminated=False), True),
        (Region(0, "", lines=2, has_nul=True), True),
        (Region(0, "", lines=1, whole_lines=True), False),
        (Region(0, "", lines=1, whole_lines=True, terminated=False, has_nul=True), False),
    ],
)
def test_a_region_is_torn_if_a_write_that_was_cut_short_can_have_left_it(
    region: Region, torn: bool
) -> None:
    assert region.torn is torn


def test_a_checker_can_stand_in_the_middle_of_a_log(path: Path) -> None:
    made = lines_of(write(path, story()))
    checker = Checker.after(path, 3, made[2], 1000)

    assert [one.seq for line in made[3:] if (one := checker.feed(line))] == [4, 5, 6, 7]
    assert checker.end == 1000 + sum(map(len, made[3:]))


def test_a_repair_that_claims_other_bytes_is_not_believed(path: Path) -> None:
    good = chained(body(1))
    torn = b"torn line\n"
    sha = good[-67:-3]
    for claim in ([(len(good), 9, "0" * 64)], [(0, len(torn), "0" * 64)], []):
        line, _ = encode(event("log_repair", seq=2, damage=claim), sha)
        path.write_bytes(good + torn + line)
        assert not check(path, ID).ok
