"""A log does not change the behavior of tapps-agents, whatever its agents do."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effort import examples
from tapps_agents_project import FIVE, Project, fail, only_run
from tapps_otel import history, verify
from tapps_otel.instrumentation import instrument, uninstrument

WAYS = ("work", "fail", "fail once", "be cancelled", "leave a task", "leave a task that fails")


class Story:
    """One execution of the workflow, whose agents behave as told.

    :ivar seen: what its caller can see of it
    """

    def __init__(self, project: Project, ways: list[str]) -> None:
        self._project, self._tasks = project, list[asyncio.Task[Any]]()
        self._failed: set[str] = set()
        for (agent, _, _), way in zip(FIVE.values(), ways, strict=True):
            project.does[agent] = self._behaving(agent, way)
        self.seen = asyncio.run(self._carry_out())

    def _behaving(self, agent: str, way: str) -> Any:
        async def behave() -> dict[str, str]:
            first = agent not in self._failed
            if way == "fail" or (way == "fail once" and first):
                self._failed.add(agent)
                await fail()
            if way == "be cancelled":
                raise asyncio.CancelledError
            if way.startswith("leave"):
                self._tasks.append(asyncio.create_task(self._later(agent, way)))
            return {"by": agent}

        return behave

    async def _later(self, agent: str, way: str) -> None:
        """Outlive the step, until the workflow has ended."""
        await self._ended.wait()
        self._project.did(f"{agent}, later")
        if way.endswith("fails"):
            await fail()

    async def _carry_out(self) -> dict[str, Any]:
        self._ended = asyncio.Event()
        executor = self._project.executor()
        error: BaseException | None = None
        try:
            await executor.execute()
        except BaseException as raised:  # noqa: BLE001 - compared
            error = raised
        self._ended.set()
        later = await asyncio.gather(*self._tasks, return_exceptions=True)
        state = executor.state
        own_id = str(state.workflow_id)  # made of the time
        return {
            "error": repr(error).replace(own_id, ""),
            "later": [repr(one) for one in later],
            "state": (state.status, state.completed_steps, state.skipped_steps),
            "failure": str(state.error).replace(own_id, ""),
            "variables": {name: type(value) for name, value in state.variables.items()},
            "steps": [(one.step_id, one.agent, one.status) for one in state.step_executions],
            "effects": list(self._project.did.all),
        }


def run(project: Project, ways: list[str], *, watched: bool) -> Story:
    shutil.rmtree(project.root / ".tapps-agents/workflow-state", ignore_errors=True)
    for _, _, creates in FIVE.values():
        made = project.root / creates
        shutil.rmtree(made, ignore_errors=True)
        if made.is_file():
            made.unlink()
    project.did.forget()
    if not watched:
        return Story(project, ways)
    instrument("tapps_agents")
    try:
        return Story(project, ways)
    finally:
        uninstrument("tapps_agents")


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ways=st.lists(st.sampled_from(WAYS), min_size=len(FIVE), max_size=len(FIVE)))
def test_a_workflow_does_the_same_watched_and_not_watched(
    project: Project, ways: list[str]
) -> None:
    project.write()
    alone = run(project, ways, watched=False)
    watched = run(project, ways, watched=True)

    assert watched.seen == alone.seen
    verify(only_run()).raise_if_bad()
    assert history(only_run()).status in {"completed", "failed", "cancelled"}
