"""Results of tapps-agents' gates, and changes of a workflow's type, in the log and in reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tapps_agents_project import Project, chain, headless, only_run
from tapps_otel import configure, history
from tapps_otel.cli import main
from tapps_otel.instrumentation import instrument
from tapps_otel.instrumentation.tapps_agents import resume, timeline_markdown, timeline_of

Events = Callable[..., list[dict[str, Any]]]

GOOD = {"overall_score": 92.0, "security_score": 9.5, "maintainability_score": 9.0}
BAD = GOOD | {"overall_score": 41.0, "security_score": 3.0}


@pytest.fixture(autouse=True)
def _instrumented(_own_place: None) -> None:
    instrument("tapps_agents")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose second of three steps is a review."""
    monkeypatch.setenv("PATH", "")  # the reviewer asks for the version of each linter it finds
    with headless(
        lambda: Project(tmp_path), monkeypatch, ["analyst", "reviewer", "documenter"]
    ) as made:
        Path("example_bug.py").write_text("x = 1\n")  # tapps-agents' default target
        made.write(steps())
        yield made


def steps(**review: Any) -> list[dict[str, Any]]:
    first, *_, last = chain()
    gate = {"condition": "scoring.passed == true", "on_pass": "s5", "on_fail": "s1"}
    second = {
        "id": "review", "agent": "reviewer", "action": "review_code", "gate": gate,
        "metadata": {"scoring": {"thresholds": {"overall_min": 8.0, "security_min": 8.5}}},
        "next": "s5",
    }  # fmt: skip
    return [first | {"next": "review"}, second | review, last | {"requires": []}]


def reviewed(project: Project, *scores: dict[str, float]) -> None:
    """Execute the workflow; the review fails, or gives the next of these scores."""
    left = list(scores)

    async def review() -> Any:
        return {"scores": left.pop(0)}

    project.does["reviewer"] = review
    executor = project.executor()
    asyncio.run(executor.execute())
    assert executor.state.status == "completed"


def gates(events: Events) -> list[dict[str, Any]]:
    return [one for one in events() if one.get("name") == "tapps.gate"]


# ---------------------------------------------------------------- in the log


def test_a_failed_gate_is_logged_before_its_step_ends(project: Project, events: Events) -> None:
    reviewed(project, BAD)

    (gate,) = gates(events)
    (finish,) = (
        one for one in events() if one["event_type"] == "step_finish" and one["step_id"] == "review"
    )
    assert (gate["step_id"], gate["seq"]) == ("review", finish["seq"] - 1)
    assert gate["span_id"] == finish["span_id"]
    found = gate["attributes"]
    assert found["passed"] is False
    assert found["score"] == found["scores.overall_score"] == 4.1
    assert (found["thresholds.overall_min"], found["thresholds.security_min"]) == (8.0, 8.5)
    assert found["failures"] == [
        "Overall score 4.10 below threshold 8.0",
        "Security score 3.00 below threshold 8.5",
    ]


def test_a_passed_gate_is_logged(project: Project, events: Events) -> None:
    reviewed(project, GOOD)

    (gate,) = gates(events)
    assert (gate["attributes"]["passed"], gate["attributes"]["score"]) == (True, 9.2)
    found = history(only_run()).by_id["review"].last.gate
    assert found is not None
    assert (found.passed, found.score, found.reasons) == (True, 9.2, ())


def test_without_auto_progression_a_gate_is_logged_too(
    project: Project, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_AGENTS_AUTO_PROGRESSION", "false")
    reviewed(project, BAD)

    (gate,) = gates(events)
    assert gate["attributes"]["passed"] is False


def test_a_gate_with_a_condition_is_logged_after_its_step(project: Project, events: Events) -> None:
    first, _, last = steps()
    gate = {"condition": "gate_last.passed == false", "on_fail": "s1"}
    project.write([first | {"next": "s5"}, last | {"gate": gate}])
    project.run()

    (found,) = gates(events)
    assert found["step_id"] == "s5"
    assert found["attributes"] == {"passed": True, "condition": "gate_last.passed == false"}
    assert found["span_id"] == events()[0]["span_id"]
    judged = history(only_run()).by_id["s5"].last.gate
    assert judged is not None
    assert judged.reasons == ("gate_last.passed == false",)


def test_the_last_evaluation_counts_after_a_kill_and_a_resume(
    project: Project, events: Events
) -> None:
    async def review() -> Any:
        return {"scores": BAD}

    project.does["reviewer"] = review
    name = project.kill_in("documenter")
    asyncio.run(resume(project.executor(), name))

    assert len(gates(events)) == 1
    gate = history(name).by_id["review"].last.gate
    assert gate is not None
    assert not gate.passed


# ---------------------------------------------------------------- in reports


@pytest.fixture
def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a command, and return what it prints."""
    monkeypatch.setattr("sys.argv", ["tapps-otel"])

    def show(*arguments: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert ended.value.code == 0
        return capsys.readouterr().out

    return show


def test_reports_show_a_failed_gate(project: Project, shown: Callable[..., str]) -> None:
    reviewed(project, BAD)
    name = only_run()
    said = "gate failed with 4.1: Overall score 4.10 below threshold 8.0; Security score 3.00"

    assert said in shown("show", name)
    assert "gate failed" in shown("timeline", name)
    assert said in shown("timeline", name, "--markdown")
    assert '"passed": false' in shown("show", name, "--json")
    shown("timeline", name, "--html", "page.html")
    assert said in Path("page.html").read_text()
    own = timeline_markdown(timeline_of(history(name)))
    assert f"## Failed Gates\n\n- **review** (reviewer/review_code): {said}" in own


def test_reports_of_a_passed_gate_name_no_failure(
    project: Project, shown: Callable[..., str]
) -> None:
    reviewed(project, GOOD)
    name = only_run()

    assert "gate passed with 9.2" in shown("show", name)
    assert "gate passed with 9.2" in shown("timeline", name, "--markdown")
    assert "gate failed" not in shown("timeline", name)
    assert "Failed Gates" not in timeline_markdown(timeline_of(history(name)))


# ---------------------------------------------------------------- the type of the workflow


def test_a_type_that_changes_while_the_run_is_in_progress_is_logged(
    project: Project, events: Events, shown: Callable[..., str]
) -> None:
    from tapps_agents.workflow.models import WorkflowType

    executor = project.executor()

    async def find_old_code() -> None:
        executor.workflow.type = WorkflowType.BROWNFIELD

    async def review() -> Any:
        return {"scores": GOOD}

    project.does |= {"analyst": find_old_code, "reviewer": review}
    asyncio.run(executor.execute())

    story = [(one["event_type"], one.get("step_id")) for one in events()]
    (change,) = (one for one in events() if one.get("name") == "tapps.workflow.type")
    assert change["attributes"] == {"from": "greenfield", "to": "brownfield"}
    assert story[story.index(("annotation", None)) + 1] == ("step_start", "review")
    check_type_in_reports(shown)


def test_a_type_that_changes_between_executions_is_logged(
    project: Project, events: Events, shown: Callable[..., str]
) -> None:
    name = project.kill_in("analyst")
    path = project.root / "flow.yaml"
    path.write_text(path.read_text().replace("greenfield", "brownfield"))
    Path("example_bug.py").unlink()
    asyncio.run(resume(project.executor(), name, accept_change=True))

    changes = [one for one in events() if one.get("name") == "tapps.workflow.type"]
    assert [one["attributes"] for one in changes] == [{"from": "greenfield", "to": "brownfield"}]
    check_type_in_reports(shown)


def check_type_in_reports(shown: Callable[..., str]) -> None:
    name, said = only_run(), "greenfield, then brownfield"
    assert said in shown("show", name)
    assert said in shown("timeline", name)
    assert said in shown("timeline", name, "--markdown")
    shown("timeline", name, "--html", "page.html")
    assert said in Path("page.html").read_text()


def test_an_unchanged_type_is_not_mentioned(project: Project, shown: Callable[..., str]) -> None:
    configure(spans=False)
    reviewed(project, GOOD)

    assert history(only_run()).types == []
    assert "greenfield" not in shown("timeline", only_run())
