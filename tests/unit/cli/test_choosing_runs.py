"""How every command finds the run that a person means: by id, by its beginning, or the last."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from commands import LOGS, Cli, command, environment
from logs import forge

# The commands with their other arguments, the exit code, and what only they say of this run.
COMMANDS: dict[str, tuple[list[str], int, str]] = {
    "show": ([], 0, "run       two\n"),
    "timeline": ([], 0, "run       two\n"),
    "watch": (["--no-wait"], 1, "✗ two failed after "),
    "verify": ([], 0, "ok      two  "),
    "repair": (["--accept-damage"], 0, "nothing to repair: two\n"),
    "export": (["-f", "csv"], 0, "RuntimeError,boom,"),
    "resume": (["-q"], 1, "✗ two failed after "),
    "resolve": (["double", "--rerun"], 0, "  next: tapps-otel resume two\n"),
}


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("way", [["two"], ["tw"], ["@last"], ["--last"]])
def test_every_command_finds_the_run(cli: Cli, name: str, way: list[str]) -> None:
    if way == ["tw"]:
        forge(LOGS, "other", [{"event_type": "workflow_start"}])
    else:
        os.utime(LOGS / "two.jsonl")
    rest, code, said = COMMANDS[name]
    done = cli(name, *way, *rest)

    assert done.code == code, done.err
    assert said in done.out + done.err


@pytest.mark.usefixtures("runs")
def test_the_id_itself_comes_before_longer_ones(cli: Cli) -> None:
    forge(LOGS, "one-more", [{"event_type": "workflow_start"}])

    assert cli("show", "one").out.startswith("run       one\n")


@pytest.mark.usefixtures("runs")
def test_a_beginning_of_several_ids_is_refused_and_names_them(cli: Cli) -> None:
    done = cli("resume", "t")

    assert (done.code, done.out) == (2, "")
    assert done.err == "error: several runs begin with 't': three, two. Give more of the id\n"


@pytest.mark.usefixtures("runs")
def test_the_beginning_of_a_name_that_is_no_log_is_not_found(cli: Cli) -> None:
    (LOGS / "foreign.jsonl").write_text('{"hello": 1}\n', "utf-8")

    assert cli("show", "for").code == 3


@pytest.mark.usefixtures("runs")
def test_two_runs_are_found_alike(cli: Cli) -> None:
    os.utime(LOGS / "two.jsonl")

    assert cli("diff", "@last", "thr").code == 1
    assert cli("diff", "@last", "tw").code == 0


def test_there_is_no_last_run_in_an_empty_folder(cli: Cli) -> None:
    done = cli("show", "@last")

    assert done.code == 3
    assert "no run '@last' in " in done.err


@pytest.mark.usefixtures("runs")
def test_the_step_may_follow_the_last_run(cli: Cli) -> None:
    os.utime(LOGS / "two.jsonl")

    assert cli("show", "--last", "double").out.startswith("step      double\nrun       two\n")
    assert cli("show", "@last", "double").out.startswith("step      double\nrun       two\n")


def offered(*words: str, **more: str) -> list[str]:
    """What bash offers for the last of these words."""
    typed = {"COMP_WORDS": " ".join(["tapps-otel", *words]), "COMP_CWORD": str(len(words))}
    env = environment(_TAPPS_OTEL_COMPLETE="complete_bash", **typed, **more)
    done = subprocess.run(command(), env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.usefixtures("runs")
@pytest.mark.slow
def test_a_shell_completes_runs(tmp_path: Path) -> None:
    assert offered("show", "t") == ["three", "two"]
    assert offered("show", "") == ["three", "two", "one", "@last"]
    assert offered("show", "@") == ["@last"]
    assert offered("show", "--log-dir", str(tmp_path / "empty"), "t") == []
    assert offered("show", "t", TAPPS_OTEL_DURABILITY="wrong") == []
