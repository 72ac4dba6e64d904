"""The event log of tapps-agents as its executor calls it: two synced events a step."""

from __future__ import annotations

from tapps_agents.workflow.event_log import WorkflowEventLog

from .common import Arguments, Floor, answer, arguments, folder_bytes, result, timed_steps

WARM = 20


def measure(args: Arguments) -> dict[str, float]:
    """Mean time of a step's two events, with the step between."""
    folder = args.folder / "events"
    log = WorkflowEventLog(folder)

    def work(i: int) -> None:
        place = {"step_id": f"work-{i}", "agent": "writer", "action": "write"}
        log.emit_event("step_start", "bench", **place, status="running")
        made = {"result": result(i)}
        log.emit_event("step_finish", "bench", **place, status="completed", artifacts=made)

    for i in range(WARM):
        work(i)
    before = folder_bytes([folder])
    numbers = timed_steps(args.n, Floor(args.folder), work)
    return {**numbers, "bytes_per_step": (folder_bytes([folder]) - before) / args.n}


if __name__ == "__main__":
    answer("tapps-agents", **measure(arguments()))
