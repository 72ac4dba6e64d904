"""File system calls: each one's promise, on the real file system."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tapps_otel.log import files as log_files
from tapps_otel.log.files import FaultyFiles, Files, NotRegularFileError

files = Files()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


# ---------------------------------------------------------------- opening and reading


def test_a_new_file_is_created_in_a_new_folder_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    with pytest.raises(FileNotFoundError):
        files.open_append(path, create=False)
    assert not path.parent.exists()
    descriptor = files.open_append(path, create=True)
    files.close(descriptor)

    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.stat().st_mode & 0o777 for one in (path.parent, path.parents[1])] == [0o700] * 2


@pytest.mark.parametrize(
    ("follow", "text"), [(True, "not a folder"), (False, "not a folder, or a link to one")]
)
def test_what_is_no_folder_is_named(path: Path, follow: bool, text: str) -> None:
    path.touch()
    with pytest.raises(NotRegularFileError) as caught:
        files.open_folder(path, follow=follow)

    error = caught.value
    assert (error.errno, error.strerror, error.filename) == (errno.ENOTDIR, text, str(path))


def test_a_link_to_a_folder_is_followed_only_if_asked(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path)
    with pytest.raises(NotRegularFileError):
        files.open_folder(path)
    files.close(files.open_folder(path, follow=True))


def test_a_new_name_that_cannot_be_synced_is_an_error(path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        FaultyFiles("sync_folder").open_append(path, create=True)


class Synced(Files):
    """Notes the folders that are synced."""

    def __init__(self) -> None:
        self.folders: list[Path] = []

    def sync_folder(self, path: Path) -> None:
        self.folders.append(path)
        super().sync_folder(path)


def test_a_new_name_is_synced_into_its_folder(tmp_path: Path) -> None:
    """Also that of an empty file: who created it may have been killed before the sync."""
    spy = Synced()
    path = tmp_path / "a" / "file"
    for _ in range(2):
        spy.close(spy.open_append(path, create=True))
    assert spy.folders == [tmp_path, path.parent, path.parent]
    path.write_bytes(b"x")
    spy.close(spy.open_append(path, create=True))

    assert spy.folders == [tmp_path, path.parent, path.parent]


def test_what_is_appended_comes_after_what_is_there(path: Path) -> None:
    path.write_bytes(b"one")
    descriptor = files.open_append(path, create=False)
    files.write(descriptor, b"two")

    assert path.read_bytes() == b"onetwo"
    assert files.position(descriptor) == files.size(descriptor) == 6
    assert files.identity_of_name(str(path)) == files.identity(descriptor)
    assert files.identity_of_name(str(path / "x")) is None
    assert files.identity_of_name(f"{path}.x") is None
    assert files.read_at(descriptor, 4, 2) == b"etwo"
    assert files.read_at(descriptor, 9, 5) == b"o"
    with files.reader(descriptor) as file:
        assert file.read() == b"onetwo"
    assert files.size(descriptor) == 6  # it is open still
    with files.writer(descriptor) as file:
        file.write(b"!")
    assert files.size(descriptor) == 7
    files.close(descriptor)
    files.close(descriptor)  # an error is ignored


def test_a_write_that_the_system_cuts_short_is_continued(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    descriptor = files.open_append(path, create=True)
    files.write(descriptor, b"12345678")
    files.close(descriptor)

    assert path.read_bytes() == b"12345678"


def test_links_are_followed_only_to_files_of_the_user(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"data")
    link = tmp_path / "link"
    link.symlink_to(path)

    with pytest.raises(OSError, match="link"):
        files.open_read(link)
    with files.open_user_file(link) as file:
        assert file.read() == b"data"
    assert files.read_small_file(str(link)) == b"data"


def test_special_files_are_rejected_without_waiting(path: Path, tmp_path: Path) -> None:
    os.mkfifo(path)
    for place in (path, tmp_path):
        for call in (files.open_read, files.open_user_file):
            with pytest.raises(NotRegularFileError, match="not a regular file"):
                call(place)


def test_small_system_files_may_be_missing(path: Path) -> None:
    assert files.read_text(str(path)) is None
    path.write_bytes(b"a\xff")

    assert files.read_text(str(path)) == "a\ufffd"


# ---------------------------------------------------------------- whole files


def test_a_file_appears_once_it_is_complete(path: Path, tmp_path: Path) -> None:
    with files.new_file(path, replace=False, sync=True) as descriptor:
        files.write(descriptor, b"data")
        assert not path.exists()
    assert path.read_bytes() == b"data"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_fails_leaves_nothing(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.new_file(path, replace=False, sync=False):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_only_if_asked(path: Path) -> None:
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError), files.new_file(path, replace=False, sync=False):
        pass
    assert path.read_bytes() == b"old"
    with files.new_file(path, replace=True, sync=False) as descriptor:
        files.write(descriptor, b"new")

    assert path.read_bytes() == b"new"


def test_a_file_that_another_process_creates_meanwhile_is_not_replaced(path: Path) -> None:
    with pytest.raises(FileExistsError), files.new_file(path, replace=False, sync=False):
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_not_a_regular_file_is_never_replaced(
    path: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotRegularFileError), files.new_file(path, replace=True, sync=False):
        pass
    assert path.is_dir() or path.is_symlink()


def test_a_folder_that_is_missing_is_named_by_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "none" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        files.new_file(path, replace=False, sync=False).__enter__()

    assert caught.value.filename == str(path)


class Order(Files):
    """Notes the order of syncs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[tuple[str, bool]] = []

    def sync(self, descriptor: int) -> None:
        self.calls.append(("file", self.path.exists()))

    def sync_folder(self, path: Path) -> None:
        self.calls.append(("folder", self.path.exists()))


@pytest.mark.parametrize("sync", [True, False])
def test_the_content_is_synced_before_its_name(path: Path, sync: bool) -> None:
    spy = Order(path)
    spy.write_file(path, b"data", sync=sync)

    assert path.read_bytes() == b"data"
    assert spy.calls == ([("file", False), ("folder", True)] if sync else [])


def test_a_label_is_replaced_as_a_whole(path: Path) -> None:
    path.write_bytes(b"a long label")
    descriptor = files.open_append(path, create=False)
    files.replace_content(descriptor, b"short")
    files.close(descriptor)

    assert path.read_bytes() == b"short"


# ---------------------------------------------------------------- folders and locks


def test_modification_times_are_those_of_files_with_the_suffix(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.txt"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(1, 7_000_000_000))
    (tmp_path / "broken.jsonl").symlink_to(tmp_path / "none")  # listed by itself

    found = sorted(files.modification_times(tmp_path, ".jsonl"), key=lambda one: one[1])
    assert [name for _, name in found] == ["a.jsonl", "b.jsonl", "broken.jsonl"]
    assert [ns for ns, name in found if name != "broken.jsonl"] == [7_000_000_000] * 2
    assert list(files.modification_times(tmp_path / "none", "")) == []


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    spy = Synced()
    spy.make_folder(tmp_path / "a" / "b")
    spy.make_folder(tmp_path / "a" / "b")

    assert spy.folders == [tmp_path, tmp_path / "a"]
    assert files.is_folder(tmp_path / "a" / "b")
    assert not files.is_folder(tmp_path / "c")


def test_free_space_is_that_of_the_folders_disk(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)

    assert files.free_bytes(tmp_path) % found.f_frsize == 0
    assert 0 <= files.free_bytes(tmp_path) <= found.f_blocks * found.f_frsize


def test_names_of_one_file_are_the_same_file(path: Path, tmp_path: Path) -> None:
    path.touch()
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "other").touch()

    assert files.is_same_file(path, tmp_path / "link")
    assert not files.is_same_file(path, tmp_path / "other")
    assert not files.is_same_file(path, tmp_path / "none")


def test_the_working_directory_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # restores it afterwards
    (tmp_path / "a").mkdir()
    files.change_directory(tmp_path / "a")

    assert Path.cwd() == tmp_path / "a"


def test_a_lock_is_held_by_one_open_file(path: Path) -> None:
    first, second = (files.open_append(path, create=True) for _ in range(2))
    assert not files.is_locked(second)
    assert files.lock(first)
    assert files.is_locked(second)
    assert not files.lock(second)
    files.close(first)

    assert not files.is_locked(second)
    assert files.lock(second)
    files.close(second)


def test_a_file_is_removed(path: Path) -> None:
    path.touch()
    files.remove(path)

    assert not path.exists()


# ---------------------------------------------------------------- the double


def test_a_faulty_call_fails_from_its_nth_time_on(path: Path) -> None:
    descriptor = files.open_append(path, create=True)
    faulty = FaultyFiles("write", 2, times=2, error=errno.EIO, keep=1)
    faulty.write(descriptor, b"ab")
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            faulty.write(descriptor, b"cd")
    faulty.write(descriptor, b"ef")
    files.close(descriptor)

    assert path.read_bytes() == b"abccef"
    assert faulty.calls == 4


def test_files_can_be_replaced_for_a_while() -> None:
    real, double = log_files.system(), Files()
    with log_files.use(double):
        assert log_files.system() is double
    assert log_files.system() is real
