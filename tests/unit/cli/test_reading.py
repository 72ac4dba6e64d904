from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from commands import LOGS, Cli, command, environment
from tapps_otel.cli.arguments import parse_time as moment
from tapps_otel.log.lease import Lease

DAY = 86_400 * 10**9


@pytest.fixture
def runs(cli: Cli) -> None:
    """Three runs: completed, failed, completed."""
    cli("run", "flow.py:small", "--id", "one")
    cli("run", "flow.py:failing", "--id", "two")
    cli("run", "flow.py:wide", "--id", "three")
    for age, name in enumerate(("three", "two", "one")):
        at = 1_763_000_000 - 3600 * age
        os.utime(LOGS / f"{name}.jsonl", (at, at))


def names(text: str) -> list[str]:
    """The run column of a list."""
    return [line.split()[1] for line in text.splitlines()[1:]]


# ---------------------------------------------------------------- list


@pytest.mark.usefixtures("runs")
def test_runs_are_listed_newest_first_with_how_they_stand(cli: Cli) -> None:
    done = cli("list")

    assert done.code == 0
    assert names(done.out) == ["three", "two", "one"]
    assert done.out.splitlines()[2].startswith("✗ two    failed ")
    assert done.out.splitlines()[3].endswith("small     double")


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--status", "completed"], ["three", "one"]),
        (["--workflow", "failing"], ["two"]),
        (["--last", "1"], ["three"]),
        (["-n", "0"], ["three", "two", "one"]),
        (["--since", "2025-11-13"], ["three", "two", "one"]),
        (["--since", "2025-11-13T01:00"], ["three", "two"]),
        (["--since", "2025-11-13T03:00+01:00"], ["three"]),
        (["--since", "1s"], []),
    ],
)
def test_runs_are_filtered(cli: Cli, arguments: list[str], found: list[str]) -> None:
    assert names(cli("list", *arguments).out) == found


@pytest.mark.usefixtures("runs")
def test_that_there_are_more_is_said(cli: Cli) -> None:
    assert "only the last 2 runs: --last N shows more" in cli("list", "--last", "2").err
    assert cli("list", "--last", "3").err == ""


@pytest.mark.usefixtures("runs")
def test_runs_are_listed_as_json(cli: Cli) -> None:
    found = json.loads(cli("list", "--json", "--last", "2").out)

    assert [one["workflow_id"] for one in found] == ["three", "two"]
    assert found[1]["status"] == "failed"


def test_no_runs_is_said_on_standard_error(cli: Cli) -> None:
    assert cli("list").err.startswith("no runs in /")
    assert cli("list", "--json").out == "[]\n"


@pytest.mark.parametrize("text", ["yesterday", "", "5", "2h ago", "-1h", "9999999999s"])
def test_a_time_that_is_none_is_refused(cli: Cli, text: str) -> None:
    done = cli("list", f"--since={text}")

    assert done.code == 2
    assert "is not a time" in done.err


def test_spans_of_time_reach_back_from_now() -> None:
    assert moment("1w") == pytest.approx(moment("7d"), abs=10**9)
    assert moment("24h") - moment("2d") == pytest.approx(DAY, abs=10**9)
    assert moment("60m") == pytest.approx(moment("3600s"), abs=10**9)


def test_a_file_where_the_folder_should_be_is_one_line(cli: Cli) -> None:
    Path("file").touch()
    done = cli("list", "--log-dir", "file")

    assert (done.code, done.err) == (
        6,
        "error: " + str(Path("file").absolute()) + ": Not a directory\n",
    )


# ---------------------------------------------------------------- show


@pytest.mark.usefixtures("runs")
def test_a_runs_history_is_shown(cli: Cli) -> None:
    done = cli("show", "two")

    assert (done.code, done.err) == (0, "")
    assert "status    failed\n" in done.out
    assert "error     RuntimeError: boom\n" in done.out
    assert "✓ execution 1" not in done.out
    assert "✗ execution 1" in done.out
    assert "  ✓ double  " in done.out
    assert (
        "resume    continues after the last step; 1 completed step will not run again" in done.out
    )
    assert done.out.endswith("next      tapps-otel resume two\n")


@pytest.mark.usefixtures("runs")
def test_a_completed_run_has_no_next_command(cli: Cli) -> None:
    done = cli("show", "one")

    assert "result    2\n" in done.out
    assert "next" not in done.out


@pytest.mark.usefixtures("runs")
def test_a_history_is_shown_as_json(cli: Cli) -> None:
    shown = json.loads(cli("show", "two", "--json").out)

    assert shown["status"] == "failed"
    assert shown["steps"][0]["result"] == 2
    assert shown["holder"] is None
    assert shown["log"] == {
        "path": str((LOGS / "two.jsonl").absolute()),
        "problem": None,
        "unfinished": None,
    }


@pytest.mark.usefixtures("runs")
def test_who_carries_a_run_on_is_shown(cli: Cli) -> None:
    lease = Lease(LOGS / "two.lease", "two")
    try:
        shown = cli("show", "two").out
        held = json.loads(cli("show", "two", "--json").out)["holder"]
    finally:
        lease.release()

    assert f"now       in progress in process {os.getpid()} on " in shown
    assert "next" not in shown
    assert held["pid"] == os.getpid()


@pytest.mark.usefixtures("runs")
def test_a_log_with_an_unfinished_end_is_shown(cli: Cli) -> None:
    path = LOGS / "one.jsonl"
    path.write_bytes(path.read_bytes()[:-100])
    done = cli("show", "one")

    assert done.code == 0
    assert "status    interrupted" in done.out
    assert "an unfinished line (no damage)" in done.out


@pytest.mark.usefixtures("runs")
def test_a_damaged_log_is_shown_as_far_as_it_goes(cli: Cli) -> None:
    path = LOGS / "one.jsonl"
    path.write_bytes(path.read_bytes() + b"junk\njunk\n")
    done = cli("show", "one")

    assert done.code == 1
    assert "✓ double" in done.out
    assert "next" not in done.out
    assert "damaged at byte " in done.err
    assert "damaged at byte " in json.loads(cli("show", "one", "--json").out)["log"]["problem"]


@pytest.mark.parametrize("name", ["show", "verify"])
def test_a_run_that_is_not_there_is_not_found(cli: Cli, name: str) -> None:
    LOGS.mkdir(parents=True)
    (LOGS / "foreign.jsonl").write_text('{"hello": 1}\n', "utf-8")

    assert cli(name, "nobody").code == 3
    assert cli(name, "foreign").code == 3
    assert cli(name, "../nobody").code == 2


# ---------------------------------------------------------------- verify


@pytest.mark.usefixtures("runs")
def test_a_whole_log_is_ok_and_its_head_is_said(cli: Cli) -> None:
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


def test_verify_wants_a_run_or_all(cli: Cli) -> None:
    assert cli("verify").code == 2
    assert cli("verify", "one", "--all").code == 2
    assert cli("verify", "--all").err.startswith("no runs in ")


# ---------------------------------------------------------------- schema, pipes


def test_the_schema_is_json_schema(cli: Cli) -> None:
    assert json.loads(cli("schema").out)["$schema"].endswith("2020-12/schema")


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("arguments", [["list"], ["show", "one", "--json"], ["schema"]])
def test_a_reader_that_goes_away_is_no_error(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen(
        command(*arguments), env=environment(), stdout=write, stderr=subprocess.PIPE
    ) as one:
        os.close(write)
        _, said = one.communicate(timeout=20)

    assert (one.returncode, said) == (141, b"")
