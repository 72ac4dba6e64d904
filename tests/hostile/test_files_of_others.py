"""Files that somebody prepared in the place of ours: none is written, none is cut, none decides."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from capabilities import need
from commands import Cli
from logs import ID, start, write
from tapps_otel import configure, fork, history, resume, step, workflow
from tapps_otel.errors import BlobDamagedError, LogWriteError
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.files import UntrustedFileError
from tapps_otel.log.lease import Lease
from tapps_otel.log.writer import LogWriter
from tapps_otel.otel.replay.ledger import Ledger

OTHER = 12_345  # a user's number that this process does not run as


PROGRAM = """
from tapps_otel import workflow
@workflow
def flow() -> None: raise ValueError("of the user")
"""


@step
def large() -> str:
    return "x" * 100_000


@workflow
def flow() -> str:
    return large()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    configure(log_dir=tmp_path / "logs")
    return tmp_path / "logs"


# ---------------------------------------------------------------- links


def test_a_link_in_the_place_of_the_folder_of_blobs_is_not_followed(
    folder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.mkdir()
    (folder / f"{ID}.blobs").symlink_to(elsewhere)

    with pytest.raises(OSError, match="a link"):
        Blobs(folder / f"{ID}.blobs").put(b"data")
    name = sha256(b"data").hexdigest()
    (elsewhere / name).write_bytes(b"data")
    with pytest.raises(BlobDamagedError, match="a link"):
        Blobs(folder / f"{ID}.blobs").get(name)
    assert [one.name for one in elsewhere.iterdir()] == [name]


def test_a_folder_of_blobs_that_becomes_a_link_meanwhile_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened once, and files are opened in what was opened."""
    elsewhere, own = tmp_path / "elsewhere", folder / f"{ID}.blobs"
    elsewhere.mkdir()
    genuine = os.open

    def racing(path: object, *rest: int, **named: int | None) -> int:
        descriptor = genuine(path, *rest, **named)  # type: ignore[arg-type]
        if path == own:
            own.rename(tmp_path / "moved")
            own.symlink_to(elsewhere)
        return descriptor

    monkeypatch.setattr(os, "open", racing)
    name = Blobs(own, sync=False).put(b"data")

    assert list(elsewhere.iterdir()) == []
    assert (tmp_path / "moved" / name).read_bytes() == b"data"


# What opens a file of ours to write to it, by its name.
OPENERS: dict[str, Callable[[Path], object]] = {
    f"{ID}.jsonl": lambda path: LogWriter(path, ID),
    f"{ID}.lease": lambda path: Lease(path, ID),
    f"{ID}.ledger": lambda path: Ledger(path, "to").mark("r.jsonl", 1, "ab"),
}


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """The file is refused, with a way out, and is as before."""
    before = path.read_bytes()
    with pytest.raises((UntrustedFileError, LogWriteError), match=r"TAPPS_OTEL_TRUST") as caught:
        yield
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", OPENERS)
def test_a_hard_link_is_neither_cut_nor_written(name: str, folder: Path, tmp_path: Path) -> None:
    write(folder / f"{ID}.jsonl", [start()])
    precious = tmp_path / "precious"
    precious.write_bytes((folder / f"{ID}.jsonl").read_bytes())
    (folder / name).unlink(missing_ok=True)
    os.link(precious, folder / name)

    with refused(folder / name):
        OPENERS[name](folder / name)
    assert precious.read_bytes()


# ---------------------------------------------------------------- other users


@pytest.mark.parametrize("name", OPENERS)
def test_a_file_of_another_user_is_not_used(name: str, folder: Path) -> None:
    need("root")
    write(folder / f"{ID}.jsonl", [start()])
    (folder / name).touch()
    os.chown(folder / name, OTHER, -1)

    with refused(folder / name):
        OPENERS[name](folder / name)


@pytest.mark.parametrize("name", OPENERS)
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_write_to_is_not_used(name: str, mode: int, folder: Path) -> None:
    write(folder / f"{ID}.jsonl", [start()])
    (folder / name).touch()
    (folder / name).chmod(mode)

    with refused(folder / name):
        OPENERS[name](folder / name)


def test_a_folder_of_blobs_of_another_user_is_not_used(folder: Path) -> None:
    need("root")
    own = folder / f"{ID}.blobs"
    own.mkdir(parents=True)
    os.chown(own, OTHER, -1)

    with pytest.raises(UntrustedFileError, match="belongs to user 12345"):
        Blobs(own).put(b"data")
    assert list(own.iterdir()) == []


@pytest.mark.parametrize("trust", ["FOLDER", "*"])
def test_a_folder_that_is_trusted_is_used(trust: str, folder: Path, tmp_path: Path) -> None:
    assert flow.options(workflow_id=ID)()
    (folder / f"{ID}.lease").touch()
    (folder / f"{ID}.lease").chmod(0o666)
    configure(trust=trust.replace("FOLDER", f"{tmp_path}:/nowhere"))

    Lease(folder / f"{ID}.lease", ID).detach()
    configure(trust=[f"{folder}-of-another-name", str(folder / "inside")])
    with pytest.raises(UntrustedFileError):
        Lease(folder / f"{ID}.lease", ID)


def test_a_log_that_another_user_may_have_written_is_read_and_not_resumed(folder: Path) -> None:
    assert flow.options(workflow_id=ID)()
    path = folder / f"{ID}.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    path.chmod(0o666)

    assert history(ID).status == "interrupted"
    with refused(path):
        flow.options(workflow_id=ID)()


def test_such_a_log_is_not_forked_into_one_of_ours(folder: Path) -> None:
    assert flow.options(workflow_id=ID)()
    path = folder / f"{ID}.jsonl"
    step_id = history(ID).steps[0].step_id
    path.chmod(0o666)

    with refused(path):
        fork(ID, from_step=step_id, new_workflow_id="mine")
    assert not (folder / "mine.jsonl").exists()


def test_code_that_such_a_log_names_is_not_imported(cli: Cli, folder: Path) -> None:
    program = Path("program.py")
    program.write_text(PROGRAM)
    assert cli("run", "program.py:flow", "--id", ID).code != 0
    (folder / f"{ID}.jsonl").chmod(0o666)
    program.write_text(f"import pathlib; pathlib.Path('imported').touch()\n{PROGRAM}")
    for arguments in (["resume", ID], ["resume", "--last"]):
        done = cli(*arguments)

        assert done.code != 0
        assert "TAPPS_OTEL_TRUST" in done.err
        assert "unexpected" not in done.err
    with pytest.raises(UntrustedFileError):
        resume(ID)
    assert not Path("imported").exists()


# ---------------------------------------------------------------- what we make


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o277, 0o777])
def test_any_umask_gives_private_files_that_can_be_used_again(mask: int, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "logs"
    configure(log_dir=folder)
    before = os.umask(mask)
    try:
        assert flow.options(workflow_id=ID)() == large()
        assert flow.options(workflow_id=ID)() == large()
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    folders = [folder.parent, folder, folder / f"{ID}.blobs"]

    assert modes == {0o600}
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_a_blob_of_any_size_is_verified_in_bounded_memory(folder: Path) -> None:
    blobs = Blobs(folder / f"{ID}.blobs")
    name = blobs.put(b"data")
    with (folder / f"{ID}.blobs" / name).open("r+b") as file:
        file.truncate(256 << 20)  # a hole: it takes no room on the disk
    tracemalloc.start()
    for call in (blobs.check, blobs.get):
        with pytest.raises(BlobDamagedError, match="was changed"):
            call(name)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert most < 8 << 20
