"""What the tests of runs share: a log folder of their own, a list of effects, the log's events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tapps_otel
from crashes import Effects
from independent_checker import check
from tapps_otel import settings


@pytest.fixture(autouse=True)
def log_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A log folder for this test alone, without syncs; the settings are as before afterwards.

    Every log that the test leaves is checked by the outside checker.
    """
    monkeypatch.setattr(settings, "_given", settings._given)
    monkeypatch.setattr(settings, "_current", settings._current)
    folder = tmp_path / "logs"
    monkeypatch.setenv("TAPPS_OTEL_LOG_DIR", str(folder))  # where commands look, too
    tapps_otel.configure(log_dir=folder, durability="os")
    yield folder
    for path in folder.glob("*.jsonl"):
        check(path)


@pytest.fixture
def did(tmp_path: Path) -> Effects:
    """What step bodies did, also those of killed processes."""
    return Effects(tmp_path / "effects")


Log = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def log(log_dir: Path) -> Log:
    """The events of a run, or those of one type, as plain dicts."""

    def read(event_type: str | None = None, workflow_id: str = "r") -> list[dict[str, Any]]:
        events = check(log_dir / f"{workflow_id}.jsonl")
        return [one for one in events if event_type in {None, one["event_type"]}]

    return read


@pytest.fixture
def reported(log: Log) -> Callable[..., str]:
    """What the library itself reported in the log, as one text; empty for nothing."""

    def read(workflow_id: str = "r") -> str:
        remarks = [
            (one["name"], one.get("attributes", {})) for one in log("annotation", workflow_id)
        ]
        return json.dumps(remarks) if remarks else ""

    return read


@pytest.fixture
def labels(log: Log) -> Callable[..., list[str]]:
    """A run's events as ``type step_id``, in order."""

    def read(workflow_id: str = "r") -> list[str]:
        return [
            f"{one['event_type']} {one['step_id']}" if "step_id" in one else one["event_type"]
            for one in log(None, workflow_id)
        ]

    return read
