"""Histories for tests: the events of a run, written down call by call and folded."""

from __future__ import annotations

from typing import Any

from logs import ID
from tapps_otel import clock
from tapps_otel.log.event import Event, raw_json
from tapps_otel.past.fold import RunHistory, StepHistory, fold
from tapps_otel.past.plan import Plan

AT = 1_763_000_000_000_000_000


class Story:
    """The events of a run. Each method adds one and returns its ``seq``.

    The number of an attempt and the digest of the inputs need not be given: attempts count up,
    and the digest is the step's id.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._execution = 0
        self._attempts: dict[str, int] = {}

    def add(self, event_type: str, **fields: Any) -> int:
        seq = len(self.events) + 1
        always = {"execution": self._execution, "timestamp": clock.timestamp(AT + seq)}
        fields = {"event_type": event_type, "workflow_id": ID, "seq": seq, **always, **fields}
        self.events.append(Event(**fields))
        return seq

    def execution(self, **fields: Any) -> int:
        """The run's start, or a resume."""
        self._execution += 1
        kind = "workflow_start" if self._execution == 1 else "workflow_resume"
        return self.add(kind, **fields)

    def start(self, step_id: str, *, order: int | None = None, **fields: Any) -> int:
        """An attempt; an ordered one if ``order`` is given."""
        attempt = self._attempts[step_id] = self._attempts.get(step_id, 0) + 1
        name = step_id.rpartition("/")[2].partition("#")[0]
        step: dict[str, Any] = {"step": name, "attempt": attempt, "inputs_digest": f"of {step_id}"}
        if order is not None:
            step["order"] = order
        return self.add("step_start", step_id=step_id, **(step | fields))

    def finish(self, step_id: str, result: object = None, **fields: Any) -> int:
        fields = {"status": "completed", "result": raw_json(result)} | fields
        return self.add("step_finish", step_id=step_id, **fields)

    def skip(self, step_id: str, **fields: Any) -> int:
        return self.add("step_skip", step_id=step_id, status="skipped", **fields)

    def fail(self, step_id: str, status: str = "failed", **fields: Any) -> int:
        error = {"type": "builtins.ValueError", "message": "no"}
        return self.add(
            "step_fail", step_id=step_id, **({"status": status, "error": error} | fields)
        )

    def end(self, status: str = "completed", **fields: Any) -> int:
        return self.add("workflow_end", status=status, **fields)

    def step(self, step_id: str, **fields: Any) -> None:
        """A whole attempt that completes."""
        self.start(step_id, **fields)
        self.finish(step_id)

    @property
    def history(self) -> RunHistory:
        return fold(ID, self.events)

    @property
    def plan(self) -> Plan:
        return Plan(self.history)

    def record(self, step_id: str) -> StepHistory:
        return self.history.by_id[step_id]


def started() -> Story:
    """A story whose first execution has begun."""
    story = Story()
    story.execution()
    return story
