"""The private names of LangGraph that are used, compared with the installed version."""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib import import_module
from operator import attrgetter
from typing import Any

import pytest

from langgraph_graphs import VERSION, says
from tapps_otel.instrumentation import report
from tapps_otel.instrumentation.langgraph.adapter import place_of
from tapps_otel.instrumentation.langgraph.functions import HOOKED
from tapps_otel.instrumentation.langgraph.turn import NESTED

FIRST_PARAMETERS = {
    "Pregel.invoke": ["self", "input", "config"],
    "Pregel.ainvoke": ["self", "input", "config"],
    "Pregel.stream": ["self", "input", "config"],
    "Pregel.astream": ["self", "input", "config"],
    "Pregel.bulk_update_state": ["self", "config", "supersteps"],
    "Pregel.abulk_update_state": ["self", "config", "supersteps"],
    "run_with_retry": ["task", "retry_policy"],
    "arun_with_retry": ["task", "retry_policy"],
    "SyncPregelLoop.__exit__": ["self", "exc_type", "exc_value", "traceback"],
    "AsyncPregelLoop.__aexit__": ["self", "exc_type", "exc_value", "traceback"],
    "SyncPregelLoop.__enter__": ["self"],
    "AsyncPregelLoop.__aenter__": ["self"],
}


def test_every_hook_is_on() -> None:
    says("a")
    for path in HOOKED:
        import_module(path.partition(":")[0])

    assert set(report("langgraph").hooks.values()) == {"on"}
    assert report("langgraph").ok


@pytest.mark.parametrize("path", HOOKED)
def test_the_hooked_functions_have_these_parameters(path: str) -> None:
    module, _, name = path.partition(":")
    function = attrgetter(name)(import_module(module))

    expected = FIRST_PARAMETERS[name]
    assert list(inspect.signature(function).parameters)[: len(expected)] == expected


def test_a_task_has_the_fields_that_are_read() -> None:
    from langgraph.types import PregelExecutableTask

    names = {one.name for one in fields(PregelExecutableTask)}

    assert {"name", "proc", "config", "path"} <= names
    assert ("timeout" in names) == (VERSION >= (1, 2))


def test_the_constants_are_those_of_langgraph() -> None:
    from langgraph._internal import _config, _constants

    assert NESTED == _constants.CONFIG_KEY_TASK_ID
    assert callable(_config.ensure_config)
    assert place_of(_task((_constants.PUSH, 3, False))) == "n@2.3"
    assert place_of(_task((_constants.PUSH, (_constants.PULL, "m"), 4, True))) == "n@2.4"
    assert place_of(_task((_constants.PULL, "n"))) == "n@2"
    nested = _constants.NS_SEP.join(["m:id", "1", "n:id"])
    assert place_of(_task((_constants.PULL, "n"), nested)) == "1:n@2"


def test_a_loop_has_the_attributes_that_are_read() -> None:
    from langgraph.pregel._loop import AsyncPregelLoop, PregelLoop, SyncPregelLoop

    read = {"is_nested", "checkpointer", "checkpoint_config", "cache"}
    assert read <= PregelLoop.__annotations__.keys()
    assert list(inspect.signature(SyncPregelLoop.match_cached_writes).parameters) == ["self"]
    assert inspect.iscoroutinefunction(AsyncPregelLoop.amatch_cached_writes)


class _Task:
    name = "n"

    def __init__(self, path: Any, namespace: str) -> None:
        self.path = path
        self.config = {
            "metadata": {"langgraph_step": 2},
            "configurable": {"checkpoint_ns": namespace},
        }


def _task(path: Any, namespace: str = "n:id") -> _Task:
    return _Task(path, namespace)
