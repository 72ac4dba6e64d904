"""One event as other programs see it: the public, validated model, and its JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from tapps_otel import clock
from tapps_otel.log import files as _files
from tapps_otel.log.event import decode, loads
from tapps_otel.log.reader import Checker, lines, refuse_damage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["WorkflowEvent", "json_schema", "read_model"]

_NULLABLE = frozenset({"agent", "action", "definition"})  # null in a line means: unknown
_ANY = frozenset({"inputs", "result"})


class WorkflowEvent(BaseModel):
    """One line of a log. A field that does not stand in the line is ``None``.

    Fields that this version does not know are kept, as attributes and in ``model_extra``.
    """

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    v: int
    """Major version of the format."""
    seq: int
    """1, 2, 3 ... in the order of the file, with no gap and no repeat."""
    event_type: str
    """What happened: workflow_start, workflow_resume, workflow_end, step_start, step_finish,
    step_fail, step_skip, annotation, span, log_repair or log_gap."""
    workflow_id: str
    """The run."""
    timestamp: str
    """Wall clock: RFC 3339 UTC with nine digits and Z. A label; the order is that of seq."""
    trace_id: str | None = None
    """OpenTelemetry trace, 32 hex digits."""
    span_id: str | None = None
    """OpenTelemetry span that the event belongs to, 16 hex digits."""
    parent_span_id: str | None = None
    """That span's parent, 16 hex digits."""
    execution: int
    """Which process's go at the run: 1 is the first, 2 the first resume."""
    step_id: str | None = None
    """The step's place in the run: draft, draft#2, outer/inner#3."""
    step: str | None = None
    """The step's name."""
    agent: str | None = None
    """Who carries the step out; null if unknown."""
    action: str | None = None
    """What the step does; null if unknown."""
    attempt: int | None = None
    """Which try of the step: 1, 2, ..."""
    order: int | None = None
    """n when it was the scope's n-th ordered call of that name."""
    key: str | None = None
    """The user's own key of the call."""
    retry_in_ns: int | None = None
    """Another try follows after this wait, ns."""
    caused_by: list[str] | None = None
    """The step_ids whose exception left this scope."""
    name: str | None = None
    """Name of a user's annotation."""
    reason: str | None = None
    """Why a step was skipped, in the user's words."""
    question: str | None = None
    """What a paused run waits for, in the user's words."""
    status: str | None = None
    """running, completed, failed, timeout, cancelled, interrupted, skipped or paused."""
    error: dict[str, Any] | None = None
    """What was raised: type (module-qualified), message, stack, args, attributes."""
    artifacts: list[dict[str, Any]] | None = None
    """Files that the step made: name, path, sha256, bytes, media_type; never their content."""
    inputs: Any = None
    """Arguments as JSON."""
    inputs_blob: str | None = None
    """SHA-256 of large inputs, which stand in a file of that name beside the log."""
    inputs_digest: str | None = None
    """SHA-256 of the canonical inputs."""
    definition: str | None = None
    """16 hex digits of the digest of the function's source; null without source."""
    result: Any = None
    """What the step, or the workflow, returned, as JSON."""
    result_blob: str | None = None
    """SHA-256 of a large result, which stands in a file of that name beside the log."""
    result_omitted: str | None = None
    """Why the result is not there."""
    duration_ns: int | None = None
    """By the monotonic clock, ns; the end is the start's timestamp and this."""
    attributes: dict[str, Any] | None = None
    """Flat: JSON scalars or lists of them."""
    otel: dict[str, Any] | None = None
    """What a byte-identical span needs beyond the rest."""
    otel_blob: str | None = None
    """SHA-256 of a large otel field, which stands in a file of that name beside the log."""
    resource: dict[str, Any] | None = None
    """OpenTelemetry resource."""
    workflow: dict[str, Any] | None = None
    """The workflow's name and import path."""
    process: dict[str, Any] | None = None
    """Of the execution: pid, host, boot id, durability, versions."""
    late: bool | None = None
    """True when it was written after the moment it tells of."""
    damage: list[tuple[int, int, str]] | None = None
    """Bytes that the log declares as damaged: [offset, length, SHA-256]."""
    sha: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the previous line's sha and this line's bytes before its last 75, hex."""

    @property
    def time_ns(self) -> int:
        """``timestamp`` as ns since 1970 UTC.

        :raises ValueError: it is not the time that the format asks for
        """
        return clock.parse_timestamp(self.timestamp)

    @classmethod
    def from_line(cls, line: bytes) -> WorkflowEvent:
        """Read one line, its newline optional. The chain is not checked: ``seq`` alone is a claim.

        :raises ValueError: not an event of this format; what is wrong is said
        """
        decode(line)  # strict in types, where pydantic would read "1" as 1
        return cls.model_validate(loads(line))


def read_model(
    path: Path, workflow_id: str, *, checker: Checker | None = None
) -> Iterator[WorkflowEvent]:
    """Stream a log's events as models, in order, each only once the chain vouches for it.

    Slower than :func:`tapps_otel.log.reader.read`, and with the fields that it passes over. A torn
    end is passed over in silence.

    :param checker: holds where the chain stands, for a caller that wants to know
    :raises FileNotFoundError: no such file
    :raises LogDamagedError: at the place of the damage, after the events before it
    :raises LogVersionError: a newer format
    """
    checker = checker or Checker(path, workflow_id)
    with _files.system().open_read(path) as file:
        for line in lines(file):
            if checker.feed(line) is not None:
                yield WorkflowEvent.from_line(line)
    refuse_damage(checker, path)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one line."""
    schema = WorkflowEvent.model_json_schema()
    for name, field in schema["properties"].items():
        if "default" in field:
            del field["default"]  # that a field is absent says more than that it is null
        if name not in _NULLABLE | _ANY and "anyOf" in field:
            kind = next(one for one in field.pop("anyOf") if one.get("type") != "null")
            field.update(kind)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
