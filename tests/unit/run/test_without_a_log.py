"""Plain calls: outside of runs, and with the library switched off."""

from __future__ import annotations

from pathlib import Path

import pytest

from crashes import Effects
from tapps_otel import configure, step, workflow


def assert_no_logs(log_dir: Path) -> None:
    assert not log_dir.exists()


def test_a_step_outside_a_workflow_is_a_plain_call(log_dir: Path, did: Effects) -> None:
    @step(retries=3)
    def work(value: object) -> object:
        did("work")
        return value

    given = object()
    assert work(given) is given
    assert not log_dir.exists()


def test_a_plain_call_is_not_retried(did: Effects) -> None:
    @step(retries=3)
    def work() -> None:
        did("work")
        raise ValueError("plain")

    with pytest.raises(ValueError, match="plain"):
        work()
    assert did.all == ["work"]


async def test_an_async_step_outside_a_workflow_is_a_plain_call(log_dir: Path) -> None:
    @step
    async def work(value: object) -> object:
        return value

    given = object()
    assert await work(given) is given
    assert_no_logs(log_dir)


def test_switched_off_nothing_is_written(log_dir: Path, did: Effects) -> None:
    """configure(enabled=False): decorators are plain calls."""

    @step
    def work() -> object:
        did("work")
        return NotImplemented

    @workflow
    def flow(given: object) -> object:
        return work() is NotImplemented and given

    configure(enabled=False)
    given = object()
    assert flow(given) is given
    assert flow.options(workflow_id="r")(given) is given
    assert flow.options(workflow_id="r")(given) is given
    assert did.count("work") == 3
    assert not log_dir.exists()


async def test_switched_off_an_async_workflow_is_a_plain_call(log_dir: Path) -> None:
    @step
    async def work() -> int:
        return 1

    @workflow
    async def flow() -> int:
        return await work() + 1

    configure(enabled=False)
    assert await flow() == 2
    assert await flow.options(workflow_id="r")() == 2
    assert_no_logs(log_dir)
