"""The public, validated model of an event, and its JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET
from pydantic import BaseModel, ConfigDict, Field

from tapps_otel import clock
from tapps_otel.log import files as _files
from tapps_otel.log.encrypted import decrypt_event
from tapps_otel.log.event import decode, readable
from tapps_otel.log.reader import Checker, lines, raise_if_damaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tapps_otel.encryption import Codec
    from tapps_otel.log.event import Event

__all__ = ["WorkflowEvent", "json_schema", "read_model"]

_NULLABLE = frozenset({"agent", "action", "definition"})  # null in a line means unknown
_ANY = frozenset({"inputs", "result"})


class WorkflowEvent(BaseModel):
    """One line of a log. A field that the line does not have is ``None``.

    Unknown fields of the line are kept, as attributes and in ``model_extra``.
    """

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    v: int
    """Major version of the format."""
    seq: int
    """1, 2, 3 ... in the order of the file, without gaps or repetitions."""
    event_type: str
    """What happened: workflow_start, workflow_resume, workflow_end, step_start, step_finish,
    step_fail, step_skip, annotation, span, span_start, log_repair or log_gap."""
    workflow_id: str
    """Id of the run."""
    timestamp: str
    """Time as RFC 3339 UTC with nine digits and Z: the wall clock at the execution's start, plus
    what has passed since. A label: seq gives the order."""
    wall_time: str | None = None
    """Wall clock, in the form of timestamp, where it was set since the execution began."""
    trace_id: str | None = None
    """Id of the OpenTelemetry trace, 32 hex digits."""
    span_id: str | None = None
    """Id of the OpenTelemetry span that the event belongs to, 16 hex digits."""
    parent_span_id: str | None = None
    """Id of that span's parent, 16 hex digits."""
    execution: int
    """Number of the execution of the run: 1 is the first, 2 the first resume."""
    step_id: str | None = None
    """Place of the step in the run: draft, draft#2, outer/inner#3."""
    step: str | None = None
    """Name of the step."""
    agent: str | None = None
    """Agent that executes the step; null if unknown."""
    action: str | None = None
    """Action of the step; null if unknown."""
    attempt: int | None = None
    """Number of the attempt of the step: 1, 2, ..."""
    order: int | None = None
    """n for the n-th ordered call of that name in its scope."""
    key: str | None = None
    """Key that the user gave the call."""
    retry_in_ns: int | None = None
    """Delay before the next attempt, ns."""
    caused_by: list[str] | None = None
    """The step_ids of the inner steps whose exception left this scope."""
    name: str | None = None
    """Name of an annotation."""
    reason: str | None = None
    """Reason for a skip, or for an end that did not come from the workflow's code."""
    question: str | None = None
    """Question that a paused run or step asks."""
    answer_schema: dict[str, Any] | None = None
    """JSON Schema of the answers that fit a pause."""
    until: str | None = None
    """Until when a pause waits at most, in the form of timestamp; of a run, the earliest of its
    pauses."""
    answered: dict[str, Any] | None = None
    """Who ended a pause from outside: by, and user, host and pid of that process."""
    status: str | None = None
    """running, completed, failed, timeout, cancelled, interrupted, skipped or paused."""
    error: dict[str, Any] | None = None
    """The exception: type (module-qualified), message, bases (of its class), stack, args,
    attributes, notes, cause, context, suppress_context, exceptions (of a group), and lost: what
    could not be kept."""
    artifacts: list[dict[str, Any]] | None = None
    """Files that the step produced: name, path, sha256, bytes, media_type; never their content."""
    inputs: Any = None
    """Arguments as JSON."""
    inputs_blob: str | None = None
    """SHA-256 of large inputs, which are in a file of that name next to the log."""
    inputs_digest: str | None = None
    """SHA-256 of the canonical inputs."""
    definition: str | None = None
    """16 hex digits of the digest of the function's source; null without source."""
    result: Any = None
    """Return value of the step or the workflow as JSON."""
    result_blob: str | None = None
    """SHA-256 of a large result, which is in a file of that name next to the log."""
    result_omitted: str | None = None
    """Why the result is not stored."""
    duration_ns: int | None = None
    """Duration by the monotonic clock, ns; the end is the start's timestamp plus this."""
    attributes: dict[str, Any] | None = None
    """Attributes: JSON scalars or lists of them, without nesting. Of a large span, what it used."""
    otel: dict[str, Any] | None = None
    """What a byte-identical span needs beyond the other fields."""
    otel_blob: str | None = None
    """SHA-256 of a large otel field, which is in a file of that name next to the log."""
    resource: dict[str, Any] | None = None
    """OpenTelemetry resource."""
    workflow: dict[str, Any] | None = None
    """The workflow: name, definition, where its code is, the step that called it, and the run that
    it was forked from, if any."""
    process: dict[str, Any] | None = None
    """Process of the execution: pid, host, boot id, durability, versions."""
    origin: dict[str, Any] | None = None
    """In a fork, the event that this is a copy of: workflow_id, seq and sha."""
    late: bool | None = None
    """True if the event was written after the moment that it describes, or after its run's end."""
    unsynced: int | None = None
    """Of an event that is synced: number of lines before it that no sync had covered yet when it
    was written."""
    damage: list[tuple[int, int, str]] | None = None
    """Bytes that the log declares as damaged: [offset, length, SHA-256]."""
    encrypted: dict[str, str] | None = None
    """Inputs, inputs_digest, result and details of the error, encrypted: key (its id), data
    (base64)."""
    sha: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the previous line's sha and this line's bytes before its last 75, hex."""

    @property
    def time_ns(self) -> int:
        """``timestamp`` as ns since 1970 UTC.

        :raises ValueError: it is not a time of the log's format
        """
        return clock.parse_timestamp(self.timestamp)

    @classmethod
    def from_line(cls, line: bytes, *, codec: Codec | None = None) -> WorkflowEvent:
        """Decode one line, with or without newline. The hash chain is not verified.

        :param codec: decrypts what is encrypted, as far as it can
        :raises ValueError: it is not an event of this format
        """
        event = decode(line)  # strict about types: pydantic would accept "1" for 1
        fields = readable(line)
        if event.encrypted is not UNSET and codec is not None:
            decrypt_event(event, codec)
            fields |= _decrypted(event)
        return cls.model_validate(fields)


def _decrypted(event: Event) -> dict[str, Any]:
    """The fields that an event hid."""
    found: dict[str, Any] = {
        name: readable(bytes(value))
        for name in _ANY
        if (value := getattr(event, name)) is not UNSET
    }
    for name in ("inputs_digest", "error"):
        if (value := getattr(event, name)) is not UNSET:
            found[name] = value
    return found


def read_model(
    path: Path,
    workflow_id: str,
    *,
    checker: Checker | None = None,
    codec: Codec | None = None,
) -> Iterator[WorkflowEvent]:
    """Yield the events of a log as models, each once the chain has verified it.

    This is slower than :func:`tapps_otel.log.reader.read`, but keeps unknown fields. A torn end is
    ignored.

    :param checker: pass one to learn the state of the chain
    :param codec: decrypts what is encrypted, as far as it can
    :raises FileNotFoundError: no such file
    :raises LogDamagedError: the log is damaged; raised after the events before the damage
    :raises LogVersionError: the log has a newer format
    """
    checker = checker or Checker(path, workflow_id)
    with _files.system().open_read(path) as file:
        for line in lines(file):
            if checker.feed(line) is not None:
                yield WorkflowEvent.from_line(line, codec=codec)
    raise_if_damaged(checker, path)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one line."""
    schema = WorkflowEvent.model_json_schema()
    for name, field in schema["properties"].items():
        if "default" in field:
            del field["default"]  # absent and null are different
        if name not in _NULLABLE | _ANY and "anyOf" in field:
            kind = next(one for one in field.pop("anyOf") if one.get("type") != "null")
            field.update(kind)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
