"""A step of the real tapps-agents engine: unchanged, without its event log, watched, bridged.

Runs of a few steps come in turns, so that all four see the same moods of the disk. The agents do
nothing; what a step costs is the engine's snapshots, its event log, and what we add.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tapps_agents.agents.analyst.agent import AnalystAgent
from tapps_agents.workflow.event_log import WorkflowEventLog
from tapps_agents.workflow.executor import WorkflowExecutor

from tapps_otel import configure, instrument, uninstrument

from .common import Arguments, answer, arguments

STEPS = 25
"""Steps of one run: many, so that the cost of a run does not hide that of a step."""


async def _nothing(self: Any, *_: Any, **__: Any) -> dict[str, Any]:
    return {}


def _workflow(folder: Path) -> Path:
    steps = [
        {"id": f"s{n}", "agent": "analyst", "action": "gather_requirements", "next": f"s{n + 1}"}
        for n in range(STEPS)
    ]
    del steps[-1]["next"]
    path = folder / "flow.yaml"
    named = {"id": "demo", "name": "Demo", "description": "x", "version": "1", "type": "greenfield"}
    path.write_text(json.dumps({"workflow": {**named, "steps": steps}}))
    return path


@contextlib.contextmanager
def _as(way: str) -> Iterator[None]:
    """Set the process up for one way of running."""
    emit = WorkflowEventLog.emit_event
    if way == "silent":
        WorkflowEventLog.emit_event = lambda *_, **__: None
    elif way != "bare":
        configure(executor_bridge=way == "bridged")
        instrument("tapps_agents")
    try:
        yield
    finally:
        WorkflowEventLog.emit_event = emit
        uninstrument("tapps_agents")


def _run(folder: Path, path: Path, way: str) -> float:
    """Time of a step, in seconds."""
    with _as(way), contextlib.redirect_stdout(io.StringIO()):
        executor = WorkflowExecutor(project_root=folder)
        executor.load_workflow(path)
        began = time.perf_counter()
        state = asyncio.run(executor.execute())
        took = time.perf_counter() - began
    if state.status != "completed":
        raise SystemExit(f"{way}: {state.error}")
    return took / STEPS


def measure(args: Arguments) -> dict[str, float]:
    """The median time of a step, each way."""
    os.environ["TAPPS_AGENTS_MODE"] = "headless"
    logging.disable()
    AnalystAgent.run = AnalystAgent.activate = _nothing
    config = args.folder / ".tapps-agents" / "config.yaml"
    config.parent.mkdir()
    config.write_text("beads: {enabled: false, required: false}\n")
    path = _workflow(args.folder)
    ways = ("bare", "silent", "watched", "bridged")
    took: dict[str, list[float]] = {way: [] for way in ways}
    with contextlib.redirect_stderr(io.StringIO()):
        for way in ways:  # imports, folders
            _run(args.folder, path, way)
        for _ in range(max(1, args.n // STEPS)):
            for way in ways:
                took[way].append(_run(args.folder, path, way))
    numbers = {f"{way}_us": statistics.median(took[way]) * 1e6 for way in ways}
    apart = [bare - silent for bare, silent in zip(took["bare"], took["silent"], strict=True)]
    added = [seen - bare for seen, bare in zip(took["watched"], took["bare"], strict=True)]
    return {
        **numbers,
        "event_log_us": statistics.median(apart) * 1e6,
        "added_us": statistics.median(added) * 1e6,
    }


if __name__ == "__main__":
    answer("tapps-agents", **measure(arguments()))
