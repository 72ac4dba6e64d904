"""Named runs in all their states, and the queries for them."""

from __future__ import annotations

import os
import re
import runpy
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

import tapps_otel
from crashes import Effects, Forked, die_at, go, killed
from tapps_otel import (
    Run,
    annotate,
    current_run,
    current_step,
    events,
    history,
    last_run,
    list_runs,
    resume,
    step,
    verify,
    workflow,
)
from tapps_otel.errors import (
    InvalidIdError,
    RunBusyError,
    RunConflictError,
    RunNotFoundError,
)
from tapps_otel.run import leased_log

Labels = Callable[..., list[str]]


@dataclass
class Page:
    url: str
    words: int = 0


# Of the module, so that a run of it can be resumed by its id alone.
calls: list[Page] = []


@step
def read(page: Page) -> Page:
    calls.append(page)
    die_at("read")
    return Page(page.url, len(page.url))


@workflow
def once() -> None:
    raise ValueError("once")


@workflow
def article(page: Page, *, tone: str = "warm") -> str:
    return f"{read(page).words} {tone}"


@workflow
async def later_article(page: Page) -> int:
    return read(page).words


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def test_an_absent_run_starts(log_dir: Path) -> None:
    assert go(article, Page("abc")) == "3 warm"
    assert (log_dir / "r.jsonl").exists()
    assert history("r").status == "completed"
    assert history("r").name == "article"
    verify("r").raise_if_bad()


def test_a_run_without_a_name_gets_one(log_dir: Path) -> None:
    assert article(Page("abc")) == "3 warm"

    (path,) = log_dir.glob("*.jsonl")
    assert path.stem.startswith("article-")
    found = last_run()
    assert found is not None
    assert found.workflow_id == path.stem


def test_two_runs_without_a_name_are_two(log_dir: Path) -> None:
    article(Page("abc"))
    article(Page("abc"))
    assert len(list(log_dir.glob("*.jsonl"))) == 2
    assert len(calls) == 2


def test_a_completed_run_returns_its_stored_result(labels: Labels) -> None:
    go(article, Page("abc"))
    before = labels()

    assert go(article, Page("abc")) == "3 warm"
    assert len(calls) == 1
    assert labels() == before


def test_a_completed_run_is_answered_while_its_lease_is_held(log_dir: Path) -> None:
    from tapps_otel.log.lease import Lease

    go(article, Page("abc"))
    lease = Lease(log_dir / "r.lease", "r")
    try:
        assert go(article, Page("abc")) == "3 warm"
    finally:
        lease.release()


async def test_a_completed_async_run_is_awaited() -> None:
    named = later_article.options(workflow_id="r")
    assert await named(Page("abc")) == 3
    assert await named(Page("abc")) == 3
    assert await later_article.resume("r") == 3
    assert len(calls) == 1


def test_a_run_is_resumed_by_its_workflow() -> None:
    killed(lambda: go(article, Page("abc"), tone="dry"), at="read")

    assert article.resume("r") == "3 dry"
    assert calls == [Page("abc")]
    assert history("r").status == "completed"


def test_a_run_is_resumed_by_its_id_alone() -> None:
    killed(lambda: go(article, Page("abc"), tone="dry"), at="read")
    assert resume("r") == "3 dry"


async def test_an_async_run_is_resumed_by_its_id_alone() -> None:
    killed(lambda: go(later_article, Page("abcd")), at="read")
    assert await resume("r") == 4


def test_a_completed_run_can_be_resumed_for_its_result() -> None:
    go(article, Page("abc"))
    assert article.resume("r") == "3 warm"
    assert resume("r") == "3 warm"
    assert len(calls) == 1


def test_a_program_that_resumes_its_own_run_is_not_loaded_again(did: Effects) -> None:
    Path("program.py").write_text("""
from pathlib import Path
from tapps_otel import resume, workflow

with Path("effects").open("a") as effects:
    effects.write("loaded\\n")

@workflow
def flow():
    return "done"

flow.options(workflow_id="r")()
assert resume("r") == "done"
""")
    runpy.run_path("program.py", run_name="__main__")

    assert did.all == ["loaded"]


def test_a_failed_run_is_resumed(did: Effects) -> None:
    @step
    def work() -> None:
        if did("work") == 1:
            raise ValueError("first")

    @workflow
    def flow() -> str:
        work()
        return "fine"

    with pytest.raises(ValueError, match="first") as caught:
        go(flow)
    (note,) = caught.value.__notes__
    assert note.startswith("to resume this run: ")
    assert "workflow_id='r'" in note
    assert history("r").status == "failed"
    assert history("r").error is not None

    assert go(flow) == "fine"
    assert history("r").status == "completed"
    assert len(history("r").executions) == 2


def test_the_note_is_not_repeated(did: Effects) -> None:
    failure = ValueError("same object")

    @step
    def work() -> None:
        raise failure

    @workflow
    def flow() -> None:
        work()

    for _ in range(2):
        with pytest.raises(ValueError, match="same object"):
            go(flow)
    assert len([one for one in failure.__notes__ if "to resume this run" in one]) == 1


def test_an_unknown_run_cannot_be_resumed(log_dir: Path) -> None:
    with pytest.raises(RunNotFoundError, match="nothing-here") as caught:
        resume("nothing-here")
    assert "tapps-otel list" in str(caught.value)
    with pytest.raises(RunNotFoundError):
        article.resume("nothing-here")
    with pytest.raises(RunNotFoundError):
        history("nothing-here")
    with pytest.raises(RunNotFoundError, match=re.escape(f"in {log_dir}")):
        list(events("nothing-here"))
    assert not list(log_dir.glob("nothing*"))


@pytest.mark.parametrize("bad", ["../r", "a/b", "", "a\0b", ".hidden", "x.events", "a" * 129])
def test_an_id_that_cannot_name_a_file_is_refused(log_dir: Path, bad: str) -> None:
    with pytest.raises(InvalidIdError):
        go(article, Page("abc"), workflow_id=bad)
    with pytest.raises(InvalidIdError):
        resume(bad)
    assert not log_dir.exists() or not list(log_dir.iterdir())


def test_a_new_run_cannot_have_the_name_of_traces_of_no_run(log_dir: Path) -> None:
    with pytest.raises(InvalidIdError, match="'traces' is reserved"):
        go(article, Page("abc"), workflow_id="traces")

    assert not log_dir.exists() or not list(log_dir.iterdir())


def test_an_old_run_with_a_reserved_name_is_resumed(
    log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(leased_log, "NO_RUN", "not yet")
        with pytest.raises(ValueError, match="once"):
            once.options(workflow_id="traces")()
    with pytest.raises(ValueError, match="once"):
        once.options(workflow_id="traces")()

    assert len(history("traces").executions) == 2


def test_a_held_lease_names_its_holder() -> None:
    """The lease of a live process: RunBusyError with pid and host; free as soon as it is dead."""
    ready, tell = os.pipe()
    wait, release = os.pipe()

    @step
    def hold() -> None:
        os.write(tell, b"x")
        os.read(wait, 1)

    @workflow
    def flow() -> str:
        hold()
        return "fine"

    child = Forked(lambda: go(flow))
    try:
        assert os.read(ready, 1) == b"x"
        with pytest.raises(RunBusyError, match=str(child.pid)) as caught:
            go(flow)
        assert caught.value.pid == child.pid
        assert caught.value.host == socket.gethostname()
        assert socket.gethostname() in str(caught.value)
        with pytest.raises(RunBusyError):
            flow.resume("r")
        assert history("r").status == "running"
    finally:
        os.write(release, b"x")
        outcome = child.wait()
        for descriptor in (ready, tell, wait, release):
            os.close(descriptor)

    assert outcome.value == "fine"
    assert go(flow) == "fine"


def test_a_run_is_not_executed_twice_in_one_process() -> None:
    inside, leave = threading.Event(), threading.Event()

    @step
    def hold() -> None:
        inside.set()
        leave.wait(10)

    @workflow
    def flow() -> None:
        hold()

    thread = threading.Thread(target=lambda: go(flow))
    thread.start()
    try:
        assert inside.wait(10)
        with pytest.raises(RunBusyError) as caught:
            go(flow)
        assert caught.value.pid == os.getpid()
    finally:
        leave.set()
        thread.join()


def test_other_inputs_under_a_known_id_are_refused(labels: Labels) -> None:
    go(article, Page("abc"))
    before = labels()
    with pytest.raises(RunConflictError, match="r"):
        go(article, Page("other"))
    assert labels() == before


def test_other_inputs_of_an_interrupted_run_are_refused(labels: Labels) -> None:
    killed(lambda: go(article, Page("abc")), at="read")
    before = labels()
    with pytest.raises(RunConflictError, match="input"):
        go(article, Page("abc"), tone="dry")
    assert calls == []
    assert labels() == before


def test_passing_a_default_does_not_change_the_inputs() -> None:
    go(article, Page("abc"))
    assert go(article, Page("abc"), tone="warm") == "3 warm"


def test_another_workflow_under_a_known_id_is_refused(labels: Labels) -> None:
    go(article, Page("abc"))
    before = labels()
    with pytest.raises(RunConflictError, match="article"):
        go(later_article, Page("abc"))
    with pytest.raises(RunConflictError, match="article"):
        _ = later_article.resume("r")
    assert labels() == before


def test_runs_in_another_folder(tmp_path: Path, log_dir: Path) -> None:
    other = tmp_path / "other"
    assert article.options(workflow_id="r", log_dir=other)(Page("abc")) == "3 warm"

    assert (other / "r.jsonl").exists()
    assert not (log_dir / "r.jsonl").exists()
    assert resume("r", log_dir=other) == "3 warm"


def test_runs_are_listed(did: Effects) -> None:
    @workflow
    def bad() -> None:
        raise ValueError("bad")

    go(article, Page("abc"), workflow_id="one")
    with pytest.raises(ValueError, match="bad"):
        go(bad, workflow_id="two")
    killed(lambda: go(article, Page("abc"), workflow_id="three"), at="read")

    runs = {one.workflow_id: one.status for one in list_runs()}
    assert runs == {"one": "completed", "two": "failed", "three": "interrupted"}
    assert [one.workflow_id for one in list_runs(status="failed")] == ["two"]
    found = last_run()
    assert found is not None
    assert found.workflow_id == "three"
    found = last_run("bad")
    assert found is not None
    assert found.workflow_id == "two"
    assert last_run("nothing") is None


def test_history_tells_what_ran() -> None:
    killed(lambda: go(article, Page("abc")), at="read")
    assert history("r").status == "interrupted"
    go(article, Page("abc"))

    found = history("r")
    assert found.workflow_id == "r"
    assert found.name == "article"
    assert found.status == "completed"
    assert found.result == "3 warm"
    assert found.error is None
    (record,) = found.steps
    assert (record.step_id, record.name, record.status) == ("read", "read", "completed")
    first, second = record.attempts
    assert (first.number, first.execution, first.status) == (1, 1, "interrupted")
    assert (second.number, second.execution, second.status) == (2, 2, "completed")
    assert second.duration_ns is not None
    assert second.duration_ns >= 0
    assert second.started_ns > first.started_ns
    assert second.error is None


def test_the_current_run_and_step_exist_only_inside() -> None:
    seen = SimpleNamespace(run=None, key=None)

    @step
    def work() -> None:
        seen.run = current_run().workflow_id
        seen.key = current_step().idempotency_key

    @workflow
    def flow() -> None:
        assert isinstance(current_run(), Run)
        with pytest.raises(LookupError):
            current_step()
        work()

    go(flow)

    assert seen.run == "r"
    assert seen.key
    with pytest.raises(LookupError, match=r"^no current run: call this inside a workflow$"):
        current_run()
    with pytest.raises(
        LookupError, match=r"^no current step: call this inside a step of a running workflow$"
    ):
        current_step()


def test_an_annotation_is_an_event(log_dir: Path) -> None:
    @step
    def work() -> None:
        annotate("halfway", percent=50)

    @workflow
    def flow() -> None:
        annotate("begun")
        work()

    go(flow)

    seen = [one for one in tapps_otel.events("r") if one.event_type == "annotation"]
    assert [one.name for one in seen] == ["begun", "halfway"]
    assert seen[1].attributes == {"percent": 50}
    assert seen[1].step_id == "work"


def test_a_workflow_inside_a_run_is_a_step_of_it(log_dir: Path, did: Effects) -> None:
    @step
    def inner() -> None:
        did("inner")

    @workflow
    def sub(number: int) -> int:
        inner()
        die_at("sub")
        return number + 1

    @workflow
    def flow() -> int:
        return sub(1)

    killed(lambda: go(flow), at="sub")

    assert go(flow) == 2
    assert [path.name for path in log_dir.glob("*.jsonl")] == ["r.jsonl"]
    assert [one.step_id for one in history("r").steps] == ["sub", "sub/inner"]
    assert did.all == ["inner"]


def test_what_runs_is_decided_before_any_step(log_dir: Path) -> None:
    """A log that cannot be opened at the start always raises, with any ``on_log_failure``."""
    log_dir.parent.mkdir(exist_ok=True)
    log_dir.write_text("a file where the folder should be")
    with pytest.raises((OSError, tapps_otel.errors.TappsError)):
        go(article, Page("abc"))
    assert calls == []
    log_dir.unlink()
