"""Random workflows, crashed at every event, and resumed until they complete.

Whatever the crash, the run of a plan must come to the result of the plan, finish nothing twice
beyond the rules, never be stuck, and leave a log that checks.

``HYPOTHESIS_PROFILE=thorough`` tries many more plans.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from crashes import CRASHED, Injected, appends, die, in_child, on_append
from effort import crashing
from independent_checker import check
from plan_checks import check_handled, check_once, check_pairs
from plan_runs import BrokenError, World, at_work, carry_on
from plans import Run, expected, plans, resumes_at_most
from tapps_otel import configure, verify
from tapps_otel import settings as tapps_settings
from tapps_otel.errors import StepTimeoutError


class _Trial:
    """The run of a plan, in a folder of its own."""

    def __init__(self, plan: Run, folder: Path) -> None:
        self._plan, self._world = plan, World(folder)
        self._world.add(plan)
        self._path = folder / "logs" / "r.jsonl"

    @classmethod
    @contextmanager
    def of(cls, plan: Run) -> Iterator[_Trial]:
        before = tapps_settings._given, tapps_settings._current
        with tempfile.TemporaryDirectory() as name:
            trial = cls(plan, Path(name))
            configure(log_dir=trial._path.parent, durability="os")
            try:
                with at_work(trial._world):
                    yield trial
            finally:
                tapps_settings._given, tapps_settings._current = before

    def carry_on(self) -> Any:
        return carry_on(self._plan, "r")

    def to_the_end(self) -> Any:
        """Resume until the run completes; a failure of the run is one that its plan has in it."""
        for left in range(resumes_at_most(self._plan), -1, -1):
            before = self._path.read_bytes() if self._path.exists() else b""
            try:
                return self.carry_on()
            except (BrokenError, StepTimeoutError):
                assert left, "the run is stuck"
            finally:
                assert self._path.read_bytes().startswith(before)
        return None

    def check(self, result: Any, stray: int = 0) -> None:
        assert result == expected(self._plan.inside, {}, "r")
        events = check(self._path)
        verify("r").raise_if_bad()
        assert events[-1]["event_type"] == "workflow_end"
        assert events[-1]["status"] == "completed"
        check_pairs(events)
        check_once(self._plan, events, self._world.ran("r"), stray)
        check_handled(events)

    def die_at(self, number: int, when: str) -> None:
        def doomed() -> None:
            on_append(**{when: lambda n, event: die() if n == number else None})
            for _ in range(10):
                try:
                    self.carry_on()
                except (BrokenError, StepTimeoutError):
                    continue
                return

        outcome = in_child(doomed)
        assert outcome.code in {CRASHED, 0}, outcome.error

    def inject(self, number: int, when: str) -> None:
        def thrown(n: int, event: object) -> None:
            if n == number:
                raise Injected(f"{when} {number}")

        with appends(**{when: thrown}):
            for _ in range(10):
                try:
                    self.carry_on()
                except (BrokenError, StepTimeoutError):
                    continue
                except (Injected, BaseExceptionGroup):
                    return
                else:
                    return


def _uncrashed(plan: Run) -> int:
    """Carry the plan out without a crash; gives the number of its events."""
    with _Trial.of(plan) as trial:
        count = 0

        def counted(number: int, event: object) -> None:
            nonlocal count
            count = number

        with appends(after=counted):
            result = trial.to_the_end()
        trial.check(result)
    return count


def _crashes(plan: Run, again: int | None) -> None:
    total = _uncrashed(plan)
    for number in range(1, total + 1):
        for when in _moments(number, total):
            note(f"die {when} event {number} of {total}, and again at {again}")
            with _Trial.of(plan) as trial:
                trial.die_at(number, when)
                if again is not None:
                    trial.die_at(again, when)
                trial.check(trial.to_the_end())


def _moments(number: int, total: int) -> tuple[str, ...]:
    """Before and after an event; in long runs, by turns."""
    return ("before", "after") if total <= 20 else (("before", "after")[number % 2],)


@crashing(8)
@given(plans(is_async=False), st.none() | st.integers(1, 12))
def test_a_sync_workflow_killed_at_every_event(plan: Run, again: int | None) -> None:
    _crashes(plan, again)


@crashing(8)
@given(plans(is_async=True), st.none() | st.integers(1, 12))
def test_an_async_workflow_killed_at_every_event(plan: Run, again: int | None) -> None:
    _crashes(plan, again)


@pytest.mark.parametrize("is_async", [False, True])
@crashing(7)
@given(data=st.data())
def test_an_exception_injected_at_every_event(data: st.DataObject, *, is_async: bool) -> None:
    plan = data.draw(plans(is_async=is_async))
    total = _uncrashed(plan)
    for number in range(1, total + 1):
        for when in _moments(number, total):
            note(f"raise {when} event {number}")
            with _Trial.of(plan) as trial:
                trial.inject(number, when)
                trial.check(trial.to_the_end(), stray=1)
