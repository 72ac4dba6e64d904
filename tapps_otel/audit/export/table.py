r"""A log as a table for spreadsheets: comma-separated values (RFC 4180), a row an event.

A spreadsheet must not run a cell's text: text that begins like a formula (``=``, ``+``, ``-``,
``@``, and their full-width forms) gets an apostrophe in front. Text is on one line, with escapes
(``\n``, ``\x1b``) for what is not printable.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from tapps_otel.otel.mapping.content import text
from tapps_otel.redact import rules_here
from tapps_otel.report.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tapps_otel.audit.export.outcome import Outcome
    from tapps_otel.log.event import Event
    from tapps_otel.redact import Rules

__all__ = ["COLUMNS", "rows"]

COLUMNS: Final = (
    "seq",
    "timestamp",
    "event_type",
    "execution",
    "step_id",
    "attempt",
    "agent",
    "action",
    "name",
    "status",
    "duration_s",
    "error_type",
    "error_message",
    "reason",
    "artifacts",
    "trace_id",
    "span_id",
    "parent_span_id",
    "log",
)
_FORMULA: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001


class _Echo:
    """A file that returns what is written to it."""

    def write(self, line: str) -> str:
        return line


def rows(events: Iterable[tuple[str, Event]], outcome: Outcome) -> Iterator[str]:
    """Yield the heading and a row for each event, with their line ends (CR LF).

    :param events: each with the name of its log
    """
    write, rules = csv.writer(_Echo()).writerow, rules_here()
    yield str(write(COLUMNS))
    for log, event in events:
        outcome.count += 1
        yield str(write([_cell(one) for one in _values(log, event, rules)]))


def _values(log: str, event: Event, rules: Rules) -> tuple[Any, ...]:
    """Return the event's fields, in the order of the columns."""
    error = {} if event.error is UNSET else event.error
    asked = event.question if event.reason is UNSET else event.reason
    return (
        event.seq,
        event.timestamp,
        event.event_type,
        event.execution,
        event.step_id,
        event.attempt,
        event.agent,
        event.action,
        rules.value(event.name),
        event.status,
        UNSET if event.duration_ns is UNSET else _seconds(event.duration_ns),
        error.get("type"),
        rules.value(error.get("message")),
        rules.value(asked),
        UNSET if event.artifacts is UNSET else len(event.artifacts),
        event.trace_id,
        event.span_id,
        event.parent_span_id,
        log,
    )


def _cell(value: Any) -> int | str:
    if value is UNSET or value is None:
        return ""
    if isinstance(value, int):
        return value
    shown = plain(text(str(value)))
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _seconds(ns: int) -> str:
    whole, rest = divmod(abs(ns), 1_000_000_000)
    return f"{'-' if ns < 0 else ''}{whole}.{rest:09d}"
