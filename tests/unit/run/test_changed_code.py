"""A completed run whose code was changed since: its log answers, with a warning."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crashes import die_at, go, killed
from tapps_otel import resume, workflow

Log = Callable[..., list[dict[str, Any]]]


def first_code() -> Any:
    @workflow
    def flow() -> str:
        die_at("first")
        return "first"

    return flow


def second_code() -> Any:
    @workflow
    def flow() -> str:
        return "second"

    return flow


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "tapps_otel")
    return lambda: [one.getMessage() for one in caplog.records if one.name == "tapps_otel"]


def test_a_completed_run_of_other_code_is_answered_with_a_warning(
    warnings: Callable[[], list[str]],
) -> None:
    assert go(first_code()) == "first"
    assert warnings() == []

    assert go(second_code()) == "first"
    (warning,) = warnings()
    assert warning.startswith("run 'r' completed before the code of workflow 'flow' was changed")
    assert "choose another id" in warning
    assert go(second_code(), workflow_id="s") == "second"


def test_the_same_code_in_another_layout_is_not_warned_of(
    warnings: Callable[[], list[str]],
) -> None:
    go(first_code())

    @workflow
    def flow() -> str:
        """Have a docstring, which the first one had not."""
        die_at("first")

        return "first"  # and a comment

    assert go(flow) == "first"
    assert warnings() == []


def test_an_interrupted_run_is_resumed_by_other_code_without_a_word(
    warnings: Callable[[], list[str]],
) -> None:
    killed(lambda: go(first_code()), at="first")

    assert go(second_code()) == "second"
    assert go(second_code()) == "second"  # it was this code that completed it
    assert warnings() == []


def test_a_child_run_of_other_code_is_warned_of(warnings: Callable[[], list[str]]) -> None:
    go(first_code(), workflow_id="i")

    @workflow
    def around() -> str:
        found: str = second_code().options(workflow_id="i")()
        return found

    assert go(around) == "first"
    assert "run 'i' completed before" in warnings()[0]


@workflow
def here() -> str:
    return "here"


def test_a_log_without_a_definition_is_answered_without_a_warning(
    log: Log, warnings: Callable[[], list[str]]
) -> None:
    here.options(workflow_id="r")()
    assert len(log("workflow_start")[0]["workflow"]["definition"]) == 16
    assert resume("r") == "here"

    code: dict[str, Any] = {}
    exec("def here() -> str:\n    return 'new'\n", {"__name__": __name__}, code)  # no source
    assert go(workflow(code["here"])) == "here"
    assert warnings() == []


CELLS = """
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for text in ("first", "first", "edited"):
    shell.run_cell(f'''
from tapps_otel import workflow

@workflow
def flow() -> str:
    return {text!r}

print(flow.options(workflow_id="cell")())
''').raise_error()
"""


def test_a_cell_that_was_edited_under_the_same_id_is_warned_of(tmp_path: Path) -> None:
    script = tmp_path / "cells.py"
    script.write_text(CELLS)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.split() == ["first", "first", "first"]
    assert done.stderr.count("run 'cell' completed before the code of workflow 'flow'") == 1
