"""Reads ids, names and outcomes from the calls of tapps-agents' executors."""

from __future__ import annotations

import json
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.instrumentation.spec import Adapter
from tapps_otel.instrumentation.tapps_agents.definition import fields_of, steps_of
from tapps_otel.instrumentation.tapps_agents.executor_state import executor_state
from tapps_otel.log import files
from tapps_otel.log.artifacts import summary_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tapps_otel.instrumentation.method_call import MethodCall

__all__ = [
    "ADAPTER",
    "EXECUTOR",
    "is_cursor_executor",
    "json_variables",
    "root_of",
]

EXECUTOR: Final = "tapps-agents"


def root_of(executor: Any) -> Path:
    """The project's folder, absolute."""
    return Path(executor.project_root).absolute()


def is_cursor_executor(executor: Any) -> bool:
    """Whether it is a ``CursorWorkflowExecutor``, whose module may not be importable."""
    return type(executor).__name__ == "CursorWorkflowExecutor"


def json_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of a state as JSON can hold them.

    :raises ValueError: they contain themselves
    """
    found: dict[str, Any] = json.loads(json.dumps(variables, default=str, skipkeys=True))
    return found


def _about(call: MethodCall) -> Mapping[str, Any]:
    executor = call.executor
    root, loaded = root_of(executor), executor_state(executor).loaded
    # Agents' relative paths refer to the working directory.
    cwd = files.system().working_directory()
    about: dict[str, Any] = {"version": _version(), "root": str(root), "cwd": cwd}
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


def _inputs(call: MethodCall) -> Mapping[str, Any]:
    """The inputs of the run, which a resume needs even if no snapshot is left."""
    state = call.executor.state
    prompt = (getattr(state, "variables", None) or {}).get("user_prompt")
    inputs = {
        "target_file": call.arguments.get("target_file"),
        "max_steps": call.arguments.get("max_steps"),
        "user_prompt": prompt or getattr(call.executor, "user_prompt", None),
    }
    return {name: value for name, value in inputs.items() if isinstance(value, str | int)}


def _artifacts(call: MethodCall) -> Iterator[Mapping[str, Any]]:
    if not isinstance(call.result, dict):
        return
    root = root_of(call.executor)
    for key, artifact in call.result.items():
        if isinstance(artifact, dict):
            path = artifact.get("path")
            name = str(artifact.get("name", key))
            yield summary_of(root / str(path), name=name, root=root) if path else {"name": name}


def _skipped(call: MethodCall) -> str | None:
    """Why the step did nothing, where a hook found that while it ran and it created nothing."""
    return None if call.result else call.arguments.get("skipped")


def _step(call: MethodCall) -> Any:
    return call.arguments["step"]


ADAPTER: Final = Adapter(
    executor=EXECUTOR,
    run_id=lambda call: call.executor.state.workflow_id,
    run_name=lambda call: getattr(call.executor.workflow, "name", None),
    about=_about,
    inputs=_inputs,
    root=lambda call: root_of(call.executor),
    resumes=lambda call: executor_state(call.executor).new_state is not call.executor.state,
    outcome=lambda call: str(call.result.status),
    error=lambda call: call.result.error,
    step_id=lambda call: _step(call).id,
    agent=lambda call: _step(call).agent,
    action=lambda call: _step(call).action,
    fields=lambda call: fields_of(_step(call)),
    artifacts=_artifacts,
    skipped=_skipped,
)
