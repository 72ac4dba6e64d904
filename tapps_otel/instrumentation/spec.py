"""A short description of an executor, by which its runs are logged and traced. Pure.

An executor is any class with a method that carries a run out, and one that carries out a step,
sync or async, the steps perhaps in the threads of a pool::

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
            run_id=lambda seen: seen.arguments["name"],
            step_id=lambda seen: seen.arguments["task"].name,
        ),
    )

A plain method that gives a coroutine (a decorated one, often) ends when that has been awaited.
Generators are refused, by the report and in the standard log: they work after their call has
returned. A method that gives something else to wait for, as a future, ends with its call, and that
is warned of.

What the spec reads is read from a :class:`Seen`. A reader that raises is told of in the standard
log, and its step (or run) goes on unlogged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    from tapps_otel.log.artifacts import Artifact

__all__ = ["ExecutorSpec", "Reading", "Seen"]

T = TypeVar("T")
Reader = Callable[["Seen"], T]


@dataclass(slots=True)
class Seen:
    """A call of an executor's method, as a spec's readers see it.

    :ivar executor: the object whose method it is
    :ivar arguments: by name, defaults included
    :ivar result: what it returned, once it has
    """

    executor: Any
    arguments: Mapping[str, Any]
    result: Any = None


def _nothing(_: Seen) -> Any:
    return None


def _no_files(_: Seen) -> Any:
    return ()


def _no_values(_: Seen) -> Mapping[str, Any]:
    return {}


def _completed(_: Seen) -> str:
    return "completed"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Where ids, names and outcomes of an executor's runs and steps are read.

    :ivar executor: its name, in the log's ``workflow`` field
    :ivar run_id: of a run; ``None``, and without it: one is made from its name. An id that has a
        log already becomes ``<id>.2``
    :ivar run_name: the workflow's name; without it, the executor's
    :ivar about: what else the log's ``workflow`` field is to say, JSON-native
    :ivar inputs: of a run, JSON-native
    :ivar root: the logs are under it, unless a setting says otherwise
    :ivar resumes: whether this call goes on with the run of that id, instead of beginning one
    :ivar outcome: how a call that returned has ended the run: ``completed``, ``failed``,
        ``cancelled``, ``paused``; another word counts as ``failed`` and is kept as an attribute
    :ivar error: why it failed, in words, where it did
    :ivar step_id: of a step; the same for each of its tries
    :ivar agent: who carries it out
    :ivar action: what it does
    :ivar fields: all that defines a step, JSON-native: a change of it shows in the history
    :ivar artifacts: files that it made: paths, or summaries
    :ivar skipped: why a step that returned has done nothing, if it has not
    """

    executor: str
    run_id: Reader[str | None] = _nothing
    run_name: Reader[str | None] = _nothing
    about: Reader[Mapping[str, Any]] = _no_values
    inputs: Reader[Mapping[str, Any]] = _no_values
    root: Reader[Path | None] = _nothing
    resumes: Reader[bool] = _nothing
    outcome: Reader[str] = _completed
    error: Reader[str | None] = _nothing
    step_id: Reader[str]
    agent: Reader[str | None] = _nothing
    action: Reader[str | None] = _nothing
    fields: Reader[Any] = _nothing
    artifacts: Reader[Iterable[Artifact]] = _no_files
    skipped: Reader[str | None] = _nothing


@dataclass(frozen=True, kw_only=True)
class ExecutorSpec(Reading):
    """A :class:`Reading`, and which methods to watch.

    :ivar run: name of the method that carries a run out
    :ivar step: name of the method that carries a step out
    """

    run: str
    step: str
