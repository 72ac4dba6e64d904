"""A scope can end once every attempt in it has ended, whichever way that was."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from logs import Settable
from tapps_otel import Backoff, Run, bind, clock, configure, step, workflow
from tapps_otel.errors import LogWriteError, RunEndedError
from tapps_otel.log import files
from tapps_otel.log.files import FaultyFiles
from tapps_otel.run.scope import OPEN, Scope
from waiting import until

Labels = Callable[..., list[str]]
AT_ONCE = Backoff(0, 1, 0)


def failing_once() -> Callable[[], str]:
    """A step that fails at its first try."""
    tries: list[int] = []

    @step(retries=1, backoff=AT_ONCE)
    def work() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError
        return "done"

    return work


def test_a_step_that_was_retried_in_a_thread_lets_its_workflow_end(labels: Labels) -> None:
    work = failing_once()

    @workflow
    def flow() -> str:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(bind(work)).result()

    assert flow.options(workflow_id="r")() == "done"
    assert labels()[-2:] == ["step_finish work", "workflow_end"]


async def test_a_step_that_was_retried_in_a_task_lets_its_workflow_end(labels: Labels) -> None:
    tries: list[int] = []

    @step(retries=1, backoff=AT_ONCE)
    async def work() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError
        return "done"

    @workflow
    async def flow() -> str:
        return await asyncio.create_task(work())

    assert await flow.options(workflow_id="r")() == "done"
    assert labels()[-2:] == ["step_finish work", "workflow_end"]


def test_a_retry_that_comes_after_its_workflow_is_refused_and_lets_it_end(
    monkeypatch: pytest.MonkeyPatch, labels: Labels
) -> None:
    failed, ending = threading.Event(), threading.Event()
    drain = Scope.drain

    def announced(scope: Scope) -> None:
        ending.set()
        drain(scope)

    def between_the_tries() -> None:
        failed.set()
        ending.wait()

    monkeypatch.setattr(Scope, "drain", announced)
    work = failing_once()
    left_behind: list[Future[Any]] = []

    with ThreadPoolExecutor(1) as pool, clock.use(Settable(on_sleep=between_the_tries)):

        @workflow
        def flow() -> str:
            left_behind.append(pool.submit(bind(work)))
            failed.wait()
            return "without it"

        assert flow.options(workflow_id="r")() == "without it"
    with pytest.raises(RunEndedError, match="step 'work' was called after"):
        left_behind[0].result()
    assert labels() == ["workflow_start", "step_start work", "step_fail work", "workflow_end"]


def test_a_step_in_a_thread_whose_end_cannot_be_written_lets_its_workflow_end() -> None:
    configure(on_log_failure="stop")

    @step
    def work() -> None: ...

    @workflow
    def flow() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(bind(work)).result()

    # The third write is the step's end, after the starts of the run and of the step.
    with files.use(FaultyFiles("write", 3)), pytest.raises(LogWriteError):
        flow.options(workflow_id="r")()


def test_a_step_that_is_begun_in_a_thread_while_the_run_fails_starts_before_it_ends(
    labels: Labels,
) -> None:
    """And the run fails by the user's failure."""
    starting, closing = threading.Event(), threading.Event()
    refused: list[BaseException] = []
    threads: list[threading.Thread] = []

    class Slow(files.Files):
        def write(self, descriptor: int, data: bytes) -> None:
            if b'"step":"late"' in data and b"step_start" in data:
                starting.set()
                closing.wait(30)
            super().write(descriptor, data)

    def fail() -> None:
        with files.use(Slow()), Run.open("x", workflow_id="r") as run:
            recorder = run._recorder

            def begin() -> None:
                try:
                    run.begin("late")
                except RunEndedError as error:
                    refused.append(error)

            def close() -> None:
                until(lambda: recorder.root.state is not OPEN)
                closing.set()

            threads.extend(threading.Thread(target=one) for one in (begin, close))
            for one in threads:
                one.start()
            assert starting.wait(30)
            raise ValueError("of the user")

    with pytest.raises(ValueError, match="of the user"):
        fail()
    for one in threads:
        one.join()

    assert labels() == ["workflow_start", "step_start late", "step_fail late", "workflow_end"]
    assert len(refused) == 1
