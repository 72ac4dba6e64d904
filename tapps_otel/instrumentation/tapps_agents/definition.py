"""A workflow of tapps-agents as the log describes it: its source file and its steps."""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.log.artifacts import summary_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "LoadedWorkflow",
    "describe",
    "describe_loaded",
    "differences",
    "fields_of",
    "make_object",
    "rebuild",
    "steps_of",
    "type_in",
    "type_of",
]

_APART: Final = frozenset({"id", "version", "type", "settings", "steps"})
_LIMIT: Final = 192 * 1024  # bytes of JSON, of all steps and of the rest: one event has both

Step = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoadedWorkflow:
    """What ``load_workflow`` read, as it was then: the file and the object may change afterwards.

    :ivar workflow: the object
    :ivar path: of the file
    :ivar sha256: of the file's bytes, hex; ``None`` if it could not be read
    :ivar definition: see :func:`describe`
    """

    workflow: Any
    path: Path
    sha256: str | None
    definition: dict[str, Any]


def describe_loaded(path: Path, workflow: Any) -> LoadedWorkflow:
    """Describe a workflow that was just loaded from this file."""
    path = path.absolute()
    return LoadedWorkflow(workflow, path, summary_of(path).get("sha256"), describe(workflow))


def describe(workflow: Any) -> dict[str, Any]:
    """A workflow as fields of the log: what it is, and its steps. It can be rebuilt from them."""
    about = {
        "id": workflow.id,
        "version": workflow.version,
        "type": type_of(workflow),
    }
    rest = {name: value for name, value in vars(workflow).items() if name not in _APART}
    rest["settings"] = vars(workflow.settings)
    if len(json.dumps(rest, default=str)) <= _LIMIT:
        about |= rest
    return {"definition": _native(about), "steps": steps_of(workflow)}


def type_of(workflow: Any) -> str | None:
    """The type of a workflow, as ``greenfield``, which tapps-agents asks for while it runs."""
    kind = getattr(workflow, "type", None)
    found = getattr(kind, "value", kind)
    return None if found is None else str(found)


def type_in(described: Mapping[str, Any]) -> str | None:
    """The type of a workflow that the log describes."""
    definition = described.get("definition")
    return definition.get("type") if isinstance(definition, dict) else None


def steps_of(workflow: Any) -> list[Step]:
    """The steps of a workflow in order, each by its fields, or by a digest if that is too much."""
    steps = [fields_of(step) for step in workflow.steps]
    if len(json.dumps(steps)) <= _LIMIT:
        return steps
    return [{"id": step["id"], "sha256": _digest(step)} for step in steps]


def fields_of(step: Any) -> Step:
    """The fields of a step that are set, JSON-native."""
    fields: Step = _native(vars(step))
    return {name: value for name, value in fields.items() if value not in (None, [], {}, False)}


def _native(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str), parse_constant=str)


def rebuild(described: Mapping[str, Any]) -> Any:
    """Make the workflow of a description; ``None`` if it was too large to be described in full."""
    from tapps_agents.workflow.models import Workflow, WorkflowSettings, WorkflowStep, WorkflowType

    about, steps = described.get("definition") or {}, described.get("steps") or ()
    if "settings" not in about or not all("agent" in step for step in steps):
        return None
    made = make_object(Workflow, **about)
    made.type = WorkflowType(about["type"])
    made.settings = make_object(WorkflowSettings, **about["settings"])
    made.steps = [make_object(WorkflowStep, **step) for step in steps]
    return made


def make_object(kind: type[Any], /, **fields: Any) -> Any:
    """Make an object of tapps-agents from the fields that its installed version has."""
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in fields.items() if name in known})


def _digest(step: Step) -> str:
    return sha256(json.dumps(step, sort_keys=True).encode()).hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A diff of two descriptions of a workflow, line by line; empty if their steps are equal.

    Its type counts too, if the log has it; its version and its texts do not.
    """
    with_type = "definition" in before
    return "\n".join(
        line
        for line in difflib.unified_diff(
            _lines(before, with_type=with_type),
            _lines(now, with_type=with_type),
            *("in the log", "now", "", "", 2),
        )
        if not line.startswith("@@")
    )


def _lines(described: Mapping[str, Any], *, with_type: bool) -> list[str]:
    lines = [f"type: {described['definition'].get('type')}"] if with_type else []
    for step in described.get("steps") or ():
        lines.append(f"step {step.get('id')}")
        lines += [
            f"  {name}: {json.dumps(value, sort_keys=True)}"
            for name, value in sorted(step.items())
            if name != "id"
        ]
    return lines
