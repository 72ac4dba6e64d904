"""What driver and worker send each other about a call, besides the call itself: JSON. Pure.

An answer is one line of JSON, followed by a line for each span of a library that the worker made.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from tapps_otel.log.event import Event, decode, decode_as, json_of

__all__ = [
    "Answer",
    "Note",
    "Origin",
    "Task",
    "read_answer",
    "read_origin",
    "read_task",
    "write_answer",
    "write_origin",
    "write_task",
]

_SPANS: Final = frozenset({"span", "span_start"})


class Origin(Struct, omit_defaults=True, frozen=True, eq=False):
    """What a worker has to know of a run: one for all calls of it.

    :ivar workflow: name of the workflow
    :ivar log_dir: of the run, on the driver's machine
    :ivar machine: on which the driver is: host and boot
    :ivar pid: of the driver
    :ivar owned: the worker executes what this driver submits, and nothing else
    :ivar environment: variables that say where spans are sent, if the worker has none of its own
    :ivar settings: settings that say that
    :ivar hides_values: values must not be in messages of errors: a codec encrypts them
    """

    workflow_id: str
    workflow: str
    execution: int
    trace_id: str
    log_dir: str
    machine: str
    pid: int
    owned: bool = False
    environment: dict[str, str] = {}
    settings: dict[str, Any] = {}
    hides_values: bool = False


class Task(Struct, omit_defaults=True):
    """What a worker has to know of a call.

    :ivar origin: JSON of its run's :class:`Origin`
    :ivar context: the context of OpenTelemetry, as variables of an environment
    :ivar modules: addresses of modules, for :func:`~tapps_otel.run.remote.call.Incoming`
    """

    origin: Raw
    step_id: str
    attempt: int
    span_id: str
    context: dict[str, str] = {}
    modules: dict[str, str] = {}


class Note(Struct):
    """An annotation that a step made.

    :ivar before_end_ns: how long before the end of its code
    """

    name: str
    attributes: dict[str, Any]
    before_end_ns: int


class Answer(Struct, omit_defaults=True):
    """What became of a call.

    :ivar status: of the attempt: ``completed``, ``skipped``, or what an exception makes of it
    :ivar result: JSON of a result that can be stored
    :ivar error: the exception, as the log describes it
    :ivar duration_ns: of its code, by the worker's clock
    :ivar definition: digest of the code of the step, as the worker has it
    :ivar notes: annotations, each a :class:`Note`
    :ivar notes_dropped: number of those that were too many
    :ivar spans_dropped: number of spans that were too many
    :ivar warnings: texts for the log of the program
    """

    host: str
    pid: int
    status: str = "failed"
    result: Raw = Raw(b"null")
    reason: str = ""
    error: dict[str, Any] | None = None
    duration_ns: int = 0
    definition: str | None = None
    artifacts: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    notes_dropped: int = 0
    spans_dropped: int = 0
    warnings: list[str] = []


_tasks = msgspec.json.Decoder(Task)
_origins = msgspec.json.Decoder(Origin)
_answers = msgspec.json.Decoder(Answer)


def write_origin(origin: Origin) -> Raw:
    """Write what a task has of its run."""
    return Raw(json_of(origin))


@lru_cache(maxsize=64)
def read_origin(data: bytes) -> Origin:
    """Read what a task has of its run.

    :raises ValueError: it is none, as of another version of this package
    """
    return decode_as(data, _origins)


def write_task(task: Task) -> bytes:
    """Write a task."""
    return json_of(task)


def read_task(data: bytes) -> Task:
    """Read a task.

    :raises ValueError: it is none, as of another version of this package
    """
    return decode_as(data, _tasks)


def write_answer(answer: Answer, spans: list[bytes]) -> bytes:
    """Write an answer.

    :param spans: events of spans, a line each
    :raises TypeError: a value is not of a JSON type
    """
    return b"\n".join((json_of(answer), *spans))


def read_answer(data: bytes) -> tuple[Answer, list[Event]]:
    """Read an answer, and its events of spans.

    :raises ValueError: it is none, as of another version of this package
    """
    first, *lines = bytes(data).split(b"\n")
    spans = [decode(line) for line in lines]
    if any(event.event_type not in _SPANS for event in spans):
        raise ValueError("an answer with events that are not of spans")
    return decode_as(first, _answers), spans
