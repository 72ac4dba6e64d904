"""Live spans, made by the tracer provider that the process has.

Every call of OpenTelemetry is guarded, because the SDK lets exceptions of samplers and processors
through. A span that failed to start, or that no SDK makes (the API alone, an SDK that is switched
off), gets ids of our own, so that it can be sent from the log later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
)

from tapps_otel import names
from tapps_otel.names import ATTR
from tapps_otel.otel.environment import delivery_settings, span_starts_wanted, traces_wanted
from tapps_otel.otel.live.markers import Markers
from tapps_otel.otel.live.provider_span import ProviderSpan
from tapps_otel.otel.live.seen_ids import SeenIds
from tapps_otel.otel.mapping.aliases import Aliases, aliases_of
from tapps_otel.otel.mapping.content import (
    Attributes,
    span_name,
    start_attributes,
    workflow_name,
)
from tapps_otel.otel.mapping.pack import pack_link, pack_resource
from tapps_otel.otel.mapping.unpack import trace_state
from tapps_otel.otel.sdk_internals import (
    on_end_of,
    sdk_tracer,
    span_limits_of,
)
from tapps_otel.otel.seam import SCOPE, LiveSpan, SpanRef, Tracing, warn_once
from tapps_otel.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opentelemetry.trace import TracerProvider

    from tapps_otel.log.event import Event
    from tapps_otel.settings_model import Settings

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
        scope = parent if isinstance(parent, ProviderSpan) else None
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
        live = ProviderSpan(span, context, scope, parent_context)
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
        live: ProviderSpan,
        scope: ProviderSpan | None,
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
    event.parent_span_id = UNSET if span.parent_span_id is None else span.parent_span_id


def _note(
    live: ProviderSpan, scope: ProviderSpan | None, parent: SpanContext, links: Sequence[Link]
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
