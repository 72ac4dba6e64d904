"""The table: a row an event, and nothing in it that a spreadsheet would carry out."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

import tapps_otel
from export_formats import exported
from logs import forge
from tapps_otel.audit.export.table import COLUMNS


def table() -> list[dict[str, str]]:
    """The rows, as a reader that follows RFC 4180 sees them."""
    text = exported("csv")
    lines = text.split("\r\n")

    assert lines.pop() == ""
    assert all(line.isprintable() for line in lines)
    found = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert len(found) == len(lines) - 1
    assert all(None not in row and None not in row.values() for row in found)
    return found


def test_every_event_is_a_row_in_the_order_of_the_log(run: str) -> None:
    rows = table()
    events = list(tapps_otel.events(run))

    assert exported("csv").startswith(",".join(COLUMNS) + "\r\n")
    assert [int(row["seq"]) for row in rows] == [event.seq for event in events]
    for row, event in zip(rows, events, strict=True):
        assert row["timestamp"] == event.timestamp
        assert row["event_type"] == event.event_type
        assert row["execution"] == "1"
        assert row["log"] == "r.jsonl"
        for name in ("step_id", "agent", "name", "status", "trace_id", "span_id"):
            assert row[name] == (getattr(event, name) or "")
        assert row["attempt"] == ("" if event.attempt is None else str(event.attempt))
        if event.duration_ns is not None:
            seconds, _, rest = row["duration_s"].partition(".")
            assert int(seconds + rest) == event.duration_ns
            assert len(rest) == 9


def test_text_that_begins_like_a_formula_stays_text(run: str) -> None:
    rows = table()

    assert {row["action"] for row in rows} == {"", "'-write"}
    assert {row["error_message"] for row in rows} == {"", "'=never: 1"}
    assert {row["error_type"] for row in rows} == {"", "ValueError"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1+1", "'＝1+1"),
        ("\t=1+1", r"\t=1+1"),
        ("\r=1+1", r"\r=1+1"),
        ("\n=1+1", r"\n=1+1"),
        ("\x00=1", r"\x00=1"),
        ("'=1", "'=1"),
        ('a "b", c', 'a "b", c'),
        ("two\nlines", r"two\nlines"),
        ("\x1b[2J\u202e\ud800", r"\x1b[2J\u202e?"),
        ("ä 漢", "ä 漢"),
        ("", ""),
        (7, "7"),
        (-7, "-7"),
        (["=1"], "['=1']"),
        ({"=": 1}, "{'=': 1}"),
        (None, ""),
    ],
)
def test_a_cell_has_only_text(said: object, shown: str) -> None:
    error = {"type": said, "message": said}
    forge(Path("logs"), "r", [{"event_type": "step_fail", "step_id": "s", "error": error}])
    (row,) = table()

    assert row["error_message"] == shown
    assert row["error_type"] == shown


def test_every_column_is_safe() -> None:
    evil = "=cmd|' /C calc'!A0"
    texts = (
        "event_type", "timestamp", "step_id", "agent", "action", "name", "status", "reason",
        "trace_id", "span_id", "parent_span_id",
    )  # fmt: skip
    event: dict[str, Any] = dict.fromkeys(texts, evil)
    forge(Path("logs"), "r", [event | {"duration_ns": -1, "attempt": -3}])
    (row,) = table()

    assert all(row[name] == f"'{evil}" for name in texts)
    assert row["duration_s"] == "'-0.000000001"
    assert row["attempt"] == "-3"


def test_a_question_is_a_reason_and_artifacts_are_counted() -> None:
    events: list[dict[str, Any]] = [
        {"event_type": "workflow_end", "status": "paused", "question": "go on?"},
        {"event_type": "step_skip", "reason": "not today"},
        {"event_type": "step_finish", "artifacts": [{"path": "a"}, {"path": "b"}]},
    ]
    forge(Path("logs"), "r", events)

    assert [(row["reason"], row["artifacts"]) for row in table()] == [
        ("go on?", ""),
        ("not today", ""),
        ("", "2"),
    ]


def test_huge_text_is_cut_and_marked() -> None:
    forge(Path("logs"), "r", [{"event_type": "annotation", "name": "x" * 500_000}])
    (row,) = table()

    assert row["name"].endswith("467232 characters left out")
