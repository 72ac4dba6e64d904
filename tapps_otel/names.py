"""Names: of runs, of steps, of files, of span attributes."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from random import Random
from typing import Final

from tapps_otel.errors import InvalidIdError

__all__ = [
    "ATTR",
    "NO_RUN",
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
]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_ESCAPES = str.maketrans({"/": "%2F", "#": "%23", "%": "%25"})
# In place of a run's id, where spans are captured that are of no run. No new run gets this name.
NO_RUN: Final = "traces"


class ATTR:
    """Span attribute names (all ours are ``tapps.*``; the rest is stable semantic conventions)."""

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
    ARTIFACT: Final = "tapps.artifact"  # the stem of an artifact's own attributes
    REASON: Final = "tapps.reason"
    QUESTION: Final = "tapps.question"
    NAME: Final = "tapps.annotation.name"
    RETRY_IN: Final = "tapps.retry_in"  # seconds
    EXECUTOR_STATUS: Final = "tapps.executor.status"  # a foreign executor's own word
    VARIABLES: Final = "tapps.executor.variables"  # names of the variables that it holds
    LINK: Final = "tapps.link"  # on a link: why it is there
    MARKER: Final = "tapps.marker"  # on a span that only says that another one has begun
    ERROR_TYPE: Final = "error.type"
    EXCEPTION_TYPE: Final = "exception.type"
    EXCEPTION_MESSAGE: Final = "exception.message"
    EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
    FUNCTION: Final = "code.function.name"
    FILE: Final = "code.file.path"


def is_workflow_id(text: object) -> bool:
    """Whether ``text`` can name a run and, unchanged, its log file."""
    return (
        isinstance(text, str) and _ID.fullmatch(text) is not None and not text.endswith(".events")
    )


def check_workflow_id(text: object) -> str:
    """Give ``text`` back if it can name a run.

    :raises InvalidIdError: otherwise; nothing has touched the file system by then
    """
    if not is_workflow_id(text):
        raise InvalidIdError(text)
    return str(text)


def new_workflow_id(name: str, timestamp: str) -> str:
    """Make ``<name>-<UTC time>-<8 hex>``, unique by its random end.

    :param timestamp: RFC 3339, UTC
    """
    stem = safe_file_name(name)[:96]
    at = timestamp[:19].replace("-", "").replace(":", "")
    return f"{stem}-{at}-{os.urandom(4).hex()}"


def log_name(workflow_id: str) -> str:
    """Name of a run's log, and of the run for people: its id, where that can name a file.

    An executor's own id may be anything: it gets a safe name, unique by a hash.
    """
    if is_workflow_id(workflow_id):
        return workflow_id
    digest = sha256(workflow_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{safe_file_name(workflow_id)[:96]}-{digest[:16]}"


def safe_file_name(text: str) -> str:
    """Reduce ``text`` to what a run id may hold; not unique."""
    return _UNSAFE.sub("-", text).strip("-._") or "run"


def escape(name: str) -> str:
    """Percent-escape the characters of ``name`` that mean something in a step id."""
    return name.translate(_ESCAPES)


def join_step_id(parent: str | None, escaped: str, number: int) -> str:
    """Name a place: ``draft``, ``draft#2``, ``outer/inner#3``."""
    own = escaped if number == 1 else f"{escaped}#{number}"
    return own if parent is None else f"{parent}/{own}"


def number_in(step_id: str) -> int:
    """The number that :func:`join_step_id` gave."""
    _, hash_sign, number = step_id.rpartition("#")
    return int(number) if hash_sign and number.isdecimal() else 1


def parent_of(step_id: str) -> str | None:
    """Step id of the enclosing step, ``None`` for a step of the workflow itself."""
    head, slash, _ = step_id.rpartition("/")
    return head if slash else None


# Ids need to be unique, not secret; a generator of our own costs half of a system call and is not
# disturbed by programs that seed the global one. A forked child must not repeat its parent's.
_random = Random(os.urandom(32))  # noqa: S311 - not a secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(32)))


def new_trace_id() -> str:
    """32 hex digits, never all zero (W3C Trace Context, section 3.2.2.3)."""
    return f"{_random.getrandbits(128) or 1:032x}"


def marker_span_id(trace_id: str, span_id: str) -> str:
    """Id of the marker that says that this span has begun: of its own, and always the same."""
    return sha256(f"marker {trace_id} {span_id}".encode()).hexdigest()[:16]


def new_span_id() -> str:
    """16 hex digits, never all zero (W3C Trace Context, section 3.2.2.4)."""
    return "%016x" % (_random.getrandbits(64) or 1)
