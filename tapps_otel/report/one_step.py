"""One step of a run, whole: values, attempts, errors, annotations, captured spans. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel.log.event import readable
from tapps_otel.report.history import answered_text, error_text, mark, status_text
from tapps_otel.report.lines import Line, Piece, clock_time, columns, day_time, labelled, took
from tapps_otel.report.lost_parts import lost_parts
from tapps_otel.report.steps import attempt_note, attempt_took
from tapps_otel.report.text import block, counted, excerpt, json_text, plain
from tapps_otel.report.usage import usage_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tapps_otel.past.captured import CapturedSpan
    from tapps_otel.past.fold import Annotation, RunHistory, StepHistory, Worker
    from tapps_otel.past.timeline import TimelineAttempt, TimelineStep

__all__ = ["Detail", "spans_of", "step_screen"]

_MOST_LINES: Final = 30  # of a value, or of a stack
_MOST_SPANS: Final = 200
_NAME: Final = 200  # columns


class Detail(NamedTuple):
    """What is shown of a step.

    :ivar notes: annotations of the step
    :ivar blob: reads a large value; raises an exception whose text tells why it cannot
    :ivar verbose: whether values and stacks are shown whole, however long they are
    """

    history: RunHistory
    step: TimelineStep
    record: StepHistory
    spans: list[CapturedSpan]
    notes: list[Annotation]
    blob: Callable[[str], bytes]
    verbose: bool = False


def step_screen(detail: Detail) -> list[list[Line]]:
    """Describe one step, in sections."""
    found = [
        [*_head(detail)],
        [*_attempts(detail)],
        [*_inputs(detail), *_result(detail)],
        [*_artifacts(detail)],
        [*_annotations(detail)],
        [*_span_lines(detail)],
    ]
    return [section for section in found if section]


def _head(detail: Detail) -> Iterator[Line]:
    step, record = detail.step, detail.record
    notes = [status_text(step.status)]
    notes += ["handled"] * step.handled
    notes += ["not run again"] * step.not_run_again
    notes += ["resolved"] * record.resolved
    yield labelled("step", plain(step.step_id) or "''", "strong")
    yield labelled("run", plain(detail.history.workflow_id))
    yield labelled("status", ", ".join(notes), mark(step.status).style)
    for label, text in (
        ("agent", step.agent),
        ("action", step.action),
        ("key", record.key),
        ("question", record.last.question),
        ("digest", record.inputs_digest),
        ("code", record.definition),
    ):
        if text:
            yield labelled(label, plain(text))
    if record.pause is not None and record.pause.until is not None:
        yield labelled("until", plain(record.pause.until))
    if record.answered is not None:
        yield labelled("answered", answered_text(record.answered))
    if record.child is not None:
        yield labelled("calls", f"run {plain(record.child.workflow_id)}")
    waited = sum(attempt.wait_ns for attempt in step.attempts)
    bound = ">= " if any(attempt.cut_off for attempt in step.attempts) else ""
    length = f"{bound}{took(step.duration_ns)}" + (f", and waited {took(waited)}" if waited else "")
    if len(step.attempts) > 1:
        length += f", in {counted(len(step.attempts), 'attempt')}"
    yield labelled("took", length)
    yield from (labelled(*fact) for fact in usage_facts(step.usage))


# -- values


def _inputs(detail: Detail) -> Iterator[Line]:
    record = detail.record
    if record.inputs_locked is not None:
        yield labelled("inputs", plain(record.inputs_locked), "warn")
    else:
        yield from _value("inputs", record.inputs, None, detail)


def _result(detail: Detail) -> Iterator[Line]:
    record = detail.record
    if record.result_locked is not None:
        yield labelled("result", plain(record.result_locked), "warn")
    elif record.result_omitted:  # it is empty if there was no result
        yield labelled("result", f"not stored: {plain(record.result_omitted)}", "warn")
    else:
        yield from _value("result", record.result, record.result_blob, detail)


def _value(label: str, data: bytes | None, blob: str | None, detail: Detail) -> Iterator[Line]:
    if blob is not None:
        try:
            data = detail.blob(blob)
        except Exception as error:  # noqa: BLE001 - missing, changed, unreadable: shown instead
            yield labelled(label, plain(error), "bad")
            return
    if data is not None:
        first, *rest = _cut(json_text(_loaded(data), indent=2).split("\n"), detail)
        yield labelled(label, first)
        yield from (labelled("", line) for line in rest)


def _loaded(data: bytes) -> Any:
    try:
        return readable(data)
    except ValueError:  # only a made-up log has invalid JSON
        return data.decode(errors="replace")


def _cut(lines: list[str], detail: Detail) -> list[str]:
    """Cut what is too long for a screen, and add a line that says how many lines were cut."""
    if detail.verbose or len(lines) <= _MOST_LINES:
        return lines
    left_out = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], f"({counted(left_out, 'more line')}: --verbose)"]


# -- attempts


def _attempts(detail: Detail) -> Iterator[Line]:
    for attempt in detail.step.attempts:
        style = mark(attempt.status).style
        yield Line(
            [
                mark(attempt.status),
                Piece(f" attempt {attempt.number}", "strong"),
                Piece(f"  {day_time(attempt.start_ns)[:10]} {clock_time(attempt.start_ns)} UTC"),
                Piece(f"  {attempt_took(attempt)}  "),
                Piece(attempt_note(attempt), style),
            ]
        )
        if attempt.worker is not None:
            yield Line.of((f"    {_worker_text(attempt.worker)}", "dim"))
        if attempt.cut_off:
            yield Line.of(("    it ran at least that long, as far as the log knows", "dim"))
        if attempt.reason:
            yield Line.of(f"    {plain(attempt.reason)}")
        if attempt.error is not None and not attempt.cut_off:
            yield from _error(attempt, detail)


def _worker_text(worker: Worker) -> str:
    there, besides = (took(round(seconds * 1e9)) for seconds in (worker.duration, worker.wait))
    place = f"process {worker.pid} on {excerpt(worker.host, _NAME)}"
    return f"executed by {place}, for {there}; {besides} besides"


def _error(attempt: TimelineAttempt, detail: Detail) -> Iterator[Line]:
    error = attempt.error or {}
    yield Line.of((f"    {error_text(error)}", "bad"))
    stack = error.get("traceback") or error.get("stack")
    if isinstance(stack, str) and stack:
        yield from (Line.of((f"    {line}", "dim")) for line in _cut(block(stack), detail))
    if attempt is detail.step.attempts[-1]:
        for place, reason in lost_parts(detail.record).items():
            words = f"    {plain(place)} is not in the log: {plain(reason)}"
            yield Line.of((words, "warn"))


# -- what it left


def _artifacts(detail: Detail) -> Iterator[Line]:
    rows = [
        [
            Piece("artifact", "dim"),
            Piece(plain(made.get("path") or made.get("name"))),
            Piece(_size(made.get("bytes"))),
            Piece(plain(made.get("sha256") or made.get("error") or ""), "dim"),
        ]
        for attempt in detail.step.attempts
        for made in attempt.artifacts
    ]
    yield from columns(rows)


def _size(value: object) -> str:
    return counted(value, "byte") if isinstance(value, int) else ""


def _annotations(detail: Detail) -> Iterator[Line]:
    for note in detail.notes:
        head = ("note  ", "dim"), plain(note.name), (f"  seq {note.seq}  ", "dim")
        yield Line.of(*head, json_text(note.attributes) if note.attributes else "")


# -- captured spans


def spans_of(span_ids: Iterable[str | None], spans: Iterable[CapturedSpan]) -> list[CapturedSpan]:
    """Return the spans below these, at any depth, in the order of their start."""
    below: dict[str | None, list[CapturedSpan]] = {}
    for span in spans:
        below.setdefault(span.parent, []).append(span)
    found, waiting = [], [*span_ids]
    while waiting:
        inner = below.pop(waiting.pop(), [])  # popped: a made-up log may have circles
        found += inner
        waiting += [span.span_id for span in inner]
    return sorted(found, key=lambda span: span.start_ns)


def _span_lines(detail: Detail) -> Iterator[Line]:
    most = len(detail.spans) if detail.verbose else _MOST_SPANS
    rows = [
        [
            Piece("span", "dim"),
            Piece(clock_time(span.start_ns), "dim"),
            Piece("no end" if span.duration_ns is None else took(span.duration_ns)),
            Piece(excerpt(span.name, _NAME)),
            Piece(excerpt(json.dumps(span.attributes, default=str), _NAME), "dim"),
        ]
        for span in detail.spans[:most]
    ]
    yield from columns(rows)
    if len(detail.spans) > most:
        yield Line.of((f"and {len(detail.spans) - most} more: --verbose", "dim"))
