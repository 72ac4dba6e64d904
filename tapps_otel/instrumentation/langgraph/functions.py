"""The functions of LangGraph that are wrapped, and the other private names that are used.

A test compares them with the installed version. A function that is missing costs only what depends
on it; the report and a warning name it. Importing this module is cheap: the wrappers are in
:mod:`~tapps_otel.instrumentation.langgraph.hooks`, which is imported with LangGraph.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from tapps_otel.instrumentation.patching import Hook, Patches

if TYPE_CHECKING:
    from tapps_otel.instrumentation.guarding import Wrapper

__all__ = ["HOOKED", "TARGET", "patches"]

TARGET: Final = "langgraph"

# Function: what is lost without it.
HOOKED: Final = {
    "langgraph.pregel.main:Pregel.invoke": "nothing but time: its stream is logged",
    "langgraph.pregel.main:Pregel.ainvoke": "nothing but time, in async programs",
    "langgraph.pregel.main:Pregel.stream": "runs of sync calls",
    "langgraph.pregel.main:Pregel.astream": "runs of async calls",
    "langgraph.pregel.main:Pregel.bulk_update_state": "edited states, in sync programs",
    "langgraph.pregel.main:Pregel.abulk_update_state": "edited states, in async programs",
    "langgraph.pregel._runner:run_with_retry": "steps of sync calls",
    "langgraph.pregel._runner:arun_with_retry": "steps of async calls",
    "langgraph.pregel._loop:SyncPregelLoop.__exit__": "static breakpoints and checkpoint ids",
    "langgraph.pregel._loop:AsyncPregelLoop.__aexit__": "these, in async calls",
    "langgraph.pregel._loop:SyncPregelLoop.__enter__": "cached tasks",
    "langgraph.pregel._loop:AsyncPregelLoop.__aenter__": "cached tasks of async calls",
}


def patches() -> Patches:
    """The hooks, not yet put on."""
    return Patches(TARGET, tuple(map(_hook, HOOKED)))


def _hook(path: str) -> Hook:
    module, _, name = path.partition(":")
    return Hook(module, name, partial(_load, name), streams=True)


def _load(name: str) -> Wrapper:
    from tapps_otel.instrumentation.langgraph.hooks import WRAPPERS  # heavy

    return WRAPPERS[name]
