"""Runs that wait: `pause`, `apause`, answers, and times."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from crashes import Effects, die_at, go, in_child, killed
from tapps_otel import (
    Backoff,
    Redaction,
    Run,
    answer,
    apause,
    bind,
    cancel,
    clock,
    configure,
    current_step,
    history,
    last_run,
    list_runs,
    pause,
    resume,
    skip,
    step,
    verify,
    workflow,
)
from tapps_otel.encryption import AesGcmCodec
from tapps_otel.errors import (
    AnswerError,
    DivergenceError,
    LogWriteError,
    RunBusyError,
    RunConflictError,
    RunNotFoundError,
    RunPausedError,
    StepInterruptedError,
    StepTimeoutError,
    StoredResultError,
)
from tapps_otel.run.resolving import resolve

Log = Callable[..., list[dict[str, Any]]]


def paused(flow: Any, *args: Any, workflow_id: str = "r") -> RunPausedError:
    """Call or resume a run, which must end as paused."""
    with pytest.raises(RunPausedError) as caught:
        go(flow, *args, workflow_id=workflow_id)
    return caught.value


@workflow
def publish() -> str:
    return "published" if pause("Publish?", type=bool) else "dropped"


# ---------------------------------------------------------------- one question


def test_a_pause_ends_the_process_of_the_run_with_its_question(labels: Any, log: Log) -> None:
    error = paused(publish)
    start, end = log("step_start")[0], log("workflow_end")[0]

    assert labels() == ["workflow_start", "step_start pause", "workflow_end"]
    assert (start["question"], start["answer_schema"]) == ("Publish?", {"type": "boolean"})
    assert (end["status"], end["question"]) == ("paused", "Publish?")
    assert "error" not in end
    assert (error.workflow_id, error.question) == ("r", "Publish?")
    assert [one.step_id for one in error.questions] == ["pause"]
    assert "`tapps-otel answer r pause --json JSON`, then `tapps-otel resume r`" in str(error)


@pytest.mark.parametrize(("value", "result"), [(True, "published"), (False, "dropped")])
def test_a_resume_returns_the_answer(value: bool, result: str, labels: Any) -> None:
    paused(publish)
    answered = answer("r", value)

    assert answered == "pause"
    assert go(publish) == result
    assert labels()[2:] == ["workflow_end", "step_finish pause", "workflow_resume", "workflow_end"]
    assert verify("r").ok


def test_the_log_says_who_answered_when_and_from_where(log: Log) -> None:
    paused(publish)
    before = clock.time_ns()
    answer("r", True, by="ann@example.org", reason="the numbers are right")
    (finish,) = log("step_finish")

    assert finish["answered"] == {
        "by": "ann@example.org",
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    assert finish["reason"] == "the numbers are right"
    assert before <= clock.parse_timestamp(finish["timestamp"]) <= clock.time_ns()
    assert (finish["late"], finish["attempt"], finish["result"]) == (True, 1, True)
    assert history("r").by_id["pause"].answered == finish["answered"]


def test_who_answers_is_the_user_unless_another_is_named(log: Log) -> None:
    paused(publish)
    answer("r", True)

    assert log("step_finish")[0]["answered"]["by"] == getpass.getuser()


def test_another_process_answers_without_the_code() -> None:
    paused(publish)

    assert in_child(lambda: answer("r", True)).value == "pause"
    assert go(publish) == "published"


def test_a_run_that_waits_is_refused_again_without_a_line(labels: Any) -> None:
    paused(publish)
    before = labels()
    again = paused(publish)

    assert labels() == before
    assert again.question == "Publish?"


@pytest.mark.parametrize("resume_it", [publish.resume, resume])
def test_a_resume_can_answer(resume_it: Callable[..., str], labels: Any) -> None:
    paused(publish)

    assert resume_it("r", answer=True) == "published"
    assert labels()[2:] == ["workflow_end", "step_finish pause", "workflow_resume", "workflow_end"]


@pytest.mark.parametrize("resume_it", [publish.resume, resume])
def test_a_resume_whose_answer_does_not_fit_changes_nothing(
    resume_it: Callable[..., str], labels: Any
) -> None:
    paused(publish)
    before = labels()

    with pytest.raises(AnswerError):
        resume_it("r", answer="yes")
    with pytest.raises(RunConflictError, match="has no step 'other'"):
        resume_it("r", answer=True, step="other")

    assert labels() == before


def test_a_run_of_another_workflow_is_not_answered(labels: Any) -> None:
    paused(publish)
    before = labels()

    @workflow
    def other() -> None: ...

    with pytest.raises(RunConflictError):
        other.resume("r", answer=True)

    assert labels() == before


def test_a_resume_inside_a_run_cannot_answer() -> None:
    paused(publish)

    @workflow
    def outer() -> str:
        return publish.resume("r", answer=True)

    with pytest.raises(ValueError, match=r"call answer\(\) in a step"):
        go(outer, workflow_id="outer")


def test_the_status_is_answered_until_the_run_is_resumed() -> None:
    paused(publish)
    waiting = [(one.status, one.question) for one in list_runs()]
    answer("r", True)
    answered = [one.workflow_id for one in list_runs(status="answered")]
    status = history("r").status
    go(publish)

    assert waiting == [("paused", "Publish?")]
    assert answered == ["r"]
    assert status == "answered"
    assert [one.status for one in list_runs()] == ["completed"]


def test_a_pause_in_a_step_ends_that_as_paused_and_what_finished_inside_is_kept(
    did: Effects, log: Log
) -> None:
    @step
    def draft() -> str:
        did("draft")
        return "text"

    @step(retries=3)
    def review() -> str:
        text = draft()
        return text if pause(f"Is {text} good?", type=bool) else ""

    @workflow
    def flow() -> str:
        return review()

    paused(flow)
    (end,) = log("step_fail")
    answer("r", True)

    assert (end["step_id"], end["status"], "error" in end) == ("review", "paused", False)
    assert go(flow) == "text"
    assert did.all == ["draft"]
    assert verify("r").ok


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_step_that_fails_after_each_answer_asks_as_often_as_it_has_tries(kind: str) -> None:
    options: dict[str, Any] = {"retries": 2, "backoff": Backoff(0, 1, 0)}

    @step(**options)
    def ask() -> None:
        raise ValueError(pause("Which?", type=str))

    @step(**options)
    async def ask_async() -> None:
        raise ValueError(await apause("Which?", type=str))

    @workflow
    def flow() -> None:
        ask()

    @workflow
    async def flow_async() -> None:
        await ask_async()

    made = flow if kind == "sync" else flow_async
    for word in ("one", "two", "three"):
        paused(made)
        answer("r", word)
    with pytest.raises(ValueError, match="three"):
        go(made)

    attempts = [one.status for one in history("r").steps[0].attempts]
    assert attempts == ["paused", "failed"] * 3
    paused(made)  # the run has failed: its next execution has all retries


def test_a_run_opened_by_hand_pauses() -> None:
    def flow() -> Any:
        with Run.open("flow", workflow_id="r") as run, run.begin("part"):
            return pause("Which?", type=Literal["a", "b"])

    with pytest.raises(RunPausedError):
        flow()
    answer("r", "b")

    assert flow() == "b"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_except_exception_catches_a_pause(kind: str, did: Effects) -> None:
    @workflow
    def flow() -> bool:
        try:
            return pause("Sure?", type=bool)
        except Exception:
            did("caught")
            raise

    @workflow
    async def async_flow() -> bool:
        try:
            return await apause("Sure?", type=bool)
        except Exception:
            did("caught")
            raise

    paused(flow if kind == "sync" else async_flow)

    assert did.all == []


def test_code_that_catches_everything_cannot_continue(did: Effects, log: Log) -> None:
    @step
    def send(ok: bool) -> None:
        did(f"send {ok}")

    @step
    def ask() -> bool:
        try:
            return pause("Sure?", type=bool)
        except BaseException:  # noqa: BLE001
            return False

    @workflow
    def flow() -> str:
        try:
            ok = ask()
        except BaseException:  # noqa: BLE001
            ok = False
        try:
            send(ok)
        except BaseException:  # noqa: BLE001
            did("stopped")
        return "done"

    paused(flow)
    statuses = [one["status"] for one in log() if one["event_type"] in {"step_fail", "step_finish"}]
    answer("r", True)

    assert did.all == ["stopped"]
    assert statuses == ["paused"]
    assert go(flow) == "done"
    assert did.all == ["stopped", "send True"]


def test_a_skip_does_not_swallow_a_pause(log: Log) -> None:
    @step
    def ask() -> str:
        try:
            return "yes" if pause("Sure?", type=bool) else "no"
        except BaseException:  # noqa: BLE001
            skip("gave up")

    @workflow
    def flow() -> str:
        return ask()

    paused(flow)
    answer("r", True)

    assert [one["status"] for one in log("step_fail")] == ["paused"]
    assert go(flow) == "yes"
    assert log("step_skip") == []


def test_the_failure_of_clean_up_does_not_hide_the_pause(log: Log) -> None:
    @workflow
    def flow() -> bool:
        try:
            return pause("Sure?", type=bool)
        finally:
            raise ValueError("clean-up")

    paused(flow)

    assert log("workflow_end")[0]["status"] == "paused"


def test_the_answer_is_typed() -> None:
    class Page(BaseModel):
        title: str
        tags: list[str] = []

    @dataclass
    class Point:
        x: float
        y: float

    @workflow
    def flow() -> str:
        page = pause("Which page?", type=Page)
        point = pause("Where?", type=Point)
        at = pause("When?", type=datetime)
        return f"{page.title} {page.tags} {point.x + point.y} {at.year}"

    paused(flow)
    answer("r", Page(title="one", tags=["a"]))
    paused(flow)
    answer("r", {"x": 1, "y": 2.5})
    paused(flow)
    answer("r", datetime(2030, 1, 1, tzinfo=UTC))

    assert go(flow) == "one ['a'] 3.5 2030"


def test_without_a_type_any_json_value_is_an_answer(log: Log) -> None:
    @workflow
    def flow() -> Any:
        return pause("What?")

    paused(flow)
    answer("r", {"a": [1, None]})

    assert "answer_schema" not in log("step_start")[0]
    assert go(flow) == {"a": [1, None]}


def test_a_large_answer_is_a_blob(log_dir: Path, log: Log) -> None:
    @workflow
    def flow() -> int:
        return len(pause("What?", type=str))

    paused(flow)
    answer("r", "x" * 100_000)

    assert (log_dir / "r.blobs" / log("step_finish")[0]["result_blob"]).exists()
    assert go(flow) == 100_000


def test_a_question_with_a_secret_is_redacted(log_dir: Path) -> None:
    configure(redact=Redaction(patterns=("hunter2",)))

    @workflow
    def flow() -> bool:
        return pause("Is hunter2 right?", type=bool)

    paused(flow)
    answer("r", True, by="hunter2", reason="hunter2")

    assert "hunter2" not in (log_dir / "r.jsonl").read_text()
    assert go(flow) is True


def test_long_questions_are_cut_in_the_end_of_the_run_alone(log: Log) -> None:
    words = [f"{number} {'x' * 16_000}" for number in range(5)]

    @workflow
    async def flow() -> list[Any]:
        return list(await asyncio.gather(*(apause(one) for one in words)))

    error = paused(flow)

    assert [one.question for one in error.questions] == words
    assert sorted(one["question"] for one in log("step_start")) == words
    assert len(log("workflow_end")[0]["question"]) < 10_000


def test_a_question_that_does_not_fit_into_the_log_is_an_error() -> None:
    @workflow
    def flow() -> Any:
        return pause("Which?", name="x" * 2_000_000)

    with pytest.raises(LogWriteError, match="does not fit into a line"):
        go(flow)


@pytest.mark.parametrize("what", ["by", "reason"])
@pytest.mark.parametrize("decide", [lambda **more: answer("r", True, **more), partial(cancel, "r")])
def test_who_decides_and_why_is_short(decide: Any, what: str, labels: Any) -> None:
    paused(publish)
    before = labels()
    with pytest.raises(ValueError, match="shorten it"):
        decide(**{what: "x" * 16_385})

    assert labels() == before


@pytest.mark.parametrize("encrypted", [False, True])
def test_an_answer_with_a_secret_is_not_stored_if_the_settings_say_so(
    encrypted: bool, log_dir: Path, labels: Any
) -> None:
    secret = "password=hunter2hunter2"

    @workflow
    def flow() -> str:
        return pause("Which key?", type=str)

    paused(flow)
    before = labels()
    configure(redact_results=True, codec=AesGcmCodec({"a": bytes(32)}) if encrypted else None)
    if encrypted:
        answer("r", secret)
        assert go(flow) == secret
    else:
        with pytest.raises(AnswerError, match="redact_results"):
            answer("r", secret)
        assert labels() == before
        answer("r", "in the vault")
        assert go(flow) == "in the vault"
    assert secret.encode() not in (log_dir / "r.jsonl").read_bytes()


# ---------------------------------------------------------------- answers that are refused


class Order(BaseModel):
    page: dict[str, int]
    count: int = Field(gt=0)


@pytest.mark.parametrize(
    ("kind", "value", "path"),
    [
        (bool, "yes", "$"),
        (bool, 1, "$"),
        (int, True, "$"),
        (Literal["a", "b"], "c", "$"),
        (list[int], [1, "x"], "$[1]"),
        (Order, {"page": {"n": "x"}, "count": 1}, "$.page.n"),
        (Order, {"page": {}, "count": 0}, "$.count"),
        (Order, {"page": {}}, "$.count"),
        (Order | None, {"page": {}}, "$.count"),
        (datetime, "tomorrow", "$"),
        (Any, {"a": [float("nan")]}, "$.a[0]"),
        (Any, object(), "$"),
    ],
)
def test_an_answer_that_does_not_fit_names_the_place(
    kind: Any, value: Any, path: str, labels: Any
) -> None:
    @workflow
    def flow() -> str:
        return str(pause("What?", type=kind))

    paused(flow)
    before = labels()
    with pytest.raises(AnswerError) as caught:
        answer("r", value)

    assert caught.value.path == path
    assert f"'pause': {path}: " in str(caught.value)
    assert labels() == before


def test_a_second_answer_is_refused() -> None:
    paused(publish)
    answer("r", True, by="ann")
    for named in (None, "pause"):
        with pytest.raises(RunConflictError, match="was answered by ann on"):
            answer("r", False, step=named)
    go(publish)
    with pytest.raises(RunConflictError, match="was answered by ann on"):
        answer("r", False, step="pause")
    with pytest.raises(RunConflictError, match=r"asks nothing: it is completed$"):
        answer("r", False)


def test_an_answer_to_a_run_that_is_in_progress_is_refused() -> None:
    @workflow
    def flow() -> str:
        with pytest.raises(RunBusyError):
            answer("r", True)
        return "done"

    assert go(flow) == "done"


def test_an_answer_needs_a_run_and_a_step_that_asks() -> None:
    @step
    def work() -> None: ...

    @workflow
    def flow() -> None:
        work()
        pause("Publish?")

    paused(flow)
    with pytest.raises(RunNotFoundError):
        answer("other", True)
    with pytest.raises(RunConflictError, match=r"has no step 'nothing'\. It asks in 'pause'"):
        answer("r", True, step="nothing")
    with pytest.raises(RunConflictError, match=r"asks nothing in step 'work'\. It asks in 'pause'"):
        answer("r", True, step="work")
    with pytest.raises(TypeError, match="by must be a string"):
        answer("r", True, by=1)  # type: ignore[arg-type]


def test_a_run_that_was_interrupted_asks_nothing() -> None:
    @workflow
    def flow() -> None:
        die_at("flow")

    killed(lambda: go(flow), at="flow")
    with pytest.raises(RunConflictError, match=r"asks nothing: it is interrupted$"):
        answer("r", True)


def test_a_stored_answer_that_no_longer_fits_is_a_refusal() -> None:
    kind: Any = bool

    @workflow
    def flow() -> str:
        return str(pause("What?", type=kind))

    paused(flow)
    answer("r", True)
    kind = int
    with pytest.raises(StoredResultError, match="does not fit the type of its question"):
        go(flow)


def test_an_open_question_with_another_type_is_asked_anew(log: Log) -> None:
    wanted: Any = bool

    @workflow
    async def flow() -> list[Any]:
        return list(await asyncio.gather(
            apause("Now?", type=bool, name="now"), apause("What?", type=wanted, name="what")
        ))  # fmt: skip

    paused(flow)
    answer("r", True, step="now")
    wanted = int
    (question,) = paused(flow).questions
    answer("r", 7)

    assert question.question == "What?"
    ends = [(one["step_id"], one["error"]["message"]) for one in log("step_fail")]
    assert ends == [("what", "the type of its answer has changed")]
    assert go(flow) == [True, 7]
    assert verify("r").ok


def test_a_question_with_another_type_waits_for_the_same_time(time: Time, log: Log) -> None:
    kind: Any = bool

    @workflow
    async def asks() -> list[Any]:
        return list(await asyncio.gather(
            apause("Now?", name="now"), apause("Ship?", type=kind, until=60, name="ship")
        ))  # fmt: skip

    paused(asks)
    kind, time.ahead = int, 30
    answer("r", True, step="now")
    paused(asks)

    first, second = (one["until"] for one in log("step_start") if one["step_id"] == "ship")
    assert first == second


def test_a_question_is_redacted_by_the_rules_of_its_step(log_dir: Path) -> None:
    @step(redact=Redaction(patterns=("hunter2",)))
    def ask() -> bool:
        return pause("Is hunter2 right?", type=bool)

    @workflow
    def flow() -> bool:
        return ask()

    paused(flow)

    assert "hunter2" not in (log_dir / "r.jsonl").read_text()


def test_a_question_that_is_asked_again_is_not_answered() -> None:
    fails = True

    @workflow
    def flow() -> bool:
        answered = pause("Sure?", type=bool)
        if fails:
            raise ValueError("no")
        return answered

    paused(flow)
    answer("r", True, by="ann")
    with pytest.raises(ValueError, match="no"):
        go(flow)
    resolve("r", "pause")
    fails = False
    paused(flow)

    assert [one.answered for one in history("r").waiting] == [None]
    answer("r", False)
    assert go(flow) is False


def test_a_time_counts_anew_after_the_run_was_cancelled(time: Time, log: Log) -> None:
    @workflow
    def flow() -> None:
        pause(until=60)

    first = paused(flow).questions[0].until
    cancel("r")
    time.ahead = 3600
    second = paused(flow).questions[0].until

    assert first is not None
    assert second is not None
    assert second > first


def test_a_question_that_changes_after_its_answer_is_a_divergence() -> None:
    words = "Publish 1?"

    @workflow
    def flow() -> bool:
        return pause(words, type=bool)

    paused(flow)
    answer("r", True)
    words = "Publish 2?"
    with pytest.raises(DivergenceError, match="Publish 2"):
        go(flow)


def test_a_question_that_nobody_asks_any_more_is_given_up_when_the_run_completes(log: Log) -> None:
    asks = True

    @workflow
    def flow() -> str:
        first = pause("First?", type=bool)
        if asks:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(bind(pause), "Second?").result()
        return str(first)

    paused(flow)
    answer("r", True)
    paused(flow)
    asks = False
    with pytest.raises(RunPausedError):
        go(flow)
    answer("r", 1, step="pause#2")

    assert go(flow) == "True"
    assert verify("r").ok


# ---------------------------------------------------------------- where it can be called


def test_outside_a_run_it_cannot_wait() -> None:
    with pytest.raises(LookupError, match="can only wait inside a run"):
        pause("Who?")


async def test_async_code_is_told_to_await() -> None:
    @workflow
    async def flow() -> Any:
        return pause("Who?")

    with pytest.raises(TypeError, match="write await apause"):
        await flow()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, TypeError, "needs a question, or until="),
        ({"question": 1}, TypeError, "must be a string"),
        ({"until": "soon"}, TypeError, "expected a datetime with a zone"),
        ({"until": True}, TypeError, "expected a datetime with a zone"),
        ({"until": datetime(2030, 1, 1)}, ValueError, "a time without a zone"),  # noqa: DTZ001
        ({"until": -1}, ValueError, "cannot be negative"),
        ({"until": 1e300}, ValueError, "beyond the calendar"),
        ({"until": float("nan")}, ValueError, "is not a number of seconds"),
        ({"until": 1, "type": bool}, TypeError, "a timer has no answer"),
        ({"question": "é" * 8193}, ValueError, "has 16386 bytes, and at most 16384"),
        ({"question": "?", "type": threading.Lock}, TypeError, "cannot be read from JSON"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    arguments: dict[str, Any], error: type[Exception], text: str, labels: Any
) -> None:
    @workflow
    def flow() -> Any:
        return pause(**arguments)

    with pytest.raises(error, match=text):
        go(flow)

    assert labels() == ["workflow_start", "workflow_end"]


# ---------------------------------------------------------------- several questions


@step
async def draft(number: int) -> str:
    await asyncio.sleep(0.01 * number)
    return f"draft {number}"


@workflow
async def reviews() -> list[bool]:
    async def review(number: int) -> bool:
        text = await draft(number)
        return await apause(f"Is {text} good?", type=bool)

    return list(await asyncio.gather(*(review(number) for number in range(3))))


def test_gathered_pauses_are_all_open_and_what_is_in_progress_ends_first(
    labels: Any, log: Log
) -> None:
    error = paused(reviews)
    answers = {one.question: one.step_id for one in error.questions}

    assert set(answers) == {f"Is draft {number} good?" for number in range(3)}
    assert sum(one.startswith("step_finish draft") for one in labels()) == 3
    assert labels()[-1] == "workflow_end"
    assert log("step_fail") == []
    with pytest.raises(RunConflictError, match="asks 3 questions: say which is answered"):
        answer("r", True)

    for number in (2, 0, 1):
        answer("r", number == 1, step=answers[f"Is draft {number} good?"])

    assert go(reviews) == [False, True, False]
    assert verify("r").ok


def test_an_open_question_stays_open_when_another_is_answered(labels: Any, log: Log) -> None:
    error = paused(reviews)
    first, *rest = sorted(error.questions, key=lambda one: one.question or "")
    answer("r", True, step=first.step_id)
    again = paused(reviews)

    assert sorted(one.step_id for one in again.questions) == sorted(one.step_id for one in rest)
    assert sum(one.startswith("step_start pause") for one in labels()) == 3
    assert [one.status for one in list_runs()] == ["paused"]
    for one in rest:
        answer("r", False, step=one.step_id)
    assert go(reviews) == [True, False, False]
    assert verify("r").ok


def test_a_step_that_is_cancelled_while_it_waits_ends_as_paused(log: Log) -> None:
    @step
    async def review(text: str) -> bool:
        return await apause(f"Is {text} good?", type=bool)

    @workflow
    async def flow() -> list[bool]:
        async def later() -> bool:
            for _ in range(3):  # so that the group cancels it as the first one ends
                await asyncio.sleep(0)
            return await review("b")

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(review("a")), group.create_task(later())]
        return [task.result() for task in tasks]

    error = paused(flow)

    assert len(error.questions) == 2
    assert [(one["status"], "error" in one) for one in log("step_fail")] == [("paused", False)] * 2
    for one in error.questions:
        answer("r", True, step=one.step_id)
    assert go(flow) == [True, True]
    assert verify("r").ok


def test_the_cancelled_loser_of_a_race_does_not_pause_the_run() -> None:
    @workflow
    async def flow() -> str:
        ask = asyncio.create_task(apause("Who?"))
        work = asyncio.create_task(draft(2))
        done, _ = await asyncio.wait({ask, work}, return_when=asyncio.FIRST_COMPLETED)
        ask.cancel()
        return str(done.pop().result())

    assert go(flow) == "draft 2"


def test_a_question_waits_on_when_the_one_before_it_is_cancelled() -> None:
    @workflow
    async def flow() -> list[Any]:
        first, second = (asyncio.create_task(apause(words)) for words in ("First?", "Second?"))
        work = asyncio.create_task(draft(1))
        await asyncio.sleep(0)  # all three begin
        first.cancel()
        return list(await asyncio.gather(second, work))

    error = paused(flow)
    answer("r", 1, step=error.questions[0].step_id)

    assert [one.question for one in error.questions] == ["Second?"]
    assert go(flow) == [1, "draft 1"]


def test_a_failing_sibling_fails_the_run_and_the_question_is_asked_again(log: Log) -> None:
    fails = True

    @step
    async def work() -> str:
        if fails:
            raise ValueError("no")
        return "done"

    @workflow
    async def flow() -> list[Any]:
        return list(await asyncio.gather(apause("Sure?", type=bool), work()))

    with pytest.raises(ValueError, match="no"):
        go(flow)
    fails = False
    paused(flow)
    answer("r", True)

    assert [one["status"] for one in log("workflow_end")] == ["failed", "paused"]
    assert go(flow) == [True, "done"]
    assert verify("r").ok


def test_a_failure_that_leaves_a_run_that_waits_was_not_handled(did: Effects) -> None:
    @step
    def work() -> str:
        if did("work") == 1:
            raise ValueError("no")
        return "done"

    @step
    def note() -> None: ...

    @workflow
    async def flow() -> list[Any]:
        error = result = None
        try:
            result = work()
        except ValueError as caught:
            error = caught
        note()
        asked = asyncio.create_task(apause("Sure?", type=bool))
        await asyncio.wait([asked])
        if error is not None:
            asked.exception()  # asyncio logs it in a later test, if nothing retrieves it
            raise error
        return [result, asked.result()]

    paused(flow)
    answer("r", True)

    assert go(flow) == ["done", True]
    assert did.all == ["work", "work"]


def test_steps_around_gathered_questions_end_as_paused(log: Log) -> None:
    @step
    async def review(number: int) -> bool:
        return await apause(f"Is {number} good?", type=bool)

    @workflow
    async def flow() -> list[bool]:
        return list(await asyncio.gather(*(review(number) for number in range(30))))

    error = paused(flow)
    for one in error.questions:
        answer("r", True, step=one.step_id)

    assert [one["status"] for one in log("step_fail")] == ["paused"] * 30
    assert go(flow) == [True] * 30


def test_a_task_group_of_pauses(log: Log) -> None:
    @step
    async def both() -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(apause(words)) for words in ("One?", "Two?")]
        return [one.result() for one in tasks]

    @workflow
    async def flow() -> list[Any]:
        return await both()

    error = paused(flow)
    for one in error.questions:
        answer("r", one.question, step=one.step_id)

    assert sorted(one.question or "" for one in error.questions) == ["One?", "Two?"]
    assert [one["status"] for one in log("step_fail")] == ["paused"]
    assert go(flow) == ["One?", "Two?"]


@pytest.mark.parametrize("grouped", [False, True])
def test_the_wait_of_a_question_for_other_tasks_is_no_time_of_its_step(grouped: bool) -> None:
    limit = 0.05

    @step
    async def slow() -> str:
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(2 * limit, over.set)
        await over.wait()
        return "slow"

    @step(timeout=limit)
    async def ask() -> Any:
        if grouped:
            return await asyncio.gather(apause("Sure?", type=bool))
        return [await apause("Sure?", type=bool)]

    @workflow
    async def flow() -> list[Any]:
        return list(await asyncio.gather(slow(), ask()))

    paused(flow)
    slow_ended = history("r").by_id["slow"].status
    answer("r", True)

    assert slow_ended == "completed"
    assert go(flow) == ["slow", [True]]


def test_a_step_that_does_not_wait_runs_into_the_time_limit_beside_a_question() -> None:
    @step
    async def hangs() -> None:
        await asyncio.Event().wait()

    @step(timeout=0.05)
    async def ask() -> None:
        await asyncio.gather(apause("Sure?", type=bool), hangs())

    @workflow
    async def flow() -> None:
        await ask()

    with pytest.raises(StepTimeoutError):
        go(flow)


def test_a_run_that_cannot_pause_warns_which_steps_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tapps_otel.run.pausing._PATIENCE_NS", 0)

    @step
    async def review(number: int, limiter: asyncio.Semaphore) -> bool:
        async with limiter:
            return await apause(f"Is {number} good?", type=bool)

    @workflow
    async def flow() -> None:
        limiter = asyncio.Semaphore(2)
        tasks = [asyncio.create_task(review.options(key=f"{n}")(n, limiter)) for n in range(4)]
        while not caplog.records:  # noqa: ASYNC110 - nothing else tells of a record
            await asyncio.sleep(0)
        for one in tasks[2:]:
            one.cancel()
        await asyncio.gather(*tasks)

    with pytest.raises((RunPausedError, asyncio.CancelledError)):
        go(flow)

    (record,) = caplog.records
    assert "it waits for steps in progress: 'review#3', 'review#4'" in record.message


def test_pauses_in_a_thread_pool_are_all_asked(did: Effects) -> None:
    @step
    def review(number: int) -> bool:
        did(f"review {number}")
        return pause(f"Is {number} good?", type=bool)

    @workflow
    def flow() -> list[bool]:
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(bind(review), number) for number in range(6)]
        return [one.result() for one in futures]

    error = paused(flow)
    for one in error.questions:
        answer("r", one.question == "Is 4 good?", step=one.step_id)

    assert len(error.questions) == 6
    assert go(flow) == [number == 4 for number in range(6)]
    assert verify("r").ok


def test_the_code_around_a_thread_that_waits_does_not_continue(did: Effects) -> None:
    @step
    def after() -> None:
        did("after")

    @workflow
    def flow() -> None:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(bind(pause), "Sure?")
        asked.exception()
        after()

    paused(flow)

    assert did.all == []


# ---------------------------------------------------------------- runs in runs


@workflow
def inner() -> str:
    return "yes" if pause("Inner?", type=bool) else "no"


@pytest.mark.parametrize("caught", [False, True])
def test_a_run_waits_for_the_run_that_it_calls(caught: bool) -> None:
    @workflow
    def outer() -> str:
        try:
            return inner.options(workflow_id="child")() + "!"
        except Exception:
            if caught:
                return "swallowed"
            raise

    error = paused(outer)
    again = paused(outer)

    for one in (error, again):
        assert [(q.workflow_id, q.question) for q in one.questions] == [("child", "Inner?")]
    answer("child", True)
    assert go(outer) == "yes!"
    assert verify("r").ok
    assert verify("child").ok


@workflow
async def inner_later(kind: str) -> str:
    if kind == "timer":
        await apause(until=60)
    else:
        await apause("Inner?")
    return "inner"


@pytest.mark.parametrize("kind", ["answered", "timer", "completed"])
def test_a_called_run_continues_while_its_caller_has_a_question_of_its_own(
    kind: str, time: Time, did: Effects
) -> None:
    @step
    async def note(text: str) -> str:
        did(text)
        return text

    @workflow
    async def outer() -> list[Any]:
        async def call() -> str:
            return await note(await inner_later.options(workflow_id="child")(kind))

        return list(await asyncio.gather(apause("Outer?"), call()))

    paused(outer)
    paused(outer)
    assert history("child").status == "paused"
    if kind == "timer":
        time.ahead = 61
    else:
        answer("child", True)
    if kind == "completed":
        go(inner_later, kind, workflow_id="child")

    error = paused(outer)
    assert [(q.workflow_id, q.question) for q in error.questions] == [("r", "Outer?")]
    assert history("child").status == "completed"
    paused(outer)
    answer("r", 1)
    assert go(outer) == [1, "inner"]
    assert did.all == ["inner"]


def test_commands_name_the_folder_where_they_would_look_into_another(tmp_path: Path) -> None:
    """A program has another folder than the command line by `configure()` or `log_dir=`."""
    elsewhere = tmp_path / "its own"

    @step(on_interrupted="fail")
    def pay() -> None:
        die_at("paid")

    @workflow
    def payment() -> None:
        pay()

    option = f"--log-dir '{elsewhere}'"
    asked = publish.options(workflow_id="asks", log_dir=elsewhere)
    paying = payment.options(workflow_id="pays", log_dir=elsewhere)
    killed(paying, at="paid")
    with pytest.raises(RunPausedError) as paused_error:
        asked()
    with pytest.raises(RunPausedError) as again:
        asked()
    with pytest.raises(StepInterruptedError) as refused:
        paying()

    for error in (paused_error, again):
        assert f"`tapps-otel answer asks pause --json JSON {option}`" in str(error.value)
        assert f"`tapps-otel resume asks {option}`" in str(error.value)
    assert f"`tapps-otel resolve pays {option} pay --result JSON`" in str(refused.value)


# ---------------------------------------------------------------- times


class Time:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._real = clock.time_ns

    def time_ns(self) -> int:
        return self._real() + int(self.ahead * 1e9)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(clock, "time_ns", made.time_ns)
    return made


@pytest.mark.parametrize("until", [3600, 3600.0, timedelta(hours=1)])
def test_a_timer_waits_once_for_the_same_time(until: Any, time: Time, log: Log) -> None:
    calls = []

    @workflow
    def flow() -> str:
        calls.append(1)
        pause(until=until)
        return "done"

    error = paused(flow)
    time.ahead = 3000
    again = paused(flow)
    time.ahead = 3700

    assert error.question is None
    assert again.questions == error.questions
    assert log("workflow_end")[0]["until"] == error.questions[0].until
    assert go(flow) == "done"
    assert len(calls) == 2
    assert verify("r").ok


def test_a_time_of_another_zone_is_the_same_moment(log: Log) -> None:
    from zoneinfo import ZoneInfo

    @workflow
    def flow() -> None:
        pause(until=datetime(2100, 7, 1, 12, tzinfo=ZoneInfo("Asia/Tokyo")))

    paused(flow)

    assert log("step_start")[0]["until"] == "2100-07-01T03:00:00.000000000Z"


def test_a_question_without_an_answer_in_time_is_none(time: Time, log: Log) -> None:
    @workflow
    def flow() -> str:
        answered = pause("Sure?", type=bool, until=60)
        return f"{answered}"

    paused(flow)
    time.ahead = 61

    assert go(flow) == "None"
    (end,) = log("step_skip")
    assert end["reason"] == f"no answer until {log('step_start')[0]['until']}"
    with pytest.raises(RunConflictError, match="is skipped: it no longer waits"):
        answer("r", True, step="pause")


def test_an_answer_in_time_is_the_answer(time: Time) -> None:
    @workflow
    def flow() -> str:
        return f"{pause('Sure?', type=bool, until=60)}"

    paused(flow)
    answer("r", True)
    time.ahead = 61

    assert go(flow) == "True"


def test_an_answer_after_the_time_counts_until_the_run_is_resumed(time: Time) -> None:
    @workflow
    def flow() -> str:
        return f"{pause('Sure?', type=bool, until=60)}"

    paused(flow)
    time.ahead = 61
    answer("r", True)

    assert go(flow) == "True"


@pytest.mark.parametrize("question", [None, "Sure?"])
def test_a_time_in_the_past_is_due_at_once(question: str | None, labels: Any) -> None:
    @workflow
    async def flow() -> str:
        past = datetime.now(UTC) - timedelta(days=1)
        waits: Any = apause
        return f"{await waits(question, until=past)}"

    end = "step_finish" if question is None else "step_skip"

    assert go(flow) == "None"
    assert labels() == ["workflow_start", "step_start pause", f"{end} pause", "workflow_end"]


def test_a_timer_cannot_be_answered() -> None:
    @workflow
    def flow() -> None:
        pause(until=60)

    paused(flow)
    with pytest.raises(RunConflictError, match="waits for a time, and asks nothing"):
        answer("r", True)


# ---------------------------------------------------------------- what it leaves alone


def test_a_paused_run_is_no_failed_one() -> None:
    paused(publish)
    found = last_run()

    assert found is not None
    assert (found.status, found.error) == ("paused", None)
    assert [one.step_id for one in found.waiting] == ["pause"]


def test_other_runs_in_the_process_continue() -> None:
    @step
    def work() -> str:
        if current_step().number > 5:
            skip("never")
        return "done"

    @workflow
    def flow() -> str:
        return work()

    paused(publish)

    assert go(flow, workflow_id="other") == "done"
