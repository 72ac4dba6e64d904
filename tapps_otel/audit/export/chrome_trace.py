"""Spans in the Trace Event Format, which Perfetto and ``chrome://tracing`` open.

The format is that of Google's document "Trace Event Format": a JSON array of events, here one a
line. (Its closing bracket may be missing there, so that what was cut short opens too.) A span is a
complete event (``X``), what happened on it an instant event (``i``). Every execution is a process,
and has as many threads ("lanes") as it takes for what ran side by side.

Times are microseconds since a day before the run began, to the nanosecond. Not since 1970: a viewer
that reads numbers as doubles would round those to a quarter of a microsecond. Not since the run
began: Perfetto drops what is before 0, as a span by another host's clock may be. Viewers show times
from the first span on; a span's ``args`` say when it began.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from tapps_otel.audit.export.lanes import Lanes
from tapps_otel.audit.export.outcome import UNFIT
from tapps_otel.clock import timestamp
from tapps_otel.names import ATTR
from tapps_otel.otel.mapping.content import text, time_of
from tapps_otel.otel.seam import SCOPE
from tapps_otel.report.text import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.audit.export.outcome import Outcome
    from tapps_otel.log.event import Event
    from tapps_otel.otel.replay.run_spans import Found

__all__ = ["ChromeTrace"]

_MOST_PROCESSES: Final = 64  # whose lanes are remembered; more are open only in odd logs
_BEFORE: Final = 86_400 * 10**9  # ns that the trace's time 0 is before the run's beginning
_EXACT: Final = 1 << 53  # integers beyond are rounded by viewers, so they are shown as text
_STARTS: Final = frozenset({"workflow_start", "workflow_resume", "step_start"})
# Events of ours that only say that a span starts or ends, which its borders show.
_BORDERS: Final = _STARTS | {"workflow_end", "step_finish", "step_fail"}


class _Process:
    """One execution, as far as one log tells of it."""

    def __init__(self, pid: int, tids: count[int]) -> None:
        self.pid = pid
        self.named = 0  # lanes that have a name
        self.unnamed: list[int] = []
        self.lanes = Lanes(self._new_tid)
        self._tids = tids

    def _new_tid(self) -> int:
        tid = next(self._tids)
        self.unnamed.append(tid)
        return tid


class ChromeTrace:
    """Makes the array, piece by piece, of a log's events and of its spans."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._zero_ns: int | None = None
        self._processes: dict[tuple[str, int], _Process] = {}
        self._pids, self._tids = count(1), count(1)

    def see(self, log: str, event: Event) -> None:
        """Take an event of the log ``log``, before the spans that it ends."""
        if self._zero_ns is None:
            with suppress(ValueError):  # a time that is none
                self._zero_ns = time_of(event) - _BEFORE
        if event.event_type in _STARTS and event.span_id is not UNSET:
            parent = None if event.parent_span_id is UNSET else event.parent_span_id
            self._process(log, event.execution).lanes.begin(event.span_id, parent)

    def pieces(self, spans: Iterable[Found]) -> Iterator[str]:
        """The text of the array, whole also where ``spans`` ends in an error."""
        before = "[\n"
        try:
            for found in spans:
                try:
                    made = list(self._events(found))
                except UNFIT as error:
                    self._outcome.leave_out(found, error)
                    continue
                self._outcome.count += 1
                for event in made:
                    yield before + event
                    before = ",\n"
        except Exception:
            yield before.rstrip(",\n") + "\n]\n"
            raise
        yield before.rstrip(",\n") + "\n]\n"

    # -- events

    def _events(self, found: Found) -> Iterator[str]:
        span = found.span
        process = self._process(found.log, found.execution)
        start, end = span.start_time or 0, max(span.start_time or 0, span.end_time or 0)
        made = [self._complete(span, start, end), *self._instants(span)]
        parent = None if span.parent is None else f"{span.parent.span_id:016x}"
        tid = process.lanes.place(f"{span.context.span_id:016x}", parent, start, end)
        place = _place(process, tid)
        if not process.named:
            yield _name_of("process", place, self._process_name(found))
        for lane in process.unnamed:
            process.named += 1
            yield _name_of("thread", _place(process, lane), f"lane {process.named}")
        process.unnamed.clear()
        for event in made:
            yield f"{{{place},{event}"

    def _complete(self, span: ReadableSpan, start: int, end: int) -> str:
        args: dict[str, Any] = {
            "start": timestamp(start),
            "trace_id": f"{span.context.trace_id:032x}",
            "span_id": f"{span.context.span_id:016x}",
        }
        if span.parent is not None:
            args["parent_span_id"] = f"{span.parent.span_id:016x}"
        args["status"] = span.status.status_code.name
        if span.status.description:
            args["error"] = text(str(span.status.description))
        for number, link in enumerate(span.links, 1):
            args[f"link {number}"] = f"{link.context.trace_id:032x}:{link.context.span_id:016x}"
        args |= _shown(span.attributes or {}) | args  # what is ours must be true, and stands first
        times = f'"ph":"X","ts":{self._at(start)},"dur":{_microseconds(end - start)}'
        return _event(times, text(str(span.name)), _category(span), args)

    def _instants(self, span: ReadableSpan) -> Iterator[str]:
        for event in span.events:
            if event.name not in _BORDERS:
                args = _shown(event.attributes or {})
                name = args.get(ATTR.NAME) or text(str(event.name))
                times = f'"ph":"i","s":"t","ts":{self._at(event.timestamp)}'
                yield _event(times, name, _category(span), args)

    def _at(self, ns: int) -> str:
        return _microseconds(ns - (self._zero_ns or 0))

    # -- processes

    def _process(self, log: str, execution: int) -> _Process:
        known = self._processes.get((log, execution))
        if known is None:
            if len(self._processes) >= _MOST_PROCESSES:
                del self._processes[next(iter(self._processes))]
            known = _Process(next(self._pids), self._tids)
            self._processes[log, execution] = known
        return known

    def _process_name(self, found: Found) -> str:
        attributes = found.span.resource.attributes
        own = found.log.removesuffix(".jsonl")
        name = f"{own}, execution {found.execution}"
        if pid := attributes.get("process.pid"):
            name += f", process {pid}"
        if host := attributes.get("host.name"):
            name += f" on {host}"
        return text(name)


def _place(process: _Process, tid: int) -> str:
    return f'"pid":{process.pid},"tid":{tid}'


def _event(times: str, name: object, category: str, args: Mapping[str, Any]) -> str:
    """An event but for its beginning. JSON's numbers are decimal, and doubles are not."""
    return f"{times},{json_text({'name': name, 'cat': category, 'args': args})[1:]}"


def _name_of(what: str, place: str, name: str) -> str:
    return f'{{{place},"ph":"M","name":"{what}_name",{json_text({"args": {"name": name}})[1:]}'


def _category(span: ReadableSpan) -> str:
    scope = span.instrumentation_scope
    name = "" if scope is None else text(str(scope.name))
    if name != SCOPE:
        return name or "library"
    return "step" if ATTR.STEP_ID in (span.attributes or {}) else "workflow"


def _microseconds(ns: int) -> str:
    whole, rest = divmod(abs(ns), 1000)
    return f"{'-' if ns < 0 else ''}{whole}.{rest:03d}"


def _shown(value: Any) -> Any:
    """An attribute's value as JSON that every viewer reads."""
    if isinstance(value, Mapping):
        return {text(str(name)): _shown(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(one) for one in value]
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bytes):
        return value.hex()
    odd = isinstance(value, float) and not math.isfinite(value)
    far = isinstance(value, int) and not -_EXACT < value < _EXACT
    return str(value) if odd or far else value
