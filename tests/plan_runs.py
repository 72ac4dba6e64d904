"""Carries plans out: the workflows and steps of :mod:`plans`, and what their bodies did."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from crashes import Effects, go
from plans import (
    HOUR,
    TYPES,
    Again,
    Ask,
    Call,
    Fence,
    Handled,
    Named,
    Nest,
    Node,
    Run,
    Seq,
    Together,
    all_of,
)
from tapps_otel import Backoff, apause, bind, current_run, pause, step, workflow

N = TypeVar("N", bound=Named | Run)

QUICK = Backoff(0.0005, 1, 0.0005)


class BrokenError(Exception):
    """A flaky step's failure; nothing handles it."""


class RefusedError(Exception):
    """What a step that always fails raises; handled. Not by ``args`` alone."""

    def __init__(self, *, value: str) -> None:
        super().__init__(f"refused {value}")
        self.value = value


class World:
    """Plans at work, and what their steps did."""

    def __init__(self, folder: Path) -> None:
        self._bodies = Effects(folder / "bodies")  # as `RUN LABEL`
        self._times = Effects(folder / "times")
        self.nodes: dict[str, Named | Run] = {}

    def add(self, plan: Run) -> None:
        """Let a plan be run."""
        for node in all_of(plan):
            if isinstance(node, Named | Run):
                self.nodes[node.value] = node

    def ran(self, workflow_id: str) -> Counter[str]:
        """How often each step without steps inside was run, by label, finished or not."""
        pairs = (line.split() for line in self._bodies.all)
        return Counter(label for run, label in pairs if run == workflow_id)

    def fail_or_give(self, node: Call) -> str:
        """The body of a step without steps inside."""
        self._bodies.note(f"{current_run().workflow_id} {node.label}")
        if self.times(node.label) <= node.fails:
            raise BrokenError(node.value)
        return node.label

    def fail_by_itself(self, node: Nest) -> None:
        """Fail, if that is due."""
        if node.fails and self.times(f"fail {node.value}") <= node.fails:
            raise BrokenError(node.value)

    def times(self, what: str) -> int:
        """How often this has happened, over all runs: a fork's steps do not fail once more."""
        return self._times(what)


world: World


@contextmanager
def at_work(made: World) -> Iterator[World]:
    """Let steps find their plan, and note their effects, in this world."""
    global world  # noqa: PLW0603 - steps are called with JSON, and find their plan here
    world = made
    try:
        yield made
    finally:
        del world


@functools.cache
def _step(
    name: str, kind: str, retries: int, timeout: float | None = None, *, is_async: bool
) -> Any:
    """Steps are made once: to read a function's source for its digest takes a while."""
    bodies = {
        ("call", False): _call_body,
        ("call", True): _async_call_body,
        ("nest", False): _nest_body,
        ("nest", True): _async_nest_body,
        ("handled", False): _handled_body,
        ("handled", True): _async_handled_body,
        ("fence", True): _fence_body,
    }
    return step(
        name=name,
        retries=retries,
        backoff=QUICK,
        timeout=timeout,
        max_interruptions=50,
    )(bodies[kind, is_async])


def _call_body(value: str) -> str:
    return world.fail_or_give(_node(value, Call))


async def _async_call_body(value: str) -> str:
    await asyncio.sleep(0)
    return _call_body(value)


def _nest_body(value: str) -> list[Any]:
    node = _node(value, Nest)
    got = run_seq(node.inside)
    world.fail_by_itself(node)
    return [node.label, got]


async def _async_nest_body(value: str) -> list[Any]:
    node = _node(value, Nest)
    got = await run_async(node.inside)
    world.fail_by_itself(node)
    if node.hangs and world.times(f"hang {value}") <= node.hangs:
        await asyncio.sleep(30)
    return [node.label, got]


def _handled_body(value: str) -> None:
    run_seq(_node(value, Handled).inside)
    raise RefusedError(value=value)


async def _async_handled_body(value: str) -> None:
    await run_async(_node(value, Handled).inside)
    raise RefusedError(value=value)


async def _fence_body(value: str) -> None:
    await asyncio.sleep(30)


def _node(value: str, kind: type[N]) -> N:
    node = world.nodes[value]
    assert isinstance(node, kind)
    return node


def run_seq(seq: Seq) -> list[Any]:
    """Do a part of a plan, in sync code."""
    return [_run(node) for node in seq]


def _run(node: Node) -> Any:  # noqa: PLR0911 - one for each kind of node
    if isinstance(node, Call):
        return _step(node.name, "call", node.retries, is_async=False)(node.value)
    if isinstance(node, Again):
        return [_run(node.what) for _ in range(node.times)]
    if isinstance(node, Ask):
        return pause(**_pause_arguments(node))
    if isinstance(node, Run):
        return sync_flow.options(workflow_id=node.workflow_id)(node.value)
    if isinstance(node, Nest):
        return _step(node.name, "nest", node.fails, is_async=False)(node.value)
    if isinstance(node, Together):
        with ThreadPoolExecutor(len(node.branches)) as pool:
            return list(pool.map(bind(run_seq), node.branches))
    assert isinstance(node, Handled)
    try:
        _step(node.name, "handled", node.retries, is_async=False)(node.value)
    except RefusedError as error:
        return [f"not {node.name}{error.value}", run_seq(node.otherwise)]


async def run_async(seq: Seq) -> list[Any]:
    """Do a part of a plan, in async code."""
    return [await _run_async(node) for node in seq]


async def _run_async(node: Node) -> Any:  # noqa: PLR0911 - one for each kind of node
    if isinstance(node, Call):
        made = _step(node.name, "call", node.retries, is_async=node.is_async)
        return await made(node.value) if node.is_async else made(node.value)
    if isinstance(node, Again):
        if node.what.is_async:
            return await asyncio.gather(*(_run_async(node.what) for _ in range(node.times)))
        return [await _run_async(node.what) for _ in range(node.times)]
    if isinstance(node, Ask):
        return await apause(**_pause_arguments(node))
    if isinstance(node, Run):
        return await async_flow.options(workflow_id=node.workflow_id)(node.value)
    if isinstance(node, Nest):
        timeout = 0.008 * (1 + str(node.inside).count("Fence")) if node.hangs else None
        retries = node.fails + node.hangs
        return await _step(node.name, "nest", retries, timeout, is_async=True)(node.value)
    if isinstance(node, Together):
        return await _together(node)
    if isinstance(node, Fence):
        try:
            async with asyncio.timeout(0.002):
                await _step(node.name, "fence", 0, is_async=True)(node.value)
        except TimeoutError:
            return [f"not {node.label}", await run_async(node.otherwise)]
    assert isinstance(node, Handled)
    try:
        await _step(node.name, "handled", node.retries, is_async=True)(node.value)
    except RefusedError as error:
        return [f"not {node.name}{error.value}", await run_async(node.otherwise)]


def _pause_arguments(node: Ask) -> dict[str, Any]:
    until = HOUR if node.is_timed else None
    if not node.kind:  # a timer has no question to name it
        return {"until": until, "name": node.label}
    return {
        "question": node.question,
        "type": TYPES[node.kind],
        "until": until,
        "name": node.name,
    }


async def _together(node: Together) -> list[Any]:
    """Branches of sync calls alone in threads, the others as tasks."""
    return list(
        await asyncio.gather(
            *(
                asyncio.to_thread(run_seq, branch) if _is_sync(branch) else run_async(branch)
                for branch in node.branches
            )
        )
    )


def _is_sync(seq: Seq) -> bool:
    return all(
        isinstance(node, Call | Again | Ask)
        and not (node.what if isinstance(node, Again) else node).is_async
        for node in seq
    )


@workflow(name="random")
def sync_flow(value: str) -> list[Any]:
    return run_seq(_node(value, Run).inside)


@workflow(name="random async")
async def async_flow(value: str) -> list[Any]:
    return await run_async(_node(value, Run).inside)


def carry_on(plan: Run, workflow_id: str) -> Any:
    """Start or resume a run of a plan."""
    return go(async_flow if plan.is_async else sync_flow, plan.value, workflow_id=workflow_id)
