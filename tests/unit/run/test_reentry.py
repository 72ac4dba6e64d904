"""What is called in the middle of a write: signal handlers, finalizers, handlers of the log.

None of it waits for a lock that its own thread holds, and what it records is in the log.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from crashes import go
from tapps_otel import Run, annotate, configure, settings, step, verify, workflow
from tapps_otel.log import files as log_files
from tapps_otel.log.event import Event
from tapps_otel.log.files import FaultyFiles, Files
from tapps_otel.log.store import Store
from tapps_otel.run.external_start import ExternalWorkflow, start_run

Labels = Callable[..., list[str]]
Log = Callable[..., list[dict[str, Any]]]


class Interfering(Files):
    """Calls ``then`` in the middle of the n-th write, as a signal handler or a finalizer is."""

    def __init__(self, nth: int, then: Callable[[], object]) -> None:
        self._left, self._then = nth, then

    def write(self, descriptor: int, data: bytes) -> None:
        self._left -= 1
        if self._left == 0:
            self._then()
        super().write(descriptor, data)


@step
def work() -> None:
    pass


@workflow
def flow() -> None:
    work()


def test_an_annotation_in_the_middle_of_a_write_is_written_after_it(labels: Labels) -> None:
    with log_files.use(Interfering(2, lambda: annotate("note"))):
        go(flow)

    assert labels() == [
        "workflow_start",
        "step_start work",
        "annotation",
        "step_finish work",
        "workflow_end",
    ]
    verify("r").raise_if_bad()


def test_a_generator_that_is_collected_in_the_middle_of_a_write_ends_its_step(log: Log) -> None:
    with Run.open("x", workflow_id="r") as run:

        def items() -> Iterator[int]:
            with run.begin("items"):
                yield 1

        left = [items()]
        next(left[0])
        with log_files.use(Files()):
            writer = run._recorder.writer
            assert writer is not None
            writer._log._files = Interfering(1, left.clear)
            run.annotate("note", {})

    ends = {one["step_id"]: one["status"] for one in log("step_fail")}
    assert ends == {"items": "cancelled"}
    verify("r").raise_if_bad()


def test_what_ran_in_the_middle_of_a_write_is_not_lost_with_an_interrupt(labels: Labels) -> None:
    def interrupt() -> None:
        annotate("note")
        raise KeyboardInterrupt

    with log_files.use(Interfering(2, interrupt)), pytest.raises(KeyboardInterrupt):
        go(flow)

    assert labels() == [
        "workflow_start",
        "step_start work",
        "annotation",
        "step_fail work",
        "workflow_end",
    ]
    go(flow)
    verify("r").raise_if_bad()


class Annotating(logging.Handler):
    """A handler that records in the run what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        annotate("logged", text=record.getMessage())


def test_a_handler_of_the_standard_log_may_annotate(log: Log) -> None:
    """Also of the errors of the log itself."""

    logger, handler = logging.getLogger("tapps_otel"), Annotating()
    logger.addHandler(handler)
    try:
        with log_files.use(FaultyFiles("write", 2, times=2)):
            go(flow)
    finally:
        logger.removeHandler(handler)

    texts = [one["attributes"]["text"] for one in log("annotation")]
    assert any("cannot write to the log" in text for text in texts)
    verify("r").raise_if_bad()


def test_two_threads_that_log_and_annotate_do_not_wait_for_each_other(log: Log) -> None:
    """One fails to write while it would report that, the other reports and wants to write."""
    configure(on_log_failure="continue")
    reporting, annotated = threading.Event(), threading.Event()

    class Waiting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.ERROR:
                reporting.set()
                assert annotated.wait(30), "the lock was held while this was reported"

    logger, handler = logging.getLogger("tapps_otel"), Waiting()
    logger.addHandler(handler)
    try:
        with log_files.use(FaultyFiles("write", 2, times=2)), Run.open("x", workflow_id="r") as run:

            def note() -> None:
                assert reporting.wait(30)
                run.annotate("other", {})
                annotated.set()

            thread = threading.Thread(target=note)
            thread.start()
            run.annotate("first", {})
            thread.join()
    finally:
        logger.removeHandler(handler)

    assert {one["name"] for one in log("annotation")} == {"first", "other"}


# ---------------------------------------------------------------- the run's own lock


class NoLock(AbstractContextManager[None]):
    """Any number of threads have it."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...


class Recording(logging.Handler):
    """Runs a step of a run for each message, in this thread and in another one.

    :ivar blocked: messages at which the other thread waited for a lock that this one held
    """

    def __init__(self, record: Callable[[str], object]) -> None:
        super().__init__()
        self._record, self._inside = record, False
        self.blocked: list[str] = []
        self.texts: list[str] = []

    def createLock(self) -> None:  # noqa: N802 - of the base class
        self.lock = cast("threading.RLock", NoLock())  # only locks of the library may block

    def emit(self, record: logging.LogRecord) -> None:
        if self._inside:  # what the steps of this handler cause
            return
        self._inside, text = True, record.getMessage()
        self.texts.append(text)
        self._record("here")
        thread = threading.Thread(target=self._record, args=["there"], daemon=True)
        thread.start()
        thread.join(10)
        if thread.is_alive():
            self.blocked.append(text)
        self._inside = False


@contextmanager
def recording(record: Callable[[str], object]) -> Iterator[Recording]:
    logger, handler = logging.getLogger("tapps_otel"), Recording(record)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


def test_a_handler_may_use_a_run_whose_captured_span_cannot_be_written(log: Log) -> None:
    with Run.open("x", workflow_id="r") as run, log_files.use(Files()):
        recorder = run._recorder
        assert recorder.writer is not None
        recorder.writer._log._files = FaultyFiles("write", times=1)
        span = Event(
            event_type="annotation",
            workflow_id="r",
            timestamp="2026-11-24T00:00:00.000000000Z",
            execution=1,
            name="captured",
        )
        with recording(lambda name: run.call(name, lambda: None)) as handler:
            recorder.append_captured(span, sync=False)

    assert any("cannot write to the log" in text for text in handler.texts)
    assert handler.blocked == []
    assert {one["step"] for one in log("step_finish")} == {"here", "there"}
    assert [one["name"] for one in log("annotation")] == ["captured"]


def test_a_handler_may_use_a_run_that_is_called_after_its_end() -> None:
    with Run.open("x", workflow_id="r") as run:
        pass
    with recording(lambda name: run.call(name, lambda: None)) as handler:
        run.call("late", lambda: None)

    assert any("'late' was called after run 'r' had completed" in text for text in handler.texts)
    assert handler.blocked == []


def test_a_handler_may_use_an_executors_run_that_is_written_event_by_event(
    log_dir: Path, log: Log
) -> None:
    run = start_run(Store(log_dir), "r", ExternalWorkflow("x", {}), settings.current())
    run.end("completed")
    run._last_writer._log._files = FaultyFiles("write", times=1)
    with recording(lambda name: run.annotate_step(name, name, {})) as handler:
        run.annotate_step("first", "first", {})

    assert any("cannot write to the log" in text for text in handler.texts)
    assert handler.blocked == []
    assert {one["name"] for one in log("annotation")} == {"first", "here", "there"}
