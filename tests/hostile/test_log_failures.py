"""Failures in logs that were made to harm: what a log names is neither imported nor run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from logs import forge
from tapps_otel import configure, step, workflow
from tapps_otel.errors import StepFailedError

Caught = list[BaseException]


def resumed_with(error: dict[str, Any], tmp_path: Path) -> BaseException:
    """What a handler gets on resume, if the log says that its step failed with ``error``."""
    configure(log_dir=tmp_path / "logs", durability="os")
    caught: Caught = []

    @step
    def failing() -> None:
        raise ValueError("genuine")

    @step
    def after() -> None:
        if len(caught) == 1:
            raise RuntimeError("the run ends here the first time")

    @workflow
    def flow() -> None:
        try:
            failing()
        except BaseException as one:  # noqa: BLE001 - what a log may lead to
            caught.append(one)
        after()

    with pytest.raises(RuntimeError):
        flow.options(workflow_id="r")()
    path = tmp_path / "logs" / "r.jsonl"
    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    for one in events:
        if one["event_type"] == "step_fail" and one["step_id"] == "failing":
            one["error"] = error
        del one["sha"]
    forge(path.parent, "r", events)
    flow.options(workflow_id="r")()
    return caught[1]


@pytest.mark.parametrize("name", ["lazy.Heavy", "lazy.inner.Heavy", "lazy.Known.Heavy"])
def test_a_module_is_not_asked_for_what_it_would_import(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Meta(type):
        def __getattr__(cls, wanted: str) -> Any:
            asked.append(wanted)
            return ValueError

    class Known(metaclass=Meta):
        pass

    def answer(wanted: str) -> Any:
        asked.append(wanted)
        return ValueError

    lazy: Any = ModuleType("lazy")
    lazy.__getattr__ = answer
    lazy.Known = Known
    monkeypatch.setitem(sys.modules, "lazy", lazy)

    assert isinstance(resumed_with({"type": name, "message": "m"}, tmp_path), StepFailedError)
    assert asked == []


@pytest.mark.parametrize(
    "name",
    [
        "builtins.SystemExit",
        "KeyboardInterrupt",
        "GeneratorExit",
        "asyncio.exceptions.CancelledError",
    ],
)
def test_a_failure_that_would_end_the_program_is_only_named(name: str, tmp_path: Path) -> None:
    """No step fails with these: it is interrupted or cancelled, and runs again."""
    error = resumed_with({"type": name, "message": "m"}, tmp_path)

    assert type(error) is StepFailedError
    assert str(error) == f"{name}: m"


def test_a_class_that_is_no_exception_is_not_made(tmp_path: Path) -> None:
    error = resumed_with({"type": "subprocess.Popen", "args": [["true"]]}, tmp_path)

    assert type(error) is StepFailedError
