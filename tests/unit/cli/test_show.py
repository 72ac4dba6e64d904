"""The command ``show``."""

from __future__ import annotations

import json
import os

import pytest

from commands import LOGS, Cli
from tapps_otel.log.lease import Lease


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
def test_the_process_of_a_run_in_progress_is_shown(cli: Cli) -> None:
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
def test_a_damaged_log_is_shown_up_to_the_damage(cli: Cli) -> None:
    path = LOGS / "one.jsonl"
    path.write_bytes(path.read_bytes() + b"junk\njunk\n")
    done = cli("show", "one")

    assert done.code == 1
    assert "✓ double" in done.out
    assert "next" not in done.out
    assert "damaged at byte " in done.err
    assert "damaged at byte " in json.loads(cli("show", "one", "--json").out)["log"]["problem"]
