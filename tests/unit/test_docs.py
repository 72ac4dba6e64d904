"""The README says what is: its examples run, its tables are those of the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer

from commands import child, environment
from tapps_otel import errors
from tapps_otel.cli.app import app
from tapps_otel.cli.codes import MEANINGS
from tapps_otel.log.event import EVENT_TYPES
from tapps_otel.names import ATTR
from tapps_otel.otel.mapping.aliases import ALIAS
from tapps_otel.otel.metrics.instruments import METRICS
from tapps_otel.settings import Alias, Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """Code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def table(heading: str) -> list[list[str]]:
    """The rows of the table whose first column has this heading, cell by cell."""
    lines = README.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def code(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.split("\n", 1)[0])
def test_every_python_block_runs(block: str) -> None:
    Path("example.py").write_text(block, "utf-8")
    done = subprocess.run(
        [sys.executable, "example.py"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert child("verify", "--all").code == 0


def test_there_are_examples() -> None:
    assert len(blocks("python")) >= 2


@pytest.mark.parametrize("name", ["run", "test"])
def test_there_is_one_line_to_set_up_for_each_purpose(name: str) -> None:
    (line,) = re.findall(rf"^<!-- {name} -->\n```sh\n([^\n]*)\n```$", README, re.MULTILINE)

    assert line.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_every_command_and_its_arguments_are_in_the_table() -> None:
    shown = [code(cell)[0] for cell, _ in table("command")]
    group = typer.main.get_command(app)
    made = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        made.append(" ".join([name, *(one.metavar or one.name for one in arguments)]))

    assert [one.removesuffix(" RUN") if one == "list RUN" else one for one in shown] == made


def test_every_option_that_the_readme_names_is_one() -> None:
    said = re.findall(r"`(--[a-z-]+)", "\n".join("".join(row) for row in table("command")))

    known = {
        option
        for command in typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for option in parameter.opts
    }
    assert said
    assert set(said) <= known


def test_exit_codes_are_those_of_the_program() -> None:
    assert [(int(number), text) for number, text in table("exit code")] == [
        (int(number), text) for number, text in MEANINGS.items()
    ]


def test_settings_are_those_of_the_code() -> None:
    shown = {code(name)[0]: code(default)[0] for name, default, _ in table("setting")}

    assert shown == {name: str(one.default) for name, one in Settings.model_fields.items()}


def test_errors_are_those_that_are_raised() -> None:
    shown = {code(name)[0] for name, _ in table("error")}
    bases = {base.__name__ for name in errors.__all__ for base in getattr(errors, name).__bases__}
    raised_themselves = {"StepInterruptedError"}

    assert shown == set(errors.__all__) - bases | raised_themselves


def test_event_types_are_those_of_the_format() -> None:
    paragraph = README[README.index("Event types:") : README.index("All fields:")]

    assert set(code(paragraph)) == EVENT_TYPES


def test_attributes_are_those_of_the_spans() -> None:
    shown = {name.removesuffix(".*") for cell, _, _ in table("attribute") for name in code(cell)}
    made = {value for name, value in vars(ATTR).items() if not name.startswith("_")}

    assert shown == made


def test_aliases_are_those_that_are_made() -> None:
    rows = table("alias")
    made = {value for name, value in vars(ALIAS).items() if not name.startswith("_")}

    assert {name for cell, _, _ in rows for name in code(cell)} == made
    assert {version for _, cell, _ in rows for version in code(cell)} == set(get_args(Alias))


def test_metrics_are_those_that_are_made() -> None:
    shown = [(*code(name), *code(unit), tuple(code(has))) for name, unit, has, _ in table("metric")]

    assert shown == [(metric.name, metric.unit, metric.attributes) for metric in METRICS]


@pytest.mark.parametrize("row", table("promise"), ids=lambda row: row[0][:60])
def test_every_promise_names_a_test_that_is_there(row: list[str]) -> None:
    path, _, name = code(row[1])[0].partition("::")
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    tests = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert name in tests


def test_the_readme_speaks_of_no_machine() -> None:
    assert not re.search(r"/(home|root|work|usr)/|pypi\.org|127\.0\.0\.1", README)
    assert all(line.isprintable() for line in README.split("\n"))
