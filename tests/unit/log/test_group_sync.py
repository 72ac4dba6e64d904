"""Threads and tasks that need a sync at one time share one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

import independent_checker
from capabilities import need
from crashes import in_child
from group_syncs import Held
from logs import ID, event, marks, start, writing
from tapps_otel import clock
from tapps_otel.errors import LogWriteError
from tapps_otel.log import files as log_files
from tapps_otel.log.files import Files
from tapps_otel.log.writer import LogWriter
from waiting import until, until_async

MANY = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / f"{ID}.jsonl"


class Callers:
    """Threads that append, and what they learned: a seq, ``None`` or an exception, by mark."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._threads: list[threading.Thread] = []
        self.learned: dict[int, object] = {}

    def append(self, *numbers: int) -> None:
        """Append an event for each of these marks, each in a thread of its own."""
        for mark in numbers:
            thread = threading.Thread(target=self._append, args=(mark,))
            self._threads.append(thread)
            thread.start()

    def _append(self, mark: int) -> None:
        try:
            self.learned[mark] = self._writer.append(event("step_finish", mark))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.learned[mark] = error

    def join(self) -> None:
        """Wait for all of them."""
        for one in self._threads:
            one.join(30)
            assert not one.is_alive(), "it waits for ever"


@contextmanager
def held(
    path: Path, fail: Callable[[int], object] = lambda nth: None, **options: Any
) -> Iterator[tuple[LogWriter, Held, Callers]]:
    """A writer whose syncs the test holds, and threads; the sync of the run's start is the first.

    Nothing stays held when the block ends.
    """
    files = Held(fail)
    with log_files.use(files), writing(path, **options) as writer:
        writer.append(start())
        callers = Callers(writer)
        try:
            yield writer, files, callers
        finally:
            files.let_go()
            callers.join()


def lead(files: Held, callers: Callers) -> None:
    """Let a thread append the mark 0, and wait until its sync is running."""
    files.hold()
    callers.append(0)
    until(lambda: files.waiting)


def test_threads_that_wait_for_a_sync_share_the_next_one(path: Path) -> None:
    with held(path) as (_, files, callers):
        lead(files, callers)
        callers.append(*range(1, MANY))
        until(lambda: files.written == 1 + MANY)
        assert callers.learned == {}  # not before the sync
        files.let_go()
        callers.join()

        assert sorted(callers.learned) == list(range(MANY))
        assert set(callers.learned.values()) == set(range(2, MANY + 2))
        assert len(files.syncers) == 3  # the start's, the first thread's, one for all others
    assert sorted(marks(path)) == list(range(MANY))
    independent_checker.check(path)


class SlowSyncs:
    """A clock by which each sync takes 400 seconds, and nothing else takes any time."""

    def __init__(self) -> None:
        self.now = 0

    def sync(self, _: int) -> None:
        self.now += 400_000_000_000

    def monotonic_ns(self) -> int:
        return self.now

    time_ns = monotonic_ns

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nothing sleeps {seconds} s")


def test_threads_that_shared_a_slow_sync_are_waited_for(path: Path) -> None:
    slow = SlowSyncs()
    with clock.use(slow), held(path, slow.sync) as (writer, files, callers):
        lead(files, callers)
        callers.append(1, 2)
        until(lambda: files.written == 4)
        files.let_go()
        callers.join()
        assert len(files.syncers) == 3  # of the start, of the mark 0, of the marks 1 and 2
        callers.append(3)
        until(lambda: writer._group.is_awaited or len(files.syncers) > 3)
        assert len(files.syncers) == 3
        callers.append(4)
        callers.join()
        assert len(files.syncers) == 4
    assert sorted(marks(path)) == [0, 1, 2, 3, 4]


def test_a_thread_that_is_alone_syncs_by_itself(path: Path) -> None:
    threads = threading.active_count()
    with held(path) as (writer, files, _):
        for mark in range(5):
            writer.append(event("step_finish", mark))

        assert set(files.syncers) == {get_ident()}
        assert threading.active_count() == threads


def test_events_that_are_not_synced_wait_for_no_sync(path: Path) -> None:
    with held(path) as (writer, files, callers):
        lead(files, callers)
        assert writer.append(event("annotation", 1)) == 3
        assert files.waiting == 1


def test_no_thread_is_left_when_the_log_is_closed(path: Path) -> None:
    threads = threading.active_count()
    with held(path) as (_, files, callers):
        lead(files, callers)
        callers.append(1, 2)
        until(lambda: files.written == 4)
        files.let_go()
        callers.join()
    until(lambda: threading.active_count() == threads)


def test_closing_waits_for_a_sync_and_covers_all_that_wait(path: Path) -> None:
    with held(path) as (writer, files, callers):
        lead(files, callers)
        callers.append(1, 2)
        until(lambda: files.written == 4)
        closing = threading.Thread(target=writer.close)
        closing.start()
        assert callers.learned == {}
        assert closing.is_alive()
        files.let_go()
        closing.join()
        callers.join()
        assert sorted(callers.learned) == [0, 1, 2]
        assert None not in callers.learned.values()
    assert sorted(marks(path)) == [0, 1, 2]


def test_closing_syncs_what_nobody_waits_for_yet(path: Path) -> None:
    with held(path) as (writer, files, _):
        one = event("step_finish", 1)
        assert writer.append(one, wait=False) == 2
        writer.close()
        assert len(files.syncers) == 2
        assert writer.settle(one) == 2


def test_an_event_tells_how_many_lines_before_it_are_not_synced_yet(path: Path) -> None:
    with held(path) as (_, files, callers):
        lead(files, callers)
        callers.append(1)
        until(lambda: files.written == 3)
        callers.append(2)
        until(lambda: files.written == 4)
        files.let_go()
        callers.join()
    told = [one.get("unsynced") for one in independent_checker.check(path)]
    assert told == [None, None, 1, 2]


def test_an_event_that_is_synced_on_request_tells_it_too(path: Path) -> None:
    with writing(path) as writer:
        writer.append(start())
        writer.append(event("annotation", 1))
        writer.append(event("step_start", 2), sync=True)
    told = [one.get("unsynced") for one in independent_checker.check(path)]
    assert told == [None, None, 1]


def test_where_no_thread_can_be_started_each_syncs_by_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with held(path) as (_, files, callers):
        lead(files, callers)
        caller = threading.Thread(target=callers._append, args=(1,))
        with monkeypatch.context() as patched:
            patched.setattr(threading, "Thread", Refused)
            caller.start()
            until(lambda: files.written == 3)
            files.let_go()
            caller.join()
            callers.join()
        assert sorted(callers.learned) == [0, 1]
        assert None not in callers.learned.values()


# ---------------------------------------------------------------- syncs that fail


class Losing(Held):
    """The n-th sync fails, and what it was to cover is lost, as by a failed write-back.

    As the kernel does, it tells one caller, and later syncs succeed.

    :param hole: what others wrote meanwhile is not lost, so that a hole is left before it
    """

    def __init__(self, path: Path, nth: int, *, times: int = 1, hole: bool = False) -> None:
        super().__init__(self._lose)
        self._path, self._nths, self._hole = path, range(nth, nth + times), hole
        self._safe = self._begun = 0

    def sync(self, descriptor: int) -> None:
        self._begun = self.size(descriptor)
        super().sync(descriptor)

    def _lose(self, number: int) -> None:
        if number not in self._nths:
            self._safe = self._path.stat().st_size
            return
        with self._path.open("r+b") as file:
            if self._hole:
                file.seek(self._safe)
                file.write(bytes(self._begun - self._safe))
            else:
                file.truncate(self._safe)
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("nth", [2, 3], ids=["of the first", "of those who waited"])
@pytest.mark.parametrize("hole", [False, True], ids=["all", "a hole"])
@pytest.mark.parametrize("stop", [False, True], ids=["continue", "stop"])
def test_what_a_failed_sync_lost_is_written_again_for_all_who_waited(
    path: Path, nth: int, hole: bool, stop: bool
) -> None:
    files = Losing(path, nth, hole=hole)
    with log_files.use(files), writing(path, stop=stop) as writer:
        writer.append(start())
        callers = Callers(writer)
        lead(files, callers)
        callers.append(*range(1, MANY))
        until(lambda: files.written == 1 + MANY)
        files.let_go()
        callers.join()

        assert sorted(callers.learned) == list(range(MANY))
        assert None not in callers.learned.values()
        assert len(set(callers.learned.values())) == MANY  # seqs, each once
        assert writer.failure is None
        # Whoever was told that it is there finds it there, without the writer's further help.
        assert sorted(marks(path)) == list(range(MANY))
    independent_checker.check(path)


@pytest.mark.parametrize("stop", [False, True])
def test_a_disk_that_stays_broken_is_told_to_all_who_waited(
    path: Path, stop: bool, caplog: pytest.LogCaptureFixture
) -> None:
    files = Losing(path, 2, times=1000)
    with log_files.use(files):
        writer = LogWriter(path, ID, stop=stop)
        writer.append(start())
        callers = Callers(writer)
        lead(files, callers)
        callers.append(*range(1, MANY))
        until(lambda: files.written == 1 + MANY)
        files.let_go()
        callers.join()

        assert len(callers.learned) == MANY
        for learned in callers.learned.values():
            assert isinstance(learned, LogWriteError) if stop else learned is None
        assert caplog.text.count("cannot write to the log: [Errno 5]") == 1
        writer.close()


def test_a_second_sync_does_not_hide_that_the_first_has_failed(path: Path) -> None:
    """The kernel tells of a failed write-back once: who syncs next is told nothing."""
    files = Losing(path, 2)
    with log_files.use(files), writing(path) as writer:
        writer.append(start())
        callers = Callers(writer)
        lead(files, callers)
        callers.append(1)
        until(lambda: files.written == 3)
        files.let_go()
        until(lambda: 1 in callers.learned)
        assert 1 in marks(path)
        callers.join()
    assert sorted(marks(path)) == [0, 1]


# ---------------------------------------------------------------- interrupts and re-entry


def test_ctrl_c_in_a_waiting_thread_is_raised_once_its_event_is_synced(path: Path) -> None:
    with held(path) as (writer, files, callers):
        lead(files, callers)
        callers.append(1)
        until(lambda: writer._group.is_awaited)
        main = get_ident()

        def interrupt() -> None:
            try:
                until(lambda: len(writer._group._gates) == 2)
                signal.pthread_kill(main, signal.SIGINT)
                until(lambda: len(writer._group._gates) == 3)  # it waits again
                assert len(files.syncers) == 2
            finally:
                files.let_go()

        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            writer.append(event("step_finish", 2))
        assert len(files.syncers) == 3
        interrupting.join()
        callers.join()
    assert marks(path) == [0, 1, 2]
    independent_checker.check(path)


def test_ctrl_c_in_the_thread_that_syncs_leaves_nobody_waiting(path: Path) -> None:
    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with held(path, interrupt) as (writer, files, callers):

        def join_in() -> None:
            until(lambda: files.waiting)
            callers.append(1, 2)
            until(lambda: files.written == 4)
            files.let_go()

        files.hold()
        joining = threading.Thread(target=join_in)
        joining.start()
        with pytest.raises(KeyboardInterrupt):
            writer.append(event("step_finish", 0))
        joining.join()
        callers.join()
        assert sorted(callers.learned) == [1, 2]
        assert None not in callers.learned.values()
        assert writer._log.settled == 4
    assert sorted(marks(path)) == [0, 1, 2]


def test_what_is_appended_in_the_middle_of_a_sync_is_written_after_it(path: Path) -> None:
    """As by a signal handler, in the thread that syncs."""
    nested: list[int | None] = []

    def append(number: int) -> None:
        if number == 2:
            nested.append(writer.append(event("step_finish", "nested")))
            writer.close()  # it does nothing: the append around it needs the file

    with held(path, append) as (writer, _, _callers):
        assert writer.append(event("step_finish", "around")) == 2
        assert nested == [None]
        assert marks(path) == ["around", "nested"]
        assert writer._log.settled == 3


def test_a_recovery_does_not_wait_for_a_sync_that_waits_for_it(path: Path) -> None:
    """A signal handler appends in the thread that syncs, while another thread recovers the log."""

    class Full(Held):
        def write(self, descriptor: int, data: bytes) -> None:
            if b'"mark":"fails"' in data and self.failures:
                self.failures -= 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super().write(descriptor, data)

        failures = 1

    def append(number: int) -> None:
        if number == 2:
            failing.start()
            until(lambda: not files.failures)
            writer.append(event("annotation", "nested"))

    files = Full(append)
    with log_files.use(files), writing(path) as writer:
        writer.append(start())
        failing = threading.Thread(target=writer.append, args=(event("step_finish", "fails"),))
        writer.append(event("step_finish", "around"))
        failing.join(30)
        assert not failing.is_alive()
    assert sorted(marks(path)) == ["around", "fails", "nested"]
    independent_checker.check(path)


def test_what_is_appended_in_the_syncing_thread_waits_for_nobody(path: Path) -> None:
    """As by a finalizer, which any thread may run."""
    nested: list[int | None] = []

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(  # type: ignore[override]  # a looser type of the callback
            self, callback: Callable[..., object], *args: Any, context: Context | None = None
        ) -> asyncio.Handle:
            if threading.current_thread().name == "tapps_otel-sync":
                nested.append(writer.append(event("step_finish", "nested")))
            return super().call_soon_threadsafe(callback, *args, context=context)

    async def end() -> int | None:
        one = event("step_finish", "around")
        synced = writer.append_soon(one, loop)
        assert synced is not None
        await synced
        return writer.settle(one)

    with writing(path) as writer, contextlib.closing(Loop()) as loop:
        writer.append(start())
        assert loop.run_until_complete(end()) == 2
    assert nested == [None]  # it is buffered, and written by the append around it
    assert marks(path) == ["around", "nested"]


# ---------------------------------------------------------------- tasks


def test_tasks_of_a_loop_await_one_sync(path: Path) -> None:
    files = Held()

    async def end(writer: LogWriter, mark: int) -> int | None:
        one = event("step_finish", mark)
        synced = writer.append_soon(one, asyncio.get_running_loop())
        assert synced is not None
        await synced
        return writer.settle(one)

    async def main(writer: LogWriter) -> list[int | None]:
        files.hold()
        tasks = [asyncio.create_task(end(writer, mark)) for mark in range(100)]
        await until_async(lambda: files.waiting and files.written == 101)  # the loop is free
        assert not any(task.done() for task in tasks)
        files.let_go()
        return await asyncio.gather(*tasks)

    with log_files.use(files), writing(path) as writer:
        writer.append(start())
        assert asyncio.run(main(writer)) == list(range(2, 102))
        assert len(files.syncers) == 2
        assert files.syncers[1] != get_ident()
    assert marks(path) == list(range(100))


def test_a_loop_that_is_busy_for_long_does_not_put_the_sync_off(path: Path) -> None:
    files = Held()

    async def main(writer: LogWriter) -> int | None:
        loop = asyncio.get_running_loop()
        one = event("step_finish", 0)
        synced = writer.append_soon(one, loop)
        assert synced is not None
        until(lambda: len(files.syncers) == 2)  # while no other callback of the loop can run
        await synced
        return writer.settle(one)

    with log_files.use(files), writing(path) as writer:
        writer.append(start())
        assert asyncio.run(main(writer)) == 2


def test_a_loop_that_is_closed_hinders_no_other(path: Path) -> None:
    with held(path) as (writer, files, callers):
        lead(files, callers)
        loop = asyncio.new_event_loop()
        one = event("step_finish", 1)
        assert writer.append_soon(one, loop) is not None
        loop.close()
        callers.append(2)
        until(lambda: files.written == 4)
        files.let_go()
        callers.join()
        assert writer.settle(one) == 3
    assert sorted(marks(path)) == [0, 1, 2]


# ---------------------------------------------------------------- forks


def test_a_child_forked_in_the_middle_of_a_sync_waits_for_nobody(
    path: Path, tmp_path: Path
) -> None:
    need("fork")

    def child() -> int | None:
        writer.close()
        with log_files.use(Files()), writing(tmp_path / "own.jsonl") as own:
            return own.append(event("step_finish", 1, workflow_id="own"))

    with held(path) as (writer, files, callers):
        lead(files, callers)
        callers.append(1, 2)
        until(lambda: files.written == 4)
        assert in_child(child).value == 1
        files.let_go()
        callers.join()
    assert sorted(marks(path)) == [0, 1, 2]


def test_an_end_that_no_line_can_hold_is_counted_once_for_its_task(path: Path) -> None:
    too_long = event("step_finish", 1, name="x" * 2_000_000)

    async def task(writer: LogWriter) -> int | None:
        synced = writer.append_soon(too_long, asyncio.get_running_loop())
        assert synced is not None  # else it would be appended once more
        await synced
        return writer.settle(too_long)

    with writing(path) as writer:
        writer.append(start())
        assert asyncio.run(task(writer)) is None

    gaps = [one for one in independent_checker.check(path) if one["event_type"] == "log_gap"]
    assert [one["attributes"] for one in gaps] == [{"dropped": 1}]
