"""Ids and paths that lead out of the folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logs import ID, start, write
from tapps_otel.errors import InvalidIdError, PlatformError
from tapps_otel.log import files as log_files
from tapps_otel.log.lease import Lease, holder
from tapps_otel.log.reader import check, read
from tapps_otel.log.store import Store
from tapps_otel.log.writer import LogWriter

LETTERS = st.sampled_from("aZ09._-/\\\0 é ۱\n~+:*?\u202e")


@given(st.text(LETTERS, max_size=20) | st.text(max_size=300))
@example("..")
@example(".")
@example("")
@example("a/../b")
@example("a\0b")
@example("a\n")
@example("a" * 129)
@example("a" * 300)
@example("r.events")
@example("-rf")
@example("ａ")  # a full-width letter
@example("१२")  # digits of another script
def test_an_id_names_a_file_in_the_folder_or_is_refused(workflow_id: str) -> None:
    folder = Path("/logs")
    store = Store(folder)
    try:
        made = [store.log_path(workflow_id), store.lease_path(workflow_id)]
    except InvalidIdError as error:
        said = str(error)
        assert "cannot be a run id: use 1 to 128 letters, digits" in said
        assert len(said) < 400
        return
    for path in made:
        assert path.parent == folder
        assert Path(os.path.normpath(path)).parent == folder
        assert path.name.isascii()
        assert len(path.name) < 255


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{ID}.jsonl"


def refuse_to_open(path: Path, *, error: int) -> None:
    """Nothing opens it, and nothing waits for its other end to be opened."""
    for call in (
        lambda: LogWriter(path, ID),
        lambda: list(read(path, ID)),
        lambda: check(path, ID),
    ):
        with pytest.raises(OSError, match=path.name) as caught:
            call()
        assert caught.value.errno == error


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
def test_a_link_in_the_place_of_a_log_is_refused(path: Path, tmp_path: Path, there: bool) -> None:
    target = tmp_path / "target"
    if there:
        write(tmp_path / "r2.jsonl", [start("r2")])
        (tmp_path / "r2.jsonl").rename(target)
    before = target.read_bytes() if there else None
    path.symlink_to(target)

    refuse_to_open(path, error=errno.ELOOP)
    assert (target.read_bytes() if target.exists() else None) == before


def test_a_pipe_in_the_place_of_a_log_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)

    refuse_to_open(path, error=errno.EINVAL)


def test_a_folder_in_the_place_of_a_log_is_refused(path: Path) -> None:
    path.mkdir()
    for call, error in ((lambda: LogWriter(path, ID), errno.EISDIR), (lambda: check(path, ID), 22)):
        with pytest.raises(OSError, match=path.name) as caught:
            call()
        assert caught.value.errno == error


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lease_is_only_taken_on_a_regular_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "r.lease"
    if kind == "link":
        (tmp_path / "precious").write_text("data")
        path.symlink_to(tmp_path / "precious")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()

    assert holder(path) is None
    with pytest.raises(OSError, match="lease"):
        Lease(path, ID)
    if kind == "link":
        assert (tmp_path / "precious").read_text() == "data"


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    store = Store(tmp_path / "logs")

    with pytest.raises(OSError, match="logs"):
        LogWriter(store.log_path(ID), ID)
    with pytest.raises(OSError, match="logs"):
        list(store.runs())


def test_a_system_without_file_locks_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "fcntl", None)

    with pytest.raises(PlatformError, match="keeps logs on Linux and macOS only"):
        LogWriter(path, ID)
    assert not path.exists()
