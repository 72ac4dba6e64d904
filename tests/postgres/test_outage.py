"""Servers that crash, hang, cannot be reached, or come back without what they had."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from crashes import Effects, go
from databases import Database, Server
from tapps_otel import configure, history, step, verify, workflow
from tapps_otel.errors import LogWriteError, StoreError
from tapps_otel.log import files
from tapps_otel.log.files import FaultyFiles

Machine = Callable[[str], Path]


class Eventful:
    """A workflow of three steps, between which something happens."""

    def __init__(self, did: Effects, *events: Callable[[], object]) -> None:
        happens = dict(enumerate(events))

        @step
        def work(number: int) -> int:
            did.note(f"work {number}")
            happens.pop(number, int)()
            return number

        @workflow(name="eventful")
        def flow() -> int:
            return sum(work(number) for number in range(4))

        self.flow = flow


def restart(server: Server) -> None:
    server.stop("immediate")
    server.start("-c fsync=off")


def test_a_server_is_restarted_in_the_middle_of_a_run(
    server: Server, database: Database, did: Effects, be_on: Machine
) -> None:
    eventful = Eventful(did, int, lambda: restart(server), int, lambda: restart(server))
    here = be_on("a")

    assert go(eventful.flow) == 6
    assert did.all == [f"work {number}" for number in range(4)]
    assert database.log("r") == (here / "r.jsonl").read_bytes()


def test_a_store_that_stays_away_stops_the_run_until_it_is_resumed(
    server: Server, database: Database, did: Effects, be_on: Machine
) -> None:
    configure(store_wait=0.2)
    here = be_on("a")
    try:
        with pytest.raises(LogWriteError, match="has not confirmed it"):
            go(Eventful(did, int, server.stop).flow)
        with pytest.raises(StoreError):
            go(Eventful(did).flow)
        with pytest.raises(StoreError):
            history("other")
        assert history("r").by_id["work#2"].status == "completed"  # on this machine
    finally:
        server.start("-c fsync=off")

    assert go(Eventful(did).flow) == 6
    assert did.all == [f"work {number}" for number in range(4)]
    assert database.log("r") == (here / "r.jsonl").read_bytes()


def test_a_server_that_hangs_is_not_waited_for_without_end(
    database: Database, did: Effects, be_on: Machine
) -> None:
    stopped: list[int] = []

    def hang() -> None:
        stopped.extend(database.sessions())
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    configure(store_wait=0.2)
    be_on("a")
    try:
        with pytest.raises(LogWriteError, match="has not confirmed it"):
            go(Eventful(did, hang).flow)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)

    assert did.all == ["work 0"]
    assert go(Eventful(did).flow) == 6


@pytest.mark.parametrize("copied", ["before the run", "in the run"])
def test_a_failover_loses_commits(
    server: Server, database: Database, did: Effects, be_on: Machine, copied: str
) -> None:
    def fail_over() -> None:
        server.stop("immediate")
        server.use_copy()
        server.start("-c fsync=off")

    here = be_on("a")
    if copied == "before the run":
        server.copy()
        eventful = Eventful(did, int, int, fail_over)
    else:
        eventful = Eventful(did, server.copy, int, fail_over)

    assert go(eventful.flow) == 6
    assert did.all == [f"work {number}" for number in range(4)]
    assert database.log("r") == (here / "r.jsonl").read_bytes()
    be_on("b")
    assert go(eventful.flow) == 6
    assert verify("r").ok


def test_a_failover_loses_a_takeover(
    server: Server, database: Database, did: Effects, be_on: Machine
) -> None:
    """The process that the new server does not know finds that another one has the run."""
    from crashes import Forked

    flows: list[object] = []

    def fail_over() -> None:
        server.stop("immediate")
        server.use_copy()
        server.start("-c fsync=off")
        be_on("b")
        assert Forked(lambda: go(flows[0])).wait().code == 0
        be_on("a")

    eventful = Eventful(did, fail_over)
    flows.append(Eventful(did).flow)
    server.copy()
    here = be_on("a")

    with pytest.raises(LogWriteError, match="executes the run"):
        go(eventful.flow)
    assert did.all == ["work 0", *(f"work {number}" for number in range(4))]
    assert database.log("r") != (here / "r.jsonl").read_bytes()
    assert go(eventful.flow) == 6
    assert database.log("r") == (here / "r.jsonl").read_bytes()


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_statement_that_fails_leaves_no_gap(
    database: Database, did: Effects, be_on: Machine, nth: int
) -> None:
    database.ask("CREATE SEQUENCE inserts")
    database.ask(
        "CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF nextval('inserts') = {nth} THEN RAISE 'out of space'; END IF; RETURN NEW; END $$"
    )
    database.ask(
        "CREATE TRIGGER fail_once BEFORE INSERT ON tapps_otel.lines "
        "FOR EACH ROW EXECUTE FUNCTION fail_once()"
    )
    here = be_on("a")

    assert go(Eventful(did).flow) == 6
    assert database.log("r") == (here / "r.jsonl").read_bytes()


@pytest.mark.parametrize("call", ["write", "sync"])
@pytest.mark.parametrize("nth", range(1, 12))
def test_the_local_disk_fails_once(
    database: Database, did: Effects, be_on: Machine, call: str, nth: int
) -> None:
    here = be_on("a")
    with files.use(FaultyFiles(call, nth, times=1, keep=30)), suppress(LogWriteError):
        go(Eventful(did).flow)

    assert go(Eventful(did).flow) == 6
    assert database.log("r") == (here / "r.jsonl").read_bytes()
    assert len(did.all) - len(set(did.all)) <= 1
    assert verify("r").ok
