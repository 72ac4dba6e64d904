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
generator does its work after its call has returned: it needs ``streams=True``, else it is refused,
and the report and the standard log say which method it is. A method that returns another awaitable,
or a future, ends with its call; that is logged as a warning.

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
    from tapps_otel.log.store import RunSummary

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


def _new(_: MethodCall, __: RunSummary) -> str:
    return "new"


def _executor(call: MethodCall) -> object:
    return call.executor


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
    :ivar thread: the id of what a run is a turn of, as a conversation: its runs are ``<thread>``,
        ``<thread>.2`` and so on. It takes the place of ``run_id`` and ``resumes``
    :ivar continues: asked with the call and the summary of the thread's last run, if there is one:
        ``resume`` continues that run, ``new`` starts another, ``fork`` too, and notes where it
        comes from, ``abandon_and_new`` ends the last one as cancelled before
    :ivar outcome: how a run ended whose method returned: ``completed``, ``failed``, ``cancelled``
        or ``paused``; any other word counts as ``failed`` and is kept as an attribute
    :ivar raised: how a run ended whose method raised ``call.error``, in the same words; ``None``:
        as the exception says
    :ivar error: why a run failed, in words
    :ivar question: what a paused run, or a paused step, asks
    :ivar step_id: the id of a step, equal in each of its attempts
    :ivar step_name: its name, for spans and metrics: few different words. By default, its id
    :ivar attributes: of a step, when it starts: JSON scalars, or lists of them
    :ivar runner: the object whose method executes the run that a step belongs to, for steps in
        threads that do not know; by default, the object whose method executes the step
    :ivar status: how an attempt of a step ended that returned, or raised ``call.error``: as
        ``outcome``, or ``skipped`` or ``timeout``; ``None``: as that says
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
    thread: Reader[str | None] = _none
    continues: Callable[[MethodCall, RunSummary], str] = _new
    outcome: Reader[str] = _completed
    raised: Reader[str | None] = _none
    error: Reader[str | None] = _none
    question: Reader[str | None] = _none
    step_id: Reader[str]
    step_name: Reader[str | None] = _none
    attributes: Reader[Mapping[str, Any]] = _no_values
    runner: Reader[object] = _executor
    status: Reader[str | None] = _none
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
    :ivar step_class: the class that has this method, or ``package.module:Class``; by default, the
        one that has the method which executes a run
    :ivar streams: whether these methods may be generators, or return one, sync or async. What each
        ``next`` does is inside the run, or step; the code that consumes the items is outside
    """

    run: str
    step: str
    step_class: type[Any] | str | None = None
    streams: bool = False
