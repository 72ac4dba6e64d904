"""``tapps-otel resume`` and ``tapps_otel.resume``, for runs of tapps-agents."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

import tapps_otel
from commands import Done
from logs import forge
from tapps_agents_project import Project, chain, fail
from tapps_otel import configure, settings
from tapps_otel.cli import main
from tapps_otel.instrumentation import instrument, tapps_agents
from tapps_otel.log.files import UntrustedFileError


@pytest.fixture(autouse=True)
def _instrumented(_own_place: None, monkeypatch: pytest.MonkeyPatch) -> None:
    instrument("tapps_agents")
    monkeypatch.setattr("sys.argv", ["tapps-otel"])


@pytest.fixture
def killed(project: Project) -> str:
    """The id of a run that was killed in its third step."""

    project.write()
    return project.kill_in("architect")


def cli(capsys: pytest.CaptureFixture[str], *arguments: str) -> Done:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, said.out, said.err)


def test_resume_completes_a_killed_run(
    project: Project, killed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = cli(capsys, "show", killed)
    assert "resume    continues at s3; 2 completed steps will not run again" in shown.out
    done = cli(capsys, "resume", killed)

    assert done.code == 0, done
    assert "completed" in done.err
    assert project.did.all[3:] == ["architect", "ops", "documenter"]
    assert cli(capsys, "verify", killed).code == 0


def test_a_step_that_runs_again_is_counted_once(
    project: Project, killed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("stories")
    done = cli(capsys, "resume", killed)

    assert project.did.all[3:] == ["planner", "architect", "ops", "documenter"]
    assert done.err.rstrip().endswith("5 steps")


def test_a_changed_workflow_needs_accept_change(
    project: Project, killed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write([one | ({"action": "audit"} if one["id"] == "s4" else {}) for one in chain()])
    refused = cli(capsys, "resume", "--last")
    assert refused.code == 5
    assert '+  action: "audit"' in refused.err

    assert cli(capsys, "resume", killed, "--accept-change").code == 0


def test_a_resumed_run_may_fail_again(
    project: Project, killed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write([one | {"metadata": {"retry": {"enabled": False}}} for one in chain()])
    project.does["architect"] = fail
    done = cli(capsys, "resume", killed, "--accept-change")

    assert done.code == 1
    assert "failed after" in done.err
    assert f"next: tapps-otel resume {killed}" in done.err


def test_a_missing_workflow_file_is_refused(
    project: Project, killed: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    logs = tmp_path / "kept"
    shutil.copytree(".tapps-agents/workflow-state/events", logs)
    (project.root / "flow.yaml").unlink()
    done = cli(capsys, "resume", killed, "--log-dir", str(logs))

    assert done.code == 5
    assert "its workflow cannot be loaded from" in done.err


def test_the_resume_function_completes_it_too(project: Project, killed: str) -> None:
    state = asyncio.run(tapps_otel.resume(killed))

    assert state.status == "completed"
    assert project.did.all[3:] == ["architect", "ops", "documenter"]


def test_a_run_is_listed_under_the_name_of_its_workflow(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write()
    project.run()
    listed = cli(capsys, "list")

    assert "completed" in listed.out
    assert "Demo" in listed.out


@pytest.fixture
def elsewhere(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Change to another directory; the list gets the directory in which an agent runs."""
    places: list[str] = []

    async def write() -> None:
        places.append(str(Path.cwd()))

    project.does["architect"] = write
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    return places


LOGS = "../.tapps-agents/workflow-state/events"


def test_the_command_resumes_in_the_directory_of_the_start(
    project: Project, killed: str, elsewhere: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    done = cli(capsys, "resume", killed, "--log-dir", LOGS, "--trust")

    assert done.code == 0, done
    assert elsewhere == [str(project.root)]
    assert f"in {project.root}, where the run began" in done.err
    assert list((project.root / "other").iterdir()) == []


def test_the_function_stays_in_its_directory_and_warns(
    project: Project, killed: str, elsewhere: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    state = asyncio.run(tapps_otel.resume(killed, log_dir=LOGS))

    assert state.status == "completed"
    assert elsewhere == [str(project.root / "other")]
    assert f"started in {project.root} and resumes in {project.root / 'other'}" in caplog.text


def test_a_relative_log_folder_refers_to_the_callers_directory(
    project: Project, killed: str, elsewhere: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(log_dir=Path(LOGS))

    assert cli(capsys, "resume", killed, "--trust").code == 0
    assert elsewhere == [str(project.root)]


def test_a_missing_directory_of_the_start_is_refused(
    project: Project, killed: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    logs, gone, here = tmp_path / "kept", tmp_path / "gone", Path.cwd()
    with Path(f".tapps-agents/workflow-state/events/{killed}.jsonl").open() as file:
        start = json.loads(file.readline())
    assert start["workflow"]["cwd"] == str(here)
    start["workflow"] |= {"cwd": str(gone), "root": str(gone)}
    forge(logs, killed, [start])
    done = cli(capsys, "resume", killed, "--log-dir", str(logs))

    assert done.code == 5
    assert f"began in {gone}, where its steps write; cannot change to that directory" in done.err
    assert (Path.cwd(), gone.exists()) == (here, False)


# ---------------------------------------------------------------- whom a resume trusts


def test_a_log_that_others_can_write_to_is_not_resumed(
    project: Project,
    killed: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logs = Path(".tapps-agents/workflow-state/events")
    (logs / f"{killed}.jsonl").chmod(0o660)
    done = cli(capsys, "resume", killed)

    assert done.code != 0
    assert "other users can write to it" in done.err
    with pytest.raises(UntrustedFileError, match="other users can write to it"):
        tapps_otel.resume(killed)
    with pytest.raises(UntrustedFileError, match="other users can write to it"):
        asyncio.run(tapps_agents.resume(project.executor(), killed))
    assert project.did.all[3:] == []

    monkeypatch.setenv("TAPPS_OTEL_TRUST", str(logs.absolute()))
    settings.configure()
    assert cli(capsys, "resume", killed).code == 0


def test_a_project_elsewhere_is_not_resumed_without_consent(
    project: Project,
    killed: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logs = Path(".tapps-agents/workflow-state/events").absolute()
    here = Path("here")
    here.mkdir()
    (here / "pyproject.toml").touch()
    monkeypatch.chdir(here)
    done = cli(capsys, "resume", killed, "--log-dir", str(logs))

    assert done.code == 5
    assert f"{project.root / 'flow.yaml'}, which is outside the current project" in done.err
    assert project.did.all[3:] == []

    monkeypatch.setenv("TAPPS_OTEL_TRUST", str(project.root))
    settings.configure()
    assert cli(capsys, "resume", killed, "--log-dir", str(logs)).code == 0
