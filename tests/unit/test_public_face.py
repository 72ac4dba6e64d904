"""What people import: the names of the package, their help, and their types."""

from __future__ import annotations

import ast
import json
import pydoc
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import tapps_otel

ROOT = Path(__file__).parents[2]
TYPED = ROOT / "tests" / "typing"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


# ---------------------------------------------------------------- names


def test_every_public_name_can_be_imported() -> None:
    for name in tapps_otel.__all__:
        assert getattr(tapps_otel, name) is not None


def test_public_names_are_sorted_as_people_look_them_up() -> None:
    assert sorted(tapps_otel.__all__, key=str.casefold) == list(tapps_otel.__all__)
    assert dir(tapps_otel) == sorted(tapps_otel.__all__)


def test_type_checkers_see_the_names_that_python_gives() -> None:
    tree = ast.parse((ROOT / "tapps_otel" / "__init__.py").read_text("utf-8"))
    checked = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    names = {
        alias.asname or alias.name
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert names == set(tapps_otel.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'worklow'"):
        tapps_otel.worklow  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    code = "import sys, tapps_otel; print([m for m in sys.modules if m.startswith('tapps_otel.')])"

    assert run(sys.executable, "-c", code).stdout == "[]\n"


def test_decorators_import_nothing_that_only_runs_need() -> None:
    code = (
        "import sys; from tapps_otel import bind, current_run, step, workflow\n"
        "@step\ndef double(number: int) -> int: return number * 2\n"
        "@workflow\ndef flow(numbers: list[int]) -> int: return sum(map(double, numbers))\n"
        "print(sorted({'opentelemetry', 'psycopg', 'pydantic', 'typer'} & set(sys.modules)))"
    )

    assert run(sys.executable, "-c", code).stdout == "[]\n"


def test_help_describes_every_public_name() -> None:
    text = pydoc.render_doc(tapps_otel, renderer=pydoc.plaintext)  # type: ignore[attr-defined]

    for name in tapps_otel.__all__:
        assert name.strip("_").upper() in text.upper()  # __version__ has a heading


# ---------------------------------------------------------------- types

CHECKERS = ["mypy", "pyright"]


@cache
def errors_of(checker: str) -> set[tuple[str, int, str]]:
    """File, line and message of every error that a type checker finds in the typed programs."""
    files = [str(TYPED / "user_code.py"), str(TYPED / "mistakes.py")]
    if checker == "mypy":
        done = run(sys.executable, "-m", "mypy", "--no-error-summary", *files)
        found = re.findall(r"^(\S+?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
        assert found or done.returncode == 0, done.stdout + done.stderr
        return {(Path(file).name, int(line), message) for file, line, message in found}
    done = run(
        sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", *files
    )
    diagnostics = json.loads(done.stdout)["generalDiagnostics"]
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1, one["message"])
        for one in diagnostics
        if one["severity"] == "error"
    }


@pytest.mark.exhaustive
@pytest.mark.parametrize("checker", CHECKERS)
def test_a_correct_program_has_no_type_error(checker: str) -> None:
    assert not [one for one in errors_of(checker) if one[0] != "mistakes.py"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("checker", CHECKERS)
def test_each_mistake_is_a_type_error(checker: str) -> None:
    lines = (TYPED / "mistakes.py").read_text("utf-8").splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
    found = {(line, text) for file, line, text in errors_of(checker) if file == "mistakes.py"}

    assert {line for line, _ in found} == marked, "\n".join(
        f"line {line}: {text}" for line, text in sorted(found) if line not in marked
    )
