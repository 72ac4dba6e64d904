"""What holds for all commands: help, exit codes, colours, and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import LOGS, Cli, child, environment, on_terminal
from logs import forge
from tapps_otel import errors
from tapps_otel.cli import codes
from tapps_otel.cli.app import app

COMMANDS = [
    "run",
    "resume",
    "list",
    "show",
    "watch",
    "timeline",
    "diff",
    "open",
    "verify",
    "repair",
    "answer",
    "resolve",
    "send",
    "prune",
    "cancel",
    "fork",
    "pack",
    "unpack",
    "migrate",
    "push",
    "pull",
    "export",
    "schema",
    "doctor",
    "demo",
    "docs",
]


def test_help_lists_every_command_and_every_exit_code(cli: Cli) -> None:
    done = cli("--help")

    assert done.code == 0
    assert [
        one.name or getattr(one.callback, "__name__", "") for one in app.registered_commands
    ] == [*COMMANDS]
    for name in COMMANDS:
        assert f"\n  {name} " in done.out
    for code, meaning in codes.MEANINGS.items():
        assert f"    {code:<4} {meaning}\n" in done.out
    assert all(len(line) <= 100 for line in done.out.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(cli: Cli, name: str) -> None:
    done = cli(name, "-h")

    assert done.code == 0
    assert f"Usage: tapps-otel {name} " in done.out
    assert ("--log-dir" in done.out) == (name not in {"schema", "docs", "migrate"})
    assert ("--json  " in done.out) == (  # without a value: the answer's is JSON
        name
        in {
            "list",
            "show",
            "timeline",
            "diff",
            "verify",
            "send",
            "prune",
            "fork",
            "doctor",
        }
    )


def test_without_arguments_the_help_is_shown(cli: Cli) -> None:
    assert "Commands:" in cli().err + cli().out


# Typer imports pydantic to parse arguments.
HEAVY = {
    "asyncio",
    "cryptography",
    "google",
    "grpc",
    "jinja2",
    "opentelemetry",
    "requests",
    "rich",
    "wrapt",
}


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], HEAVY | {"msgspec", "pydantic"}),
        (["list"], HEAVY | {"tapps_otel.past.timeline", "tapps_otel.otel"}),
        (["show", "r"], HEAVY | {"tapps_otel.audit", "tapps_otel.report.page"}),
        (["timeline", "r"], HEAVY | {"tapps_otel.audit", "tapps_otel.report.page"}),
    ],
)
def test_a_command_imports_nothing_heavy_that_it_does_not_need(
    arguments: list[str], heavy: set[str]
) -> None:
    forge(LOGS, "r", [{"event_type": "workflow_start"}])
    code = (
        "import sys, contextlib\nfrom tapps_otel.cli import main\n"
        f"with contextlib.suppress(SystemExit): main({arguments!r})\n"
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )

    assert done.stderr == "[]\n"


def test_the_version_is_shown() -> None:
    assert child("--version").out.startswith("tapps-otel ")


def test_it_runs_as_a_module() -> None:
    done = child("list", "--log-dir", "nowhere")

    assert done.code == 0
    assert "no runs in " in done.err


def test_every_error_has_an_exit_code() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        made = kind.__new__(kind)

        assert codes.code_of(made) in codes.MEANINGS


def test_an_unexpected_error_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("x\x1b")

    monkeypatch.setattr("tapps_otel.log.model.json_schema", broken)
    done = cli("schema")

    assert done.code == 1
    assert done.err.startswith("error: unexpected KeyError: ")
    assert done.err.count("\n") == 1
    assert "\x1b" not in done.err


@pytest.mark.parametrize(
    ("called", "shown"),
    [
        ("/somewhere/bin/tapps-otel", "/somewhere/bin/tapps-otel resume a"),
        ("with space/tapps-otel", "'with space/tapps-otel' resume a"),
        ("/on/the/path/tapps-otel", "tapps-otel resume a"),
        ("/x/tapps_otel/__main__.py", f"{Path(sys.executable).name} -m tapps_otel resume a"),
        ("", "tapps-otel resume a"),
    ],
)
def test_suggested_commands_are_called_as_this_one_was(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, called: str, shown: str
) -> None:
    monkeypatch.setenv("PATH", f"/usr/bin{os.pathsep}/on/the/path")
    monkeypatch.setattr(sys, "argv", [called])

    assert f"next: {shown}\n" in cli("run", "flow.py:failing", "--id", "a").err


@pytest.mark.slow
def test_on_a_terminal_there_are_colours_and_elsewhere_none(cli: Cli) -> None:
    cli("run", "flow.py:small", "--id", "a")

    assert "\x1b[32m✓" in on_terminal("list")
    assert "\x1b[32m" not in on_terminal("list", NO_COLOR="1")
    assert "\x1b" not in cli("list").out


@pytest.mark.slow
def test_on_a_terminal_a_line_shows_what_is_open() -> None:
    shown = on_terminal("run", "flow.py:waiting", "-i", "[0.7]")

    assert "wait\x1b" in shown or "wait  (1 finished)" in shown
    assert "✓" in shown
    assert "completed in" in shown


def test_what_the_workflow_prints_is_not_lost_on_a_terminal() -> None:
    assert "the workflow prints this" in on_terminal("run", "flow.py:small")


@pytest.mark.parametrize(
    ("arguments", "said", "name"),
    [
        (["show"], "give the id of a run, or --last", "show"),
        (["show", "a", "--last", "b"], "give the id of a run, or --last", "show"),
        (["show", "a", "b", "--all"], "give STEP, or --all, --failed, --step and", "show"),
        (["list", "--nothing"], "no such option: --nothing", "list"),
        (["list", "--status", "odd"], "invalid value for '--status': 'odd' is not one of ", "list"),
        (["list", "--last"], "option '--last' requires an argument", "list"),
        (["show", "a", "b", "c"], "got unexpected extra argument", "show"),
        (["resume"], "give the id of a run, or --last", "resume"),
        (["lst"], "no such command 'lst'", ""),
        (["--nothing"], "no such option: --nothing", ""),
    ],
)
def test_wrong_usage_is_said_in_one_form(
    cli: Cli, arguments: list[str], said: str, name: str
) -> None:
    done = cli(*arguments)

    assert (done.code, done.out) == (2, "")
    first, second = done.err.splitlines()
    assert first.startswith(f"error: {said}")
    assert not first.endswith(".")
    assert second == f"`{f'tapps-otel {name}'.strip()} --help` explains the usage"
