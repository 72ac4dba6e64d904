"""A run's history for people: what ran, when, how long, what failed, what is next. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from tapps_otel.log.event import readable
from tapps_otel.past.advice import unresolved_place
from tapps_otel.past.answer_schema import in_words
from tapps_otel.past.plan import not_run_again, open_steps, resume_points
from tapps_otel.report.lines import MARKS, Fact, Line, Piece
from tapps_otel.report.lost_parts import lost_parts
from tapps_otel.report.table import Column, table
from tapps_otel.report.text import counted, excerpt, few, json_text, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tapps_otel.past.fold import Annotation, ChildRun, Gate, Locked, RunHistory, StepHistory
    from tapps_otel.report.table import Row

__all__ = [
    "as_json",
    "child_runs",
    "error_text",
    "gate_text",
    "innermost",
    "mark",
    "outlook",
    "remarks",
    "status_text",
    "step_json",
]

_LONG: Final = 300  # columns of what a question expects
_NAME: Final = 200  # columns of a name in a sentence
_STATUS: Final = 40  # columns
_REMARKS: Final = (Column(), Column(least=12), Column(rank=1), Column(least=12))


def mark(status: str) -> Piece:
    """Return the sign of a status; ``·`` for an unknown one."""
    text, style = MARKS.get(status, ("·", ""))
    return Piece(text, style)


def gate_text(gate: Gate) -> str:
    """Return the result of a gate, on one line."""
    score = "" if gate.score is None else f" with {gate.score:g}"
    reasons = f": {'; '.join(gate.reasons)}" if gate.reasons else ""
    return plain(f"gate {'passed' if gate.passed else 'failed'}{score}{reasons}")


def status_text(status: str) -> str:
    """Return a status in words for people."""
    return "in progress" if status == "running" else excerpt(status, _STATUS)


def error_text(error: dict[str, Any], *, most: int | None = None) -> str:
    """Return the type and message of a recorded error, on one line.

    :param most: characters of each that are used; ``None``: all
    """
    message = str(error.get("message") or "")[:most]
    name = str(error.get("type") or "error")[:most]
    if name == "interrupted":  # a word of the log format, not a class
        return plain(message)
    return plain(f"{name}: {message}" if message else name)


# -- what else is worth knowing


def remarks(history: RunHistory, *, most: int | None = None, wide: int | None = None) -> list[Line]:
    """List annotations.

    :param most: the number of the last that are shown; ``None``: all, with all their attributes
    :param wide: columns of the terminal, if it is one
    """
    notes = history.annotations
    left_out = 0 if most is None else max(0, len(notes) - most)
    rows = [_remark(note, whole=most is None) for note in notes[left_out:]]
    lines = table(_REMARKS, rows, wide=None if most is None else wide)
    if left_out:
        lines.insert(0, Line.of((f"note  {left_out} earlier ones: --verbose shows them", "dim")))
    return lines


def _remark(note: Annotation, *, whole: bool) -> Row:
    where = f" in {excerpt(note.step_id, _NAME)}" if note.step_id else ""
    words = " ".join(f"{plain(key)}={_value(one)}" for key, one in note.attributes.items())
    return [
        Piece("note", "dim"),
        Piece(f"{excerpt(note.name, _NAME)}{where}"),
        Piece(f"seq {note.seq}", "dim"),
        Piece(words if whole else excerpt(words, _NAME)),
    ]


def outlook(
    history: RunHistory, holder: tuple[int | None, str | None] | None, *, kept: int = 0
) -> Iterator[Fact]:
    """Yield what is unfinished, and where a resume would continue.

    :param holder: process and host that are executing the run, if any
    :param kept: steps that a resume does not run again, besides those in the history
    """
    is_open = _names(innermost([one for one in open_steps(history) if not one.waits]))
    if is_open:
        yield "open", few(is_open), ""
    for step in history.waiting:
        yield "waits", f"{excerpt(step.step_id, _NAME)}: {wait_text(step)}", "warn"
    if history.status in {"completed", "damaged"}:
        return
    if holder is not None:
        pid, host = holder
        yield "now", plain(f"in progress in process {pid or '?'} on {host or '?'}"), ""
    elif history.executions:
        yield "resume", _resume(history, kept), ""
    elif history.by_id:
        yield "resume", "not possible: the run's start is not in the log", "warn"
    else:
        yield "resume", "starts at the beginning: no step has begun", ""


def _resume(history: RunHistory, kept: int) -> str:
    unresolved = unresolved_place(history)
    if not history.resumable:
        return "not possible: the run was only observed, by its spans"
    if unresolved is not None:
        return f"refused until {excerpt(unresolved, _NAME)} is resolved"
    if history.workflow.get("executor") == "langgraph":  # its checkpoints say what runs again
        return "where its executor decides"
    if history.status == "paused" and history.waiting:
        return "refused until there is an answer, or a time has come"
    kept += sum(not_run_again(step, foreign=history.foreign) for step in history.by_id.values())
    again = _names(innermost(resume_points(history)))
    text = f"continues at {few(again)}" if again else "continues after the last step"
    return text + (f"; {counted(kept, 'completed step')} will not run again" if kept else "")


def wait_text(step: StepHistory) -> str:
    """Describe what a pause waits for: its question, what may answer it, and until when."""
    pause = step.pause
    if pause is None:
        return ""
    words = plain(pause.question) if pause.question is not None else "a time"
    expected = in_words(pause.schema)
    if pause.question is not None and expected:
        words += f" ({excerpt(expected, _LONG)})"
    return words if pause.until is None else f"{words}, until {excerpt(pause.until, _NAME)}"


def answered_text(answered: Mapping[str, Any]) -> str:
    """Describe who answered a question, and from where."""
    by, host = answered.get("by"), answered.get("host")
    return f"answered by {excerpt(str(by), _NAME)} on {excerpt(str(host), _NAME)}"


def _names(steps: list[StepHistory]) -> list[str]:
    return [excerpt(step.step_id, _NAME) for step in steps]


def child_runs(history: RunHistory) -> list[ChildRun]:
    """Return the runs that the run's steps called; those first that have not completed."""
    called = [step for step in history.steps if step.child is not None]
    called.sort(key=lambda step: step.status == "completed")
    return list(dict.fromkeys(step.child for step in called if step.child is not None))


def innermost(steps: Sequence[StepHistory]) -> list[StepHistory]:
    """Return the steps that enclose none of the others."""
    outer = {step.parent for step in steps}
    return [step for step in steps if step.step_id not in outer]


# -- for programs


def as_json(
    history: RunHistory, accepts: Callable[[StepHistory], bool] = lambda _: True
) -> dict[str, Any]:
    """Convert the history to JSON values; stored values are decoded.

    :param accepts: whether a step is listed
    """
    return {
        "workflow_id": history.workflow_id,
        "workflow": history.workflow,
        "parent": None if history.parent is None else msgspec.to_builtins(history.parent),
        "forked_from": None
        if history.forked_from is None
        else msgspec.to_builtins(history.forked_from),
        "status": history.status,
        "trace_id": history.trace_id,
        "inputs": _loaded(history.inputs),
        "inputs_blob": history.inputs_blob,
        "result": _loaded(history.result_json),
        "result_blob": history.result_blob,
        "result_omitted": history.result_omitted,
        "inputs_locked": _locked(history.inputs_locked),
        "result_locked": _locked(history.result_locked),
        "error_locked": _locked(history.error_locked),
        "error": history.error,
        "reason": history.reason,
        "ended_by": history.ended_by,
        "question": history.question,
        "executions": [msgspec.to_builtins(one) for one in history.executions],
        "steps": [step_json(step) for step in history.steps if accepts(step)],
        "open": [step.step_id for step in open_steps(history) if not step.waits],
        "waiting": [step.step_id for step in history.waiting],
        "usage": msgspec.to_builtins(history.usage),
        "goes_on_at": [] if history.status == "completed" else _goes_on(history),
        "annotations": [msgspec.to_builtins(one) for one in history.annotations],
        "repairs": history.repairs,
        "dropped": history.dropped,
        "seq": history.seq,
        "last_timestamp": history.last_timestamp,
    }


def _goes_on(history: RunHistory) -> list[str]:
    return [step.step_id for step in resume_points(history)]


def step_json(step: StepHistory) -> dict[str, Any]:
    """Convert the history of a step to JSON values."""
    return {
        "step_id": step.step_id,
        "name": step.name,
        "agent": step.agent,
        "action": step.action,
        "status": step.status,
        "key": step.key,
        "inputs_digest": step.inputs_digest,
        "definition": step.definition,
        "child": None if step.child is None else msgspec.to_builtins(step.child),
        "inputs": _loaded(step.inputs),
        "result": _loaded(step.result),
        "result_blob": step.result_blob,
        "result_omitted": step.result_omitted,
        "inputs_locked": _locked(step.inputs_locked),
        "result_locked": _locked(step.result_locked),
        "handled": step.handled,
        "lost": lost_parts(step),
        "resolved": step.resolved,
        "pause": None if step.pause is None else msgspec.to_builtins(step.pause),
        "answered": step.answered,
        "usage": msgspec.to_builtins(step.usage),
        "attempts": [msgspec.to_builtins(one) for one in step.attempts],
    }


def _locked(locked: Locked | None) -> dict[str, Any] | None:
    return None if locked is None else msgspec.to_builtins(locked)


def _loaded(data: bytes | None) -> Any:
    return None if data is None else readable(data)


def _value(value: object) -> str:
    return plain(value) if isinstance(value, str) else json_text(value)
