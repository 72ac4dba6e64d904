"""A workflow of every kind of call, killed with SIGKILL at random moments, and resumed."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from crashes import Effects, Forked, go
from independent_checker import check
from tapps_otel import Backoff, bind, configure, history, settings, step, verify, workflow

KILLS = 50
QUICK = Backoff(0.001, 1, 0.001)

did = Effects(Path())  # every test gives its own


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings, "_given", settings._given)
    monkeypatch.setattr(settings, "_current", settings._current)
    configure(log_dir=tmp_path / "logs", durability="os")
    monkeypatch.setitem(globals(), "did", Effects(tmp_path / "effects"))
    return tmp_path / "logs"


@step(max_interruptions=KILLS)
def fetch(number: int) -> int:
    time.sleep(0.001)
    did(f"fetch {number}")
    return number * 10


@step(max_interruptions=KILLS)
async def draft(text: str) -> str:
    await asyncio.sleep(0.001)
    did(f"draft {text}")
    return text.upper()


@step(retries=3, backoff=QUICK, max_interruptions=KILLS)
def flaky() -> str:
    if did("flaky") % 3:
        raise ConnectionError("flaky")
    return "flaky"


@step(max_interruptions=KILLS)
def charge() -> None:
    did("charge")
    raise ValueError("no money")


@step(max_interruptions=KILLS)
async def chapter(number: int) -> list[str]:
    """Steps inside a step: gathered, in a thread, in order."""
    parts = list(await asyncio.gather(draft(f"{number} a"), draft(f"{number} b")))
    parts.append(str(await asyncio.to_thread(fetch, number)))
    parts.append(await draft(f"{number} c"))
    return parts


@step(max_interruptions=KILLS)
def pooled(number: int) -> int:
    got: list[int] = []

    def work(value: int) -> None:
        got.append(fetch(value))

    threads = [
        threading.Thread(target=bind(work), args=(value,)) for value in range(number, number + 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(got)


@workflow
async def book() -> list[object]:
    got: list[object] = [fetch(1), fetch(1)]  # equal calls
    got.extend(await asyncio.gather(chapter(100), chapter(200), asyncio.to_thread(pooled, 300)))
    try:
        charge()
    except ValueError as error:
        got.append(await draft(str(error)))
    got.append(flaky())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(draft("same")) for _ in range(3)]
    got.extend(task.result() for task in tasks)
    got.append(fetch(2))
    return got


def _chapter(number: int) -> list[str]:
    return [f"{number} A", f"{number} B", str(number * 10), f"{number} C"]


RESULT = [
    10,
    10,
    _chapter(100),
    _chapter(200),
    3000 + 3010 + 3020,
    "NO MONEY",
    "flaky",
    *["SAME"] * 3,
    20,
]


def _finished_once(path: Path) -> None:
    """seq 1..n, the chain, and no ``step_start`` after the step's acknowledged finish."""
    finished: Counter[str] = Counter()
    for one in check(path):
        if one["event_type"] == "step_start":
            assert not finished[one["step_id"]], f"{one['step_id']} runs again"
        elif one["event_type"] == "step_finish":
            finished[one["step_id"]] += 1
    calls = {"fetch": 8, "draft": 10, "chapter": 2, "pooled": 1, "flaky": 1}
    names = Counter(step_id.rpartition("/")[2].partition("#")[0] for step_id in finished)
    assert names == calls
    assert set(finished.values()) == {1}


def test_a_run_killed_at_random_moments_comes_to_the_same_result(folder: Path) -> None:
    assert go(book, workflow_id="whole") == RESULT
    _finished_once(folder / "whole.jsonl")
    did.forget()

    chance = random.Random(3)  # the same moments in every test run, as far as a clock allows
    kills = runs = 0
    while kills < KILLS:
        runs += 1
        workflow_id = f"killed-{runs}"
        for _ in range(200):
            child = Forked(functools.partial(go, book, workflow_id=workflow_id))
            time.sleep(chance.uniform(0, 0.03))
            child.kill()
            outcome = child.wait()
            assert outcome.code in {0, -signal.SIGKILL}, outcome.error
            if outcome.code == 0:
                break
            kills += 1
            if kills % 7 == 0:
                break
        assert go(book, workflow_id=workflow_id) == RESULT
        _finished_once(folder / f"{workflow_id}.jsonl")
        verify(workflow_id).raise_if_bad()
        assert history(workflow_id).status == "completed"
    assert runs > 1


SCRIPT = """
import sys, time
from tapps_otel import configure, step, workflow
configure(log_dir=sys.argv[1])

@step
def work(number: int) -> int:
    with open(sys.argv[2], "a") as file:
        print(number, file=file)
    return number

@step
def slow() -> None:
    print("slow", flush=True)
    time.sleep(30 if sys.argv[3] == "kill" else 0)

@workflow
def flow() -> int:
    total = sum(work(number) for number in range(5))
    slow()
    return total

print("result", flow.options(workflow_id="r")())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_script_is_resumed(tmp_path: Path, folder: Path) -> None:
    """A real interpreter, default durability, SIGKILL, and a second interpreter."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), str(tmp_path / "words")]
    with subprocess.Popen([*command, "kill"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"slow\n"
        os.kill(child.pid, signal.SIGKILL)
    done = subprocess.run(
        [*command, "finish"], check=True, capture_output=True, text=True, timeout=60
    )

    assert done.stdout == "slow\nresult 10\n"
    assert (tmp_path / "words").read_text().split() == ["0", "1", "2", "3", "4"]
    events = check(folder / "r.jsonl")
    assert [one["execution"] for one in events if one["event_type"] == "workflow_end"] == [2]
