"""What processes tried to write to logs, and what was acknowledged, as they said it themselves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import UNSET

from crashes import Effects, appends
from plan_checks import Events, is_pause
from tapps_otel.log.event import Event
from tapps_otel.past.fold import RunHistory


class Said(NamedTuple):
    """What a witness keeps of an event."""

    workflow_id: str
    event_type: str
    step_id: str
    status: str

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Said:
        return cls(*(fields.get(name, "") for name in cls._fields))

    @property
    def counts(self) -> bool:
        """Whether it is of a run or a step, not a remark."""
        return self.event_type.startswith(("workflow_", "step_"))


Heard = dict[str, Counter[Said]]  # by run


class Witness:
    """Hears all processes, before and after each event is written, and keeps that in files."""

    def __init__(self, folder: Path) -> None:
        self._tried, self._acknowledged = Effects(folder / "tried"), Effects(folder / "acked")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hear what this process writes inside the block."""
        with appends(
            before=lambda _, event: _note(self._tried, _fields(event)),
            after=lambda _, event: _note(self._acknowledged, _fields(event)),
        ):
            yield

    def add(self, events: Events) -> None:
        """Take over what a fork wrote, which appends nothing to a log."""
        for one in events:
            _note(self._tried, one)
            _note(self._acknowledged, one)

    def check(self, workflow_id: str, events: Events) -> None:
        """Nothing acknowledged is lost, and nothing is in a log that no process tried to write."""
        logged = Counter(said for one in events if (said := Said.of(one)).counts)
        lost = _heard(self._acknowledged, workflow_id) - logged
        assert not lost, f"acknowledged, and not in the log: {lost}"
        made_up = logged - _heard(self._tried, workflow_id)
        assert not made_up, f"in the log, and never written: {made_up}"


def _fields(event: Event) -> dict[str, Any]:
    found = ((name, getattr(event, name)) for name in Said._fields)
    return {name: value for name, value in found if value is not UNSET}


def _note(heard: Effects, fields: dict[str, Any]) -> None:
    heard.note(json.dumps(Said.of(fields)))


def _heard(heard: Effects, workflow_id: str) -> Counter[Said]:
    everything = (Said(*json.loads(line)) for line in heard.all)
    return Counter(said for said in everything if said.workflow_id == workflow_id and said.counts)


def check_history(found: RunHistory, events: Events) -> None:
    """The history of a run that no process executes agrees with the events of its log."""
    last = {one["step_id"]: one for one in events if one["event_type"].startswith("step_")}
    starts = Counter(one["step_id"] for one in events if one["event_type"] == "step_start")
    assert [step.step_id for step in found.steps] == list(last)
    for step in found.steps:
        status = last[step.step_id]["status"]
        wanted = {status, "interrupted"} if status == "running" else {status}
        assert step.status in wanted, (step.step_id, step.status, status)
        assert len(step.attempts) == starts[step.step_id]
    asking = [
        step_id
        for step_id, one in last.items()
        if one["event_type"] == "step_start" and is_pause(one)
    ]
    assert [step.step_id for step in found.waiting] == asking
    assert found.status == status_of(events)
    executions = [
        one for one in events if one["event_type"] in {"workflow_start", "workflow_resume"}
    ]
    assert len(found.executions) == len(executions)


def status_of(events: Events) -> str:
    """The status of a run that no process executes."""
    status = "interrupted"
    for one in events:
        if one["event_type"] in {"workflow_start", "workflow_resume"}:
            status = "interrupted"
        elif one["event_type"] == "workflow_end":
            status = one["status"]
        elif one["event_type"] == "step_finish" and status == "paused":
            status = "answered"
    return status
