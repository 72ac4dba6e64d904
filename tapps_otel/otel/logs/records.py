"""The content of an event's log record: severity, attributes, and a sentence. Pure.

Severity and the names of attributes are those that the collector's configuration gives to the lines
of audit logs. Inputs and results are in no record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from tapps_otel.names import ATTR
from tapps_otel.otel.mapping.content import (
    error_type,
    event_attributes,
    start_attributes,
    text,
    workflow_name,
)

if TYPE_CHECKING:
    from tapps_otel.log.event import Event
    from tapps_otel.otel.mapping.content import Attributes

__all__ = ["attributes_of", "body_of", "severity_of"]

# Numbers of OpenTelemetry's severities, and their names as the collector writes them.
_INFO: Final = (9, "info")
_WARN: Final = (13, "warn")
_ERROR: Final = (17, "error")
_STARTS: Final = {
    "workflow_start": "started",
    "workflow_resume": "resumed",
    "step_start": "started",
}


def severity_of(event: Event) -> tuple[int, str]:
    """Return number and name: failures that are retried, and interruptions, are warnings."""
    match event.status:
        case "failed" | "timeout":
            return _ERROR if event.retry_in_ns is UNSET else _WARN
        case "cancelled" | "interrupted":
            return _WARN
    return _INFO


def attributes_of(event: Event) -> Attributes:
    """Return the attributes, named as on spans."""
    found = {**event_attributes(event), **start_attributes(event, workflow_name(event))}
    if event.step is UNSET:  # of an annotation: it has the step's id alone
        found.pop(ATTR.STEP_NAME, None)
    kind = error_type(event)
    if kind is not None:
        found[ATTR.ERROR_TYPE] = kind
    return found


def body_of(event: Event) -> str:
    """Describe the event in a sentence."""
    parts = [_what(event)]
    if event.error is not UNSET:
        parts += [str(event.error[name]) for name in ("type", "message") if event.error.get(name)]
    elif event.reason is not UNSET:
        parts.append(event.reason)
    elif event.question is not UNSET:
        parts.append(event.question)
    return text(": ".join(parts))


def _what(event: Event) -> str:
    subject = f"run {event.workflow_id}"
    if event.step_id is not UNSET:
        subject = f"step {event.step_id}"
        if event.attempt is not UNSET and event.attempt > 1:
            subject += f", attempt {event.attempt}"
    if event.event_type == "annotation":
        return f"{subject} noted {event.name}"
    done = event.status if isinstance(event.status, str) else event.event_type
    return f"{subject} {_STARTS.get(event.event_type, done)}"
