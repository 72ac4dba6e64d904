"""Durable runs for Python workflows: an audit log, resume after a crash, and OpenTelemetry spans.

The names below are imported when they are first used, so that ``import tapps_otel`` costs nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tapps_otel import errors
    from tapps_otel.audit.verify import verify
    from tapps_otel.instrumentation import instrument, uninstrument
    from tapps_otel.instrumentation.resuming import resume
    from tapps_otel.log.model import WorkflowEvent
    from tapps_otel.otel.capture.exporter import JsonlSpanExporter
    from tapps_otel.run.attempt import Attempt
    from tapps_otel.run.children import child_env
    from tapps_otel.run.current import annotate, current_run, current_step, skip
    from tapps_otel.run.policy import Backoff
    from tapps_otel.run.queries import (
        events,
        follow,
        history,
        last_run,
        list_runs,
    )
    from tapps_otel.run.recorder import Run
    from tapps_otel.run.scope import bind
    from tapps_otel.run.sending import send
    from tapps_otel.run.step import Step, step
    from tapps_otel.run.workflow import Workflow, workflow
    from tapps_otel.settings import configure

_PLACES = {
    "Attempt": "run.attempt",
    "Backoff": "run.policy",
    "JsonlSpanExporter": "otel.capture.exporter",
    "Run": "run.recorder",
    "Step": "run.step",
    "Workflow": "run.workflow",
    "WorkflowEvent": "log.model",
    "annotate": "run.current",
    "bind": "run.scope",
    "child_env": "run.children",
    "configure": "settings",
    "current_run": "run.current",
    "current_step": "run.current",
    "errors": "errors",
    "events": "run.queries",
    "follow": "run.queries",
    "history": "run.queries",
    "instrument": "instrumentation",
    "last_run": "run.queries",
    "list_runs": "run.queries",
    "resume": "instrumentation.resuming",
    "send": "run.sending",
    "skip": "run.current",
    "step": "run.step",
    "uninstrument": "instrumentation",
    "verify": "audit.verify",
    "workflow": "run.workflow",
}

__all__ = [  # noqa: RUF022 - sorted without regard to case, as people look names up
    "annotate",
    "Attempt",
    "Backoff",
    "bind",
    "child_env",
    "configure",
    "current_run",
    "current_step",
    "errors",
    "events",
    "follow",
    "history",
    "instrument",
    "JsonlSpanExporter",
    "last_run",
    "list_runs",
    "resume",
    "Run",
    "send",
    "skip",
    "Step",
    "step",
    "uninstrument",
    "verify",
    "Workflow",
    "workflow",
    "WorkflowEvent",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    module = import_module(f"{__name__}.{_PLACES[name]}")
    return module if name == "errors" else getattr(module, name)


if "TAPPS_OTEL_PARENT" in os.environ:  # a step of another process started this one: child_env()
    from tapps_otel.otel import propagation

    propagation.join()
    del propagation


def __dir__() -> list[str]:
    return sorted(__all__)
