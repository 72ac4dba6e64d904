"""A project of the real tapps-agents, with a workflow of five steps and agents that do nothing.

Only ``XAgent.run`` is replaced: everything that calls it is the real engine.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import signal
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

from capabilities import CAPABILITIES, Capability, need
from crashes import Effects, in_child

HOW = "pip install tapps-agents==3.7.1 tomli, on Python 3.12 or newer (3.5.39 needs requests, too)"
CAPABILITIES.setdefault(
    "tapps-agents",
    # CI installs it in environments of its own.
    Capability(
        lambda: importlib.util.find_spec("tapps_agents") is not None, HOW, installable=False
    ),
)

# step: agent, action, what it creates
FIVE = {
    "s1": ("analyst", "gather_requirements", "requirements.md"),
    "s2": ("planner", "create_stories", "stories/"),
    "s3": ("architect", "design_system", "architecture.md"),
    "s4": ("ops", "security_scan", "security-report.md"),
    "s5": ("documenter", "generate_docs", "docs/"),
}
LOGS = Path(".tapps-agents/workflow-state/events")  # under each test's own folder
AGENTS = ("analyst", "planner", "architect", "ops", "documenter", "designer")


@cache
def version() -> tuple[int, ...]:
    """Return the version of the installed tapps-agents."""
    found = importlib.metadata.version("tapps-agents")
    return tuple(int(part) for part in found.split(".")[:3])


def is_parallel() -> bool:
    """Tell whether that version starts all steps whose requirements exist."""
    return version() < (3, 5, 40)


def chain(steps: dict[str, tuple[str, str, str]] = FIVE) -> list[dict[str, Any]]:
    """Make a sequence of steps, each of which requires what the previous one creates."""
    names = list(steps)
    made: list[dict[str, Any]] = []
    for at, (name, (agent, action, creates)) in enumerate(steps.items()):
        one: dict[str, Any] = {"id": name, "agent": agent, "action": action}
        one["creates"] = [creates] if creates else []
        one["requires"] = [steps[names[at - 1]][2]] if at and steps[names[at - 1]][2] else []
        if at + 1 < len(names):
            one["next"] = names[at + 1]
        made.append(one)
    return made


class Project:
    """A project of tapps-agents in the test's folder.

    :ivar did: names of the agents that were called, by crashed processes too
    :ivar does: what an agent does when it is called, by its name; by default nothing
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.did = Effects(root / "agents.txt")
        self.does: dict[str, Callable[..., Awaitable[Any]]] = {}
        config = root / ".tapps-agents" / "config.yaml"
        config.parent.mkdir()
        config.write_text("beads: {enabled: false, required: false}\n")

    def write(self, steps: list[dict[str, Any]] | None = None, workflow_id: str = "demo") -> Path:
        """Write the workflow's file, as JSON, which is YAML."""
        path = self.root / "flow.yaml"
        workflow = {
            "id": workflow_id,
            "name": "Demo",
            "description": "of a test",
            "version": "1",
            "type": "greenfield",
            "steps": chain() if steps is None else steps,
        }
        path.write_text(json.dumps({"workflow": workflow}))
        return path

    def executor(self, path: Path | None = None, **options: Any) -> Any:
        """Make an executor that has loaded the workflow, and that retries without waiting."""
        from tapps_agents.workflow.executor import WorkflowExecutor

        made = WorkflowExecutor(project_root=self.root, **options)
        made.load_workflow(path or self.root / "flow.yaml")
        made.auto_progression.max_retry_backoff = 0
        return made

    def run(self) -> Any:
        """Execute the workflow with a new executor, and return that executor."""
        executor = self.executor()
        asyncio.run(executor.execute())
        return executor

    def kill_in(self, agent: str = "architect") -> str:
        """Kill a run by SIGKILL when it calls this agent, and return the name of its log.

        The workflow is the default one, if none was written.
        """
        if not (self.root / "flow.yaml").exists():
            self.write()
        self.does[agent] = kill_process
        assert in_child(self.run).code == -signal.SIGKILL
        self.does.clear()
        return only_run()

    async def run_agent(self, name: str, given: dict[str, Any]) -> Any:
        """Run instead of ``XAgent.run``, with the arguments that the engine gives it."""
        self.did(name)
        for agent, _, creates in FIVE.values():
            if agent == name and creates:
                self.make(creates)
        does = self.does.get(name)
        return {"by": name} if does is None else await does()

    def make(self, creates: str) -> None:
        """Create the file or folder that a step creates."""
        path = self.root / creates
        if creates.endswith("/"):
            path.mkdir(exist_ok=True)
            (path / "one.md").write_text("one")
        else:
            path.write_text(f"the {creates}")


Kind = TypeVar("Kind", bound=Project)


async def fail() -> None:
    """Fail as an agent, always with the same error."""
    raise RuntimeError("no luck")


async def kill_process() -> None:
    """Kill the process that calls the agent."""
    os.kill(os.getpid(), signal.SIGKILL)


def only_run() -> str:
    """Return the name of the only log in the project."""
    (path,) = (path for path in LOGS.glob("*.jsonl") if not path.name.endswith(".events.jsonl"))
    return path.stem


def replace_agents(
    project: Project, monkeypatch: pytest.MonkeyPatch, agents: Iterable[str] = AGENTS
) -> None:
    """Replace the agents' ``run`` by that of the project."""

    def stand_in(name: str) -> Callable[..., Awaitable[Any]]:
        async def run(self: Any, command: str, **given: Any) -> Any:
            return await project.run_agent(name, given)

        return run

    async def activate(self: Any, *_: Any, **__: Any) -> None: ...

    for name in agents:
        module = importlib.import_module(f"tapps_agents.agents.{name}.agent")
        agent = getattr(module, f"{name.title()}Agent")
        monkeypatch.setattr(agent, "run", stand_in(name))
        monkeypatch.setattr(agent, "activate", activate)


@contextmanager
def headless(
    project: Callable[[], Kind], monkeypatch: pytest.MonkeyPatch, agents: Iterable[str] = AGENTS
) -> Iterator[Kind]:
    """Make a project, headless and with its own agents; skip the test without tapps-agents."""
    need("tapps-agents")
    for name in ("CURSOR_TRACE_ID", "TAPPS_AGENTS_PRESERVE_WORKFLOW_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TAPPS_AGENTS_MODE", "headless")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules of tapps-agents
        made = project()
        replace_agents(made, monkeypatch, agents)
        yield made
    _close_logs(made.root)


def _close_logs(folder: Path) -> None:
    """Close the files that loggers of tapps-agents keep open."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", [])[:]:
            if getattr(handler, "baseFilename", "").startswith(str(folder)):
                logger.removeHandler(handler)  # type: ignore[union-attr]
                handler.close()
