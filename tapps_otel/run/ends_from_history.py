"""Events about a step that are made from its history, by code that did not execute it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Raw

from tapps_otel import clock
from tapps_otel.log.event import Event

if TYPE_CHECKING:
    from tapps_otel.past.fold import RunHistory, StepHistory

__all__ = ["answer_to", "cancelled", "due", "event_of", "given_up", "no_answer", "type_changed"]


def event_of(
    history: RunHistory,
    step: StepHistory,
    event_type: str,
    *,
    at: str,
    execution: int,
    number: int | None = None,
    span_id: str | None = None,
) -> Event:
    """An event about an attempt of a step.

    :param at: its time
    :param execution: that it belongs to
    :param number: of the attempt; by default, the last one
    :param span_id: of the attempt
    """
    last = step.last
    return Event(
        event_type=event_type,
        workflow_id=history.workflow_id,
        timestamp=at,
        trace_id=history.trace_id or UNSET,
        span_id=span_id or last.span_id or UNSET,
        parent_span_id=_parent_span_id(history, step) or UNSET,
        execution=execution,
        step_id=step.step_id,
        step=step.name,
        agent=step.agent,
        action=step.action,
        attempt=last.number if number is None else number,
        late=True,
    )


def _parent_span_id(history: RunHistory, step: StepHistory) -> str | None:
    """Of the scope in which the last attempt began: the run's execution, or the attempt around."""
    outer, last = history.by_id.get(step.parent or ""), step.last
    if outer is not None:
        began = [one for one in outer.attempts if one.start_seq < last.start_seq]
        return (began[-1] if began else outer.last).span_id
    found = [one for one in history.executions if one.number == last.execution]
    return found[0].span_id if found else None


def answer_to(history: RunHistory, step: StepHistory, answered: dict[str, Any]) -> Event:
    """The end of a pause that was answered; its result is still to be put into it.

    :param answered: who answers, and from where
    """
    event = _pause_end(history, step, "step_finish")
    event.status, event.answered = "completed", answered
    return event


def due(history: RunHistory, step: StepHistory) -> Event:
    """The end of a pause whose time has come: a timer completes, a question is skipped."""
    pause = step.pause
    assert pause is not None  # noqa: S101 - for the type checker: the step is a pause
    if pause.question is None:
        event = _pause_end(history, step, "step_finish")
        event.status = "completed"
    else:
        event = _pause_end(history, step, "step_skip")
        event.status, event.reason = "skipped", no_answer(pause.until)
    event.result = Raw(b"null")
    return event


def no_answer(until: str | None) -> str:
    """The reason for the end of a question without an answer."""
    return f"no answer until {until}"


def given_up(history: RunHistory, step: StepHistory) -> Event:
    """The end of a pause that its run no longer waits for."""
    return _pause_cancelled(history, step, "the run has completed without asking again")


def type_changed(history: RunHistory, step: StepHistory) -> Event:
    """The end of a question that is asked anew, with another type of answer."""
    return _pause_cancelled(history, step, "the type of its answer has changed")


def _pause_cancelled(history: RunHistory, step: StepHistory, why: str) -> Event:
    event = _pause_end(history, step, "step_fail")
    event.status = "cancelled"
    event.error = {"type": "cancelled", "message": why, "stack": None}
    return event


def cancelled(history: RunHistory, step: StepHistory) -> Event:
    """The end of a step that was open when its run was cancelled."""
    if step.waits:
        return _pause_cancelled(history, step, "the run was cancelled")
    # Its process is dead: it ended with the last sign of life, and what it did is not known.
    last = history.executions[-1]
    at = max(last.last_timestamp, step.last.timestamp)
    event = event_of(history, step, "step_fail", at=at, execution=last.number + 1)
    event.duration_ns = max(0, clock.timestamp_ns(at) - step.last.started_ns)
    event.status = "interrupted"
    event.error = {"type": "interrupted", "message": "the run was cancelled", "stack": None}
    return event


def _pause_end(history: RunHistory, step: StepHistory, event_type: str) -> Event:
    """The end of a pause, now. It belongs to the execution before: that is when it waited."""
    started, before = step.last.started_ns, history.executions[-1].number
    now = max(clock.time_ns(), started)  # another machine's clock may be behind
    event = event_of(history, step, event_type, at=clock.timestamp(now), execution=before)
    event.duration_ns = now - started
    return event
