"""Names of runs, steps, files and span attributes, and their ids."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Final

from tapps_otel.errors import InvalidIdError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ATTR",
    "LAST_RUN",
    "MOST_NESTED",
    "NO_RUN",
    "PRUNED",
    "RESERVED",
    "SPANS",
    "check_workflow_id",
    "escape",
    "is_workflow_id",
    "join_step_id",
    "log_name",
    "marker_span_id",
    "new_span_id",
    "new_trace_id",
    "new_workflow_id",
    "number_in",
    "parent_of",
    "safe_file_name",
    "steps_around",
    "use_ids",
    "without_numbers",
]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NUMBER = re.compile(r"#\d+(?=/|$)")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_ESCAPES = str.maketrans({"/": "%2F", "#": "%23", "%": "%25"})
# Takes the place of a run's id for captured spans outside any run. No new run gets this name.
NO_RUN: Final = "traces"
LAST_RUN: Final = "@last"  # means the run that was written to last; no id begins with this sign
PRUNED: Final = "pruned"  # the log of the runs that were removed; no run gets this name either
RESERVED: Final = frozenset({NO_RUN, PRUNED})
SPANS: Final = "spans"  # the `source` of a workflow that is known by the spans of a library
MOST_NESTED: Final = 64  # steps: each level takes frames of the stack, and makes step ids longer


class ATTR:
    """Span attribute names: ``tapps.*``, and stable OpenTelemetry semantic conventions."""

    WORKFLOW_ID: Final = "tapps.workflow.id"
    WORKFLOW_NAME: Final = "tapps.workflow.name"
    EXECUTION: Final = "tapps.execution"
    STEP_ID: Final = "tapps.step.id"
    STEP_NAME: Final = "tapps.step.name"
    AGENT: Final = "tapps.agent.name"
    ACTION: Final = "tapps.action"
    ATTEMPT: Final = "tapps.attempt"
    STATUS: Final = "tapps.status"
    SEQ: Final = "tapps.seq"
    SEQ_FIRST: Final = "tapps.seq.first"
    SEQ_LAST: Final = "tapps.seq.last"
    HEAD_SHA: Final = "tapps.log.sha"
    ARTIFACTS: Final = "tapps.artifacts"
    ARTIFACT: Final = "tapps.artifact"  # prefix of the attributes of one artifact
    REASON: Final = "tapps.reason"
    QUESTION: Final = "tapps.question"
    UNTIL: Final = "tapps.until"  # when a pause stops to wait, RFC 3339 UTC
    ANSWERED_BY: Final = "tapps.answered.by"
    NAME: Final = "tapps.annotation.name"
    RETRY_IN: Final = "tapps.retry_in"  # seconds
    CHILD_WORKFLOW_ID: Final = "tapps.child.workflow_id"  # the run that a step calls
    CHILD_LOG_DIR: Final = "tapps.child.log_dir"  # of that run, if it is not that of the step's run
    PARENT_WORKFLOW_ID: Final = "tapps.parent.workflow_id"  # the run whose step calls this one
    PARENT_STEP_ID: Final = "tapps.parent.step_id"
    ENGINE: Final = "tapps.engine"  # the executor that a step was submitted to
    BROKEN_WITH: Final = "tapps.engine.broken_with"  # other steps that its executor had, broken
    WORKER_HOST: Final = "tapps.worker.host"
    WORKER_PID: Final = "tapps.worker.pid"
    WORKER_DURATION: Final = "tapps.worker.duration"  # seconds, by the worker's clock
    WORKER_WAIT: Final = "tapps.worker.wait"  # seconds of the step's time outside the worker
    EXECUTOR_STATUS: Final = "tapps.executor.status"  # a third-party executor's own word
    VARIABLES: Final = "tapps.executor.variables"  # names of the executor's variables
    VARIABLES_OMITTED: Final = "tapps.executor.variables_omitted"  # names: values not in the log
    LINK: Final = "tapps.link"  # on a link: its purpose
    MARKER: Final = "tapps.marker"  # on a span that announces that another one has begun
    ERROR_TYPE: Final = "error.type"
    EXCEPTION_TYPE: Final = "exception.type"
    EXCEPTION_MESSAGE: Final = "exception.message"
    EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
    FUNCTION: Final = "code.function.name"
    FILE: Final = "code.file.path"


def is_workflow_id(text: object) -> bool:
    """Return whether ``text`` can name a run and, unchanged, its log file."""
    return (
        isinstance(text, str) and _ID.fullmatch(text) is not None and not text.endswith(".events")
    )


def check_workflow_id(text: object) -> str:
    """Return ``text`` if it can name a run.

    :raises InvalidIdError: it cannot; the file system was not touched
    """
    if not is_workflow_id(text):
        raise InvalidIdError(text)
    return str(text)


def new_workflow_id(name: str, timestamp: str) -> str:
    """Return ``<name>-<UTC time>-<8 hex digits>``, unique by its random end.

    :param timestamp: RFC 3339, UTC
    """
    stem = safe_file_name(name)[:96]
    at = timestamp[:19].replace("-", "").replace(":", "")
    return f"{stem}-{at}-{_random.getrandbits(32):08x}"


def log_name(workflow_id: str) -> str:
    """Return the name of a run and its log: its id, if that can name a file.

    The id of a third-party executor may be any text: it gets a safe name, unique by a hash.
    """
    if is_workflow_id(workflow_id):
        return workflow_id
    digest = sha256(workflow_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{safe_file_name(workflow_id)[:96]}-{digest[:16]}"


def safe_file_name(text: str) -> str:
    """Reduce ``text`` to the characters of a run id. The result is not unique."""
    return _UNSAFE.sub("-", text).strip("-._") or "run"


def escape(name: str) -> str:
    """Percent-escape the characters of ``name`` that have a meaning in a step id."""
    return name.translate(_ESCAPES)


def join_step_id(parent: str | None, escaped: str, number: int) -> str:
    """Return the id of a step: ``draft``, ``draft#2``, ``outer/inner#3``."""
    own = escaped if number == 1 else f"{escaped}#{number}"
    return own if parent is None else f"{parent}/{own}"


def number_in(step_id: str) -> int:
    """Return the number in a step id, 1 if it has none."""
    _, hash_sign, number = step_id.rpartition("#")
    return int(number) if hash_sign and number.isdecimal() else 1


def without_numbers(step_id: str) -> str:
    """Return a step id without the numbers of equal names: ``outer/inner``."""
    return _NUMBER.sub("", step_id) if "#" in step_id else step_id


def parent_of(step_id: str) -> str | None:
    """Return the id of the enclosing step, ``None`` for a step of the workflow itself."""
    head, slash, _ = step_id.rpartition("/")
    return head if slash else None


def steps_around(step_id: str) -> Iterator[str]:
    """Yield the ids of the steps that enclose this one, the nearest first.

    No more than can be nested: a made-up id may have any number of slashes.
    """
    outer = parent_of(step_id)
    for _ in range(MOST_NESTED):
        if outer is None:
            return
        yield outer
        outer = parent_of(outer)


# Ids must be unique, not secret. A separate generator costs half of a system call, and is not
# affected by programs that seed the global one. A forked child must not repeat its parent's ids.
_random = Random(os.urandom(32))  # noqa: S311 - not a secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(32)))


@contextmanager
def use_ids(generator: Random) -> Iterator[None]:
    """Take ids from ``generator`` in the whole process within the context. For tests."""
    global _random  # noqa: PLW0603 - the one switch between real ids and a test's
    before, _random = _random, generator
    try:
        yield
    finally:
        _random = before


def new_trace_id() -> str:
    """Return 32 hex digits, never all zero (W3C Trace Context, section 3.2.2.3)."""
    return f"{_random.getrandbits(128) or 1:032x}"


def marker_span_id(trace_id: str, span_id: str) -> str:
    """Return the id of the marker span that announces this span: always the same one."""
    return sha256(f"marker {trace_id} {span_id}".encode()).hexdigest()[:16]


def new_span_id() -> str:
    """Return 16 hex digits, never all zero (W3C Trace Context, section 3.2.2.4)."""
    return (_random.getrandbits(64) or 1).to_bytes(8, "big").hex()  # twice as fast as formatting
