"""The commands ``answer``, ``resume --answer`` and ``resume --due``, and what reports show."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from commands import LOGS, Cli
from independent_checker import check
from tapps_otel import clock, settings
from tapps_otel.log.lease import Lease

RELEASE = """
import asyncio
from typing import Literal

from tapps_otel import apause, cancel, pause, step, workflow


@step
def build(version: str) -> str:
    with open("built.txt", "a") as file:
        file.write("x")
    return f"release {version}"


@workflow
def release(version: str = "7") -> str:
    built = build(version)
    return f"{built} is out" if pause(f"Publish {built}?", type=bool) else "dropped"


@workflow
async def both() -> list[str]:
    kind = Literal["yes", "no"]
    return list(await asyncio.gather(
        apause("Left?", type=kind, name="left"), apause("Right?", type=kind, name="right")
    ))


@workflow
def later(seconds: float = 3600, fails: bool = False) -> str:
    pause(until=seconds)
    if fails:
        raise ValueError("no")
    return "later"


@workflow
def hostile() -> None:
    pause("\\x1b]0;owned\\x07<script>alert(1)</script>\\nnext: rm -rf /", type=bool)


@workflow
def outer() -> str:
    return release.options(workflow_id="inner")("8") + "!"


@workflow
def outermost() -> str:
    return outer.options(workflow_id="outer")() + "!"


@workflow
async def beside() -> list[object]:
    async def call() -> str:
        return release.options(workflow_id="inner")("8")

    return list(await asyncio.gather(apause("Beside?"), call()))


@workflow
def elsewhere() -> str:
    return release.options(workflow_id="inner", log_dir="other")("8") + "!"


@workflow
def cancels() -> None:
    pause(until=3600)
    cancel("z")

"""


@pytest.fixture(autouse=True)
def flows(tmp_path: Path) -> None:
    (tmp_path / "release.py").write_text(RELEASE, "utf-8")


@pytest.fixture
def later_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hours pass after the runs of this test have begun."""
    real = clock.time_ns
    monkeypatch.setattr(clock, "time_ns", lambda: real() + 7200 * 10**9)


def test_a_run_that_asks_is_answered_and_resumed(cli: Cli) -> None:
    paused = cli("run", "release.py:release", "--id", "r")
    wrong = cli("answer", "r", "--json", '"yes"')
    answered = cli("answer", "r", "--json", "true", "--by", "ann", "--reason", "green")
    listed = cli("list", "--status", "answered", "--json")
    resumed = cli("resume", "r", "-q")

    assert paused.code == 5
    assert "r paused after" in paused.err
    assert "pause: Publish release 7?" in paused.err
    assert "tapps-otel answer r pause --json JSON" in paused.err
    assert "tapps-otel resume r" in paused.err
    assert wrong.code == 2
    assert "$: expected true or false, not" in wrong.err
    assert (answered.code, answered.out.splitlines()[0]) == (0, "pause is answered")
    assert [one["workflow_id"] for one in json.loads(listed.out)] == ["r"]
    assert (resumed.code, resumed.out) == (0, '"release 7 is out"\n')
    assert Path("built.txt").read_text() == "x"
    finish = [one for one in check(LOGS / "r.jsonl") if one["event_type"] == "step_finish"][-1]
    assert (finish["answered"]["by"], finish["reason"]) == ("ann", "green")


def test_answer_and_resume_together(cli: Cli) -> None:
    cli("run", "release.py:release", "--id", "r", "-q")
    done = cli("resume", "r", "--answer", "false", "-q")

    assert (done.code, done.out, done.err) == (0, '"dropped"\n', "")


def test_an_answer_with_a_resume_names_the_question_that_it_was_for(cli: Cli) -> None:
    cli("run", "release.py:both", "--id", "r", "-q")
    first = cli("resume", "r", "--answer", '"yes"', "--step", "right")
    second = cli("resume", "r", "--answer", '"no"')

    assert (first.code, "right is answered" in first.err) == (5, True)
    assert (second.code, "left is answered" in second.err) == (0, True)
    assert json.loads(second.out) == ["no", "yes"]


def test_no_answer_is_written_if_the_code_of_the_run_is_gone(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("run", "release.py:release", "--id", "r", "-q")
    before = (LOGS / "r.jsonl").read_bytes()
    Path("release.py").unlink()
    monkeypatch.delitem(sys.modules, "release", raising=False)  # as in another process
    done = cli("resume", "r", "--answer", "true")

    assert done.code != 0
    assert (LOGS / "r.jsonl").read_bytes() == before


def test_the_run_that_asks_is_named_for_one_that_waits_for_it(cli: Cli) -> None:
    cli("run", "release.py:outer", "--id", "outer", "-q")
    done = cli("answer", "outer", "--json", "true")

    assert done.code == 5
    assert "run 'outer' asks nothing" in done.err
    assert "those runs ask: answer 'inner'" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("answer", "r"), 2, "give the answer: --json JSON"),
        (("answer", "r", "--json", "yes"), 2, "--json is not JSON"),
        (("answer", "none", "--json", "true"), 3, "no run 'none'"),
        (("answer", "r", "--json", '"yes"'), 5, "asks 2 questions: say which is answered"),
        (("answer", "r", "middle", "--json", '"yes"'), 5, "has no step 'middle'"),
        (("answer", "r", "left", "--json", '"maybe"'), 2, 'expected one of "yes", "no"'),
        (("resolve", "r", "left", "--rerun"), 5, "not resolved but answered"),
        (("resume", "r", "--answer", '"yes"'), 5, "asks 2 questions"),
        (("resume", "r", "--answer", '"yes"', "--step", "middle"), 5, "has no step 'middle'"),
        (("resume", "r", "--step", "left"), 2, "give --answer, too"),
        (("resume", "r", "--due"), 2, "--due resumes every run that is due"),
        (("resume", "r"), 5, "r is paused"),
    ],
)
def test_what_cannot_be_answered(
    arguments: tuple[str, ...], code: int, text: str, cli: Cli
) -> None:
    cli("run", "release.py:both", "--id", "r", "-q")
    before = (LOGS / "r.jsonl").read_bytes()
    done = cli(*arguments)

    assert (done.code, text in done.err) == (code, True), done.err
    assert (LOGS / "r.jsonl").read_bytes() == before


def test_a_second_answer_is_refused(cli: Cli) -> None:
    cli("run", "release.py:release", "--id", "r", "-q")
    cli("answer", "r", "--json", "true", "--by", "ann")
    again = cli("answer", "r", "--json", "false")

    assert again.code == 5
    assert "was answered by ann on" in again.err


def test_a_run_in_progress_is_not_answered(cli: Cli) -> None:
    cli("run", "release.py:release", "--id", "r", "-q")
    lease = Lease((LOGS / "r.lease").absolute(), "r")
    try:
        done = cli("answer", "r", "--json", "true")
    finally:
        lease.release()

    assert done.code == 4


def test_due_resumes_each_run_that_can_continue(cli: Cli, request: pytest.FixtureRequest) -> None:
    cli("run", "release.py:later", "--id", "time", "-q")
    cli("run", "release.py:later", "--id", "fails", "-q", "-i", '{"fails": true}')
    cli("run", "release.py:release", "--id", "answered", "-q")
    cli("run", "release.py:release", "--id", "waits", "-q")
    cli("run", "release.py:outer", "--id", "outer", "-q")
    nothing = cli("resume", "--due")
    cli("answer", "answered", "--json", "true")
    cli("answer", "inner", "--json", "true")
    request.getfixturevalue("later_on")
    done = cli("resume", "--due")
    statuses = {one["workflow_id"]: one["status"] for one in json.loads(cli("list", "--json").out)}

    assert (nothing.code, "no paused run is due" in nothing.err) == (0, True)
    assert done.code == 1  # of the one that failed
    assert sorted(done.out.split("\n")[:-1]) == sorted(
        ['"later"', '"release 7 is out"', '"release 8 is out!"']
    )
    assert statuses == {
        "time": "completed",
        "fails": "failed",
        "answered": "completed",
        "waits": "paused",
        "outer": "completed",
        "inner": "completed",
    }
    assert cli("resume", "--due").code == 0


def statuses(cli: Cli) -> dict[str, str]:
    return {one["workflow_id"]: one["status"] for one in json.loads(cli("list", "--json").out)}


def test_the_run_around_is_resumed_next_and_due_when_the_called_one_was_resumed_alone(
    cli: Cli,
) -> None:
    cli("run", "release.py:outermost", "--id", "top", "-q")
    answered = cli("answer", "inner", "--json", "true")
    alone = cli("resume", "inner", "-q")
    before = statuses(cli)
    due = cli("resume", "--due", "-q")

    assert "next: tapps-otel resume top" in answered.out
    assert alone.code == 0
    assert before == {"top": "paused", "outer": "paused", "inner": "completed"}
    assert (due.code, due.out) == (0, '"release 8 is out!!"\n')
    assert set(statuses(cli).values()) == {"completed"}


def test_due_resumes_a_called_run_whose_caller_has_a_question_of_its_own(cli: Cli) -> None:
    cli("run", "release.py:beside", "--id", "outer", "-q")
    nothing = cli("resume", "--due")
    cli("answer", "inner", "--json", "true")
    due = cli("resume", "--due", "-q")
    before = statuses(cli)
    again = cli("resume", "--due")
    cli("answer", "outer", "--json", "true")
    last = cli("resume", "--due", "-q")

    assert "no paused run is due" in nothing.err
    assert (due.code, due.out) == (0, "")
    assert before == {"outer": "paused", "inner": "completed"}
    assert "no paused run is due" in again.err
    assert (last.code, last.out) == (0, '[true,"release 8 is out"]\n')


def test_due_continues_after_a_file_that_exits_when_it_is_imported(cli: Cli) -> None:
    Path("gone.py").write_text(Path("release.py").read_text())
    for name in ("gone", "release"):
        cli("run", f"{name}.py:release", "--id", name, "-q")
        cli("answer", name, "--json", "true")
    Path("gone.py").write_text("import sys\nsys.exit('set SHOP_URL first')\n")
    sys.modules.pop("gone")
    due = cli("resume", "--due", "-q")

    assert (due.code, due.out) == (5, '"release 7 is out"\n')
    assert "cannot import 'release'" in due.err
    assert "SystemExit: set SHOP_URL first" in due.err


def test_due_resumes_both_runs_that_called_one(cli: Cli) -> None:
    for name in ("one", "two"):
        cli("run", "release.py:outer", "--id", name, "-q")
    cli("answer", "inner", "--json", "true")
    due = cli("resume", "--due", "-q")

    assert (due.code, due.out) == (0, '"release 8 is out!"\n' * 2)
    assert statuses(cli) == {"one": "completed", "two": "completed", "inner": "completed"}


def test_due_resumes_a_run_whose_called_run_is_in_another_folder(cli: Cli) -> None:
    cli("run", "release.py:elsewhere", "--id", "outer", "-q")
    nothing = cli("resume", "--due", "-q")
    answered = cli("answer", "inner", "--json", "true", "--log-dir", "other")
    due = cli("resume", "--due", "-q")

    assert (nothing.code, nothing.out) == (0, "")
    assert "resume inner" in answered.out
    assert (due.code, due.out) == (0, '"release 8 is out!"\n')


def test_due_looks_at_each_run_when_its_turn_comes(
    cli: Cli, request: pytest.FixtureRequest
) -> None:
    cli("run", "release.py:cancels", "--id", "a", "-q")
    cli("run", "release.py:later", "--id", "z", "-q")
    request.getfixturevalue("later_on")
    due = cli("resume", "--due", "-q")

    assert (due.code, due.out) == (0, "")
    assert statuses(cli) == {"a": "completed", "z": "cancelled"}


def test_due_resumes_no_run_around_that_does_not_wait(cli: Cli) -> None:
    cli("run", "release.py:outer", "--id", "outer", "-q")
    cli("cancel", "outer")
    before = statuses(cli)
    cli("resume", "inner", "-q")
    cli("answer", "inner", "--json", "true")
    due = cli("resume", "--due", "-q")

    assert before == {"outer": "cancelled", "inner": "cancelled"}
    assert (due.code, due.out) == (0, '"release 8 is out"\n')
    assert statuses(cli) == {"outer": "cancelled", "inner": "completed"}


def test_answer_and_resume_names_the_step_and_answers_no_other(cli: Cli) -> None:
    cli("run", "release.py:both", "--id", "r", "-q")
    first = cli("resume", "r", "--answer", '"yes"', "--step", "left")
    again = cli("resume", "r", "--answer", '"yes"', "--step", "left")
    last = cli("resume", "r", "--answer", '"no"')

    assert (first.code, "left is answered" in first.err) == (5, True)
    assert (again.code, "was answered by" in again.err) == (5, True)
    assert (last.code, json.loads(last.out)) == (0, ["yes", "no"])
    assert cli("resume", "r", "--step", "left").code == 2


def test_reports_show_the_question_and_its_answer(cli: Cli) -> None:
    cli("run", "release.py:release", "--id", "r", "-q")
    listed, shown, one = cli("list"), cli("show", "r"), cli("show", "r", "pause")
    timeline, markdown = cli("timeline", "r"), cli("timeline", "r", "--markdown")
    watched = cli("watch", "r")
    as_json = json.loads(cli("show", "r", "--json").out)
    cli("answer", "r", "--json", "true", "--by", "ann")
    answered, waits_for_worker = cli("show", "r", "pause"), cli("list")

    assert "Publish release 7?" in listed.out
    assert "waits     pause: Publish release 7? (true or false)" in shown.out
    assert "next      " in shown.out
    assert "answer r pause --json JSON" in shown.out
    assert "Publish release 7?" in one.out
    assert "waits" in timeline.out
    assert "Publish release 7?" in timeline.out
    assert "asks Publish release 7?" in markdown.out
    assert (watched.code, "asks Publish release 7?" in watched.out) == (5, True)
    assert "answer r pause --json JSON" in watched.out
    assert as_json["waiting"] == ["pause"]
    assert as_json["open"] == []
    assert "answered by ann on" in answered.out
    assert "? r    answered" in waits_for_worker.out
    for found in (shown, one, timeline, markdown):
        assert "interrupted" not in found.out


def test_a_timer_is_shown_with_its_time(cli: Cli) -> None:
    cli("run", "release.py:later", "--id", "r", "-q")
    shown = cli("show", "r").out

    assert "pause: a time, until 20" in shown
    assert "tapps-otel resume --due" in shown


def test_a_question_cannot_harm_a_terminal_or_a_page(cli: Cli, tmp_path: Path) -> None:
    paused = cli("run", "release.py:hostile", "--id", "r")
    made = [
        paused.err,
        cli("list").out,
        cli("show", "r").out,
        cli("show", "r", "pause").out,
        cli("timeline", "r").out,
        cli("timeline", "r", "--markdown").out,
        cli("watch", "r").out,
        cli("answer", "r", "x", "--json", "1").err,
    ]
    cli("timeline", "r", "--html", "page.html")

    assert all("\x1b]0;" not in one for one in made)
    assert all(not one.startswith("next: rm") for text in made for one in text.split("\n"))
    assert "<script>alert" not in (tmp_path / "page.html").read_text()


def test_the_question_is_redacted_as_the_setting_says(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "_current", None)
    path = Path("release.py")
    path.write_text(path.read_text().replace("Publish {built}", "Is password=hunter2 ok, {built}"))
    cli("run", "release.py:release", "--id", "r", "-q")

    assert "hunter2" not in (LOGS / "r.jsonl").read_text()
