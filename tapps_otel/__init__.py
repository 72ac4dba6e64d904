"""Durable runs for Python workflows: an audit log, resume after a crash, and OpenTelemetry spans.

The names in ``__all__`` are imported when they are first used, so that ``import tapps_otel`` costs
nothing. Type checkers read the imports below instead.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tapps_otel import errors
    from tapps_otel.audit.verify import VerifyReport, verify
    from tapps_otel.encryption import AesGcmCodec, Codec
    from tapps_otel.errors import Question
    from tapps_otel.instrumentation import ExecutorSpec, instrument, uninstrument
    from tapps_otel.instrumentation.external_log import ExternalLog
    from tapps_otel.instrumentation.resuming import resume
    from tapps_otel.log.model import WorkflowEvent
    from tapps_otel.log.store import RunSummary
    from tapps_otel.otel.capture.exporter import JsonlSpanExporter
    from tapps_otel.otel.capture.processor import JsonlSpanProcessor
    from tapps_otel.otel.replay.send_report import SendReport
    from tapps_otel.past.changes import Change
    from tapps_otel.past.difference import RunDiff, RunSide, StepDiff, StepSide, StepTime
    from tapps_otel.past.fold import (
        AttemptHistory,
        ExecutionHistory,
        ForkOrigin,
        RunHistory,
        StepHistory,
    )
    from tapps_otel.past.span_rules import SpanMatch, SpanRules
    from tapps_otel.past.timeline import (
        Cost,
        Downtime,
        Timeline,
        TimelineAttempt,
        TimelineExecution,
        TimelineStep,
    )
    from tapps_otel.past.usage import ModelUsage, Usage
    from tapps_otel.run.answering import answer
    from tapps_otel.run.api import Attempt, Run
    from tapps_otel.run.binding import bind
    from tapps_otel.run.cancelling import cancel
    from tapps_otel.run.children import child_env
    from tapps_otel.run.codecs.registration import register_codec
    from tapps_otel.run.current import annotate, current_run, current_step, skip
    from tapps_otel.run.differences import diff
    from tapps_otel.run.external_api import ExternalAttempt, ExternalRun
    from tapps_otel.run.following import EventStream, follow
    from tapps_otel.run.forking import fork
    from tapps_otel.run.log_context import RunContextFilter
    from tapps_otel.run.packing import PackReport, pack, unpack
    from tapps_otel.run.pausing import apause, pause
    from tapps_otel.run.policy import Backoff
    from tapps_otel.run.pruning import KeptRun, PrunedRun, PruneReport, prune
    from tapps_otel.run.queries import events, history, last_run, list_runs
    from tapps_otel.run.sending import send
    from tapps_otel.run.step import Step, step
    from tapps_otel.run.timelines import timeline
    from tapps_otel.run.workflow import Workflow, workflow
    from tapps_otel.settings import configure
    from tapps_otel.settings_model import Settings
    from tapps_otel.settings_types import Redaction
    from tapps_otel.version import __version__

__all__ = [  # noqa: RUF022 - sorted without regard to case, as people look names up
    "__version__",
    "AesGcmCodec",
    "annotate",
    "answer",
    "apause",
    "Attempt",
    "AttemptHistory",
    "Backoff",
    "bind",
    "cancel",
    "Change",
    "child_env",
    "Codec",
    "configure",
    "Cost",
    "current_run",
    "current_step",
    "diff",
    "Downtime",
    "errors",
    "events",
    "EventStream",
    "ExecutionHistory",
    "ExecutorSpec",
    "ExternalAttempt",
    "ExternalLog",
    "ExternalRun",
    "follow",
    "fork",
    "ForkOrigin",
    "history",
    "instrument",
    "JsonlSpanExporter",
    "JsonlSpanProcessor",
    "KeptRun",
    "last_run",
    "list_runs",
    "ModelUsage",
    "pack",
    "PackReport",
    "pause",
    "prune",
    "PrunedRun",
    "PruneReport",
    "Question",
    "Redaction",
    "register_codec",
    "resume",
    "Run",
    "RunContextFilter",
    "RunDiff",
    "RunHistory",
    "RunSide",
    "RunSummary",
    "send",
    "SendReport",
    "Settings",
    "skip",
    "SpanMatch",
    "SpanRules",
    "Step",
    "step",
    "StepDiff",
    "StepHistory",
    "StepSide",
    "StepTime",
    "Timeline",
    "timeline",
    "TimelineAttempt",
    "TimelineExecution",
    "TimelineStep",
    "uninstrument",
    "unpack",
    "Usage",
    "verify",
    "VerifyReport",
    "Workflow",
    "workflow",
    "WorkflowEvent",
]

if not TYPE_CHECKING:  # a checker would take any misspelt name for one that this may give
    _MODULES = {
        "audit.verify": "VerifyReport verify",
        "encryption": "AesGcmCodec Codec",
        "errors": "Question",
        "instrumentation": "ExecutorSpec instrument uninstrument",
        "instrumentation.external_log": "ExternalLog",
        "instrumentation.resuming": "resume",
        "log.model": "WorkflowEvent",
        "log.store": "RunSummary",
        "otel.capture.exporter": "JsonlSpanExporter",
        "otel.capture.processor": "JsonlSpanProcessor",
        "otel.replay.send": "SendReport",
        "past.changes": "Change",
        "past.difference": "RunDiff RunSide StepDiff StepSide StepTime",
        "past.fold": "AttemptHistory ExecutionHistory ForkOrigin RunHistory StepHistory",
        "past.span_rules": "SpanMatch SpanRules",
        "past.timeline": "Cost Downtime Timeline TimelineAttempt TimelineExecution TimelineStep",
        "past.usage": "ModelUsage Usage",
        "run.answering": "answer",
        "run.api": "Attempt Run",
        "run.cancelling": "cancel",
        "run.children": "child_env",
        "run.codecs.registration": "register_codec",
        "run.current": "annotate current_run current_step skip",
        "run.differences": "diff",
        "run.external_api": "ExternalAttempt ExternalRun",
        "run.following": "EventStream follow",
        "run.forking": "fork",
        "run.log_context": "RunContextFilter",
        "run.packing": "PackReport pack unpack",
        "run.pausing": "apause pause",
        "run.policy": "Backoff",
        "run.pruning": "KeptRun PrunedRun PruneReport prune",
        "run.queries": "events history last_run list_runs",
        "run.binding": "bind",
        "run.sending": "send",
        "run.step": "Step step",
        "run.timelines": "timeline",
        "run.workflow": "Workflow workflow",
        "settings": "configure",
        "settings_model": "Settings",
        "settings_types": "Redaction",
        "version": "__version__",
    }
    _HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name == "errors":
            return import_module(f"{__name__}.errors")
        if name not in _HOMES:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return found


def __dir__() -> list[str]:
    return sorted(__all__)


if "TAPPS_OTEL_PARENT" in os.environ:  # a step of another process started this one: child_env()
    from tapps_otel.otel import propagation

    propagation.join()
    del propagation

if "TAPPS_OTEL_LOG_CONTEXT" in os.environ:  # records before the first run have it, too
    from tapps_otel.run import log_context

    log_context.install_if_asked()
