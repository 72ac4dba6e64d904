"""Steps that would silently be plain calls: in other threads and processes."""

from __future__ import annotations

import asyncio
import copy
import logging
import multiprocessing
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from crashes import in_child
from tapps_otel import bind, step, workflow


@step
def double(value: int) -> int:
    return 2 * value


@workflow
def doubled(value: int) -> int:
    return double(value)


@step
def one_of_others() -> None: ...


class Shop:
    rate = 3

    @step
    def price(self, amount: int) -> int:
        return self.rate * amount


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


# -- threads


@pytest.mark.parametrize("kind", ["pool", "thread", "executor"])
def test_a_step_in_a_thread_without_bind_warns_once(
    caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    async def in_executor() -> list[int]:
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(None, double, one) for one in range(3)]

    @workflow
    def flow() -> list[int]:
        if kind == "executor":
            return asyncio.run(in_executor())
        if kind == "pool":
            with ThreadPoolExecutor(1) as pool:
                return list(pool.map(double, range(3)))
        results: list[int] = []
        for one in range(3):
            thread = threading.Thread(target=lambda one=one: results.append(double(one)))
            thread.start()
            thread.join()
        return results

    assert flow.options(workflow_id="r")() == [0, 2, 4]
    (text,) = warnings_of(caplog)
    assert "step 'double' was called in a thread that belongs to no run" in text
    assert "while run 'r' was open" in text
    assert "tapps_otel.bind" in text


def test_an_async_step_in_a_thread_without_bind_warns(caplog: pytest.LogCaptureFixture) -> None:
    @step
    async def later() -> int:
        return 1

    @workflow
    def flow() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, later()).result()

    assert flow() == 1
    (text,) = warnings_of(caplog)
    assert "'test_an_async_step" not in text
    assert "bind" in text


def test_a_bound_function_does_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    def flow() -> list[int]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(bind(double), range(3)))

    assert flow() == [0, 2, 4]
    assert warnings_of(caplog) == []


async def test_a_plain_call_in_the_thread_of_a_run_does_not_warn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server's handlers call steps outside runs, while runs of others are open."""
    begun, end = asyncio.Event(), asyncio.Event()

    @workflow
    async def flow() -> int:
        begun.set()
        await end.wait()
        return 1

    running = asyncio.create_task(flow())
    await begun.wait()
    assert double(2) == 4
    end.set()
    await running
    assert warnings_of(caplog) == []


def test_a_call_in_a_thread_after_the_run_does_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    doubled(1)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(double, 2).result() == 4
    assert warnings_of(caplog) == []


# -- pickling


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_decorated_functions_are_pickled_by_their_names(protocol: int) -> None:
    for one in (double, doubled, Shop.price):
        assert pickle.loads(pickle.dumps(one, protocol)) is one


def test_a_step_of_an_object_is_pickled_with_the_object() -> None:
    price = pickle.loads(pickle.dumps(Shop().price))
    assert price(2) == 6


def test_a_copy_with_other_options_keeps_them() -> None:
    named = pickle.loads(pickle.dumps(doubled.options(workflow_id="r")))
    assert named(4) == 8
    assert doubled.resume("r") == 8

    @workflow
    def flow() -> int:
        keyed = pickle.loads(pickle.dumps(double.options(key="k")))
        return int(keyed(1) + keyed(1))

    assert flow.options(workflow_id="k")() == 4


def test_decorated_functions_are_not_copied() -> None:
    local = step(lambda: 1)
    for one in (double, doubled, local):
        assert copy.copy(one) is one
        assert copy.deepcopy(one) is one


def test_a_local_step_cannot_be_pickled() -> None:
    @step
    def local() -> None: ...

    with pytest.raises(pickle.PicklingError, match="top level of a module"):
        pickle.dumps(local)


def test_a_step_that_was_pickled_in_another_process_warns_what_it_will_be(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    data = tmp_path / "pickled"

    @workflow
    def flow() -> None:
        data.write_bytes(pickle.dumps(one_of_others))

    in_child(flow)
    assert pickle.loads(data.read_bytes()) is one_of_others
    assert pickle.loads(data.read_bytes()) is one_of_others

    [warning] = warnings_of(caplog)
    assert warning == (
        "<step 'one_of_others'> comes from another process, where a run was open: called here it "
        "is not a step of that run, has no record in its log, and runs again on resume. To make "
        "it one, submit it to tapps_otel.bind(executor); or make a step, in the run's own "
        "process, of the function that submits it and returns its result"
    )


SCRIPT = """
import logging, multiprocessing
from concurrent.futures import ProcessPoolExecutor
from tapps_otel import step, workflow

logging.basicConfig()

@step
def double(value: int) -> int:
    return 2 * value

@step
def by_pool(values: list[int]) -> list[int]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return list(pool.map(double, values))

@workflow
def flow() -> list[int]:
    return by_pool([1, 2])

if __name__ == "__main__":
    print(flow())
"""


def test_a_step_of_a_spawned_process_is_a_plain_call_with_one_warning(tmp_path: Path) -> None:
    script = tmp_path / "spawning.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[2, 4]\n", done.stderr
    assert done.stderr.count("comes from another process") == 1
    assert "make a step, in the run's own process" in done.stderr


def test_a_forked_pool_calls_steps_plainly() -> None:
    @workflow
    def flow() -> list[int]:
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return list(pool.map(double, [1, 2]))

    assert flow() == [2, 4]
