"""The command line in a process of its own, and a file of workflows to run with it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import programs
from programs import PACKAGES

LOGS = Path(".tapps-agents/workflow-state/events")  # below each test's own folder
LAUNCHER = str(Path(sys.executable).with_name("opentelemetry-instrument"))

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


@step(name="wait")
async def wait_visibly(seconds: float) -> float:
    Path("waiting.txt").touch()
    await asyncio.sleep(seconds)
    return seconds


@workflow
async def waiting(seconds: float = 30) -> float:
    double(1)
    return await wait_visibly(seconds)


@workflow
def sleeping() -> None:
    double(1)
    Path("waiting.txt").touch()
    time.sleep(30)


def no_workflow() -> None: ...
"""


@dataclass(frozen=True)
class Done:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]


def command(*arguments: str) -> list[str]:
    """Return the arguments that run the command line in a process of its own."""
    return [sys.executable, "-m", "tapps_otel", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which Python finds this package, in every folder."""
    made = {**os.environ, "PYTHONPATH": str(PACKAGES), "PYTHONUNBUFFERED": "1", **more}
    # A file that a test changes within a second would be taken from its compiled form.
    made["PYTHONDONTWRITEBYTECODE"] = "1"
    if made.get("MUTANT_UNDER_TEST") == "stats":  # mutmut counts calls only in its own folder
        made["MUTANT_UNDER_TEST"] = "none"
    return made


def child(*arguments: str, **more: str) -> Done:
    """Run a command in a process of its own."""
    done = programs.run(
        command(*arguments),
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a process has created a file."""
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def on_terminal(*arguments: str, columns: int = 80, **more: str) -> str:
    """Run a command on a terminal, and return its output."""
    ours, theirs = pty.openpty()
    env = environment(COLUMNS=str(columns), LINES="24", TERM="xterm-256color", **more)
    with programs.Popen(command(*arguments), env=env, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = bytearray()
        end = time.monotonic() + 30
        while time.monotonic() < end and select.select([ours], [], [], 30)[0]:
            try:
                written += os.read(ours, 65536)
            except OSError:  # on Linux: the other side is closed
                break
        process.wait(timeout=10)
    os.close(ours)
    return written.decode()


def run_program(
    text: str, *arguments: str, zero_code: bool = False, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in the test's folder, which sends nothing anywhere.

    :param zero_code: start it by ``opentelemetry-instrument``
    """
    Path("app.py").write_text(text, "utf-8")
    exporters = {f"OTEL_{what}_EXPORTER": "none" for what in ("TRACES", "METRICS", "LOGS")}
    launcher = [LAUNCHER] if zero_code else []
    return programs.run(
        [*launcher, sys.executable, "app.py", *arguments],
        env=environment(**exporters, **env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
