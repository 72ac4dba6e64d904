"""Removing old runs: which go, which stay, and what proves that they were there."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from commands import Cli
from crashes import Forked, killed
from logs import start, write
from tapps_otel import (
    configure,
    history,
    list_runs,
    pack,
    prune,
    step,
    unpack,
    verify,
    workflow,
)
from tapps_otel.errors import InvalidIdError, LogDamagedError, RunBusyError
from tapps_otel.log import files as log_files
from tapps_otel.log.files import Files
from tapps_otel.log.lease import Lease
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.ledger import Ledger, Whole
from tapps_otel.run.pruning import PruneReport

LOGS = Path("logs")
DAY = timedelta(days=1)


@step
def large() -> str:
    return "x" * 70_000


@workflow
def flow(*, fail: bool = False) -> int:
    if fail:
        raise ValueError("no")
    return len(large())


@workflow
def child() -> int:
    return len(large())


@workflow
def parent(*, fail: bool = False) -> int:
    @step
    def call() -> int:
        return child.options(workflow_id="c")()

    call()
    if fail:
        raise ValueError("no")
    return 1


def age(days: float, *names: str) -> None:
    """Let files have been written to this many days ago."""
    at = time.time() - days * 86_400
    for name in names:
        os.utime(LOGS / name, (at, at))


def run(name: str, *, days: float = 0, fail: bool = False) -> None:
    with suppress(ValueError):
        flow.options(workflow_id=name)(fail=fail)
    age(days, f"{name}.jsonl")


def names() -> list[str]:
    return sorted(one.workflow_id for one in list_runs())


def pruned(report: PruneReport) -> list[str]:
    return [one.workflow_id for one in report.pruned]


def why_kept(report: PruneReport, name: str) -> str:
    return next(one.why for one in report.kept if one.workflow_id == name)


def files() -> set[str]:
    return {path.name for path in LOGS.iterdir()}


# ---------------------------------------------------------------- which runs


def test_old_runs_are_removed_with_all_that_belongs_to_them() -> None:
    run("old", days=100)
    run("new", days=80)
    Ledger(LOGS / "old.ledger", "to").close("old.jsonl", Whole(4, history_sha("old"), 2))
    write(LOGS / "old+0123abcd.jsonl", [start("old")], workflow_id="old")
    age(100, "old+0123abcd.jsonl")
    (LOGS / "old.lease").touch(0o600)
    report = prune(older_than=90 * DAY, unsent=True)

    assert pruned(report) == ["old"]
    assert report.size > 70_000
    assert files() == {"new.jsonl", "new.blobs", "pruned.jsonl"}
    assert names() == ["new"]
    assert history("new").status == "completed"


def history_sha(name: str) -> str:
    return verify(name).log.sha


def test_the_newest_runs_are_kept() -> None:
    for days in range(5):
        run(f"r{days}", days=days)

    assert pruned(prune(keep=3)) == ["r4", "r3"]
    assert pruned(prune(older_than=DAY / 2, keep=2)) == ["r2"]
    assert names() == ["r0", "r1"]


def test_the_oldest_runs_go_until_the_rest_is_small_enough() -> None:
    for days in range(4):
        run(f"r{days}", days=days)
    whole = prune(keep=10).left
    report = prune(max_size=whole // 2 + 1000)

    assert pruned(report) == ["r3", "r2"]
    assert report.left <= whole // 2 + 1000
    assert pruned(prune(max_size=0, keep=1)) == ["r1"]


def test_only_runs_of_a_status_are_removed() -> None:
    run("good", days=9)
    run("bad", days=9, fail=True)

    assert pruned(prune(older_than=DAY, status="failed")) == ["bad"]
    assert names() == ["good"]


def test_a_dry_run_removes_nothing() -> None:
    run("old", days=9)
    before = files()
    report = prune(older_than=DAY, dry_run=True)

    assert pruned(report) == ["old"]
    assert files() == before


def test_a_condition_is_needed() -> None:
    with pytest.raises(ValueError, match="older_than, keep or max_size"):
        prune(status="failed")
    with pytest.raises(ValueError, match="negative"):
        prune(keep=-1)


def test_an_empty_folder_stays_empty() -> None:
    assert pruned(prune(keep=0)) == []
    assert not LOGS.exists()


# ---------------------------------------------------------------- what protects a run


def test_a_run_in_progress_is_kept() -> None:
    run("r", days=9)
    held = Lease(Store(LOGS.absolute()).lease_path("r"), "r")
    try:
        report = prune(older_than=DAY)
    finally:
        held.release()

    assert pruned(report) == []
    (kept,) = report.kept
    assert (kept.workflow_id, kept.status, kept.why) == ("r", "completed", "a process executes it")
    assert verify("r").ok


def test_an_interrupted_run_is_removed_only_by_its_status() -> None:
    killed(flow.options(workflow_id="r"), after="step_start large")
    age(9, "r.jsonl")
    report = prune(older_than=DAY)

    assert pruned(report) == []
    assert why_kept(report, "r") == "it is interrupted: --status interrupted removes it"
    assert pruned(prune(older_than=DAY, status="interrupted")) == ["r"]


def test_a_run_that_an_unfinished_run_called_is_kept_until_that_is_gone() -> None:
    """Its caller would call it again on resume, and do its work twice."""
    with pytest.raises(ValueError, match="no"):
        parent.options(workflow_id="p")(fail=True)
    age(9, "c.jsonl")
    report = prune(older_than=DAY)

    assert pruned(report) == []
    assert why_kept(report, "c") == "run 'p', which called it, has not completed"
    age(8, "p.jsonl")
    assert pruned(prune(older_than=DAY)) == ["p", "c"]


def test_a_run_is_kept_for_an_unfinished_caller_in_another_folder(tmp_path: Path) -> None:
    """So it is where that folder cannot be looked into: an unmounted disk looks like that."""

    @workflow
    def caller() -> None:
        child.options(workflow_id="c", log_dir=LOGS)()
        raise ValueError("no")

    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(ValueError, match="no"):
        caller.options(workflow_id="p", log_dir=elsewhere)()
    age(9, "c.jsonl")

    kept = why_kept(prune(older_than=DAY), "c")
    assert kept == f"run 'p' in {elsewhere}, which called it, has not completed"
    elsewhere.rename(tmp_path / "away")
    kept = why_kept(prune(older_than=DAY), "c")
    assert kept == f"run 'p', which called it, was in {elsewhere}, which is not there"
    assert names() == ["c"]
    (tmp_path / "away").rename(elsewhere)
    (elsewhere / "p.jsonl").unlink()
    assert pruned(prune(older_than=DAY)) == ["c"]


def test_a_run_that_a_completed_run_called_is_removed() -> None:
    parent.options(workflow_id="p")()
    age(9, "c.jsonl")

    assert pruned(prune(older_than=DAY)) == ["c"]
    assert parent.options(workflow_id="p")() == 1


def test_a_run_whose_spans_are_to_be_sent_is_kept() -> None:
    run("r", days=9)
    configure(otlp_endpoint="http://127.0.0.1:9")
    report = prune(older_than=DAY)

    assert "still to be sent" in why_kept(report, "r")
    Ledger(LOGS / "r.ledger", "to").close("r.jsonl", Whole(4, history_sha("r"), 2))
    assert pruned(prune(older_than=DAY)) == ["r"]


def test_a_run_that_was_sent_in_part_is_kept() -> None:
    run("r", days=9)
    Ledger(LOGS / "r.ledger", "to").mark("r.jsonl", 3, "ab" * 32)

    assert pruned(prune(older_than=DAY)) == []
    assert pruned(prune(older_than=DAY, unsent=True)) == ["r"]


def test_side_logs_of_no_run_are_removed_by_their_age() -> None:
    for name in ("traces+00000001", "traces+00000002"):
        write(LOGS / f"{name}.jsonl", [start("traces")], workflow_id="traces")
    age(9, "traces+00000001.jsonl")
    report = prune(older_than=DAY)

    assert pruned(report) == ["traces+00000001"]
    assert files() == {"traces+00000002.jsonl", "pruned.jsonl"}


def test_links_are_not_followed(tmp_path: Path) -> None:
    run("r", days=9)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    for path in (LOGS / "r.blobs").iterdir():
        path.unlink()
    (LOGS / "r.blobs").rmdir()
    (LOGS / "r.blobs").symlink_to(precious)
    prune(older_than=DAY)

    assert [path.name for path in precious.iterdir()] == ["file"]


def test_a_log_that_others_can_write_to_is_kept() -> None:
    run("r", days=9)
    (LOGS / "r.jsonl").chmod(0o666)
    report = prune(older_than=DAY)

    assert "TAPPS_OTEL_TRUST" in why_kept(report, "r")
    assert names() == ["r"]


# ---------------------------------------------------------------- tombstones


def test_a_tombstone_has_the_head_of_the_log_and_who_removed_it_and_why() -> None:
    run("r", days=9)
    head = verify("r").log
    prune(older_than=DAY)
    line = json.loads((LOGS / "pruned.jsonl").read_text())

    found = line["attributes"]
    assert (found["run"], found["seq"], found["sha"]) == ("r", head.seq, head.sha)
    assert found["why"].startswith("last written to before ")
    assert {"user", "host", "pid", "status", "workflow", "bytes"} <= found.keys()


def test_tombstones_are_chained_and_verified(cli: Cli) -> None:
    run("a", days=9)
    run("b", days=9)
    prune(older_than=DAY)

    assert verify("pruned").ok
    assert "pruned" in cli("verify", "--all").out
    path = LOGS / "pruned.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"run":"a"', b'"run":"z"'))
    assert not verify("pruned").ok
    run("c", days=9)
    with pytest.raises(LogDamagedError):
        prune(older_than=DAY)
    assert names() == ["c"]
    path.unlink()  # the other logs are checked after the test


def test_they_are_no_run(cli: Cli) -> None:
    run("a", days=9)
    run("b")
    prune(older_than=DAY)

    assert names() == ["b"]
    assert "pruned" not in cli("list").out
    with pytest.raises(InvalidIdError, match="'pruned' for what prune removes"):
        flow.options(workflow_id="pruned")()
    assert pruned(prune(keep=0)) == ["b"]


def test_one_process_at_a_time_prunes() -> None:
    run("r", days=9)
    held = Lease(Store(LOGS.absolute()).lease_path("pruned"), "pruned")
    try:
        with pytest.raises(RunBusyError):
            prune(older_than=DAY)
    finally:
        held.release()
    assert names() == ["r"]


def test_side_logs_that_are_written_after_their_run_was_pruned_are_no_damage(cli: Cli) -> None:
    run("r", days=9)
    prune(older_than=DAY)
    write(LOGS / "r+0123abcd.jsonl", [start("r")], workflow_id="r")
    done = cli("verify", "--all")

    assert done.code == 0, done
    assert "was pruned" in done.out


class SideLogAtRemoval(Files):
    """Another process writes a side log of the run just before its first file is removed."""

    def remove(self, path: Path, *, folder: int | None = None) -> None:
        late = LOGS / "r+0123abcd.jsonl"
        if path.name == "r.ledger" and not late.exists():
            write(late, [start("r")], workflow_id="r")
        super().remove(path, folder=folder)


def test_a_side_log_that_was_not_checked_is_not_removed() -> None:
    run("r", days=9)
    with log_files.use(SideLogAtRemoval()):
        assert pruned(prune(older_than=DAY)) == ["r"]
    prune(older_than=DAY)  # would finish an earlier call

    assert files() == {"r+0123abcd.jsonl", "pruned.jsonl"}
    assert verify("pruned").ok


def test_what_is_left_includes_side_logs_written_after_their_run_was_pruned() -> None:
    run("r", days=9)
    prune(older_than=DAY)
    write(LOGS / "r+0123abcd.jsonl", [start("r")], workflow_id="r")

    assert prune(older_than=DAY).left == (LOGS / "r+0123abcd.jsonl").stat().st_size


def test_a_folder_of_logs_that_is_a_link_is_pruned(tmp_path: Path) -> None:
    run("r", days=9)
    link = tmp_path / "link"
    link.symlink_to(LOGS.absolute())

    assert pruned(prune(older_than=DAY, log_dir=link)) == ["r"]
    assert files() == {"pruned.jsonl"}


def test_a_pruned_id_can_be_used_again() -> None:
    run("r", days=9)
    prune(older_than=DAY)
    run("r")

    assert verify("r").ok
    assert prune(older_than=DAY).pruned == []
    assert names() == ["r"]


@pytest.mark.parametrize("back", ["copied", "unpacked"])
def test_a_run_that_was_restored_is_removed_only_by_the_conditions(
    back: str, tmp_path: Path
) -> None:
    run("r")
    run("old", days=9)
    pack("r", tmp_path / "r.zip")
    shutil.copytree(LOGS, tmp_path / "copy")
    assert "r" in pruned(prune(keep=0))
    if back == "copied":
        shutil.copytree(tmp_path / "copy", LOGS, dirs_exist_ok=True)
    else:
        unpack(tmp_path / "r.zip")

    prune(older_than=DAY)

    assert names() == ["r"]
    assert verify("r").ok
    assert flow.options(workflow_id="r")() == 70_000


# ---------------------------------------------------------------- the command


def test_the_command_prunes(cli: Cli) -> None:
    run("old", days=9)
    run("new")
    dry = cli("prune", "--older-than", "3d", "--dry-run")
    done = cli("prune", "--older-than", "3d", "--json")

    assert dry.out.startswith("would be removed  old  completed, ")
    assert [one["workflow_id"] for one in json.loads(done.out)["pruned"]] == ["old"]
    assert names() == ["new"]


@pytest.mark.parametrize(
    "arguments",
    [[], ["--status", "failed"], ["--older-than", "soon"], ["--max-size", "big"], ["--keep", "-1"]],
    ids=" ".join,
)
def test_wrong_usage_removes_nothing(arguments: list[str], cli: Cli) -> None:
    run("old", days=9)

    assert cli("prune", *arguments).code == 2
    assert names() == ["old"]


@pytest.mark.parametrize("size", ["1KB", "0.5KiB", "10"])
def test_sizes_have_units(size: str, cli: Cli) -> None:
    run("old", days=9)

    assert cli("prune", "--max-size", size).code == 0
    assert names() == []
    assert cli("prune", "--max-size", "5GB").code == 0


def test_a_run_that_begins_meanwhile_is_not_touched() -> None:
    """A process that resumes the run takes its lease; the other one keeps away."""
    killed(flow.options(workflow_id="r"), after="step_start large")
    age(9, "r.jsonl")
    resumed = Forked(flow.options(workflow_id="r"))
    report = prune(older_than=DAY, status="interrupted")
    outcome = resumed.wait()

    assert outcome.code == 0 or "busy" in outcome.error or "in progress" in outcome.error, outcome
    assert verify("r").ok if "r" in names() else pruned(report) == ["r"]
