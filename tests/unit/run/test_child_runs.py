"""Runs inside runs: a workflow that is called with an id in a run is a run of its own."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tapps_otel
from crashes import Effects, die_at, go, in_child, killed
from tapps_otel import (
    Run,
    bind,
    configure,
    current_run,
    history,
    step,
    verify,
    workflow,
)
from tapps_otel.errors import (
    DivergenceError,
    FailureDetailError,
    InvalidIdError,
    RunBusyError,
    RunConflictError,
    RunNotFoundError,
    RunRecursionError,
    StepInterruptedError,
    StepNestingError,
    StepTimeoutError,
)
from tapps_otel.run.resolving import resolve
from tapps_otel.run.scope import CLOSING
from waiting import until

Log = Callable[..., list[dict[str, Any]]]
Labels = Callable[..., list[str]]

did = Effects(Path())  # every test gives its own


@pytest.fixture(autouse=True)
def _own_effects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "did", Effects(tmp_path / "effects"))


@step
def charge(customer: str) -> str:
    did(f"charge {customer}")
    die_at("charge")
    return f"{customer} paid"


@step
def pack(customer: str) -> str:
    die_at("pack")
    did(f"pack {customer}")
    return f"packed for {customer}"


@workflow
def order(customer: str) -> list[str]:
    return [charge(customer), pack(customer)]


@step
async def charge_later(customer: str) -> str:
    await asyncio.sleep(0)
    did(f"charge {customer}")
    return f"{customer} paid"


@workflow
async def order_later(customer: str) -> str:
    return await charge_later(customer)


@workflow
def day(*customers: str) -> list[list[str]]:
    done = [order.options(workflow_id=f"order-{one}")(one) for one in customers]
    report()
    return done


@workflow
async def day_later(*customers: str) -> list[str]:
    calls = [order_later.options(workflow_id=f"order-{one}")(one) for one in customers]
    done = list(await asyncio.gather(*calls))
    report()
    return done


@step
def report() -> None:
    did("report")
    die_at("report")


ANN = ["Ann paid", "packed for Ann"]


# ---------------------------------------------------------------- a run, and a step


def test_a_workflow_with_an_id_is_a_run_of_its_own_and_a_step(labels: Labels, log: Log) -> None:
    assert go(day, "Ann") == [ANN]

    assert labels() == [
        "workflow_start",
        "step_start order",
        "step_finish order",
        "step_start report",
        "step_finish report",
        "workflow_end",
    ]
    assert labels("order-Ann") == [
        "workflow_start",
        "step_start charge",
        "step_finish charge",
        "step_start pack",
        "step_finish pack",
        "workflow_end",
    ]
    (start, _) = log("step_start")
    assert start["key"] == "order-Ann"
    assert history("order-Ann").result == ANN
    for run in ("r", "order-Ann"):
        verify(run).raise_if_bad()


def test_both_logs_name_the_other_run(log: Log) -> None:
    go(day, "Ann", "Bo")

    assert [one.get("attributes") for one in log("step_start")] == [
        {"tapps.child.workflow_id": "order-Ann"},
        {"tapps.child.workflow_id": "order-Bo"},
        None,
    ]
    (start,) = log("workflow_start", "order-Bo")
    assert start["workflow"]["parent"] == {"workflow_id": "r", "step_id": "order#2"}
    called, around = history("r").by_id["order#2"].child, history("order-Bo").parent
    assert called is not None
    assert (called.workflow_id, called.log_dir) == ("order-Bo", None)
    assert around is not None
    assert (around.workflow_id, around.step_id, around.log_dir) == ("r", "order#2", None)
    assert history("r").parent is None
    assert history("r").by_id["report"].child is None


def test_without_an_id_it_is_a_step_with_steps_inside(log_dir: Path, labels: Labels) -> None:
    @workflow
    def flow() -> list[str]:
        return order("Ann")

    assert go(flow) == ANN
    assert [path.stem for path in log_dir.glob("*.jsonl")] == ["r"]
    assert "step_start order/charge" in labels()


async def test_async_child_runs_side_by_side() -> None:
    assert await day_later.options(workflow_id="r")("Ann", "Bo") == ["Ann paid", "Bo paid"]
    assert history("order-Ann").result == "Ann paid"
    assert history("order-Bo").result == "Bo paid"
    assert sorted(did.all) == ["charge Ann", "charge Bo", "report"]


async def test_an_async_child_run_is_resumed_by_its_id_inside_a_run() -> None:
    @workflow
    async def flow() -> str:
        return await order_later.resume("o")

    assert await order_later.options(workflow_id="o")("Ann") == "Ann paid"
    assert await flow.options(workflow_id="r")() == "Ann paid"
    assert did.all == ["charge Ann"]


def test_the_code_of_a_child_run_belongs_to_that_run(log: Log) -> None:
    @workflow
    def inner() -> str:
        tapps_otel.annotate("here")
        return current_run().workflow_id

    @workflow
    def flow() -> list[str]:
        return [inner.options(workflow_id="i")(), current_run().workflow_id]

    assert go(flow) == ["i", "r"]
    assert [one["name"] for one in log("annotation", "i")] == ["here"]
    assert log("annotation") == []


def test_a_child_run_has_its_values_as_its_annotations_say() -> None:
    class Page:
        def __init__(self, words: int) -> None:
            self.words = words

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Page) and other.words == self.words

        __hash__ = None  # type: ignore[assignment]

    tapps_otel.register_codec(Page, encode=lambda page: page.words, decode=Page)

    @workflow
    def read(page: Page) -> Page:
        return Page(page.words + 1)

    @workflow
    def flow() -> int:
        found = read.options(workflow_id="p")(Page(1))
        die_at("read")
        return found.words

    killed(lambda: go(flow), at="read")
    assert go(flow) == 2


def test_a_bad_id_is_refused_before_anything_is_written(labels: Labels) -> None:
    @workflow
    def flow() -> None:
        order.options(workflow_id="../order")("Ann")

    with pytest.raises(InvalidIdError):
        go(flow)
    assert labels() == ["workflow_start", "workflow_end"]


# ---------------------------------------------------------------- once


def test_two_runs_that_call_one_child_run_get_its_one_result() -> None:
    assert go(day, "Ann") == go(day, "Ann", workflow_id="s") == [ANN]
    assert did.all == ["charge Ann", "pack Ann", "report", "report"]
    assert len(history("order-Ann").executions) == 1


def test_a_child_run_that_is_called_twice_in_a_run_runs_once(labels: Labels) -> None:
    assert go(day, "Ann", "Ann") == [ANN, ANN]
    assert did.count("charge Ann") == 1
    assert "step_finish order#2" in labels()


def test_a_run_that_has_completed_by_itself_is_not_run_again_as_a_child() -> None:
    assert go(order, "Ann", workflow_id="order-Ann") == ANN
    did.forget()
    assert go(day, "Ann") == [ANN]
    assert did.all == ["report"]


def test_a_call_and_a_resume_by_id_are_one_record(labels: Labels) -> None:
    by_id = False

    @workflow
    def flow() -> list[str]:
        found = order.resume("o") if by_id else order.options(workflow_id="o")("Ann")
        report()
        return found

    killed(lambda: go(flow), at="pack")
    by_id = True
    assert go(flow) == ANN
    assert did.all == ["charge Ann", "pack Ann", "report"]
    assert labels().count("step_start order") == 2
    assert "order#2" not in history("r").by_id
    verify("r").raise_if_bad()


def test_a_run_that_is_resumed_needs_only_its_own_log_for_what_it_has(log_dir: Path) -> None:
    @workflow
    def flow() -> list[str]:
        found = [*order.options(workflow_id="o")("Ann"), *order.resume("o")]
        report()
        return found

    killed(lambda: go(flow), at="report")
    for path in log_dir.glob("o.*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    assert go(flow) == [*ANN, *ANN]
    assert did.count("charge Ann") == 1


def test_a_resume_of_no_run_is_a_failure_of_the_step() -> None:
    @workflow
    def flow() -> list[str]:
        return order.resume("nothing")

    with pytest.raises(RunNotFoundError, match="nothing"):
        go(flow)
    assert history("r").by_id["order"].status == "failed"

    go(order, "Ann", workflow_id="nothing")  # now there is one
    assert go(flow) == ANN


def test_another_input_than_that_of_the_child_run_is_refused() -> None:
    @workflow
    def flow(customer: str) -> list[str]:
        return order.options(workflow_id="o")(customer)

    go(flow, "Ann")
    with pytest.raises(RunConflictError, match="'o' began with other inputs"):
        go(flow, "Bo", workflow_id="s")
    assert did.count("charge Bo") == 0


def test_the_public_resume_finds_a_child_run_by_its_id_alone(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"

    @workflow
    def flow() -> list[str]:
        found: list[str] = tapps_otel.resume("o")
        return found

    killed(lambda: order.options(workflow_id="o", log_dir=folder)("Ann"), at="pack")
    assert flow.options(workflow_id="r", log_dir=folder)() == ANN
    assert did.all == ["charge Ann", "pack Ann"]
    called = history("r", log_dir=folder).by_id["order"].child
    assert called is not None
    assert called.workflow_id == "o"


# ---------------------------------------------------------------- resumed


def test_a_resume_resumes_the_child_run() -> None:
    killed(lambda: go(day, "Ann"), at="pack")

    assert history("order-Ann").status == "interrupted"
    assert go(day, "Ann") == [ANN]
    assert did.all == ["charge Ann", "pack Ann", "report"]
    assert [one.status for one in history("order-Ann").executions] == ["interrupted", "completed"]


def test_a_child_run_that_was_resumed_by_itself_gives_its_result() -> None:
    killed(lambda: go(day, "Ann"), at="pack")

    assert order.resume("order-Ann") == ANN
    assert go(day, "Ann") == [ANN]
    assert did.all == ["charge Ann", "pack Ann", "report"]
    around = history("order-Ann").parent
    assert around is not None  # of its first execution
    assert around.workflow_id == "r"


def test_a_child_run_may_be_interrupted_often() -> None:
    """It is not what kills the process: its own steps have a guard for that."""
    for number in range(1, 7):
        killed(lambda: go(day, "Ann"), after="step_start order")
        assert history("r").by_id["order"].last.number == number
    assert go(day, "Ann") == [ANN]


# ---------------------------------------------------------------- failures


@workflow
def fragile(customer: str) -> str:
    charge(customer)
    if did(f"mail {customer}") < 2:
        raise ConnectionError("no network")
    return "mailed"


def test_a_child_runs_failure_is_the_steps_failure_and_a_resume_resumes_it() -> None:
    @workflow
    def flow() -> str:
        return fragile.options(workflow_id="f")("Ann")

    with pytest.raises(ConnectionError, match="no network"):
        go(flow)
    assert history("f").status == "failed"
    assert history("r").by_id["fragile"].status == "failed"

    assert go(flow) == "mailed"
    assert did.all == ["charge Ann", "mail Ann", "mail Ann"]


def test_a_child_runs_failure_that_was_handled_stays() -> None:
    @workflow
    def flow() -> str:
        try:
            return fragile.options(workflow_id="f")("Ann")
        except ConnectionError as error:
            report()
            return str(error)

    killed(lambda: go(flow), at="report")
    assert fragile.resume("f") == "mailed"
    assert go(flow) == "no network"


def test_a_busy_child_run_that_was_handled_stays_busy_for_that_run() -> None:
    inside, leave = threading.Event(), threading.Event()

    @workflow
    def slow() -> str:
        inside.set()
        leave.wait(30)
        return "slow"

    @workflow
    def flow() -> str:
        try:
            return slow.options(workflow_id="o")()
        except RunBusyError as error:
            report()
            return f"{error.workflow_id} is busy"

    thread = threading.Thread(target=lambda: go(slow, workflow_id="o"))
    thread.start()
    try:
        assert inside.wait(30)
        killed(lambda: go(flow), at="report")
    finally:
        leave.set()
        thread.join()
    assert go(flow) == "o is busy"
    assert go(flow, workflow_id="s") == "slow"


def test_a_timeout_inside_a_child_run_is_not_the_timeout_of_its_step() -> None:
    @step(timeout=0.01)
    async def slow() -> None:
        await asyncio.sleep(30)

    @workflow
    async def inner() -> None:
        await slow()

    @workflow
    async def flow() -> None:
        await inner.options(workflow_id="i")()

    with pytest.raises(StepTimeoutError):
        go(flow)
    assert history("i").by_id["slow"].status == "timeout"
    assert history("i").status == "failed"
    assert history("r").by_id["inner"].status == "failed"
    assert history("r").status == "failed"


def test_notes_of_an_exception_name_the_child_run_and_the_run_to_resume() -> None:
    @workflow
    def flow() -> str:
        return fragile.options(workflow_id="f")("Ann")

    with pytest.raises(ConnectionError) as caught:
        go(flow)
    of_child, of_parent = caught.value.__notes__
    assert of_child == "in run 'f', which step 'fragile' of run 'r' called: tapps-otel show f"
    assert of_parent.startswith("to resume this run: ")
    assert "'r'" in of_parent


# ---------------------------------------------------------------- refusals


@step
def save(text: str) -> str:
    did(f"save {text}")
    return text


def test_a_refusal_of_a_child_run_is_one_of_the_run_that_calls_it(labels: Labels) -> None:
    text = "then"

    @workflow
    def inner() -> None:
        save(text)
        die_at("saved")

    @workflow
    def flow() -> str:
        try:
            inner.options(workflow_id="i")()
        except Exception:  # noqa: BLE001 - what it must not swallow
            report()
        return "swallowed"

    killed(lambda: go(flow), at="saved")
    text = "now"
    with pytest.raises(DivergenceError, match="'save' was called with other inputs"):
        go(flow)
    assert did.all == ["save then"]
    assert "step_start report" not in labels()

    text = "then"
    assert go(flow) == "swallowed"
    assert did.all == ["save then"]


def test_an_interrupted_payment_in_a_child_run_stops_the_run_until_it_is_resolved() -> None:
    @step(on_interrupted="fail")
    def pay() -> str:
        did("pay")
        die_at("pay")
        return "paid"

    @workflow
    def inner() -> str:
        return pay()

    @workflow
    def flow() -> str:
        try:
            return inner.options(workflow_id="i")()
        except Exception:  # noqa: BLE001 - what it must not swallow
            return save("not paid")

    killed(lambda: go(flow), at="pay")
    for _ in range(2):
        with pytest.raises(StepInterruptedError, match="tapps-otel resolve i pay"):
            go(flow)
    resolve("i", "pay", result=b'"paid by hand"')
    assert go(flow) == "paid by hand"
    assert did.all == ["pay"]


class HttpError(Exception):
    def __init__(self, response: object) -> None:
        super().__init__("502")
        self.response = response


def test_a_lost_detail_in_a_child_run_stops_the_run_until_it_is_resolved() -> None:
    @step
    def fetch() -> str:
        if did("fetch") > 1:
            return "fetched"
        raise HttpError(object())

    @workflow
    def inner() -> str:
        try:
            return fetch()
        except HttpError as error:
            save("handled")
            die_at("handled")
            return repr(error.response)

    @workflow
    def flow() -> str:
        try:
            return inner.options(workflow_id="i")()
        except Exception:  # noqa: BLE001 - what it must not swallow
            return save("swallowed")

    killed(lambda: go(flow), at="handled")
    with pytest.raises(FailureDetailError, match="tapps-otel resolve i fetch"):
        go(flow)
    resolve("i", "fetch")
    assert go(flow) == "fetched"
    assert did.count("save swallowed") == 0


# ---------------------------------------------------------------- folders


def test_a_child_run_has_its_log_in_the_folder_of_the_run_that_calls_it(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    named = day.options(workflow_id="r", log_dir=folder)
    killed(lambda: named("Ann"), at="pack")

    assert named("Ann") == [ANN]
    assert {path.name for path in folder.glob("*.jsonl")} == {"r.jsonl", "order-Ann.jsonl"}
    assert did.all == ["charge Ann", "pack Ann", "report"]


def test_a_child_run_may_have_a_folder_of_its_own(tmp_path: Path, log_dir: Path, log: Log) -> None:
    folder = tmp_path / "orders"

    @workflow
    def flow() -> list[str]:
        there = order.options(workflow_id="o", log_dir=folder)
        return [*there("Ann"), *there.resume("o")]

    assert go(flow) == [*ANN, *ANN]
    assert did.all == ["charge Ann", "pack Ann"]
    assert {one["attributes"]["tapps.child.log_dir"] for one in log("step_start")} == {str(folder)}
    around = history("o", log_dir=folder).parent
    assert around is not None
    assert around.log_dir == str(log_dir)


# ---------------------------------------------------------------- recursion, concurrency


def test_a_run_that_calls_itself_is_an_error_that_says_so() -> None:
    @workflow
    def flow(depth: int) -> int:
        return 1 if depth == 0 else 1 + flow.options(workflow_id="r")(depth - 1)

    with pytest.raises(RunRecursionError, match=r"'r' is called inside itself \(r > r\)") as caught:
        go(flow, 3)
    assert caught.value.workflow_id == "r"
    assert history("r").by_id["flow"].status == "failed"


async def test_a_run_that_calls_itself_by_way_of_another_is_an_error() -> None:
    @workflow
    async def ping(depth: int) -> int:
        return 1 + await pong.options(workflow_id="pong")(depth)

    @workflow
    async def pong(depth: int) -> int:
        return await asyncio.create_task(ping.options(workflow_id="ping")(depth))

    with pytest.raises(RunRecursionError, match=r"\(ping > pong > ping\)"):
        await ping.options(workflow_id="ping")(1)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.exhaustive
def test_endless_child_runs_end_with_a_named_error(log_dir: Path, *, is_async: bool) -> None:
    @workflow
    def nest(number: int) -> None:
        nest.options(workflow_id=f"n{number}")(number + 1)

    @workflow
    async def nest_async(number: int) -> None:
        await nest_async.options(workflow_id=f"n{number}")(number + 1)

    with pytest.raises(StepNestingError, match="inside 64 steps"):
        go(nest_async if is_async else nest, 1)
    assert len(list(log_dir.glob("*.jsonl"))) == 65


async def test_one_of_two_calls_of_a_child_run_at_a_time_is_busy() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    @workflow
    async def slow() -> str:
        entered.set()
        await leave.wait()
        return "slow"

    @workflow
    async def flow() -> list[str]:
        named = slow.options(workflow_id="o")
        first = asyncio.create_task(named())
        await entered.wait()
        with pytest.raises(RunBusyError, match="'o' is in progress in this process"):
            await named()
        leave.set()
        return [await first, await named()]

    assert await flow.options(workflow_id="r")() == ["slow", "slow"]


def test_a_child_run_in_a_thread(labels: Labels) -> None:
    @workflow
    def flow() -> list[list[str]]:
        with ThreadPoolExecutor(2) as pool:
            calls = [
                pool.submit(bind(order.options(workflow_id=f"o{name}")), name)
                for name in ("Ann", "Bo")
            ]
            return [call.result() for call in calls]

    assert go(flow) == [ANN, ["Bo paid", "packed for Bo"]]
    assert labels().count("step_finish order") == 1
    assert history("oAnn").parent is not None


def test_the_end_of_a_run_waits_for_the_child_run_in_a_thread() -> None:
    inside, leave = threading.Event(), threading.Event()

    @workflow
    def slow() -> str:
        inside.set()
        leave.wait(30)
        return charge("Ann")

    def release(run: Run) -> None:
        until(lambda: run._recorder.root.state is CLOSING)
        leave.set()

    @workflow
    def flow() -> None:
        thread = threading.Thread(target=bind(slow.options(workflow_id="o")))
        thread.start()
        assert inside.wait(30)
        threading.Thread(target=release, args=(current_run(),)).start()

    go(flow)
    assert history("o").result == "Ann paid"
    assert history("r").by_id["slow"].status == "completed"


async def test_a_child_run_whose_sibling_fails_is_cancelled_and_resumed() -> None:
    fails = True

    @step
    async def wait() -> str:
        if fails:
            await asyncio.sleep(30)
        return "waited"

    @workflow
    async def slow() -> list[str]:
        return [save("first"), await wait()]

    @step
    async def fail() -> str:
        if fails:
            raise ValueError("no")
        return "fine"

    @workflow
    async def flow() -> list[Any]:
        async with asyncio.TaskGroup() as group:
            one = group.create_task(slow.options(workflow_id="o")())
            await asyncio.sleep(0)
            other = group.create_task(fail())
        return [one.result(), other.result()]

    with pytest.raises(ExceptionGroup):
        await flow.options(workflow_id="r")()
    assert history("o").status == "cancelled"
    assert history("r").by_id["slow"].status == "cancelled"

    fails = False
    assert await flow.options(workflow_id="r")() == [["first", "waited"], "fine"]
    assert did.all == ["save first"]


# ---------------------------------------------------------------- where there is no run


def test_in_a_forked_child_it_is_a_run_of_its_own() -> None:
    @workflow
    def flow() -> list[str]:
        outcome = in_child(lambda: order.options(workflow_id="o")("Ann"))
        assert outcome.value == ANN, outcome
        return ANN

    assert go(flow) == ANN
    assert history("o").status == "completed"
    assert history("o").parent is None
    assert history("r").steps == []


def test_switched_off_it_is_a_plain_call(log_dir: Path) -> None:
    configure(enabled=False)
    assert go(day, "Ann") == [ANN]
    assert list(log_dir.glob("*")) == []


def test_after_the_run_has_completed_it_is_a_run_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[Callable[[], list[str]]] = []

    @workflow
    def flow() -> None:
        calls.append(bind(lambda: order.options(workflow_id="o")("Ann")))

    go(flow)
    with caplog.at_level(logging.WARNING, "tapps_otel"):
        assert calls[0]() == ANN
    assert history("o").status == "completed"
    assert history("o").parent is None
    assert "'order' was called after run 'r' had completed" in caplog.text


def test_a_run_opened_by_hand_in_a_step_names_that_step() -> None:
    @step
    def by_hand() -> int:
        with Run.open("other", workflow_id="o") as run:
            return run.call("double", lambda: 2)

    @workflow
    def flow() -> int:
        return by_hand()

    assert go(flow) == 2
    around = history("o").parent
    assert around is not None
    assert (around.workflow_id, around.step_id) == ("r", "by_hand")


# ---------------------------------------------------------------- SIGTERM


@workflow
def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@workflow
async def terminated_later() -> None:
    """The event loop gets the signal; the code only sees that it is cancelled."""
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
    await asyncio.sleep(30)


@pytest.mark.parametrize("inner", [terminated, terminated_later])
def test_sigterm_interrupts_the_child_run_and_the_run_around_it(inner: Any) -> None:
    @workflow
    def flow() -> None:
        inner.options(workflow_id="i")()

    @workflow
    async def flow_async() -> None:
        await inner.options(workflow_id="i")()

    def terminate() -> None:
        configure(handle_sigterm=True)
        go(flow_async if inspect.iscoroutinefunction(inner) else flow)

    outcome = in_child(terminate)
    assert "SystemExit: 143" in outcome.error
    assert history("i").status == "interrupted"
    assert history("r").status == "interrupted"


def test_sigterm_is_as_before_after_runs_inside_runs() -> None:
    configure(handle_sigterm=True)

    @workflow
    def flow() -> bool:
        order.options(workflow_id="o")("Ann")
        return signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    assert go(flow) is False  # the child's end does not end it
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
