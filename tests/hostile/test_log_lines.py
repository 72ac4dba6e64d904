"""Lines that no writer makes: they are refused or kept, in bounded time and memory."""

from __future__ import annotations

import tracemalloc
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effort import examples
from logs import ID, story, write
from tapps_otel.errors import LogDamagedError, LogError
from tapps_otel.log.event import MAX_LINE, genesis
from tapps_otel.log.model import read_model
from tapps_otel.log.reader import check, read
from tapps_otel.log.store import Store

HEAD = (
    b'{"v":1,"seq":1,"event_type":"annotation","workflow_id":"r","execution":1,'
    b'"timestamp":"2025-11-13T00:00:00.000000000Z"'
)


def chained(body: bytes) -> bytes:
    """A first line whose sha is right, whatever its body is."""
    sha = sha256(genesis(ID) + body).hexdigest().encode()
    return body + b',"sha":"' + sha + b'"}\n'


DEEP = 100_000
HOSTILE = {
    "deep list": HEAD + b',"attributes":{"a":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep result": HEAD + b',"result":' + b"[" * DEEP + b"]" * DEEP,
    "deep unknown field": HEAD + b',"new":' + b"[" * DEEP + b"]" * DEEP,
    "5000 digits": HEAD + b',"attributes":{"a":' + b"9" * 5000 + b"}",
    "seq of 5000 digits": HEAD.replace(b'"seq":1', b'"seq":1' + b"0" * 5000),
    "1e400": HEAD + b',"attributes":{"a":1e400}',
    "NaN": HEAD + b',"attributes":{"a":NaN}',
    "Infinity": HEAD + b',"attributes":{"a":-Infinity}',
    "seq twice": HEAD + b',"seq":2',
    "true as execution": HEAD.replace(b'"execution":1', b'"execution":true'),
    "text as execution": HEAD.replace(b'"execution":1', b'"execution":"1"'),
    "number as name": HEAD + b',"name":7',
    "list as attributes": HEAD + b',"attributes":[]',
    "bad UTF-8": HEAD + b',"name":"\xff\xfe"',
    "raw control characters": HEAD + b',"name":"\x1b[2J"',
    "a list": HEAD.replace(b"{", b"[", 1),
    "two objects": HEAD + b"}{",
    "no comma": HEAD + b' "name":"x"',
    "no event type": HEAD.replace(b'"event_type":"annotation",', b""),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{ID}.jsonl"


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_line_that_is_not_an_event_is_damage_although_its_sha_matches(
    path: Path, body: bytes
) -> None:
    path.write_bytes(chained(body))

    assert not check(path, ID).ok
    for stream in (read, read_model):
        with pytest.raises(LogDamagedError, match="at byte 0, where seq 1 was expected"):
            list(stream(path, ID))
    for one in Store(path.parent).runs():
        assert one.status == "damaged"


KEPT = {
    "escape sequences": rb',"name":"\u001b]0;title\u0007\u009b\u202e"',
    "lone surrogate": rb',"name":"\ud800"',
    "line separators": ',"name":"a\u2028b\x85c"'.encode(),
    "unknown field": b',"colour":{"a":[1,2]}',
    "large integer": b',"attributes":{"a":' + b"9" * 4000 + b"}",
    "absurd time": b',"duration_ns":-9223372036854775808',
    "paths": b',"artifacts":[{"name":"../../etc/passwd","path":"file:///etc/passwd"}]',
}


@pytest.mark.parametrize("more", KEPT.values(), ids=KEPT)
def test_strange_but_valid_text_is_kept_unchanged(path: Path, more: bytes) -> None:
    path.write_bytes(chained(HEAD + more))

    assert check(path, ID).ok
    assert [one.seq for one in read(path, ID)] == [1]
    assert [one.seq for one in read_model(path, ID)] == [1]


@settings(max_examples=examples(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_raise_a_log_error_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, ours: bool
) -> None:
    path = tmp_path_factory.mktemp("junk") / f"{ID}.jsonl"
    path.write_bytes((b'{"v":1,"seq":1,' if ours else b"") + junk)
    for call in (lambda: list(read(path, ID)), lambda: check(path, ID)):
        try:
            call()
        except LogError as error:
            assert str(path) in str(error)  # noqa: PT017 - it may pass, too
    assert [one.workflow_id for one in Store(path.parent).runs()] in ([], [ID])


@pytest.mark.parametrize("kind", ["one line", "no end", "short lines"])
def test_a_huge_file_needs_little_memory(path: Path, kind: str) -> None:
    data = write(path, story(), durability="os")
    with path.open("ab") as file:
        if kind == "short lines":
            file.write(b"x\n" * 50_000)
        else:
            file.truncate(len(data) + 64_000_000)  # sparse: NULs that take no room
            file.seek(0, 2)
            file.write(b"\n" if kind == "one line" else b"x")
    tracemalloc.start()
    report = check(path, ID)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (report.seq, report.size) == (7, path.stat().st_size)
    assert peak < 6 * MAX_LINE


def test_types_of_a_hostile_file_do_not_accumulate(path: Path) -> None:
    write(path, story(), durability="os")
    with path.open("ab") as file:
        for n in range(2000):
            file.write(HEAD.replace(b"annotation", b"t%d" % n) + b',"sha":"' + b"0" * 64 + b'"}\n')
    region = check(path, ID).region

    assert region is not None
    assert set(region.readable) == {"?"}
