"""Every code block of the documentation runs, and prints what the page says that it prints.

The blocks of a page run in their order, in one folder. In a page

- a ``python`` block is a file, named by a comment in its first line (else ``example.py``), and is
  run by Python, unless a later ``console`` block of the page runs it; the ``text`` block after it
  is its output. After ``<!-- notebook -->`` IPython runs it, as a notebook does;
- a ``console`` block holds commands after ``$`` and their output;
- an ``sh`` block holds commands that succeed; their output is not shown;
- other blocks are data, which a table or another test checks.

Outputs are compared with their times, ids and process numbers left out; a line ``...`` is any
number of lines, and ``...`` in a line any text.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from commands import environment
from documents import Block, Page, pages
from otlp_collector import Collector

PAGES = [page for page in pages() if any(True for _ in page.blocks())]
# Marks of blocks that do not run here, and who runs them.
ELSEWHERE = {
    "run": ".ci/run",
    "test": ".ci/run",
    "needs Docker": "the same commands with `collector/stack.sh` are tested in tests/e2e",
    "needs PostgreSQL": "tests/postgres/test_resume_elsewhere.py",
    "needs Go": "tests/e2e/test_stack_script.py",
    "needs the network": ".ci/run",
}
VARYING = [
    (r"\d{4}-\d\d-\d\d", "DATE"),
    (r"\d\d:\d\d:\d\d(\.\d+)?", "TIME"),
    (r"\b[\d.]+ (us|ms|s|min|h)\b", "DURATION"),
    (r"\b[\d.]+s\b", "DURATION"),
    (r"\b\d{8}T\d{6}-[0-9a-f]{8}\b", "ID"),
    (r"\b[0-9a-f]{16,64}\b", "HEX"),
    (r"process \d+ on \S+", "PROCESS"),
    (r"[ \t]+", " "),
]


def comparable(text: str) -> list[str]:
    """Lines without what differs from run to run, and from machine to machine."""
    text = text.replace(str(Path.cwd()), "/home/you/project")
    for pattern, name in VARYING:
        text = re.sub(pattern, name, text)
    return [line.strip() for line in text.strip().splitlines()]


def matches(shown: list[str], real: list[str]) -> bool:
    """Whether the lines that a page shows are those that were printed."""
    if not shown:
        return not real
    if shown[0] == "...":
        return any(matches(shown[1:], real[at:]) for at in range(len(real) + 1))
    if not real:
        return False
    pattern = ".*".join(re.escape(part) for part in shown[0].split("..."))
    return re.fullmatch(pattern, real[0]) is not None and matches(shown[1:], real[1:])


def check_output(place: str, shown: str, real: str) -> None:
    expected, printed = comparable(shown), comparable(real)

    assert matches(expected, printed), (
        f"{place} shows\n{os.linesep.join(expected)}\n\nprinted was\n{os.linesep.join(printed)}"
    )


class Reader:
    """A person who types what a page says, in one folder."""

    def __init__(self, collector: Collector | None) -> None:
        self._collector = collector
        bin_folder = Path(sys.executable).parent
        self._env = environment(
            PATH=f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            IPYTHONDIR=str(Path.cwd() / ".ipython"),
            PYTHONWARNINGS="ignore",
            COLUMNS="100",
        )

    def follow(self, block: Block, later: list[Block]) -> None:
        """Do what a block says."""
        if block.language == "python":
            Path(block.file).write_text(block.text, "utf-8")
            if not _runs_later(block, later):
                self._python(block)
        elif block.language == "yaml":
            Path(block.file).write_text(block.text, "utf-8")
        elif block.language == "console":
            self._console(block)
        elif block.language == "sh":
            done = self._shell(f"set -e\n{block.text}")
            assert done.returncode == 0, f"{block.place}: {done.stdout}{done.stderr}"

    def _python(self, block: Block) -> None:
        program = [sys.executable, block.file]
        if block.mark == "notebook":
            Path("cell.ipy").write_text(block.text, "utf-8")
            program = [
                sys.executable,
                "-m",
                "IPython",
                "--no-banner",
                "--colors=NoColor",
                "cell.ipy",
            ]
        done = self._shell(shlex.join(program))
        assert done.returncode == 0, f"{block.place}: {done.stderr}"
        check_output(block.place, block.output, done.stdout)

    def _console(self, block: Block) -> None:
        for typed in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            lines = typed.splitlines(keepends=True)
            taken = 1
            while lines[taken - 1].endswith("\\\n"):
                taken += 1
            shown = "".join(lines[taken:])
            done = self._shell(f"({''.join(lines[:taken]).strip()}) 2>&1")
            killed = done.returncode == 128 + 9
            printed = done.stdout + ("Killed\n" if killed else "")  # as a shell says it to a person
            check_output(f"{block.place}: {lines[0].strip()}", shown, printed)
            failed = done.returncode != 0 and not killed
            assert not failed or "error: " in shown or "failed" in shown, block.place

    def _shell(self, script: str) -> subprocess.CompletedProcess[str]:
        if self._collector is not None:
            script = script.replace("http://localhost:4317", self._collector.grpc)
        return subprocess.run(
            ["bash", "-c", script],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def _runs_later(block: Block, later: list[Block]) -> bool:
    return any(block.file in one.text for one in later if one.language == "console")


def _package_is_there(block: Block) -> bool:
    needed = re.fullmatch(r"needs the package (\w+)", block.mark or "")
    return needed is None or find_spec(needed[1]) is not None


@pytest.mark.timeout(900)  # one of the pages has a recipe of 10 000 files
@pytest.mark.exhaustive
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_page_runs(page: Page, request: pytest.FixtureRequest) -> None:
    blocks = [block for block in page.blocks() if block.mark not in ELSEWHERE]
    sends = any("localhost:4317" in block.text for block in blocks)
    reader = Reader(request.getfixturevalue("collector") if sends else None)
    for at, block in enumerate(blocks):
        if _package_is_there(block):
            reader.follow(block, blocks[at + 1 :])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_runs_elsewhere_is_set_up(page: Page) -> None:
    left_out = [block for block in page.blocks() if block.mark in ELSEWHERE]

    assert all(
        re.match(r"(python3 -m venv|mkdir|docker|collector/stack\.sh|pip install)", block.text)
        for block in left_out
    ), [block.place for block in left_out]
