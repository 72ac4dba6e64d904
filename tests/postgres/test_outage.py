"""Servers that crash, hang, cannot be reached, or come back without what they had."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from crashes import Effects, Forked, die, go, killed
from databases import Database, Server
from effort import sample
from tapps_otel import configure, history, list_runs, step, verify, workflow
from tapps_otel.errors import LogWriteError, StoreError
from tapps_otel.log import files
from tapps_otel.log.files import FaultyFiles
from tapps_otel.log.postgres.connecting import Database as Reading
from tapps_otel.run.mirrors import pull
from tapps_otel.settings_types import Durability
from waiting import until

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


def test_what_was_acknowledged_survives_a_crash_of_the_server_and_of_the_process(
    server: Server, database: Database, did: Effects, be_on: Machine
) -> None:
    def crash() -> None:
        server.stop("immediate")
        die()

    server.stop()
    server.start(
        "-c fsync=off -c wal_writer_delay=10s"
    )  # it writes what is waited for, hardly more
    try:
        be_on("a")
        killed(lambda: go(Eventful(did, int, int, crash).flow))
    finally:
        with suppress(AssertionError):
            server.stop()
        server.start("-c fsync=off")
    assert database.log("r").count(b'"event_type":"step_finish"') == 2


@pytest.mark.parametrize("durability", ["commit", "os"])
def test_a_store_that_stays_away_stops_the_run_until_it_is_resumed(  # noqa: PLR0917 - fixtures
    server: Server,
    database: Database,
    did: Effects,
    be_on: Machine,
    caplog: pytest.LogCaptureFixture,
    durability: Durability,
) -> None:
    configure(store_wait=0.2, durability=durability)
    here = be_on("a")
    try:
        with pytest.raises(LogWriteError, match="has not confirmed it"):
            go(Eventful(did, int, server.stop).flow)
        assert "may be in this log alone" in caplog.text
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


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """Lock the lines, so that every query about them waits."""
    with psycopg.connect(database.address) as connection:
        connection.execute("LOCK TABLE tapps_otel.lines IN ACCESS EXCLUSIVE MODE")
        yield


def test_no_query_waits_without_end(database: Database, did: Effects, be_on: Machine) -> None:
    be_on("a")
    go(Eventful(did).flow, workflow_id="other")
    configure(store_wait=0.2)
    with locked(database):
        for query in (
            lambda: go(Eventful(did).flow),
            lambda: [*list_runs()],
            lambda: pull("other"),
        ):
            with pytest.raises((StoreError, LogWriteError), match="timeout"):
                query()

    assert "other" in [run.workflow_id for run in list_runs()]


def test_a_server_that_does_not_answer_is_not_asked_without_end(
    database: Database, did: Effects, be_on: Machine
) -> None:
    configure(store_wait=0.2)
    be_on("a")
    pid = database.server.pid
    os.kill(pid, signal.SIGSTOP)  # it accepts no connection
    try:
        with pytest.raises(StoreError):
            go(Eventful(did).flow)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert go(Eventful(did).flow) == 6


def test_a_query_that_is_not_answered_ends(database: Database) -> None:
    pid = 0
    try:
        with Reading(database.address, 0.1).opened() as connection:
            pid = connection.info.backend_pid
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(psycopg.OperationalError, match="no answer"):
                connection.execute("SELECT 1")
            assert connection.closed
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_store_may_be_waited_for_as_long_as_one_likes(
    database: Database, did: Effects, be_on: Machine
) -> None:
    configure(store_wait=1e9)
    be_on("a")

    assert go(Eventful(did).flow) == 6


def test_a_standby_that_is_gone_stops_a_run_and_not_its_start(
    server: Server, database: Database, did: Effects, be_on: Machine
) -> None:
    be_on("a")
    configure(store_wait=0.2)
    server.stop()
    server.start("-c fsync=off -c synchronous_standby_names=gone")
    try:
        with pytest.raises(LogWriteError, match="has not confirmed it"):
            go(Eventful(did).flow)
    finally:
        server.stop("immediate")
        server.start("-c fsync=off")

    assert go(Eventful(did).flow) == 6


@pytest.mark.parametrize("waiting", ["step", "run"])
def test_an_interrupt_ends_the_wait_for_a_store(
    server: Server, database: Database, did: Effects, be_on: Machine, waiting: str
) -> None:
    def stop() -> None:
        server.stop()
        did.note("stopped")

    @workflow
    def ends() -> None:
        stop()

    def late() -> str:
        try:
            go(ends if waiting == "run" else Eventful(did, stop).flow)
        except BaseException as error:  # noqa: BLE001 - it is what the test is about
            return type(error).__name__
        return "completed"

    configure(store_wait=3600)
    here = be_on("a")
    child = Forked(late)
    try:
        end = b"workflow_end" if waiting == "run" else b"step_finish"
        until(lambda: "stopped" in did.all and end in (here / "r.jsonl").read_bytes())
        with socket.create_server((server.host, server.port)) as listener:
            for _ in range(2):  # it waits, and connects again and again
                listener.accept()[0].close()
            os.kill(child.pid, signal.SIGINT)
        assert child.wait().value == "KeyboardInterrupt"
    finally:
        server.start("-c fsync=off")


@pytest.mark.parametrize("copied", sample(["before the run", "in the run"], 1))
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
    server: Server, database: Database, did: Effects, be_on: Machine, tmp_path: Path
) -> None:
    """The process that the new server does not know finds that another one has the run."""
    may_end = tmp_path / "go"

    def holder() -> str:
        try:
            return str(go(Eventful(did, lambda: until(may_end.exists)).flow))
        except LogWriteError as error:
            return str(error)

    server.copy()
    here = be_on("a")
    child = Forked(holder)
    until(lambda: did.all)
    os.kill(child.pid, signal.SIGSTOP)  # otherwise it would connect again first
    server.stop("immediate")
    server.use_copy()
    server.start("-c fsync=off")
    be_on("b")
    assert go(Eventful(did).flow) == 6
    may_end.touch()
    os.kill(child.pid, signal.SIGCONT)

    assert "executes the run" in str(child.wait().value)
    assert did.all == ["work 0", *(f"work {number}" for number in range(4))]
    assert database.log("r") != (here / "r.jsonl").read_bytes()
    be_on("a")
    assert go(Eventful(did).flow) == 6
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
