"""Metrics of runs, steps, logs, sends and models, by the process's meter provider.

All of them follow from the events that are written, so that a result taken from a log counts
nothing, and a duration is that of the event's span. Attributes are few and have few values: names,
statuses, types of errors; never an id.

Names and units follow the OpenTelemetry semantic conventions, "Metrics semantic conventions":
seconds, counted things in braces, ``error.type`` on failures.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from msgspec import UNSET
from opentelemetry import metrics, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from tapps_otel.names import ATTR
from tapps_otel.otel.environment import metrics_wanted
from tapps_otel.otel.mapping.content import error_type as error_type_of
from tapps_otel.otel.mapping.content import text
from tapps_otel.otel.sdk_internals import is_proxy_meter_provider
from tapps_otel.otel.seam import SCOPE, Measures, warn_once
from tapps_otel.version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter, MeterProvider

    from tapps_otel.log.event import Event
    from tapps_otel.past.usage import Usage
    from tapps_otel.settings_model import Settings

__all__ = ["METRICS", "Meters", "Metric", "meters"]

_ADDRESS: Final = "server.address"
_PORT: Final = "server.port"
_MODEL: Final = "gen_ai.response.model"
_TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - it is no secret
# Bucket bounds, seconds: from a step that reads a value from memory to a build of a day, and from a
# write into the page cache to a disk that hangs.
_WORK: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600,
    7200, 14_400, 43_200, 86_400,
)  # fmt: skip
_APPEND: Final = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
_STEP: Final = (ATTR.WORKFLOW_NAME, ATTR.STEP_NAME, ATTR.AGENT)


class Metric(NamedTuple):
    """A metric: a histogram if it has bucket bounds, else a counter.

    :ivar attributes: names of the attributes that it may have
    """

    name: str
    unit: str
    attributes: tuple[str, ...]
    description: str
    bounds: tuple[float, ...] = ()


RUN_DURATION: Final = Metric(
    "tapps.run.duration",
    "s",
    (ATTR.WORKFLOW_NAME, ATTR.STATUS, ATTR.ERROR_TYPE),
    "Duration of executions of runs.",
    _WORK,
)
STEP_DURATION: Final = Metric(
    "tapps.step.duration",
    "s",
    (*_STEP, ATTR.STATUS, ATTR.ERROR_TYPE),
    "Duration of attempts of steps.",
    _WORK,
)
STEP_ATTEMPTS: Final = Metric(
    "tapps.step.attempts", "{attempt}", _STEP, "Attempts of steps that began."
)
STEP_FAILURES: Final = Metric(
    "tapps.step.failures",
    "{attempt}",
    (*_STEP, ATTR.STATUS, ATTR.ERROR_TYPE),
    "Attempts of steps that failed, ran out of time, were cancelled or interrupted.",
)
STEP_SKIPS: Final = Metric("tapps.step.skips", "{step}", _STEP, "Steps that were skipped.")
APPEND_DURATION: Final = Metric(
    "tapps.log.append.duration",
    "s",
    (),
    "Time that workflows waited for an event to be written to the log.",
    _APPEND,
)
LOG_FAILURES: Final = Metric(
    "tapps.log.failures",
    "{failure}",
    (ATTR.WORKFLOW_NAME, ATTR.ERROR_TYPE),
    "Writes, syncs and openings of logs that failed.",
)
LOG_DROPPED: Final = Metric(
    "tapps.log.dropped",
    "{event}",
    (ATTR.WORKFLOW_NAME,),
    "Events that will never be in the log.",
)
SENT: Final = Metric(
    "tapps.send.spans",
    "{span}",
    (_ADDRESS, _PORT, ATTR.ERROR_TYPE),
    "Spans that were sent to a collector, or that it did not accept.",
)
TOKENS: Final = Metric(
    "tapps.gen_ai.tokens",
    "{token}",
    (ATTR.WORKFLOW_NAME, _MODEL, _TOKEN_TYPE),
    "Tokens of model calls inside runs, as captured spans of libraries tell.",
)
METRICS: Final = (
    RUN_DURATION,
    STEP_DURATION,
    STEP_ATTEMPTS,
    STEP_FAILURES,
    STEP_SKIPS,
    APPEND_DURATION,
    LOG_FAILURES,
    LOG_DROPPED,
    SENT,
    TOKENS,
)

_made: Meters | None = None


def meters(settings: Settings) -> Meters | None:
    """Return the instruments of the process; ``None`` without a provider."""
    global _made  # noqa: PLW0603 - one for the provider that the process has
    provider: MeterProvider | None = metrics.get_meter_provider()
    if is_proxy_meter_provider(provider):
        provider = _set_up(settings)
    if provider is None or isinstance(provider, metrics.NoOpMeterProvider):
        return None
    made = _made
    if made is None or made.provider is not provider:
        made = _made = Meters(provider)
    return made


def _set_up(settings: Settings) -> MeterProvider | None:
    if not metrics_wanted():
        return None
    from tapps_otel.otel.metrics import provider

    return provider.ensure_provider(settings)


class Meters:
    """The instruments, one of each for the process.

    :ivar provider: the meter provider that made them
    """

    def __init__(self, provider: MeterProvider) -> None:
        self.provider = provider
        meter = provider.get_meter(SCOPE, __version__)
        self._instruments = {metric.name: _instrument(meter, metric) for metric in METRICS}

    def __getitem__(self, metric: Metric) -> Any:
        return self._instruments[metric.name]

    def of(self, workflow: str) -> Measures:
        """Return what measures the runs of a workflow."""
        return _Measures(self, workflow)

    def count_spans(self, address: str, spans: int, error_type: str | None) -> None:
        """Count spans that a collector accepted, or did not accept and why.

        :param address: the collector's, ``host:port``
        """
        parts = urlsplit(f"//{address}")
        attributes: dict[str, Any] = {_ADDRESS: text(parts.hostname or address)}
        if parts.port is not None:
            attributes[_PORT] = parts.port
        if error_type is not None:
            attributes[ATTR.ERROR_TYPE] = error_type
        self[SENT].add(spans, attributes)

    def count_tokens(self, workflow: str | None, usage: Usage) -> None:
        """Count tokens that calls of models inside a run used.

        :param workflow: name of the run's workflow; ``None`` if it is not known here
        """
        about = {} if workflow is None else {ATTR.WORKFLOW_NAME: text(workflow)}
        for model, used in usage.models.items():
            for kind, tokens in (("input", used.input_tokens), ("output", used.output_tokens)):
                # Negative once an agent's span, which came first, turns out to repeat others.
                if tokens > 0:
                    self[TOKENS].add(tokens, {**about, _MODEL: text(model), _TOKEN_TYPE: kind})


def _instrument(meter: Meter, metric: Metric) -> Any:
    name, unit, _, description, bounds = metric
    if not bounds:
        return meter.create_counter(name, unit, description)
    return meter.create_histogram(
        name, unit, description, explicit_bucket_boundaries_advisory=bounds
    )


class _Measures(Measures):
    __slots__ = ("_append", "_attempts", "_flags", "_meters", "_run")

    def __init__(self, made: Meters, workflow: str) -> None:
        self._meters = made
        self._append, self._attempts = made[APPEND_DURATION], made[STEP_ATTEMPTS]
        self._run = {ATTR.WORKFLOW_NAME: text(workflow)}
        self._flags: int | None = None  # W3C trace flags of the execution; none without spans

    def wrote(self, event: Event, took_ns: int) -> None:
        try:
            kind = event.event_type
            if kind in _EXECUTIONS and event.otel is not UNSET:
                self._flags = event.otel.get("flags")
            context = self._context_of(event)
            self._append.record(took_ns / 1e9, None, context)
            if kind == "step_start":
                self._attempts.add(1, self._step_attributes(event), context)
            elif kind in _STEP_ENDS:
                self._step_ended(event, context)
            elif kind == "workflow_end":
                self._ended(RUN_DURATION, event, self._run, context)
        except Exception as error:  # noqa: BLE001 - of the SDK, an exporter, a view
            warn_once("metrics", error)

    def _context_of(self, event: Event) -> Context | None:
        """Return a context with the event's span, to which exemplars refer.

        The current span may be another one: a step ends in the scope of what called it.
        """
        if self._flags is None or event.trace_id is UNSET or event.span_id is UNSET:
            return None
        ids = int(event.trace_id, 16), int(event.span_id, 16)
        span = SpanContext(*ids, is_remote=False, trace_flags=TraceFlags(self._flags))
        return trace.set_span_in_context(NonRecordingSpan(span))

    def _step_attributes(self, event: Event) -> dict[str, str]:
        attributes = {**self._run, ATTR.STEP_NAME: text(str(event.step))}
        if isinstance(event.agent, str):
            attributes[ATTR.AGENT] = text(event.agent)
        return attributes

    def _step_ended(self, event: Event, context: Context | None) -> None:
        step = self._step_attributes(event)
        attributes = self._ended(STEP_DURATION, event, step, context)
        if event.event_type == "step_skip":
            self._meters[STEP_SKIPS].add(1, step, context)
        elif ATTR.ERROR_TYPE in attributes:
            self._meters[STEP_FAILURES].add(1, attributes, context)

    def _ended(
        self, metric: Metric, event: Event, attributes: dict[str, str], context: Context | None
    ) -> dict[str, str]:
        attributes = {**attributes, ATTR.STATUS: text(str(event.status))}
        if (kind := error_type_of(event)) is not None:
            attributes[ATTR.ERROR_TYPE] = kind
        if event.duration_ns is not UNSET:
            self._meters[metric].record(event.duration_ns / 1e9, attributes, context)
        return attributes

    def log_failed(self, error: BaseException) -> None:
        self._add(LOG_FAILURES, 1, {ATTR.ERROR_TYPE: _kind(error)})

    def log_dropped(self, events: int) -> None:
        self._add(LOG_DROPPED, events, {})

    def _add(self, metric: Metric, number: int, attributes: dict[str, str]) -> None:
        try:
            self._meters[metric].add(number, {**self._run, **attributes})
        except Exception as error:  # noqa: BLE001 - of the SDK, an exporter, a view
            warn_once("metrics", error)


_EXECUTIONS: Final = frozenset({"workflow_start", "workflow_resume"})
_STEP_ENDS: Final = frozenset({"step_finish", "step_fail", "step_skip"})


def _kind(error: BaseException) -> str:
    """Return ``ENOSPC`` and the like for a system error, else the name of the class."""
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, str(error.errno))
    return type(error).__name__.removeprefix("_")
