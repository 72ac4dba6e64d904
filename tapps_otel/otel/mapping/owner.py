"""Which run a finished span belongs to, and whether it is one of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapps_otel.names import ATTR
from tapps_otel.otel import run_registry
from tapps_otel.otel.seam import SCOPE

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.otel.run_registry import KnownRun

__all__ = ["is_cut_off", "is_marker", "own_run_id", "run_of", "run_of_library_span"]


def run_of(span: ReadableSpan) -> KnownRun | None:
    """Return the run whose log has this span; ``None`` for a marker."""
    run_id = own_run_id(span)
    if run_id is None:
        return run_of_library_span(span)
    return None if is_marker(span) else _in_trace(span, run_id)


def run_of_library_span(span: ReadableSpan) -> KnownRun | None:
    """Return the run whose log has this span, which is not one of our own."""
    parent = span.parent
    owner = run_registry.owner_of(span.context.span_id, None if parent is None else parent.span_id)
    return _in_trace(span, None) if owner is None else owner


def _in_trace(span: ReadableSpan, run_id: str | None) -> KnownRun | None:
    trace_id, at_ns = span.context.trace_id, span.start_time or 0
    return run_registry.find(trace_id, workflow_id=run_id, at_ns=at_ns)


def own_run_id(span: ReadableSpan) -> str | None:
    """Return the run of one of our own spans; ``None`` for another's span."""
    if not _is_ours(span):
        return None
    found = (span.attributes or {}).get(ATTR.WORKFLOW_ID)
    return found if isinstance(found, str) else None


def is_marker(span: ReadableSpan) -> bool:
    """Whether a span only announces another one."""
    return _is_ours(span) and ATTR.MARKER in (span.attributes or ())


def is_cut_off(span: ReadableSpan) -> bool:
    """Whether it was ended from the log, as its own process did not: the log needs no end."""
    return (span.attributes or {}).get(ATTR.STATUS) == "interrupted"


def _is_ours(span: ReadableSpan) -> bool:
    scope = span.instrumentation_scope
    return scope is not None and scope.name == SCOPE
