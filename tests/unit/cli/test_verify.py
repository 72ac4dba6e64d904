"""The command ``verify``."""

from __future__ import annotations

import json

import pytest

from commands import LOGS, Cli


@pytest.mark.usefixtures("runs")
def test_an_intact_log_is_ok_and_its_head_is_shown(cli: Cli) -> None:
    done = cli("verify", "one")
    head = json.loads((LOGS / "one.jsonl").read_bytes().splitlines()[-1])

    assert done.code == 0
    assert done.out == f"ok      one  {head['seq']} events, head {head['sha']}\n"
    assert json.loads(cli("verify", "one", "--json").out)["sha"] == head["sha"]


@pytest.mark.usefixtures("runs")
def test_damage_is_found_with_its_place(cli: Cli) -> None:
    path = LOGS / "one.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"double"', b'"treble"', 1))
    done = cli("verify", "one")
    found = json.loads(cli("verify", "one", "--json").out)

    assert done.code == 1
    assert done.out.startswith("damaged one  1 event, head ")
    assert "where seq 2 was expected: the line's sha does not match" in done.out
    assert not found["ok"]


@pytest.mark.usefixtures("runs")
def test_all_runs_are_verified(cli: Cli) -> None:
    (LOGS / "newer.jsonl").write_bytes(b'{"v":2,"seq":1,"event_type":"x"}\n')
    (LOGS / "folder.jsonl").mkdir()
    done = cli("verify", "--all")
    found = json.loads(cli("verify", "--all", "--json").out)

    assert done.code == 1
    assert {line.split()[1] for line in done.out.splitlines() if line[0] != " "} == {
        "one", "two", "three", "newer", "folder",
    }  # fmt: skip
    assert {one["workflow_id"] for one in found if one["ok"]} == {"one", "two", "three"}


def test_verify_needs_a_run_or_all(cli: Cli) -> None:
    assert cli("verify").code == 2
    assert cli("verify", "one", "--all").code == 2
    assert cli("verify", "--all").err.startswith("no runs in ")
