"""Processes that a step starts: they join its trace, and write their spans beside its run's log.

What they need to know travels in environment variables: the current context as the propagators
write it (OpenTelemetry specification, "Environment Variables as Context Propagation Carriers"), and
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
    from tapps_otel.otel.seam import SpanRef

__all__ = ["carry", "join", "parent_of"]

_UNFIT: Final = re.compile(r"[^A-Z0-9_]")
_log = logging.getLogger(__name__)
_joined = False


def _variable(key: str) -> str:
    return _UNFIT.sub("_", key.upper())


class _Writer(Setter[MutableMapping[str, str]]):
    def set(self, carrier: MutableMapping[str, str], key: str, value: str) -> None:
        carrier[_variable(key)] = value


class _Reader(Getter[Mapping[str, str]]):
    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        found = carrier.get(_variable(key))
        return None if found is None else [found]

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        return list(carrier)


def carry(environment: MutableMapping[str, str], span: SpanRef | None) -> None:
    """Write the current context into the environment of a child.

    :param span: the current step's, where no SDK makes spans and so none is current
    """
    try:
        propagate.inject(environment, setter=_Writer())
        if span is not None and not trace.get_current_span().get_span_context().is_valid:
            within = trace.set_span_in_context(trace.NonRecordingSpan(_context_of(span)))
            TraceContextTextMapPropagator().inject(environment, within, _Writer())
    except Exception as error:  # noqa: BLE001 - a propagator of the user's
        warn_once("the environment of a child", error)


def _context_of(span: SpanRef) -> trace.SpanContext:
    return trace.SpanContext(
        int(span.trace_id, 16),
        int(span.span_id, 16),
        is_remote=False,
        trace_flags=trace.TraceFlags(span.flags),
    )


def join() -> None:
    """In a process that was started with ``child_env()``: stand in the trace of its parent's step.

    The context is attached for good, so that what this process does at its top is a child of that
    step; its exporters find the run. A second call does nothing, and nothing is raised.

    Attached in the calling thread alone: any other begins with no context, as everywhere in
    OpenTelemetry, unless it is given a copy (:func:`tapps_otel.bind`).
    """
    global _joined  # noqa: PLW0603 - a process has one parent
    if _joined or PARENT not in os.environ:
        return
    _joined = True
    run = parent_of(os.environ)
    if run is None:
        _log.warning("%s is not what child_env() writes: this process joins no run", PARENT)
        return
    try:
        context = propagate.extract(os.environ, getter=_Reader())
        above = trace.get_current_span(context).get_span_context()
        if above.is_valid:
            contexts.attach(context)
            run_registry.enter(f"{above.trace_id:032x}", run)
    except Exception as error:  # noqa: BLE001 - a propagator of the user's
        warn_once("joining the parent's trace", error)


def parent_of(environment: Mapping[str, str]) -> run_registry.KnownRun | None:
    """The run that this environment names; ``None`` if it names none, or nonsense."""
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
