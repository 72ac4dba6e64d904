"""Captured spans of libraries, among the events of a run."""

from __future__ import annotations

from typing import Any

import pytest

from logs import event
from tapps_otel.past.captured import CapturedSpan, CapturedSpans

SPAN: dict[str, Any] = {
    "span_id": "a" * 16,
    "parent_span_id": "b" * 16,
    "name": "GET",
    "timestamp": "2025-11-13T02:13:20.000000005Z",
    "otel": {"attributes": {"a": 1}},
}
WHOLE = CapturedSpan(
    "a" * 16,
    "b" * 16,
    "GET",
    "2025-11-13T02:13:20.000000002Z",
    "2025-11-13T02:13:20.000000005Z",
    3,
    {"a": 1},
)
BEGUN = WHOLE._replace(start=SPAN["timestamp"], end=None, duration_ns=None)


def spans(*events: tuple[str, dict[str, Any]]) -> list[CapturedSpan]:
    found = CapturedSpans()
    for event_type, fields in events:
        found.see(event(event_type, **fields))
    return [*found]


def test_a_span_is_whole_from_its_end() -> None:
    assert spans(("span", {**SPAN, "duration_ns": 3})) == [WHOLE]
    assert WHOLE.start_ns == 1_763_000_000_000_000_002


def test_a_span_without_an_end_is_known_by_its_start() -> None:
    assert spans(("span_start", SPAN)) == [BEGUN]


@pytest.mark.parametrize("first", ["span", "span_start"])
def test_of_start_and_end_the_end_counts(first: str) -> None:
    both = [("span_start", SPAN), ("span", {**SPAN, "duration_ns": 3})]

    assert spans(*(both if first == "span_start" else reversed(both))) == [WHOLE]


def test_other_events_are_ignored() -> None:
    assert spans(("annotation", {"name": "note"}), ("step_start", {"span_id": "c" * 16})) == []


def test_odd_events_are_shown_as_far_as_they_go() -> None:
    (odd,) = spans(("span", {"otel": {"attributes": "none"}, "duration_ns": -5}))

    assert odd[:3] == ("", None, "")
    assert odd[4:] == ("2025-11-13T02:13:20.000000000Z", 0, {})
    assert spans(("span_start", {"name": "no id"})) == []
