"""What a machine has of a run, and what the store has, before the run continues there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commands import Cli
from crashes import Effects, go, killed
from databases import Database
from tapps_otel import annotate, configure, history, step, verify, workflow
from tapps_otel.errors import LogDamagedError

Machine = Callable[[str], Path]


@pytest.fixture
def flow(did: Effects) -> object:
    @step
    def count(number: int) -> int:
        did.note(f"count {number}")
        return number

    @workflow(name="flow")
    def flow() -> int:
        return sum(count(number) for number in range(4))

    return flow


def cut(path: Path, lines: int, more: int = 0) -> None:
    """Keep a log's first lines, and a few bytes of the next one."""
    kept = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(kept[:lines]) + b"\n" + kept[lines][:more])


def test_a_log_that_is_ahead_is_sent(
    database: Database, flow: object, did: Effects, be_on: Machine
) -> None:
    here = be_on("a")
    configure(store=None)
    killed(lambda: go(flow), finished=2)
    configure(store=database.address)
    before = (here / "r.jsonl").read_bytes()

    assert go(flow) == 6
    assert did.all == [f"count {number}" for number in range(4)]
    assert database.log("r") == (here / "r.jsonl").read_bytes()
    assert database.log("r").startswith(before)


@pytest.mark.parametrize("torn", [0, 1, 60, 10_000], ids="torn={}".format)
def test_a_log_that_is_behind_is_completed(
    database: Database, flow: object, did: Effects, be_on: Machine, torn: int
) -> None:
    here = be_on("a")
    killed(lambda: go(flow), finished=2)
    whole = (here / "r.jsonl").read_bytes()
    cut(here / "r.jsonl", 2, torn)

    assert go(flow) == 6
    assert did.all == [f"count {number}" for number in range(4)]
    after = (here / "r.jsonl").read_bytes()
    assert after.startswith(whole)  # the missing bytes, and no repair of the torn end
    assert database.log("r") == after
    assert verify("r").ok


def test_a_torn_end_that_the_store_does_not_have_is_sealed_in_both(
    database: Database, flow: object, be_on: Machine
) -> None:
    here = be_on("a")
    killed(lambda: go(flow), finished=2)
    with (here / "r.jsonl").open("ab") as log:
        log.write(b'{"v":1,"seq":6,"event')
    assert go(flow) == 6
    there = be_on("b")

    assert history("r").status == "completed"
    assert (there / "r.jsonl").read_bytes() == (here / "r.jsonl").read_bytes()
    assert b'"event_type":"log_repair"' in database.log("r")
    assert verify("r").ok


@pytest.mark.parametrize("lines", [1, 3], ids="lines={}".format)
def test_a_log_that_was_continued_elsewhere_is_set_aside(  # noqa: PLR0917 - fixtures
    database: Database,
    flow: object,
    did: Effects,
    be_on: Machine,
    caplog: pytest.LogCaptureFixture,
    lines: int,
) -> None:
    here = be_on("a")
    killed(lambda: go(flow), finished=1)
    configure(store=None)
    killed(lambda: go(flow), finished=lines)  # while it does not know of the store
    own = (here / "r.jsonl").read_bytes()
    configure(store=database.address)
    there = be_on("b")
    assert go(flow) == 6
    be_on("a")
    did.forget()

    assert go(flow) == 6
    assert did.all == []
    assert (here / "r.jsonl").read_bytes() == (there / "r.jsonl").read_bytes()
    (aside,) = here.glob("r.jsonl.aside-*")
    assert aside.read_bytes() == own
    assert f"It was set aside as {aside.name}" in caplog.text


def test_the_torn_end_of_a_line_that_another_machine_wrote_otherwise_is_set_aside(
    database: Database, flow: object, be_on: Machine
) -> None:
    here = be_on("a")
    killed(lambda: go(flow), finished=1)
    with (here / "r.jsonl").open("ab") as log:
        log.write(b'{"v":1,"seq":4,"event_type":"step_start","workflow_id":"r","other')
    there = be_on("b")
    assert go(flow) == 6
    be_on("a")

    assert go(flow) == 6
    assert (here / "r.jsonl").read_bytes() == (there / "r.jsonl").read_bytes()
    assert len([*here.glob("r.jsonl.aside-*")]) == 1


def test_a_damaged_log_is_left_to_a_person(
    database: Database, flow: object, be_on: Machine, cli: Cli
) -> None:
    here = be_on("a")
    killed(lambda: go(flow), finished=2)
    whole = (here / "r.jsonl").read_bytes()
    damaged = whole.replace(b'"flow"', b'"flaw"')
    (here / "r.jsonl").write_bytes(damaged)

    with pytest.raises(LogDamagedError, match="run `tapps-otel pull RUN`"):
        go(flow)
    assert (here / "r.jsonl").read_bytes() == damaged
    cli("pull", "r")
    assert (here / "r.jsonl").read_bytes() == whole
    assert go(flow) == 6


def leave_hole(path: Path) -> bytes:
    """Lose a block in the last line, as a power cut does; return the lines before it."""
    lines = path.read_bytes().splitlines(keepends=True)
    before = b"".join(lines[:-1])
    path.write_bytes(before + b"\0" * 40 + lines[-1][40:])
    return before


def test_a_hole_whose_lines_the_store_has_is_set_aside(
    database: Database, flow: object, did: Effects, be_on: Machine
) -> None:
    here = be_on("a")
    killed(lambda: go(flow), finished=2)
    before = leave_hole(here / "r.jsonl")

    assert go(flow) == 6
    assert did.all == [f"count {number}" for number in range(4)]
    assert (here / "r.jsonl").read_bytes() == database.log("r")
    (aside,) = here.glob("r.jsonl.aside-*")
    assert aside.read_bytes().startswith(before)


def test_a_hole_far_from_the_end_is_refused_and_replaced_by_hand(
    database: Database, did: Effects, be_on: Machine, cli: Cli
) -> None:
    @step
    def noted(number: int) -> int:
        did.note(f"noted {number}")
        annotate("long", text="x" * 50_000)
        return number

    @workflow
    def long() -> int:
        return sum(noted(number) for number in range(6))

    here = be_on("a")
    killed(lambda: go(long), finished=5)
    path = here / "r.jsonl"
    whole = path.read_bytes()
    hole = whole.index(b'"long"')
    path.write_bytes(whole[:hole] + b"\0" * 512 + whole[hole + 512 :])

    with pytest.raises(LogDamagedError, match=r"never written.*run `tapps-otel pull RUN`"):
        go(long)
    for refusing in (("show", "r"), ("timeline", "r"), ("repair", "r", "--accept-damage")):
        assert "`tapps-otel pull RUN`" in cli(*refusing).err
    assert cli("pull", "r").code == 0
    assert go(long) == 15
    assert did.all == [f"noted {number}" for number in range(6)]
    assert path.read_bytes() == database.log("r")
    assert verify("r").ok


def test_damage_after_all_lines_of_the_store_is_decided_about_as_without_one(
    database: Database, flow: object, be_on: Machine, cli: Cli
) -> None:
    here = be_on("a")
    configure(store=None)
    killed(lambda: go(flow), finished=2)
    leave_hole(here / "r.jsonl")
    configure(store=database.address)

    with pytest.raises(LogDamagedError):
        go(flow)
    assert cli("repair", "r", "--accept-damage").code == 0
    assert go(flow) == 6
    assert (here / "r.jsonl").read_bytes() == database.log("r")


def test_another_file_of_that_name_is_left_alone(
    database: Database, flow: object, be_on: Machine
) -> None:
    be_on("a")
    killed(lambda: go(flow), finished=2)
    there = be_on("b")
    there.mkdir()
    (there / "r.jsonl").write_text("mine\n")

    with pytest.raises(LogDamagedError):
        go(flow)
    assert (there / "r.jsonl").read_text() == "mine\n"
