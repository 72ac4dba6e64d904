"""The command ``list``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import Cli
from tapps_otel.cli.arguments import parse_time

DAY = 86_400 * 10**9


def names(text: str) -> list[str]:
    """The run column of a list."""
    return [line.split()[1] for line in text.splitlines()[1:]]


@pytest.mark.usefixtures("runs")
def test_runs_are_listed_newest_first_with_their_status(cli: Cli) -> None:
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
def test_a_list_that_is_cut_says_that_there_are_more(cli: Cli) -> None:
    assert "only the last 2 runs: --last N shows more" in cli("list", "--last", "2").err
    assert cli("list", "--last", "3").err == ""


@pytest.mark.usefixtures("runs")
def test_runs_are_listed_as_json(cli: Cli) -> None:
    found = json.loads(cli("list", "--json", "--last", "2").out)

    assert [one["workflow_id"] for one in found] == ["three", "two"]
    assert found[1]["status"] == "failed"


def test_no_runs_are_reported_on_standard_error(cli: Cli) -> None:
    assert cli("list").err.startswith("no runs in /")
    assert cli("list", "--json").out == "[]\n"


@pytest.mark.parametrize("text", ["yesterday", "", "5", "2h ago", "-1h", "9999999999s"])
def test_an_invalid_time_is_refused(cli: Cli, text: str) -> None:
    done = cli("list", f"--since={text}")

    assert done.code == 2
    assert "is not a time" in done.err


def test_spans_of_time_reach_back_from_now() -> None:
    assert parse_time("1w") == pytest.approx(parse_time("7d"), abs=10**9)
    assert parse_time("24h") - parse_time("2d") == pytest.approx(DAY, abs=10**9)
    assert parse_time("60m") == pytest.approx(parse_time("3600s"), abs=10**9)


def test_a_file_instead_of_the_folder_is_one_line(cli: Cli) -> None:
    Path("file").touch()
    done = cli("list", "--log-dir", "file")

    assert (done.code, done.err) == (
        6,
        "error: " + str(Path("file").absolute()) + ": Not a directory\n",
    )
