"""Executors that break, that take nothing, and whose workers cannot begin; what callers get."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import remote_steps
from capabilities import need
from crashes import Effects
from remote_steps import Inline, Unreadable, spawned
from tapps_otel import Redaction, bind, configure, history, verify, workflow
from tapps_otel.errors import InterruptedTooOftenError, StepResultError
from waiting import until

# A pool that forks begins with all its processes. Of one that spawns them when they are needed, the
# interpreter may not see that the newest has died before another one ends its call.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
Log = Callable[..., list[dict[str, Any]]]


def run(flow: Callable[[], Any]) -> Any:
    return workflow(flow).options(workflow_id="r")()


# -- what the executor does not take has not begun


@pytest.mark.slow
def test_steps_wait_for_workers_although_the_block_of_their_pool_has_ended(log: Log) -> None:
    def flow() -> list[int]:
        with spawned(2) as made:
            bound = bind(made)
            futures = [bound.submit(remote_steps.double, one) for one in range(5)]
            made.shutdown()
            return [one.result() for one in futures]

    assert run(flow) == [0, 2, 4, 6, 8]
    assert {one["attempt"] for one in log("step_start")} == {1}


def test_a_step_that_its_executor_does_not_take_has_not_begun(log: Log, did: Effects) -> None:
    class Closed(Inline):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if did("submit") <= 5:
                raise RuntimeError("no room")
            return super().submit(fn, *args, **kwargs)

    def flow() -> int:
        return bind(Closed()).submit(remote_steps.pays_once).result()

    for _ in range(5):
        with pytest.raises(RuntimeError, match="no room"):
            run(flow)
    assert run(flow) == 1
    assert {one["status"] for one in log("step_fail")} == {"cancelled"}
    assert verify("r").ok


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_a_pool_that_cannot_begin_is_an_error_of_no_step(
    kind: str, log: Log, tmp_path: Path
) -> None:
    database = tmp_path / "database"

    def flow() -> int:
        pool = ProcessPoolExecutor(
            2,
            mp_context=get_context(kind),
            initializer=remote_steps.cannot_begin,
            initargs=(str(database),),
        )
        with bind(pool) as bound:
            return bound.submit(remote_steps.pays_once).result()

    for _ in range(2):
        with pytest.raises(BrokenProcessPool):
            run(flow)
    assert log("step_start") == []
    database.touch()
    assert run(flow) == 1


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_a_process_that_is_killed_while_it_starts_breaks_no_step(
    kind: str, log: Log, did: Effects
) -> None:
    def flow() -> list[int]:
        pool = ProcessPoolExecutor(
            1,
            mp_context=get_context(kind),
            initializer=remote_steps.dies_at_first,
            initargs=(str(did._path), 1),
        )
        with bind(pool) as bound:
            return list(bound.map(remote_steps.double, range(3)))

    assert run(flow) == [0, 2, 4]
    assert log("step_fail") == []
    assert did.count("began") == 2


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_steps_reach_their_end_although_the_program_keeps_only_their_futures(
    kind: str, tmp_path: Path
) -> None:
    """Here a garbage collection comes while the pool has not begun."""
    ready = tmp_path / "ready"

    def submitted() -> list[Future[int]]:
        pool = ProcessPoolExecutor(
            1,
            mp_context=get_context(kind),
            initializer=remote_steps.begins_when,
            initargs=(str(ready),),
        )
        bound = bind(pool)
        return [bound.submit(remote_steps.double, one) for one in range(3)]

    def flow() -> list[int]:
        futures = submitted()
        gc.collect()
        ready.touch()
        return [one.result(timeout=60) for one in futures]

    assert run(flow) == [0, 2, 4]


# -- which step broke the executor


def test_a_step_is_not_refused_for_another_that_kills_its_worker(log: Log, did: Effects) -> None:
    need("fork")

    def flow() -> int:
        with bind(ProcessPoolExecutor(2, mp_context=get_context("fork"))) as bound:
            innocent = bound.submit(remote_steps.waits_beside, str(did._path))
            deadly = bound.submit(remote_steps.dies_beside, str(did._path))
            with pytest.raises(InterruptedTooOftenError, match="dies_beside"):
                deadly.result()
            return innocent.result()

    with pytest.raises(InterruptedTooOftenError, match="dies_beside"):
        run(flow)
    (innocent,) = [one for one in history("r").steps if one.name == "waits_beside"]
    assert innocent.interruptions == 0
    assert did.count("dies") == 4  # twice with another step, then alone until it is refused
    failed = [one for one in log("step_fail") if one["step"] == "dies_beside"]
    assert [one["attributes"]["tapps.engine.broken_with"] for one in failed] == [1, 1, 0, 0]


def test_loky_renews_a_pool_with_what_it_was_made_with(did: Effects) -> None:
    loky = pytest.importorskip("loky", reason="needs loky: pip install loky")

    def flow() -> list[str]:
        options = {"initializer": remote_steps.set_up, "initargs": ("acme",)}
        with bind(loky.get_reusable_executor(1, **options)) as bound:
            futures = [bound.submit(remote_steps.tenant, str(did._path), one) for one in range(3)]
            return [one.result() for one in futures]

    assert run(flow) == ["acme"] * 3
    assert did.count("tried") == 2


# -- what waits for its next try


def test_steps_that_wait_for_their_next_try_need_no_threads_of_their_own(log: Log) -> None:
    before, most = threading.active_count(), 0

    def flow() -> None:
        nonlocal most
        with bind(ThreadPoolExecutor(2)) as bound:
            for _ in range(50):
                bound.submit(remote_steps.fails_for_long)
            until(lambda: [one.status for one in history("r").steps].count("failed") == 50)
            most = threading.active_count()
            raise ValueError("stop")  # which cancels them

    with pytest.raises(ValueError, match="stop"):
        run(flow)
    assert most - before < 10
    assert {one["attempt"] for one in log("step_start")} == {1}


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_a_callback_that_fails_keeps_no_other_step_from_its_end(error: type) -> None:
    def fail(_: object) -> None:
        raise error

    def flow() -> list[int]:
        with bind(ThreadPoolExecutor(2)) as bound:
            first = bound.submit(remote_steps.double, 1)
            first.add_done_callback(fail)
            until(first.done)
            return [first.result(), bound.submit(remote_steps.double, 2).result()]

    assert run(flow) == [2, 4]


def test_a_callback_that_would_wait_for_itself_is_told_so() -> None:
    """With threads of the engine it might have ended."""
    errors: list[str] = []

    def flow() -> list[int]:
        bound = bind(ThreadPoolExecutor(4))

        def wait_for_another(_: object) -> None:
            with pytest.raises(RuntimeError) as caught:
                bound.submit(remote_steps.double, 2).result()
            errors.append(str(caught.value))
            with pytest.raises(RuntimeError) as caught:
                bound.shutdown()
            errors.append(str(caught.value))

        held = threading.Event()
        first = bound.submit(remote_steps.double, 1)
        first.add_done_callback(lambda _: held.wait(60))
        first.add_done_callback(wait_for_another)
        held.set()
        until(lambda: len(errors) == 2)
        return [first.result()]

    assert run(flow) == [2]
    assert "cannot wait for another step" in errors[0]
    assert "shutdown(wait=False)" in errors[1]


# -- calls that are no steps


def test_async_steps_outside_a_run_are_run_to_their_end() -> None:
    with spawned() as made, bind(made) as bound:
        future: Future[Any] = bound.submit(remote_steps.later, 1)
        assert future.result() == 2


def test_async_steps_are_run_to_their_end_when_nothing_is_logged(log_dir: Path) -> None:
    configure(enabled=False)

    def flow() -> Any:
        with spawned() as made, bind(made) as bound:
            return bound.submit(remote_steps.later, 1).result()

    assert run(flow) == 2
    assert not log_dir.exists()


# -- what an answer tells


def test_a_call_that_cannot_be_loaded_is_an_error_and_redacted(log: Log, log_dir: Path) -> None:
    configure(redact=Redaction(keys=["card"], patterns=["PAN[0-9]+"]))

    def flow() -> str:
        return bind(Inline()).submit(remote_steps.reads, Unreadable("PAN4111")).result()

    with pytest.raises(ValueError, match="cannot load") as raised:
        run(flow)
    assert "could not load the call" in str(raised.value.__notes__)
    assert "PAN4111" not in (log_dir / "r.jsonl").read_text()


def test_a_caller_gets_the_values_that_an_encrypted_log_hides(log_dir: Path) -> None:
    configure(encryption_keys={"a": bytes(range(32))})

    def flow() -> int:
        return bind(Inline()).submit(remote_steps.misfit, "text").result()

    with pytest.raises(StepResultError, match="str does not match its annotation"):
        run(flow)
    assert "does not match" not in (log_dir / "r.jsonl").read_text()


def test_a_step_in_a_worker_cannot_pause(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    def flow() -> str:
        return bind(Inline()).submit(remote_steps.asks).result()

    with pytest.raises(LookupError, match="in a worker"):
        run(flow)
    assert caplog.records == []
