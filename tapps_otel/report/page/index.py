"""The content of the index of several runs: what is worth knowing of each, as JSON values. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tapps_otel.clock import timestamp
from tapps_otel.past.fold import DONE, FAILED
from tapps_otel.report.history import error_text
from tapps_otel.report.lines import day_time
from tapps_otel.report.text import counted, excerpt, few, plain

if TYPE_CHECKING:
    from tapps_otel.past.timeline import Timeline, TimelineStep

__all__ = ["index_content", "index_row"]

_SHORT: Final = 400  # columns of a name or a message


def index_content(rows: list[dict[str, Any]], *, now_ns: int) -> dict[str, Any]:
    """Return the index's content as JSON values.

    :param rows: of :func:`index_row`
    """
    made = f"{counted(len(rows), 'run')}, as their logs were on {day_time(now_ns)} UTC"
    return {"made": made, "runs": rows}


def index_row(timeline: Timeline, page: str) -> dict[str, Any]:
    """Return a run's row. Times are milliseconds since its start.

    :param page: address of its page, relative to the index
    """
    about, style = _about(timeline)

    def ms(ns: int) -> float:
        return round((ns - timeline.start_ns) / 1e6, 3)

    return {
        "page": page,
        "id": _short(timeline.workflow_id),
        "name": _short(timeline.name),
        "status": _short(timeline.status),
        "start": timestamp(max(0, timeline.start_ns))[:19].replace("T", " "),
        "total": ms(timeline.end_ns),
        "down": timeline.down_ns / 1e6,
        "executions": [
            [ms(one.start_ns), ms(one.end_ns), _short(one.status), one.killed]
            for one in timeline.executions
        ],
        "downtimes": [[ms(one.start_ns), ms(one.end_ns)] for one in timeline.downtimes],
        "steps": len(timeline.steps),
        "finished": sum(step.status in DONE for step in timeline.steps),
        "failed": sum(map(_has_failed, timeline.steps)),
        "about": _short(about),
        "about_style": style,
    }


def _has_failed(step: TimelineStep) -> bool:
    """Whether it ended badly, and does not wait for a retry."""
    return step.status in FAILED and not step.attempts[-1].wait_ns


def _about(timeline: Timeline) -> tuple[str, str]:
    """Summarize what is notable about a run, with the style of that line."""
    if timeline.log is not None and timeline.log.damage is not None:
        return f"shown up to seq {timeline.log.seq}: its log is damaged", "bad"
    if timeline.error is not None:
        return error_text(timeline.error), "bad"
    killed = [one for one in timeline.executions if one.killed]
    if killed:
        steps = few([plain(step.step_id) for step, _ in timeline.interrupted], 3)
        where = f" in {steps}" if steps else ""
        return f"killed {_times(len(killed))}{where}", "warn"
    if len(timeline.executions) > 1:
        return f"resumed {_times(len(timeline.executions) - 1)}", ""
    return "", ""


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _short(text: object) -> str:
    return excerpt(text, _SHORT)
