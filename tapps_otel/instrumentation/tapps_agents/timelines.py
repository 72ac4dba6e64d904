"""tapps-agents' project timeline, made from the log: also of a failed or a killed run. Pure.

The shape is that of its ``timeline.generate_timeline`` and ``format_timeline_markdown``, so that
whatever reads those can read these. In addition, every attempt of a step is a row, and so is a
skipped step; a step with a gate has the result of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tapps_otel.instrumentation.tapps_agents.states import (
    ended_ns,
    error_message,
    local_time,
    seconds,
)
from tapps_otel.report.history import gate_text
from tapps_otel.report.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tapps_otel.past.fold import AttemptHistory, RunHistory, StepHistory

__all__ = ["timeline_markdown", "timeline_of"]

_MARKS: Final = {
    "completed": "✅",
    "failed": "❌",
    "skipped": "⏭️",
    "running": "🔄",
    # tapps-agents has no signs for these.
    "timeout": "⏱️",
    "interrupted": "⚡",
    "cancelled": "🚫",
}
_ALWAYS_COUNTED: Final = frozenset({"completed", "failed", "skipped"})
_FAILED: Final = frozenset({"failed", "timeout"})
_ESCAPED: Final = str.maketrans({"|": r"\|", "<": "&lt;", "[": r"\[", "`": r"\`"})


def timeline_of(history: RunHistory) -> dict[str, Any]:
    """The timeline of a run: when it started and ended, and every attempt of every step.

    Times are local and have no zone, as tapps-agents' own; durations are in seconds.
    """
    started = history.executions[0].started_ns if history.executions else 0
    ended = None
    if history.status == "completed":
        ended = max(
            (ended_ns(one) for step in history.steps for one in step.attempts), default=None
        )
    duration = None if ended is None else seconds(ended - started)
    rows = [row for step in history.steps if step.parent is None for row in _rows(step)]
    return {
        "workflow_id": history.workflow_id,
        "workflow_name": history.name,
        "started_at": local_time(started).isoformat(),
        "completed_at": None if ended is None else local_time(ended).isoformat(),
        "total_duration_seconds": duration,
        "total_duration_formatted": _duration(duration),
        "status": history.status,
        "steps": sorted(rows, key=lambda row: str(row["started_at"])),
    }


def _rows(step: StepHistory) -> Iterator[dict[str, Any]]:
    for attempt in step.attempts:
        duration = seconds(attempt.duration_ns)
        ended = local_time(ended_ns(attempt)).isoformat() if attempt.end_seq else None
        yield {
            "step_id": step.name,
            "agent": step.agent or "",
            "action": step.action or "",
            "started_at": local_time(attempt.started_ns).isoformat(),
            "completed_at": ended,
            "duration_seconds": duration,
            "duration_formatted": _duration(duration),
            "status": attempt.status if attempt.end_seq else "running",
            "error": error_message(attempt),
            **_gate_of(attempt),
        }


def _gate_of(attempt: AttemptHistory) -> dict[str, Any]:
    if attempt.gate is None:
        return {}
    return {"gate": gate_text(attempt.gate), "gate_passed": attempt.gate.passed}


def _duration(duration: float | None) -> str:
    if duration is None:
        return "N/A"
    for limit, divisor, form in ((60, 1, "{:.2f}s"), (3600, 60, "{:.1f}m")):
        if duration < limit:
            return form.format(duration / divisor)
    return f"{duration / 3600:.2f}h"


def timeline_markdown(timeline: Mapping[str, Any]) -> str:
    """A timeline as Markdown: a table of the attempts, statistics, and the failures."""
    steps: list[Mapping[str, Any]] = timeline["steps"]
    parts = [_head(timeline), _table(steps), _statistics(steps)]
    failed = [
        _item(row, row["error"] or "Unknown error") for row in steps if row["status"] in _FAILED
    ]
    if failed:
        parts.append(["## Failed Steps", "", *failed])
    gates = [_item(row, row["gate"]) for row in steps if row.get("gate_passed") is False]
    if gates:
        parts.append(["## Failed Gates", "", *gates])
    return "\n\n".join("\n".join(lines) for lines in parts)


def _item(row: Mapping[str, Any], text: str) -> str:
    who = f"{_cell(row['agent'])}/{_cell(row['action'])}"
    return f"- **{_cell(row['step_id'])}** ({who}): {_cell(text)}"


def _head(timeline: Mapping[str, Any]) -> list[str]:
    fields = (
        ("Workflow", "workflow_name"),
        ("Workflow ID", "workflow_id"),
        ("Started", "started_at"),
        ("Completed", "completed_at"),
        ("Total Duration", "total_duration_formatted"),
        ("Status", "status"),
    )
    lines = [f"**{label}**: {_cell(timeline[key])}" for label, key in fields]
    return ["# Project Timeline", "", *lines]


def _table(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = ("step_id", "agent", "action", "started_at", "duration_formatted")
    return [
        "## Agent Execution Timeline",
        "",
        "| Step ID | Agent | Action | Started | Duration | Status |",
        "|---------|-------|--------|---------|----------|--------|",
        *(
            f"| {' | '.join(_cell(row[column]) for column in columns)} | "
            f"{_MARKS.get(row['status'], '❓')} {_cell(row['status'])} |"
            for row in steps
        ),
    ]


def _statistics(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["## Summary Statistics", "", f"- **Total Steps**: {len(steps)}"]
    for status in ("completed", "failed", "skipped", "timeout", "interrupted", "cancelled"):
        count = sum(row["status"] == status for row in steps)
        if count or status in _ALWAYS_COUNTED:
            lines.append(f"- **{status.capitalize()}**: {count}")
    durations = [row["duration_seconds"] or 0 for row in steps if row["status"] == "completed"]
    if durations:
        lines.append(f"- **Average Step Duration**: {_duration(sum(durations) / len(durations))}")
        lines.append(f"- **Total Execution Time**: {_duration(sum(durations))}")
    return lines


def _cell(value: object) -> str:
    """Text from a log as one line of Markdown, without any markup of its own."""
    return plain(value).translate(_ESCAPED)
