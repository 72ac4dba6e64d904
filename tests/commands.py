"""The command line under test: in a process of its own, and a file of workflows for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOGS = Path(".tapps-agents/workflow-state/events")  # under each test's own folder

FLOW = """
import asyncio, os, signal, sys, time
from dataclasses import dataclass
from pathlib import Path

from tapps_otel import annotate, skip, step, workflow


@dataclass
class Page:
    title: str
    number: int = 1


@step
def double(number: int) -> int:
    with open("double.txt", "a") as file:
        file.write("x")
    return 2 * number


@step(retries=1)
def flaky() -> str:
    if not Path("flaky.txt").exists():
        Path("flaky.txt").touch()
        raise ValueError("not yet")
    return "now"


@step
async def wait(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@step
def maybe() -> str:
    skip("nothing to do", "nothing")


@step(on_interrupted="fail")
def pay(amount: int) -> str:
    Path("paying.txt").touch()
    if not Path("paid.txt").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return "paid"


@workflow
def small(number: int = 1, add: int = 0) -> int:
    print("the workflow prints this")
    return double(number) + add


@workflow
async def wide(count: int = 3) -> list[float]:
    annotate("note", count=count)
    return list(await asyncio.gather(*(wait(0.01 * n) for n in range(count))))


@workflow
def failing(message: str = "boom") -> str:
    double(1)
    raise RuntimeError(message)


@workflow
def shop() -> str:
    double(1)
    return pay(3)


@workflow
def typed(page: Page) -> str:
    return page.title * page.number


@workflow
def clock() -> float:
    now = double(time.time_ns())
    if not Path("again.txt").exists():
        Path("again.txt").touch()
        raise RuntimeError("once more")
    return now


@workflow
def unstorable() -> object:
    return {"page": {"handle": print}}


@workflow
async def waiting(seconds: float = 30) -> float:
    double(1)
    Path("waiting.txt").touch()
    return await wait(seconds)


@workflow
def sleeping() -> None:
    double(1)
    Path("waiting.txt").touch()
    time.sleep(30)


def no_workflow() -> None: ...
"""


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]


def command(*arguments: str) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", "tapps_otel", *arguments]


def environment(**more: str) -> dict[str, str]:
    """With this package on the path, wherever the process starts."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}


def child(*arguments: str, **more: str) -> Done:
    """Carry a command out in a process of its own."""
    done = subprocess.run(
        command(*arguments),
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)
