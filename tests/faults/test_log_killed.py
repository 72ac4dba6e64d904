"""Writers that are killed, full disks, calls of the kernel that fail: in processes of their own.

Each child reports through a pipe which of its events were acknowledged; the file must hold them.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import independent_checker
from capabilities import UNSHARE, need
from crashes import Forked, in_child
from logs import ID, event, marks, start, writing
from tapps_otel.log.writer import LogWriter

TESTS = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / f"{ID}.jsonl"


def continues(path: Path, acknowledged: list[int]) -> list[dict[str, Any]]:
    """Acknowledged events are in the log once, and the log continues."""
    with writing(path) as writer:
        writer.append(event("workflow_resume", execution=2))
    found = marks(path)
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))
    return independent_checker.check(path)


# ---------------------------------------------------------------- killed


@pytest.mark.slow
def test_what_was_acknowledged_survives_sigkill_at_any_moment(path: Path) -> None:
    need("fork")
    pick = random.Random(3)
    acknowledged: list[int] = []
    for execution in range(25):
        reading, writing_end = os.pipe()

        def work(out: int = writing_end, first: int = 1_000_000 * execution) -> None:
            writer = LogWriter(path, ID, durability="os")
            for mark in range(first, first + 100_000):
                size = pick.choice([10, 9_000, 200_000])  # a larger one is torn more often
                writer.append(event("step_finish", mark, name="x" * size))
                os.write(out, mark.to_bytes(8, "big"))

        child = Forked(work)
        os.close(writing_end)
        with os.fdopen(reading, "rb") as reports:
            said = reports.read(8 * pick.randrange(1, 40))
            child.kill()
            said += reports.read()
        assert child.wait().code == -signal.SIGKILL
        acknowledged += [int.from_bytes(said[at : at + 8], "big") for at in range(0, len(said), 8)]
    continues(path, acknowledged)


# What a child does under strace: a run, its events acknowledged on stdout one by one.
RUN = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from logs import event, start
from tapps_otel.log.writer import LogWriter
print("ready", flush=True)
writer = LogWriter(Path({path!r}), "r")
for mark, kind in enumerate(["step_start", "step_finish", "annotation", "step_fail"]):
    if writer.append(event(kind, mark)) is not None:
        print(mark, flush=True)
writer.close()
print("closed", flush=True)
"""


def traced(path: Path, inject: str) -> list[str]:
    """Run it with this fault in its calls on the log and its folder; return what it printed."""
    calls = inject.partition(":")[0]
    command = [
        *("strace", "-f", "-qq", "-o", os.devnull, "-P", str(path), "-P", str(path.parent)),
        *("-e", f"trace={calls}", "-e", f"inject={inject}", sys.executable, "-c"),
        RUN.format(tests=str(TESTS), path=str(path)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout.split()
    assert said[:1] == ["ready"], done.stderr
    return said[1:]


KILLED_AT = [
    (call, nth) for call, times in [("openat", 2), ("write", 4), ("fdatasync", 2), ("fsync", 1),
                                    ("lseek", 2)] for nth in range(1, times + 1)
]  # fmt: skip


@pytest.mark.parametrize(("call", "nth"), KILLED_AT)
@pytest.mark.slow
def test_what_was_acknowledged_survives_sigkill_at_each_call(
    path: Path, call: str, nth: int
) -> None:
    need("strace")
    path.parent.mkdir()
    said = traced(path, f"{call}:signal=SIGKILL:when={nth}")

    assert "closed" not in said
    continues(path, [int(mark) for mark in said])


@pytest.mark.parametrize(
    "inject",
    [
        "write:error=ENOSPC:when=2",
        "write:error=EIO:when=3+",
        "fdatasync:error=EIO:when=1",
        "fdatasync:error=EIO:when=2+",
        "lseek:error=EIO:when=2",
    ],
)
@pytest.mark.slow
def test_what_the_kernel_refuses_is_never_acknowledged(path: Path, inject: str) -> None:
    need("strace")
    path.parent.mkdir()
    said = traced(path, inject)

    assert said[-1:] == ["closed"]  # the run is never crashed by its log
    continues(path, [int(mark) for mark in said[:-1]])


def test_a_write_that_reports_too_much_is_noticed(path: Path) -> None:
    need("strace")
    path.parent.mkdir()
    said = traced(path, "write:retval=7:when=2")  # it wrote none of the seven

    assert said == ["0", "1", "2", "3", "closed"]
    assert marks(path) == [0, 1, 2, 3]
    assert [len(one["damage"]) for one in independent_checker.check(path) if "damage" in one] == [1]


# ---------------------------------------------------------------- full disks


def test_a_real_short_write_is_recovered_from(path: Path) -> None:
    need("fork")

    def work() -> list[int]:
        soft, hard = 3000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer = LogWriter(path, ID)
        acknowledged = [
            mark for mark in range(40) if writer.append(event("step_finish", mark)) is not None
        ]
        assert "File too large" in str(writer.failure)
        writer.close()
        return acknowledged

    outcome = in_child(work)
    assert outcome.code == 0, outcome
    size = path.stat().st_size

    assert size == 3000  # the last write got as far as it could
    assert 1 < len(outcome.value) < 40
    assert "log_repair" in [one["event_type"] for one in continues(path, outcome.value)]


FULL = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from logs import ID, Settable, event, marks
from tapps_otel import clock
from tapps_otel.log.writer import LogWriter
import independent_checker
folder = Path("/mnt/logs")
folder.mkdir()
path, filler = folder / "r.jsonl", folder / "filler"
now = Settable()
with clock.use(now):
    writer = LogWriter(path, ID)
    writer.append(event("step_finish", 0))
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096): pass
        except OSError:
            pass
    seqs = [writer.append(event("step_finish", mark)) for mark in range(1, 60)]
    assert None in seqs and "No space" in writer.failure, (seqs, writer.failure)
    filler.unlink()
    now.now += 10 ** 10
    assert writer.append(event("workflow_end", 60)) is not None
    writer.close()
assert marks(path) == list(range(61)), marks(path)
events = independent_checker.check(path)
assert [one["attributes"]["mark"] for one in events if one.get("late")][-1] == 59
print("held")
"""


def test_a_full_disk_loses_nothing_once_there_is_room_again() -> None:
    need("small disk")
    script = 'mount -t tmpfs -o size=100k none /mnt && exec "$0" -c "$1"'
    command = [*UNSHARE, "sh", "-c", script, sys.executable, FULL.format(tests=str(TESTS))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.stdout == "held\n", done.stderr


# ---------------------------------------------------------------- forks


@pytest.fixture
def running(path: Path) -> Iterator[LogWriter]:
    writer = LogWriter(path, ID, durability="os")
    writer.append(start())
    yield writer
    writer.close()


def test_a_forked_child_cannot_write_to_its_parents_log(path: Path, running: LogWriter) -> None:
    need("fork")

    def child() -> str:
        try:
            running.append(event("annotation", "child"))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return str(error)
        return "written"

    assert "the log is closed" in str(in_child(child).value)
    running.append(event("annotation", "parent"))
    assert marks(path) == ["parent"]


def test_a_forked_child_does_not_have_its_parents_log_open(path: Path, running: LogWriter) -> None:
    need("fork")
    need("proc")

    def child() -> list[str]:
        return [
            str(one.readlink())
            for one in Path("/proc/self/fd").iterdir()
            if one.exists() and path.name in str(one.readlink())
        ]

    assert in_child(child).value == []


def test_a_forked_child_writes_nothing_of_its_parents_buffer(
    path: Path, running: LogWriter
) -> None:
    need("fork")
    running._backlog.events.append(event("annotation", "parents"))
    running._backlog.dropped, running._log.failure = 3, "the disk was full"
    before = path.read_bytes()
    in_child(running.close)

    assert path.read_bytes() == before
    assert len(running._backlog.events) == 1


def test_a_forked_child_writes_runs_of_its_own(
    path: Path, running: LogWriter, tmp_path: Path
) -> None:
    need("fork")

    def child() -> None:
        with writing(tmp_path / "own.jsonl") as writer:
            writer.append(event("annotation", "child", workflow_id="own"))

    assert in_child(child).code == 0
    assert marks(tmp_path / "own.jsonl") == ["child"]


@pytest.mark.slow
def test_a_fork_in_the_middle_of_an_append_blocks_neither_process(
    path: Path, running: LogWriter, tmp_path: Path
) -> None:
    need("fork")
    stop = threading.Event()
    written = [0, 0, 0]

    def work(name: int) -> None:
        while not stop.is_set():
            running.append(event("annotation", [name, written[name]]))
            written[name] += 1

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for one in threads:
        one.start()

    def child(number: int) -> None:
        with writing(tmp_path / f"own{number}.jsonl", durability="os") as writer:
            writer.append(event("annotation", "child", workflow_id=f"own{number}"))
        running.close()

    try:
        codes = [in_child(partial(child, number)).code for number in range(40)]
    finally:
        stop.set()
        for one in threads:
            one.join()
    assert codes == [0] * 40
    assert len(independent_checker.check(path)) == 1 + sum(written)
