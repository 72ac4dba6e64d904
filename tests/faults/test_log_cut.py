"""A log cut anywhere, or with junk at its end, continues; every old byte stays in its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import independent_checker
from effort import examples
from logs import BOOT, ID, Unsynced, event, lines_of, marks, start, story, write, writing
from tapps_otel.errors import LogDamagedError
from tapps_otel.log import files as log_files
from tapps_otel.log.event import trailing_sha
from tapps_otel.log.reader import check
from tapps_otel.log.writer import LogWriter

OTHER_BOOT = "22222222-2222-4222-8222-222222222222"


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with log_files.use(Unsynced()):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("log") / "r.jsonl", story(), durability="os")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{ID}.jsonl"


def continues(path: Path, left: bytes, **options: str) -> list[str]:
    """Open what a crash left and append; return the event types, checked independently."""
    path.write_bytes(left)
    with writing(path, **options) as writer:
        assert writer.append(event("workflow_resume", "on", execution=2)) == writer.seq
    with writing(path):  # and the next opening finds nothing to repair
        pass
    assert path.read_bytes().startswith(left)
    events = independent_checker.check(path)
    assert check(path, ID).ok
    assert [one["seq"] for one in events] == list(range(1, len(events) + 1))
    return [one["event_type"] for one in events]


def refused(path: Path, left: bytes, **options: str) -> LogDamagedError:
    """Open what no crash can have left: nothing is written."""
    path.write_bytes(left)
    with pytest.raises(LogDamagedError) as caught:
        LogWriter(path, ID, **options)  # type: ignore[arg-type]
    assert path.read_bytes() == left
    return caught.value


def whole(data: bytes, cut: int) -> list[str]:
    """Types of the records that are whole in ``data[:cut]``, the last newline not counted."""
    kinds, end = [], 0
    for line, one in zip(lines_of(data), story(), strict=True):
        end += len(line)
        if cut >= end - 1:
            kinds.append(one.event_type)
    return kinds


def test_a_log_cut_at_any_byte_continues_with_every_whole_record(path: Path, data: bytes) -> None:
    ends = {0}
    for line in lines_of(data):
        ends |= {max(ends) + len(line)}
    for cut in range(len(data) + 1):
        torn = cut not in ends and cut + 1 not in ends
        expected = [*whole(data, cut), *(["log_repair"] if torn else []), "workflow_resume"]

        assert continues(path, data[:cut]) == expected, cut


def test_a_repair_that_was_itself_cut_at_any_byte_is_sealed(path: Path, data: bytes) -> None:
    torn = data[: len(data) - len(lines_of(data)[-1]) // 2]
    continues(path, torn)
    sealed = b"".join(path.read_bytes().splitlines(keepends=True)[:-1])
    kept = whole(data, len(torn))
    for cut in range(len(torn), len(sealed) + 1):
        kinds = continues(path, sealed[:cut])

        assert kinds == [*kept, "log_repair", "workflow_resume"], cut


def test_the_repair_of_a_cut_repair_can_be_cut_too(path: Path, data: bytes) -> None:
    left = data[:-40]
    for depth in range(6):
        path.write_bytes(left)
        with writing(path):
            pass
        sealed = path.read_bytes()
        for more in (1, 2, 30, 200, len(sealed) - len(left) - 1):
            kinds = continues(path, sealed[: len(left) + more])
            assert kinds[-2:] == ["log_repair", "workflow_resume"], (depth, more)
            assert kinds.count("log_repair") == 1
        left = sealed[: len(left) + (30, 1)[depth % 2]]


JUNK = [
    b"x",
    b"\n",
    b"\xff\xfe\n",
    b"\0" * 5000,
    b"\0" * 100 + b"\n",
    b"one\0two\n",
    b"one\ntwo\0\nthree\n",
    b'{"v":1,"seq":8,"event_type":"step_start"',
    b'{"v":1,"seq":8,"event_type":"step_start"}\n',
    b'{"v":1,"seq":8,"event_type":"x","sha":"' + b"0" * 63 + b'"}\n',
]


@pytest.mark.parametrize("junk", JUNK)
def test_junk_or_nuls_at_the_end_are_sealed(path: Path, data: bytes, junk: bytes) -> None:
    assert continues(path, data + junk)[-2:] == ["log_repair", "workflow_resume"]


NOT_TORN = [
    b"one\ntwo\n",
    b"\n\n",
    b'{"v":1,"seq":8,"event_type":"x","sha":"' + b"0" * 64 + b'"}\n',
    b'{"v":1,"seq":8,"event_type":"x","sha":"' + b"0" * 64 + b'"}',
    b'\0\0{"v":1,"seq":8,"event_type":"x","sha":"' + b"0" * 64 + b'"}\nmore',
]


@pytest.mark.parametrize("junk", NOT_TORN)
def test_an_end_that_no_crash_leaves_is_refused(path: Path, data: bytes, junk: bytes) -> None:
    error = refused(path, data + junk)

    assert (error.offset, error.seq) == (len(data), 8)


def sealable(region: bytes) -> bool:
    """The rule as the description of the format states it."""
    lines = region.split(b"\n")
    terminated = lines[-1] == b""
    texts = lines[:-1] if terminated else lines
    if any(trailing_sha(line) for line in texts):
        return False
    repair = b'{"v":1,"seq":8,"event_type":"log_repair",'
    cut = [one for one in texts[1:] if one and (one + repair).startswith(repair[: len(one)])]
    return not terminated or b"\0" in region or len(texts) - len(cut) == 1


@settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.sampled_from([b"\n", b"\0", b"{", b"ab", b'"}', b',"sha":"', b"f" * 64, b'{"v":1,'])
        | st.binary(max_size=9),
        min_size=1,
        max_size=8,
    ).map(b"".join)
)
@example(b',"sha":"' + b"f" * 64 + b'"}\n')
def test_any_end_is_sealed_or_refused_by_the_rule(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, junk: bytes
) -> None:
    path = tmp_path_factory.mktemp("junk") / f"{ID}.jsonl"
    if not junk:
        return
    if sealable(junk):
        assert "log_repair" in continues(path, data + junk)
    else:
        refused(path, data + junk)


def test_the_repair_is_of_the_execution_that_resumes(path: Path, data: bytes) -> None:
    continues(path, data + b"torn")

    assert independent_checker.check(path)[7]["execution"] == 2


def test_opening_a_sealed_log_again_seals_nothing(path: Path, data: bytes) -> None:
    continues(path, data + b"torn")
    left = path.read_bytes()

    assert continues(path, left).count("log_repair") == 1


def test_a_log_of_a_hundred_crashes_still_checks(path: Path, data: bytes) -> None:
    left, kinds = data, list[str]()
    for n in range(100):
        kinds = continues(path, left + b"torn" * (n % 3))
        left = path.read_bytes()
    assert kinds.count("workflow_resume") == 100
    assert len(check(path, ID).repairs) == 66


# ---------------------------------------------------------------- a power cut's hole


def hole(tail: bytes, *, durability: str = "commit", at: slice = slice(0, 40)) -> bytes:
    """A synced start and a step_start that the disk lost a block of, then ``tail``."""
    lost = bytearray(line_of(event("step_start", 1)))
    lost[at] = b"\0" * len(lost[at])
    return head(durability) + bytes(lost) + tail


def head(durability: str = "commit") -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        process = {"boot_id": BOOT, "durability": durability}
        return write(Path(folder) / "r.jsonl", [start(process=process)], durability="os")


def line_of(*events: object) -> bytes:
    """Lines as they would follow the head; the chain does not matter there."""
    from tapps_otel.log.event import Event, encode

    made = b""
    for seq, one in enumerate(events, 2):
        assert isinstance(one, Event)
        one.seq = seq
        made += encode(one, b"")[0]
    return made


UNSYNCED = line_of(event("annotation", 1), event("step_start", 2), event("span", 3))


@pytest.mark.parametrize(
    "tail", [UNSYNCED, UNSYNCED + b"torn", UNSYNCED + b"\0" * 99, line_of(event("annotation"))]
)
@pytest.mark.parametrize("at", [slice(0, 40), slice(50, 90), slice(-20, None), slice(0, None)])
def test_a_hole_of_a_power_cut_is_sealed(path: Path, tail: bytes, at: slice) -> None:
    kinds = continues(path, hole(tail, at=at), boot_id=OTHER_BOOT)

    assert kinds == ["workflow_start", "log_repair", "workflow_resume"]


@pytest.mark.parametrize("boot_id", [BOOT, None])
def test_without_a_reboot_there_was_no_power_cut(path: Path, boot_id: str | None) -> None:
    path.write_bytes(hole(UNSYNCED))
    with pytest.raises(LogDamagedError, match="NUL bytes"):
        LogWriter(path, ID, boot_id=boot_id)
    assert path.read_bytes() == hole(UNSYNCED)


@pytest.mark.parametrize("durability", ["os", "always"])
def test_a_hole_where_none_can_be_is_refused(path: Path, durability: str) -> None:
    refused(path, hole(UNSYNCED, durability=durability), boot_id=OTHER_BOOT)


def test_without_syncs_a_power_cut_cannot_be_told_from_other_damage(path: Path) -> None:
    refused(path, hole(b"", durability="os"), boot_id=OTHER_BOOT)

    assert "log_repair" in continues(path, hole(b"", durability="always"), boot_id=OTHER_BOOT)


@pytest.mark.parametrize("kind", ["step_finish", "step_fail", "workflow_end", "strange"])
def test_a_hole_under_what_was_synced_is_refused(path: Path, kind: str) -> None:
    tail = UNSYNCED + line_of(event(kind, 9))

    refused(path, hole(tail), boot_id=OTHER_BOOT)


def test_a_hole_under_what_waited_for_the_same_sync_is_sealed(path: Path) -> None:
    in_flight = (event("step_finish", n, unsynced=n) for n in (1, 2))
    tail = line_of(event("annotation", 9), *in_flight)

    kinds = continues(path, hole(tail), boot_id=OTHER_BOOT)

    assert kinds == ["workflow_start", "log_repair", "workflow_resume"]
    refused(path, hole(tail), boot_id=BOOT)


def test_a_hole_under_what_was_written_after_its_sync_is_refused(path: Path) -> None:
    in_flight = (event("step_finish", n, unsynced=1) for n in (1, 2))

    refused(path, hole(line_of(event("annotation", 9), *in_flight)), boot_id=OTHER_BOOT)


def test_a_change_without_nuls_is_not_a_hole(path: Path) -> None:
    left = head() + line_of(event("step_start", 1)).replace(b"draft", b"drafl") + UNSYNCED

    refused(path, left, boot_id=OTHER_BOOT)


def test_a_power_cut_can_keep_a_lines_end_and_lose_its_beginning(path: Path, data: bytes) -> None:
    lost = b"\0" * 4096 + b'page kept","attempt":1}\n'

    assert "log_repair" in continues(path, data + lost)


def test_marks_before_the_hole_are_kept(path: Path) -> None:
    continues(path, hole(UNSYNCED), boot_id=OTHER_BOOT)

    assert marks(path) == ["on"]
