"""What an ExecutorSpec can tell of an executor beyond ids: names, attributes, outcomes, threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from commands import Cli
from tapps_otel import ExecutorSpec, history, instrument, list_runs, verify
from tapps_otel.errors import Question, RunPausedError
from tapps_otel.instrumentation import MethodCall
from tapps_otel.log.store import RunSummary

Story = Callable[..., list[str]]
Events = Callable[..., list[dict[str, Any]]]


class PauseError(Exception):
    """The way in which this executor asks a person."""


class Tool:
    """Executes a step: another class than the one that executes runs."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew

    def call(self, name: str, does: Callable[[], Any] = lambda: None) -> Any:
        return does()


class Crew:
    def kickoff(self, work: Callable[[], Any], name: str = "r") -> Any:
        return work()


def spec(**options: Any) -> ExecutorSpec:
    base: dict[str, Any] = {
        "executor": "crew",
        "run": "kickoff",
        "step": "call",
        "step_class": Tool,
        "run_id": lambda call: call.arguments["name"],
        "step_id": lambda call: call.arguments["name"],
    }
    return ExecutorSpec(**{**base, **options})


@pytest.mark.parametrize("step_class", [Tool, f"{__name__}:Tool"])
def test_runs_and_steps_may_be_executed_by_different_classes(story: Story, step_class: Any) -> None:
    report = instrument(Crew, spec(step_class=step_class))
    crew = Crew()

    assert set(report.hooks) == {f"{__name__}.Crew.kickoff", f"{__name__}.Tool.call"}
    assert crew.kickoff(lambda: Tool(crew).call("a", lambda: 1)) == 1
    assert story("r")[1:-1] == ["step_start a 1", "step_finish a 1"]


@pytest.mark.parametrize(
    ("runner", "found"), [(lambda call: call.executor.crew, True), (None, False)]
)
def test_a_step_in_a_thread_finds_its_run_by_the_runner(
    story: Story, runner: Any, found: bool
) -> None:
    instrument(Crew, spec(**({"runner": runner} if runner else {})))
    crew = Crew()

    def work() -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(Tool(crew).call, "a", lambda: 1).result()

    assert crew.kickoff(work) == 1
    assert ("step_finish a 1" in story("r")) is found


def test_a_step_has_a_name_apart_from_its_id_and_attributes_from_its_start(events: Events) -> None:
    instrument(
        Crew,
        spec(
            step_id=lambda call: f"{call.arguments['name']}@7",
            step_name=lambda call: call.arguments["name"],
            attributes=lambda call: {"superstep": 7, "tags": ["x", "y"]},
        ),
    )
    Crew().kickoff(lambda: Tool(Crew()).call("draft"))

    start, finish = events("r")[1:3]
    assert (start["step_id"], start["step"]) == ("draft@7", "draft")
    assert start["attributes"] == {"superstep": 7, "tags": ["x", "y"]}
    assert (finish["step"], "attributes" in finish) == ("draft", False)


@pytest.mark.parametrize("value", [object(), "x" * 100_000, float("nan")])
def test_attributes_that_no_event_can_have_cost_only_themselves(
    events: Events, caplog: pytest.LogCaptureFixture, value: object
) -> None:
    instrument(Crew, spec(attributes=lambda call: {"it": value}))

    assert Crew().kickoff(lambda: Tool(Crew()).call("a", lambda: 1)) == 1
    assert "attributes" not in events("r")[1]
    assert "the attributes of a step are not logged" in caplog.text


def fail() -> None:
    raise ValueError("no")


@pytest.mark.parametrize(
    ("word", "does", "logged"),
    [
        ("completed", fail, ("step_finish", "completed", None, None)),
        ("failed", lambda: 1, ("step_fail", "failed", "StepFailed", None)),
        ("failed", fail, ("step_fail", "failed", "ValueError", None)),
        ("timeout", fail, ("step_fail", "timeout", "ValueError", None)),
        ("cancelled", lambda: 1, ("step_fail", "cancelled", None, None)),
        ("paused", fail, ("step_fail", "paused", None, "ok?")),
        ("paused", lambda: 1, ("step_fail", "paused", None, "ok?")),
        ("skipped", fail, ("step_skip", "skipped", None, None)),
        ("lost", lambda: 1, ("step_fail", "failed", "StepFailed", None)),
        (None, fail, ("step_fail", "failed", "ValueError", None)),
        (None, lambda: 1, ("step_finish", "completed", None, None)),
    ],
)
def test_an_attempt_ends_with_the_status_that_its_executor_gives_it(
    events: Events, word: str | None, does: Any, logged: tuple[Any, ...]
) -> None:
    asked: list[tuple[Any, Any]] = []

    def status(call: MethodCall) -> str | None:
        asked.append((call.result, call.error))
        return word

    instrument(Crew, spec(status=status, question=lambda call: "ok?"))

    def work() -> BaseException | None:
        try:
            Tool(Crew()).call("a", does)
        except ValueError as error:
            return error
        return None

    raised = Crew().kickoff(work)

    assert asked == [(None, raised) if raised else (1, None)]
    end = events("r")[2]
    error_type = end.get("error", {}).get("type")
    assert (end["event_type"], end["status"], error_type, end.get("question")) == logged
    assert end.get("attributes") == ({"tapps.executor.status": "lost"} if word == "lost" else None)
    assert history("r").by_id["a"].status == logged[1]


def test_a_run_pauses_with_a_question(events: Events, cli: Cli) -> None:
    instrument(Crew, spec(outcome=lambda call: "paused", question=lambda call: f"{call.result}?"))
    Crew().kickoff(lambda: "publish")

    end = events("r")[-1]
    assert (end["status"], end["question"], "error" in end) == ("paused", "publish?", False)
    assert history("r").question == "publish?"
    assert "asks      publish?" in cli("show", "r").out


def ask() -> None:
    raise PauseError("publish")


def test_a_run_may_pause_by_an_exception(events: Events) -> None:
    instrument(
        Crew,
        spec(
            raised=lambda call: "paused" if isinstance(call.error, PauseError) else None,
            question=lambda call: f"{call.error}?",
        ),
    )
    with pytest.raises(PauseError):
        Crew().kickoff(ask)
    with pytest.raises(ValueError, match="no"):
        Crew().kickoff(fail)

    end, failed = events("r")[-1], events("r.2")[-1]
    assert (end["status"], end["question"], "error" in end) == ("paused", "publish?", False)
    assert (failed["status"], failed["error"]["type"]) == ("failed", "ValueError")


def test_a_reader_of_an_exception_that_raises_costs_only_its_answer(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(Crew, spec(raised=lambda call: 1 / 0, status=lambda call: 1 / 0))
    with pytest.raises(ValueError, match=r"^no$") as caught:
        Crew().kickoff(lambda: Tool(Crew()).call("a", fail))

    assert caught.value.__context__ is None
    assert story("r")[1:] == ["step_start a 1", "step_fail a 1 failed", "workflow_end failed"]
    assert "ZeroDivisionError" in caplog.text


# ---------------------------------------------------------------- threads


def turns(*words: str) -> tuple[ExecutorSpec, list[RunSummary]]:
    """A spec that continues a thread by these words, in turn; and the runs it was asked about."""
    seen: list[RunSummary] = []

    def continues(call: MethodCall, last: RunSummary) -> str:
        seen.append(last)
        return words[len(seen) - 1]

    return spec(thread=lambda call: "chat", continues=continues), seen


def test_turns_of_a_thread_are_runs_with_numbers(events: Events) -> None:
    instrument(Crew, spec(thread=lambda call: "chat"))
    for _ in range(3):
        Crew().kickoff(lambda: None)

    assert [run.workflow_id for run in list_runs()] == ["chat.3", "chat.2", "chat"]
    assert events("chat.3")[0]["workflow"] == {
        "name": "crew", "executor": "crew", "thread": "chat",
    }  # fmt: skip


def test_a_turn_may_resume_the_last_run(story: Story) -> None:
    chosen, seen = turns("new", "resume", "new")
    instrument(Crew, chosen)
    Crew().kickoff(lambda: None)
    with pytest.raises(ValueError, match="no"):
        Crew().kickoff(fail)
    Crew().kickoff(lambda: None)
    Crew().kickoff(lambda: None)

    assert [(run.workflow_id, run.status) for run in seen] == [
        ("chat", "completed"), ("chat.2", "failed"), ("chat.2", "completed"),
    ]  # fmt: skip
    assert story("chat.2") == [
        "workflow_start", "workflow_end failed", "workflow_resume", "workflow_end completed",
    ]  # fmt: skip
    assert {run.workflow_id for run in list_runs()} == {"chat", "chat.2", "chat.3"}


def test_a_turn_may_fork_the_last_run(events: Events) -> None:
    chosen, _ = turns("fork")
    instrument(Crew, chosen)
    for _ in range(2):
        Crew().kickoff(lambda: None)

    assert events("chat.2")[0]["workflow"]["forked_from"] == "chat"
    assert len(events("chat")) == 2


@pytest.mark.parametrize("ended", ["paused", "completed"])
def test_a_turn_may_abandon_the_last_run(events: Events, ended: str) -> None:
    chosen, _ = turns("abandon_and_new")
    instrument(Crew, ExecutorSpec(**{**vars(chosen), "outcome": lambda call: call.result}))
    Crew().kickoff(lambda: ended)
    Crew().kickoff(lambda: "completed")

    assert history("chat").status == ("cancelled" if ended == "paused" else "completed")
    assert history("chat.2").status == "completed"
    verify("chat").raise_if_bad()
    if ended == "paused":
        assert events("chat")[-1]["reason"] == "abandoned: a new run of its thread began"


def test_a_thread_that_continues_by_an_unknown_word_costs_only_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen, _ = turns("go on")
    instrument(Crew, chosen)

    assert [Crew().kickoff(lambda: 1) for _ in range(2)] == [1, 1]
    assert "a thread cannot continue by 'go on': it must be one of 'new', 'resume'" in caplog.text


def test_a_run_in_progress_is_not_abandoned(story: Story) -> None:
    chosen, seen = turns("abandon_and_new")
    instrument(Crew, chosen)
    Crew().kickoff(lambda: Crew().kickoff(lambda: None))

    assert [run.status for run in seen] == ["running"]
    assert story("chat")[-1] == "workflow_end completed"
    assert story("chat.2")[-1] == "workflow_end completed"


def test_a_paused_run_of_an_executor_says_what_it_asks() -> None:
    question = Question("r", "ask", "publish?", None)

    assert "publish?" in str(RunPausedError("r", [question]))
