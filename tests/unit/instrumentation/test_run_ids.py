"""Runs with an id from their executor that cannot name a file."""

from __future__ import annotations

from typing import Any

import pytest

from commands import Cli
from tapps_otel import events, follow, history, instrument, list_runs, verify
from tapps_otel.errors import InvalidIdError
from tapps_otel.instrumentation import ExecutorSpec

ID = "build/2026 #1"
ODD = [ID, "../../up", "a\x00b", "\x1b]0;pwned\x07\u202e\ud800", "x.events", "-x"]


class Builder:
    def build(self, name: str) -> None:
        self.compile("a")

    def compile(self, task: str) -> None: ...


@pytest.fixture(autouse=True)
def _instrumented() -> None:
    spec = ExecutorSpec(
        executor="builder",
        run="build",
        step="compile",
        run_id=lambda seen: seen.arguments["name"],
        step_id=lambda seen: seen.arguments["task"],
    )
    instrument(Builder, spec)


COMMANDS = ["show", "show --json", "verify", "verify --json", "resume", "send", "open",
            "export -f csv", "repair --accept-damage", "resolve {} a --rerun"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_accepts_the_executors_id(cli: Cli, command: str) -> None:
    Builder().build(ID)
    (run,) = list_runs()
    words = (command if "{}" in command else f"{command} {{}}").split()

    found, same = (
        cli(*(one.replace("{}", name) for one in words)) for name in (ID, run.workflow_id)
    )

    assert run.workflow_id != ID
    assert found == same
    assert run.workflow_id in found.out + found.err or command in {"send", "open"}


@pytest.mark.parametrize("own_id", ODD)
def test_any_id_is_found_and_shown_escaped(cli: Cli, own_id: str) -> None:
    Builder().build(own_id)

    done = cli("show", "--", own_id)

    assert done.code == 0
    assert all(line.isprintable() for line in (done.out + done.err).split("\n"))


@pytest.mark.parametrize("own_id", ODD)
@pytest.mark.parametrize("command", ["show", "resume", "repair --accept-damage", "verify"])
def test_an_unknown_id_is_refused(cli: Cli, command: str, own_id: str) -> None:
    Builder().build("another")

    done = cli(*command.split(), "--", own_id)

    assert done.code == 2
    assert "cannot be a run id" in done.err
    assert all(line.isprintable() for line in done.err.split("\n"))


def test_functions_accept_the_executors_id() -> None:
    Builder().build(ID)

    assert history(ID).status == "completed"
    assert verify(ID).ok
    assert [one.event_type for one in events(ID)] == [one.event_type for one in follow(ID)]


@pytest.mark.parametrize("call", [history, verify, lambda name: next(events(name))])
def test_functions_refuse_an_unknown_id(call: Any) -> None:
    with pytest.raises(InvalidIdError, match="cannot be a run id"):
        call(ID)
