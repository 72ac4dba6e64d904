"""A turn: one call of a graph, from its input until it completes, pauses or fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tapps_otel.instrumentation.execution import Execution, current_execution

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NESTED", "Turn", "current_turn", "effective_configurable"]

NESTED: Final = "__pregel_task_id"  # a graph that is called with this key is a part of a task


class Turn(Execution):
    """One call of a graph.

    :ivar input: of the call: a state, a ``Command``, or ``None`` to continue
    :ivar thread: the id of the conversation that it belongs to
    :ivar checkpoint_id: the checkpoint that it is to start from, if the call names one
    :ivar is_paused: whether an interrupt or a breakpoint has stopped it
    :ivar question: what its interrupts ask, if that may be logged
    """

    def __init__(self, graph: Any, state: Any, configurable: Mapping[str, Any]) -> None:
        super().__init__(graph)
        self.input = state
        thread = configurable.get("thread_id")
        self.thread = None if thread in (None, "") else str(thread)
        self.checkpoint_id: str | None = configurable.get("checkpoint_id")
        self.is_paused = False
        self.question: str | None = None

    @property
    def continues(self) -> bool:
        """Whether its input continues what a turn before has left."""
        from langgraph.types import Command

        return self.input is None or isinstance(self.input, Command)


def current_turn() -> Turn | None:
    """The turn that the calling code is part of, if any."""
    turn = current_execution()
    return turn if isinstance(turn, Turn) else None


def effective_configurable(graph: Any, config: Any) -> Mapping[str, Any]:
    """The field ``configurable`` of a call: LangGraph merges that of a task around the call.

    Without LangGraph's own function for it, this is what the call itself passes.
    """
    try:
        from langgraph._internal._config import ensure_config
    except ImportError:
        merged: Any = config or graph.config or {}
    else:
        merged = ensure_config(graph.config, config)
    return merged.get("configurable") or {}
