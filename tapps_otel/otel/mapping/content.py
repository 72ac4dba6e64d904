"""What a span holds, as a function of the log's events alone. Pure.

The live span and the span that is rebuilt from the log get their content here, so that both are
identical to the byte. What a live span holds beyond that (put there by the user's code, a sampler,
a processor, or cut by a limit) is in the ``otel`` field of its events, values packed as JSON by
:func:`pack`. Defaults, which are left out there, are given here in brackets.

- Of the event that starts a span: ``flags``, W3C trace flags, null if no SDK made the span, and
  ``trace_state`` (both: as the scope's span; without a scope null and empty); ``parent_is_remote``
  (false); ``links`` (none).
- Of an execution's first event also: ``scope``, the instrumentation scope; ``limits`` of the
  provider (the SDK's defaults); ``resource_schema`` (none); ``aliases`` (none), see ``aliases.py``.
- Of the event that ends a span, as the span was just before: ``attributes`` in their order (those
  of :func:`start_attributes`); ``events`` (the log's; a number is the ``seq`` of one of them,
  a list is name, time, attributes and perhaps the number of dropped attributes of another);
  ``links`` (as at the start); ``name``; ``status``, code and description (unset); ``end_time``
  if the user's code ended it then (else the event ends it); ``dropped`` counts (0).
  Above 64 KiB all of it is in the blob that ``otel_blob`` names; ``omitted`` tells that it is lost.

A collector accepts a batch whole or not at all, and one text that is not UTF-8 or one number beyond
64 bits spoils it. So every value goes through :func:`attribute` or :func:`text`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from tapps_otel import clock
from tapps_otel.names import ATTR
from tapps_otel.otel.mapping.aliases import artifact_aliases, end_aliases, start_aliases
from tapps_otel.past.fold import FAILED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tapps_otel.log.event import Event
    from tapps_otel.otel.mapping.aliases import Aliases

__all__ = [
    "ERROR",
    "Attributes",
    "attribute",
    "end_attributes",
    "end_events",
    "end_ns",
    "error_type",
    "event_attributes",
    "interrupted_attributes",
    "pack",
    "span_name",
    "start_attributes",
    "status_of",
    "text",
    "time_of",
    "unpack",
    "workflow_name",
]

Scalar = str | bool | int | float
Attributes = dict[str, Scalar | tuple[Scalar, ...]]

ERROR: Final = 2  # the status code of OTLP
UNSET_STATUS: Final = 0
_TEXT_LIMIT: Final = 32_768  # characters; the log has the whole text, a collector need not
_ARTIFACTS: Final = 32  # events; more would displace other events of the span (the limit is 128)
_INT64: Final = 1 << 63
_BAD: Final = FAILED | {"interrupted"}
_INTERRUPTED: Final = "interrupted"
_last_second = ("", 0)


# ---------------------------------------------------------------- at the start


def workflow_name(event: Event) -> str | None:
    """Return the workflow's name in an execution's first event, else ``None``."""
    workflow = event.workflow
    return None if workflow is UNSET else str(workflow.get("name", ""))


def span_name(event: Event) -> str:
    """Return ``workflow article``, ``step draft``."""
    if event.step is UNSET:
        return f"workflow {text(workflow_name(event) or '')}"
    return f"step {text(event.step)}"


def start_attributes(event: Event, workflow: str | None, aliases: Aliases = ()) -> Attributes:
    """Return the attributes of the span that this event starts.

    :param workflow: name of the run's workflow, which a step's event does not have
    :param aliases: those of its execution
    """
    attributes: Attributes = {
        ATTR.EXECUTION: event.execution,
        ATTR.WORKFLOW_ID: text(event.workflow_id),
    }
    if workflow is not None:
        attributes[ATTR.WORKFLOW_NAME] = text(workflow)
    if event.step_id is not UNSET:
        _add_step(attributes, event)
    elif event.workflow is not UNSET:
        _add_code(attributes, str(event.workflow.get("path", "")))
        _add_parent(attributes, event.workflow.get("parent"))
    if event.attributes is not UNSET:
        _add_others(attributes, event.attributes)
    if aliases:  # last: attributes of the user win over them
        _add_others(attributes, start_aliases(aliases, event, workflow))
    return attributes


def _add_code(attributes: Attributes, path: str) -> None:
    """Add where the workflow's function is.

    :param path: ``package.module:name``, or ``/folder/file.py:name``
    """
    place, colon, function = path.rpartition(":")
    if not colon:
        return
    if "/" in place or "\\" in place:
        attributes[ATTR.FILE] = text(place)
        attributes[ATTR.FUNCTION] = text(function)
    else:
        attributes[ATTR.FUNCTION] = text(f"{place}.{function}")


def _add_parent(attributes: Attributes, parent: object) -> None:
    """Add which step of which run called this one."""
    if isinstance(parent, dict):
        _add(attributes, ATTR.PARENT_WORKFLOW_ID, parent.get("workflow_id"))
        _add(attributes, ATTR.PARENT_STEP_ID, parent.get("step_id"))


def _add_step(attributes: Attributes, event: Event) -> None:
    if event.attempt is not UNSET:
        attributes[ATTR.ATTEMPT] = event.attempt
    if event.agent is not UNSET and event.agent is not None:
        attributes[ATTR.AGENT] = text(event.agent)
    if event.action is not UNSET and event.action is not None:
        attributes[ATTR.ACTION] = text(event.action)
    attributes[ATTR.STEP_ID] = text(str(event.step_id))
    attributes[ATTR.STEP_NAME] = text(str(event.step))


# ---------------------------------------------------------------- while it runs


def event_attributes(event: Event) -> Attributes:
    """Return the attributes of a span's event."""
    attributes: Attributes = {}
    if event.seq:  # an event that waits for a failing log has none yet
        attributes[ATTR.SEQ] = event.seq
    if event.step_id is not UNSET:
        attributes[ATTR.STEP_ID] = text(event.step_id)
    if event.status is not UNSET:
        attributes[ATTR.STATUS] = text(event.status)
        if event.retry_in_ns is not UNSET:
            attributes[ATTR.RETRY_IN] = event.retry_in_ns / 1e9
    elif event.name is not UNSET:
        attributes[ATTR.NAME] = text(event.name)
    if event.reason is not UNSET:
        attributes[ATTR.REASON] = text(event.reason)
    if event.question is not UNSET:
        attributes[ATTR.QUESTION] = text(event.question)
    if event.until is not UNSET:
        attributes[ATTR.UNTIL] = text(event.until)
    if event.answered is not UNSET:
        _add(attributes, ATTR.ANSWERED_BY, event.answered.get("by"))
    if event.attributes is not UNSET and event.event_type not in _SPANS:
        _add_others(attributes, event.attributes)
    return attributes


# On these, the user's attributes are the span's, not the event's.
_SPANS: Final = frozenset(
    {"workflow_start", "workflow_resume", "workflow_end", "step_start", "step_finish", "step_fail"}
)


def time_of(event: Event) -> int:
    """Return the event's timestamp, ns since 1970 UTC.

    :raises ValueError: it is not a timestamp
    """
    global _last_second  # noqa: PLW0603 - most events share the second of the one before
    stamp = event.timestamp
    cached = _last_second  # read once: another thread may replace the pair meanwhile
    if stamp[:19] != cached[0] or len(stamp) != 30:
        whole = clock.parse_timestamp(stamp)
        cached = _last_second = (stamp[:19], whole - int(stamp[20:29]))
    return cached[1] + int(stamp[20:29])


# ---------------------------------------------------------------- at the end


def end_events(event: Event, aliases: Aliases = ()) -> Iterator[tuple[str, Attributes]]:
    """Yield name and attributes of the span's last events, all at :func:`end_ns`."""
    if event.artifacts is not UNSET:
        for one in event.artifacts[:_ARTIFACTS]:
            yield "tapps.artifact", _artifact(one, aliases)
    if event.error is not UNSET:
        yield "exception", _exception(event)
    yield event.event_type, event_attributes(event)


def end_attributes(
    event: Event, first_seq: int, sha: str | None = None, aliases: Aliases = ()
) -> Attributes:
    """Return the attributes that a span gets when it ends.

    :param first_seq: of the event that started it
    :param sha: of the ending event's line, on a workflow's span: with ``tapps.seq.last`` the head
        of the log
    :param aliases: of its execution
    """
    attributes: Attributes = {}
    if event.status is not UNSET:
        attributes[ATTR.STATUS] = text(event.status)
    if event.step_id is UNSET:  # a step's two are those of its events
        attributes[ATTR.SEQ_FIRST] = first_seq
        attributes[ATTR.SEQ_LAST] = event.seq
    if (kind := error_type(event)) is not None:
        attributes[ATTR.ERROR_TYPE] = kind
    if event.reason is not UNSET:
        attributes[ATTR.REASON] = text(event.reason)
    if event.artifacts is not UNSET and event.artifacts:
        attributes[ATTR.ARTIFACTS] = len(event.artifacts)
    if sha is not None:
        attributes[ATTR.HEAD_SHA] = sha
    if event.attributes is not UNSET:
        _add_others(attributes, event.attributes)
    if aliases:
        of_step = event.step_id is not UNSET
        _add_others(attributes, end_aliases(aliases, event.status, of_step=of_step))
    return attributes


def interrupted_attributes(head: tuple[int, int, str] | None, aliases: Aliases = ()) -> Attributes:
    """Return the attributes of an interrupted span's end.

    :param head: on a workflow's span: seq of the execution's first and last line, and the last
        one's sha
    :param aliases: of its execution
    """
    attributes: Attributes = {ATTR.STATUS: _INTERRUPTED}
    if head is not None:
        attributes[ATTR.SEQ_FIRST], attributes[ATTR.SEQ_LAST] = head[:2]
    attributes[ATTR.ERROR_TYPE] = _INTERRUPTED
    if head is not None:
        attributes[ATTR.HEAD_SHA] = head[2]
    attributes.update(end_aliases(aliases, _INTERRUPTED, of_step=head is None))
    return attributes


def status_of(event: Event) -> tuple[int, str | None]:
    """Return status code (of OTLP) and description of the span that this event ends.

    What failed, timed out, was cancelled or interrupted is an error. What completed, was skipped or
    paused leaves the status unset, as the conventions require.
    """
    if event.status not in _BAD:
        return UNSET_STATUS, None
    message = "" if event.error is UNSET else str(event.error.get("message") or "")
    return ERROR, text(message or str(event.status))


def end_ns(event: Event, start_ns: int) -> int:
    """Return when the span ends: by its duration, else by the event's timestamp."""
    if event.duration_ns is not UNSET:
        return start_ns + event.duration_ns
    return max(start_ns, time_of(event))


def error_type(event: Event) -> str | None:
    """Return the type of an ending event's error: its class, else the status.

    ``None`` if it has none.
    """
    if event.status not in _BAD:
        return None
    named = "" if event.error is UNSET else str(event.error.get("type") or "")
    return text(named or str(event.status))


def _exception(event: Event) -> Attributes:
    error = event.error if event.error is not UNSET else {}
    attributes: Attributes = {ATTR.SEQ: event.seq} if event.seq else {}
    for name, key in (
        (ATTR.EXCEPTION_TYPE, "type"),
        (ATTR.EXCEPTION_MESSAGE, "message"),
        (ATTR.EXCEPTION_STACKTRACE, "stack"),
    ):
        if error.get(key) is not None:
            attributes[name] = text(str(error[key]))
    return attributes


def _artifact(artifact: Mapping[str, Any], aliases: Aliases) -> Attributes:
    attributes: Attributes = {}
    for key, value in artifact.items():
        _add(attributes, f"{ATTR.ARTIFACT}.{text(str(key))}", value)
    _add_others(attributes, artifact_aliases(aliases, artifact))
    return attributes


# ---------------------------------------------------------------- values


def _add_others(attributes: Attributes, others: Mapping[str, Any]) -> None:
    """Add attributes of the user, or aliases; ours win, so that they are true."""
    for name, value in others.items():
        key = text(name)
        if key and key not in attributes:
            _add(attributes, key, value)


def _add(attributes: Attributes, name: str, value: object) -> None:
    if value is not None:
        attributes[name] = attribute(value)


def attribute(value: object) -> Scalar | tuple[Scalar, ...]:
    """Return a value as every SDK and collector accepts it; others become JSON."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else str(value)
    if isinstance(value, list | tuple) and (plain := _plain(value)) is not None:
        return plain
    return text(json.dumps(value, default=str, separators=(",", ":")))


def _plain(values: Sequence[object]) -> tuple[Scalar, ...] | None:
    """Return a list of one scalar type as a tuple; ``None`` for another list."""
    if len({type(one) for one in values}) > 1 or not all(
        isinstance(one, str | bool | int | float) for one in values
    ):
        return None
    plain = tuple(attribute(one) for one in values)
    # A number beyond 64 bits has become text, so its neighbours must too.
    if isinstance(values[0] if values else None, int) and any(isinstance(p, str) for p in plain):
        return tuple(str(one) for one in values)
    return plain  # type: ignore[return-value]  # of scalars come scalars


def text(value: str) -> str:
    """Return text that is valid UTF-8 and not too long for a collector."""
    if len(value) > _TEXT_LIMIT:
        left_out = len(value) - _TEXT_LIMIT
        value = f"{value[:_TEXT_LIMIT]}... {left_out} characters left out"
    if value.isascii():
        return value
    return value.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate becomes `?`


# ---------------------------------------------------------------- as JSON, and back


def pack(value: object) -> Any:
    """Return a value of a span as JSON that :func:`unpack` reads back exactly.

    An object is always a tagged value: ``{"b": base64}`` bytes, ``{"f": "nan"}`` a float that JSON
    cannot express, ``{"i": "..."}`` an integer beyond 64 bits, ``{"m": {...}}`` a mapping.
    """
    if value is None or type(value) in _AS_JSON:
        return value
    if isinstance(value, int | float | str):
        return _pack_scalar(value)
    if isinstance(value, list | tuple):
        return [pack(one) for one in value]
    if isinstance(value, bytes | bytearray):
        return {"b": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {"m": {str(name): pack(one) for name, one in value.items()}}
    return str(value)


_AS_JSON: Final = frozenset({str, bool})  # nearly all


def _pack_scalar(value: Scalar) -> Any:
    """Return a plain scalar, also for a NumPy float or an enum member."""
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else {"i": str(int(value))}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"f": repr(float(value))}
    return str.__str__(value)


def unpack(value: Any) -> Any:
    """Return what :func:`pack` packed, lists as tuples.

    :raises ValueError: :func:`pack` did not write this
    """
    if isinstance(value, list):
        return tuple(unpack(one) for one in value)
    if not isinstance(value, dict):
        return value
    match value:
        case {"m": dict(members)}:
            return {name: unpack(one) for name, one in members.items()}
        case {"b": str(encoded)}:
            return base64.b64decode(encoded, validate=True)
        case {"f": str(number)}:
            return float(number)
        case {"i": str(number)}:
            return int(number)
    raise ValueError(f"not a packed value: {value!r:.100}")
