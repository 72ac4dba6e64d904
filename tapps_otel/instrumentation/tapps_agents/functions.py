"""The functions of tapps-agents that are wrapped.

All versions from 3.5.38 to 3.7.1 have them, with these parameters (``_can_execute_step`` from 3.6.0
on); a test compares them with the installed version. Importing this module is cheap: the wrappers
are in :mod:`~tapps_otel.instrumentation.tapps_agents.hooks`, which is imported with the first
module of tapps-agents that has a function to wrap.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from tapps_otel.instrumentation.patching import Hook, Patches
from tapps_otel.instrumentation.tapps_agents.executor_state import TARGET

if TYPE_CHECKING:
    from tapps_otel.instrumentation.guarding import Wrapper

__all__ = ["SIGNATURES", "TARGET", "patches"]

_WORKFLOW: Final = "tapps_agents.workflow"

SIGNATURES: Final = {
    "executor.WorkflowExecutor.__init__": (
        "(self, project_root, expert_registry, auto_detect, advanced_state, auto_mode)"
    ),
    "executor.WorkflowExecutor.execute": "(self, workflow, target_file, max_steps)",
    "executor.WorkflowExecutor._initialize_execution": "(self, workflow, target_file)",
    "executor.WorkflowExecutor._process_parallel_results": (
        "(self, results, completed_step_ids, running_step_ids)"
    ),
    "executor.WorkflowExecutor.start": "(self, workflow)",
    "executor.WorkflowExecutor.load_workflow": "(self, workflow_path)",
    "executor.WorkflowExecutor.load_last_state": "(self, validate)",
    "executor.WorkflowExecutor.mark_step_complete": "(self, step_id, artifacts)",
    "executor.WorkflowExecutor.skip_step": "(self, step_id)",
    "executor.WorkflowExecutor.pause_workflow": "(self)",
    "parallel_executor.ParallelStepExecutor.execute_parallel": (
        "(self, steps, execute_fn, *, state, timeout_seconds)"
    ),
    "auto_progression.AutoProgressionManager.evaluate_gate": "(self, step, state, review_result)",
    "agent_handlers.registry.AgentHandlerRegistry.find_handler": "(self, agent_name, action)",
    "event_log.WorkflowEventLog.emit_event": (
        "(self, event_type, workflow_id, step_id, agent, action, status, error, artifacts, "
        "metadata, *, rationale, input_summary, criteria, skill_name, model_profile, "
        "artifact_paths, tool_call_summary)"
    ),
    "event_log.WorkflowEventLog.read_events": "(self, workflow_id, limit)",
    "cursor_executor.CursorWorkflowExecutor.__init__": (
        "(self, project_root, expert_registry, auto_mode)"
    ),
    "cursor_executor.CursorWorkflowExecutor.run": "(self, workflow, target_file, max_steps)",
    "cursor_executor.CursorWorkflowExecutor._initialize_run": "(self, workflow, target_file)",
    "cursor_executor.CursorWorkflowExecutor._process_parallel_results": (
        "(self, results, completed_step_ids, running_step_ids)"
    ),
    "cursor_executor.CursorWorkflowExecutor._can_execute_step": "(self, step, completed_steps)",
    "cursor_executor.CursorWorkflowExecutor.start": "(self, workflow, user_prompt)",
    "cursor_executor.CursorWorkflowExecutor.skip_step": "(self, step_id)",
    "cursor_executor.CursorWorkflowExecutor.pause_workflow": "(self)",
}
# What subclasses may override without a call of the base class's method.
_OVERRIDDEN: Final = frozenset(
    {"execute", "run", "mark_step_complete", "skip_step", "pause_workflow"}
)
_ESSENTIAL: Final = frozenset({"execute", "execute_parallel"})


def patches() -> Patches:
    """The hooks, not yet put on."""
    return Patches(TARGET, tuple(map(_hook, SIGNATURES)))


def _hook(path: str) -> Hook:
    module, class_name, method = path.rsplit(".", 2)
    return Hook(
        f"{_WORKFLOW}.{module}",
        f"{class_name}.{method}",
        partial(_load, path),
        essential=method in _ESSENTIAL,
        load_override=partial(_load_override, path) if method in _OVERRIDDEN else None,
    )


def _load(path: str) -> Wrapper:
    from tapps_otel.instrumentation.tapps_agents.hooks import WRAPPERS  # heavy

    return WRAPPERS[path]


def _load_override(path: str) -> Wrapper:
    from tapps_otel.instrumentation.tapps_agents.hooks import OVERRIDE_WRAPPERS  # heavy

    return OVERRIDE_WRAPPERS[path]
