"""Counts a run's steps, and looks for an agent, without its history: lines are only skimmed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgspec

from tapps_otel.log.reader import lines
from tapps_otel.names import SPANS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tapps_otel.log.event import Event

__all__ = ["StepCount", "count_steps", "has_agent", "skim"]


class _Skimmed(msgspec.Struct, gc=False):
    """What is needed of a line."""

    event_type: str
    step_id: str | None = None
    agent: str | None = None
    workflow: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Skimmed).decode


class StepCount(NamedTuple):
    """How many steps have begun, and how many of them are completed or skipped."""

    begun: int
    done: int


def skim(file: BinaryIO) -> Iterator[_Skimmed]:
    """Yield the decoded lines of a log without verifying its chain."""
    for line in lines(file):
        try:
            yield _decode(line)
        except (ValueError, RecursionError):  # torn, damaged
            continue


def count_steps(events: Iterable[Event | _Skimmed]) -> StepCount | None:
    """Count the steps in a run's events; ``None`` where steps are made of spans when it is read."""
    done: dict[object, bool] = {}
    for event in events:
        kind = event.event_type
        if kind == "workflow_start" and (event.workflow or {}).get("source") == SPANS:
            return None
        if kind.startswith("step_"):
            done[event.step_id] = kind in {"step_finish", "step_skip"}
    return StepCount(len(done), sum(done.values()))


def has_agent(file: BinaryIO, agent: str) -> bool:
    """Return whether an agent has a step in a log."""
    return any(one.agent == agent for one in skim(file))
