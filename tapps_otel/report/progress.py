"""A run in progress, from its events: a line for each notable event, and what is open. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, Struct

from tapps_otel.clock import timestamp_ns
from tapps_otel.names import parent_of
from tapps_otel.past.span_steps import SpanSteps
from tapps_otel.report.history import error_text, mark
from tapps_otel.report.lines import Line, took
from tapps_otel.report.text import excerpt, plain, shorten

if TYPE_CHECKING:
    from tapps_otel.log.event import Event

__all__ = ["OpenStep", "Progress", "Waiting"]

_STEPS: Final = frozenset({"step_start", "step_finish", "step_fail", "step_skip"})
_SPANS: Final = frozenset({"span", "span_start"})
_LONG: Final = 500  # columns of a text of the log: more is in `show`


class OpenStep(Struct, frozen=True):
    """An attempt in progress.

    :ivar since_ns: its start by the wall clock, ns since 1970 UTC
    """

    step_id: str
    since_ns: int
    attempt: int
    agent: str | None


class Waiting(Struct, frozen=True):
    """A step that failed and is tried again.

    :ivar until_ns: when, by the wall clock, ns since 1970 UTC
    """

    step_id: str
    until_ns: int


class Progress:
    """Follows a run's events.

    :ivar name: of the workflow
    :ivar status: ``running`` until an execution ends, then its status
    :ivar execution: number of the last execution, 0 before the first
    :ivar process: what the log tells of its process
    :ivar began_ns: start of that execution by the wall clock, ns since 1970 UTC
    :ivar took_ns: time that it took; ``None`` while it is in progress
    :ivar last_ns: time of the last event by the wall clock
    :ivar error: with which it failed
    :ivar open: steps in progress, in the order of their starts
    :ivar waiting: steps that wait for another attempt
    """

    def __init__(self) -> None:
        self.name, self.status, self.execution = "", "running", 0
        self.process: dict[str, Any] = {}
        self.began_ns, self.last_ns = 0, 0
        self.took_ns: int | None = None
        self.error: dict[str, Any] | None = None
        self.question: str | None = None
        self.open: dict[str, OpenStep] = {}
        self.waiting: dict[str, Waiting] = {}
        self._span_steps: SpanSteps | None = None  # of a run that a rule over spans opened
        self._done: set[str] = set()
        self._failed: set[str] = set()

    def feed(self, event: Event) -> Line | None:
        """Process the next event; return a line if it is worth one."""
        kind = event.event_type
        self.last_ns = timestamp_ns(event.timestamp) or self.last_ns
        if kind in _STEPS:
            return self._step_changed(event)
        if kind in _SPANS:
            return self._span_changed(event)
        if kind in {"workflow_start", "workflow_resume"}:
            self._execution_began(event)
        elif kind == "workflow_end":
            self._execution_ended(event)
        elif kind == "annotation":
            where = "" if event.step_id is UNSET else f" in {_short(event.step_id)}"
            return Line.of(("· ", "dim"), (f"note {_short(event.name)}{where}", "dim"))
        elif kind == "log_repair":
            return Line.of(("! ", "warn"), ("the log's torn end was sealed", "warn"))
        elif kind == "log_gap":
            text = "events could not be written and were dropped"
            return Line.of(("! ", "warn"), (text, "warn"))
        return None

    # -- executions

    def _execution_began(self, event: Event) -> None:
        self.open.clear()
        self.waiting.clear()
        self.status, self.took_ns, self.error = "running", None, None
        self.execution = event.execution
        self.began_ns = self.last_ns
        self.process = {} if event.process is UNSET else event.process
        self._span_steps = SpanSteps.of_run(event)
        about = {} if event.workflow is UNSET else event.workflow
        self.name = str(about.get("name") or self.name)

    def _execution_ended(self, event: Event) -> None:
        self.open.clear()
        self.waiting.clear()
        self.status = "failed" if event.status is UNSET else event.status
        self.error = None if event.error is UNSET else event.error
        self.question = None if event.question is UNSET else event.question
        self.took_ns = 0 if event.duration_ns is UNSET else event.duration_ns

    # -- steps

    def _span_changed(self, event: Event) -> Line | None:
        """Process a captured span, which may be a step."""
        line = None
        for made in () if self._span_steps is None else self._span_steps.feed(event):
            line = self._step_changed(made)
        return line

    def _step_changed(self, event: Event) -> Line | None:
        return self._started(event) if event.event_type == "step_start" else self._ended(event)

    def _started(self, event: Event) -> Line | None:
        step_id = str(event.step_id)
        self.waiting.pop(step_id, None)
        self._failed.discard(step_id)
        self.open[step_id] = OpenStep(
            step_id,
            self.last_ns,
            1 if event.attempt is UNSET else event.attempt,
            None if event.agent is UNSET else event.agent,
        )
        if event.question is UNSET:
            return None
        words = f"  asks {shorten(plain(event.question), _LONG)}"
        return Line.of(("? ", "warn"), _short(step_id), (words, "warn"))

    def _ended(self, event: Event) -> Line:
        step_id = str(event.step_id)
        self.open.pop(step_id, None)
        self._count(step_id, event)
        sign = mark(str(event.status))
        if event.late is True and event.status == "interrupted":
            text = "was in progress when its process ended"
            return Line.of((f"{sign.text} ", sign.style), _short(step_id), (f"  {text}", "dim"))
        words = [] if event.duration_ns is UNSET else [took(event.duration_ns)]
        if isinstance(event.attempt, int) and event.attempt > 1:
            words.append(f"attempt {event.attempt}")
        if event.answered is not UNSET:
            words.append(f"answered by {_short(str(event.answered.get('by')))}")
        if event.reason is not UNSET:
            words.append(_short(event.reason))
        if event.error is not UNSET:
            words.append(shorten(error_text(event.error), _LONG))
        if event.retry_in_ns is not UNSET:
            words.append(f"retry in {took(event.retry_in_ns)}")
        depth = "  " * min(step_id.count("/"), 20)
        return Line.of(
            (f"{depth}{sign.text} ", sign.style),
            _short(step_id),
            (f"  {', '.join(words)}", "bad" if sign.style == "bad" else "dim"),
        )

    def _count(self, step_id: str, event: Event) -> None:
        if event.event_type != "step_fail":
            self._done.add(step_id)
            self._failed.discard(step_id)
        elif event.retry_in_ns is not UNSET:
            self.waiting[step_id] = Waiting(step_id, self.last_ns + event.retry_in_ns)
        elif event.status != "interrupted":
            self._failed.add(step_id)

    @property
    def finished(self) -> int:
        """Number of steps that ended well, in all executions; a repeated one counts once."""
        return len(self._done)

    @property
    def failed(self) -> int:
        """Number of steps that ended badly, and did not end well later."""
        return len(self._failed)

    @property
    def running(self) -> list[OpenStep]:
        """The innermost steps in progress, the one that began first at the front."""
        outer = {parent_of(step_id) for step_id in self.open}
        return [one for step_id, one in self.open.items() if step_id not in outer]


def _short(text: object) -> str:
    return excerpt(text, _LONG)
