"""Random runs that are started, crashed, resumed, answered, forked and cancelled in any order.

Whatever is done to them, each comes to the result of its plan in the end, does nothing twice that
it had finished, loses nothing that was acknowledged, and its log, its history and what commands
show of it agree with what the test knows.

``HYPOTHESIS_PROFILE=thorough`` tries many more.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from crashes import CRASHED, Deadly, appends, die, in_child
from effort import crashing
from independent_checker import check
from plan_checks import (
    Events,
    check_handled,
    check_once,
    check_pairs,
    finished,
    finished_so_far,
    is_pause,
)
from plan_runs import BrokenError, World, at_work, carry_on
from plans import (
    HOUR,
    RIGHT,
    WRONG,
    Ask,
    Run,
    all_of,
    expected,
    numbered,
    plans,
    resumes_at_most,
    steady,
)
from tapps_otel import answer, cancel, fork, history, list_runs, verify
from tapps_otel.cli import main
from tapps_otel.errors import AnswerError, RunConflictError, RunPausedError
from tapps_otel.log import files
from tapps_otel.testing import isolated_runs
from witness import Witness, check_history, status_of

BY = "Ann"
_MOST_RUNS = 6  # started or forked
_MOST_PAUSES = 50
_ENDS = frozenset({"step_finish", "step_fail", "step_skip"})


@dataclass(frozen=True)
class Crash:
    """Where a process dies.

    :ivar where: ``before`` or ``after`` the nth event, or before the nth ``change`` of the disk
    """

    where: str
    nth: int

    @contextmanager
    def armed(self) -> Iterator[None]:
        if self.where == "change":
            with files.use(Deadly(self.nth)):
                yield
        else:
            with appends(**{self.where: lambda n, event: die() if n == self.nth else None}):
                yield


class End(NamedTuple):
    """How a call of a workflow ended.

    :ivar value: its result, or the questions of a pause: run and step
    """

    how: str
    value: Any = None


class Question(NamedTuple):
    """What a run asks."""

    workflow_id: str
    step_id: str
    node: Ask


# Drawn in the same way whatever the runs have come to: which threads and tasks do first what they
# do is not for the test to say.
PICKS = st.integers(0, 63)
CRASHES = st.none() | st.builds(
    Crash, st.sampled_from(["before", "after", "change"]), st.integers(1, 16)
)
PLANS = plans(is_async=False, waits=True) | plans(is_async=True, waits=True)


class Runs(RuleBasedStateMachine):
    """Runs, and what the test knows of them.

    Which step begins first may differ from run to run, so what a rule is given never depends on
    it: a rule without an object does nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(TemporaryDirectory()))
        self._place = self._stack.enter_context(isolated_runs(folder / "logs"))
        self._world = self._stack.enter_context(at_work(World(folder)))
        self._witness = Witness(folder)
        self._tops: list[str] = []  # started or forked, not called by others
        self._plans: dict[str, Run] = {}  # by run, also of those that may be called later
        self._given: dict[tuple[str, str], Any] = {}  # answers by run and step
        self._answers: dict[tuple[str, str], Any] = {}  # by run and value of the pause
        self._ran: dict[tuple[str, str], int] = {}  # how often steps were run until they finished

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                for workflow_id in self._tops:
                    self._bring_to_its_end(workflow_id)
        finally:
            self._stack.close()

    # ------------------------------------------------------------ rules

    @initialize(plan=PLANS, crash=CRASHES)
    def begin(self, plan: Run, crash: Crash | None) -> None:
        self.start(plan, crash)

    @rule(plan=PLANS, crash=CRASHES)
    def start(self, plan: Run, crash: Crash | None) -> None:
        if len(self._tops) < _MOST_RUNS:
            plan = numbered(plan, str(len(self._tops)))
            self._world.add(plan)
            self._plans |= {one.workflow_id: one for one in all_of(plan) if isinstance(one, Run)}
            self._tops.append(plan.workflow_id)
            self._execute(plan.workflow_id, crash)

    @rule(pick=PICKS, crash=CRASHES)
    def resume(self, pick: int, crash: Crash | None) -> None:
        known = [one for one in self._plans if one in self._tops or self._events(one)]
        self._execute(known[pick % len(known)], crash)

    @rule(pick=PICKS, value=PICKS, crash=CRASHES)
    def answer_a_question(self, pick: int, value: int, crash: Crash | None) -> None:
        found = self._questions()
        if found:
            asked = found[pick % len(found)]
            self._refuses(AnswerError, lambda: self._answer(asked, WRONG[asked.node.kind or ""]))
            fitting = RIGHT[asked.node.kind or ""]
            self._give(asked, fitting[value % len(fitting)], crash)

    @rule(pick=PICKS)
    def answer_what_was_not_asked(self, pick: int) -> None:
        workflow_id = self._one_of_them(pick)
        if workflow_id and not history(workflow_id).waiting:
            self._refuses(RunConflictError, lambda: answer(workflow_id, True))

    @rule()
    def let_time_pass(self) -> None:
        self._place.clock.advance(2 * HOUR)

    @rule(pick=PICKS, step=PICKS, crash=CRASHES)
    def fork_from_a_step(self, pick: int, step: int, crash: Crash | None) -> None:
        workflow_id = self._one_of_them(pick)
        events = self._events(workflow_id) if workflow_id else []
        starts = {one["step_id"]: one["seq"] for one in reversed(events) if _starts(one)}
        if workflow_id and starts and len(self._tops) < _MOST_RUNS:
            step_id = sorted(starts)[step % len(starts)]
            new = f"fork-{len(self._tops)}"
            self._do(lambda: fork(workflow_id, from_step=step_id, new_workflow_id=new), crash)
            if self._events(new):
                self._note_fork(workflow_id, new, events[: starts[step_id] - 1])

    @rule(pick=PICKS, crash=CRASHES)
    def cancel_a_run(self, pick: int, crash: Crash | None) -> None:
        workflow_id = self._one_of_them(pick)
        if not workflow_id:
            return
        if status_of(self._events(workflow_id)) in {"completed", "failed", "cancelled"}:
            self._refuses(RunConflictError, lambda: cancel(workflow_id))
        elif self._do(lambda: cancel(workflow_id, by=BY), crash) is not None:
            found = history(workflow_id)
            assert (found.status, found.ended_by) == ("cancelled", BY)

    @rule(pick=PICKS)
    def read(self, pick: int) -> None:
        known = {one: status_of(self._events(one)) for one in self._existing()}
        listed = {one.workflow_id: one.status for one in list_runs()}
        assert {one: listed[one] for one in known} == known
        workflow_id = self._one_of_them(pick)
        if workflow_id:
            shown = _shown("show", workflow_id)
            assert known[workflow_id] in shown
            for asked in self._questions(workflow_id):
                assert str(asked.node.question) in shown

    # ------------------------------------------------------------ what is true at any time

    @invariant()
    def logs_and_histories_agree_with_what_was_heard(self) -> None:
        for workflow_id in self._existing():
            events = self._events(workflow_id)
            self._witness.check(workflow_id, events)
            check_pairs(events)
            check_history(history(workflow_id), events)
            asked = self._asked(workflow_id, events)
            for step in history(workflow_id).waiting:  # some for the second time
                self._answers.pop((workflow_id, asked[step.step_id].value), None)

    @invariant()
    def what_has_finished_is_not_done_again(self) -> None:
        for workflow_id in self._existing():
            done, ran = finished(self._events(workflow_id)), self._world.ran(workflow_id)
            for label, times in steady(self._plans[workflow_id].inside).items():
                if done[label] == times:
                    before = self._ran.setdefault((workflow_id, label), ran[label])
                    assert ran[label] == before, f"{label} of {workflow_id} was done again"

    # ------------------------------------------------------------ how it is done

    def _do(self, call: Callable[[], Any], crash: Crash | None) -> Any:
        """Call it here; or in a child process that may die in it, which gives ``None``."""
        if crash is None:
            with self._witness.watching():
                return call()

        def doomed() -> Any:
            with self._witness.watching(), crash.armed():
                return call()

        outcome = in_child(doomed)
        assert outcome.code in {CRASHED, 0}, outcome.error
        return outcome.value

    def _execute(self, workflow_id: str, crash: Crash | None = None) -> End | None:
        """Start or resume a run."""
        plan, before = self._plans[workflow_id], self._logs()

        def call() -> End:
            try:
                return End("completed", carry_on(plan, workflow_id))
            except RunPausedError as error:
                return End("paused", [(one.workflow_id, one.step_id) for one in error.questions])
            except BrokenError:
                return End("failed")

        end: End | None = self._do(call, crash)
        for path, content in before.items():
            assert path.read_bytes().startswith(content)
        if end is not None:
            assert status_of(self._events(workflow_id)) == end.how
        if end is not None and end.how == "completed":
            assert end.value == expected(plan.inside, self._answers, workflow_id)
        if end is not None and end.how == "paused":
            waiting = {
                (one, step.step_id) for one in self._existing() for step in history(one).waiting
            }
            assert end.value
            assert set(end.value) <= waiting
        return end

    def _give(self, asked: Question, value: Any, crash: Crash | None = None) -> None:
        """Give an answer, which is given or not if its process dies."""
        self._do(lambda: self._answer(asked, value), crash)
        step = history(asked.workflow_id).by_id[asked.step_id]
        if step.answered:
            assert step.answered["by"] == BY
            self._given[asked.workflow_id, asked.step_id] = value
            self._answers[asked.workflow_id, asked.node.value] = value
            self._refuses(RunConflictError, lambda: self._answer(asked, value))
        else:
            assert crash is not None

    @staticmethod
    def _answer(asked: Question, value: Any) -> str:
        return answer(asked.workflow_id, value, step=asked.step_id, by=BY)

    def _refuses(self, error: type[Exception], call: Callable[[], object]) -> None:
        before = self._logs()
        with pytest.raises(error):
            call()
        assert self._logs() == before

    def _note_fork(self, source: str, new: str, events: Events) -> None:
        """Take over what is known of a run.

        :param events: of the run, before the step that the fork begins with
        """
        self._tops.append(new)
        self._plans[new] = self._plans[source]
        copy, origin = self._events(new), history(new).forked_from
        self._witness.add(copy)
        assert origin is not None
        assert origin.workflow_id == source
        due = finished_so_far(events) | check_handled(events)
        copied = {one["step_id"] for one in copy if one["event_type"] in _ENDS}
        assert copied >= due, f"the fork begins without {due - copied}"
        for step_id, node in self._asked(source, events).items():
            if step_id in copied and (source, step_id) in self._given:
                given = self._given[source, step_id]
                self._given[new, step_id] = self._answers[new, node.value] = given

    def _bring_to_its_end(self, workflow_id: str) -> None:
        plan, end = self._plans[workflow_id], self._last_end(workflow_id)
        before = self._logs()
        assert self._execute(workflow_id) == end
        assert self._logs() == before
        self._check_end(workflow_id, plan)
        for one in all_of(plan):
            if isinstance(one, Run) and one is not plan:
                self._check_end(one.workflow_id, one)

    def _last_end(self, workflow_id: str) -> End:
        """Answer and resume until the run completes."""
        failures = resumes_at_most(self._plans[workflow_id])
        for _ in range(_MOST_PAUSES):
            end = self._execute(workflow_id)
            assert end is not None
            self.logs_and_histories_agree_with_what_was_heard()
            if end.how == "completed":
                return end
            failures -= end.how == "failed"
            assert failures >= 0, f"{workflow_id} is stuck"
            for asked in self._questions():
                if end.how == "paused" and asked[:2] in end.value:
                    self._give(asked, RIGHT[asked.node.kind or ""][0])
            self.let_time_pass()
        raise AssertionError(f"{workflow_id} still waits")

    def _check_end(self, workflow_id: str, plan: Run) -> None:
        events = self._events(workflow_id)
        verify(workflow_id).raise_if_bad()
        found = history(workflow_id)
        assert found.status == "completed"
        assert found.result == expected(plan.inside, self._answers, workflow_id)
        check_once(plan, events, self._world.ran(workflow_id))
        check_handled(events)

    # ------------------------------------------------------------ what there is

    def _existing(self) -> list[str]:
        return [one for one in self._plans if self._events(one)]

    def _one_of_them(self, pick: int) -> str | None:
        found = self._existing()
        return found[pick % len(found)] if found else None

    def _events(self, workflow_id: str) -> Events:
        path = self._place.log_dir / f"{workflow_id}.jsonl"
        return check(path) if path.exists() else []

    def _logs(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self._place.log_dir.glob("*.jsonl")}

    def _asked(self, workflow_id: str, events: Events) -> dict[str, Ask]:
        """The pauses that have begun, by step."""
        nodes = {one.label: one for one in all_of(self._plans[workflow_id]) if isinstance(one, Ask)}
        return {
            one["step_id"]: nodes[str(one.get("question", one["step"])).removesuffix("?")]
            for one in events
            if _starts(one) and is_pause(one)
        }

    def _questions(self, workflow_id: str | None = None) -> list[Question]:
        """What runs, or one of them, wait for an answer to."""
        return [
            Question(one, step.step_id, node)
            for one in (self._existing() if workflow_id is None else [workflow_id])
            for step in history(one).waiting
            if (node := self._asked(one, self._events(one))[step.step_id]).kind
        ]


def _starts(event: dict[str, Any]) -> bool:
    return bool(event["event_type"] == "step_start")


def _shown(*arguments: str) -> str:
    """What a command prints."""
    printed = io.StringIO()
    with redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0
    return printed.getvalue()


@pytest.mark.timeout(600)  # what fails is made smaller for minutes
def test_whatever_is_done_to_runs_each_comes_to_its_result() -> None:
    run_state_machine_as_test(Runs, settings=settings(crashing(60), stateful_step_count=12))
