"""A run's history for people: what ran, when, how long, what failed, where it would go on. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from tapps_otel.past.plan import open_steps, resume_points
from tapps_otel.report.lines import MARKS, Line, Piece, clock_time, columns, day_time, took
from tapps_otel.report.text import few, json_text, plain, shorten, width

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.past.fold import AttemptHistory, ExecutionHistory, RunHistory, StepHistory

__all__ = [
    "as_json",
    "error_text",
    "header",
    "mark",
    "next_step",
    "outlook",
    "remarks",
    "step_lines",
]

_RESOLVABLE: Final = ("StepInterruptedError", "InterruptedTooOftenError")


def mark(status: str) -> Piece:
    """The sign of a status; ``·`` for a word that is not ours."""
    text, style = MARKS.get(status, ("·", ""))
    return Piece(text, style)


# -- the head of the report


def header(history: RunHistory, *, columns_wide: int | None = None) -> list[Line]:
    """What the run is, and how it stands.

    :param columns_wide: inputs and result are cut to that; ``None``: they are whole
    """
    about = history.workflow
    path = about.get("path") or ", ".join(
        str(about[name]) for name in ("executor", "source") if about.get(name)
    )
    rows = [
        ("run", plain(history.workflow_id), "strong"),
        ("workflow", (plain(history.name) or "-") + (f" ({plain(path)})" if path else ""), ""),
        ("status", _status_text(history), mark(history.status).style),
    ]
    for name, data, blob in (
        ("inputs", history.inputs, history.inputs_blob),
        ("result", history.result_json, history.result_blob),
    ):
        shown = _json(data, blob)
        if shown is not None:
            rows.append((name, shown, ""))
    if history.error is not None:
        rows.append(("error", error_text(history.error), "bad"))
    if history.trace_id:
        rows.append(("trace", plain(history.trace_id), ""))
    return [
        Line.of((f"{label:<10}", "dim"), (_cut(text, columns_wide, 10), style))
        for label, text, style in rows
    ]


def _status_text(history: RunHistory) -> str:
    count = len(history.executions)
    if not count:
        return "not begun"
    return plain(history.status) + (f", after {count} executions" if count > 1 else "")


def execution_lines(history: RunHistory) -> list[Line]:
    """Every execution: when it began, how long it took, how it ended, in which process."""
    return columns(_execution_rows(history))


def _execution_rows(history: RunHistory) -> Iterator[list[Line | Piece]]:
    for execution in history.executions:
        yield [
            Line([mark(execution.status), Piece(f" execution {execution.number}")]),
            Piece(day_time(execution.started_ns) + " UTC"),
            Piece(took(_duration(execution, history))),
            Piece(plain(execution.status), mark(execution.status).style),
            Piece(_process(execution), "dim"),
        ]


def _duration(execution: ExecutionHistory, history: RunHistory) -> int | None:
    if execution.duration_ns is not None:
        return execution.duration_ns
    last = [
        attempt.started_ns + (attempt.duration_ns or 0)
        for step in history.steps
        for attempt in step.attempts
        if attempt.execution == execution.number
    ]
    return max(0, max(last) - execution.started_ns) if last else None


def _process(execution: ExecutionHistory) -> str:
    process = execution.process
    pid, host = process.get("pid"), process.get("host")
    return "" if pid is None else plain(f"process {pid} on {host}")


# -- the steps


def step_lines(history: RunHistory) -> list[Line]:
    """Every step, those inside a step under it; a step that was tried again, try by try."""
    return columns(_step_rows(history), indent=2)


def _step_rows(history: RunHistory) -> Iterator[list[Line | Piece]]:
    inside: dict[str | None, list[StepHistory]] = {}
    for step in history.steps:
        known = step.parent if step.parent in history.by_id else None
        inside.setdefault(known, []).append(step)
    waiting = [(0, step) for step in reversed(inside.get(None, ()))]
    while waiting:
        depth, step = waiting.pop()
        yield _step_row(step, depth)
        if len(step.attempts) > 1:
            yield from (_attempt_row(attempt, depth) for attempt in step.attempts)
        below = inside.get(step.step_id, ())
        waiting += [(depth + 1, one) for one in reversed(below)]


def _step_row(step: StepHistory, depth: int) -> list[Line | Piece]:
    last = step.last
    name = plain(step.step_id.rpartition("/")[2]) or "''"
    return [
        Line([Piece("  " * depth), mark(step.status), Piece(f" {name}")]),
        Piece(clock_time(last.started_ns), "dim"),
        Piece(_took(last)),
        Piece(*_step_note(step)),
    ]


def _step_note(step: StepHistory) -> tuple[str, str]:
    last, notes = step.last, []
    if step.agent:
        notes.append(plain(step.agent))
    if len(step.attempts) > 1:
        notes.append(f"{len(step.attempts)} attempts")
    if step.status != "completed":
        notes.append("open" if not last.end_seq else plain(step.status))
    if step.resolved:
        notes.append("result given by a person" if step.stored else "will run again, a person said")
    if step.handled:
        notes.append("handled")
    if last.reason:
        notes.append(plain(last.reason))
    if step.result_omitted:  # empty: there never was one to keep
        notes.append(f"no result kept: {plain(step.result_omitted)}")
    notes += [f"made {plain(one.get('path') or one.get('name'))}" for one in last.artifacts]
    if len(step.attempts) == 1 and last.error is not None and last.status != "interrupted":
        notes.append(error_text(last.error))
    return ", ".join(notes), mark(step.status).style if step.status != "completed" else "dim"


def _attempt_row(attempt: AttemptHistory, depth: int) -> list[Line | Piece]:
    notes = [f"execution {attempt.execution}"]
    notes.append(plain(attempt.status) if attempt.end_seq else "open")
    if attempt.error is not None and attempt.status != "interrupted":
        notes.append(error_text(attempt.error))
    if attempt.retry_in_ns is not None:
        notes.append(f"next try after {took(attempt.retry_in_ns)}")
    return [
        Piece("  " * (depth + 1) + f"  attempt {attempt.number}", "dim"),
        Piece(clock_time(attempt.started_ns), "dim"),
        Piece(_took(attempt), "dim"),
        Piece(", ".join(notes), mark(attempt.status).style or "dim"),
    ]


def _took(attempt: AttemptHistory) -> str:
    return took(attempt.duration_ns) if attempt.end_seq else "..."


def error_text(error: dict[str, Any]) -> str:
    """Type and message of a recorded error, on one line."""
    message = str(error.get("message") or "")
    name = str(error.get("type") or "error")
    if name == "interrupted":  # not a class: the library's own word
        return plain(message)
    return plain(f"{name}: {message}" if message else name)


# -- what else is worth saying


def remarks(history: RunHistory) -> list[Line]:
    """Annotations in order, repairs, and events that could not be written."""
    rows = []
    for note in history.annotations:
        where = f" in {plain(note.step_id)}" if note.step_id else ""
        words = " ".join(f"{plain(key)}={_value(one)}" for key, one in note.attributes.items())
        rows.append(
            [
                Piece("note", "dim"),
                Piece(f"{plain(note.name)}{where}"),
                Piece(f"seq {note.seq}", "dim"),
                Piece(words),
            ]
        )
    lines = columns(rows)
    if history.repairs:
        text = f"{history.repairs} torn or damaged place{'s' * (history.repairs > 1)} declared"
        lines.append(Line.of((f"repairs   {text} in the log: see verify", "warn")))
    if history.dropped:
        text = f"{history.dropped} events could not be written and were left out"
        lines.append(Line.of((f"gap       {text}", "warn")))
    return lines


def outlook(history: RunHistory, holder: tuple[int | None, str | None] | None) -> list[Line]:
    """What is open, and where a resume would go on.

    :param holder: who carries the run on at this moment, if anybody does
    """
    lines = []
    is_open = [plain(step.step_id) for step in _innermost(open_steps(history))]
    if is_open:
        lines.append(_outlook_line("open", few(is_open)))
    if history.status == "completed":
        return lines
    if holder is not None:
        pid, host = holder
        text = plain(f"process {pid or '?'} on {host or '?'} carries it on")
        return [*lines, _outlook_line("now", text)]
    if not history.executions:
        return [*lines, _outlook_line("goes on", "at the beginning: nothing was begun")]
    done = sum(_is_done(step, history) for step in history.steps)
    again = [plain(step.step_id) for step in _innermost(resume_points(history))]
    text = f"at {few(again)}" if again else "with what follows the last step"
    steps = f"{done} finished step{'s' * (done != 1)}"
    text += f"; {steps} will not run again" if done else ""
    return [*lines, _outlook_line("goes on", text)]


def _is_done(step: StepHistory, history: RunHistory) -> bool:
    return step.stored or (history.foreign and step.status == "completed")


def _outlook_line(label: str, text: str) -> Line:
    return Line.of((f"{label:<10}", "dim"), text)


def next_step(history: RunHistory) -> str | None:
    """The arguments of the command to type next; ``None`` where there is nothing to do.

    :returns: as ``resume ID``, made safe
    """
    if history.status == "completed" or not history.executions:
        return None
    error = history.error or {}
    stuck = [step for step in history.steps if step.status == "interrupted" and not step.resolved]
    if stuck and str(error.get("type", "")).endswith(_RESOLVABLE):
        named = [step for step in stuck if repr(step.step_id) in str(error.get("message", ""))]
        step_id = plain((named or stuck)[0].step_id)
        return f"resolve {plain(history.workflow_id)} '{step_id}' --rerun"
    return f"resume {plain(history.workflow_id)}"


def _innermost(steps: list[StepHistory]) -> list[StepHistory]:
    """Those that enclose none of the others."""
    outer = {step.parent for step in steps}
    return [step for step in steps if step.step_id not in outer]


# -- for programs


def as_json(history: RunHistory) -> dict[str, Any]:
    """The history as JSON values; stored values are the values themselves."""
    return {
        "workflow_id": history.workflow_id,
        "workflow": history.workflow,
        "status": history.status,
        "trace_id": history.trace_id,
        "inputs": _loaded(history.inputs),
        "inputs_blob": history.inputs_blob,
        "result": _loaded(history.result_json),
        "result_blob": history.result_blob,
        "error": history.error,
        "executions": [msgspec.to_builtins(one) for one in history.executions],
        "steps": [_step_json(step) for step in history.steps],
        "open": [step.step_id for step in open_steps(history)],
        "goes_on_at": [] if history.status == "completed" else _goes_on(history),
        "annotations": [msgspec.to_builtins(one) for one in history.annotations],
        "repairs": history.repairs,
        "dropped": history.dropped,
        "seq": history.seq,
        "last_timestamp": history.last_timestamp,
    }


def _goes_on(history: RunHistory) -> list[str]:
    return [step.step_id for step in resume_points(history)]


def _step_json(step: StepHistory) -> dict[str, Any]:
    return {
        "step_id": step.step_id,
        "name": step.name,
        "agent": step.agent,
        "action": step.action,
        "status": step.status,
        "key": step.key,
        "inputs_digest": step.inputs_digest,
        "definition": step.definition,
        "inputs": _loaded(step.inputs),
        "result": _loaded(step.result),
        "result_blob": step.result_blob,
        "result_omitted": step.result_omitted,
        "handled": step.handled,
        "resolved": step.resolved,
        "attempts": [msgspec.to_builtins(one) for one in step.attempts],
    }


def _loaded(data: bytes | None) -> Any:
    import json  # takes what the fast decoder refuses: lone surrogates

    return None if data is None else json.loads(data)


def _json(data: bytes | None, blob: str | None) -> str | None:
    if blob is not None:
        return f"(large: {plain(blob)})"
    return None if data in {None, b"null", b"{}"} else json_text(_loaded(data))


def _value(value: object) -> str:
    return plain(value) if isinstance(value, str) else json_text(value)


def _cut(text: str, columns_wide: int | None, used: int) -> str:
    if columns_wide is None or width(text) <= columns_wide - used:
        return text
    return shorten(text, max(20, columns_wide - used))
