"""Threads, tasks and nested steps of one run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from crashes import Effects, die_at, go, in_child, killed
from tapps_otel import bind, current_run, current_step, history, step, workflow

Labels = Callable[..., list[str]]


def ids(workflow_id: str = "r") -> set[str]:
    return {one.step_id for one in history(workflow_id).steps}


def test_gathered_steps_are_steps_of_the_run(did: Effects) -> None:
    @step
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        did(f"work {number}")
        return number * 2

    @step
    async def last() -> None:
        die_at("last")

    @workflow
    async def flow() -> list[int]:
        got = await asyncio.gather(*(work(number) for number in range(5)))
        await last()
        return got

    killed(lambda: go(flow), at="last")

    assert go(flow) == [0, 2, 4, 6, 8]
    assert sorted(did.all) == [f"work {number}" for number in range(5)]
    assert ids() == {"work", "work#2", "work#3", "work#4", "work#5", "last"}


def test_steps_of_a_task_group(did: Effects) -> None:
    @step
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        did(f"work {number}")
        die_at(f"work {number}")
        return number

    @workflow
    async def flow() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(number)) for number in range(4)]
        return [task.result() for task in tasks]

    killed(lambda: go(flow), at="work 3")

    assert go(flow) == [0, 1, 2, 3]
    assert did.count("work 3") == 2


def test_to_thread_keeps_the_scope(did: Effects) -> None:
    @step
    def work(number: int) -> int:
        did(f"work {number}")
        return number + 1

    @step
    async def outer() -> int:
        return await asyncio.to_thread(work, 1)

    @workflow
    async def flow() -> int:
        got = await outer()
        await asyncio.to_thread(die_at, "end")
        return got

    killed(lambda: go(flow), at="end")

    assert go(flow) == 2
    assert did.all == ["work 1"]
    assert ids() == {"outer", "outer/work"}


def test_a_pools_threads_keep_the_scope_by_bind(did: Effects) -> None:
    @step
    def work(number: int) -> int:
        did(f"work {number}")
        return number * number

    @step
    def outer() -> list[int]:
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(bind(work), range(8)))
        die_at("outer")
        return got

    @workflow
    def flow() -> list[int]:
        return outer()

    killed(lambda: go(flow), at="outer")

    assert go(flow) == [number * number for number in range(8)]
    assert len(did.all) == 8
    assert all(one == "outer" or one.startswith("outer/work") for one in ids())
    assert len(ids()) == 9


def test_bind_returns_what_the_function_returns() -> None:
    @workflow
    def flow() -> str:
        def named(first: str, *, second: str) -> str:
            return f"{first} {second} {current_run().workflow_id}"

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(bind(named), "a", second="b").result()

    assert go(flow) == "a b r"


def test_a_thread_without_bind_is_outside(did: Effects, labels: Labels) -> None:
    """A step that is called where no run is known is a plain function call."""

    @step
    def work() -> None:
        did("work")

    @workflow
    def flow() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    go(flow)

    assert did.all == ["work"]
    assert labels() == ["workflow_start", "workflow_end"]


def test_many_threads_write_one_log(did: Effects, labels: Labels) -> None:
    @step
    def work(number: int) -> int:
        return number

    @workflow
    def flow() -> int:
        with ThreadPoolExecutor(8) as pool:
            return sum(pool.map(bind(work), range(200)))

    assert go(flow) == sum(range(200))
    assert len(labels()) == 402
    assert len(ids()) == 200


def test_steps_nest(did: Effects) -> None:
    @step
    def leaf(value: int) -> int:
        did(f"leaf {value}")
        return value + 1

    @step
    async def branch(value: int) -> int:
        a, b = await asyncio.gather(asyncio.to_thread(leaf, value), asyncio.to_thread(leaf, value))
        return a + b

    @step
    async def trunk() -> int:
        got = sum(await asyncio.gather(branch(1), branch(10)))
        die_at("trunk")
        return got

    @workflow
    async def flow() -> int:
        return await trunk()

    killed(lambda: go(flow), at="trunk")

    assert go(flow) == 26
    assert sorted(did.all) == ["leaf 1", "leaf 1", "leaf 10", "leaf 10"]
    assert ids() == {
        "trunk",
        "trunk/branch",
        "trunk/branch#2",
        "trunk/branch/leaf",
        "trunk/branch/leaf#2",
        "trunk/branch#2/leaf",
        "trunk/branch#2/leaf#2",
    }


def test_two_runs_at_once_do_not_mix() -> None:
    @step
    async def work(name: str) -> str:
        await asyncio.sleep(0)
        return f"{name} {current_run().workflow_id}"

    @workflow
    async def flow(name: str) -> list[str]:
        return [await work(name), await work(name)]

    async def both() -> list[list[str]]:
        named = [flow.options(workflow_id=one) for one in ("a", "b")]
        return list(await asyncio.gather(named[0]("x"), named[1]("y")))

    assert asyncio.run(both()) == [["x a", "x a"], ["y b", "y b"]]
    assert ids("a") == ids("b") == {"work", "work#2"}


def test_a_sync_workflow_inside_an_event_loop(did: Effects) -> None:
    @step
    def work() -> int:
        return did("work")

    @workflow
    def flow() -> int:
        return work() + work()

    async def caller() -> int:
        return flow.options(workflow_id="r")()

    assert asyncio.run(caller()) == 3


def test_the_current_step_is_that_of_the_task() -> None:
    @step
    async def work(number: int) -> str:
        before = current_step().idempotency_key
        for _ in range(number):
            await asyncio.sleep(0)
        assert current_step().idempotency_key == before
        return before

    @workflow
    async def flow() -> list[str]:
        return await asyncio.gather(*(work(number) for number in range(4)))

    assert len(set(go(flow))) == 4


def test_a_forked_child_is_outside_its_parents_run(did: Effects, labels: Labels) -> None:
    """Its steps are plain calls; runs that it begins itself are as anywhere."""

    @step
    def work(where: str) -> str:
        did(where)
        return where

    @workflow
    def other() -> str:
        return work("other")

    @workflow
    def flow() -> None:
        work("before")
        outcome = in_child(lambda: (work("child"), go(other, workflow_id="child")))
        assert outcome.value == ("child", "other"), outcome
        work("after")

    go(flow)

    assert did.all == ["before", "child", "other", "after"]
    assert labels() == [
        "workflow_start",
        "step_start work",
        "step_finish work",
        "step_start work#2",
        "step_finish work#2",
        "workflow_end",
    ]
    assert history("child").status == "completed"
