"""Live spans, made by the tracer provider that the process has.

Every call of OpenTelemetry is guarded, because the SDK lets exceptions of samplers and processors
through. A span that failed to start, or that no SDK makes (the API alone, an SDK that is switched
off), gets ids of our own, so that it can be sent from the log later.
"""

from __future__ import annotations

from contextvars import Token
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec import UNSET
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
)

from tapps_otel import names
from tapps_otel.names import ATTR
from tapps_otel.otel.environment import delivery_settings, span_starts_wanted, traces_wanted
from tapps_otel.otel.live.markers import Markers
from tapps_otel.otel.live.seen_ids import SeenIds
from tapps_otel.otel.mapping.aliases import Aliases, aliases_of
from tapps_otel.otel.mapping.content import (
    Attributes,
    end_attributes,
    end_events,
    end_ns,
    event_attributes,
    span_name,
    start_attributes,
    status_of,
    time_of,
    workflow_name,
)
from tapps_otel.otel.mapping.pack import keep, pack_attributes, pack_event, pack_link, pack_resource
from tapps_otel.otel.mapping.redacted import redacted_event, redacted_link, redacted_status
from tapps_otel.otel.mapping.unpack import trace_state
from tapps_otel.otel.sdk_internals import (
    is_unchanged,
    on_end_of,
    sdk_tracer,
    set_late_attributes,
    span_limits_of,
)
from tapps_otel.otel.seam import SCOPE, LiveSpan, SpanRef, Tracing, warn_once
from tapps_otel.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from opentelemetry.trace import TracerProvider

    from tapps_otel.log.event import Event
    from tapps_otel.redact import Rules
    from tapps_otel.settings import Settings

__all__ = ["tracing"]

# The limits of a provider by default, which a log need not name.
_LIMITS: Final = {
    "max_span_attributes": 128,
    "max_events": 128,
    "max_links": 128,
    "max_event_attributes": 128,
    "max_link_attributes": 128,
    "max_attribute_length": None,
    "max_span_attribute_length": None,
}
_OUT_OF_ORDER: Final = 1 << 32  # more events than there can be
_NO_PROVIDER: Final = trace.NoOpTracerProvider()
_made: _Tracing | None = None


def tracing(settings: Settings) -> Tracing | None:
    """Return what makes spans by the process's provider; ``None`` without one."""
    global _made  # noqa: PLW0603 - one for the provider that the process has
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        provider = _set_up(settings) or _NO_PROVIDER
    if provider is _NO_PROVIDER and not trace.get_current_span().get_span_context().is_valid:
        return None
    made = _made
    if made is None or made.provider is not provider or made.settings != settings:
        made = _made = _Tracing(provider, settings)
        if provider is not _NO_PROVIDER:
            made.join_provider()
    return made


def _set_up(settings: Settings) -> TracerProvider | None:
    if not traces_wanted(settings):
        return None
    from tapps_otel.otel.delivery import provider

    return provider.ensure_provider(settings)


class _Tracing(Tracing):
    __slots__ = (
        "_announces_steps",
        "_is_wrapped",
        "_markers",
        "_packed",
        "_scope",
        "_seen",
        "_tracer",
        "provider",
        "settings",
    )

    def __init__(self, provider: TracerProvider, settings: Settings) -> None:
        self.provider, self.settings = provider, settings
        self._tracer = provider.get_tracer(SCOPE, __version__)
        self._markers = None if settings.announce == "off" else _markers(self._tracer)
        self._is_wrapped = sdk_tracer(self._tracer) is not self._tracer
        self._seen = SeenIds()
        self._announces_steps = settings.announce == "steps"
        self._scope = {"name": SCOPE, "version": __version__}
        self._packed: tuple[object, dict[str, Any]] = (None, {})

    def join_provider(self) -> None:
        """Have settings respected by a provider that may not have been built for them."""
        try:
            if span_starts_wanted(self.settings):
                from tapps_otel.otel.delivery.span_starts import add_span_starts

                add_span_starts(self.provider)
            if delivery_settings(self.settings):
                from tapps_otel.otel.delivery.joining import join

                join(self.provider, self._tracer, self.settings)
        except Exception as error:  # noqa: BLE001 - a provider of another library
            warn_once("joining the tracer provider", error)

    @property
    def resource(self) -> dict[str, Any] | None:
        resource = getattr(self.provider, "resource", None)
        if resource is None:
            return None
        if self._packed[0] is not resource:
            try:
                packed = pack_resource(resource)
            except Exception as error:  # noqa: BLE001 - another SDK's resource
                warn_once("resource", error)
                return None
            self._packed = (resource, packed)
        return self._packed[1]

    def start(
        self,
        event: Event,
        *,
        start_ns: int,
        parent: SpanRef | LiveSpan | None,
        links: Sequence[SpanRef] = (),
    ) -> LiveSpan:
        try:
            return self._start(event, start_ns, parent, links)
        except Exception as error:  # noqa: BLE001 - invalid ids, a context of the user's
            warn_once("start", error)
        if isinstance(parent, LiveSpan | SpanRef):
            ids = LiveSpan(parent.trace_id, names.new_span_id(), parent.span_id)
        else:
            ids = LiveSpan(names.new_trace_id(), names.new_span_id(), None)
        _put_ids(event, ids)
        return ids

    def _start(
        self,
        event: Event,
        start_ns: int,
        parent: SpanRef | LiveSpan | None,
        links: Sequence[SpanRef],
    ) -> LiveSpan:
        current = parent_span = trace.get_current_span()
        scope = parent if isinstance(parent, _Span) else None
        if scope is not None:
            parent_span = scope.span
        elif parent is not None:
            parent_span = NonRecordingSpan(_context_of(parent))
            self._seen.note(parent_span.get_span_context())
        linked = [_link(ref, event) for ref in links]
        for link in linked:
            self._seen.note(link.context)
        within = None  # the current context, where its span is the parent
        if parent_span is not current:
            within = trace.set_span_in_context(parent_span)
            linked += _link_between(current)
        workflow = scope.workflow if scope is not None else workflow_name(event)
        aliases = scope.aliases if scope is not None else _aliases(event)
        name, attributes = span_name(event), start_attributes(event, workflow, aliases)
        parent_context = parent_span.get_span_context() if scope is None else scope.context
        span = self._make(name, attributes, linked, within, start_ns)
        context = span.get_span_context()
        # Without an SDK the API hands out the parent's own context, or none.
        own = context.span_id == parent_context.span_id or not context.is_valid
        if own:
            context = _own_context(parent_context)
            span = NonRecordingSpan(context)
        else:
            self._seen.check(context, event.workflow_id)
        live = _Span(span, context, scope, parent_context)
        if not own and (scope is None or self._announces_steps):
            live.markers = self._markers
        live.fill(name, attributes, workflow, len(linked), start_ns)
        live.aliases, live.is_wrapped = aliases, self._is_wrapped
        live.flags = None if own else context.trace_flags
        _put_ids(event, live)
        self._put_note(event, live, scope, parent_context, linked)
        return live

    def _put_note(
        self,
        event: Event,
        live: _Span,
        scope: _Span | None,
        parent: SpanContext,
        links: Sequence[Link],
    ) -> None:
        """Note in the starting event what a rebuilt span needs beyond it."""
        if scope is not None and scope.ended:  # it is forgotten when this one is rebuilt
            event.otel = _note(live, None, parent, links) or UNSET
        elif scope is None:
            note = _note(live, None, parent, links)
            event.otel = {**note, "scope": self._scope, **self._limits()}
            if live.aliases:
                event.otel["aliases"] = list(live.aliases)
        elif (
            links or live.flags != scope.flags or live.context.trace_state is not parent.trace_state
        ):
            event.otel = _note(live, scope, parent, links) or UNSET

    def catch_up(self, folder: Path, workflow_id: str, execution: int) -> None:
        from tapps_otel.otel.live.catch_up import catch_up

        on_end = on_end_of(self.provider, self._tracer)
        catch_up(folder, workflow_id, execution, on_end, self.settings.shutdown_timeout)

    def _make(
        self,
        name: str,
        attributes: Attributes,
        links: Sequence[Link],
        within: contexts.Context | None,
        start_ns: int,
    ) -> trace.Span:
        try:
            return self._tracer.start_span(
                name, within, SpanKind.INTERNAL, attributes, links, start_ns
            )
        except Exception as error:  # noqa: BLE001 - of a sampler, a processor, the SDK
            warn_once("start", error)
            return trace.INVALID_SPAN

    def _limits(self) -> dict[str, Any]:
        """Return limits that are not the default, and the resource's schema."""
        limits = span_limits_of(self._tracer)
        differ = {
            name: getattr(limits, name, usual)
            for name, usual in _LIMITS.items()
            if getattr(limits, name, usual) != usual
        }
        note: dict[str, Any] = {"limits": differ} if differ else {}
        if schema := getattr(getattr(self.provider, "resource", None), "schema_url", None):
            note["resource_schema"] = str(schema)
        return note


class _Span(LiveSpan):
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
        self, span: trace.Span, context: SpanContext, scope: _Span | None, parent: SpanContext
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
        try:
            return contexts.attach(trace.set_span_in_context(self.span))
        except Exception as error:  # noqa: BLE001 - a context implementation of the user's
            warn_once("attach", error)
            return None

    def detach(self, token: object) -> None:
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


def _markers(tracer: trace.Tracer) -> Markers | None:
    """Return what makes markers; ``None`` where it cannot be made: spans do not depend on it."""
    try:
        return Markers(tracer)
    except Exception as error:  # noqa: BLE001 - another library's tracer
        warn_once("markers", error)
        return None


def _aliases(event: Event) -> Aliases:
    """Return the aliases that the recorder noted in an execution's first event."""
    return aliases_of(event.otel) if event.otel is not UNSET else ()


def _put_ids(event: Event, span: LiveSpan) -> None:
    event.trace_id = span.trace_id
    event.span_id = span.span_id
    if span.parent_span_id is not None:
        event.parent_span_id = span.parent_span_id


def _note(
    live: _Span, scope: _Span | None, parent: SpanContext, links: Sequence[Link]
) -> dict[str, Any]:
    """Return what ``otel`` of the start event names (see ``content.py``)."""
    note: dict[str, Any] = {}
    state = live.context.trace_state
    if live.flags != (None if scope is None else scope.flags):
        note["flags"] = None if live.flags is None else int(live.flags)
    header = state.to_header()
    if header != ("" if scope is None else parent.trace_state.to_header()):
        note["trace_state"] = header
    if scope is None and parent.is_valid and parent.is_remote:
        note["parent_is_remote"] = True
    if links:
        note["links"] = [pack_link(link) for link in links]
    return note


def _context_of(ref: SpanRef | LiveSpan) -> SpanContext:
    """Return the context of a span: of the log (remote), or live."""
    remote, flags, state = False, int(TraceFlags.SAMPLED), ""
    if isinstance(ref, SpanRef):
        remote, flags, state = True, ref.flags, ref.trace_state
    return SpanContext(
        int(ref.trace_id, 16),
        int(ref.span_id, 16),
        is_remote=remote,
        trace_flags=TraceFlags(flags),
        trace_state=trace_state(state),
    )


def _own_context(parent: SpanContext) -> SpanContext:
    """Make ids of our own; a root counts as sampled."""
    if parent.is_valid:
        return SpanContext(
            parent.trace_id,
            int(names.new_span_id(), 16),
            is_remote=False,
            trace_flags=parent.trace_flags,
            trace_state=parent.trace_state,
        )
    return SpanContext(
        int(names.new_trace_id(), 16),
        int(names.new_span_id(), 16),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _link(ref: SpanRef, event: Event) -> Link:
    """Make a link to an interrupted step, or to another span."""
    resumes = event.event_type == "workflow_resume"
    return Link(_context_of(ref), {ATTR.LINK: "interrupted"} if resumes else None)


def _link_between(current: trace.Span) -> list[Link]:
    """Make a link to the current span, if it is not that of the step's scope.

    It cannot be the parent: after a crash it would be missing from the trace.
    """
    context = current.get_span_context()
    return [Link(context, {ATTR.LINK: "caller"})] if context.is_valid else []
