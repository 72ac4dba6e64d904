"""The span of an execution or attempt: its events add to it, and so may other code."""

from __future__ import annotations

from contextvars import Token
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import SpanContext, StatusCode

from tapps_otel.otel.mapping.content import (
    Attributes,
    end_attributes,
    end_events,
    end_ns,
    event_attributes,
    status_of,
    time_of,
)
from tapps_otel.otel.mapping.pack import keep, pack_attributes, pack_event, pack_link
from tapps_otel.otel.mapping.redacted import redacted_event, redacted_link, redacted_status
from tapps_otel.otel.sdk_internals import is_unchanged, set_late_attributes
from tapps_otel.otel.seam import LiveSpan, warn_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.log.event import Event
    from tapps_otel.otel.live.markers import Markers
    from tapps_otel.otel.mapping.aliases import Aliases
    from tapps_otel.redact import Rules

__all__ = ["ProviderSpan"]

_OUT_OF_ORDER: Final = 1 << 32  # more events than there can be


class ProviderSpan(LiveSpan):
    """A span of the process's provider, or one of our own for its ids."""

    __slots__ = (
        "_attributes",
        "_events",
        "_first_seq",
        "_last_seq",
        "_links",
        "_name",
        "_recording",
        "_start_ns",
        "aliases",
        "context",
        "ended",
        "flags",
        "is_wrapped",
        "markers",
        "span",
        "workflow",
    )

    def __init__(
        self,
        span: trace.Span,
        context: SpanContext,
        scope: ProviderSpan | None,
        parent: SpanContext,
    ) -> None:
        if scope is not None and context.trace_id == parent.trace_id:
            self.trace_id, self.parent_span_id = scope.trace_id, scope.span_id
        else:
            self.trace_id = f"{context.trace_id:032x}"
            self.parent_span_id = f"{parent.span_id:016x}" if parent.is_valid else None
        self.span_id = f"{context.span_id:016x}"
        self.span = span
        self.context = context
        self.aliases: Aliases = ()
        self.flags: int | None = None
        self.is_wrapped = False
        self.markers: Markers | None = None
        self.ended = False
        self._recording = span.is_recording()

    def fill(
        self,
        name: str,
        attributes: Attributes,
        workflow: str | None,
        links: int,
        start_ns: int,
    ) -> None:
        """Keep what the span was made with, to see later what others changed."""
        self._name = name
        self._attributes = attributes
        self.workflow = workflow
        self._links = links
        self._start_ns = start_ns
        self._events = self._last_seq = 0
        self._first_seq: int | None = None

    def attach(self) -> object:
        """Make it the current span."""
        try:
            return contexts.attach(trace.set_span_in_context(self.span))
        except Exception as error:  # noqa: BLE001 - a context implementation of the user's
            warn_once("attach", error)
            return None

    def detach(self, token: object) -> None:
        """Make the span current that was current before."""
        try:
            if isinstance(token, Token):  # contexts.detach would log what is passed over below
                token.var.reset(token)
            elif token is not None:
                contexts.detach(cast("Any", token))  # of the user's context implementation
        except (ValueError, RuntimeError):
            pass  # another task's context, as when a generator is closed there: nothing to undo
        except Exception as error:  # noqa: BLE001 - a context implementation of the user's
            warn_once("detach", error)

    def record(self, event: Event) -> None:
        """Add an event whose line is written."""
        if not self._recording:
            return
        try:
            if self._first_seq is None:
                self._first_seq, at = event.seq, self._start_ns
            else:
                at = time_of(event)
            self.span.add_event(event.event_type, event_attributes(event), at)
        except Exception as error:  # noqa: BLE001 - of the SDK
            warn_once("event", error)
        if self.markers is not None:
            self.markers.announce(self.span, event, self._name, self._start_ns)
            self.markers = None
        # Events of several threads may come out of order, and a failing log gives no numbers: then
        # this span's events are not those of the log, and the count must never match.
        self._events += 1 if event.seq > self._last_seq else _OUT_OF_ORDER
        self._last_seq = event.seq

    def hold(self, event: Event, rules: Rules, put: Callable[[bytes], str] | None = None) -> None:
        """Note in the ending event what others put on the span."""
        if not self._recording:
            return
        try:
            if self.is_wrapped:
                set_late_attributes(self.span)
            if not is_unchanged(
                self.span, self._attributes, self._events, self._links, self._name
            ) and (note := self._differences(rules)):
                keep(note, event, put)
        except Exception as error:  # noqa: BLE001 - an SDK with other attributes
            warn_once("hold", error)

    def end(self, event: Event, *, sha: str | None = None) -> None:
        """Add the ending event, and end the span."""
        self.ended = True
        if not self._recording:
            return
        self._recording = False
        at = None
        try:
            if not self.span.is_recording():  # ended by the user's code
                return
            at = end_ns(event, self._start_ns)
            self._finish(event, at, sha)
        except Exception as error:  # noqa: BLE001 - of the SDK
            warn_once("end", error)
        try:
            self.span.end(at)
        except Exception as error:  # noqa: BLE001 - of a processor
            warn_once("end", error)

    def _finish(self, event: Event, at: int, sha: str | None) -> None:
        span = self.span
        for name, attributes in end_events(event, self.aliases):
            span.add_event(name, attributes, at)
        span.set_attributes(end_attributes(event, self._first_seq or 0, sha, self.aliases))
        code, description = status_of(event)
        if code:
            span.set_status(StatusCode(code), description)

    def _differences(self, rules: Rules) -> dict[str, Any]:
        """Return what a rebuilt span needs beyond the log, before its end."""
        span: Any = self.span
        note: dict[str, Any] = {}
        if (
            getattr(span, "attributes", None) is None
        ):  # another SDK's, which does not show what it holds
            return note
        held = self._redact(rules)
        if list(held.items()) != list(self._attributes.items()):
            note["attributes"] = pack_attributes(held)
        dropped = {
            what: number
            for what in ("attributes", "events", "links")
            if (number := getattr(span, f"dropped_{what}", 0))
        }
        if len(span.events) != self._events or "events" in dropped:
            note["events"] = [pack_event(redacted_event(one, rules)) for one in span.events]
        if len(span.links) != self._links or "links" in dropped:
            note["links"] = [pack_link(redacted_link(link, rules)) for link in span.links]
        if span.name != self._name:
            note["name"] = rules.text(span.name)
        if span.status.status_code is not StatusCode.UNSET:
            status = redacted_status(span.status, rules)
            note["status"] = [status.status_code.value, status.description]
        if not span.is_recording():  # ended by the user's code, so without our end
            note["end_time"] = span.end_time
        if dropped:
            note["dropped"] = dropped
        return note

    def _redact(self, rules: Rules) -> dict[str, Any]:
        """Return the span's attributes, redacted; what others set is redacted on the span, too."""
        span: Any = self.span
        held = dict(span.attributes)
        redacted = rules.attributes(held)
        if span.is_recording():  # otherwise the user's code has ended it
            for name, value in redacted.items():
                if name in held and value is not held[name]:
                    span.set_attribute(name, value)
        return redacted
