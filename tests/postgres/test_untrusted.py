"""What a store tells is not trusted: names, and the content of what it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commands import Cli
from crashes import go
from databases import Database
from tapps_otel import cancel, history, list_runs, pause, verify, workflow
from tapps_otel.errors import RunPausedError

Machine = Callable[[str], Path]
OUTSIDE = ("../outside", "/tmp/outside", "..", "a/outside", "pruned", "outside\n")


@workflow
def flow() -> None: ...


def copy_log(database: Database, name: str) -> None:
    """Let the store have the lines of run `r` under another name, as those written to last."""
    database.ask("INSERT INTO tapps_otel.runs (name) VALUES (%s)", name)
    database.ask(
        "INSERT INTO tapps_otel.lines (run, seq, bytes) SELECT o.id, seq, bytes "
        "FROM tapps_otel.lines JOIN tapps_otel.runs r ON r.id = run, tapps_otel.runs o "
        "WHERE r.name = 'r' AND o.name = %s",
        name,
    )


@pytest.mark.parametrize("name", OUTSIDE, ids=range(len(OUTSIDE)))
def test_names_of_runs_that_lead_out_of_the_folder_are_ignored(
    database: Database, be_on: Machine, tmp_path: Path, cli: Cli, name: str
) -> None:
    be_on("a")
    go(flow)
    copy_log(database, name)
    there = be_on("b")

    assert [run.workflow_id for run in list_runs()] == ["r"]
    for command in (("show", "@last"), ("verify", "--all"), ("list",)):
        assert cli(*command).code == 0
    for refusing in ("show", "verify", "pull", "push"):
        assert cli(refusing, name).code != 0
    assert [path.name for path in there.iterdir()] == ["r.jsonl"]
    assert not [*tmp_path.glob("**/*outside*")]


def test_a_damaged_log_of_the_store_does_not_replace_an_intact_one(
    database: Database, be_on: Machine, cli: Cli
) -> None:
    here = be_on("a")
    go(flow)
    whole = (here / "r.jsonl").read_bytes()
    database.ask(
        "UPDATE tapps_otel.lines SET bytes = decode(replace(encode(bytes, 'hex'), "
        "encode('\"sha\":\"', 'hex'), encode('\"sha\":\"f', 'hex')), 'hex') WHERE seq = 2"
    )

    assert "completed" in cli("show", "r").out
    assert (here / "r.jsonl").read_bytes() == whole
    assert [path.name for path in here.iterdir()] == ["r.jsonl"]


def test_a_log_does_not_tell_into_which_folder_a_called_run_is_pulled(
    database: Database, be_on: Machine, tmp_path: Path
) -> None:
    @workflow
    def called() -> object:
        return pause("Yes?")

    @workflow
    def calling() -> object:
        return called.options(workflow_id="called", log_dir=tmp_path / "other")()

    be_on("a")
    with pytest.raises(RunPausedError):
        go(calling)
    (tmp_path / "other").rename(tmp_path / "gone")
    be_on("b")

    assert cancel("r") == ["r"]
    assert history("r").status == "cancelled"
    assert verify("r").ok
    assert not (tmp_path / "other").exists()
