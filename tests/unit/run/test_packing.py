"""Moving a run in one file, and archives of unknown origin."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import Cli
from crashes import die_at, killed
from logs import start, write
from tapps_otel import history, pack, step, unpack, verify, workflow
from tapps_otel.errors import (
    ArchiveError,
    BlobDamagedError,
    LogError,
    RunBusyError,
    RunConflictError,
    RunNotFoundError,
)
from tapps_otel.log.files import Files, use
from tapps_otel.log.lease import Lease
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.ledger import Ledger

LOGS, OTHER, FILE = Path("logs"), Path("other"), Path("run.zip")
ran: list[str] = []


@step
def large() -> str:
    ran.append("large")
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


@pytest.fixture
def packed() -> Path:
    """An archive of a killed run that called another one, with every kind of file."""
    killed(flow.options(workflow_id="r"), at="dies")
    write(LOGS / "r+0123abcd.jsonl", [start("r")], workflow_id="r")
    Ledger(LOGS / "r.ledger", "to").mark("r.jsonl", 1, "ab" * 32)
    pack("r", FILE)
    return FILE


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_moved_with_all_that_belongs_to_it(packed: Path) -> None:
    report = unpack(packed, log_dir=OTHER)

    assert report.runs == ("r", "c")
    assert names(OTHER) == {name for name in names(LOGS) if not name.endswith(".lease")}
    for name in names(OTHER):
        assert (OTHER / name).read_bytes() == (LOGS / name).read_bytes()
    assert {path.stat().st_mode & 0o777 for path in OTHER.rglob("*") if path.is_file()} == {0o600}
    assert stat.S_IMODE(packed.stat().st_mode) == 0o600


def test_it_is_resumed_where_it_was_unpacked(packed: Path) -> None:
    unpack(packed, log_dir=OTHER)
    ran.clear()

    assert flow.options(workflow_id="r", log_dir=OTHER)() == "xxxxdone"
    assert ran == []
    assert history("c", log_dir=OTHER).status == "completed"


def test_an_existing_run_is_never_touched(packed: Path) -> None:
    before = {name: (LOGS / name).read_bytes() for name in names(LOGS)}
    with pytest.raises(RunConflictError, match="nothing was unpacked"):
        unpack(packed)

    after = {name: (LOGS / name).read_bytes() for name in names(LOGS)}
    assert {name: after.get(name) for name in before if "lease" not in name} == {
        name: data for name, data in before.items() if "lease" not in name
    }


def test_a_run_in_progress_is_not_packed() -> None:
    flow.options(workflow_id="r")()
    held = Lease(Store(LOGS.absolute()).lease_path("c"), "c")
    try:
        with pytest.raises(RunBusyError):
            pack("r", FILE)
    finally:
        held.release()
    assert not FILE.exists()


def test_a_damaged_run_is_not_packed() -> None:
    flow.options(workflow_id="r")()
    blob = next((LOGS / "r.blobs").iterdir())
    blob.write_bytes(b"changed")
    with pytest.raises(BlobDamagedError):
        pack("r", FILE)
    assert not FILE.exists()


def test_a_file_is_not_replaced_and_a_run_is_needed() -> None:
    flow.options(workflow_id="r")()
    FILE.write_text("precious")
    with pytest.raises(FileExistsError):
        pack("r", FILE)
    assert FILE.read_text() == "precious"
    with pytest.raises(RunNotFoundError):
        pack("no-run", Path("new.zip"))


# ---------------------------------------------------------------- archives of others


def refill(packed: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """Return an archive whose files were changed."""
    with zipfile.ZipFile(packed) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    made = Path("made.zip")
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made


@pytest.mark.parametrize(
    "name",
    [
        "../escaped", "/tmp/escaped", "r.blobs/../../escaped", "r.blobs/short", "other.txt",
        "r.lease", ".hidden.jsonl", "pruned.jsonl", "traces+0123abcd.jsonl", "x.jsonl/",
        "r\\x.jsonl",
    ],
)  # fmt: skip
def test_a_name_that_no_run_has_is_refused(name: str, packed: Path) -> None:
    made = refill(packed, lambda files: files.update({name: b"data"}))
    with pytest.raises(ArchiveError):
        unpack(made, log_dir=OTHER)

    assert names(OTHER) == set() if OTHER.exists() else True
    assert not Path("escaped").exists()


def test_a_link_is_refused(packed: Path) -> None:
    link = zipfile.ZipInfo("s.jsonl")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError, match="not a regular file"):
        unpack(packed, log_dir=OTHER)


def test_an_archive_that_claims_to_be_too_large_is_refused(packed: Path) -> None:
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("s.jsonl", b"small")
        archive.getinfo("s.jsonl").file_size = 65 << 30
    with pytest.raises(ArchiveError, match=r"run\.zip: .* holds more than \d+ files, or \d+ bytes"):
        unpack(packed, log_dir=OTHER)


def test_a_name_that_occurs_twice_is_refused(packed: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("r.jsonl", "again")
    with pytest.raises(ArchiveError, match="twice"):
        unpack(packed, log_dir=OTHER)


def test_a_changed_log_or_value_is_refused(packed: Path) -> None:
    def cut(files: dict[str, bytes]) -> None:
        files["r.jsonl"] = files["r.jsonl"].replace(b"large", b"LARGE", 1)

    def exchange(files: dict[str, bytes]) -> None:
        files[next(name for name in files if "blobs/" in name)] = b"other"

    def rename(files: dict[str, bytes]) -> None:
        files["z.jsonl"] = files["c.jsonl"]

    for change in (cut, exchange, rename):
        with pytest.raises(LogError):
            unpack(refill(packed, change), log_dir=OTHER)
        assert names(OTHER) == set()
        assert [path.name for path in OTHER.iterdir()] == []


def test_what_is_larger_than_the_disk_is_refused(packed: Path) -> None:
    class Full(Files):
        def free_bytes(self, folder: Path) -> int:
            return 1000

    with use(Full()), pytest.raises(ArchiveError, match="the disk has less"):
        unpack(packed, log_dir=OTHER)
    assert names(OTHER) == set()


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_archive_is_refused(data: bytes) -> None:
    FILE.write_bytes(data)
    with pytest.raises(ArchiveError):
        unpack(FILE, log_dir=OTHER)


def test_a_cut_archive_is_refused(packed: Path) -> None:
    data = packed.read_bytes()
    for length in range(0, len(data), 97):
        FILE.write_bytes(data[:length])
        with pytest.raises(ArchiveError):
            unpack(FILE, log_dir=OTHER)


def test_the_commands_move_a_run(cli: Cli) -> None:
    flow.options(workflow_id="r")()
    done = cli("pack", "r", "run.zip")
    again = cli("pack", "r", "run.zip")
    moved = cli("unpack", "run.zip", "--log-dir", "other")

    assert done.out.startswith("packed  r, c  ")
    assert again.code == 2
    assert moved.out.startswith("unpacked  r, c  ")
    assert json.loads(cli("verify", "r", "--log-dir", "other", "--json").out)["ok"]
    assert verify("c", log_dir=OTHER).ok
    assert cli("unpack", "run.zip", "--log-dir", "other").code == 5
