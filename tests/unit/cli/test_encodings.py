"""Output in encodings that lack characters: readable, aligned, and still JSON."""

from __future__ import annotations

import json
import subprocess

import pytest

from commands import Cli, Done, command, environment

ENCODINGS = {
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII": {"PYTHONIOENCODING": "ascii"},
    "Latin 1": {"PYTHONIOENCODING": "latin-1"},
}
MESSAGE = "naïve ✓ 你好"


@pytest.fixture(autouse=True)
def runs(cli: Cli) -> None:
    cli("run", "flow.py:small", "--id", "one")
    cli("run", "flow.py:failing", "--id", "two", "-i", json.dumps([MESSAGE]))
    cli("run", "flow.py:typed", "--id", "three", "-i", json.dumps([{"title": MESSAGE}]))


@pytest.fixture(params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def call(encoding: str, *arguments: str) -> Done:
    """Run a command in that encoding; decode strictly what it writes."""
    env = {name: text for name, text in environment().items() if name != "PYTHONIOENCODING"}
    done = subprocess.run(
        command(*arguments), env=env | ENCODINGS[encoding], capture_output=True, check=False
    )
    name = "latin-1" if encoding == "Latin 1" else "ascii"
    return Done(done.returncode, done.stdout.decode(name), done.stderr.decode(name))


def test_signs_become_ascii_and_columns_stay_aligned(encoding: str) -> None:
    heading, *lines = call(encoding, "list").out.splitlines()

    assert {line[: line.index(" ", 2)] for line in lines} == {"+ three", "x two", "+ one"}
    status = heading.index("STATUS")
    assert {line[status:].split()[0] for line in lines} == {"completed", "failed"}


def test_other_characters_become_escapes(encoding: str) -> None:
    done = call(encoding, "show", "two")

    shown = "naïve" if encoding == "Latin 1" else r"na\xefve"
    assert rf"RuntimeError: {shown} + \u4f60\u597d" in done.out


@pytest.mark.parametrize("arguments", [["show", "three", "--json"], ["list", "--json"], ["schema"]])
def test_json_has_the_same_value(cli: Cli, encoding: str, arguments: list[str]) -> None:
    assert json.loads(call(encoding, *arguments).out) == json.loads(cli(*arguments).out)


def test_a_result_has_the_same_value(encoding: str) -> None:
    done = call(encoding, "resume", "three")

    assert done.code == 0
    assert json.loads(done.out) == MESSAGE
    assert done.err.startswith("+ three had completed")


def test_wrong_usage_is_readable(encoding: str) -> None:
    done = call(encoding, "list", "--since", "gestern ✓")

    assert done.code == 2
    assert done.err.startswith("error: --since 'gestern ")
    assert done.err.count("\n") == 2
