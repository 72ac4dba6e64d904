"""Redaction of spans that were made elsewhere: of libraries, and by the user's own calls. Pure.

A log may hold anything in place of their texts: that is passed on as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, Status

from tapps_otel.otel.mapping.unpack import counted, kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapps_otel.redact import Rules

__all__ = ["redacted", "redacted_event", "redacted_link", "redacted_status"]

_T = TypeVar("_T")


def redacted(span: ReadableSpan, rules: Rules) -> ReadableSpan:
    """Return a finished span without its secrets: the same object if it has none."""
    if not rules.on:
        return span
    given, events_given, links_given = span.attributes, span.events, span.links
    name = rules.value(span.name)
    attributes = _attributes(given, span.dropped_attributes, rules)
    events = _all(redacted_event, events_given, rules)
    links = _all(redacted_link, links_given, rules)
    status = redacted_status(span.status, rules)
    if (
        name is span.name
        and attributes is given
        and events is events_given
        and links is links_given
        and status is span.status
    ):
        return span
    return ReadableSpan(
        name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=kept(events, span.dropped_events),
        links=kept(links, span.dropped_links),
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def redacted_event(event: SpanEvent, rules: Rules) -> SpanEvent:
    """Return an event of a span without its secrets."""
    name = rules.value(event.name)
    given = event.attributes
    attributes = _attributes(given, event.dropped_attributes, rules)
    if name is event.name and attributes is given:
        return event
    return SpanEvent(name, attributes, event.timestamp)


def redacted_link(link: Link, rules: Rules) -> Link:
    """Return a link of a span without its secrets."""
    given = link.attributes
    attributes = _attributes(given, link.dropped_attributes, rules)
    return link if attributes is given else Link(link.context, attributes)


def redacted_status(status: Status, rules: Rules) -> Status:
    """Return the status of a span without the secrets in its description."""
    if not status.description:
        return status
    description = rules.value(status.description)
    same = description is status.description
    return status if same else Status(status.status_code, description)


def _attributes(attributes: Any, dropped: int, rules: Rules) -> Any:
    given = dict(attributes or {})
    made = rules.attributes(given)
    return attributes if made is given else counted(made, dropped)


def _all(redact: Callable[[_T, Rules], _T], given: Sequence[_T], rules: Rules) -> Sequence[_T]:
    """Redact each; return the same object if none is altered."""
    if not given:
        return given
    made = [redact(one, rules) for one in given]
    same = all(one is before for one, before in zip(made, given, strict=True))
    return given if same else made
