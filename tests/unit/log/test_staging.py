"""Staging folders: they leave nothing behind, and what another process left is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapps_otel.log.files import NotRegularFileError
from tapps_otel.log.lease import Lease
from tapps_otel.log.staging import abandoned, remove_abandoned, staging
from tapps_otel.log.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def leave(store: Store, name: str = ".unpack-0123abcd") -> Path:
    """What a killed process leaves: a log, large values, and a lease that is free."""
    folder = store.folder / name
    (folder / "r.blobs").mkdir(parents=True)
    (folder / "r.jsonl").write_bytes(b"a line")
    (folder / "r.blobs" / "0f").write_bytes(b"a value")
    lease_of(folder).touch()
    return folder


def lease_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lease")


def test_a_staging_folder_is_removed_with_all_that_is_in_it(store: Store) -> None:
    with staging(store) as stage:
        assert abandoned(store) == []
        (stage.folder / "r.jsonl").write_bytes(b"a line")
        (stage.folder / "r.blobs").mkdir()
        (stage.folder / "r.blobs" / "0f").write_bytes(b"a value")

    assert not stage.folder.exists()
    assert abandoned(store) == []


def test_what_killed_processes_left_is_removed_by_the_next(store: Store) -> None:
    left = [leave(store, f".unpack-0123abc{digit}") for digit in "10"]
    other = store.folder / ".unpack-notes"
    other.mkdir()
    assert abandoned(store) == sorted(left)
    with staging(store):
        assert not any(one.exists() for one in left)

    assert other.exists()


def test_the_folder_of_a_process_that_uses_it_is_left_alone(store: Store) -> None:
    folder = leave(store)
    lease = Lease(lease_of(folder), folder.name)
    try:
        assert abandoned(store) == []
        remove_abandoned(store)
        assert (folder / "r.blobs" / "0f").exists()
    finally:
        lease.release()
    remove_abandoned(store)

    assert not folder.exists()


def test_a_link_in_place_of_a_staging_folder_is_not_followed(store: Store, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "photos").mkdir(parents=True)
    (theirs / "photos" / "1.jpg").write_bytes(b"not ours")
    (store.folder / ".unpack-0123abcd").symlink_to(theirs)
    with pytest.raises(NotRegularFileError):
        remove_abandoned(store)

    assert (theirs / "photos" / "1.jpg").exists()
