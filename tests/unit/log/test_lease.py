"""The lease: one process at a time, until it releases it or dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capabilities import need
from crashes import Forked, in_child
from tapps_otel import clock
from tapps_otel.errors import RunBusyError
from tapps_otel.log import files as log_files
from tapps_otel.log import lease as lease_module
from tapps_otel.log.files import FaultyFiles, Files
from tapps_otel.log.lease import Lease, holder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "r.lease"


class Until:
    """A clock whose first sleep ends something."""

    time_ns, monotonic_ns = staticmethod(clock.time_ns), staticmethod(clock.monotonic_ns)

    def __init__(self, end: Callable[[], object]) -> None:
        self._end = end

    def sleep(self, seconds: float) -> None:
        self._end()


def test_who_executes_a_run_waits_for_who_pulls_it(path: Path) -> None:
    pulling = Lease(path, "r", pulls=True)
    assert holder(path) is None  # it does not execute the run
    with pytest.raises(RunBusyError):
        Lease(path, "r", pulls=True)
    with clock.use(Until(pulling.release)):
        lease = Lease(path, "r")

    assert holder(path) == (os.getpid(), socket.gethostname())
    lease.release()


def test_a_pull_is_not_waited_for_without_end(path: Path) -> None:
    waits: list[None] = []
    pulling = Lease(path, "r", pulls=True)
    with clock.use(Until(lambda: waits.append(None))), pytest.raises(RunBusyError):
        Lease(path, "r")
    pulling.release()

    assert waits


def test_the_error_names_a_holder_in_this_process(path: Path) -> None:
    first = Lease(path, "r")
    with pytest.raises(RunBusyError) as caught:
        Lease(path, "r")
    first.release()

    assert (caught.value.pid, caught.value.host) == (os.getpid(), socket.gethostname())
    assert "in progress in this process" in str(caught.value)


def test_a_process_that_loses_does_not_overwrite_the_label(path: Path) -> None:
    first = Lease(path, "r")
    label = path.read_bytes()
    with pytest.raises(RunBusyError):
        Lease(path, "r")

    assert path.read_bytes() == label
    first.release()


def test_a_released_lease_can_be_taken_and_released_twice(path: Path) -> None:
    first = Lease(path, "r")
    first.release()
    first.release()
    second = Lease(path, "r")
    first.release()

    assert holder(path) is not None
    second.release()
    assert holder(path) is None


def test_looking_for_the_holder_does_not_take_the_lease(path: Path) -> None:
    assert holder(path) is None
    lease = Lease(path, "r")
    for _ in range(3):
        assert holder(path) == (os.getpid(), socket.gethostname())
    lease.release()
    assert holder(path) is None
    Lease(path, "r").release()


@contextmanager
def held_elsewhere(path: Path) -> Iterator[Forked]:
    """Another process holds the lease."""
    reading, writing = os.pipe()

    def hold() -> None:
        lease = Lease(path, "r")
        os.write(writing, b"held")
        signal.pause()
        lease.release()

    child = Forked(hold)
    try:
        assert os.read(reading, 4) == b"held"
        yield child
    finally:
        child.kill()
        child.wait()
        os.close(reading)
        os.close(writing)


def test_the_error_names_a_holder_in_another_process(path: Path) -> None:
    need("fork")
    with held_elsewhere(path) as child:
        with pytest.raises(RunBusyError) as caught:
            Lease(path, "r")
        assert caught.value.pid == child.pid
        assert holder(path) == (child.pid, socket.gethostname())


def test_the_death_of_the_holder_releases_the_lease(path: Path) -> None:
    need("fork")
    with held_elsewhere(path) as child:
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert holder(path) is None
        Lease(path, "r").release()


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests
        return os.fork()


def left_by_a_dead_parent(path: Path) -> bool:
    """Whether a forked child keeps the lease of a parent that is dead."""
    reading, writing = os.pipe()
    alive, dead = os.pipe()

    parent = _fork()
    if parent == 0:
        lease = Lease(path, "r")
        if _fork() == 0:
            os.close(dead)
            os.write(writing, b"here")
            os.read(alive, 1)  # until the test closes its end
        os._exit(lease._descriptor < 0)
    assert os.waitpid(parent, 0)[1] == 0
    assert os.read(reading, 4) == b"here"
    kept = holder(path) is not None
    for one in (reading, writing, alive, dead):
        os.close(one)
    return kept


def test_a_forked_child_does_not_keep_its_parents_lease(path: Path) -> None:
    need("fork")

    assert not left_by_a_dead_parent(path)


def test_without_the_release_at_fork_the_child_would_keep_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("fork")
    monkeypatch.setattr(lease_module, "_leases", [])
    monkeypatch.setattr(Lease, "__init__", _without_register)

    assert left_by_a_dead_parent(path)


def _without_register(self: Lease, path: Path, workflow_id: str) -> None:
    self._files = log_files.system()
    self._descriptor = self._files.open_lock(path)
    assert self._files.lock(self._descriptor)


def test_a_child_cannot_take_what_its_parent_still_holds(path: Path) -> None:
    need("fork")
    lease = Lease(path, "r")

    def child() -> str:
        try:
            Lease(path, "r")
        except RunBusyError as error:
            return f"busy {error.pid}"
        return "taken"

    assert in_child(child).value == f"busy {os.getpid()}"
    assert holder(path) is not None
    lease.release()


@pytest.mark.parametrize(
    "label", [b"", b"{", b"[]", b"null", b'{"pid":true,"host":1}', b"\xff\xfe", b"[" * 2000]
)
def test_an_invalid_label_names_no_holder(path: Path, label: bytes) -> None:
    lease = Lease(path, "r")
    path.write_bytes(label)

    assert holder(path) == (None, None)
    with pytest.raises(RunBusyError, match=r"in process \? on \?"):
        Lease(path, "r")
    lease.release()


def test_a_long_host_is_cut(path: Path) -> None:
    lease = Lease(path, "r")
    path.write_bytes(json.dumps({"pid": 1, "host": "h" * 900}).encode())

    assert holder(path) == (1, "h" * 255)
    lease.release()


@pytest.mark.parametrize("call", ["open_lock", "lock", "replace_content"])
def test_a_lease_that_cannot_be_taken_leaves_nothing_held(path: Path, call: str) -> None:
    with log_files.use(FaultyFiles(call)), pytest.raises(OSError, match="No space left"):
        Lease(path, "r")

    Lease(path, "r").release()


def test_without_open_file_locks_flock_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fcntl, "F_OFD_SETLK", raising=False)
    monkeypatch.delattr(fcntl, "F_OFD_GETLK", raising=False)
    lease = Lease(path, "r")

    assert holder(path) == (os.getpid(), socket.gethostname())
    with pytest.raises(RunBusyError):
        Lease(path, "r")
    lease.release()
    assert holder(path) is None


class Late(Files):
    """The holder releases its lease after another one has opened the file, and before the lock."""

    def __init__(self, held: Lease) -> None:
        self._held = held

    def lock(self, descriptor: int) -> bool:
        self._held.release()
        return super().lock(descriptor)


def test_a_file_that_was_removed_after_it_was_opened_is_not_taken_for_the_lease(path: Path) -> None:
    with log_files.use(Late(Lease(path, "r"))):
        lease = Lease(path, "r")

    assert holder(path) == (os.getpid(), socket.gethostname())
    lease.release()
    assert not path.exists()


def test_a_file_that_is_removed_again_and_again_is_opened_again(path: Path) -> None:
    with log_files.use(FaultyFiles("open_lock", times=3, error=errno.ENOENT)):
        Lease(path, "r").release()
    with log_files.use(FaultyFiles("open_lock", error=errno.ENOENT)), pytest.raises(OSError):
        Lease(path, "r")


def test_the_release_of_a_lease_that_was_replaced_leaves_the_other_one(path: Path) -> None:
    first = Lease(path, "r")
    path.unlink()
    second = Lease(path, "r")
    first.release()

    assert holder(path) is not None
    second.release()
