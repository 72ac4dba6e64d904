"""Fixtures for tests of instrumented executors: functions are restored, and logs are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from independent_checker import check
from tapps_otel import configure
from tapps_otel.instrumentation import registry

LOGS = Path(".tapps-agents/workflow-state/events")


@pytest.fixture(autouse=True)
def _own_hooks() -> Iterator[None]:
    """Take every hook off after a test, and check its logs with the independent checker."""
    configure(durability="os")
    yield
    for name in list(registry._patches):
        registry.remove(name)
    for path in Path().rglob("workflow-state/events/*.jsonl"):
        if not path.name.endswith(".events.jsonl"):
            check(path)


Events = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def events() -> Events:
    """Reads a run's events; without a name, those of the only run."""

    def read(name: str | None = None, folder: Path = LOGS) -> list[dict[str, Any]]:
        if name is None:
            (path,) = (p for p in folder.glob("*.jsonl") if not p.name.endswith(".events.jsonl"))
        else:
            path = folder / f"{name}.jsonl"
        return check(path)

    return read


@pytest.fixture
def story(events: Events) -> Callable[..., list[str]]:
    """Reads a run's events in short: ``step_fail s3 2 timeout`` (step, attempt, status)."""

    def tell(name: str | None = None, folder: Path = LOGS) -> list[str]:
        return [short(one) for one in events(name, folder)]

    return tell


def short(event: dict[str, Any]) -> str:
    parts = [event["event_type"]]
    if "step_id" in event and "attempt" in event:
        parts += [event["step_id"], str(event["attempt"])]
    if event["event_type"] in {"workflow_end", "step_fail"}:
        parts.append(event["status"])
    if event["event_type"] == "annotation":
        parts.append(event["name"])
    return " ".join(parts)
