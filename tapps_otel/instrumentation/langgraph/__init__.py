"""LangGraph: graphs and functional workflows, sync and async, by `invoke` and by streams.

``instrument("langgraph")``, ``LangGraphInstrumentor().instrument()``, or just
``opentelemetry-instrument python app.py``: each turn of a thread then has a log, a trace and a
history. The checkpointer stays the owner of resume, and LangGraph behaves as before.

The instrumentor is imported when it is first used: LangGraph need not be installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tapps_otel.instrumentation.langgraph.instrumentor import LangGraphInstrumentor

__all__ = ["LangGraphInstrumentor"]

if not TYPE_CHECKING:  # a type checker would accept any misspelt name

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        from tapps_otel.instrumentation.langgraph import instrumentor

        return getattr(instrumentor, name)
