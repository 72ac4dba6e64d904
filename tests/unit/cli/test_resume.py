"""The command ``resume``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

import programs
from commands import LOGS, Cli, child, environment
from tapps_otel import list_runs

pytestmark = pytest.mark.slow  # most of them start processes

SCRIPT = """
import os
from tapps_otel import step, workflow


class Refused(Exception):
    pass


@step
def ask() -> str:
    raise Refused("no")


@step
def note(text: str) -> str:
    if os.environ.get("DIE"):
        os._exit(9)
    return text


@workflow
def flow() -> str:
    try:
        return ask()
    except Refused as error:
        return note(f"refused: {error}")


if __name__ == "__main__":
    flow.options(workflow_id="r")()
"""


def test_a_failed_run_is_resumed_with_its_inputs(cli: Cli, flow: Path) -> None:
    cli("run", "flow.py:failing", "--id", "a", "-i", '["why"]')
    flow.write_text(
        flow.read_text("utf-8").replace("raise RuntimeError(message)", "return message")
    )
    done = child("resume", "a")

    assert (done.code, done.out) == (0, '"why"\n')
    assert Path("double.txt").read_text("utf-8") == "x"


def test_a_run_is_resumed_from_another_directory(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("run", "flow.py:small", "--id", "a")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    refused = child("resume", "a", "--log-dir", f"../{LOGS}")
    assert refused.code == 5
    assert f"{tmp_path / 'flow.py'}, which is outside the current project" in refused.err
    assert child("resume", "a", "--log-dir", f"../{LOGS}", "--trust").out == "2\n"


def test_the_last_run_is_resumed(cli: Cli) -> None:
    cli("run", "flow.py:small", "--id", "a")
    cli("run", "flow.py:small", "--id", "b", "-i", "[7]")

    assert cli("resume", "--last").out == "14\n"


@pytest.mark.usefixtures("shop")
def test_a_resume_shows_only_what_is_new() -> None:
    Path("paid.txt").touch()
    cleared = child("resolve", "s", "pay", "--rerun")
    done = child("resume", "s")

    assert cleared.code == 0
    assert (done.code, done.out) == (0, '"paid"\n')
    assert "double" not in done.err
    assert "! pay  was in progress when its process ended\n✓ pay  " in done.err


def test_changed_inputs_of_a_step_are_refused(cli: Cli) -> None:
    cli("run", "flow.py:clock", "--id", "a")
    done = cli("resume", "a")

    assert done.code == 5
    assert done.err.count("error: step 'double' was called with other inputs") == 1


@pytest.mark.usefixtures("shop")
def test_an_interrupted_payment_is_refused() -> None:
    done = child("resume", "s")

    assert done.code == 5
    assert "tapps-otel resolve s pay --result JSON" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody"], 3, "no run 'nobody' in "),
        (["--last"], 3, "no run '@last' in "),
        ([], 2, "give the id of a run, or --last"),
        (["a", "--last"], 2, "give the id of a run, or --last"),
        (["a/b"], 2, "cannot be a run id"),
    ],
)
def test_errors_of_resume(cli: Cli, arguments: list[str], code: int, said: str) -> None:
    done = cli("resume", *arguments)

    assert done.code == code
    assert done.err.startswith(f"error: {said}" if code == 3 else "error: ")
    assert said in done.err


def test_a_run_whose_workflow_is_gone_cannot_be_resumed(cli: Cli, flow: Path) -> None:
    cli("run", "flow.py:failing", "--id", "a")
    flow.unlink()
    done = child("resume", "a")

    assert done.code == 5
    assert "error: run 'a': cannot import 'failing'" in done.err


def test_a_damaged_log_is_not_resumed(cli: Cli) -> None:
    cli("run", "flow.py:failing", "--id", "a")
    path = LOGS / "a.jsonl"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"double"', b'"treble"', 1))
    done = cli("resume", "a")

    assert done.code == 6
    assert "damaged at byte " in done.err
    assert "tapps-otel repair" in done.err
    assert "✓" not in done.err


def test_a_run_of_a_script_is_resumed_down_the_same_branch() -> None:
    """Its classes are those of ``__main__`` first, and of a module of its own then."""
    Path("script.py").write_text(SCRIPT)
    dying = environment(DIE="1")
    assert programs.run([sys.executable, "script.py"], env=dying, check=False).returncode == 9

    resumed = child("resume", "r")
    assert resumed.code == 0, resumed.err
    assert "refused: no" in resumed.out


CALLING = """
import os, signal
from pathlib import Path
from tapps_otel import step, workflow

@step
def work() -> int:
    if not Path("again").exists():
        Path("again").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 1

@workflow
def inner() -> int:
    return work()

@workflow
def outer() -> int:
    return 1 + inner.options(workflow_id="i")()
"""


def test_the_last_run_is_resumed_by_the_run_that_called_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "flow_calling.py").write_text(CALLING)
    assert child("run", "flow_calling.py:outer", "--id", "o", "-q").code == -signal.SIGKILL
    assert [(run.workflow_id, run.parent) for run in list_runs()] == [("i", "o"), ("o", None)]

    assert cli("resume", "--last", "-q").out == "2\n"
    assert {run.status for run in list_runs()} == {"completed"}


def test_a_last_run_whose_caller_is_not_here_is_resumed_itself(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "flow_calling.py").write_text(CALLING)
    child("run", "flow_calling.py:outer", "--id", "o", "-q")
    (LOGS / "o.jsonl").unlink()

    assert cli("resume", "--last", "-q").out == "1\n"
