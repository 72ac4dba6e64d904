"""Their project timeline, from our log: also of a run that failed, or was killed. Pure.

The shape is that of ``timeline.generate_timeline`` and ``format_timeline_markdown``: who reads
those reads these. Beyond theirs, every try of a step is a row, and so is a step that was skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tapps_otel.instrumentation.tapps_agents.states import local_time
from tapps_otel.report.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tapps_otel.past.fold import AttemptHistory, RunHistory, StepHistory

__all__ = ["timeline_markdown", "timeline_of"]

_MARKS: Final = {"completed": "✅", "failed": "❌", "skipped": "⏭️", "running": "🔄"}
_ESCAPED: Final = str.maketrans({"|": r"\|", "<": "&lt;", "[": r"\[", "`": r"\`"})


def timeline_of(history: RunHistory) -> dict[str, Any]:
    """A run's timeline: when it began and ended, and every try of every step.

    Times are local and without a zone, as theirs; durations are seconds.
    """
    started_ns = history.executions[0].started_ns if history.executions else 0
    steps = [row for step in history.steps if step.parent is None for row in _rows(step)]
    ended_ns = max((_end_ns(one) for step in history.steps for one in step.attempts), default=None)
    took = None
    if history.status != "completed" or ended_ns is None:
        ended_ns = None
    else:
        took = (ended_ns - started_ns) / 1e9
    return {
        "workflow_id": history.workflow_id,
        "workflow_name": history.name,
        "started_at": local_time(started_ns).isoformat(),
        "completed_at": None if ended_ns is None else local_time(ended_ns).isoformat(),
        "total_duration_seconds": took,
        "total_duration_formatted": _duration(took),
        "status": history.status,
        "steps": sorted(steps, key=lambda row: str(row["started_at"])),
    }


def _rows(step: StepHistory) -> Iterator[dict[str, Any]]:
    for attempt in step.attempts:
        took = None if attempt.duration_ns is None else attempt.duration_ns / 1e9
        error = attempt.error
        yield {
            "step_id": step.name,
            "agent": step.agent or "",
            "action": step.action or "",
            "started_at": local_time(attempt.started_ns).isoformat(),
            "completed_at": (local_time(_end_ns(attempt)).isoformat() if attempt.end_seq else None),
            "duration_seconds": took,
            "duration_formatted": _duration(took),
            "status": attempt.status if attempt.end_seq else "running",
            "error": None if error is None else str(error.get("message")),
        }


def _end_ns(attempt: AttemptHistory) -> int:
    return attempt.started_ns + (attempt.duration_ns or 0)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "N/A"
    for limit, divisor, form in ((60, 1, "{:.2f}s"), (3600, 60, "{:.1f}m")):
        if seconds < limit:
            return form.format(seconds / divisor)
    return f"{seconds / 3600:.2f}h"


def timeline_markdown(timeline: Mapping[str, Any]) -> str:
    """The same as Markdown: a table of the tries, numbers, and what failed."""
    steps: list[Mapping[str, Any]] = timeline["steps"]
    parts = [_head(timeline), _table(steps), _numbers(steps)]
    failed = [
        f"- **{_cell(one['step_id'])}** ({_cell(one['agent'])}/{_cell(one['action'])}): "
        f"{_cell(one['error'] or 'Unknown error')}"
        for one in steps
        if one["status"] == "failed"
    ]
    if failed:
        parts.append(["## Failed Steps", "", *failed])
    return "\n\n".join("\n".join(lines) for lines in parts)


def _head(timeline: Mapping[str, Any]) -> list[str]:
    rows = (
        ("Workflow", "workflow_name"),
        ("Workflow ID", "workflow_id"),
        ("Started", "started_at"),
        ("Completed", "completed_at"),
        ("Total Duration", "total_duration_formatted"),
        ("Status", "status"),
    )
    told = [f"**{label}**: {_cell(timeline[key])}" for label, key in rows]
    return ["# Project Timeline", "", *told]


def _table(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = ("step_id", "agent", "action", "started_at", "duration_formatted")
    return [
        "## Agent Execution Timeline",
        "",
        "| Step ID | Agent | Action | Started | Duration | Status |",
        "|---------|-------|--------|---------|----------|--------|",
        *(
            f"| {' | '.join(_cell(one[column]) for column in columns)} | "
            f"{_MARKS.get(one['status'], '❓')} {_cell(one['status'])} |"
            for one in steps
        ),
    ]


def _numbers(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["## Summary Statistics", "", f"- **Total Steps**: {len(steps)}"]
    for status in ("completed", "failed", "skipped"):
        count = sum(one["status"] == status for one in steps)
        lines.append(f"- **{status.capitalize()}**: {count}")
    took = [one["duration_seconds"] or 0 for one in steps if one["status"] == "completed"]
    if took:
        lines.append(f"- **Average Step Duration**: {_duration(sum(took) / len(took))}")
        lines.append(f"- **Total Execution Time**: {_duration(sum(took))}")
    return lines


def _cell(value: object) -> str:
    """Text of a log in a line of Markdown: on one line, and no markup of its own."""
    return plain(value).translate(_ESCAPED)
