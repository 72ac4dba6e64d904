"""One process executes a run, whatever becomes of machines, connections and servers."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from crashes import Effects, Forked, die, go, killed
from databases import Database
from tapps_otel import configure, history, list_runs, step, workflow
from tapps_otel.errors import (
    LeaseLostError,
    RunBusyError,
    SettingsError,
    TappsError,
)
from waiting import until

Machine = Callable[[str], Path]


class Slow:
    """A workflow whose step waits, in the process that begins it, until it is told to end."""

    def __init__(self, did: Effects, may_end: Path) -> None:
        self.did, self.may_end, self.waits = did, may_end, True

        @step
        def slow() -> str:
            did.note("slow")
            if self.waits:
                until(may_end.exists)
            return "slow"

        @step
        def after() -> None:
            did.note("after")

        @workflow(name="slow")
        def flow() -> str:
            done = slow()
            after()
            return done

        self.flow = flow

    def begin(self, call: Callable[[], object]) -> Forked:
        """Begin it in another process; return once its step has begun."""
        child = Forked(call)
        until(lambda: self.did.all)
        self.waits = False
        return child


@pytest.fixture(params=["commit", "os"])
def durability(request: pytest.FixtureRequest) -> str:
    configure(durability=request.param)
    return str(request.param)


@pytest.fixture
def slow(did: Effects, tmp_path: Path) -> Slow:
    return Slow(did, tmp_path / "go")


def test_a_run_has_one_process_and_the_other_one_is_named(
    database: Database, slow: Slow, be_on: Machine
) -> None:
    be_on("a")
    child = slow.begin(lambda: go(slow.flow))
    be_on("b")
    with pytest.raises(RunBusyError) as refused:
        go(slow.flow)
    slow.may_end.touch()

    assert (refused.value.pid, refused.value.host) == (child.pid, socket.gethostname())
    assert child.wait().value == "slow"
    assert go(slow.flow) == "slow"
    assert slow.did.all == ["slow", "after"]


def test_a_killed_process_frees_its_run_at_once(
    database: Database, slow: Slow, be_on: Machine
) -> None:
    be_on("a")
    child = slow.begin(lambda: go(slow.flow))
    child.kill()
    be_on("b")

    assert go(slow.flow) == "slow"
    assert slow.did.all == ["slow", "slow", "after"]
    child.wait()


def test_a_run_whose_connection_ends_in_a_long_step_is_held_again(
    database: Database, slow: Slow, be_on: Machine
) -> None:
    be_on("a")
    child = slow.begin(lambda: go(slow.flow))
    database.end_sessions()
    until(database.sessions)
    until(lambda: database.ask("SELECT * FROM tapps_otel.held"))
    be_on("b")

    assert [run.status for run in list_runs()] == ["running"]
    with pytest.raises(RunBusyError):
        go(slow.flow)
    slow.may_end.touch()
    assert child.wait().value == "slow"
    assert slow.did.all == ["slow", "after"]


def test_a_child_process_does_not_hold_the_lease_of_its_parent(
    database: Database, be_on: Machine, did: Effects
) -> None:
    @step
    def forks() -> None:
        if not did.all:
            child = os.fork()
            if not child:
                did.note(str(os.getpid()))
            signal.pause()

    @workflow
    def flow() -> None:
        forks()

    be_on("a")
    parent = Forked(lambda: go(flow))
    until(lambda: did.all)
    parent.kill()
    be_on("b")
    try:
        go(flow)
    finally:
        os.kill(int(did.all[0]), signal.SIGKILL)
        parent.wait()

    assert history("r").status == "completed"


@pytest.mark.usefixtures("durability")
def test_a_stopped_holder_writes_nothing_once_its_run_was_taken_over(
    database: Database, slow: Slow, be_on: Machine
) -> None:
    def late() -> list[str]:
        try:
            go(slow.flow)
        except LeaseLostError as error:
            return [error.problem]
        return []

    here = be_on("a")
    child = slow.begin(late)
    os.kill(child.pid, signal.SIGSTOP)
    database.end_sessions()
    there = be_on("b")
    assert go(slow.flow) == "slow"
    complete = database.log("r")
    slow.may_end.touch()
    os.kill(child.pid, signal.SIGCONT)

    assert child.wait().value == [
        f"process {os.getpid()} on {socket.gethostname()} executes the run"
    ]
    assert slow.did.all == ["slow", "slow", "after"]  # it began no further step
    assert database.log("r") == (there / "r.jsonl").read_bytes() == complete
    assert (here / "r.jsonl").read_bytes() != complete

    be_on("a")
    assert go(slow.flow) == "slow"  # what it wrote too late is set aside
    assert (here / "r.jsonl").read_bytes() == complete
    assert len([*here.glob("r.jsonl.aside-*")]) == 1


@pytest.mark.usefixtures("durability")
def test_a_lost_lease_is_final(
    database: Database, did: Effects, be_on: Machine, tmp_path: Path
) -> None:
    may_end = tmp_path / "go"
    errors: list[str] = []

    @step
    def taken_over() -> None:
        did.note("once")
        if did.count("once") == 1:
            until(may_end.exists)

    @step
    def later() -> None:
        did.note("later")

    @workflow
    def flow() -> None:
        for call in (taken_over, later, later):
            try:
                call()
            except TappsError as error:
                errors.append(type(error).__name__)

    def holder() -> list[str]:
        with pytest.raises(LeaseLostError):
            go(flow)
        return errors

    be_on("a")
    child = Forked(holder)
    until(lambda: did.all)
    os.kill(child.pid, signal.SIGSTOP)
    database.end_sessions()
    be_on("b")
    go(flow)
    may_end.touch()
    os.kill(child.pid, signal.SIGCONT)

    assert child.wait().value == ["LeaseLostError"] * 3
    assert did.all == ["once", "once", "later", "later"]  # all by the other process


def test_a_session_without_the_token_of_its_run_writes_nothing(
    database: Database, did: Effects, be_on: Machine
) -> None:
    """As behind a pooler, or on a server that came back: there, a lock can have two holders."""
    before: list[bytes] = []

    @step
    def one() -> None:
        did.note("one")
        until(lambda: b'"step_start"' in database.log("r"))  # nothing waits for that line
        before.append(database.log("r"))
        database.ask("UPDATE tapps_otel.runs SET token = gen_random_uuid()")

    @workflow
    def flow() -> None:
        one()
        did.note("after")

    be_on("a")
    with pytest.raises(LeaseLostError):
        go(flow)

    assert did.all == ["one"]
    assert database.log("r") == before[0]


@pytest.mark.usefixtures("durability")
def test_a_process_that_lost_its_connection_keeps_its_run(
    database: Database, did: Effects, be_on: Machine
) -> None:
    @step
    def one() -> None:
        did.note("one")
        database.end_sessions()

    @workflow
    def flow() -> None:
        one()
        one()

    here = be_on("a")
    go(flow)

    assert database.log("r") == (here / "r.jsonl").read_bytes()
    assert history("r").status == "completed"
    assert [*here.glob("r.jsonl.*")] == []


def test_a_resumed_run_whose_row_was_deleted_has_it_again(
    database: Database, did: Effects, be_on: Machine
) -> None:
    @step
    def one() -> None:
        did.note("one")

    @step
    def two() -> None:
        if did.all == ["one"]:
            did.note("two")
            die()
        database.ask("DELETE FROM tapps_otel.runs")

    @workflow
    def flow() -> None:
        one()
        two()

    here = be_on("a")
    killed(lambda: go(flow))
    go(flow)

    assert did.all == ["one", "two"]
    assert database.log("r") == (here / "r.jsonl").read_bytes()


def test_continuing_without_a_log_is_refused(database: Database) -> None:
    with pytest.raises(SettingsError, match="two processes might execute one run"):
        configure(on_log_failure="continue")

    assert configure().on_log_failure == "stop"


def test_the_password_of_a_store_is_not_shown() -> None:
    address = "postgresql://me:secret-word@host/runs"

    assert "secret-word" not in repr(configure(store=address))
    with pytest.raises(SettingsError) as refused:
        configure(store="mysql://me:secret-word@host/runs")
    assert "secret-word" not in str(refused.value)
    configure(store="postgresql://me:secret-word@127.0.0.1:1/runs")

    @workflow
    def flow() -> None: ...

    with pytest.raises(TappsError) as failed:
        go(flow)
    assert "secret-word" not in str(failed.value)
