"""How deep steps may call steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from crashes import Effects
from tapps_otel import step, workflow
from tapps_otel.errors import StepNestingError
from tapps_otel.run import recorder


@pytest.mark.slow
def test_the_64th_level_runs_and_the_65th_is_refused(did: Effects) -> None:
    @step(retries=1)
    def nest(levels: int) -> int:
        did("nest")
        return 1 if levels == 1 else 1 + nest(levels - 1)

    @workflow
    def flow(levels: int) -> int:
        return nest(levels)

    assert flow(64) == 64
    did.forget()
    with pytest.raises(StepNestingError, match=r"'nest' was called inside 64 steps.*plain funct"):
        flow(65)
    assert did.count("nest") == 64  # not retried


def test_the_levels_around_a_child_run_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MOST_NESTED", 4)

    @step
    def nest(levels: int) -> int:
        return 1 if levels == 1 else 1 + nest(levels - 1)

    @workflow
    def child(levels: int) -> int:
        return nest(levels)

    @workflow
    def flow(levels: int) -> int:
        return child.options(workflow_id=f"child-{levels}")(levels)

    assert child(4) == 4
    assert flow(3) == 3  # the child run is a step
    with pytest.raises(StepNestingError, match="'nest' was called inside 4 steps"):
        flow(4)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.slow
async def test_an_endless_recursion_of_steps_leaves_a_small_log(
    log_dir: Path, is_async: bool
) -> None:
    @step
    def endless() -> None:
        endless()

    @step
    async def endless_async() -> None:
        await endless_async()

    @workflow
    async def flow() -> None:
        if is_async:
            await endless_async()
        endless()

    with pytest.raises(StepNestingError):
        await flow.options(workflow_id="r")()
    assert (log_dir / "r.jsonl").stat().st_size < 1_500_000
