from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from commands import LOGS, Cli, child
from independent_checker import check
from tapps_otel import history, timeline, verify
from tapps_otel.demo import SOURCES, Demo, DemoError, survey
from tapps_otel.engines import local

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("demo"),  # one worker runs the demo for all of them
]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the demo writes, and the folder where it was run."""
    folder = tmp_path_factory.mktemp("demo")
    here = Path.cwd()
    os.chdir(folder)
    try:
        done = child("demo", "--svg", "demo.svg")
    finally:
        os.chdir(here)
    assert (done.code, done.err) == (0, "wrote    demo.svg\n")
    return done.out, folder


@pytest.fixture
def run(shown: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """Id of the run that it was about; its folder is the working directory."""
    monkeypatch.chdir(shown[1])
    (log,) = LOGS.glob("*.jsonl")
    return log.stem


def test_completed_steps_do_not_run_again(run: str) -> None:
    found = history(run)
    first = [step for step in found.steps if step.attempts[0].execution == 1]
    finished = [step for step in first if step.attempts[0].status == "completed"]
    cut = [step for step in first if step.attempts[0].status == "interrupted"]

    assert [one.status for one in found.executions] == ["interrupted", "completed"]
    assert len(finished) >= 7
    assert all(len(step.attempts) == 1 for step in finished)
    assert cut
    assert all(step.last.status == "completed" and step.last.execution == 2 for step in cut)
    assert 8 <= len(found.steps) <= 12


def test_its_log_is_intact(run: str) -> None:
    verify(run).raise_if_bad()

    assert len(check(LOGS / f"{run}.jsonl")) == history(run).seq


def test_its_result_is_a_file_that_the_log_names(run: str) -> None:
    (artifact,) = history(run).by_id["render"].last.artifacts
    report = Path(history(run).result["report"]).read_text("utf-8")

    assert artifact["bytes"] == len(report.encode())
    assert report.startswith("# A survey of Python sources\n")
    assert "## Most alike" in report


def test_its_timeline_tells_what_happened(cli: Cli, run: str) -> None:
    made = timeline(run)
    first, second = made.executions
    killed = [step.step_id for step, _ in made.interrupted]
    kept = [step.step_id for step in made.not_run_again]

    assert (first.killed, second.status, made.status) == (True, "completed", "completed")
    assert killed
    assert not set(killed) & set(kept)
    assert made.costs[0].name == "compare"

    shown = cli("timeline", run).out
    assert re.search(r"^status +completed at ", shown, re.MULTILINE)
    assert re.search(rf"^killed +{killed[0]} after .*execution 1 at ", shown, re.MULTILINE)
    assert re.search(r"^down +[\d.]+ m?s after execution 1", shown, re.MULTILINE)
    assert re.search(rf"^kept +{len(kept)} steps not run again: scan, ", shown, re.MULTILINE)
    assert re.search(r"^costs +compare ", shown, re.MULTILINE)


def test_the_summary_fits_on_one_screen(shown: tuple[str, Path], run: str) -> None:
    head, screen = shown[0].split("\n\n")
    lines = screen.splitlines()

    assert "✗ kill -9, in the middle of compare" in head
    assert re.match(
        r"Killed and resumed: \d+ completed steps came from the log, \d interrupted", lines[0]
    )
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    assert "from the log" in screen
    assert f"tapps_otel show {run}" in screen
    assert f"{LOGS}/{run}.jsonl" in screen
    for line in lines[lines.index("Try next:") + 1 :]:
        arguments = line.split("#")[0].split(" -m tapps_otel ")[1].split()
        assert child(*arguments).code == 0


def test_the_picture_shows_the_kill_and_what_came_from_the_log(run: str) -> None:
    root = ET.parse("demo.svg").getroot()
    shown = " ".join("".join(root.itertext()).replace("\xa0", " ").split())

    assert "✗ kill -9, in the middle of compare" in shown
    assert "Killed and resumed: 7 completed steps came from the log" in shown
    assert shown.count("killed after ") == shown.count("ran again, ") == 2
    assert shown.count("from the log") == 8
    assert run not in shown


def test_a_picture_replaces_no_file(cli: Cli) -> None:
    Path("demo.svg").write_text("mine")
    done = cli("demo", "--svg", "demo.svg")

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: demo.svg: a file of that name exists: name another")
    assert Path("demo.svg").read_text() == "mine"


def test_the_workflow_writes_the_same_report_without_a_kill(run: str, tmp_path: Path) -> None:
    made = tmp_path / "report.md"
    named = survey.options(log_dir=tmp_path)
    result = asyncio.run(named(folder=str(SOURCES), report=str(made)))
    before = history(run).result

    assert made.read_text("utf-8") == Path(before["report"]).read_text("utf-8")
    assert {**result, "report": ""} == {**before, "report": ""}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["pool", "dask", "ray"])
def test_a_worker_is_killed_and_then_its_driver(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "180000")  # a busy machine may take long
    if (how := local.how_to_install(engine)) is not None:
        pytest.skip(f"needs {engine}: {how}")
    done = child("demo", "--on", engine)

    assert done.code == 0, done.err
    (log,) = LOGS.glob("*.jsonl")
    found = history(log.stem)
    assert verify(log.stem).ok
    assert [one.status for one in found.executions] == ["interrupted", "completed"]
    assert len({one.trace_id for one in found.executions}) == 1
    assert {step.last.status for step in found.steps} == {"completed"}
    assert "✗ kill -9 of a worker, process " in done.out
    assert re.search(r"✗ kill -9, in the middle of compare", done.out)
    assert re.search(r"^Killed and resumed: ", done.out, re.MULTILINE)
    assert len(re.findall(r"compare.*, process \d+$", done.out, re.MULTILINE)) == 3


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_an_engine_that_is_not_installed_is_named(cli: Cli, engine: str) -> None:
    how = local.how_to_install(engine)
    if how is None:
        pytest.skip(f"{engine} is installed")
    done = cli("demo", "--on", engine)

    assert (done.code, done.out) == (2, "")
    assert how in done.err


def test_a_log_folder_can_be_given(tmp_path: Path) -> None:
    done = child("demo", "--log-dir", "logs of it")

    assert done.code == 0
    assert "--log-dir 'logs of it'" in done.out
    assert len(list((tmp_path / "logs of it").glob("*.jsonl"))) == 1


def test_a_failure_of_the_child_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = child("demo", "--log-dir", "file")

    assert done.code == 1
    assert "error: the workflow ended before it could be killed\n" in done.err
    assert "cannot write to the log" in done.err


def test_a_resume_that_does_not_complete_is_an_error(tmp_path: Path) -> None:
    demo = Demo(tmp_path)

    with pytest.raises(DemoError, match="no run"):
        list(demo.resume())


def test_the_sources_are_real(tmp_path: Path) -> None:
    paths = sorted(SOURCES.glob("*.py"))

    assert 12 <= len(paths) <= 20
    for path in paths:
        compile(path.read_text("utf-8"), path, "exec")
