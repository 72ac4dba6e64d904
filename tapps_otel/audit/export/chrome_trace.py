"""Spans in the Trace Event Format, which Perfetto and ``chrome://tracing`` open.

The format is that of Google's document "Trace Event Format": a JSON array of events, here one a
line. A span is a complete event (``X``), an event of a span is an instant event (``i``). Every
execution is a process, with as many threads ("lanes") as its parallel spans need.

Times are microseconds since a day before the run began, with nanosecond digits. Times since 1970
would be rounded to a quarter of a microsecond by viewers that read numbers as doubles. Times since
the run began could be negative, by another host's clock, and Perfetto drops those. Viewers show
times relative to the first span; a span's ``args`` have its start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from tapps_otel.audit.export.lanes import Lanes
from tapps_otel.audit.export.outcome import UNENCODABLE
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

_MOST_PROCESSES: Final = 64  # whose lanes are kept; only a made-up log has more open
_BEFORE: Final = 86_400 * 10**9  # ns from the trace's time 0 to the run's start
_EXACT: Final = 1 << 53  # viewers round larger integers, so those are written as text
_STARTS: Final = frozenset({"workflow_start", "workflow_resume", "step_start"})
# Our events that only mark the start or end of a span, which its bar shows already.
_BOUNDARIES: Final = _STARTS | {"workflow_end", "step_finish", "step_fail"}


class _Process:
    """One execution, as recorded in one log."""

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
    """Builds the array, piece by piece, from a log's events and spans."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._zero_ns: int | None = None
        self._processes: dict[tuple[str, int], _Process] = {}
        self._pids, self._tids = count(1), count(1)

    def see(self, log: str, event: Event) -> None:
        """Observe an event of the log ``log``, before the spans that it ends."""
        if self._zero_ns is None:
            with suppress(ValueError):  # an invalid time
                self._zero_ns = time_of(event) - _BEFORE
        if event.event_type in _STARTS and event.span_id is not UNSET:
            parent = None if event.parent_span_id is UNSET else event.parent_span_id
            self._process(log, event.execution).lanes.begin(event.span_id, parent)

    def pieces(self, spans: Iterable[Found]) -> Iterator[str]:
        """Yield the text of the array, closed even if ``spans`` ends in an error."""
        before = "[\n"
        try:
            for found in spans:
                try:
                    made = list(self._events(found))
                except UNENCODABLE as error:
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
        args |= _shown(span.attributes or {}) | args  # ours come first, and are not overridden
        times = f'"ph":"X","ts":{self._at(start)},"dur":{_microseconds(end - start)}'
        return _event(times, text(str(span.name)), _category(span), args)

    def _instants(self, span: ReadableSpan) -> Iterator[str]:
        for event in span.events:
            if event.name not in _BOUNDARIES:
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
    """Return an event without its beginning; times are text, as doubles would round them."""
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
    """Convert an attribute's value to JSON that every viewer can read."""
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
