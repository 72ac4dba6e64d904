"""Ctrl-C twice, as people press it, in a program with an async run.

The process ends, the log is whole, the lease is free, and another process resumes the run.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import programs
from commands import environment
from effort import examples
from independent_checker import check
from tapps_otel import history, verify
from tapps_otel.log.lease import holder

LOGS = Path("logs")
PROGRAM = """
import asyncio, os, signal, sys
from tapps_otel import step, workflow

# As in a terminal: a shell without job control lets its background jobs ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
HANGS = len(sys.argv) > 1


def tell(text):
    os.write(1, f"{text}\\n".encode())


def tell_where_it_is_stuck(*_):
    for task in asyncio.all_tasks():
        coroutine = task.get_coro()
        while hasattr(coroutine.cr_await, "cr_await"):
            coroutine = coroutine.cr_await
        tell(f"stuck in {coroutine.cr_code.co_name}")


signal.signal(signal.SIGUSR1, tell_where_it_is_stuck)


@step
async def quick(number):
    tell(f"quick {number}")
    return number


@step
async def slow(number):
    tell(f"slow {number}")
    try:
        if HANGS:
            await asyncio.Event().wait()
    finally:
        if HANGS:
            tell(f"leaving {number}")
            await asyncio.Event().wait()  # a clean-up that does not end by itself
    return number


@step
def sync(number):
    return number


@step
async def outer(number):
    return await slow(number) + await slow(number + 1) + sync(number)


@workflow
async def flow():
    found = [await quick(1)]
    found += await asyncio.gather(outer(10), outer(20), slow(30), quick(2))
    return sum(found)


print(asyncio.run(flow.options(workflow_id="r")()))
"""
EXPECTED = 1 + (10 + 11 + 10) + (20 + 21 + 20) + 30 + 2


def started(*arguments: str) -> subprocess.Popen[str]:
    Path("program.py").write_text(PROGRAM)
    return programs.Popen(
        [sys.executable, "program.py", *arguments],
        env=environment(TAPPS_OTEL_LOG_DIR=str(LOGS)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def wait_for(program: subprocess.Popen[str], *texts: str) -> None:
    """Wait until the program has told all of these."""
    assert program.stdout is not None
    left = set(texts)
    while left:
        line = program.stdout.readline()
        assert line, f"the program ended before it told {left}"
        left.discard(line.strip())


def ended(program: subprocess.Popen[str]) -> str:
    """Press Ctrl-C again if that is needed, and return what the program told.

    It is needed where two signals arrived as one, or the second came between the moment at which
    asyncio takes a callback from its list and that at which it calls it.
    """
    while True:
        try:
            return program.communicate(timeout=5)[0]
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGUSR1)
            program.send_signal(signal.SIGINT)


@pytest.mark.parametrize("number", range(examples(12)))
@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "while-leaving"])
def test_ctrl_c_twice_ends_an_async_run_that_another_process_resumes(
    number: int, at_once: bool
) -> None:
    program = started("hangs")
    wait_for(program, "slow 10", "slow 20", "slow 30", "quick 2")
    program.send_signal(signal.SIGINT)
    if not at_once:
        wait_for(program, "leaving 10", "leaving 20", "leaving 30")
    program.send_signal(signal.SIGINT)
    told = ended(program)

    assert program.returncode != 0
    assert "stuck in drain_async" not in told
    assert holder(LOGS / "r.lease") is None
    check(LOGS / "r.jsonl")
    assert verify("r", log_dir=LOGS).ok

    told, _ = started().communicate(timeout=60)
    assert told.splitlines()[-1] == str(EXPECTED)
    assert "quick 1" not in told.splitlines()
    check(LOGS / "r.jsonl")
    assert history("r", log_dir=LOGS).status == "completed"
