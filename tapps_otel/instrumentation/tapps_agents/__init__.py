"""tapps-agents: WorkflowExecutor, ParallelStepExecutor and CursorWorkflowExecutor.

``instrument("tapps_agents")``, ``TappsAgentsInstrumentor().instrument()``, or just
``opentelemetry-instrument python app.py``: every run then has a log, a trace and a history, and
:func:`resume` resumes it. tapps-agents behaves as before, unless a setting asks for more.

The names below are imported when they are first used: tapps-agents need not be installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tapps_otel.instrumentation.tapps_agents.instrumentor import TappsAgentsInstrumentor
    from tapps_otel.instrumentation.tapps_agents.resuming import resume
    from tapps_otel.instrumentation.tapps_agents.timelines import timeline_markdown, timeline_of

__all__ = ["TappsAgentsInstrumentor", "resume", "timeline_markdown", "timeline_of"]

if not TYPE_CHECKING:  # a type checker would accept any misspelt name

    def __getattr__(name: str) -> Any:
        if name == "TappsAgentsInstrumentor":
            from tapps_otel.instrumentation.tapps_agents import instrumentor as module
        elif name == "resume":
            from tapps_otel.instrumentation.tapps_agents import resuming as module
        elif name in __all__:
            from tapps_otel.instrumentation.tapps_agents import timelines as module
        else:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        return getattr(module, name)
