"""Cancelling runs: in their logs, or by asking the process that executes them."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import Cli
from crashes import Deadly, Effects, Forked, die_at, go, in_child, killed
from logs import forge
from tapps_otel import (
    annotate,
    answer,
    cancel,
    configure,
    history,
    pause,
    step,
    timeline,
    verify,
    workflow,
)
from tapps_otel.errors import (
    LogDamagedError,
    RunBusyError,
    RunConflictError,
    RunNotFoundError,
    RunPausedError,
)
from tapps_otel.log import files
from tapps_otel.log.lease import Lease
from tapps_otel.log.store import Store
from tapps_otel.names import ATTR
from tapps_otel.run.resolving import resolve
from waiting import until

Log = Callable[..., list[dict[str, Any]]]
did = Effects(Path("effects"))  # in the folder of each test


@step
def draft(text: str) -> str:
    did(f"draft {text}")
    return text


@step
def publish(text: str) -> str:
    did(f"publish {text}")
    die_at("publish")
    return f"{text} published"


@workflow
def article(text: str) -> str:
    return publish(draft(text))


@workflow
def reviewed(text: str) -> str:
    found = draft(text)
    return publish(found) if pause("Publish it?", type=bool) else "kept"


def interrupted() -> None:
    killed(lambda: go(article, "a"), at="publish")


# ---------------------------------------------------------------- a run that no process executes


def test_an_interrupted_run_ends_as_cancelled_with_who_and_why(log: Log, cli: Cli) -> None:
    interrupted()

    assert cancel("r", by="Ann", reason="out of budget") == ["r"]

    found = history("r")
    assert (found.status, found.ended_by, found.reason) == ("cancelled", "Ann", "out of budget")
    assert [found.by_id[one].status for one in ("draft", "publish")] == ["completed", "interrupted"]
    [end] = log("workflow_end")
    assert end["attributes"]["host"] == socket.gethostname()
    assert end["attributes"]["pid"] == os.getpid()
    assert verify("r").ok
    shown = cli("show", "r").out
    assert "cancelled" in shown
    assert "by Ann: out of budget" in shown
    assert "r" in cli("list", "--status", "cancelled").out
    assert timeline("r").status == "cancelled"


def test_a_cancelled_run_can_be_resumed(log: Log) -> None:
    interrupted()
    cancel("r")

    assert go(article, "a") == "a published"
    assert did.all == ["draft a", "publish a", "publish a"]
    assert history("r").ended_by is None
    assert verify("r").ok


def test_a_paused_run_no_longer_waits_and_asks_again_on_resume() -> None:
    with pytest.raises(RunPausedError):
        go(reviewed, "a")

    cancel("r")

    assert history("r").waiting == []
    with pytest.raises(RunConflictError):
        answer("r", value=True)
    with pytest.raises(RunConflictError, match="was cancelled: a resume asks again"):
        resolve("r", "pause", result=b'"nonsense"')
    with pytest.raises(RunPausedError):
        go(reviewed, "a")
    answer("r", value=True)
    assert go(reviewed, "a") == "a published"
    assert did.count("draft a") == 1


def test_an_answered_run_can_be_cancelled() -> None:
    with pytest.raises(RunPausedError):
        go(reviewed, "a")
    answer("r", value=True)
    cancel("r")

    assert history("r").status == "cancelled"


def test_the_runs_that_its_open_steps_called_are_cancelled_too() -> None:
    @workflow
    def day() -> list[str]:
        first = article.options(workflow_id="done")("d")
        return [first, reviewed.options(workflow_id="waits")("w")]

    @step
    def night() -> list[str]:
        return day.options(workflow_id="day")()

    @workflow
    def week() -> list[str]:
        return night()

    with pytest.raises(RunPausedError):
        go(week)
    assert cancel("r") == ["r", "day", "waits"]

    assert {one: history(one).status for one in ("r", "day", "waits", "done")} == {
        "r": "cancelled", "day": "cancelled", "waits": "cancelled", "done": "completed",
    }  # fmt: skip
    for name in ("r", "day", "waits"):
        assert verify(name).ok


@pytest.mark.parametrize("parent", [None, "another", "r"])
def test_a_run_that_another_one_called_is_left_alone(parent: str | None, log_dir: Path) -> None:
    """Whatever a log says: it can name any run."""

    @step
    def inside() -> str:
        return reviewed.options(workflow_id="victim")("v")

    @workflow
    def calls() -> str:
        return reviewed.options(workflow_id="victim")("v") if parent == "another" else inside()

    caller, name = (reviewed, "victim") if parent is None else (calls, parent)
    with pytest.raises(RunPausedError):
        go(caller, *["v"] * (parent is None), workflow_id=name)
    start = {"event_type": "step_start", "step": "reviewed", "attempt": 1, "status": "running"}
    forge(log_dir, "r", [
        {"event_type": "workflow_start", "workflow": {"name": "flow"}, "status": "running"},
        {**start, "step_id": "one", "attributes": {ATTR.CHILD_WORKFLOW_ID: "victim"}},
        {**start, "step_id": "two",
         "attributes": {ATTR.CHILD_WORKFLOW_ID: "victim", ATTR.CHILD_LOG_DIR: str(log_dir)}},
    ])  # fmt: skip

    assert cancel("r") == ["r"]
    assert history("victim").status == "paused"


def test_steps_around_an_open_one_end_too() -> None:
    @step
    def outer() -> str:
        return publish("x")

    @workflow
    def flow() -> str:
        return outer()

    killed(lambda: go(flow), at="publish")
    cancel("r")

    assert [step.status for step in history("r").steps] == ["interrupted"] * 2
    assert go(flow) == "x published"


def test_a_cancellation_that_is_killed_can_be_repeated() -> None:
    nth, code = 0, 77
    while code:
        nth += 1
        interrupted()

        def doomed(nth: int = nth) -> None:
            with files.use(Deadly(nth)):
                cancel("r", reason="once")

        code = in_child(doomed).code
        if history("r").status != "cancelled":
            cancel("r")
        assert [step.status for step in history("r").steps] == ["completed", "interrupted"]
        assert verify("r").ok
        for path in Path("logs").iterdir():
            path.unlink()
    assert code == 0
    assert nth > 5


# ---------------------------------------------------------------- what is refused


def test_a_run_that_has_ended_is_refused() -> None:
    go(article, "a")
    with pytest.raises(RunConflictError, match="is completed already"):
        cancel("r")

    @workflow
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        go(fails, workflow_id="f")
    with pytest.raises(RunConflictError, match="has failed"):
        cancel("f")
    killed(lambda: go(article, "b", workflow_id="i"), at="publish")
    cancel("i")
    with pytest.raises(RunConflictError, match="was cancelled already"):
        cancel("i")


def test_an_unknown_or_damaged_run_is_refused(log_dir: Path) -> None:
    with pytest.raises(RunNotFoundError):
        cancel("nothing")
    interrupted()
    path = log_dir / "r.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"draft"', b'"graft"'))
    with pytest.raises(LogDamagedError):
        cancel("r")
    path.write_bytes(whole)  # every log that a test leaves is checked


def test_a_run_in_progress_is_refused_without_a_signal() -> None:
    @workflow
    def flow() -> None:
        with pytest.raises(RunBusyError):
            cancel("r")
        with pytest.raises(RunBusyError):  # it would wait for itself
            cancel("r", signal=True)

    go(flow)


def test_if_a_called_run_is_in_progress_nothing_is_cancelled(log_dir: Path) -> None:
    @workflow
    def flow() -> str:
        return reviewed.options(workflow_id="child")("c")

    with pytest.raises(RunPausedError):
        go(flow)
    held = Lease(Store(log_dir).lease_path("child"), "child")
    try:
        with pytest.raises(RunBusyError, match="'child'"):
            cancel("r")
    finally:
        held.release()
    assert history("r").status == "paused"


def test_a_process_on_another_machine_is_not_asked(
    log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted()
    held = Lease(Store(log_dir).lease_path("r"), "r")
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    try:
        with pytest.raises(RunConflictError, match="cancel it there"):
            cancel("r", signal=True)
    finally:
        held.release()


@pytest.mark.parametrize("name", ["by", "reason"])
def test_who_and_why_are_text(name: str) -> None:
    interrupted()
    with pytest.raises(TypeError):
        cancel("r", **{name: 7})  # type: ignore[arg-type]


# ---------------------------------------------------------------- a process that executes the run


@step
def waits_for_ever() -> None:
    annotate("began")
    try:
        while True:
            time.sleep(0.01)
    finally:
        did("cleaned up")


@workflow
def endless() -> None:
    waits_for_ever()


def has_begun() -> bool:
    path = Path("logs/r.jsonl")
    return path.exists() and b"began" in path.read_bytes()


@pytest.mark.parametrize("handled", [True, False])
def test_a_process_ends_its_steps_and_then_the_run_is_cancelled(handled: bool) -> None:
    def execute() -> None:
        configure(handle_sigterm=handled)
        go(endless)

    child = Forked(execute)
    until(has_begun)

    assert cancel("r", by="Ann", signal=True) == ["r"]

    child.wait()
    assert did.all == (["cleaned up"] if handled else [])
    assert (history("r").status, history("r").ended_by) == ("cancelled", "Ann")
    assert history("r").steps[0].status in {"interrupted", "cancelled"}
    assert verify("r").ok


def test_a_process_that_does_not_end_is_reported() -> None:
    def execute() -> None:
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        go(endless)

    child = Forked(execute)
    until(has_begun)
    try:
        with pytest.raises(RunBusyError):
            cancel("r", signal=True, wait=0.1)
    finally:
        child.kill()
        child.wait()
    cancel("r", signal=True)
    assert history("r").status == "cancelled"


def test_a_process_that_only_has_the_number_gets_no_signal(log_dir: Path) -> None:
    """The holder's label may be of another container, where the number is another process's."""
    interrupted()
    bystander = Forked(lambda: time.sleep(60))
    held = Lease(Store(log_dir).lease_path("r"), "r")
    label = json.dumps({"pid": bystander.pid, "host": socket.gethostname()})
    Path(held._path).write_text(label)
    try:
        with pytest.raises(RunConflictError, match="not the process of that number"):
            cancel("r", signal=True)
        assert os.waitpid(bystander.pid, os.WNOHANG) == (0, 0)
    finally:
        held.release()
        bystander.kill()
        bystander.wait()


# ---------------------------------------------------------------- the command


def test_the_command_cancels(cli: Cli) -> None:
    interrupted()
    done = cli("cancel", "r", "--by", "Ann", "--reason", "no budget")

    assert (done.code, done.out) == (0, "r cancelled\n")
    assert history("r").reason == "no budget"
    again = cli("cancel", "r")
    assert again.code == 5
    assert "was cancelled already" in again.err
    assert cli("cancel", "nothing").code == 3


def test_the_command_names_the_option_that_ends_a_process(cli: Cli, log_dir: Path) -> None:
    interrupted()
    held = Lease(Store(log_dir).lease_path("r"), "r")
    try:
        done = cli("cancel", "r")
    finally:
        held.release()

    assert done.code == 4
    assert "With --signal it is asked to end" in done.err
