"""What holds for every command that only reads."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

import programs
from commands import LOGS, Cli, command, environment

pytestmark = pytest.mark.slow  # most of them start processes


@pytest.mark.parametrize("name", ["show", "verify"])
def test_an_unknown_run_is_not_found(cli: Cli, name: str) -> None:
    LOGS.mkdir(parents=True)
    (LOGS / "foreign.jsonl").write_text('{"hello": 1}\n', "utf-8")

    assert cli(name, "nobody").code == 3
    assert cli(name, "foreign").code == 3
    assert cli(name, "../nobody").code == 2


def test_the_schema_is_json_schema(cli: Cli) -> None:
    assert json.loads(cli("schema").out)["$schema"].endswith("2020-12/schema")


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("arguments", [["list"], ["show", "one", "--json"], ["schema"]])
def test_a_reader_that_closes_the_pipe_is_not_an_error(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with programs.Popen(
        command(*arguments), env=environment(), stdout=write, stderr=subprocess.PIPE
    ) as one:
        os.close(write)
        _, said = one.communicate(timeout=20)

    assert (one.returncode, said) == (141, b"")
