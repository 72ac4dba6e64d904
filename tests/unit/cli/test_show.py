"""The command ``show``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from commands import LOGS, Cli, child
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


CALLING = """
from tapps_otel import step, workflow

@step
def work(number: int) -> int:
    return number

@workflow
def inner(number: int) -> int:
    return work(number)

@workflow
def outer(count: int) -> int:
    return sum(inner.options(workflow_id=f"i{number}")(number) for number in range(count))
"""


def test_a_run_leads_to_its_child_runs_and_they_lead_back(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "flow_calling.py").write_text(CALLING)
    cli("run", "flow_calling.py:outer", "-i", "[5]", "--id", "o", "--log-dir", "here")
    around = cli("show", "o", "--log-dir", "here").out

    assert "  ✓ inner#2  " in around
    assert "  run i1\n" in around
    command = next(line for line in around.splitlines() if line.startswith("child")).split()[1:]
    assert command == ["tapps-otel", "show", "i0", "--log-dir", "here"]
    assert "and 2 more child runs\n" in around
    inside = cli(*command[1:]).out
    assert "called by step inner of run o\n" in inside
    assert "parent    tapps-otel show o --log-dir here\n" in inside
    shown = json.loads(cli(*command[1:], "--json").out)
    assert shown["parent"]["workflow_id"] == "o"


def test_a_child_run_in_another_folder_is_shown_by_the_command_that_names_it(
    cli: Cli, tmp_path: Path
) -> None:
    here = CALLING.replace('f"i{number}")', 'f"i{number}", log_dir="far away")')
    (tmp_path / "flow_far.py").write_text(here)
    cli("run", "flow_far.py:outer", "-i", "[1]", "--id", "o", "--log-dir", "here")
    far = f"'{tmp_path / 'far away'}'"

    around = cli("show", "o", "--log-dir", "here").out
    assert f"child     tapps-otel show i0 --log-dir {far}\n" in around
    inside = cli("show", "i0", "--log-dir", "far away").out
    assert f"parent    tapps-otel show o --log-dir {tmp_path / 'here'}\n" in inside


LOSING = """
from tapps_otel import step, workflow


@step
def read() -> str:
    error = OSError("unreadable")
    error.file = open(__file__)
    error.file.close()
    raise error


@step
def note(text: str) -> str:
    return text


@workflow
def main() -> str:
    try:
        return read()
    except OSError as error:
        note(str(error))
        raise RuntimeError("no") from None
"""


def test_what_a_failure_has_lost_is_shown(cli: Cli) -> None:
    Path("flow_losing.py").write_text(LOSING, "utf-8")
    cli("run", "flow_losing.py:main", "--id", "a", "-q")
    shown = cli("show", "a").out
    (read, _) = json.loads(cli("show", "a", "--json").out)["steps"]

    assert read["lost"] == {"file": "an object of class _io.TextIOWrapper"}
    assert "\nlost  file  of read  an object of class _io.TextIOWrapper\nnot in the log: " in shown


STORED = """
import os

from tapps_otel import step, workflow


@step
def price() -> int:
    return 3


@step
def guess() -> str:
    open("guessed.txt", "w").close()
    return "about 3"


@workflow
def main() -> str:
    try:
        found = str(price())
    except Exception:
        found = guess()
    if not os.path.exists("ready.txt"):
        raise RuntimeError("not yet")
    return found
"""


def test_a_result_that_no_longer_fits_stops_a_resume_and_show_says_so(cli: Cli) -> None:
    """No handler of the workflow hides that: it would take another way than before."""
    flow = Path("flow_stored.py")
    flow.write_text(STORED, "utf-8")
    cli("run", "flow_stored.py:main", "--id", "a", "-q")
    flow.write_text(STORED.replace("int:\n    return 3", 'str:\n    return "4"'), "utf-8")
    Path("ready.txt").touch()
    refused = child("resume", "a")

    assert refused.code == 5
    assert "`tapps-otel resolve a price --rerun`" in refused.err
    assert not Path("guessed.txt").exists()
    assert cli("show", "a").out.endswith("next      tapps-otel resolve a price --rerun\n")
    assert "resume    refused until price is resolved\n" in cli("show", "a").out

    assert cli("resolve", "a", "price", "--rerun").code == 0
    assert cli("show", "a").out.endswith("next      tapps-otel resume a\n")
    assert child("resume", "a").out == '"4"\n'
