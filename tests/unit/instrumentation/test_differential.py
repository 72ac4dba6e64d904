"""Watched and not watched, a program does exactly the same: random trees of tasks and threads.

What tasks do that outlive their steps, or the run, is compared too, and found in the log.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effort import examples
from independent_checker import check
from tapps_otel import ExecutorSpec, history, instrument, list_runs, uninstrument, verify

Step = Callable[[], Coroutine[Any, Any, Any]]
LOGS = Path(".tapps-agents/workflow-state/events")
_runs = itertools.count()


@dataclass(frozen=True)
class Node:
    """A step: what it does, and whether it fails in the end."""

    actions: tuple[tuple[str, tuple[Node, ...]], ...]
    fails: bool


def nodes(depth: int) -> st.SearchStrategy[Node]:
    plain = st.tuples(st.sampled_from(["yield", "cancel"]), st.just(()))
    actions = [plain]
    if depth:
        one = st.tuples(nodes(depth - 1))
        several = st.tuples(nodes(depth - 1), nodes(depth - 1))
        single = ["call", "try", "leave", "later", "timeout", "shield", "thread", "bare thread"]
        actions.append(st.tuples(st.sampled_from(single), one))
        actions.append(st.tuples(st.sampled_from(["gather", "group"]), several))
    return st.builds(
        Node,
        st.lists(st.one_of(actions), max_size=3).map(tuple),
        st.sampled_from([False, False, False, True]),
    )


def make_engine() -> type[Any]:
    """A class that no module has: it can be watched without watching any other."""

    class Engine:
        async def run(self, work: Any) -> Any:
            return await work()

        async def step(self, name: str, work: Any) -> Any:
            return await work()

    return Engine


@dataclass
class Program:
    """Carries a tree out, and keeps everything that can be observed of that.

    :ivar seen: what happened, in order
    :ivar ended: how each step ended, by name
    :ivar bare: names that steps in threads which do not know their run begin with
    """

    engine: Any
    seen: list[Any] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    bare: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    threads: list[tuple[threading.Thread, threading.Event]] = field(default_factory=list)

    def carry_out(self, tree: Node) -> list[Any]:
        gc.disable()  # what it collects is seen at the end, and not at any time
        try:
            asyncio.run(self._main(tree))
        finally:
            gc.enable()
        return self.seen

    async def _main(self, tree: Node) -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.seen.append(("unretrieved", context["message"]))
        )
        try:
            self.seen.append(("result", await self.engine.run(partial(self._do, tree, "0"))))
        except BaseException as error:  # noqa: BLE001 - a cancellation, too
            self.seen.append(("raised", described(error)))
        await self._settle()
        while self.threads:
            thread, gate = self.threads.pop(0)
            gate.set()
            thread.join()
            await self._settle()
        gc.collect()

    async def _settle(self) -> None:
        """Await the tasks of this event loop that were left running."""
        loop = asyncio.get_running_loop()
        while mine := [task for task in self.tasks if task.get_loop() is loop]:
            self.tasks = [task for task in self.tasks if task not in mine]
            for outcome in await asyncio.gather(*mine, return_exceptions=True):
                self.seen.append(("left", described(outcome)))

    async def _step(self, node: Node, name: str) -> Any:
        return await self.engine.step(name, partial(self._do, node, name))

    async def _do(self, node: Node, name: str) -> list[Any]:
        self.seen.append(("begin", name))
        self.ended[name] = "failed"
        try:
            results = [
                await self._act(*action, f"{name}.{at}") for at, action in enumerate(node.actions)
            ]
            results = [await one if isinstance(one, asyncio.Task) else one for one in results]
            if node.fails:
                raise ValueError(name)
        except asyncio.CancelledError:
            self.ended[name] = "cancelled"
            raise
        else:
            self.ended[name] = "completed"
            return results
        finally:
            self.seen.append((self.ended[name], name))

    async def _act(self, verb: str, inner: tuple[Node, ...], name: str) -> Any:
        if verb == "bare thread":
            self.bare.append(f"{name}.")
        steps = [partial(self._step, node, f"{name}.{at}") for at, node in enumerate(inner)]
        return await getattr(self, f"_{verb.replace(' ', '_')}")(*steps)

    async def _yield(self) -> None:
        await asyncio.sleep(0)

    async def _cancel(self) -> bool:
        return bool(self.tasks) and self.tasks[-1].cancel()

    async def _call(self, step: Step) -> Any:
        return await step()

    async def _try(self, step: Step) -> Any:
        try:
            return await step()
        except Exception as error:  # noqa: BLE001 - steps raise anything
            return described(error)

    async def _leave(self, step: Step) -> None:
        self.tasks.append(asyncio.create_task(step()))

    async def _later(self, step: Step) -> asyncio.Task[Any]:
        return asyncio.create_task(step())

    async def _timeout(self, step: Step) -> Any:
        try:
            async with asyncio.timeout(0):
                return await step()
        except TimeoutError as error:
            return described(error)

    async def _shield(self, step: Step) -> Any:
        await self._leave(step)
        return await asyncio.shield(self.tasks[-1])

    async def _gather(self, *steps: Step) -> Any:
        return await asyncio.gather(*(step() for step in steps))

    async def _group(self, *steps: Step) -> Any:
        async with asyncio.TaskGroup() as group:
            made = [group.create_task(step()) for step in steps]
        return [one.result() for one in made]

    async def _thread(self, step: Step) -> None:
        self._start_thread(step, bare=False)

    async def _bare_thread(self, step: Step) -> None:
        self._start_thread(step, bare=True)

    def _start_thread(self, step: Step, *, bare: bool) -> None:
        """Start a thread that waits until the run is over; a bare one does not know its run."""
        gate = threading.Event()

        async def all_of_it() -> None:
            try:
                self.seen.append(("thread", await step()))
            except BaseException as error:  # noqa: BLE001 - a cancellation, too
                self.seen.append(("thread", described(error)))
            await self._settle()

        def work() -> None:
            gate.wait()
            asyncio.run(all_of_it())

        context = copy_context()
        thread = threading.Thread(target=work if bare else partial(context.run, work))
        self.threads.append((thread, gate))
        thread.start()


def described(value: Any) -> Any:
    """An exception with all that leads to it; other values as they are."""
    if not isinstance(value, BaseException):
        return value
    inner = value.exceptions if isinstance(value, BaseExceptionGroup) else ()
    return (
        type(value),
        value.args[:1],
        getattr(value, "__notes__", None),
        value.__suppress_context__,
        described(value.__cause__),
        described(value.__context__),
        [described(one) for one in inner],
    )


@settings(max_examples=examples(60))
@given(nodes(3))
@pytest.mark.slow
def test_a_program_does_the_same_watched_and_not_watched(tree: Node) -> None:
    alone = Program(make_engine()())
    alone.carry_out(tree)

    engine, name = make_engine(), f"run-{next(_runs)}"
    spec = ExecutorSpec(
        executor="engine",
        run="run",
        step="step",
        run_id=lambda call: name,
        step_id=lambda call: call.arguments["name"],
    )
    assert instrument(engine, spec).ok
    watched = Program(engine())
    try:
        watched.carry_out(tree)
    finally:
        uninstrument(engine)

    assert watched.seen == alone.seen
    assert_logged(name, watched)


def assert_logged(name: str, program: Program) -> None:
    """The log has every step with its true end, but what bare threads did after the run."""
    verify(name).raise_if_bad()
    events = check(LOGS / f"{name}.jsonl")
    assert not [one for one in events if one["event_type"] == "annotation"]
    status = program.ended.pop("0")
    ends = [one for one in events if one["event_type"] == "workflow_end"]
    assert [one["status"] for one in ends] == [status]
    assert history(name).status == status
    assert [(run.workflow_id, run.status) for run in list_runs(last=1)] == [(name, status)]
    logged = {
        one["step"]: one["status"]
        for one in events
        if one["event_type"] in {"step_finish", "step_fail"}
    }
    bare = tuple(program.bare)
    assert logged == {one: how for one, how in program.ended.items() if not one.startswith(bare)}
    starts = Counter(one["step"] for one in events if one["event_type"] == "step_start")
    assert starts == Counter(list(logged))
