"""Ctrl-C anywhere in the code that writes to a store."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from crashes import Effects, go
from databases import Database
from effort import examples
from interrupts import Interrupts
from tapps_otel import configure, step, verify, workflow
from tapps_otel.run.scope import current_scope

# What was dropped by an interrupt is closed by the collector, with a warning.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_an_interrupt_at_any_place_leaves_one_log_in_both(
    database: Database, did: Effects, be_on: Callable[[str], Path]
) -> None:
    @step
    def work(number: int) -> int:
        did.note(f"work {number}")
        return number

    @workflow
    def flow() -> int:
        return sum(work(number) for number in range(3))

    here = be_on("a")
    configure(store_wait=5)
    with Interrupts() as counted:
        go(flow, workflow_id="whole")
    chance = random.Random(19)
    for place in sorted(chance.sample(range(1, counted.places), examples(40))):
        run, before = f"at-{place}", Counter(did.all)
        with Interrupts(place) as interrupts:
            try:
                go(flow, workflow_id=run)
            except KeyboardInterrupt:
                current_scope.set(None)
        gc.collect()

        assert go(flow, workflow_id=run) == 3, interrupts.raised
        assert database.log(run) == (here / f"{run}.jsonl").read_bytes(), interrupts.raised
        assert (Counter(did.all) - before).total() <= 4, interrupts.raised
        assert verify(run).ok
