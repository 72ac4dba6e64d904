"""The command ``list``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from commands import LOGS, Cli
from logs import forge
from tapps_otel.cli.arguments import parse_time
from tapps_otel.log.lease import Lease
from terminals import displayed

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
    assert done.out.splitlines()[2].endswith("failing   RuntimeError: boom")


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
        (["--agent", "reader"], []),
        (["--text", "BOOM"], ["two"]),
        (["--text", "thre"], ["three"]),
        (["--sort", "name"], ["one", "three", "two"]),
        (["--sort", "status", "--last", "2"], ["three", "one"]),
        (["--sort", "workflow", "--reverse"], ["three", "one", "two"]),
        (["--reverse", "--last", "1"], ["one"]),
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


@pytest.mark.usefixtures("runs")
def test_nothing_that_matches_is_not_the_same_as_no_runs(cli: Cli) -> None:
    done = cli("list", "--status", "paused", "--since", "1h")

    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("no run in /")
    assert done.err.endswith(
        " matches --status and --since: `tapps-otel list` shows what there is\n"
    )


def test_runs_are_found_by_an_agent_in_any_of_their_steps(cli: Cli) -> None:
    start = {"event_type": "workflow_start"}
    steps = [{"event_type": "step_start", "step_id": f"s#{at}", "step": "s"} for at in range(9)]
    for name, agent in (("a", "reader"), ("b", "writer")):
        forge(LOGS, name, [start, {**steps[0], "agent": agent}, *steps[1:]])

    assert names(cli("list", "--agent", "writer").out) == ["b"]


def test_steps_durations_and_ages_are_shown(cli: Cli) -> None:
    def at(time: str, kind: str, **fields: str) -> dict[str, str]:
        return {"event_type": kind, "timestamp": f"2026-01-01T{time}.000000000Z", **fields}

    forge(
        LOGS,
        "r",
        [
            at("10:00:00", "workflow_start"),
            at("10:00:00", "step_start", step_id="a", step="a"),
            at("10:00:01", "step_finish", step_id="a", step="a"),
            at("10:00:01", "step_start", step_id="b", step="b"),
            at("10:02:05", "step_fail", step_id="b", step="b"),
        ],
    )
    line = cli("list").out.splitlines()[1]
    data = json.loads(cli("list", "--json").out)[0]

    assert re.fullmatch(
        r"! r +interrupted +\d+ d +2026-01-01 10:02:05 +1/2 +2 min 05 s +- +b", line
    )
    assert (data["steps"], data["steps_done"], data["duration_ns"]) == (2, 1, 125 * 10**9)


def test_a_run_in_progress_is_sorted_by_the_time_that_is_shown(cli: Cli) -> None:
    def at(hour: int, kind: str) -> dict[str, str]:
        return {"event_type": kind, "timestamp": f"2020-01-01T{hour:02d}:00:00.000000000Z"}

    forge(LOGS, "ended", [at(10, "workflow_start"), at(12, "workflow_end")])
    forge(LOGS, "held", [at(10, "workflow_start")])
    lease = Lease(LOGS / "held.lease", "held")
    try:
        shown = cli("list", "--sort", "took").out
        turned = cli("list", "--sort", "took", "--reverse").out
    finally:
        lease.release()

    assert names(shown) == ["held", "ended"]
    assert names(turned) == ["ended", "held"]


def test_steps_of_a_larger_log_are_counted_and_of_a_very_large_one_its_events(cli: Cli) -> None:
    for name, padding in (("large", 20_000), ("larger", 1_000_000)):
        steps = [
            {"event_type": "step_start", "step_id": f"s#{at}", "step": "s", "key": "k" * padding}
            for at in range(5)
        ]
        forge(LOGS, name, [{"event_type": "workflow_start"}, *steps])
    found = {line.split()[1]: line for line in cli("list").out.splitlines()[1:]}

    assert "  0/5  " in found["large"]
    assert "  6 events  " in found["larger"]


@pytest.mark.parametrize("columns", [60, 100, 200])
@pytest.mark.exhaustive
def test_it_fits_the_terminal(cli: Cli, columns: int) -> None:
    error = {"type": "E", "message": "m" * 400}
    for name in ("nightly-20261130T080220-f27431c3", "x"):
        forge(
            LOGS,
            name,
            [
                {"event_type": "workflow_start", "workflow": {"name": "w" * 300}},
                {"event_type": "workflow_end", "status": "failed", "error": error},
            ],
        )
    lines = displayed("list", columns=columns)

    assert lines[0].split()[:3] == ["RUN", "STATUS", "AGE"]
    assert {line.split()[0] for line in lines[1:3]} == {"✗"}  # none was wrapped
    assert not any(lines[3:])
    assert any("nightly-20261130T080220" in line for line in lines)
    assert all("E: mmm" in line for line in lines[1:3])


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
