"""A run that was begun on one machine is looked at, decided about and resumed on another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import Cli
from crashes import Effects, die_at, go, killed
from databases import Database
from tapps_otel import (
    Run,
    answer,
    cancel,
    configure,
    current_run,
    events,
    fork,
    history,
    list_runs,
    pause,
    resume,
    step,
    verify,
    workflow,
)
from tapps_otel.errors import (
    RunNotFoundError,
    RunPausedError,
    StepInterruptedError,
    StoreError,
)
from tapps_otel.run.resolving import resolve
from waiting import until

Machine = Callable[[str], Path]


class Work:
    """A workflow of two steps whose bodies leave effects."""

    def __init__(self, did: Effects, database: Database, size: int = 10) -> None:
        @step
        def first() -> str:
            did.note("first")
            return "x" * size

        @step
        def second(text: str) -> int:
            did.note("second")
            # Nothing waits for the line that starts a step: it may be lost with its process.
            name = current_run().workflow_id
            until(lambda: b'"step_id":"second"' in database.log(name))
            die_at("second")
            return len(text)

        @workflow(name="work")
        def work() -> int:
            return second(first())

        self.flow = work


def test_a_run_of_a_killed_process_is_resumed_on_another_machine(
    database: Database, did: Effects, be_on: Machine
) -> None:
    work = Work(did, database)
    here = be_on("a")
    killed(lambda: go(work.flow), at="second")
    there = be_on("b")

    assert go(work.flow) == 10
    assert did.all == ["first", "second", "second"]
    second = history("r").by_id["second"]
    assert [one.status for one in second.attempts] == ["interrupted", "completed"]
    after = (there / "r.jsonl").read_bytes()
    assert after.startswith((here / "r.jsonl").read_bytes())
    assert after == database.log("r")

    be_on("a")
    assert go(work.flow) == 10
    assert did.all == ["first", "second", "second"]
    assert (here / "r.jsonl").read_bytes() == after
    assert verify("r").ok


def test_large_values_come_along(database: Database, did: Effects, be_on: Machine) -> None:
    work = Work(did, database, 300_000)
    be_on("a")
    killed(lambda: go(work.flow), at="second")
    there = be_on("b")

    assert go(work.flow) == 300_000
    assert did.count("first") == 1
    assert len([*(there / "r.blobs").iterdir()]) == 1
    assert verify("r").ok


def test_a_line_is_in_the_store_only_after_the_values_that_it_names(
    database: Database, did: Effects, be_on: Machine
) -> None:
    be_on("a")
    go(Work(did, database, 300_000).flow)

    (order,) = database.ask(
        "SELECT count(*) FILTER (WHERE b.xmin::text::bigint > l.xmin::text::bigint), count(*) "
        "FROM tapps_otel.blobs b JOIN tapps_otel.lines l "
        "ON position(convert_to(b.name, 'utf8') IN l.bytes) > 0"
    )
    assert order == (0, 1)


def test_commands_that_read_pull_a_run_first(
    database: Database, did: Effects, be_on: Machine, cli: Cli
) -> None:
    here = be_on("a")
    go(Work(did, database).flow, workflow_id="nightly-42")
    log = (here / "nightly-42.jsonl").read_bytes()

    for number, command in enumerate(
        (
            ("show", "nightly-42"),
            ("show", "nightly"),
            ("show", "@last"),
            ("verify", "nightly-42"),
            ("verify", "--all"),
            ("timeline", "nightly-42"),
            ("export", "nightly-42", "--format", "csv"),
            ("pack", "nightly-42", "run.zip"),
        )
    ):
        there = be_on(f"machine{number}")
        done = cli(*command)

        assert done.code == 0, done.err
        assert (there / "nightly-42.jsonl").read_bytes() == log


def test_list_asks_the_store(database: Database, did: Effects, be_on: Machine, cli: Cli) -> None:
    work = Work(did, database)
    be_on("a")
    go(work.flow, workflow_id="done")
    killed(lambda: go(work.flow, workflow_id="cut"), at="second")
    known = [*list_runs()]
    there = be_on("b")

    assert [(run.workflow_id, run.status) for run in list_runs()] == [
        ("cut", "interrupted"),
        ("done", "completed"),
    ]
    assert [*list_runs()] == known
    assert [run.workflow_id for run in list_runs(status="completed")] == ["done"]
    assert [run.workflow_id for run in list_runs(last=1)] == ["cut"]
    assert [*list_runs(agent="nobody")] == []
    assert [one["steps_done"] for one in json.loads(cli("list", "--json").out)] == [1, 2]
    assert not there.exists()


def test_a_run_in_progress_elsewhere_is_seen_as_that(database: Database, be_on: Machine) -> None:
    seen: list[str] = []

    @step
    def look() -> None:
        be_on("b")
        seen.extend((history("r").status, next(list_runs()).status))
        be_on("a")

    @workflow
    def flow() -> None:
        look()

    be_on("a")
    go(flow)

    assert seen == ["running", "running"]


def test_answers_go_to_the_store(database: Database, be_on: Machine) -> None:
    @workflow
    def asks() -> str:
        return str(pause("Ship it?", type=str))

    be_on("a")
    with pytest.raises(RunPausedError):
        go(asks)
    be_on("b")
    answer("r", "yes")
    be_on("c")

    assert go(asks) == "yes"


def test_resolutions_go_to_the_store(database: Database, did: Effects, be_on: Machine) -> None:
    @step(on_interrupted="fail")
    def pay() -> str:
        did.note("paid")
        die_at("pay")
        return "receipt"

    @workflow
    def flow() -> str:
        return pay()

    be_on("a")
    killed(lambda: go(flow), at="pay")
    be_on("b")
    with pytest.raises(StepInterruptedError):
        go(flow)
    be_on("c")
    resolve("r", "pay", result=b'"by hand"')
    be_on("d")

    assert go(flow) == "by hand"
    assert did.all == ["paid"]


def test_cancellations_go_to_the_store(database: Database, did: Effects, be_on: Machine) -> None:
    be_on("a")
    killed(lambda: go(Work(did, database).flow), at="second")
    be_on("b")
    cancel("r", reason="not needed")
    be_on("c")

    assert history("r").status == "cancelled"


def test_a_cancellation_pulls_the_runs_that_were_called(database: Database, be_on: Machine) -> None:
    @workflow
    def called() -> object:
        return pause("Yes?")

    @workflow
    def calling() -> object:
        return called.options(workflow_id="called")()

    be_on("a")
    with pytest.raises(RunPausedError):
        go(calling)
    be_on("b")

    assert cancel("r") == ["r", "called"]
    be_on("c")
    assert {run.status for run in list_runs()} == {"cancelled"}


def test_forks_go_to_the_store(database: Database, did: Effects, be_on: Machine) -> None:
    work = Work(did, database, 300_000)
    be_on("a")
    go(work.flow)
    be_on("b")
    fork("r", from_step="second", new_workflow_id="again")
    be_on("c")

    assert go(work.flow, workflow_id="again") == 300_000
    assert did.all == ["first", "second", "second"]
    assert verify("again").ok


def test_a_fork_does_not_take_the_id_of_a_run_elsewhere(
    database: Database, did: Effects, be_on: Machine, cli: Cli
) -> None:
    work = Work(did, database)
    be_on("a")
    go(work.flow, workflow_id="taken")
    go(work.flow)
    be_on("b")
    done = cli("fork", "r", "--from", "second", "--id", "taken")

    assert done.code == 5
    assert "choose another id" in done.err


def test_push_and_pull_copy_a_run_by_hand(
    database: Database, did: Effects, be_on: Machine, cli: Cli
) -> None:
    here = be_on("a")
    configure(store=None)
    with Run.open("work", workflow_id="r") as run:
        run.call("first", "x".__mul__, 300_000)
    configure(store=database.address)

    assert cli("list").err.endswith(f"/{database.name}\n")
    assert cli("push", "r").out == "pushed  r  4 events\n"
    assert database.log("r") == (here / "r.jsonl").read_bytes()

    there = be_on("b")
    assert cli("pull", "r").out == "pulled  r  1 log changed\n"
    assert cli("pull", "r").out == "pulled  r  nothing had changed\n"
    assert (there / "r.jsonl").read_bytes() == (here / "r.jsonl").read_bytes()
    assert verify("r").ok
    assert cli("pull", "other").code == 3
    assert cli("push", "other").code == 3


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b"x")], ids=["gone", "changed"]
)
def test_pull_restores_large_values(
    database: Database, be_on: Machine, cli: Cli, damage: Callable[[Path], object]
) -> None:
    here = be_on("a")
    with Run.open("work", workflow_id="r") as run:
        run.call("first", "x".__mul__, 300_000)
    (blob,) = (here / "r.blobs").iterdir()
    damage(blob)

    assert not verify("r").ok
    assert cli("pull", "r").out == "pulled  r  1 log changed\n"
    assert verify("r").ok


def test_without_a_store_there_is_nothing_to_push_to(cli: Cli) -> None:
    for command in (("push", "r"), ("pull", "r"), ("migrate",)):
        done = cli(*command)

        assert done.code == 2
        assert "TAPPS_OTEL_STORE" in done.err


def test_a_run_that_is_nowhere_is_not_found_in_the_store_either(
    database: Database, be_on: Machine, cli: Cli
) -> None:
    here = be_on("a")
    configure(store=database.address.replace("@", ":hunter22@"))

    for query in (history, resume, verify, lambda name: next(events(name))):
        with pytest.raises(RunNotFoundError, match=f"no run 'none' in {here}, nor in postgres"):
            query("none")
    shown = cli("show", "none").err
    assert database.name in shown
    assert "hunter22" not in shown
    assert f"{database.name}\n" in cli("list").err


def test_what_is_here_is_shown_while_the_store_cannot_be_reached(
    database: Database, did: Effects, be_on: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    be_on("a")
    go(Work(did, database).flow)
    configure(store="postgresql://nobody@127.0.0.1:1/none")

    assert history("r").status == "completed"
    assert "is shown as it is on this machine: store postgresql://127.0.0.1:1/none" in caplog.text
    with pytest.raises(StoreError, match="try again once it can be reached"):
        history("unknown")


def test_a_resume_by_id_pulls_first(
    database: Database, be_on: Machine, tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / "flows.py").write_text(
        "import os\n"
        "from pathlib import Path\n"
        "from tapps_otel import step, workflow\n"
        "@step\n"
        "def once():\n"
        "    with open('once.txt', 'a') as file:\n"
        "        file.write('x')\n"
        "@step\n"
        "def dies():\n"
        "    if not Path('died.txt').exists():\n"
        "        Path('died.txt').touch()\n"
        "        os._exit(77)\n"
        "@workflow\n"
        "def flow():\n"
        "    once()\n"
        "    dies()\n"
    )
    be_on("a")
    killed(lambda: cli("run", "flows.py:flow", "--id", "r", "--quiet"))
    be_on("b")

    assert cli("resume", "r", "--quiet").code == 0
    assert (tmp_path / "once.txt").read_text() == "x"
    be_on("c")
    assert resume("r") is None


def test_the_demo_is_killed_in_one_folder_and_resumed_in_another(
    database: Database, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tapps_otel", "demo", "--log-dir", tmp_path / "logs"],
        env={**os.environ, "TAPPS_OTEL_STORE": database.address},
        capture_output=True,
        text=True,
        check=True,
    )
    (first,), (second,) = (tmp_path.glob(f"{name}/*.jsonl") for name in ("logs", "logs-elsewhere"))

    assert "Killed and resumed: " in done.stdout
    assert "As on another machine: in the folder logs-elsewhere" in done.stdout
    assert first.read_bytes() != second.read_bytes()
    assert second.read_bytes() == database.log(first.stem)
