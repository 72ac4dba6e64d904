"""Where ids, names and outcomes of tapps-agents' runs and steps are read."""

from __future__ import annotations

import json
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.instrumentation.spec import Reading, Seen
from tapps_otel.instrumentation.tapps_agents.definition import fields_of, steps_of
from tapps_otel.instrumentation.tapps_agents.executor_state import bond_of
from tapps_otel.log.artifacts import summary_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["EXECUTOR", "READING", "plain_variables", "root_of", "working_directory"]

EXECUTOR: Final = "tapps-agents"


def root_of(executor: Any) -> Path:
    """The project's folder, absolute."""
    return Path(executor.project_root).absolute()


def working_directory() -> str | None:
    """Where this process is: their agents name files relative to it. ``None`` if that is gone."""
    try:
        return str(Path.cwd())
    except OSError:
        return None


def plain_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the steps leave for each other, as far as JSON can tell it.

    :raises ValueError: it holds itself
    """
    told: dict[str, Any] = json.loads(json.dumps(variables, default=str, skipkeys=True))
    return told


def _skipped(seen: Seen) -> str | None:
    """Why the step did nothing, if it was found so on its way; then it has made nothing."""
    return None if seen.result else seen.arguments.get("skipped")


def _about(seen: Seen) -> Mapping[str, Any]:
    executor = seen.executor
    root, loaded = root_of(executor), bond_of(executor).loaded
    about: dict[str, Any] = {"version": _version(), "root": str(root), "cwd": working_directory()}
    if loaded is None or loaded.workflow is not executor.workflow:
        return {**about, "steps": steps_of(executor.workflow)}
    path = loaded.path
    source = path.relative_to(root) if path.is_relative_to(root) else path
    about |= {"source": str(source), "steps": loaded.steps}
    return about if loaded.sha256 is None else {**about, "sha256": loaded.sha256}


@cache
def _version() -> str:
    try:
        return metadata.version("tapps-agents")
    except metadata.PackageNotFoundError:  # run from its source
        return "unknown"


def _inputs(seen: Seen) -> Mapping[str, Any]:
    """What the run was asked for: resume needs it, and no snapshot may be left."""
    state = seen.executor.state
    prompt = (getattr(state, "variables", None) or {}).get("user_prompt")
    asked = {
        "target_file": seen.arguments.get("target_file"),
        "max_steps": seen.arguments.get("max_steps"),
        "user_prompt": prompt or getattr(seen.executor, "user_prompt", None),
    }
    return {name: value for name, value in asked.items() if isinstance(value, str | int)}


def _artifacts(seen: Seen) -> Iterator[Mapping[str, Any]]:
    if not isinstance(seen.result, dict):
        return
    root = root_of(seen.executor)
    for name, made in seen.result.items():
        if isinstance(made, dict):
            path = made.get("path")
            told = str(made.get("name", name))
            yield summary_of(root / str(path), name=told, root=root) if path else {"name": told}


def _step(seen: Seen) -> Any:
    return seen.arguments["step"]


READING: Final = Reading(
    executor=EXECUTOR,
    run_id=lambda seen: seen.executor.state.workflow_id,
    run_name=lambda seen: getattr(seen.executor.workflow, "name", None),
    about=_about,
    inputs=_inputs,
    root=lambda seen: root_of(seen.executor),
    resumes=lambda seen: bond_of(seen.executor).fresh is not seen.executor.state,
    outcome=lambda seen: str(seen.result.status),
    error=lambda seen: seen.result.error,
    step_id=lambda seen: _step(seen).id,
    agent=lambda seen: _step(seen).agent,
    action=lambda seen: _step(seen).action,
    fields=lambda seen: fields_of(_step(seen)),
    artifacts=_artifacts,
    skipped=_skipped,
)
