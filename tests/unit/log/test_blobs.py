"""Values too large for a line."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from tapps_otel.errors import BlobDamagedError
from tapps_otel.log import files as log_files
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.files import FaultyFiles

DATA = b'{"large":true}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "r.blobs"


def test_a_blob_is_named_by_its_content_and_comes_back(folder: Path) -> None:
    name = Blobs(folder).put(DATA)

    assert name == sha256(DATA).hexdigest()
    assert Blobs(folder).get(name) == DATA
    assert (folder / name).stat().st_mode & 0o777 == 0o600


def test_the_same_content_is_stored_once(folder: Path) -> None:
    blobs = Blobs(folder)
    assert blobs.put(DATA) == blobs.put(DATA)

    assert len(list(folder.iterdir())) == 1


def test_changed_content_is_refused_and_repaired_by_the_next_put(folder: Path) -> None:
    name = Blobs(folder).put(DATA)
    (folder / name).write_bytes(b"else")

    with pytest.raises(BlobDamagedError, match="a stored value was changed"):
        Blobs(folder).get(name)
    Blobs(folder).put(DATA)
    assert Blobs(folder).get(name) == DATA


def test_content_that_is_gone_is_named(folder: Path) -> None:
    with pytest.raises(BlobDamagedError, match=r"r\.blobs.*a stored value cannot be read: .*No"):
        Blobs(folder).get("0" * 64)


@pytest.mark.parametrize("name", ["../r.jsonl", "", "a" * 63, "A" * 64, "0" * 63 + "/", "0" * 65])
def test_a_name_that_is_not_a_hash_opens_nothing(folder: Path, name: str) -> None:
    with pytest.raises(BlobDamagedError, match="is not the name of a blob"):
        Blobs(folder).get(name)


@pytest.mark.parametrize("call", ["write", "sync", "sync_folder"])
def test_a_blob_that_cannot_be_stored_is_not_half_there(folder: Path, call: str) -> None:
    with log_files.use(FaultyFiles(call, keep=3)), pytest.raises(OSError, match="No space"):
        Blobs(folder).put(DATA)

    assert [one.read_bytes() for one in folder.iterdir()] in ([], [DATA])
    assert Blobs(folder).get(Blobs(folder).put(DATA)) == DATA


def test_a_blob_that_is_there_already_is_synced_before_it_is_relied_on(folder: Path) -> None:
    Blobs(folder, sync=False).put(DATA)
    files = FaultyFiles("sync")

    with log_files.use(files), pytest.raises(OSError, match="No space"):
        Blobs(folder).put(DATA)
    assert files.calls == 1
