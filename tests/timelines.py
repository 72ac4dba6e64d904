"""Runs by time for tests: events at given seconds, folded and laid out."""

from __future__ import annotations

from typing import Any

from histories import AT, Story
from tapps_otel import clock
from tapps_otel.past.timeline import Timeline, make_timeline

SECOND = 10**9


class TimedStory(Story):
    """A story whose events have the time ``now``, in seconds since its start."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._began: dict[str, float] = {}

    def at(self, seconds: float) -> TimedStory:
        """Set the time of the events that follow."""
        self.now = seconds
        return self

    def add(self, event_type: str, **fields: Any) -> int:
        times: dict[str, Any] = {"timestamp": clock.timestamp(AT + round(self.now * SECOND))}
        if event_type == "step_start":
            self._began[fields["step_id"]] = self.now
        elif event_type.startswith("step_") and fields["step_id"] in self._began:
            times["duration_ns"] = round((self.now - self._began[fields["step_id"]]) * SECOND)
        return super().add(event_type, **(times | fields))

    def timeline(self, **options: Any) -> Timeline:
        return make_timeline(self.history, **options)


def crashed_and_resumed() -> TimedStory:
    """10 s: ``scan`` 0-2 s, ``draft`` killed at 4 s; down until 6 s; ``draft`` again until 10 s.

    Beside ``draft`` runs ``check``, 2-3 s.
    """
    story = TimedStory()
    story.execution(workflow={"name": "article"}, process={"pid": 7, "host": "box"})
    story.start("scan")
    story.at(2).finish("scan")
    story.start("draft", agent="writer")
    story.start("check")
    story.at(3).finish("check")
    story.at(4).add("annotation", name="note")
    story.at(6).execution(workflow={"name": "article"}, process={"pid": 8, "host": "box"})
    story.at(4).fail("draft", "interrupted", late=True)
    story.at(6).start("draft", agent="writer")
    story.at(10).finish("draft")
    story.end(duration_ns=4 * SECOND)
    return story
