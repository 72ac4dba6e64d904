"""Messages about a damaged log: the file, the place in it, and what to do next.

Other messages are tested with what raises them: leases, ids, unwritable logs and blobs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from logs import ID, lines_of, story, write
from tapps_otel.errors import LogDamagedError
from tapps_otel.log.event import MAX_LINE, TRAILER
from tapps_otel.log.reader import check, read
from tapps_otel.log.writer import LogWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{ID}.jsonl"


def changed(made: list[bytes]) -> list[bytes]:
    return [*made[:3], made[3].replace(b"note", b"nope"), *made[4:]]


DAMAGE = {
    "too long": (
        lambda made: [*made[:3], b"x" * (MAX_LINE + TRAILER + 9) + b"\n", *made[3:]],
        f"a line of more than {MAX_LINE} bytes",
    ),
    "not too long": (
        lambda made: [*made[:3], b"x" * (MAX_LINE - 1) + b"\n", *made[3:]],
        "the line does not begin with seq 4: lines were removed, moved or duplicated",
    ),
    "lost": (
        lambda made: [*made[:3], b"\0" * 100 + b"\n", *made[4:]],
        "NUL bytes: this block was never written to disk",
    ),
    "removed": (
        lambda made: [*made[:3], *made[4:]],
        "the line does not begin with seq 4: lines were removed, moved or duplicated",
    ),
    "without sha": (
        lambda made: [*made[:3], made[3].replace(b"sha", b"sah"), *made[4:]],
        "the line has no complete sha at its end",
    ),
    "changed": (changed, "the line's sha does not match: this line, or one before it, was changed"),
    "two in one": (
        lambda made: [*made[:3], made[3][:-1], b'{"sha":"' + b"0" * 64 + b'"}'],
        "an unfinished line",
    ),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_with_its_place_and_the_next_command(
    path: Path,
    damage: object,
    said: str,
) -> None:
    made = lines_of(write(path, story()))
    path.write_bytes(b"".join(damage(made)))  # type: ignore[operator]
    region = check(path, ID).region
    assert region is not None
    assert region.problem == said
    if region.torn:
        return
    for call in (lambda: list(read(path, ID)), lambda: LogWriter(path, ID)):
        with pytest.raises(LogDamagedError) as caught:
            call()
        assert str(caught.value) == (
            f"{path}: damaged at byte {sum(map(len, made[:3]))}, where seq 4 was expected: {said}. "
            "Nothing was written. Inspect the log with `tapps-otel verify`; to continue in spite "
            "of the damage, run `tapps-otel repair RUN --accept-damage`, or `tapps-otel pull RUN` "
            "if a store has the run"
        )
