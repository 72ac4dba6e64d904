"""A run in progress: a line for each step that ends, and the steps in progress. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from tapps_otel.report.history import error_text, mark
from tapps_otel.report.lines import Line, took
from tapps_otel.report.text import few, plain

if TYPE_CHECKING:
    from tapps_otel.log.event import Event

__all__ = ["Progress"]

_ENDS = frozenset({"step_finish", "step_fail", "step_skip"})


class Progress:
    """Follows a run's events.

    :ivar open: step_ids of the steps in progress, in order
    """

    def __init__(self) -> None:
        self._done: set[str] = set()
        self.open: dict[str, None] = {}

    def feed(self, event: Event) -> Line | None:
        """Process the next event; return a line if it is worth one."""
        kind = event.event_type
        if kind == "step_start":
            self.open[str(event.step_id)] = None
        elif kind in _ENDS:
            return self._ended(event)
        elif kind in {"workflow_start", "workflow_resume"}:
            self.open.clear()
        elif kind == "annotation":
            where = "" if event.step_id is UNSET else f" in {plain(event.step_id)}"
            return Line.of(("· ", "dim"), (f"note {plain(event.name)}{where}", "dim"))
        elif kind == "log_repair":
            return Line.of(("! the log's torn end was sealed", "warn"))
        elif kind == "log_gap":
            return Line.of(("! events could not be written and were dropped", "warn"))
        return None

    def _ended(self, event: Event) -> Line:
        step_id, kind = str(event.step_id), event.event_type
        self.open.pop(step_id, None)
        if kind != "step_fail":
            self._done.add(step_id)
        sign = mark(str(event.status))
        if event.late is True and event.status == "interrupted":
            text = "was in progress when its process ended"
            return Line.of((f"{sign.text} ", sign.style), plain(step_id), (f"  {text}", "dim"))
        words = [] if event.duration_ns is UNSET else [took(event.duration_ns)]
        if isinstance(event.attempt, int) and event.attempt > 1:
            words.append(f"attempt {event.attempt}")
        if event.reason is not UNSET:
            words.append(plain(event.reason))
        if event.error is not UNSET:
            words.append(error_text(event.error))
        if event.retry_in_ns is not UNSET:
            words.append(f"retry in {took(event.retry_in_ns)}")
        depth = "  " * step_id.count("/")
        return Line.of(
            (f"{depth}{sign.text} ", sign.style),
            plain(step_id),
            (f"  {', '.join(words)}", "bad" if sign.style == "bad" else "dim"),
        )

    @property
    def finished(self) -> int:
        """Number of steps that ended well, in all executions; a repeated one counts once."""
        return len(self._done)

    @property
    def now(self) -> str:
        """The innermost steps in progress, and the number of finished ones."""
        inner = [step_id for step_id in self.open if not self._encloses(step_id)]
        running = few([plain(step_id) for step_id in inner], 3) or "-"
        return f"{running}  ({self.finished} finished)"

    def _encloses(self, step_id: str) -> bool:
        start = f"{step_id}/"
        return any(other.startswith(start) for other in self.open)
