"""Ctrl-C, and errors of the interpreter, at every place of this package's code.

Whatever is raised, and wherever: the run can be resumed, also in the same process; nothing that
the log calls finished runs again; an attempt ends once; what ends has started; the log is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from effort import examples
from independent_checker import check
from interrupts import Interrupts
from tapps_otel import Backoff, Run, configure, settings, skip, step, verify, workflow
from tapps_otel.errors import InterruptedTooOftenError, StepInterruptedError
from tapps_otel.otel.live import catch_up
from tapps_otel.run.resolving import resolve
from tapps_otel.run.scope import current_scope

# What was dropped by an interrupt is closed by the collector, with a warning.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

QUICK = Backoff(0.0001, 1, 0.0001)
ENDS = frozenset({"step_finish", "step_fail", "step_skip"})


@dataclass
class Did:
    """What step bodies did, in order."""

    all: list[str] = field(default_factory=list)

    def __call__(self, what: str) -> int:
        self.all.append(what)
        return self.all.count(what)


Program = Callable[[str], Any]


# ---------------------------------------------------------------- programs


def sync_program(did: Did) -> Program:
    @step
    def leaf(number: int) -> int:
        did(f"leaf{number}")
        return number

    @step(retries=1, backoff=QUICK)
    def flaky() -> str:
        if did("flaky") == 1:
            raise ValueError("flaky")
        return "flaky"

    @step(retries=1, backoff=QUICK)
    def outer() -> list[int]:
        did("outer")
        return [leaf(1), leaf(2)]

    @step(on_interrupted="fail")
    def pay() -> str:
        did("pay")
        return "paid"

    @step
    def skipped() -> None:
        skip("nothing to do")

    @step
    def bad() -> None:
        did("bad")
        raise LookupError("bad")

    @workflow
    def flow() -> list[Any]:
        found = [leaf(0), outer(), flaky(), pay(), skipped()]
        try:
            bad()
        except LookupError:
            found.append("handled")
        return found

    return lambda run_id: flow.options(workflow_id=run_id)()


def async_program(did: Did) -> Program:
    @step
    async def leaf(number: int) -> int:
        did(f"leaf{number}")
        await asyncio.sleep(0)
        return number

    @step
    def plain() -> str:
        did("plain")
        return "plain"

    @step(retries=1, backoff=QUICK)
    async def flaky() -> str:
        if did("flaky") == 1:
            raise ValueError("flaky")
        return "flaky"

    @step
    async def outer() -> list[int]:
        did("outer")
        return list(await asyncio.gather(leaf(1), leaf(2)))

    @step(on_interrupted="fail")
    async def pay() -> str:
        did("pay")
        return "paid"

    @workflow
    async def flow() -> list[Any]:
        found = await asyncio.gather(leaf(0), outer(), flaky())
        return [*found, plain(), await pay()]

    return lambda run_id: asyncio.run(_awaited(flow.options(workflow_id=run_id)))


async def _awaited(call: Callable[[], Any]) -> Any:
    return await call()


def by_hand_program(did: Did) -> Program:
    def work(what: str) -> str:
        did(what)
        return what

    def program(run_id: str) -> Any:
        run = Run.open("by hand", workflow_id=run_id)
        try:
            return ["a", "b", "c"] if run.done else carry_out(run)
        finally:  # where Ctrl-C comes as Python begins to leave the block
            run.close()

    def carry_out(run: Run) -> list[Any]:
        found: list[Any] = []
        with run:
            found.append(run.call("a", work, "a"))
            with run.begin("b") as attempt:
                if not attempt.done:
                    inner = run.begin("inner")
                    if not inner.done:
                        inner.finish(work("inner"))
                    attempt.finish(work("b"))
                found.append(attempt.result)
            run.annotate("note", {"n": 1})
            last = run.begin("c")
            if not last.done:
                last.finish(work("c"))
            found.append(last.result)
        return found

    return program


PROGRAMS: dict[str, tuple[Callable[[Did], Program], Any]] = {
    "sync": (sync_program, [0, [1, 2], "flaky", "paid", None, "handled"]),
    "async": (async_program, [0, [1, 2], "flaky", "plain", "paid"]),
    "by-hand": (by_hand_program, ["a", "b", "c"]),
}


# ---------------------------------------------------------------- the check


class Case:
    """One program, interrupted once or twice, and resumed until it completes."""

    def __init__(self, folder: Path, kind: str, run_id: str) -> None:
        make, self.expected = PROGRAMS[kind]
        self.did, self.resolved, self.run_id = Did(), 0, run_id
        self.path = folder / f"{run_id}.jsonl"
        self._call = make(self.did)

    def interrupt(self, *at: int, error: type[BaseException]) -> Interrupts:
        with Interrupts(*at, error=error) as interrupts:
            try:
                self._call(self.run_id)
            except BaseException as raised:  # noqa: BLE001 - whatever was raised
                self.raised: BaseException | None = raised
        current_scope_is_left()
        return interrupts

    def resume(self) -> None:
        for _ in range(6):
            try:
                found = self._call(self.run_id)
            except (StepInterruptedError, InterruptedTooOftenError) as refusal:
                resolve(self.run_id, str(refusal.step_id))
                self.resolved += 1
            else:
                assert found == self.expected
                return
        raise AssertionError("the run does not complete")

    def check(self) -> None:
        events = check(self.path)
        verify(self.run_id).raise_if_bad()
        open_now: set[tuple[str, int]] = set()
        ended: set[tuple[str, int]] = set()
        finished: set[str] = set()
        running = False
        for event in events:
            kind = event["event_type"]
            if kind in {"workflow_start", "workflow_resume"}:
                running = True
            elif kind == "workflow_end":
                assert running, "a second end"
                assert not open_now, f"open at the end: {open_now}"
                running = False
            if not kind.startswith("step_"):
                continue
            assert running or event.get("late"), f"{kind} outside an execution"
            attempt = (event["step_id"], event["attempt"])
            if kind == "step_start":
                assert attempt not in open_now | ended, f"a second start of {attempt}"
                assert event["step_id"] not in finished, f"{event['step_id']} had finished"
                open_now.add(attempt)
            elif kind in ENDS:
                assert attempt in open_now, f"{kind} without a start: {attempt}"
                open_now.remove(attempt)
                ended.add(attempt)
                if kind != "step_fail":
                    finished.add(event["step_id"])
        assert events[-1]["event_type"] == "workflow_end"
        assert events[-1]["status"] == "completed"
        failed = sum(
            event["event_type"] == "step_fail"
            and (event["step_id"], event["status"]) == ("pay", "failed")
            for event in events
        )
        paid = self.did.all.count("pay")
        assert paid <= 1 + self.resolved + failed, "paid again without a decision"


def current_scope_is_left() -> None:
    assert current_scope.get() is None, "a run stayed current"
    current_scope.set(None)
    assert trace.get_current_span() is trace.INVALID_SPAN, "a span stayed current"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(settings, "_given", settings._given)
    monkeypatch.setattr(settings, "_current", settings._current)
    configure(log_dir=tmp_path / "logs", durability="os")
    gc.collect()
    gc.freeze()  # what is collected between two cases is theirs
    gc.disable()  # not in the middle of one
    yield tmp_path / "logs"
    gc.enable()
    gc.unfreeze()
    gc.collect()
    close_lost_files(tmp_path)


def close_lost_files(folder: Path) -> None:
    """An interrupt between `os.open` and the first look at its result loses an open file."""
    descriptors = Path("/proc/self/fd")
    for descriptor in descriptors.iterdir() if descriptors.is_dir() else ():
        with contextlib.suppress(OSError):  # the descriptor that listed them
            if str(descriptor.readlink()).startswith(f"{folder}/"):
                os.close(int(descriptor.name))


def places_of(folder: Path, kind: str) -> int:
    """How many places the program passes; the first run of each also imports and prepares."""
    Case(folder, kind, "warm").interrupt(error=KeyboardInterrupt)
    return Case(folder, kind, "count").interrupt(error=KeyboardInterrupt).places


def try_place(folder: Path, kind: str, *at: int, error: type[BaseException]) -> str | None:
    """Interrupt the program there and resume it; return what is wrong."""
    case = Case(folder, kind, f"r{'-'.join(map(str, at))}")
    case.raised = None
    interrupts = None
    try:
        interrupts = case.interrupt(*at, error=error)
        case.raised = None
        case.resume()
        case.check()
    except BaseException as problem:
        if os.environ.get("TAPPS_TEST_TRACE"):
            raise
        where = interrupts.raised if interrupts else "?"
        return f"{at} {where}: {type(problem).__name__}: {str(problem).splitlines()[:1]}"
    finally:
        gc.collect()
    return None


def problems(folder: Path, kind: str, error: type[BaseException], places: list[int]) -> list[str]:
    found = [try_place(folder, kind, at, error=error) for at in places]
    return [one for one in found if one is not None]


ERRORS = (KeyboardInterrupt, RecursionError, MemoryError)


@pytest.mark.timeout(900)  # with the profile `thorough`, all places are tried
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_an_interrupt_at_any_place(folder: Path, kind: str, error: type[BaseException]) -> None:
    count = places_of(folder, kind)
    assert count > 500
    sample = random.Random(0).sample(range(1, count + 1), min(count, examples(100)))
    found = problems(folder, kind, error, sample)
    assert not found, "\n".join(found)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What a program's own provider exports."""
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    if catch_up._worker is not None:  # hundreds of resumes gave it work
        catch_up._worker.give_up()


@pytest.mark.timeout(900)  # with the profile `thorough`, all places are tried
@pytest.mark.parametrize("kind", PROGRAMS)
def test_an_interrupt_at_any_place_with_spans(
    folder: Path, exported: InMemorySpanExporter, kind: str
) -> None:
    count = places_of(folder, kind)
    assert exported.get_finished_spans()
    exported.clear()
    sample = random.Random(1).sample(range(1, count + 1), min(count, examples(60)))
    found = problems(folder, kind, KeyboardInterrupt, sample)
    assert not found, "\n".join(found)
    spans = exported.get_finished_spans()
    ids = [span.context.span_id for span in spans if span.context is not None]
    assert len(ids) == len(set(ids)), "a span ended twice"
