"""Child processes of a step: they join its trace and its run.

Environment variables hold what they need: the current context as the propagators write it
(OpenTelemetry specification, "Environment Variables as Context Propagation Carriers"), and
``TAPPS_OTEL_PARENT``, a JSON object: the run, its execution, the folder of its log.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.propagators.textmap import Getter, Setter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tapps_otel import clock
from tapps_otel.names import is_workflow_id
from tapps_otel.otel import run_registry
from tapps_otel.otel.seam import PARENT, warn_once

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from tapps_otel.otel.seam import SpanRef

__all__ = ["context_of", "inject", "join", "parent_of"]

_NOT_ALLOWED: Final = re.compile(r"[^A-Z0-9_]")
_log = logging.getLogger(__name__)
_joined = False


def _variable(key: str) -> str:
    return _NOT_ALLOWED.sub("_", key.upper())


class _Writer(Setter[MutableMapping[str, str]]):
    def set(self, carrier: MutableMapping[str, str], key: str, value: str) -> None:
        carrier[_variable(key)] = value


class _Reader(Getter[Mapping[str, str]]):
    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        found = carrier.get(_variable(key))
        return None if found is None else [found]

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        return list(carrier)


def inject(environment: MutableMapping[str, str], span: SpanRef | None) -> None:
    """Write the current context into a child's environment.

    :param span: the current step's, if no SDK makes spans and so none is current
    """
    try:
        propagate.inject(environment, setter=_Writer())
        if span is not None and not trace.get_current_span().get_span_context().is_valid:
            within = trace.set_span_in_context(trace.NonRecordingSpan(_context_of(span)))
            TraceContextTextMapPropagator().inject(environment, within, _Writer())
    except Exception as error:  # noqa: BLE001 - a propagator of the user's
        warn_once("a child's environment", error)


def context_of(environment: Mapping[str, str]) -> Context:
    """Return the context that :func:`inject` wrote.

    :raises Exception: of a propagator of the user's
    """
    return propagate.extract(environment, getter=_Reader())


def _context_of(span: SpanRef) -> trace.SpanContext:
    return trace.SpanContext(
        int(span.trace_id, 16),
        int(span.span_id, 16),
        is_remote=False,
        trace_flags=trace.TraceFlags(span.flags),
    )


def join() -> None:
    """Join the trace of the parent's step, if started with ``child_env()``.

    The context is attached for good, so that spans at the top of this process are children of that
    step, and exporters here find its run. A second call does nothing, and nothing is raised.

    It is attached in the calling thread alone: other threads start without a context, as everywhere
    in OpenTelemetry, unless they are given a copy (:func:`tapps_otel.bind`).
    """
    global _joined  # noqa: PLW0603 - a process has one parent
    if _joined or PARENT not in os.environ:
        return
    _joined = True
    run = parent_of(os.environ)
    if run is None:
        _log.warning(
            "the environment variable %s does not hold what child_env() writes: this process joins "
            "no run. Start it with env=child_env(), or unset the variable.",
            PARENT,
        )
        return
    try:
        context = context_of(os.environ)
        above = trace.get_current_span(context).get_span_context()
        if above.is_valid:
            contexts.attach(context)
            run_registry.enter(f"{above.trace_id:032x}", run)
    except Exception as error:  # noqa: BLE001 - a propagator of the user's
        warn_once("joining the parent's trace", error)


def parent_of(environment: Mapping[str, str]) -> run_registry.KnownRun | None:
    """Return the run that this environment names, if it is valid."""
    try:
        match json.loads(environment.get(PARENT, "")):
            case {"workflow_id": str(run), "execution": int(number), "log_dir": str(folder)} if (
                is_workflow_id(run)
                and number is not True
                and number > 0
                and Path(folder).is_absolute()
                and "\0" not in folder
            ):
                return run_registry.KnownRun(run, Path(folder), number, clock.time_ns())
    except (ValueError, RecursionError):
        pass
    return None
