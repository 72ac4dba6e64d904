"""A storm of kills: 8 threads work on 8 runs at once, in a process that is killed again and again.

What was acknowledged is in the log once, and its step never runs again; every log can be read.
With the profile `thorough` there are 2 000 kills.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import BinaryIO, NoReturn

import pytest

from crashes import Forked
from effort import examples
from independent_checker import check
from tapps_otel import Run, configure, verify

THREADS = RUNS = 8
KILLS_OF_A_RUN = 20  # then others are made: each begin reads the whole log
LATEST = 150  # acknowledged steps before a kill
LOGS = Path("logs")


def storm(pipe: int) -> NoReturn:
    """Begin the runs, or resume them, and work on all of them in all threads until the kill."""
    runs = [Run.open("storm", workflow_id=f"r{number}") for number in range(RUNS)]

    def tell(what: str, run: str, key: str) -> None:
        os.write(pipe, f"{what} {run} {key}\n".encode())

    def work(thread: int) -> None:
        for number in itertools.count():
            for run in runs:
                key = f"{thread}-{number}"
                run.call("work", tell, "ran", run.workflow_id, key, key=key)
                tell("acknowledged", run.workflow_id, key)

    for thread in range(THREADS):
        threading.Thread(target=work, args=[thread], daemon=True).start()
    while True:
        signal.pause()


class Storm:
    """A set of runs.

    :ivar acknowledged: steps that have returned, as ``run key``
    """

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()

    def kill_after(self, acknowledged: int) -> None:
        """Kill the process once this many steps have returned; in the middle of all else."""
        told, pipe = os.pipe()
        child = Forked(lambda: storm(pipe))
        os.close(pipe)
        known = set(self.acknowledged)
        with os.fdopen(told, "rb") as lines:
            self._follow(lines, acknowledged, known)
            child.kill()
            self._follow(lines, None, known)
        assert child.wait().code == -signal.SIGKILL

    def _follow(self, lines: BinaryIO, until: int | None, known: set[str]) -> None:
        """Read what the process tells; stop after ``until`` steps that are new to it."""
        while until is None or until > 0:
            line = lines.readline().decode()
            if not line:
                assert until is None, "it ended by itself"
                return
            what, _, step = line.rstrip("\n").partition(" ")
            if what == "ran":
                assert step not in known, f"{step} runs again, though it was acknowledged"
            elif step not in self.acknowledged:
                self.acknowledged.add(step)
                until = None if until is None else until - 1

    def check(self) -> None:
        """Every log can be read."""
        for path in LOGS.glob("*.jsonl"):
            report = verify(path.stem, log_dir=LOGS)
            assert report.ok, report.problems

    def check_whole(self) -> None:
        """Each acknowledged step is in its log, and no step has finished there twice."""
        for number in range(RUNS):
            name = f"r{number}"
            with Run.open("storm", workflow_id=name):  # seals what the last kill left
                pass
            events = check(LOGS / f"{name}.jsonl")
            keys = {one["step_id"]: one.get("key") for one in events if "key" in one}
            ended = [one["step_id"] for one in events if one["event_type"] == "step_finish"]
            finished = Counter(keys[step_id] for step_id in ended)
            wanted = {step.split()[1] for step in self.acknowledged if step.startswith(f"{name} ")}
            assert wanted <= finished.keys(), "an acknowledged step was lost"
            assert set(finished.values()) <= {1}, "a step finished twice"


@pytest.mark.timeout(7200)  # with the profile `thorough`
def test_a_storm_of_kills_loses_nothing_that_was_acknowledged() -> None:
    chosen, left = random.Random(0), examples(67)
    while left > 0:
        for path in LOGS.glob("*"):
            path.unlink()
        configure(log_dir=LOGS, durability=chosen.choice(["os", "commit"]))
        storms = Storm()
        for _ in range(min(left, KILLS_OF_A_RUN)):
            storms.kill_after(chosen.randrange(LATEST))
            storms.check()
        storms.check_whole()
        left -= KILLS_OF_A_RUN
