"""Steps that are submitted to an executor, and executed by its workers."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import remote_steps
from crashes import Effects, in_child
from remote_steps import Inline, Page, Shop, spawned
from tapps_otel import bind, configure, history, list_runs, step, verify, workflow
from tapps_otel.errors import (
    FailureDetailError,
    InterruptedTooOftenError,
    StepInputError,
    StepInterruptedError,
    StepResultError,
    StepTimeoutError,
)

Log = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    """A process, which serves all tests that do not kill it."""
    with spawned() as made:
        yield made


class Shared(Executor):
    """Leaves the executor that tests share open."""

    def __init__(self, inner: Executor) -> None:
        self._inner, self._max_workers = inner, 1

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._inner.submit(fn, *args, **kwargs)


def run(flow: Callable[[], Any]) -> Any:
    return workflow(flow).options(workflow_id="r")()


def outcome_of(pool: Executor, one: Any, *args: Any) -> Any:
    """Submit one step in a run, and return its result."""

    def flow() -> Any:
        with bind(Shared(pool)) as bound:
            return bound.submit(one, *args).result()

    return run(flow)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


# -- what an executor does


def test_submitted_steps_are_steps_of_the_run(pool: Executor, log: Log) -> None:
    pages = [Page("a", 1), Page("b", 2)]

    @workflow
    def flow() -> list[Page]:
        with bind(Shared(pool)) as bound:
            return list(bound.map(remote_steps.draft, pages))

    drafts = flow.options(workflow_id="r")()
    assert drafts == [Page("a, warm", 1), Page("b, warm", 2)]
    assert [one["step_id"] for one in log("step_start")] == ["draft", "draft#2"]
    assert {one["status"] for one in log("step_finish")} == {"completed"}
    assert verify("r").ok
    assert flow.resume("r") == drafts


def test_an_end_tells_which_worker_executed_it_and_for_how_long(pool: Executor, log: Log) -> None:
    pid = outcome_of(pool, remote_steps.where)
    (end,) = log("step_finish")
    found = end["attributes"]
    assert found["tapps.worker.pid"] == pid
    assert found["tapps.worker.host"] == log("workflow_start")[0]["process"]["host"]
    total = found["tapps.worker.duration"] + found["tapps.worker.wait"]
    assert total == pytest.approx(end["duration_ns"] / 1e9)


def test_a_step_that_has_completed_is_not_submitted_again(log: Log) -> None:
    engine = Inline()

    ends = False

    @workflow
    def flow() -> int:
        with bind(engine) as bound:
            found = bound.submit(remote_steps.double, 2).result()
        if not ends:
            raise ValueError
        return found

    with pytest.raises(ValueError):
        flow.options(workflow_id="r")()
    ends = True
    assert flow.resume("r") == 4
    assert engine.submitted == 1
    assert len(log("step_start")) == 1


def test_calls_of_partials_methods_and_other_functions(pool: Executor, log: Log) -> None:
    @workflow
    def flow() -> list[Any]:
        with bind(Shared(pool)) as bound:
            dry = functools.partial(remote_steps.draft, tone="dry")
            futures: list[Future[Any]] = [
                bound.submit(dry, Page("a", 1)),
                bound.submit(Shop(3).price, 4),
                bound.submit(remote_steps.plain, 1),
                bound.submit(remote_steps.double.options(key="two"), 2),
            ]
            page, *rest = [one.result() for one in futures]
            return [page.name, *rest]

    assert flow.options(workflow_id="r")() == ["a, dry", 12, 101, 4]
    starts = log("step_start")
    assert [one["step_id"] for one in starts] == ["draft", "Shop.price", "double"]
    assert starts[2]["key"] == "two"


def test_an_event_loop_executes_steps_in_it(pool: Executor, log: Log) -> None:
    @workflow
    async def flow() -> list[int]:
        bound, loop = bind(Shared(pool)), asyncio.get_running_loop()
        return await asyncio.gather(
            *(loop.run_in_executor(bound, remote_steps.double, one) for one in range(3))
        )

    assert asyncio.run(flow.options(workflow_id="r")()) == [0, 2, 4]
    assert len(log("step_finish")) == 3


def test_async_steps_are_run_to_their_end(pool: Executor) -> None:
    assert outcome_of(pool, remote_steps.later, 1) == 2


def test_outside_a_run_submitted_steps_are_plain_calls(pool: Executor, log_dir: Path) -> None:
    with bind(Shared(pool)) as bound:
        assert bound.submit(remote_steps.double, 2).result() == 4
    assert not log_dir.exists()


def test_no_step_is_taken_after_the_end_of_the_block() -> None:
    def flow() -> int:
        with bind(Inline()) as bound:
            pass
        with pytest.raises(RuntimeError, match="after shutdown"):
            bound.submit(remote_steps.double, 2)
        return 1

    assert run(flow) == 1


@pytest.mark.parametrize("given", [1, None], ids=["number", "none"])
def test_only_functions_and_executors_can_be_bound(given: Any) -> None:
    with pytest.raises(TypeError, match="expected a function, or an executor"):
        bind(given)


def test_functions_take_no_options_of_executors() -> None:
    with pytest.raises(TypeError, match="at_once and renew are for executors"):
        bind(remote_steps.plain, at_once=1)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="at_once=0"):
        bind(Inline(), at_once=0)


# -- bytes in, bytes out


def test_a_call_that_cannot_be_pickled_is_an_error_without_an_event(log: Log) -> None:
    engine = Inline()

    @step
    def local(page: object) -> int:
        return 1

    @workflow
    def flow() -> int:
        with bind(engine) as bound:
            with pytest.raises(StepInputError, match=r"\$\.page: cannot pickle") as raised:
                bound.submit(remote_steps.draft.options(key="k"), threading.Lock())  # type: ignore[arg-type]
            assert raised.value.path == "$.page"
            with pytest.raises(StepInputError, match="top level of a module"):
                bound.submit(local, 1)
        return 1

    assert flow.options(workflow_id="r")() == 1
    assert engine.submitted == 0
    assert log("step_start") == []


def test_what_the_log_has_is_not_pickled_again(log: Log) -> None:
    unpicklable, ends = False, False

    class Now:
        def __reduce__(self) -> Any:
            if unpicklable:
                raise TypeError("closed")
            return str, ("now",)

    @workflow
    def flow() -> str:
        with bind(Inline()) as bound:
            found: str = bound.submit(remote_steps.says.options(key="now"), Now()).result()
        if not ends:
            raise ValueError
        return found

    with pytest.raises(ValueError):
        flow.options(workflow_id="r")()
    unpicklable = ends = True
    assert flow.resume("r") == "now"


def test_a_result_that_cannot_be_stored_is_an_error_at_once(pool: Executor, log: Log) -> None:
    with pytest.raises(StepResultError, match="lock"):
        outcome_of(pool, remote_steps.not_json, 1)
    (end,) = log("step_fail")
    assert end["status"] == "failed"
    assert end["attributes"]["tapps.worker.host"]


def test_a_result_is_what_a_resume_would_give() -> None:
    def flow() -> list[Any]:
        with bind(Inline()) as bound:
            return [bound.submit(remote_steps.fleeting, 1).result()]

    assert run(flow) == [2]
    (found,) = history("r").steps
    assert found.result_omitted == "persist=False"


def test_a_large_result_is_stored_in_a_blob(pool: Executor, log: Log) -> None:
    assert len(outcome_of(pool, remote_steps.large, 100_000)) == 100_000
    (end,) = log("step_finish")
    assert "result_blob" in end


def test_the_driver_unpickles_nothing(log: Log, tmp_path: Path) -> None:
    class Hostile(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(pickle.dumps(_Bomb(str(tmp_path / "bomb"))))
            return future

    def flow() -> int:
        return bind(Hostile()).submit(remote_steps.double, 1).result()

    with pytest.raises(InterruptedTooOftenError):
        run(flow)
    assert not (tmp_path / "bomb").exists()
    assert {one["status"] for one in log("step_fail")} == {"interrupted"}


class _Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


# -- inside a step


def test_a_step_knows_its_place(pool: Executor, log: Log) -> None:
    step_id, number, key, workflow_id = outcome_of(pool, remote_steps.identity)
    assert (step_id, number, workflow_id) == ("identity", "1", "r")
    assert len(key) == 64


def test_steps_inside_are_plain_calls_with_one_warning(
    pool: Executor, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    def flow() -> list[int]:
        with bind(Shared(pool)) as bound:
            return list(bound.map(remote_steps.nested, range(3)))

    assert flow.options(workflow_id="r")() == [0, 4, 8]
    assert {one["step"] for one in log("step_start")} == {"nested"}
    (text,) = warnings_of(caplog)
    assert "plain calls" in text


def test_a_workflow_inside_is_a_plain_call_and_no_run(pool: Executor, log: Log) -> None:
    """With an id that each attempt would choose anew, it would repeat what had finished in it."""
    assert outcome_of(pool, remote_steps.handles, 3) == 6
    assert [one.workflow_id for one in list_runs()] == ["r"]
    assert {one["step"] for one in log("step_start")} == {"handles"}


def test_a_step_inside_that_must_not_run_twice_is_refused(pool: Executor) -> None:
    with pytest.raises(LookupError, match="call it in the workflow, or submit it there"):
        outcome_of(pool, remote_steps.pays_inside)


def test_steps_in_threads_of_a_worker_are_plain_calls_with_the_same_warning(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker is a thread of this process, in which the run is open."""

    def flow() -> int:
        with bind(ThreadPoolExecutor(1)) as bound:
            return bound.submit(remote_steps.nested_in_threads, 3).result()

    assert run(flow) == 12
    assert {one["step"] for one in log("step_start")} == {"nested_in_threads"}
    (text,) = warnings_of(caplog)
    assert "in a worker of an executor are plain calls" in text


def test_annotations_of_a_step_are_in_the_log_and_redacted(pool: Executor, log: Log) -> None:
    outcome_of(pool, remote_steps.noted, "hello")
    (note,) = log("annotation")
    assert (note["name"], note["step_id"]) == ("said", "noted")
    assert note["attributes"]["text"] == "hello"
    assert "abcdefgh" not in str(note)
    (start,), (end,) = log("step_start"), log("step_finish")
    assert start["timestamp"] <= note["timestamp"] <= end["timestamp"]


def test_annotations_are_bounded(pool: Executor, log: Log) -> None:
    outcome_of(pool, remote_steps.noted_often, 30, 100_000)
    (dropped,) = [one for one in log("annotation") if one["name"] == "tapps.worker.dropped"]
    kept = [one for one in log("annotation") if one["name"] == "long"]
    assert len(kept) == 10
    assert dropped["attributes"] == {"annotations": 20, "spans": 0}


def test_a_step_can_skip_itself(pool: Executor, log: Log) -> None:
    assert outcome_of(pool, remote_steps.skipped, "not today") == 7
    (end,) = log("step_skip")
    assert (end["reason"], end["result"]) == ("not today", 7)


@pytest.mark.parametrize("size", [10, 2_000_000], ids=["small", "large"])
def test_artifacts_have_their_digests(pool: Executor, log: Log, tmp_path: Path, size: int) -> None:
    outcome_of(pool, remote_steps.made, str(tmp_path / "made.txt"), size)
    (end,) = log("step_finish")
    (artifact,) = end["artifacts"]
    assert artifact["bytes"] == size
    assert len(artifact["sha256"]) == 64


# -- failures


def test_a_failure_comes_back_as_its_class(pool: Executor, log: Log) -> None:
    @workflow
    def flow() -> int:
        with bind(Shared(pool)) as bound:
            try:
                bound.submit(remote_steps.fails, 5).result()
            except remote_steps.OwnError as error:
                return error.code
        return 0

    assert flow.options(workflow_id="r")() == 5
    (end,) = log("step_fail")
    assert end["error"]["type"] == "remote_steps.OwnError"
    assert "in fails" in end["error"]["stack"]


def test_a_detail_that_no_log_can_keep_is_refused_from_the_start(pool: Executor) -> None:
    def flow() -> Any:
        with bind(Shared(pool)) as bound:
            try:
                return bound.submit(remote_steps.keeps_socket).result()
            except ValueError as error:
                return error.lock  # type: ignore[attr-defined]

    with pytest.raises(FailureDetailError, match="lock"):
        run(flow)


def test_failed_tries_are_repeated(pool: Executor, log: Log, did: Effects) -> None:
    assert outcome_of(pool, remote_steps.fails_twice, str(did._path)) == 3
    assert [one["attempt"] for one in log("step_start")] == [1, 2, 3]
    assert [one["retry_in_ns"] for one in log("step_fail")] == [0, 0]


def test_a_timeout_is_one(pool: Executor, log: Log) -> None:
    with pytest.raises(StepTimeoutError):
        outcome_of(pool, remote_steps.too_slow)
    assert log("step_fail")[0]["status"] == "timeout"


def test_an_exit_in_a_step_is_an_interruption_and_ends_no_worker(pool: Executor, log: Log) -> None:
    before = pool.submit(remote_steps.where).result()
    with pytest.raises(SystemExit):
        outcome_of(pool, remote_steps.exits, 3)
    assert log("step_fail")[0]["status"] == "interrupted"
    assert pool.submit(remote_steps.where).result() == before


# -- what waits for a worker


def test_what_waits_for_a_worker_has_not_started(log: Log, tmp_path: Path) -> None:
    go = str(tmp_path / "go")

    @workflow
    def flow() -> int:
        with ThreadPoolExecutor(2) as threads, bind(threads) as bound:
            futures = [bound.submit(remote_steps.waits_for, go) for _ in range(5)]
            started = len(log("step_start"))
            Path(go).touch()
            assert [one.result() for one in futures] == [1] * 5
            return started

    assert flow.options(workflow_id="r")() == 2
    assert len(log("step_finish")) == 5


def test_an_exception_cancels_what_waits(log: Log, tmp_path: Path) -> None:
    go, futures = tmp_path / "go", list[Future[Any]]()

    def flow() -> None:
        with bind(ThreadPoolExecutor(1)) as bound:
            futures.extend(bound.submit(remote_steps.waits_for, str(go)) for _ in range(3))
            threading.Timer(0.05, go.touch).start()
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        run(flow)
    assert [one.cancelled() for one in futures] == [False, True, True]
    assert len(log("step_start")) == len(log("step_finish")) == 1


def test_ctrl_c_in_a_worker_cancels_what_waits(pool: Executor, log: Log, tmp_path: Path) -> None:
    """A terminal sends it to workers and driver at the same time."""
    go = tmp_path / "go"

    def flow() -> int:
        with bind(Shared(pool)) as bound:
            first = bound.submit(remote_steps.interrupted, str(go))
            second = bound.submit(remote_steps.double, 1)
            go.touch()
            with pytest.raises(KeyboardInterrupt):
                first.result()
            with pytest.raises(CancelledError):
                second.result()
            return bound.submit(remote_steps.double, 2).result()

    assert run(flow) == 4
    assert [one["step"] for one in log("step_start")] == ["interrupted", "double"]


def test_a_future_can_be_cancelled_while_it_waits(log: Log, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def flow() -> list[bool]:
        with bind(ThreadPoolExecutor(1)) as bound:
            futures = [bound.submit(remote_steps.waits_for, str(go)) for _ in range(3)]
            found = [futures[0].cancel(), futures[1].cancel()]
            go.touch()
            futures[2].result()
            return found

    assert run(flow) == [False, True]
    assert len(log("step_start")) == 2


def test_the_run_waits_for_what_it_left_behind(log: Log, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def flow() -> int:
        bound = bind(ThreadPoolExecutor(1))
        for _ in range(2):
            bound.submit(remote_steps.waits_for, str(go))
        go.touch()
        return 1

    assert run(flow) == 1
    assert [one["event_type"] for one in log()][-1] == "workflow_end"
    assert len(log("step_finish")) == 2


# -- workers that die


@pytest.mark.slow
def test_a_step_whose_worker_died_runs_again_at_once(log: Log, did: Effects) -> None:
    @workflow
    def flow() -> int:
        with spawned(2) as made, bind(made) as bound:
            return bound.submit(remote_steps.dies_once, str(did._path)).result()

    assert flow.options(workflow_id="r")() == 2
    assert [one["attempt"] for one in log("step_start")] == [1, 2]
    (end,) = log("step_fail")
    assert end["status"] == "interrupted"
    assert "BrokenProcessPool" in end["error"]["type"]
    assert verify("r").ok


@pytest.mark.slow
def test_a_step_that_kills_its_workers_is_refused(log: Log, did: Effects) -> None:
    def flow() -> int:
        with spawned() as made, bind(made) as bound:
            return bound.submit(remote_steps.dies, str(did._path)).result()

    with pytest.raises(InterruptedTooOftenError, match="max_interruptions=2"):
        run(flow)
    assert did.count("try") == 3
    assert len(log("step_start")) == 3


@pytest.mark.slow
def test_after_a_refusal_no_step_starts_that_waited(log: Log, did: Effects) -> None:
    futures = list[Future[int]]()

    def flow() -> None:
        with spawned() as made, bind(made) as bound:
            futures.append(bound.submit(remote_steps.dies, str(did._path)))
            futures.append(bound.submit(remote_steps.double, 1))
            for one in futures:
                with pytest.raises(InterruptedTooOftenError):
                    one.result()

    with pytest.raises(InterruptedTooOftenError):
        run(flow)
    assert {one["step"] for one in log("step_start")} == {"dies"}


def test_a_step_that_must_not_run_twice_does_not(log: Log, did: Effects) -> None:
    def flow() -> int:
        with spawned() as made, bind(made) as bound:
            return bound.submit(remote_steps.pays, str(did._path)).result()

    for _ in range(2):
        with pytest.raises(StepInterruptedError, match="tapps-otel resolve"):
            run(flow)
    assert did.count("pay") == 1


def test_a_step_that_must_not_run_twice_does_not_after_it_was_cancelled_in_a_worker(
    pool: Executor, did: Effects
) -> None:
    with pytest.raises((asyncio.CancelledError, CancelledError)):
        outcome_of(pool, remote_steps.pays_and_is_cancelled, str(did._path))
    with pytest.raises(StepInterruptedError, match="was cancelled"):
        outcome_of(pool, remote_steps.pays_and_is_cancelled, str(did._path))
    assert did.all == ["pay"]


def test_without_another_executor_the_run_fails_and_can_be_resumed(did: Effects) -> None:
    from concurrent.futures.process import BrokenProcessPool

    @workflow
    def flow() -> int:
        with spawned() as made:
            bound = bind(Shared(made))
            return bound.submit(remote_steps.dies_once, str(did._path)).result()

    with pytest.raises(BrokenProcessPool):
        flow.options(workflow_id="r")()
    assert history("r").status == "failed"
    assert flow.resume("r") == 2


def test_an_executor_is_released_with_its_block() -> None:
    gone = threading.Event()

    def flow() -> int:
        with spawned() as made:
            weakref.finalize(made, gone.set)
            with bind(made) as bound:
                return sum(bound.map(remote_steps.double, [1, 2]))

    gc.collect()
    gc.disable()  # a collection while another pool starts costs that one its semaphores
    try:
        assert run(flow) == 6
        assert gone.wait(30)
    finally:
        gc.enable()


def test_an_executor_can_be_renewed_by_the_program(did: Effects) -> None:
    made: list[Executor] = []

    def another() -> Executor:
        made.append(Inline())
        return made[-1]

    @workflow
    def flow() -> int:
        with spawned() as first:
            bound = bind(Shared(first), renew=another)
            return bound.submit(remote_steps.dies_once, str(did._path)).result()

    assert flow.options(workflow_id="r")() == 2
    assert len(made) == 1


def test_what_the_engine_raises_is_an_interruption(log: Log) -> None:
    class Failing(Inline):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if self.submitted < 2:
                self.submitted += 1
                future: Future[Any] = Future()
                future.set_exception(ConnectionError("the scheduler is gone"))
                return future
            return super().submit(fn, *args, **kwargs)

    def flow() -> int:
        return bind(Failing()).submit(remote_steps.double, 1).result()

    assert run(flow) == 2
    assert [one["status"] for one in log("step_fail")] == ["interrupted"] * 2


def test_the_death_of_the_driver_does_not_count_against_a_step(log: Log, did: Effects) -> None:
    class Deadly(Inline):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if did("submit") <= 5:
                os._exit(9)
            return super().submit(fn, *args, **kwargs)

    @workflow
    def flow() -> int:
        return bind(Deadly()).submit(remote_steps.double, 1).result()

    for _ in range(5):
        assert in_child(flow.options(workflow_id="r")).code == 9
    assert flow.resume("r") == 2
    assert log("step_start")[-1]["attempt"] == 6
    assert log("step_start")[0]["attributes"]["tapps.engine"] == "Deadly"


# -- group commit


def test_receipts_share_syncs(log_dir: Path) -> None:
    from group_syncs import Held
    from tapps_otel.log import files

    configure(durability="commit")
    held = Held()

    @workflow
    def flow() -> int:
        with bind(ThreadPoolExecutor(8)) as bound:
            held.hold()
            first = bound.submit(remote_steps.double, 0)
            rest = [bound.submit(remote_steps.double, one) for one in range(1, 8)]
            before = len(held.syncers)
            held.let_go()
            assert [one.result() for one in [first, *rest]] == list(range(0, 16, 2))
            return len(held.syncers) - before

    with files.use(held):
        assert flow.options(workflow_id="r")() <= 4
