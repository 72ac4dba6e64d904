"""A run's history for people: what ran, when, how long, what failed, what is next. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tapps_otel.log.event import readable
from tapps_otel.names import log_name
from tapps_otel.past.advice import Advice, how_to_resume
from tapps_otel.past.plan import open_steps, resume_points
from tapps_otel.report.lines import (
    MARKS,
    Line,
    Piece,
    clock_time,
    columns,
    day_time,
    labelled,
    took,
)
from tapps_otel.report.lost_parts import lost_parts
from tapps_otel.report.text import counted, few, json_text, plain, shorten, width

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.past.fold import (
        AttemptHistory,
        ChildRun,
        ExecutionHistory,
        Gate,
        RunHistory,
        StepHistory,
    )

__all__ = [
    "as_json",
    "child_runs",
    "error_text",
    "gate_text",
    "header",
    "mark",
    "next_steps",
    "outlook",
    "remarks",
    "step_lines",
]

# Refusals that a resume would meet again, and what `resolve` can settle them with.
_RESOLVABLE: Final = {
    # The result first: whoever copies the first line must not make the step do its work twice.
    "StepInterruptedError": ("--result JSON", "--rerun"),
    "InterruptedTooOftenError": ("--result JSON", "--rerun"),
    "FailureDetailError": ("--result JSON", "--rerun"),
    "StoredResultError": ("--rerun",),
}


def mark(status: str) -> Piece:
    """Return the sign of a status; ``·`` for an unknown one."""
    text, style = MARKS.get(status, ("·", ""))
    return Piece(text, style)


# -- the head of the report


def header(history: RunHistory, *, columns_wide: int | None = None) -> list[Line]:
    """Describe the run and its status.

    :param columns_wide: columns that inputs and result are shortened to; ``None``: not at all
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
    if history.types:
        rows.append(("type", plain(", then ".join(history.types)), "warn"))
    if history.parent is not None:
        step_id, run = plain(history.parent.step_id), plain(history.parent.workflow_id)
        rows.append(("called by", f"step {step_id} of run {run}", ""))
    for name, data, blob in (
        ("inputs", history.inputs, history.inputs_blob),
        ("result", history.result_json, history.result_blob),
    ):
        shown = _json(data, blob)
        if shown is not None:
            rows.append((name, shown, ""))
    if history.question is not None:
        rows.append(("asks", plain(history.question), "warn"))
    if history.error is not None:
        rows.append(("error", error_text(history.error), "bad"))
    if history.trace_id:
        rows.append(("trace", plain(history.trace_id), ""))
    return [labelled(label, _cut(text, columns_wide, 10), style) for label, text, style in rows]


def _status_text(history: RunHistory) -> str:
    count = len(history.executions)
    if not count:
        return "not begun"
    return plain(history.status) + (f", after {counted(count, 'execution')}" if count > 1 else "")


def execution_lines(history: RunHistory) -> list[Line]:
    """List the executions: when each began, how long it took, how it ended, in which process."""
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
    """List the steps, nested ones under their parent; a retried step with its attempts."""
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
    if step.child is not None:
        notes.append(f"run {plain(step.child.workflow_id)}")
    if step.agent:
        notes.append(plain(step.agent))
    if len(step.attempts) > 1:
        notes.append(counted(len(step.attempts), "attempt"))
    if step.status != "completed":
        notes.append("open" if not last.end_seq else plain(step.status))
    if step.resolved:
        notes.append("result given by resolve" if step.stored else "will run again, by resolve")
    if step.handled:
        notes.append("handled")
    if last.reason:
        notes.append(plain(last.reason))
    if last.question:
        notes.append(f"asks {plain(last.question)}")
    if step.result_omitted:  # it is empty if there was no result
        notes.append(f"result not stored: {plain(step.result_omitted)}")
    notes += [f"made {plain(one.get('path') or one.get('name'))}" for one in last.artifacts]
    if len(step.attempts) == 1 and last.error is not None and last.status != "interrupted":
        notes.append(error_text(last.error))
    if last.gate is not None:
        notes.append(gate_text(last.gate))
    return ", ".join(notes), _note_style(step)


def _note_style(step: StepHistory) -> str:
    if step.status != "completed":
        return mark(step.status).style
    gate = step.last.gate
    return "dim" if gate is None or gate.passed else "warn"


def _attempt_row(attempt: AttemptHistory, depth: int) -> list[Line | Piece]:
    notes = [f"execution {attempt.execution}"]
    notes.append(plain(attempt.status) if attempt.end_seq else "open")
    if attempt.error is not None and attempt.status != "interrupted":
        notes.append(error_text(attempt.error))
    if attempt.gate is not None:
        notes.append(gate_text(attempt.gate))
    if attempt.retry_in_ns is not None:
        notes.append(f"retry after {took(attempt.retry_in_ns)}")
    return [
        Piece("  " * (depth + 1) + f"  attempt {attempt.number}", "dim"),
        Piece(clock_time(attempt.started_ns), "dim"),
        Piece(_took(attempt), "dim"),
        Piece(", ".join(notes), mark(attempt.status).style or "dim"),
    ]


def _took(attempt: AttemptHistory) -> str:
    return took(attempt.duration_ns) if attempt.end_seq else "..."


def gate_text(gate: Gate) -> str:
    """Return the result of a gate, on one line."""
    score = "" if gate.score is None else f" with {gate.score:g}"
    reasons = f": {'; '.join(gate.reasons)}" if gate.reasons else ""
    return plain(f"gate {'passed' if gate.passed else 'failed'}{score}{reasons}")


def error_text(error: dict[str, Any]) -> str:
    """Return the type and message of a recorded error, on one line."""
    message = str(error.get("message") or "")
    name = str(error.get("type") or "error")
    if name == "interrupted":  # a word of the log format, not a class
        return plain(message)
    return plain(f"{name}: {message}" if message else name)


# -- what else is worth knowing


def remarks(history: RunHistory) -> list[Line]:
    """List annotations, repairs, and events that could not be written."""
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
        text = (
            f"{counted(history.repairs, 'torn or damaged region')} declared in the log: see verify"
        )
        lines.append(Line.of((f"repairs   {text}", "warn")))
    if history.dropped:
        text = f"{counted(history.dropped, 'event')} could not be written and were dropped"
        lines.append(Line.of((f"gap       {text}", "warn")))
    return lines


def outlook(history: RunHistory, holder: tuple[int | None, str | None] | None) -> list[Line]:
    """Describe what is unfinished, and where a resume would continue.

    :param holder: process and host that are executing the run, if any
    """
    lines = []
    is_open = [plain(step.step_id) for step in _innermost(open_steps(history))]
    if is_open:
        lines.append(labelled("open", few(is_open)))
    if history.status == "completed":
        return lines
    if holder is not None:
        pid, host = holder
        text = plain(f"in progress in process {pid or '?'} on {host or '?'}")
        return [*lines, labelled("now", text)]
    if not history.executions:
        return [*lines, labelled("resume", "starts at the beginning: no step has begun")]
    unresolved = _unresolved_place(history)
    if unresolved is not None:
        return [*lines, labelled("resume", f"refused until {plain(unresolved)} is resolved")]
    done = sum(_is_done(step, history) for step in history.steps)
    again = [plain(step.step_id) for step in _innermost(resume_points(history))]
    text = f"continues at {few(again)}" if again else "continues after the last step"
    text += f"; {counted(done, 'completed step')} will not run again" if done else ""
    return [*lines, labelled("resume", text)]


def _is_done(step: StepHistory, history: RunHistory) -> bool:
    return step.stored or (history.foreign and step.status == "completed")


def next_steps(history: RunHistory) -> list[Advice]:
    """Return what to do next, or what to choose from."""
    if history.status == "completed" or not history.executions:
        return []
    child = _refusing(history)
    if child is not None:
        return [_to_show(child)]
    step = _unresolved(history)
    if step is None:
        return [how_to_resume(history.workflow_id, history.workflow)]
    settle = f"resolve {log_name(history.workflow_id)} {shlex.quote(step.step_id)}"
    return [Advice(f"{settle} {how}") for how in _RESOLVABLE[_refusal(history)]]


def _refusing(history: RunHistory) -> ChildRun | None:
    """Return the child run in which a step must be resolved before the run can continue."""
    if _refusal(history) not in _RESOLVABLE:
        return None
    message = (history.error or {}).get("message")  # which names the run, too
    failed = (step for step in history.steps if (step.last.error or {}).get("message") == message)
    return next((step.child for step in failed if step.child is not None), None)


def _to_show(child: ChildRun) -> Advice:
    text = f"show {shlex.quote(child.workflow_id)}"
    if child.log_dir is None:
        return Advice(text)
    return Advice(f"tapps-otel {text} --log-dir {shlex.quote(child.log_dir)}", is_command=False)


def _unresolved_place(history: RunHistory) -> str | None:
    """Return in words what must be resolved before the run can continue."""
    child, step = _refusing(history), _unresolved(history)
    if child is not None:
        return f"a step of run {child.workflow_id}"
    return None if step is None else step.step_id


def _unresolved(history: RunHistory) -> StepHistory | None:
    """Return the step that must be resolved before the run can continue."""
    attributes = (history.error or {}).get("attributes")
    if _refusal(history) not in _RESOLVABLE or not isinstance(attributes, dict):
        return None
    step = history.by_id.get(str(attributes.get("step_id")))
    return None if step is None or step.resolved else step


def _refusal(history: RunHistory) -> str:
    """Return the class of the error that ended the run; of this package, without the module."""
    return str((history.error or {}).get("type", "")).removeprefix("tapps_otel.errors.")


def child_runs(history: RunHistory) -> list[ChildRun]:
    """Return the runs that the run's steps called; those first that have not completed."""
    called = [step for step in history.steps if step.child is not None]
    called.sort(key=lambda step: step.status == "completed")
    return list(dict.fromkeys(step.child for step in called if step.child is not None))


def _innermost(steps: list[StepHistory]) -> list[StepHistory]:
    """Return the steps that enclose none of the others."""
    outer = {step.parent for step in steps}
    return [step for step in steps if step.step_id not in outer]


# -- for programs


def as_json(history: RunHistory) -> dict[str, Any]:
    """Convert the history to JSON values; stored values are decoded."""
    return {
        "workflow_id": history.workflow_id,
        "workflow": history.workflow,
        "parent": None if history.parent is None else msgspec.to_builtins(history.parent),
        "status": history.status,
        "trace_id": history.trace_id,
        "inputs": _loaded(history.inputs),
        "inputs_blob": history.inputs_blob,
        "result": _loaded(history.result_json),
        "result_blob": history.result_blob,
        "error": history.error,
        "question": history.question,
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
        "child": None if step.child is None else msgspec.to_builtins(step.child),
        "inputs": _loaded(step.inputs),
        "result": _loaded(step.result),
        "result_blob": step.result_blob,
        "result_omitted": step.result_omitted,
        "handled": step.handled,
        "lost": lost_parts(step),
        "resolved": step.resolved,
        "attempts": [msgspec.to_builtins(one) for one in step.attempts],
    }


def _loaded(data: bytes | None) -> Any:
    return None if data is None else readable(data)


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
