"""The program whose runs are kept as samples: it dies or fails the first time it is called."""

import asyncio
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tapps_otel import annotate, instrument, skip, step, workflow
from tapps_otel.instrumentation import ExecutorSpec

FIRST = bool(os.environ.get("FIRST"))  # whether this is the call that is to die


def ran(name: str) -> None:
    """Note that the body of a step was executed."""
    with Path("ran.txt").open("a", encoding="utf-8") as file:
        file.write(f"{name}\n")


def die() -> None:
    """End the process as a crash would, if it is to die."""
    if FIRST:
        os._exit(9)


@step(agent="counter")
def count(text: str) -> int:
    ran(f"count {text}")
    annotate("counted", text=text)
    return len(text)


@step
def large(size: int) -> str:
    ran("large")
    return "ä" * size


@step
def unwanted() -> str:
    ran("unwanted")
    skip("nothing to do", "nothing")
    return "never"


@step
def fail() -> str:
    ran("fail")
    if FIRST:
        raise ValueError("no")
    return "now"


@step
def killed() -> str:
    ran("killed")
    die()
    return "survived"


@step
async def wait(number: int) -> int:
    ran(f"wait {number}")
    await asyncio.sleep(0)
    if number == 2:
        await asyncio.sleep(0.2)  # the others have ended
        die()
    return number


@workflow
def completed(text: str = "done") -> list[object]:
    return [count(text), unwanted()]


@workflow
def failed(text: str = "abc") -> list[object]:
    return [count(text), unwanted(), fail()]


@workflow
def interrupted(text: str = "abcd") -> list[object]:
    return [count(text), count("ä"), killed()]


@workflow
async def parallel(many: int = 4) -> list[int]:
    return list(await asyncio.gather(*(wait(number) for number in range(many))))


@workflow
def child(text: str) -> list[object]:
    return [count(text), killed()]


@step
def call() -> list[object]:
    ran("call")
    return child.options(workflow_id="called")("inside")


@workflow
def parent() -> list[object]:
    return [count("outside"), call()]


@workflow
def blobs(size: int = 40_000) -> list[object]:
    return [len(large(size)), killed()]


@workflow
def repaired(text: str = "whole") -> list[object]:
    return [count(text), killed()]


class Pool:
    """An executor of another package."""

    def run(self, plan: dict[str, int], name: str) -> list[int]:
        with ThreadPoolExecutor(1) as pool:
            return list(pool.map(self.work, plan, plan.values()))

    def work(self, task: str, number: int) -> int:
        ran(f"work {task}")
        if task == "two":
            die()
        return number * number


def executor() -> list[int]:
    instrument(
        Pool,
        ExecutorSpec(
            executor="pool",
            run="run",
            step="work",
            run_id=lambda call: call.arguments["name"],
            step_id=lambda call: call.arguments["task"],
        ),
    )
    return Pool().run({"one": 1, "two": 2, "three": 3}, "executor")


RUNS: dict[str, Callable[[], object]] = {
    "completed": completed.options(workflow_id="completed"),
    "failed": failed.options(workflow_id="failed"),
    "interrupted": interrupted.options(workflow_id="interrupted"),
    "parallel": lambda: asyncio.run(parallel.options(workflow_id="parallel")()),
    "parent": parent.options(workflow_id="parent"),
    "blobs": blobs.options(workflow_id="blobs"),
    "repaired": repaired.options(workflow_id="repaired"),
    "executor": executor,
}

if __name__ == "__main__":
    sys.stdout.write(f"{RUNS[sys.argv[1]]()}\n")
