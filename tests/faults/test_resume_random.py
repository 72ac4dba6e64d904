"""Random workflows, crashed at every event, and resumed until they complete.

A plan is a tree of calls: in order, gathered, in threads, nested, equal, flaky, failing for good
and handled, failing the run, timed out. Whatever the crash, the run must come to the result of the
plan, finish nothing twice beyond the rules, never be stuck, and leave a log that checks.

``HYPOTHESIS_PROFILE=thorough`` tries many more plans.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from crashes import CRASHED, Effects, Injected, appends, die, go, in_child, on_append
from effort import examples
from independent_checker import check
from tapps_otel import Backoff, bind, configure, step, verify, workflow
from tapps_otel import settings as tapps_settings
from tapps_otel.errors import StepTimeoutError

QUICK = Backoff(0.0005, 1, 0.0005)
NAMES = ("a", "b", "c")


# ---------------------------------------------------------------- plans


@dataclass(frozen=True)
class Call:
    """A step without steps inside.

    :ivar fails: how often it fails before it succeeds; more than ``retries`` fails the run
    """

    name: str
    value: str
    is_async: bool = False
    fails: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Handled:
    """A step that always fails, in ``try``; then another branch."""

    name: str
    value: str
    inside: Seq  # steps that it encloses, before it fails
    otherwise: Seq
    retries: int = 0


@dataclass(frozen=True)
class Nest:
    """A step that encloses steps.

    :ivar fails: how often it fails by itself after they are done
    :ivar hangs: how often it hangs after that until its own ``timeout=`` (in async plans)
    """

    name: str
    value: str
    inside: Seq
    fails: int = 0
    hangs: int = 0


@dataclass(frozen=True)
class Fence:
    """A step that hangs inside ``asyncio.timeout``; then another branch."""

    name: str
    value: str
    otherwise: Seq


@dataclass(frozen=True)
class Together:
    """Branches at the same time: gathered tasks, or threads."""

    branches: tuple[Seq, ...]


@dataclass(frozen=True)
class Again:
    """The same calls once more: equal in name and inputs."""

    what: Call
    times: int


Node = Call | Handled | Nest | Fence | Together | Again
Seq = tuple[Node, ...]


@dataclass(frozen=True)
class Plan:
    """A workflow."""

    seq: Seq
    is_async: bool


class _Numbers:
    """Gives every node a value of its own, so that a result names its node."""

    def __init__(self) -> None:
        self._next = 0

    def number(self, seq: Seq) -> Seq:
        return tuple(self._node(node) for node in seq)

    def _node(self, node: Node) -> Node:
        if isinstance(node, Together):
            return Together(tuple(self.number(branch) for branch in node.branches))
        if isinstance(node, Again):
            what = self._node(node.what)
            assert isinstance(what, Call)
            return Again(what, node.times)
        self._next += 1
        node = replace(node, value=str(self._next))
        if isinstance(node, Handled | Nest):
            node = replace(node, inside=self.number(node.inside))
        if isinstance(node, Handled | Fence):
            node = replace(node, otherwise=self.number(node.otherwise))
        return node


def plans(*, is_async: bool) -> st.SearchStrategy[Plan]:
    names = st.sampled_from(NAMES)
    small = st.integers(0, 1)
    calls = st.builds(
        Call,
        names,
        st.just(""),
        is_async=st.booleans() if is_async else st.just(False),
        fails=st.sampled_from([0, 0, 0, 1]),
        retries=st.sampled_from([0, 1, 1]),
    )
    leaves: st.SearchStrategy[Node] = calls | st.builds(Again, calls, st.just(2))

    def extend(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        seqs = st.lists(inner, min_size=1, max_size=3).map(tuple)
        hangs = small if is_async else st.just(0)
        found: st.SearchStrategy[Node] = (
            st.builds(Handled, names, st.just(""), seqs | st.just(()), seqs, small)
            | st.builds(Nest, names, st.just(""), seqs, fails=small, hangs=hangs)
            | st.lists(seqs, min_size=2, max_size=3).map(lambda them: Together(tuple(them)))
        )
        if is_async:
            found |= st.builds(Fence, names, st.just(""), seqs)
        return found

    nodes = st.recursive(leaves, extend, max_leaves=5)
    seqs = st.lists(nodes, min_size=1, max_size=3).map(tuple)
    return seqs.map(lambda seq: Plan(_Numbers().number(seq), is_async))


# ---------------------------------------------------------------- what must be


def expected(seq: Seq) -> list[Any]:
    """The plan's result, without running it."""
    return [_expected(node) for node in seq]


def _expected(node: Node) -> Any:
    if isinstance(node, Call):
        return f"{node.name}{node.value}"
    if isinstance(node, Again):
        return [_expected(node.what)] * node.times
    if isinstance(node, Nest):
        return [f"{node.name}{node.value}", expected(node.inside)]
    if isinstance(node, Together):
        return [expected(branch) for branch in node.branches]
    return [f"not {node.name}{node.value}", expected(node.otherwise)]


@dataclass
class Due:
    """How often each call must finish, at least and at most.

    :ivar stray: failures out of nowhere; a step that fails by one does its inside anew
    """

    stray: int = 0
    least: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)

    def add(self, seq: Seq, tries: int = 1) -> Due:
        for node in seq:
            self._node(node, tries)
        return self

    def _node(self, node: Node, tries: int) -> None:
        if isinstance(node, Again):
            for _ in range(node.times):
                self._node(node.what, tries)
        elif isinstance(node, Together):
            for branch in node.branches:
                self.add(branch, tries)
        elif isinstance(node, Call):
            self._one(f"{node.name}{node.value}", tries)
        elif isinstance(node, Nest):
            self._one(f"{node.name}{node.value}", tries)
            self.add(node.inside, tries * (node.fails + self.stray + 1))
        else:
            if isinstance(node, Handled):
                # Fails by itself at its end, in every try, and in every execution that sees
                # neither it nor its end handled; how often is not ours to say here.
                self.add(node.inside, 1000)
            self.add(node.otherwise, tries)

    def _one(self, what: str, tries: int) -> None:
        self.least[what] += 1
        self.most[what] += tries


def resumes_at_most(plan: Plan) -> int:
    """A bound for the executions that a run may need: one for each failure in its plan.

    And some more for time-outs: on a busy machine a step may be late that does not hang.
    """
    return 10 + str(plan).count("fails=1")


# ---------------------------------------------------------------- carrying a plan out


class BrokenError(Exception):
    """A flaky step's failure; nothing handles it."""


class RefusedError(Exception):
    """What a step that always fails raises; handled. Not by ``args`` alone."""

    def __init__(self, *, value: str) -> None:
        super().__init__(f"refused {value}")
        self.value = value


class World:
    """The plan at work, and what its steps did."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.did = Effects(folder / "effects")
        self.nodes: dict[str, Node] = {}
        self._index(plan.seq)

    def _index(self, seq: Seq) -> None:
        for node in seq:
            if isinstance(node, Together):
                for branch in node.branches:
                    self._index(branch)
                continue
            kept = node.what if isinstance(node, Again) else node
            self.nodes[kept.value] = kept
            if isinstance(node, Handled | Nest):
                self._index(node.inside)
            if isinstance(node, Handled | Fence):
                self._index(node.otherwise)

    def fail_or_give(self, node: Call) -> str:
        if self.did(f"{node.name}{node.value}") <= node.fails:
            raise BrokenError(node.value)
        return f"{node.name}{node.value}"

    def fail_by_itself(self, node: Nest) -> None:
        if node.fails and self.did(f"fail {node.value}") <= node.fails:
            raise BrokenError(node.value)


world: World


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
    node = world.nodes[value]
    assert isinstance(node, Call)
    return world.fail_or_give(node)


async def _async_call_body(value: str) -> str:
    await asyncio.sleep(0)
    return _call_body(value)


def _nest_body(value: str) -> list[Any]:
    node = world.nodes[value]
    assert isinstance(node, Nest)
    got = run_seq(node.inside)
    world.fail_by_itself(node)
    return [f"{node.name}{node.value}", got]


async def _async_nest_body(value: str) -> list[Any]:
    node = world.nodes[value]
    assert isinstance(node, Nest)
    got = await run_async(node.inside)
    world.fail_by_itself(node)
    if node.hangs and world.did(f"hang {value}") <= node.hangs:
        await asyncio.sleep(30)
    return [f"{node.name}{node.value}", got]


def _handled_body(value: str) -> None:
    node = world.nodes[value]
    assert isinstance(node, Handled)
    run_seq(node.inside)
    raise RefusedError(value=value)


async def _async_handled_body(value: str) -> None:
    node = world.nodes[value]
    assert isinstance(node, Handled)
    await run_async(node.inside)
    raise RefusedError(value=value)


async def _fence_body(value: str) -> None:
    await asyncio.sleep(30)


def run_seq(seq: Seq) -> list[Any]:
    return [_run(node) for node in seq]


def _run(node: Node) -> Any:
    if isinstance(node, Call):
        return _step(node.name, "call", node.retries, is_async=False)(node.value)
    if isinstance(node, Again):
        return [_run(node.what) for _ in range(node.times)]
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
    return [await _run_async(node) for node in seq]


async def _run_async(node: Node) -> Any:  # noqa: PLR0911 - one for each kind of node
    if isinstance(node, Call):
        made = _step(node.name, "call", node.retries, is_async=node.is_async)
        return await made(node.value) if node.is_async else made(node.value)
    if isinstance(node, Again):
        if node.what.is_async:
            return await asyncio.gather(*(_run_async(node.what) for _ in range(node.times)))
        return [await _run_async(node.what) for _ in range(node.times)]
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
            return [f"not {node.name}{node.value}", await run_async(node.otherwise)]
    assert isinstance(node, Handled)
    try:
        await _step(node.name, "handled", node.retries, is_async=True)(node.value)
    except RefusedError as error:
        return [f"not {node.name}{error.value}", await run_async(node.otherwise)]


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
        isinstance(node, Call | Again)
        and not (node.what if isinstance(node, Again) else node).is_async
        for node in seq
    )


@workflow(name="random")
def sync_flow() -> list[Any]:
    return run_seq(world.plan.seq)


@workflow(name="random async")
async def async_flow() -> list[Any]:
    return await run_async(world.plan.seq)


def carry_on() -> Any:
    return go(async_flow if world.plan.is_async else sync_flow)


# ---------------------------------------------------------------- the test


@contextmanager
def _in_folder(plan: Plan) -> Iterator[Path]:
    global world  # noqa: PLW0603 - steps are called with JSON, and find their plan here
    before = tapps_settings._given, tapps_settings._current
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        configure(log_dir=folder / "logs", durability="os")
        world = World(plan, folder)
        try:
            yield folder / "logs" / "r.jsonl"
        finally:
            tapps_settings._given, tapps_settings._current = before


def _to_the_end(path: Path, resumes: int) -> Any:
    """Go on until the run completes; a failure of the run is one that its plan has in it."""
    for left in range(resumes, -1, -1):
        before = path.read_bytes() if path.exists() else b""
        try:
            return carry_on()
        except (BrokenError, StepTimeoutError):
            assert left, "the run is stuck"
        finally:
            assert path.read_bytes().startswith(before)
    return None


def _check(plan: Plan, path: Path, result: Any, stray: int = 0) -> None:
    assert result == expected(plan.seq)
    events = check(path)
    verify("r").raise_if_bad()
    assert [one["event_type"] for one in events if one["event_type"] == "workflow_end"]
    assert events[-1]["event_type"] == "workflow_end"
    assert events[-1]["status"] == "completed"
    _check_pairs(events)
    _check_once(plan, events, stray)
    _check_handled(events)


def _check_pairs(events: list[dict[str, Any]]) -> None:
    """Every attempt that started has one end, inside its scope's, before the next one starts."""
    running: dict[str, int] = {}
    for one in events:
        kind, step_id = one["event_type"], one.get("step_id", "")
        if kind == "step_start":
            assert step_id not in running, f"{step_id} is started while it runs"
            running[step_id] = one["attempt"]
        elif kind in {"step_finish", "step_fail"}:
            assert running.pop(step_id, None) == one["attempt"], f"{step_id} ends, and was not open"
            inside = [other for other in running if other.startswith(f"{step_id}/")]
            assert not inside, f"{step_id} ends before {inside}"
        elif kind == "workflow_end":
            assert not running, f"the workflow ends before {running}"


def _check_once(plan: Plan, events: list[dict[str, Any]], stray: int) -> None:
    """Nothing finished is done again beyond the rules, and no body runs unrecorded."""
    due = Due(stray).add(plan.seq)
    finished: Counter[str] = Counter()
    started: Counter[str] = Counter()
    ended: set[str] = set()
    for one in events:
        step_id = one.get("step_id", "")
        if one["event_type"] == "step_start":
            assert step_id not in ended, f"{step_id} is done, and runs again"
            started[one["step"]] += 1
        elif one["event_type"] == "step_finish":
            ended.add(step_id)
            given = one["result"]
            finished[given if isinstance(given, str) else given[0]] += 1
    for what, least in due.least.items():
        most = due.most[what]
        assert least <= finished[what] <= most, f"{what}: {finished[what]}, {least} to {most}"
    for name in NAMES:
        bodies = sum(
            world.did.count(f"{name}{value}")
            for value, node in world.nodes.items()
            if isinstance(node, Call)
        )
        assert bodies <= started[name], f"bodies of {name}: {bodies}, starts: {started[name]}"


def _check_handled(events: list[dict[str, Any]]) -> None:
    """A failure after which its scope made an ordered call, in one execution, stays."""
    open_failures: dict[str, list[str]] = {}  # of a scope: step ids, in this execution
    handled: set[str] = set()
    for one in events:
        kind, step_id = one["event_type"], one.get("step_id", "")
        scope = step_id.rpartition("/")[0]
        if kind == "workflow_resume":
            open_failures.clear()
        elif kind == "step_start":
            assert step_id not in handled, f"the failure of {step_id} was handled; it runs again"
            if "order" in one:
                handled |= set(open_failures.pop(scope, []))
        elif kind == "step_fail":
            open_failures.pop(step_id, None)  # its attempt is over
            handled -= set(one.get("caused_by", []))
            if one["status"] in {"failed", "timeout"} and "retry_in_ns" not in one:
                open_failures.setdefault(scope, []).append(step_id)
        elif kind == "workflow_end":
            handled -= set(one.get("caused_by", []))


def _profile(plans: int) -> settings:
    return settings(
        max_examples=examples(plans),
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def _uncrashed(plan: Plan) -> int:
    """Carry the plan out without a crash; gives the number of its events."""
    with _in_folder(plan) as path:
        count = 0

        def counted(number: int, event: object) -> None:
            nonlocal count
            count = number

        with appends(after=counted):
            result = _to_the_end(path, resumes_at_most(plan))
        _check(plan, path, result)
    return count


def _crashes(plan: Plan, again: int | None) -> None:
    total = _uncrashed(plan)
    for number in range(1, total + 1):
        for when in _moments(number, total):
            note(f"die {when} event {number} of {total}, and again at {again}")
            with _in_folder(plan) as path:
                _die_at(number, when)
                if again is not None:
                    _die_at(again, when)
                _check(plan, path, _to_the_end(path, resumes_at_most(plan)))


def _moments(number: int, total: int) -> tuple[str, ...]:
    """Before and after an event; in long runs, by turns."""
    return ("before", "after") if total <= 20 else (("before", "after")[number % 2],)


def _die_at(number: int, when: str) -> None:
    def doomed() -> None:
        on_append(**{when: lambda n, event: die() if n == number else None})
        for _ in range(10):
            try:
                carry_on()
            except (BrokenError, StepTimeoutError):
                continue
            return

    outcome = in_child(doomed)
    assert outcome.code in {CRASHED, 0}, outcome.error


@_profile(8)
@given(plans(is_async=False), st.none() | st.integers(1, 12))
def test_a_sync_workflow_killed_at_every_event(plan: Plan, again: int | None) -> None:
    _crashes(plan, again)


@_profile(8)
@given(plans(is_async=True), st.none() | st.integers(1, 12))
def test_an_async_workflow_killed_at_every_event(plan: Plan, again: int | None) -> None:
    _crashes(plan, again)


@pytest.mark.parametrize("is_async", [False, True])
@_profile(7)
@given(data=st.data())
def test_an_exception_injected_at_every_event(data: st.DataObject, *, is_async: bool) -> None:
    plan = data.draw(plans(is_async=is_async))
    total = _uncrashed(plan)
    for number in range(1, total + 1):
        for when in _moments(number, total):
            note(f"raise {when} event {number}")
            with _in_folder(plan) as path:
                _inject(number, when)
                _check(plan, path, _to_the_end(path, resumes_at_most(plan)), stray=1)


def _inject(number: int, when: str) -> None:
    def thrown(n: int, event: object) -> None:
        if n == number:
            raise Injected(f"{when} {number}")

    with appends(**{when: thrown}):
        for _ in range(10):
            try:
                carry_on()
            except (BrokenError, StepTimeoutError):
                continue
            except (Injected, BaseExceptionGroup):
                return
            else:
                return
