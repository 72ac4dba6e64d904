"""Summaries of runs, from the first line and the last lines of their logs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET, Struct

from tapps_otel import clock
from tapps_otel.log.census import count_steps
from tapps_otel.log.event import Event, decode
from tapps_otel.log.tail import event_type_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["RunSummary", "damaged", "start_in", "summarize"]

_BEGINNINGS: Final = frozenset({"workflow_start", "workflow_resume"})
_ERROR: Final = 500  # characters of an error in a summary


class RunSummary(Struct, frozen=True):
    """Summary of a run, from the first line and the end of its log.

    Fields that an empty, torn or damaged log does not tell are ``None``.

    :ivar workflow: name of the workflow
    :ivar status: status of the last ``workflow_end``; without one, ``running`` while the lease is
        held, else ``interrupted``; ``answered`` if it was paused, and at least one of its questions
        was answered since; ``damaged`` if the log cannot be read to its end
    :ivar started_ns: start of the run by the wall clock, ns since 1970 UTC
    :ivar last_ns: time of the last event by the wall clock, ns since 1970 UTC
    :ivar last_step: step_id of the last step event
    :ivar last_step_event: type of the last step event
    :ivar seq: seq of the last event, 0 if there is none
    :ivar size: size of the log in bytes
    :ivar execution: number of the last execution, 0 if there is none
    :ivar problem: what is wrong with a damaged log
    :ivar parent: the run whose step called it first: its resume resumes this one
    :ivar forked_from: the runs that it was forked from: that run, the one that was forked from, ...
    :ivar error: type and beginning of the message of the error that the run ended with
    :ivar steps: number of its steps that have begun; ``None`` if they were not counted
    :ivar steps_done: how many of them are completed or skipped
    :ivar question: what it asks, if it is paused
    :ivar until_ns: when a paused run can continue without an answer, ns since 1970 UTC
    """

    workflow_id: str
    workflow: str | None
    status: str
    started_ns: int | None
    last_ns: int | None
    last_step: str | None
    last_step_event: str | None
    seq: int
    size: int
    execution: int
    problem: str | None = None
    parent: str | None = None
    forked_from: tuple[str, ...] = ()
    error: str | None = None
    steps: int | None = None
    steps_done: int | None = None
    question: str | None = None
    until_ns: int | None = None

    @property
    def duration_ns(self) -> int | None:
        """Time from its start to its last event."""
        if self.started_ns is None or self.last_ns is None:
            return None
        return max(0, self.last_ns - self.started_ns)

    def mentions(self, text: str) -> bool:
        """Return whether the summary has this text, in upper or lower case."""
        wanted = text.casefold()
        texts = (self.workflow_id, self.workflow, self.last_step, self.error, self.problem)
        more = (*texts, self.question, *self.forked_from)
        return any(wanted in one.casefold() for one in more if one)


def damaged(workflow_id: str, size: int, problem: str) -> RunSummary:
    """Return the summary of a run whose log cannot be read to its end."""
    return RunSummary(
        workflow_id, None, "damaged", None, None, None, None, 0, size, 0, problem=problem
    )


def start_in(events: Iterable[Event]) -> Event | None:
    """Return the start of a run among its first events."""
    return next((event for event in events if event.event_type == "workflow_start"), None)


def summarize(
    workflow_id: str,
    events: list[Event],
    older: Iterable[bytes],
    *,
    start: Event | None,
    seq: int,
    size: int,
    is_whole: bool,
    is_held: Callable[[], bool],
) -> RunSummary:
    """Return the summary of a run.

    :param events: its last ones, oldest first
    :param older: the lines before these, newest first; few are read
    :param start: of the run
    :param seq: of the last event
    :param size: of the log in bytes
    :param is_whole: whether ``events`` are all that it has
    :param is_held: whether a process executes it; asked if it has no end
    """
    step, ending, is_answered = _look_back(events, older)
    last = events[-1] if events else None
    steps = count_steps(events) if is_whole else None  # they are in memory
    return RunSummary(
        workflow_id=workflow_id,
        workflow=_text(_of_workflow(start, "name")),
        status="answered" if is_answered else _status(ending, is_held),
        started_ns=_time_ns(start),
        last_ns=_time_ns(last),
        last_step=_text(step.step_id) if step else None,
        last_step_event=step.event_type if step else None,
        seq=seq,
        size=size,
        execution=last.execution if last else 0,
        parent=_parent(start),
        forked_from=_forked_from(start),
        error=_error(ending),
        steps=None if steps is None else steps.begun,
        steps_done=None if steps is None else steps.done,
        question=None if ending is None else _text(ending.question),
        until_ns=_until_ns(ending),
    )


def _status(ending: Event | None, is_held: Callable[[], bool]) -> str:
    if ending is not None and ending.status is not UNSET:
        return ending.status
    return "running" if is_held() else "interrupted"


def _look_back(
    events: list[Event], older: Iterable[bytes]
) -> tuple[Event | None, Event | None, bool]:
    """Return the last step event, the end in force, and whether a pause was answered after it.

    Read no further back.
    """
    step = ending = None
    decided = is_answered = False
    for event in _backwards(events, older):
        if step is None and event.event_type.startswith("step_"):
            step = event
        if not decided:
            decided = _decides(event)
            is_answered = is_answered or event.answered is not UNSET
            ending = event if event.event_type == "workflow_end" else None
        if decided and step is not None:
            break
    is_paused = ending is not None and ending.status == "paused"
    return step, ending, is_paused and is_answered


def _backwards(events: list[Event], older: Iterable[bytes]) -> Iterator[Event]:
    yield from reversed(events)
    for line in older:
        if event_type_of(line).startswith(("step_", "workflow_")):
            try:
                yield decode(line)
            except ValueError:  # declared damage
                continue


def _decides(event: Event) -> bool:
    """Return whether this event tells that the run has ended, or that it has not.

    No step finishes after its run has ended, so that a long run need not be searched back to its
    start. (Steps left behind by a run may still fail. A late line may describe any time, and what a
    third-party executor left running is late once the run has ended.)
    """
    kind = event.event_type
    return (
        kind == "workflow_end"
        or kind in _BEGINNINGS
        or (kind == "step_finish" and event.late is not True)
    )


def _of_workflow(start: Event | None, field: str) -> object:
    return None if start is None or start.workflow is UNSET else start.workflow.get(field)


def _error(ending: Event | None) -> str | None:
    if ending is None or ending.error is UNSET:
        return None
    kind, message = (str(ending.error.get(key) or "")[:_ERROR] for key in ("type", "message"))
    return (f"{kind}: {message}" if kind and message else kind or message)[:_ERROR] or None


def _parent(start: Event | None) -> str | None:
    parent = _of_workflow(start, "parent")
    return _text(parent.get("workflow_id")) if isinstance(parent, dict) else None


def _forked_from(start: Event | None) -> tuple[str, ...]:
    match _of_workflow(start, "forked_from"):
        case str(workflow_id):
            return (workflow_id,)
        case {"workflow_id": str(workflow_id), **rest}:
            earlier = rest.get("ancestors")
            return (workflow_id, *map(str, earlier if isinstance(earlier, list) else ()))
    return ()


def _time_ns(event: Event | None) -> int | None:
    if event is None:
        return None
    try:
        return clock.parse_timestamp(event.timestamp)
    except ValueError:
        return None


def _until_ns(ending: Event | None) -> int | None:
    if ending is None or ending.status != "paused" or ending.until is UNSET:
        return None
    return clock.timestamp_ns(ending.until)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
