"""`pack` and `unpack` that are killed between any two file operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crashes import CRASHED, Deadly, die_at, in_child, killed
from logs import start, write
from tapps_otel import list_runs, pack, prune, step, unpack, verify, workflow
from tapps_otel.audit.verify import verify_all
from tapps_otel.errors import RunConflictError
from tapps_otel.log import files
from tapps_otel.otel.replay.ledger import Ledger

pytestmark = pytest.mark.slow

LOGS, OTHER, FILE = Path("logs"), Path("other"), Path("run.zip")


@step
def large() -> str:
    return "x" * 70_000


@step
def dies() -> str:
    die_at("dies")
    return "done"


@workflow
def child() -> str:
    return large()[:3] + dies()


@step
def call() -> str:
    return child.options(workflow_id="c")()


@workflow
def flow() -> str:
    return large()[:1] + call()


@pytest.fixture(autouse=True)
def _run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed run that called another one, with every kind of file."""
    monkeypatch.setenv("TAPPS_OTEL_LOG_DIR", str(LOGS))
    killed(flow.options(workflow_id="r"), at="dies")
    write(LOGS / "r+0123abcd.jsonl", [start("r")], workflow_id="r")
    log = verify("r").log
    Ledger(LOGS / "r.ledger", "to").mark("r.jsonl", log.seq, log.sha)


def kills(call: Callable[[], object]) -> Iterator[int]:
    """Kill ``call`` before each of its file operations, until it reaches its end."""
    nth, code = 0, CRASHED
    while code == CRASHED:
        nth += 1

        def doomed(nth: int = nth) -> None:
            with files.use(Deadly(nth)):
                call()

        code = in_child(doomed).code
        yield nth
    assert code == 0
    assert nth > 10


def clear(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def content(folder: Path) -> dict[str, bytes]:
    """The files of the runs in a folder, but no leases: a killed process leaves those."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lease" and path.stem != "pruned"
    }


@pytest.mark.exhaustive
def test_a_killed_unpack_adds_a_run_whole_or_not_at_all_and_can_be_repeated() -> None:
    pack("r", FILE)
    whole = content(LOGS)
    of_run = {name for name in whole if name.startswith("r")}
    added = 0
    for _ in kills(lambda: unpack(FILE, log_dir=OTHER)):
        if (OTHER / "r.jsonl").exists():
            added += 1
            assert {name: content(OTHER)[name] for name in of_run} == {
                name: whole[name] for name in of_run
            }
            with pytest.raises(RunConflictError):
                unpack(FILE, log_dir=OTHER)
            prune(keep=9, log_dir=OTHER)
        else:
            assert "r" not in {one.workflow_id for one in list_runs(log_dir=OTHER)}
            unpack(FILE, log_dir=OTHER)

        assert content(OTHER) == whole
        assert list(OTHER.glob(".unpack*")) == []
        assert all(report.ok for report in verify_all(log_dir=OTHER))
        clear(OTHER)
    assert added > 2


def test_what_a_killed_unpack_left_is_removed_by_prune() -> None:
    pack("r", FILE)
    for _ in kills(lambda: unpack(FILE, log_dir=OTHER)):
        prune(keep=9, log_dir=OTHER)
        assert list(OTHER.glob(".unpack*")) == []
        clear(OTHER)


def test_a_killed_pack_writes_the_whole_file_or_none_and_can_be_repeated() -> None:
    before = content(LOGS)
    for _ in kills(lambda: pack("r", FILE)):
        if not FILE.exists():
            pack("r", FILE)
        assert content(LOGS) == before
        unpack(FILE, log_dir=OTHER)
        assert content(OTHER) == before
        assert verify("r", log_dir=OTHER).ok
        clear(OTHER)
        FILE.unlink()
