"""Names of other conventions on spans, beside ``tapps.*``, if requested.

These conventions are not stable, so each is requested with its version, and its names are written
here as they were in that version, whatever a package of today calls them:

- ``gen_ai/0.1``: semantic-conventions-genai v0.1.0, where a workflow is an agent;
- ``gen_ai/1.41``: semantic-conventions v1.41.1, ``invoke_workflow``;
- ``cicd/1.44``: semantic-conventions v1.44.0, runs and tasks of pipelines.

An action is not a ``gen_ai.tool.name``, because it need not be a tool; and a run is not a
conversation. What the conventions require beyond that (a provider, a URL) is not known here.

The aliases of a run's spans are noted in its log, in the ``otel`` field of an execution's first
event, so that rebuilt spans have them too. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, get_args

from msgspec import UNSET

from tapps_otel.settings_types import Alias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tapps_otel.log.event import Event

__all__ = ["ALIAS", "Aliases", "aliases_of", "artifact_aliases", "end_aliases", "start_aliases"]

Aliases = tuple[str, ...]


class ALIAS:
    """Names of the aliases."""

    OPERATION: Final = "gen_ai.operation.name"
    AGENT: Final = "gen_ai.agent.name"
    WORKFLOW: Final = "gen_ai.workflow.name"
    PIPELINE: Final = "cicd.pipeline.name"
    RUN: Final = "cicd.pipeline.run.id"
    RESULT: Final = "cicd.pipeline.result"
    TASK: Final = "cicd.pipeline.task.name"
    TASK_RUN: Final = "cicd.pipeline.task.run.id"
    TASK_RESULT: Final = "cicd.pipeline.task.run.result"
    FILE: Final = "artifact.filename"
    HASH: Final = "artifact.hash"


# Our statuses in `cicd.pipeline.result` and `cicd.pipeline.task.run.result`.
_RESULTS: Final = {
    "completed": "success",
    "failed": "failure",
    "timeout": "timeout",
    "cancelled": "cancellation",
    "skipped": "skip",
    "interrupted": "error",  # not the work's own failure
}
_CICD: Final = "cicd/1.44"
_KNOWN: Final = get_args(Alias)


def aliases_of(note: Mapping[str, Any]) -> Aliases:
    """Return the known aliases in ``otel`` of an execution's first event."""
    named = note.get("aliases", ())
    return tuple(one for one in _KNOWN if one in named) if isinstance(named, list) else ()


def start_aliases(aliases: Aliases, event: Event, workflow: str | None) -> dict[str, str]:
    """Return the aliases of a starting event's content.

    :param workflow: name of the run's workflow
    """
    found: dict[str, str] = {}
    for alias in aliases:
        found.update(_STARTS[alias](event, workflow or ""))
    return found


def end_aliases(aliases: Aliases, status: object, *, of_step: bool) -> dict[str, str]:
    """Return the aliases of a final status; none of any other."""
    result = _RESULTS.get(status) if isinstance(status, str) else None
    if _CICD not in aliases or result is None:
        return {}
    return {ALIAS.TASK_RESULT if of_step else ALIAS.RESULT: result}


def artifact_aliases(aliases: Aliases, artifact: Mapping[str, Any]) -> dict[str, str]:
    """Return the aliases of what is known of a file."""
    if _CICD not in aliases:
        return {}
    known = {ALIAS.FILE: artifact.get("name"), ALIAS.HASH: artifact.get("sha256")}
    return {name: str(value) for name, value in known.items() if value is not None}


def _agent(event: Event) -> dict[str, str]:
    """Return the aliases of an agent's step, in both versions."""
    if not isinstance(event.agent, str):
        return {}
    return {ALIAS.OPERATION: "invoke_agent", ALIAS.AGENT: event.agent}


def _gen_ai_0_1(event: Event, workflow: str) -> dict[str, str]:
    if event.step is not UNSET:
        return _agent(event)
    return {ALIAS.OPERATION: "invoke_workflow", ALIAS.AGENT: workflow}


def _gen_ai_1_41(event: Event, workflow: str) -> dict[str, str]:
    if event.step is not UNSET:
        return _agent(event)
    return {ALIAS.OPERATION: "invoke_workflow", ALIAS.WORKFLOW: workflow}


def _cicd_1_44(event: Event, workflow: str) -> dict[str, str]:
    run = {ALIAS.PIPELINE: workflow, ALIAS.RUN: event.workflow_id}
    if event.step is UNSET:
        return run
    return {**run, ALIAS.TASK: event.step, ALIAS.TASK_RUN: str(event.step_id)}


_STARTS: Final[dict[str, Callable[[Event, str], dict[str, str]]]] = {
    "gen_ai/0.1": _gen_ai_0_1,
    "gen_ai/1.41": _gen_ai_1_41,
    _CICD: _cicd_1_44,
}
