from __future__ import annotations

import asyncio

import pytest

from tapps_otel import Backoff, annotate, configure, step, workflow


@step(retries=1, backoff=Backoff(0.001, 1, 0.001))
async def flaky(n: int) -> int:
    await asyncio.sleep(0)  # to the other steps, which overlap with this one
    if n == 1:
        raise ValueError(f"=never: {n}")
    return n


@step
async def polish(n: int) -> int:
    annotate("polished", times=n)
    await asyncio.sleep(0)
    return n


@step(agent="writer", action="-write")
async def write(n: int) -> int:
    try:
        return await polish(n) + await flaky(n)
    except ValueError:
        return -1


@workflow
async def report(n: int) -> list[int]:
    return list(await asyncio.gather(*[write(part) for part in range(n)]))


@pytest.fixture
def run() -> str:
    """A run with steps side by side, annotations, retries and a failure, in the folder ``logs``."""
    configure(log_dir="logs")
    asyncio.run(report.options(workflow_id="r")(3))
    return "r"
