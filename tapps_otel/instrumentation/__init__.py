"""Third-party executors: their runs get a log, a trace and a history; their code is not changed.

``instrument("tapps_agents")`` for an executor that is supported here, ``instrument(Pool,
ExecutorSpec(...))`` for any other, ``instrument("orders", SpanRules(...))`` for a library that is
known by its spans. Importing this module is cheap: wrapt, OpenTelemetry and the
executor itself are imported when they are needed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, overload

from tapps_otel.instrumentation import registry
from tapps_otel.instrumentation.method_call import MethodCall
from tapps_otel.instrumentation.patching import HookState, Report
from tapps_otel.instrumentation.spec import ExecutorSpec
from tapps_otel.past.span_rules import PRESETS, SpanMatch, SpanRules

if TYPE_CHECKING:
    from tapps_otel.instrumentation.patching import Patches

__all__ = [
    "ExecutorSpec",
    "HookState",
    "MethodCall",
    "Report",
    "SpanMatch",
    "SpanRules",
    "instrument",
    "report",
    "uninstrument",
]


Supported = Literal[
    "langgraph", "tapps_agents", "tapps-agents", "pydantic_ai", "pydantic-ai",
    "agent_framework", "agent-framework", "genai", "openai_agents", "openai-agents",
]  # fmt: skip


@overload
def instrument(target: Supported) -> Report: ...
@overload
def instrument(target: str, spec: SpanRules) -> Report: ...
@overload
def instrument(target: str | type[Any], spec: ExecutorSpec) -> Report: ...
def instrument(target: str | type[Any], spec: ExecutorSpec | SpanRules | None = None) -> Report:
    """Log and trace the runs of an executor. A second call changes nothing.

    :param target: the name of what is supported (``langgraph``, ``tapps_agents``,
        ``openai_agents``, or by their spans ``pydantic_ai``, ``agent_framework``, ``genai``); with
        an ``ExecutorSpec`` the class, which may be any class object, or ``package.module:Class``,
        which need not be imported yet; with ``SpanRules`` a name for them
    :param spec: describes an executor that is not supported by name
    :returns: the state of each hook; the report is live: a hook of a module that is not imported
        yet is ``pending``
    :raises LookupError: the name is not supported, and there is no spec
    """
    return registry.add(_key_of(target), lambda: _patches(target, spec))


def uninstrument(target: str | type[Any]) -> None:
    """Restore every function of the executor.

    Of a run that is in progress, only the end is still logged.
    """
    registry.remove(_key_of(target))


def report(target: str | type[Any]) -> Report:
    """The live report that :func:`instrument` returned.

    :raises LookupError: the executor is not instrumented
    """
    return registry.report(_key_of(target))


def _name_of(target: str | type[Any]) -> str:
    if isinstance(target, str):
        return target if ":" in target else target.replace("-", "_")
    return f"{target.__module__}:{target.__qualname__}"


def _key_of(target: str | type[Any]) -> registry.Key:
    """The name of what is instrumented; a class itself where its name does not lead to it."""
    name = _name_of(target)
    if isinstance(target, str):
        return name
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return name if found is target else target


def _patches(target: str | type[Any], spec: ExecutorSpec | SpanRules | None) -> Patches:
    name = _name_of(target)
    if isinstance(spec, SpanRules) or (spec is None and name in PRESETS):
        from tapps_otel.instrumentation.spans import hooks

        return hooks.patches(name, spec)
    if spec is not None:
        from tapps_otel.instrumentation import spec_hooks

        return spec_hooks.patches(name, spec, None if isinstance(target, str) else target)
    if name == "tapps_agents":
        from tapps_otel.instrumentation.tapps_agents import functions

        return functions.patches()
    if name == "langgraph":
        from tapps_otel.instrumentation.langgraph import functions as of_langgraph

        return of_langgraph.patches()
    if name == "openai_agents":
        from tapps_otel.instrumentation import openai_agents

        return openai_agents.patches()
    names = ", ".join(["langgraph", "tapps_agents", "openai_agents", *PRESETS])
    msg = (
        f"no executor {name!r} is supported by name, only {names}: pass an ExecutorSpec, or "
        "SpanRules"
    )
    raise LookupError(msg)
