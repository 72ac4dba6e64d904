"""Spans of libraries that began, and of which no log has the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel.log.event import raw_json
from tapps_otel.otel.mapping.content import ERROR, interrupted_attributes
from tapps_otel.otel.mapping.unpack import unpack_span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.log.event import Event

__all__ = ["Begun", "BegunSpan", "Life"]

# Of one run: a made-up log must not fill the memory.
_MOST: Final = 10_000
_MOST_BYTES: Final = 32 << 20  # of what they have as they start, as JSON


class Life:
    """How far an execution got, as the log shows it.

    :ivar number: of the execution
    :ivar last_ns: its last moment, ns since 1970 UTC
    """

    __slots__ = ("last_ns", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.last_ns = 0


class BegunSpan(NamedTuple):
    """A span that began.

    :ivar log: name of the log that has its start
    :ivar life: of the execution that it began in
    """

    log: str
    start: Event
    note: Mapping[str, Any]
    start_ns: int
    resource: Resource
    life: Life

    def interrupted(self) -> ReadableSpan:
        """The span, ended with the last moment of its execution.

        :raises ValueError: it cannot be rebuilt
        """
        start, parent = self.start, self.start.parent_span_id
        what = f"execution {self.life.number} ended without ending this span"
        note = {
            **self.note,
            "attributes": {**self.note.get("attributes", {}), **interrupted_attributes(None)},
            "status": [ERROR, what],
        }
        return unpack_span(
            note,
            name=str(note.get("name", start.name)),
            ids=(
                str(start.trace_id),
                str(start.span_id),
                parent if isinstance(parent, str) else None,
            ),
            times=(self.start_ns, max(self.start_ns + 1, self.life.last_ns)),
            resource=self.resource,
        )


class Begun:
    """The spans of a run that began, over all of its logs."""

    def __init__(self) -> None:
        self._open: dict[str, BegunSpan] = {}
        self._bytes = 0
        self._ended: set[int] = set()

    def add(self, span: BegunSpan) -> bool:
        """Add a span; whether there was room."""
        size = len(raw_json(span.note))
        if len(self._open) >= _MOST or self._bytes + size > _MOST_BYTES:
            return False
        self._bytes += size
        self._open.setdefault(str(span.start.span_id), span)
        return True

    def end(self, span_id: str) -> None:
        """Note that a log has this span whole."""
        span = self._open.pop(span_id, None)
        if span is not None:
            self._bytes -= len(raw_json(span.note))

    def end_execution(self, number: int) -> None:
        """Note that an execution has an end in the run's own log."""
        self._ended.add(number)

    def cut_off(self, *, before: int, all_dead: bool) -> list[BegunSpan]:
        """Return those that no process will end.

        A process that ended its execution may still be at work on a span of it: whether that ends
        is not known.

        :param before: the processes of executions before this one are dead
        :param all_dead: no process executes the run
        """
        return [
            span
            for span in self._open.values()
            if span.life.number not in self._ended and (all_dead or span.life.number < before)
        ]
