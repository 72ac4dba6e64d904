"""The command ``repair``."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import LOGS, Cli, child

pytestmark = pytest.mark.slow  # most of them start processes


def test_accepted_damage_is_declared_and_the_run_can_be_resumed(cli: Cli, shop: Path) -> None:
    data = shop.read_bytes()
    shop.write_bytes(data + b"junk\nmore\n")
    refused = cli("resume", "s")
    done = cli("repair", "s", "--accept-damage")
    checked = cli("verify", "s")

    assert refused.code == 6
    assert done.code == 0
    assert f"declared 10 bytes at byte {len(data)} as damaged, in seq 5" in done.out
    assert shop.read_bytes().startswith(data + b"junk\nmore\n")
    assert checked.code == 0
    assert f"declared damage: 10 bytes at byte {len(data)}" in checked.out
    assert cli("show", "s").code == 0


def test_damage_in_the_middle_takes_what_follows_with_it(cli: Cli) -> None:
    cli("run", "flow.py:small", "--id", "a")
    path = LOGS / "a.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"double"', b'"treble"', 1))
    done = cli("repair", "a", "--accept-damage")

    assert done.code == 0
    assert child("resume", "a").out.endswith("2\n")
    assert Path("double.txt").read_text("utf-8") == "xx"


def test_an_intact_log_needs_no_repair(cli: Cli) -> None:
    cli("run", "flow.py:small", "--id", "a")
    before = (LOGS / "a.jsonl").read_bytes()

    assert cli("repair", "a", "--accept-damage").out == "nothing to repair: a\n"
    assert (LOGS / "a.jsonl").read_bytes() == before


def test_repair_needs_accept_damage(cli: Cli, shop: Path) -> None:
    shop.write_bytes(shop.read_bytes() + b"junk\nmore\n")
    before = shop.read_bytes()
    done = cli("repair", "s")

    assert (done.code, shop.read_bytes()) == (2, before)
    assert cli("repair", "nobody", "--accept-damage").code == 3
    assert not (LOGS / "nobody.lease").exists()


def test_a_log_of_a_newer_format_is_not_repaired(cli: Cli) -> None:
    LOGS.mkdir(parents=True)
    (LOGS / "new.jsonl").write_bytes(b'{"v":2,"seq":1,"event_type":"x"}\n')

    assert cli("repair", "new", "--accept-damage").code == 6
