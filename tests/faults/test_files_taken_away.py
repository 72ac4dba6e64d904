"""A run's log, lease or folder taken away while the run is in progress, by real programs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import independent_checker
from capabilities import need
from commands import LOGS
from crashes import Effects, Forked, Outcome, go, killed
from tapps_otel import configure, history, step, verify, workflow
from tapps_otel.errors import LeaseLostError, LogWriteError, RunBusyError
from tapps_otel.log.lease import Lease
from tapps_otel.log.open_log import RESTORED

LOG, LEASE = LOGS / "r.jsonl", LOGS / "r.lease"


class Scene:
    """What steps do and find in one test.

    :ivar begin: lets the neighbour begin, and returns it
    :ivar outcome: how the neighbour's call ended
    :ivar begun: a pipe to which the neighbour writes once it is inside a step
    :ivar ending: a pipe that lets it leave the step
    """

    effects: Effects
    left_by_command: bytes
    begin: Callable[[], Forked]
    outcome: Outcome
    begun: tuple[int, int]
    ending: tuple[int, int]


scene = Scene()


@pytest.fixture(autouse=True)
def _effects(tmp_path_factory: pytest.TempPathFactory) -> None:
    scene.effects = Effects(tmp_path_factory.mktemp("effects") / "effects")


@step
def lose(command: str) -> None:
    scene.effects("lose")
    subprocess.run(["sh", "-c", command], check=True)
    scene.left_by_command = LOG.read_bytes() if LOG.exists() else b""


@step
def count(number: int) -> int:
    scene.effects(f"count {number}")
    return number


@workflow
def losing(command: str) -> int:
    count(1)
    lose(command)
    return count(2) + count(3)


def remarks(path: Path = LOG) -> list[str]:
    """Names of the remarks in a log that the independent checker accepts."""
    events = independent_checker.check(path)
    return [one["name"] for one in events if one["event_type"] == "annotation"]


# ---------------------------------------------------------------- the log has lost its name

AWAY = {
    "deleted": f"rm {LOG}",
    "renamed, as by logrotate": f"mv {LOG} {LOG}.1",
    "its folder deleted": "rm -r .tapps-agents",
    "its folder renamed": "mv .tapps-agents old",
    "cleaned by git": "git init -q . && git clean -fdxq",
}


def need_for(command: str) -> str:
    if command.startswith("git"):
        need("git")
    return command


@pytest.mark.parametrize("how", AWAY)
@pytest.mark.parametrize("durability", ["commit", "always", "os"])
def test_a_log_that_is_taken_away_is_put_back_and_the_run_completes(
    how: str, durability: Any, caplog: pytest.LogCaptureFixture
) -> None:
    configure(durability=durability, on_log_failure="stop")
    command = need_for(AWAY[how])

    assert go(losing, command) == 5
    assert remarks() == [RESTORED]
    assert "the complete log was restored" in caplog.text
    verify("r").raise_if_bad()
    assert [one.step_id for one in history("r").steps] == ["count", "lose", "count#2", "count#3"]
    assert go(losing, command) == 5  # its stored result
    assert scene.effects.all == ["count 1", "lose", "count 2", "count 3"]


@pytest.mark.parametrize("how", AWAY)
def test_a_run_that_is_killed_after_that_resumes_from_the_log(how: str) -> None:
    command = need_for(AWAY[how])
    killed(lambda: go(losing, command), after="step_finish count#2")

    assert go(losing, command) == 5
    assert scene.effects.all == ["count 1", "lose", "count 2", "count 3"]
    verify("r").raise_if_bad()


# ---------------------------------------------------------------- another file has the name

REPLACED = {
    "edited by sed": f"sed -i s/completed/replaced/ {LOG}",
    "replaced by its copy": f"cp {LOG} copy && mv copy {LOG}",
    "replaced by another file": f"rm {LOG} && echo of another > {LOG}",
}


@pytest.mark.parametrize("how", REPLACED)
@pytest.mark.parametrize("durability", ["commit", "os"])
def test_a_log_whose_name_is_taken_is_saved_beside_the_file_that_took_it(
    how: str, durability: Any, caplog: pytest.LogCaptureFixture
) -> None:
    configure(durability=durability)

    assert go(losing, REPLACED[how]) == 5
    (saved,) = LOGS.glob("r.jsonl.*")
    assert LOG.read_bytes() == scene.left_by_command
    assert f"another file has this name: the log was saved as {saved.name}" in caplog.text
    assert remarks(saved) == [RESTORED]
    saved.rename(LOG)
    assert history("r").result == 5
    verify("r").raise_if_bad()


@pytest.mark.parametrize("how", REPLACED)
def test_with_stop_no_step_runs_without_its_log(how: str) -> None:
    configure(on_log_failure="stop")

    with pytest.raises(LogWriteError, match="another file has taken the name"):
        go(losing, REPLACED[how])
    assert scene.effects.all == ["count 1", "lose"]
    assert LOG.read_bytes() == scene.left_by_command
    (saved,) = LOGS.glob("r.jsonl.*")
    saved.rename(LOG)
    assert go(losing, REPLACED[how]) == 5
    assert scene.effects.all == ["count 1", "lose", "count 2", "count 3"]


NO_FOLDER = "rm -r .tapps-agents && touch .tapps-agents"


def test_a_folder_that_cannot_be_made_again_costs_only_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert go(losing, NO_FOLDER) == 5
    assert "the whole log is lost: [Errno 20] Not a directory" in caplog.text


def test_with_stop_a_folder_that_cannot_be_made_again_stops_the_run() -> None:
    configure(on_log_failure="stop")

    with pytest.raises(LogWriteError, match="Not a directory"):
        go(losing, NO_FOLDER)
    assert scene.effects.all == ["count 1", "lose"]


# ---------------------------------------------------------------- another program writes to it

APPENDED = f"echo of another >> {LOG}"


def test_what_another_program_writes_is_declared_and_the_run_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert go(losing, APPENDED) == 5
    report = verify("r")

    assert report.ok
    assert any("declared damage" in note for note in report.notes)
    assert [one.step_id for one in history("r").steps] == ["count", "lose", "count#2", "count#3"]
    assert "another process wrote to the log without the lease" in caplog.text
    independent_checker.check(LOG)


def test_with_stop_what_another_program_writes_stops_the_run() -> None:
    configure(on_log_failure="stop")

    with pytest.raises(LogWriteError, match="damaged at byte"):
        go(losing, APPENDED)
    assert scene.effects.all == ["count 1", "lose"]


# ---------------------------------------------------------------- the lease


@contextmanager
def neighbour(call: Callable[[], object]) -> Iterator[Callable[[], Forked]]:
    """Another process, which begins its call once the returned function is called."""
    need("fork")
    reading, writing = os.pipe()

    def wait() -> object:
        os.close(writing)
        return os.read(reading, 1) and call()

    child = Forked(wait)
    os.close(reading)

    def begin() -> Forked:
        os.write(writing, b"x")
        return child

    try:
        yield begin
    finally:
        os.close(writing)
        with suppress(ProcessLookupError, ChildProcessError):
            child.kill()
            child.wait()


LEASE_AWAY = {
    "deleted": f"rm {LEASE}",
    "replaced": f"cp {LEASE} copy && mv copy {LEASE}",
    "its folder deleted": "rm -r .tapps-agents",
}


@step
def meet(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=True)
    scene.outcome = scene.begin().wait()


@workflow
def meeting(command: str) -> int:
    count(1)
    meet(command)
    return count(2)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
@pytest.mark.parametrize("durability", ["commit", "os"])
def test_another_process_is_refused_although_the_lease_is_gone(
    how: str, durability: Any, caplog: pytest.LogCaptureFixture
) -> None:
    configure(durability=durability)
    with neighbour(lambda: go(meeting, LEASE_AWAY[how])) as scene.begin:
        assert go(meeting, LEASE_AWAY[how]) == 2

    assert RunBusyError.__name__ in scene.outcome.error
    assert scene.effects.all == ["count 1", "count 2"]
    assert not LEASE.exists()
    verify("r").raise_if_bad()


@step
def lose_lease(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=True)


@step
def look() -> str:
    return scene.begin().wait().error


@workflow
def losing_lease(command: str) -> str:
    lose_lease(command)
    return look()


@pytest.mark.parametrize("how", LEASE_AWAY)
def test_a_lease_that_is_gone_is_taken_again(how: str, caplog: pytest.LogCaptureFixture) -> None:
    with neighbour(lambda: Lease(LEASE, "r")) as scene.begin:
        refused = go(losing_lease, LEASE_AWAY[how])

    assert f"run 'r' is in progress in process {os.getpid()} on " in refused
    assert "the lease was removed or replaced: it was taken again" in caplog.text
    assert not LEASE.exists()


# The neighbour begins the run anew in a folder that has been deleted, and waits inside a step.


@step
def usurp() -> None:
    os.write(scene.begun[1], b"x")
    os.read(scene.ending[0], 1)


@step
def lose_all() -> None:
    scene.effects("lose")
    subprocess.run(["sh", "-c", LEASE_AWAY["its folder deleted"]], check=True)
    scene.begin()
    os.read(scene.begun[0], 1)


@workflow
def contested(mine: bool) -> int:
    if not mine:
        usurp()
        return 1
    lose_all()
    with suppress(Exception):  # not even a workflow that swallows it runs another step
        count(2)
    return count(3)


@pytest.mark.parametrize("on_log_failure", ["continue", "stop"])
def test_a_holder_whose_lease_another_process_has_taken_stops(on_log_failure: Any) -> None:
    configure(on_log_failure=on_log_failure)
    scene.begun, scene.ending = os.pipe(), os.pipe()
    with neighbour(lambda: go(contested, mine=False)) as scene.begin:
        with pytest.raises(LeaseLostError, match=r"process \d+ on .* executes the run"):
            go(contested, mine=True)
        assert scene.effects.all == ["lose"]
        assert LEASE.exists()  # the other's
        os.write(scene.ending[1], b"x")
        assert scene.begin().wait().value == 1
    for one in (*scene.begun, *scene.ending):
        os.close(one)

    assert history("r").result == 1
    verify("r").raise_if_bad()
    (saved,) = LOGS.glob("r.jsonl.*")
    assert remarks(saved) == [RESTORED]


# ---------------------------------------------------------------- no file is left


@step
def fail_once() -> None:
    if scene.effects("fail") == 1:
        raise ValueError("once")


@workflow
def failing_once() -> int:
    fail_once()
    return count(1)


def test_no_run_that_has_ended_leaves_a_lease_file() -> None:
    for number in range(3):
        go(losing, "true", workflow_id=f"r{number}")
    with pytest.raises(ValueError, match="once"):
        go(failing_once)

    assert list(LOGS.glob("*.lease")) == []
    assert go(failing_once) == 1
    assert list(LOGS.glob("*.lease")) == []


def test_the_file_of_a_killed_run_is_used_and_removed_by_its_resume() -> None:
    killed(lambda: go(losing, "true"), after="step_finish lose")
    assert LEASE.exists()

    assert go(losing, "true") == 5
    assert not LEASE.exists()


def overlaps(path: Path, rounds: int) -> tuple[int, int]:
    """Take the lease again and again; return how often it was had, and by two at once."""
    had = shared = 0
    inside = path.with_suffix(".inside")
    while had < rounds:
        try:
            lease = Lease(path, "r")
        except RunBusyError:
            continue
        had += 1
        try:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            inside.unlink()
        except OSError:
            shared += 1
        lease.release()
    return had, shared


def test_processes_that_take_and_leave_a_lease_never_hold_it_together(tmp_path: Path) -> None:
    need("fork")
    children = [Forked(lambda: overlaps(tmp_path / "r.lease", 300)) for _ in range(4)]

    assert [child.wait().value for child in children] == [(300, 0)] * 4
    assert list(tmp_path.glob("r.*")) == []
