"""Their workflow as the log tells of it: where it was loaded from, and its steps."""

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

__all__ = ["Loaded", "differences", "fields_of", "load", "steps_of"]

_LIMIT: Final = 256 * 1024  # bytes of JSON: all steps have to fit into one event

Step = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What ``load_workflow`` read, as it was then: the file may change, and the object too.

    :ivar workflow: the object
    :ivar path: of the file
    :ivar sha256: of its bytes, hex; ``None`` where it could not be read
    :ivar steps: see :func:`steps_of`
    """

    workflow: Any
    path: Path
    sha256: str | None
    steps: list[Step]


def load(path: Path, workflow: Any) -> Loaded:
    """Note what was just loaded from this file."""
    path = path.absolute()
    return Loaded(workflow, path, summary_of(path).get("sha256"), steps_of(workflow))


def steps_of(workflow: Any) -> list[Step]:
    """The steps of a workflow, each by its fields, in their order."""
    steps = [fields_of(step) for step in workflow.steps]
    if len(json.dumps(steps)) <= _LIMIT:
        return steps
    return [{"id": step["id"], "sha256": _digest(step)} for step in steps]


def fields_of(step: Any) -> Step:
    """The fields of a step that say something, JSON-native."""
    told: Step = json.loads(json.dumps(vars(step), default=str), parse_constant=str)
    return {name: value for name, value in told.items() if value not in (None, [], {}, False)}


def _digest(step: Step) -> str:
    return sha256(json.dumps(step, sort_keys=True).encode()).hexdigest()


def differences(before: Sequence[Step], now: Sequence[Step]) -> str:
    """What changed between two lists of steps, as a diff of lines; empty for nothing."""
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
