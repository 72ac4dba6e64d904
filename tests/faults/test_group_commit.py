"""Crashes between any two writes and syncs of events that share syncs.

What a thread or a task was told is done, is in the log, also after a power cut. The children report
what they were told through a pipe.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import independent_checker
from capabilities import need
from crashes import CRASHED, Forked
from effort import sample
from group_syncs import PowerCut
from interrupts import Interrupts
from logs import ID, event, marks, start, writing
from tapps_otel import configure, step, workflow
from tapps_otel.log import files as log_files
from tapps_otel.log.writer import LogWriter

TESTS = Path(__file__).parents[1]
THREADS, EACH, TASKS = 8, 3, 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / f"{ID}.jsonl"


def told(work: Callable[[Callable[[int], object]], object]) -> tuple[int, set[int]]:
    """Run this in a child; return its exit code, and the marks that it was told are done."""
    reading, writing_end = os.pipe()
    child = Forked(lambda: work(lambda mark: os.write(writing_end, mark.to_bytes(4, "big"))))
    os.close(writing_end)
    with os.fdopen(reading, "rb") as reports:
        said = reports.read()
    code = child.wait().code
    return code, {int.from_bytes(said[at : at + 4], "big") for at in range(0, len(said), 4)}


def append_in_threads(path: Path, tell: Callable[[int], object]) -> None:
    """Append events in threads; tell each one's mark once the log has it."""
    writer = LogWriter(path, ID)
    writer.append(start())

    def work(first: int) -> None:
        for mark in range(first, first + EACH):
            if writer.append(event("step_finish", mark)) is not None:
                tell(mark)

    threads = [threading.Thread(target=work, args=(EACH * one,)) for one in range(THREADS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    writer.close()


@step
async def work(number: int) -> int:
    """A step."""
    await asyncio.sleep(0)
    return number


def run_tasks(folder: Path, tell: Callable[[int], object]) -> None:
    """Run steps in tasks; tell each one's number once it has ended."""

    async def ended(number: int) -> None:
        tell(await work(number))

    @workflow
    async def flow() -> None:
        await asyncio.gather(*(ended(number) for number in range(TASKS)))

    configure(log_dir=folder, durability="commit", spans=False)
    asyncio.run(flow.options(workflow_id=ID)())


@pytest.mark.parametrize("nth", sample(range(2, 3 + THREADS * EACH), 12))
@pytest.mark.parametrize("hole", [False, True], ids=["all", "holes"])
def test_a_power_cut_between_two_writes_of_threads_loses_nothing_that_was_told(
    path: Path, nth: int, hole: bool
) -> None:
    need("fork")

    def work(tell: Callable[[int], object]) -> None:
        with log_files.use(PowerCut(nth, path if hole else None)):
            append_in_threads(path, tell)

    code, done = told(work)

    assert code == CRASHED
    with writing(path, boot_id="another") as writer:
        writer.append(event("workflow_resume", execution=2))
    found = marks(path)
    assert done <= set(found)
    assert len(found) == len(set(found))
    independent_checker.check(path)


@pytest.mark.parametrize("nth", sample(range(2, 3 + 2 * TASKS), 12))
@pytest.mark.parametrize("hole", [False, True], ids=["all", "holes"])
def test_a_power_cut_between_two_writes_of_tasks_loses_nothing_that_was_told(
    tmp_path: Path, nth: int, hole: bool
) -> None:
    need("fork")
    path = tmp_path / f"{ID}.jsonl"

    def work(tell: Callable[[int], object]) -> None:
        with log_files.use(PowerCut(nth, path if hole else None)):
            run_tasks(tmp_path, tell)

    code, done = told(work)

    assert code == CRASHED
    with writing(path, boot_id="another") as writer:
        writer.append(event("workflow_resume", execution=2))
    events = independent_checker.check(path)
    finished = {one["result"] for one in events if one["event_type"] == "step_finish"}
    assert done <= finished
    assert len(finished) == sum(one["event_type"] == "step_finish" for one in events)


# What a child does under strace: its marks on stdout, each as it was told that it is done.
PROGRAM = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_group_commit import append_in_threads, run_tasks
def tell(mark):
    os.write(1, b"%d\\n" % mark)
os.write(1, b"ready\\n")
{call}
os.write(1, b"closed\\n")
"""

CALLS = {
    "threads": "append_in_threads(Path({path!r}), tell)",
    "tasks": "run_tasks(Path({folder!r}), tell)",
}
# strace counts the calls of each thread by itself. Tasks write in one thread.
WRITES = {"threads": range(1, EACH + 1), "tasks": range(1, 2 * TASKS, 12)}
KILLED_AT = [
    (kind, call, nth)
    for kind, writes in WRITES.items()
    for call, nths in (("write", writes), ("fdatasync", (1, 2)), ("lseek", (1, 2)))
    for nth in nths
]


@pytest.mark.parametrize(("kind", "call", "nth"), sample(KILLED_AT, 4))
@pytest.mark.slow
def test_sigkill_at_each_call_of_the_kernel_loses_nothing_that_was_told(
    path: Path, kind: str, call: str, nth: int
) -> None:
    need("strace")
    path.parent.mkdir()
    done = traced(path, kind, f"{call}:signal=SIGKILL:when={nth}")

    assert "closed" not in done
    with writing(path) as writer:
        writer.append(event("workflow_resume", execution=2))
    events = independent_checker.check(path)
    key = {"threads": lambda one: one["attributes"]["mark"], "tasks": lambda one: one["result"]}
    finished = [key[kind](one) for one in events if one["event_type"] == "step_finish"]
    assert {int(mark) for mark in done} <= set(finished)
    assert len(finished) == len(set(finished))


def traced(path: Path, kind: str, inject: str) -> list[str]:
    """Run a program with this fault in its calls on the log; return what it told."""
    calls = inject.partition(":")[0]
    call = CALLS[kind].format(path=str(path), folder=str(path.parent))
    folders = [str(TESTS), str(TESTS / "faults")]
    program = PROGRAM.replace("{tests!r}", repr(folders[0])).replace("{call}", call)
    program = program.replace(
        "from test_group", f"sys.path.insert(0, {folders[1]!r})\nfrom test_group"
    )
    command = [
        *("strace", "-f", "-qq", "-o", os.devnull, "-P", str(path), "-P", str(path.parent)),
        *("-e", f"trace={calls}", "-e", f"inject={inject}", sys.executable, "-c", program),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout.split()
    assert said[:1] == ["ready"], done.stderr
    return said[1:]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RecursionError, MemoryError])
def test_an_interrupt_at_any_place_of_a_thread_that_shares_syncs(
    tmp_path: Path, error: type[BaseException]
) -> None:
    """Every place of the main thread, which appends beside others; nobody waits for ever."""
    place, raised = 0, True
    while raised:
        place += 1
        path = tmp_path / f"{place}" / f"{ID}.jsonl"
        done: list[int] = []
        with writing(path) as writer:
            writer.append(start())
            stop = threading.Event()
            others = [
                threading.Thread(target=_append_until, args=(writer, stop, done, 100 * number))
                for number in (1, 2)
            ]
            for one in others:
                one.start()
            events = [event("step_finish", mark) for mark in range(3)]
            with Interrupts(place, error=error) as interrupts:
                for mark, one_event in enumerate(events):
                    try:
                        if writer.append(one_event) is not None:
                            done.append(mark)
                    except error:
                        if writer.append(one_event) is not None:  # as its caller does
                            done.append(mark)
            raised = bool(interrupts.raised)
            stop.set()
            for one in others:
                one.join(30)
                assert not one.is_alive(), interrupts.raised
            assert set(done) <= set(marks(path))
        assert len(marks(path)) == len(set(marks(path))), interrupts.raised
        independent_checker.check(path)


def _append_until(writer: LogWriter, stop: threading.Event, done: list[int], first: int) -> None:
    for mark in range(first, first + 20):
        if stop.is_set():
            return
        if writer.append(event("step_finish", mark)) is not None:
            done.append(mark)


def test_sigkill_while_threads_and_a_disk_are_busy(path: Path) -> None:
    need("fork")
    reading, writing_end = os.pipe()

    def work() -> None:
        append_in_threads(path, lambda mark: os.write(writing_end, mark.to_bytes(4, "big")))

    child = Forked(work)
    os.close(writing_end)
    with os.fdopen(reading, "rb") as reports:
        said = reports.read(4 * 5)
        child.kill()
        said += reports.read()
    assert child.wait().code in {-signal.SIGKILL, 0}
    with writing(path) as writer:
        writer.append(event("workflow_resume", execution=2))
    found = {int.from_bytes(said[at : at + 4], "big") for at in range(0, len(said), 4)}
    assert found <= set(marks(path))
