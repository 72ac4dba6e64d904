"""A prune that is killed between any two file operations, and by a failing disk."""

from __future__ import annotations

import errno
import os
import time
from datetime import timedelta

import pytest

from commands import LOGS
from crashes import CRASHED, Deadly, in_child
from logs import start, write
from tapps_otel import history, list_runs, prune, step, verify, workflow
from tapps_otel.audit.verify import verify_all
from tapps_otel.log import files
from tapps_otel.log.files import FaultyFiles
from tapps_otel.log.store import Store
from tapps_otel.log.tombstones import pruned_runs
from tapps_otel.otel.replay.ledger import Ledger

DAY = timedelta(days=1)


@step
def large(n: int) -> str:
    return f"{n}" * 70_000


@workflow
def flow() -> int:
    return len(large(1)) + len(large(2))


def make() -> None:
    """Make an old run with every kind of file."""
    flow.options(workflow_id="r")()
    seq, sha = verify("r").log.seq, verify("r").log.sha
    Ledger(LOGS / "r.ledger", "to").mark("r.jsonl", seq, sha)
    write(LOGS / "r+0123abcd.jsonl", [start("r")], workflow_id="r")
    at = time.time() - 9 * 86_400
    for path in LOGS.glob("*.jsonl"):
        os.utime(path, (at, at))


def go() -> None:
    prune(older_than=DAY, unsent=True)


def runs() -> list[str]:
    return [one.workflow_id for one in list_runs()]


def check_whole_or_tombstone() -> None:
    """Either the run is there and intact, or there is a tombstone and no sign of damage."""
    if runs():
        assert verify("r").ok
        assert history("r").status == "completed"
        assert flow.options(workflow_id="r")() == 140_000
    else:
        assert "r" in pruned_runs(Store(LOGS.absolute()))
    assert all(report.ok for report in verify_all())


def test_a_kill_between_any_two_file_operations_leaves_the_run_or_its_tombstone() -> None:
    nth = 0
    gone = 0
    while True:
        nth += 1
        for path in LOGS.glob("*.jsonl"):
            path.unlink()
        make()

        def doomed(nth: int = nth) -> None:
            with files.use(Deadly(nth)):
                go()

        outcome = in_child(doomed)
        assert outcome.code in {0, CRASHED}, outcome
        check_whole_or_tombstone()
        gone += not runs()
        go()

        assert runs() == []
        left = {path.name for path in LOGS.iterdir()}
        assert left - {"pruned.lease"} == {"pruned.jsonl"}
        assert "r" in pruned_runs(Store(LOGS.absolute()))
        assert verify("pruned").ok
        if outcome.code == 0:
            break
    assert nth > 8
    assert gone > 2


@pytest.mark.parametrize("nth", range(1, 6))
def test_a_new_run_of_the_id_is_intact_whatever_a_killed_prune_left(nth: int) -> None:
    """What is left of large values does not matter: they are named by their content."""
    make()

    def doomed() -> None:
        with files.use(Deadly(nth, ["remove"])):
            go()

    assert in_child(doomed).code == CRASHED
    assert flow.options(workflow_id="r")() == 140_000
    assert verify("r").ok


@pytest.mark.parametrize("call", ["sync", "write"])
def test_without_a_tombstone_nothing_is_removed(call: str) -> None:
    make()
    before = {path.name for path in LOGS.iterdir()}
    with files.use(FaultyFiles(call, error=errno.EIO)), pytest.raises((OSError, Exception)):
        go()

    assert {path.name for path in LOGS.iterdir()} - {"pruned.jsonl"} == before
    assert verify("r").ok
    go()
    assert runs() == []
