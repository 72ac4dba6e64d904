"""Runs by their traces: how an exporter finds the run that a span belongs to.

Runs are entered when they start. They stay for a while after their end, because their spans are
exported later. A run that has been dropped by then is not found.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from tapps_otel.names import log_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tapps_otel.log.event import Event
    from tapps_otel.redact import Rules
    from tapps_otel.settings_types import SpanFilter

__all__ = ["KnownRun", "end", "enter", "enter_once", "find", "own", "owner_of"]

_MOST: Final = 4096  # runs; a server may start many in the seconds that an exporter is late
_lock = threading.RLock()  # a finalizer may look for a run in the middle
_traces: OrderedDict[int, OrderedDict[str, KnownRun]] = OrderedDict()
_MOST_OWNED: Final = 1 << 16  # spans, the last used ones
_owned: OrderedDict[int, KnownRun] = OrderedDict()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - the thread that held it may not exist in this process
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _refuse(_: Event, __: bool) -> int | None:  # noqa: FBT001 - the signature of ``append``
    raise LookupError


class KnownRun(Struct, eq=False):
    """A run of this process, or of the parent whose step started this process.

    :ivar folder: of its log
    :ivar execution: which of its executions this process is part of
    :ivar started_ns: when that began, ns since 1970 UTC
    :ivar pid: of the process that executes it; 0 for another one than this
    :ivar resource: attributes of the resource that its log names, packed, and its schema
    :ivar append: writes an event into its log, synced if asked, and returns its seq; ``None`` if
        the log fails, and the event waits to be written late. Raises :class:`LookupError`, and
        accepts nothing, if the run is not in progress here, or its log has failed before
    :ivar ended_ns: when it ended here; ``None`` while it is in progress
    :ivar workflow: name of its workflow; ``None`` in a child process, which is not told it
    :ivar has_blobs: whether the folder is on this machine, so that large values can be stored
    :ivar rules: what is redacted on its spans; ``None``: what the settings in force say
    :ivar span_filter: through which its spans leave; ``None``: as the settings in force say
    """

    workflow_id: str
    folder: Path
    execution: int
    started_ns: int
    pid: int = 0
    resource: tuple[dict[str, Any], str] | None = None
    append: Callable[[Event, bool], int | None] = _refuse
    ended_ns: int | None = None
    workflow: str | None = None
    has_blobs: bool = True
    rules: Rules | None = None
    span_filter: SpanFilter | str | None = None

    @property
    def log_name(self) -> str:
        """Name of its log: a third-party executor's id need not be fit for a file name."""
        return log_name(self.workflow_id)

    def in_progress_at(self, ns: int) -> bool:
        """Whether it had begun by then and had not ended."""
        return self.started_ns <= ns and (self.ended_ns is None or ns <= self.ended_ns)


def enter(trace_id: str, run: KnownRun) -> None:
    """Add a run to those of this trace."""
    with _lock:
        runs = _latest(_traces, int(trace_id, 16), OrderedDict())
        runs.pop(run.workflow_id, None)
        _latest(runs, run.workflow_id, run)


def enter_once(trace_id: str, run: KnownRun) -> None:
    """Add a run, unless it is there: as the same execution, with what its spans need."""
    known = find(int(trace_id, 16), workflow_id=run.workflow_id)
    if known is None or _needs_of(known) != _needs_of(run):
        enter(trace_id, run)


def _needs_of(run: KnownRun) -> tuple[object, ...]:
    return run.append, run.execution, run.rules, run.span_filter


def end(trace_id: str, workflow_id: str, at_ns: int) -> None:
    """Note that a run has ended here: later spans may belong to another."""
    run = find(int(trace_id, 16), workflow_id=workflow_id)
    if run is not None:
        run.ended_ns = at_ns


def _latest(entries: OrderedDict[Any, Any], key: Any, new: Any) -> Any:
    entry = entries.setdefault(key, new)
    entries.move_to_end(key)
    if len(entries) > _MOST:
        entries.popitem(last=False)
    return entry


def find(trace_id: int, *, workflow_id: str | None = None, at_ns: int = 0) -> KnownRun | None:
    """Find a run of this trace: by its id, or the innermost at that time.

    If none was: the last that had begun, or else the first of all.

    :param at_ns: when the span in question started, ns since 1970 UTC
    """
    with _lock:
        runs = _traces.get(trace_id)
        if not runs:
            return None
        if workflow_id is not None:
            return runs.get(workflow_id)
        if len(runs) == 1:
            return next(iter(runs.values()))
        latest = list(reversed(runs.values()))
    begun = [run for run in latest if run.started_ns <= at_ns]
    return next((run for run in begun if run.in_progress_at(at_ns)), (begun or latest[-1:])[0])


def own(span_id: int, run: KnownRun) -> None:
    """Let a span, and all that are below it, belong to this run, whatever else is in its trace."""
    with _lock:
        _own(span_id, run)


def _own(span_id: int, run: KnownRun) -> None:
    _owned[span_id] = run
    _owned.move_to_end(span_id)
    if len(_owned) > _MOST_OWNED:
        _owned.popitem(last=False)


def owner_of(span_id: int, parent_id: int | None) -> KnownRun | None:
    """Return the run that owns a span, or the span above it; ``None`` if none does."""
    if not _owned:
        return None
    with _lock:
        run = _owned.get(span_id)
        if run is not None:
            _owned.move_to_end(span_id)
        elif parent_id is not None:
            run = _owned.get(parent_id)
            if run is not None:
                _owned.move_to_end(parent_id)
                _own(span_id, run)
        return run
