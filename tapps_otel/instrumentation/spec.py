"""A short description of a third-party executor, by which its runs are logged and traced. Pure.

An executor is any class with a method that executes a run and one that executes a step. Methods are
sync or async, and steps may run in the threads of a pool::

    class Pool:
        def run(self, plan, name):
            with ThreadPoolExecutor() as pool:
                return list(pool.map(self.work, plan))

        def work(self, task): ...


    instrument(
        Pool,
        ExecutorSpec(
            executor="pool",
            run="run",
            step="work",
            run_id=lambda call: call.arguments["name"],
            step_id=lambda call: call.arguments["task"].name,
        ),
    )

A plain method that returns a coroutine (many decorated ones do) ends when the coroutine does. A
generator cannot be instrumented, because its work is done after its call has returned: the report
and the standard log say which method it is. A method that returns another awaitable, or a future,
ends with its call; that is logged as a warning.

The fields of a spec that are functions read a :class:`MethodCall`. If one raises, that is logged as
an error, and the step (or the run) continues without a log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tapps_otel.instrumentation.method_call import MethodCall

if TYPE_CHECKING:
    from pathlib import Path

    from tapps_otel.log.artifacts import Artifact

__all__ = ["Adapter", "ExecutorSpec"]

T = TypeVar("T")
Reader = Callable[[MethodCall], T]


def _none(_: MethodCall) -> None:
    return None


def _false(_: MethodCall) -> bool:
    return False


def _no_files(_: MethodCall) -> Iterable[Artifact]:
    return ()


def _no_values(_: MethodCall) -> Mapping[str, Any]:
    return {}


def _completed(_: MethodCall) -> str:
    return "completed"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """How to read ids, names and outcomes from the calls of an executor.

    :ivar executor: its name, for the log's ``workflow`` field
    :ivar run_id: the id of a run; where it is ``None``, one is made from the run's name. An id that
        already has a log becomes ``<id>.2``
    :ivar run_name: the name of the workflow; by default, the executor's
    :ivar about: what else to write into the log's ``workflow`` field, JSON-native
    :ivar inputs: the inputs of a run, JSON-native
    :ivar root: the folder under which logs are kept, unless a setting names another
    :ivar resumes: whether this call resumes the run of that id, instead of starting one
    :ivar outcome: how a run ended whose method returned: ``completed``, ``failed``, ``cancelled``
        or ``paused``; any other word counts as ``failed`` and is kept as an attribute
    :ivar error: why a run failed, in words
    :ivar step_id: the id of a step, equal in each of its attempts
    :ivar agent: who executes a step
    :ivar action: what a step does
    :ivar fields: everything that defines a step, JSON-native: the history shows when it changes
    :ivar artifacts: files that a step created: paths, or summaries
    :ivar skipped: why a step did nothing, if it did nothing
    """

    executor: str
    run_id: Reader[str | None] = _none
    run_name: Reader[str | None] = _none
    about: Reader[Mapping[str, Any]] = _no_values
    inputs: Reader[Mapping[str, Any]] = _no_values
    root: Reader[Path | None] = _none
    resumes: Reader[bool] = _false
    outcome: Reader[str] = _completed
    error: Reader[str | None] = _none
    step_id: Reader[str]
    agent: Reader[str | None] = _none
    action: Reader[str | None] = _none
    fields: Reader[Any] = _none
    artifacts: Reader[Iterable[Artifact]] = _no_files
    skipped: Reader[str | None] = _none


@dataclass(frozen=True, kw_only=True)
class ExecutorSpec(Adapter):
    """Which methods of an executor's class to instrument, and how to read their calls.

    :ivar run: name of the method that executes a run
    :ivar step: name of the method that executes a step
    """

    run: str
    step: str
