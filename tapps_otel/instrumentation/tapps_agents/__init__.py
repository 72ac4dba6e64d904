"""tapps-agents: WorkflowExecutor, ParallelStepExecutor and CursorWorkflowExecutor.

``instrument("tapps_agents")``, or ``TappsAgentsInstrumentor().instrument()``, or nothing but
``opentelemetry-instrument python app.py``: every run of theirs then has a log, a trace and a
history, and :func:`resume` goes on with it. Nothing of theirs is changed, unless a setting asks
for it.

The names below are imported when they are first used: tapps-agents need not be installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tapps_otel.instrumentation.tapps_agents.instrumentor import TappsAgentsInstrumentor
    from tapps_otel.instrumentation.tapps_agents.resuming import resume
    from tapps_otel.instrumentation.tapps_agents.timelines import timeline_markdown, timeline_of

__all__ = ["TappsAgentsInstrumentor", "resume", "timeline_markdown", "timeline_of"]


def __getattr__(name: str) -> Any:
    home: Any
    if name == "TappsAgentsInstrumentor":
        from tapps_otel.instrumentation.tapps_agents import instrumentor

        home = instrumentor
    elif name == "resume":
        from tapps_otel.instrumentation.tapps_agents import resuming

        home = resuming
    elif name in __all__:
        from tapps_otel.instrumentation.tapps_agents import timelines

        home = timelines
    else:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(home, name)
