"""Which code a log may make a resume run: that of the project, and what the user agrees to."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

import programs
from commands import Done, child, command, environment

pytestmark = pytest.mark.slow  # most of them start processes

FLOW = """
from pathlib import Path

from tapps_otel import step, workflow

Path("imported").touch()


@step
def work() -> int:
    if not Path("again").exists():
        Path("again").touch()
        raise RuntimeError("once more")
    return 1


@workflow
def flow() -> int:
    return work()
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a file outside the project; the working directory is in the project."""
    other, project = tmp_path / "other", tmp_path / "project"
    other.mkdir()
    (project / "inside").mkdir(parents=True)
    (project / "pyproject.toml").touch()
    (other / "flow.py").write_text(FLOW, "utf-8")
    monkeypatch.chdir(project / "inside")
    assert child("run", f"{other}/flow.py:flow", "--id", "r", "-q").code == 1
    Path("imported").unlink()
    return other


def answered(answer: str) -> tuple[int, str]:
    """Resume on a terminal, where this is typed."""
    ours, theirs = pty.openpty()
    with programs.Popen(
        command("resume", "r", "-q"),
        env=environment(TERM="dumb"),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as process:
        os.close(theirs)
        os.write(ours, answer.encode())
        asked = _read(ours)
        out = process.stdout.read() if process.stdout else ""
        process.wait(timeout=60)
    os.close(ours)
    return process.returncode, out + asked


def _read(descriptor: int) -> str:
    read = bytearray()
    try:
        while block := os.read(descriptor, 65536):
            read += block
    except OSError:  # on Linux: the other side is closed
        pass
    return read.decode()


def test_no_question_is_answered_without_consent(elsewhere: Path) -> None:
    (elsewhere / "asks.py").write_text(
        "from tapps_otel import pause, workflow\n"
        "@workflow\n"
        "def asks() -> str:\n"
        "    return str(pause('Really?', type=bool))\n"
    )
    child("run", f"{elsewhere}/asks.py:asks", "--id", "a", "-q")
    refused = child("resume", "a", "--answer", "true", "-q")
    agreed = child("resume", "a", "--answer", "false", "--trust", "-q")

    assert (refused.code, "--trust" in refused.err) == (5, True)
    assert (agreed.code, agreed.out) == (0, '"False"\n')


def test_code_outside_the_project_is_not_run_without_consent(elsewhere: Path) -> None:
    done = child("resume", "r", "-q")

    assert done.code == 5
    assert f"{elsewhere / 'flow.py'}, which is outside the current project" in done.err
    assert "--trust" in done.err
    assert "TAPPS_OTEL_TRUST" in done.err
    assert not Path("imported").exists()


@pytest.mark.parametrize("way", ["--trust", "TAPPS_OTEL_TRUST", "a target"])
def test_it_is_run_if_the_user_says_so(way: str, elsewhere: Path) -> None:
    done: Done
    if way == "--trust":
        done = child("resume", "r", "-q", "--trust")
    elif way == "a target":
        done = child("resume", "r", f"{elsewhere}/flow.py:flow", "-q")
    else:
        done = child("resume", "r", "-q", TAPPS_OTEL_TRUST=str(elsewhere))

    assert (done.code, done.out) == (0, "1\n")


def test_on_a_terminal_the_user_is_asked(elsewhere: Path) -> None:
    code, asked = answered("n\n")
    assert code == 5
    assert "outside the current project" in asked
    assert str(elsewhere / "flow.py") in asked
    assert not Path("imported").exists()

    code, asked = answered("y\n")
    assert code == 0, asked
    assert asked.startswith("1\n")


def test_a_link_inside_the_project_does_not_make_code_its_own(elsewhere: Path) -> None:
    link = Path("linked")
    link.symlink_to(elsewhere)
    Path("again").unlink()
    assert child("run", "linked/flow.py:flow", "--id", "s", "-q").code == 1
    done = child("resume", "s", "-q")

    assert done.code == 5
    assert "outside the current project" in done.err


def test_code_above_the_working_directory_is_of_the_project() -> None:
    Path("pyproject.toml").touch()
    Path("flow.py").write_text(FLOW, "utf-8")
    Path("inside").mkdir()
    assert child("run", "flow.py:flow", "--id", "r", "-q").code == 1
    Path("inside/again").touch()
    done = programs.run(
        command("resume", "r", "-q", "--log-dir", "../.tapps-agents/workflow-state/events"),
        cwd="inside",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "1\n")


PAUSES = """
from tapps_otel import pause, workflow


@workflow
def asks() -> bool:
    return pause("Sure?", type=bool)
"""


def test_a_run_that_waits_is_neither_answered_nor_resumed_by_code_that_is_not_trusted(
    elsewhere: Path,
) -> None:
    (elsewhere / "pauses.py").write_text(PAUSES, "utf-8")
    child("run", f"{elsewhere}/pauses.py:asks", "--id", "waits", "-q")
    together = child("resume", "waits", "--answer", "true")
    answered = child("answer", "waits", "--json", "true")
    due = child("resume", "--due")
    trusted = child("resume", "--due", "--trust", "-q")

    assert (together.code, "nothing was run" in together.err) == (5, True)
    assert answered.code == 0  # it was not before
    assert (due.code, "nothing was run" in due.err) == (5, True)
    assert (trusted.code, trusted.out) == (0, "true\n")
