"""Runs of the real tapps-agents that are killed anywhere end as if they had not been.

Their agents are called once for each step that had not finished, and the variables in the end are
those of a run that was not killed.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capabilities import need
from crashes import die, in_child, killed, label, on_append
from independent_checker import check
from tapps_agents_project import LOGS, Project, chain, headless, is_parallel, only_run
from tapps_otel import configure, history
from tapps_otel.instrumentation import instrument, uninstrument
from tapps_otel.instrumentation.tapps_agents import resume

pytestmark = pytest.mark.slow

# step: agent, action, what it creates. Each needs variables that earlier ones leave.
STEPS = {
    "enhance": ("enhancer", "enhance_prompt", "enhanced-requirements.md"),
    "gather": ("analyst", "gather_requirements", "requirements.md"),
    "plan": ("planner", "create_stories", "stories/"),
    "design": ("architect", "design_system", "architecture.md"),
    "write": ("implementer", "write_code", "src/"),
    "review": ("reviewer", "review_code", ""),
    "test": ("tester", "write_tests", "tests/"),
    "document": ("documenter", "generate_docs", "docs/"),
}
SCORES = {"overall": 9.0, "security": 9.0, "maintainability": 9.0, "complexity": 1.0}
STATES = Path(".tapps-agents/workflow-state")


class EightSteps(Project):
    """A project whose agents return what they were given.

    :ivar deadly: the agent that kills its process when it is called
    """

    deadly: str | None = None

    async def run_agent(self, name: str, given: dict[str, Any]) -> Any:
        self.did(name)
        if name == self.deadly:
            die()
        for agent, _, creates in STEPS.values():
            if agent == name and creates:
                self.make(creates)
        if name == "implementer":
            Path(given["file_path"]).write_text("x = 1\n")
        # Which siblings have finished when one begins again depends on when the run was killed.
        seen = {} if is_parallel() else {key: str(value) for key, value in given.items()}
        return {"by": name, "given": seen, "scores": SCORES}


def steps() -> list[dict[str, Any]]:
    """The steps in a chain; in the versions that execute steps in parallel, with siblings."""
    made = chain(STEPS)
    made[5]["gate"] = {"condition": "scoring.passed == true", "on_pass": "test"}
    if is_parallel():
        first, *three, write, review, test, document = made
        for one in three:
            one["requires"] = first["creates"]
        write["requires"] = [name for one in three for name in one["creates"]]
        for one in (review, test, document):
            one["requires"] = write["creates"]
        for one in made:
            one.pop("next", None)
    return made


AGENTS = [agent for agent, *_ in STEPS.values()]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EightSteps]:
    configure(durability="os", spans=False)
    instrument("tapps_agents")
    monkeypatch.setenv("PATH", "")  # the reviewer asks for the version of each linter it finds
    with headless(lambda: EightSteps(tmp_path), monkeypatch, AGENTS) as made:
        made.write(steps())
        yield made
    uninstrument("tapps_agents")


def run(project: Project) -> Any:
    executor = project.executor()
    executor.user_prompt = "build it"
    return asyncio.run(executor.execute()).variables


@pytest.fixture(scope="module")
def uncrashed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The variables in the end of a run that is neither killed nor instrumented."""
    need("tapps-agents")
    root = tmp_path_factory.mktemp("uncrashed")

    def go() -> Any:
        os.chdir(root)
        os.environ["PATH"] = ""
        with headless(lambda: EightSteps(root), pytest.MonkeyPatch(), AGENTS) as project:
            project.write(steps())
            return comparable(run(project), root)

    outcome = in_child(go)
    assert outcome.code == 0, outcome.error
    found: dict[str, Any] = outcome.value
    assert {"target_file", "gate_last", "enhanced_prompt", "documenter_result"} <= found.keys()
    return found


def comparable(variables: dict[str, Any], root: Path) -> dict[str, Any]:
    """The variables without tapps-agents' own, and without the place of the project."""
    own = {name: value for name, value in variables.items() if not name.startswith("_")}
    found: dict[str, Any] = json.loads(json.dumps(own).replace(str(root), "ROOT"))
    return found


# ---------------------------------------------------------------- where it is killed


def in_the_step(project: EightSteps, step: str) -> None:
    project.deadly = STEPS[step][0]
    killed(lambda: run(project))
    project.deadly = None


def after_its_end_was_logged(project: EightSteps, step: str) -> None:
    killed(lambda: run(project), after=f"step_finish {step}")


def in_the_save_that_follows(project: EightSteps, step: str) -> None:
    genuine, finished = json.dump, False

    def note_finish(_: int, event: Any) -> None:
        nonlocal finished
        finished = finished or label(event) == f"step_finish {step}"

    def dump(data: Any, file: Any, **options: Any) -> None:
        if finished:
            text = json.dumps(data, **options)
            file.write(text[: len(text) // 2])
            file.flush()
            die()
        genuine(data, file, **options)

    def doomed() -> None:
        on_append(after=note_finish)
        json.dump = dump  # type: ignore[assignment]
        run(project)

    killed(doomed)


def before_the_next(project: EightSteps, step: str) -> None:
    following = [*STEPS][[*STEPS].index(step) + 1 :]
    if not following:
        killed(lambda: run(project), before="workflow_end")
    elif is_parallel():
        pytest.skip("siblings begin together")
    else:
        killed(lambda: run(project), before=f"step_start {following[0]}")


PLACES = [in_the_step, after_its_end_was_logged, in_the_save_that_follows, before_the_next]


# ---------------------------------------------------------------- what is left of the snapshots


def kept() -> None: ...


def deleted() -> None:
    for path in STATES.rglob("*.json"):
        path.unlink()


def torn() -> None:
    for path in STATES.rglob("*.json"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [kept, deleted, torn])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("step", STEPS)
def test_a_killed_run_ends_as_if_it_had_not_been(
    project: EightSteps,
    uncrashed: dict[str, Any],
    step: str,
    place: Callable[[EightSteps, str], None],
    damage: Callable[[], None],
) -> None:
    place(project, step)
    damage()
    name = only_run()
    before, past = project.did.all, history(name)
    done = {one.name for one in past.steps if one.status == "completed"}
    assert (step in done) is (place is not in_the_step)

    state = asyncio.run(resume(project.executor(), name))

    assert state.status == "completed"
    assert comparable(state.variables, project.root) == uncrashed
    again = Counter(project.did.all) - Counter(before)
    assert again == Counter(agent for one, (agent, *_) in STEPS.items() if one not in done)
    check(LOGS / f"{name}.jsonl")
