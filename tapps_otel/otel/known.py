"""Which run a trace belongs to, for what is given spans without being told: exporters.

Runs enter themselves when they begin. They stay for a while after their end, for their spans are
exported later; a run whose trace is forgotten by then counts as none.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tapps_otel.log.event import Event

__all__ = ["KnownRun", "enter", "find"]

_MOST: Final = 4096  # runs; a server may begin many in the seconds that an exporter is late
_lock = threading.Lock()
_traces: OrderedDict[int, OrderedDict[str, KnownRun]] = OrderedDict()


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run of this process, or one that this process is a child of.

    :ivar folder: of its log
    :ivar execution: which of its executions this process is part of
    :ivar started_ns: when that began, ns since 1970 UTC
    :ivar append: writes an event into its log while it goes on, and gives its seq; ``None`` once
        the run has ended here, or if its log fails
    """

    workflow_id: str
    folder: Path
    execution: int
    started_ns: int
    append: Callable[[Event], int | None] = lambda _: None


def enter(trace_id: str, run: KnownRun) -> None:
    """Note that ``run`` is in this trace. A trace may hold several runs."""
    with _lock:
        runs = _latest(_traces, int(trace_id, 16), OrderedDict())
        runs.pop(run.workflow_id, None)
        _latest(runs, run.workflow_id, run)


def _latest(entries: OrderedDict[Any, Any], key: Any, new: Any) -> Any:
    entry = entries.setdefault(key, new)
    entries.move_to_end(key)
    if len(entries) > _MOST:
        entries.popitem(last=False)
    return entry


def find(trace_id: int, *, workflow_id: str | None = None, at_ns: int = 0) -> KnownRun | None:
    """A run of this trace: the one of that id, or the last that had begun by then.

    :param at_ns: when the span in question started, ns since 1970 UTC
    """
    with _lock:
        runs = _traces.get(trace_id)
        if not runs:
            return None
        if workflow_id is not None:
            return runs.get(workflow_id)
        begun = (run for run in reversed(runs.values()) if run.started_ns <= at_ns)
        return next(begun, next(iter(runs.values())))
