"""The content of the page: a run as JSON values, all text made safe and of bounded length. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from tapps_otel.clock import timestamp, timestamp_ns
from tapps_otel.names import parent_of
from tapps_otel.past.captured import CapturedSpans
from tapps_otel.report.history import error_text, gate_text
from tapps_otel.report.text import block, counted, excerpt, json_text, plain
from tapps_otel.report.timeline import summary
from tapps_otel.report.usage import usage_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapps_otel.log.event import Event
    from tapps_otel.past.fold import Locked, RunHistory, StepHistory
    from tapps_otel.past.timeline import Timeline, TimelineAttempt, TimelineStep

__all__ = ["Recording", "content"]

_SHORT: Final = 400  # columns of a name or a message
_MOST_PARENTS: Final = (
    1_000  # between a span and its step; only a made-up log has more, or a circle
)
_BUDGET: Final = 300_000  # characters of all values and stacks together, in a run of 1 000 steps
_BUDGET_A_STEP: Final = 300  # in a larger run


class Recording:
    """What the page needs of the events, beyond the run's history.

    :ivar events: a row for each, but for captured spans
    :ivar spans: captured spans of libraries
    """

    def __init__(self) -> None:
        self.events: list[list[Any]] = []
        self.spans = CapturedSpans()

    def see(self, event: Event) -> None:
        """Record an event."""
        if event.event_type in {"span", "span_start"}:
            self.spans.see(event)
            return
        self.events.append(
            [
                event.seq,
                event.timestamp,
                _short(event.event_type),
                None if event.step_id is UNSET else event.step_id,
                event.execution,
                None if event.attempt is UNSET else event.attempt,
                None if event.status is UNSET else _short(event.status),
                None if event.duration_ns is UNSET else event.duration_ns,
                _about(event),
                event.late is True,
            ]
        )


def content(
    timeline: Timeline,
    history: RunHistory,
    recording: Recording,
    *,
    jaeger: str | None = None,
    index: str | None = None,
) -> dict[str, Any]:
    """Return the page's content as JSON values.

    Times are milliseconds since the run's start.

    :param jaeger: address of the run's trace in a Jaeger
    :param index: address of an index of runs that has this page
    """
    return {**_Content(timeline, history, recording).made(jaeger), "index": index}


class _Content:
    def __init__(self, timeline: Timeline, history: RunHistory, recording: Recording) -> None:
        self._timeline, self._history, self._recording = timeline, history, recording
        self._at = {step.step_id: number for number, step in enumerate(timeline.steps)}
        self._limit = _limit(self._lengths(), max(_BUDGET, _BUDGET_A_STEP * len(timeline.steps)))

    def made(self, jaeger: str | None) -> dict[str, Any]:
        timeline, history = self._timeline, self._history
        return {
            "id": _short(timeline.workflow_id),
            "name": _short(timeline.name),
            "status": _short(timeline.status),
            "facts": [[label, _short(text), style] for label, text, style in summary(timeline)],
            "start": timestamp(max(0, timeline.start_ns)),
            "total": self._ms(timeline.end_ns),
            "trace": _short(timeline.trace_id or ""),
            "jaeger": jaeger,
            "inputs": self._value(history.inputs, history.inputs_blob, history.inputs_locked),
            "result": self._value(history.result_json, history.result_blob, history.result_locked),
            "error": self._error(timeline.error),
            "executions": [
                {
                    "number": one.number,
                    "start": self._ms(one.start_ns),
                    "end": self._ms(one.end_ns),
                    "status": _short(one.status),
                    "killed": one.killed,
                    "seq": one.seq,
                    "process": [
                        [_short(name), _short(_text(value))] for name, value in one.process.items()
                    ],
                    "critical": self._parts(one.critical),
                }
                for one in timeline.executions
            ],
            "downtimes": [
                [self._ms(one.start_ns), self._ms(one.end_ns), one.after, _short(one.why)]
                for one in timeline.downtimes
            ],
            "steps": [self._step(one, history.by_id[one.step_id]) for one in timeline.steps],
            "events": [self._event(one) for one in self._recording.events],
            "spans": self._spans(),
            "log": self._log(),
        }

    def _ms(self, ns: int) -> float:
        return round((ns - self._timeline.start_ns) / 1e6, 3)

    def _parts(self, parts: Iterable[tuple[int, int]]) -> list[list[float]]:
        return [[self._ms(start), self._ms(end)] for start, end in parts]

    # -- steps

    def _step(self, step: TimelineStep, record: StepHistory) -> dict[str, Any]:
        found: dict[str, Any] = {
            "id": _short(step.step_id),
            "name": _short(step.step_id.rpartition("/")[2]) or "''",
            "depth": step.depth,
            "parent": self._at.get(parent_of(step.step_id) or "", None) if step.depth else None,
            "agent": _short(step.agent) if step.agent else None,
            "action": _short(step.action) if step.action else None,
            "kept": step.not_run_again,
            "handled": step.handled,
            "key": None if record.key is None else _short(record.key),
            "digest": None if record.inputs_digest is None else _short(record.inputs_digest),
            "inputs": self._value(record.inputs, None, record.inputs_locked),
            "result": self._value(record.result, record.result_blob, record.result_locked),
            "omitted": _short(record.result_omitted) if record.result_omitted else None,
            "used": _short(usage_text(record.usage)) if record.usage else None,
            "attempts": [self._attempt(one) for one in step.attempts],
        }
        return {name: one for name, one in found.items() if one is not None and one is not False}

    def _attempt(self, attempt: TimelineAttempt) -> dict[str, Any]:
        found: dict[str, Any] = {
            "number": attempt.number,
            "execution": attempt.execution,
            "start": self._ms(attempt.start_ns),
            "end": self._ms(attempt.end_ns),
            "status": _short(attempt.status),
            "seq": attempt.seq,
            "ended": attempt.end_seq,
            "wait": attempt.wait_ns / 1e6 or None,
            "error": self._error(attempt.error),
            "question": None if attempt.question is None else _short(attempt.question),
            "reason": None if attempt.reason is None else _short(attempt.reason),
            "artifacts": [
                [
                    _short(_text(one.get("path") or one.get("name"))),
                    _short(_text(one.get("bytes"))),
                    _short(_text(one.get("media_type"))),
                    _short(_text(one.get("sha256") or one.get("error"))),
                ]
                for one in attempt.artifacts
            ]
            or None,
            "gate": None
            if attempt.gate is None
            else [attempt.gate.passed, _short(gate_text(attempt.gate))],
            "span": None if attempt.span_id is None else _short(attempt.span_id),
            "critical": self._parts(attempt.critical) or None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _error(self, error: dict[str, Any] | None) -> dict[str, str] | None:
        if error is None:
            return None
        stack = _stack_of(error)
        text = "" if not stack else "\n".join(block(self._cut_end(str(stack))))
        return {"text": _short(error_text(error)), "stack": text}

    # -- values, whose length is limited

    def _lengths(self) -> list[int]:
        history = self._history
        values = [history.inputs, history.result_json]
        errors = [history.error]
        for step in history.steps:
            values += [step.inputs, step.result]
            errors += [attempt.error for attempt in step.attempts]
        stacks = [str(_stack_of(error) or "") for error in errors if error is not None]
        return [*(len(one) for one in values if one), *map(len, stacks)]

    def _value(self, data: bytes | None, blob: str | None, locked: Locked | None) -> str | None:
        if locked is not None:
            return f"({_short(str(locked))})"
        if blob is not None:
            return f"(large: in the file {_short(blob)})"
        if data is None:
            return None
        text = plain(data[: self._limit].decode(errors="replace"))
        cut = f" ... ({counted(len(data), 'byte')} in the log)" if len(data) > self._limit else ""
        return text + cut

    def _cut_end(self, text: str) -> str:
        """Cut a stack's beginning: its end is nearest to the error."""
        return text if len(text) <= self._limit else f"...\n{text[-self._limit :]}"

    # -- events, spans, the log

    def _event(self, row: list[Any]) -> list[Any]:
        seq, at, kind, step_id, execution, attempt, status, took, about, late = row
        ms = self._ms(timestamp_ns(at) or self._timeline.start_ns)
        step = self._at.get(step_id) if step_id is not None else None
        took_ms = None if took is None else round(took / 1e6, 3)
        return [seq, ms, kind, step, execution, attempt, status, took_ms, about, int(late)]

    def _spans(self) -> list[list[Any]]:
        """Return captured spans, each with the step that it belongs to."""
        owners = {
            attempt.span_id: self._at[step.step_id]
            for step in self._timeline.steps
            for attempt in step.attempts
            if attempt.span_id is not None
        }
        spans = [*self._recording.spans]
        parents = {span.span_id: span.parent for span in spans}
        return [
            [
                _owner(span.span_id, parents, owners),
                _short(span.name),
                self._ms(span.start_ns),
                None if span.end is None else self._ms(timestamp_ns(span.end)),
                _short(span.span_id),
                _short(json_text(span.attributes)) if span.attributes else "",
            ]
            for span in spans
        ]

    def _log(self) -> dict[str, Any]:
        log = self._timeline.log
        if log is None:
            return {}
        return {
            "path": _short(log.path),
            "seq": log.seq,
            "sha": log.sha,
            "repairs": [list(one) for one in log.repairs],
            "unfinished": None if log.unfinished is None else _short(log.unfinished),
            "damage": None if log.damage is None else "\n".join(block(log.damage)),
            "dropped": self._timeline.dropped,
        }


def _owner(span_id: str, parents: dict[str, str | None], owners: dict[str, int]) -> int | None:
    """Return the step that a captured span belongs to: that of its nearest known ancestor."""
    at: str | None = span_id
    for _ in range(_MOST_PARENTS):
        if at is None or at in owners:
            break
        at = parents.get(at)
    return None if at is None else owners.get(at)


def _limit(lengths: list[int], budget: int) -> int:
    """Return a limit for each text, so that all together keep to the budget."""
    left = budget
    for number, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - number)
        if length > share:
            return share
        left -= length
    return budget


def _about(event: Event) -> str:
    """Describe in a line what the other columns of an event do not tell."""
    words = []
    if event.name is not UNSET:
        words.append(_short(event.name))
    if event.agent is not UNSET and event.agent:
        words.append(_short(event.agent))
    if event.reason is not UNSET:
        words.append(_short(event.reason))
    if event.error is not UNSET:
        words.append(_short(error_text(event.error)))
    if event.retry_in_ns is not UNSET:
        words.append(f"retry in {event.retry_in_ns / 1e9:g} s")
    if event.event_type == "annotation" and event.attributes is not UNSET:
        words.append(_short(json_text(event.attributes)))
    if event.damage is not UNSET:
        words.append(f"declares {sum(one[1] for one in event.damage)} bytes as damaged")
    return ", ".join(words)


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json_text(value)


def _short(text: object) -> str:
    return excerpt(text, _SHORT)


def _stack_of(error: dict[str, Any]) -> Any:
    return error.get("traceback") or error.get("stack")
