"""Reads ids, names and outcomes from the calls of tapps-agents' executors."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tapps_otel import settings
from tapps_otel.instrumentation.spec import Adapter
from tapps_otel.instrumentation.tapps_agents.definition import describe, fields_of
from tapps_otel.instrumentation.tapps_agents.executor_state import executor_state
from tapps_otel.instrumentation.tapps_agents.variables import encoded
from tapps_otel.log import files
from tapps_otel.log.artifacts import NamedFile
from tapps_otel.run.codecs.native import from_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tapps_otel.instrumentation.method_call import MethodCall

__all__ = [
    "ADAPTER",
    "EXECUTOR",
    "engine_version",
    "is_cursor_executor",
    "mode_of",
    "root_of",
]

EXECUTOR: Final = "tapps-agents"


def root_of(executor: Any) -> Path:
    """The project's folder, absolute."""
    return Path(executor.project_root).absolute()


def is_cursor_executor(executor: Any) -> bool:
    """Whether it is a ``CursorWorkflowExecutor``, whose module may not be importable."""
    return type(executor).__name__ == "CursorWorkflowExecutor"


def mode_of(executor: Any) -> str:
    """The mode in which this executor executes steps: ``cursor`` or ``headless``.

    In Cursor mode, a ``WorkflowExecutor`` has them executed by a ``CursorWorkflowExecutor``.
    """
    from tapps_agents.core.runtime_mode import is_cursor_mode

    return "cursor" if is_cursor_executor(executor) or is_cursor_mode() else "headless"


def _about(call: MethodCall) -> Mapping[str, Any]:
    executor = call.executor
    root, loaded = root_of(executor), executor_state(executor).loaded
    about: dict[str, Any] = {
        "version": engine_version(),
        "root": str(root),
        # Agents' relative paths refer to the working directory.
        "cwd": files.system().working_directory(),
        "mode": mode_of(executor),
        "state": _state_of(executor.state),
    }
    if loaded is None or loaded.workflow is not executor.workflow:
        return {**about, **describe(executor.workflow)}
    path = loaded.path
    source = path.relative_to(root) if path.is_relative_to(root) else path
    about |= {"source": str(source), **loaded.definition}
    return about if loaded.sha256 is None else {**about, "sha256": loaded.sha256}


def _state_of(state: Any) -> dict[str, str]:
    """What tells the snapshots of this run: two runs may have the same id in tapps-agents."""
    return {"workflow_id": str(state.workflow_id), "started_at": str(state.started_at.isoformat())}


@cache
def engine_version() -> str:
    """The installed version of tapps-agents."""
    try:
        return metadata.version("tapps-agents")
    except metadata.PackageNotFoundError:  # run from its source
        return "unknown"


def _inputs(call: MethodCall) -> Mapping[str, Any]:
    """The inputs of the run, which a resume needs even if no snapshot is left."""
    variables = getattr(call.executor.state, "variables", None) or {}
    inputs: dict[str, Any] = {
        "target_file": call.arguments.get("target_file"),
        "max_steps": call.arguments.get("max_steps"),
        "user_prompt": variables.get("user_prompt") or getattr(call.executor, "user_prompt", None),
    }
    inputs = {name: value for name, value in inputs.items() if isinstance(value, str | int)}
    if settings.current().executor_variables:
        rest = {name: variables[name] for name in variables.keys() - {"user_prompt"}}
        given = {str(name): from_json(bytes(value)) for name, value in encoded(rest).items()}
        # Those with an underscore are tapps-agents' own, and made anew.
        inputs["variables"] = {name: one for name, one in given.items() if name[0:1] != "_"}
    return {name: value for name, value in inputs.items() if value != {}}


def _error(call: MethodCall) -> Any:
    """The error that tapps-agents gives; where it names no cause, with that."""
    error, state = call.result.error, call.executor.state
    if not str(error).startswith("Workflow blocked"):
        return error
    ended = {one.step_id for one in state.step_executions if one.status == "completed"}
    ended |= {*state.completed_steps, *state.skipped_steps}
    open_steps = [step for step in call.executor.workflow.steps if step.id not in ended]
    return f"{error}. {'; '.join(_why_blocked(step, state.artifacts) for step in open_steps)}"


def _why_blocked(step: Any, artifacts: Mapping[str, Any]) -> str:
    missing = [name for name in step.requires or () if name not in artifacts]
    if missing:
        return f"step {step.id} requires {', '.join(missing)}, which no step has made"
    return (
        f"step {step.id} is not the `next` of a completed step, and tapps-agents "
        f"{engine_version()} starts no other (up to 3.5.39 it did)"
    )


def _artifacts(call: MethodCall) -> Iterator[NamedFile | Mapping[str, Any]]:
    if not isinstance(call.result, dict):
        return
    root = root_of(call.executor)
    for key, artifact in call.result.items():
        if isinstance(artifact, dict):
            path = artifact.get("path")
            name = str(artifact.get("name", key))
            yield NamedFile(root / str(path), name, root) if path else {"name": name}


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
    error=_error,
    step_id=lambda call: _step(call).id,
    agent=lambda call: _step(call).agent,
    action=lambda call: _step(call).action,
    fields=lambda call: fields_of(_step(call)),
    artifacts=_artifacts,
    skipped=_skipped,
)
