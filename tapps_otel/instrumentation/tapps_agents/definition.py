"""A workflow of tapps-agents as the log describes it: its source file and its steps."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.log.artifacts import summary_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LoadedWorkflow", "describe_loaded", "differences", "fields_of", "steps_of"]

_LIMIT: Final = 256 * 1024  # bytes of JSON: all steps have to fit into one event

Step = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoadedWorkflow:
    """What ``load_workflow`` read, as it was then: the file and the object may change afterwards.

    :ivar workflow: the object
    :ivar path: of the file
    :ivar sha256: of the file's bytes, hex; ``None`` if it could not be read
    :ivar steps: see :func:`steps_of`
    """

    workflow: Any
    path: Path
    sha256: str | None
    steps: list[Step]


def describe_loaded(path: Path, workflow: Any) -> LoadedWorkflow:
    """Describe a workflow that was just loaded from this file."""
    path = path.absolute()
    return LoadedWorkflow(workflow, path, summary_of(path).get("sha256"), steps_of(workflow))


def steps_of(workflow: Any) -> list[Step]:
    """The steps of a workflow in order, each by its fields, or by a digest if that is too much."""
    steps = [fields_of(step) for step in workflow.steps]
    if len(json.dumps(steps)) <= _LIMIT:
        return steps
    return [{"id": step["id"], "sha256": _digest(step)} for step in steps]


def fields_of(step: Any) -> Step:
    """The fields of a step that are set, JSON-native."""
    fields: Step = json.loads(json.dumps(vars(step), default=str), parse_constant=str)
    return {name: value for name, value in fields.items() if value not in (None, [], {}, False)}


def _digest(step: Step) -> str:
    return sha256(json.dumps(step, sort_keys=True).encode()).hexdigest()


def differences(before: Sequence[Step], now: Sequence[Step]) -> str:
    """A diff of two lists of steps, line by line; empty if they are equal."""
    return "\n".join(
        line
        for line in difflib.unified_diff(
            _lines(before), _lines(now), "in the log", "now", "", "", 2
        )
        if not line.startswith("@@")
    )


def _lines(steps: Sequence[Step]) -> list[str]:
    lines = []
    for step in steps:
        lines.append(f"step {step.get('id')}")
        lines += [
            f"  {name}: {json.dumps(value, sort_keys=True)}"
            for name, value in sorted(step.items())
            if name != "id"
        ]
    return lines
