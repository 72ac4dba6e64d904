from __future__ import annotations

import pytest

from tapps_otel.report.lines import Line, Piece, clock_time, columns, day_time, took


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, ""),
        (0, "0.0 ms"),
        (1_250_000, "1.2 ms"),
        (12_345_678, "12 ms"),
        (999_000_000, "999 ms"),
        (1_234_000_000, "1.23 s"),
        (61_000_000_000, "1 min 01 s"),
        (3_723_000_000_000, "1 h 02 min"),
        (10**18, "277777 h 46 min"),
    ],
)
def test_durations_are_formatted_for_people(ns: int | None, text: str) -> None:
    assert took(ns) == text


def test_times_are_utc() -> None:
    at = 1_763_000_000_123_456_789

    assert day_time(at) == "2025-11-13 02:13:20"
    assert clock_time(at) == "02:13:20.123"
    assert day_time(None) == clock_time(None) == "?"
    assert day_time(0) == clock_time(-5) == "?"  # what is no time counts as 0
    assert day_time(2**80) == "9999-12-31 23:59:59"


def test_columns_are_aligned_by_terminal_width() -> None:
    rows: list[list[Line | Piece]] = [
        [Piece("東京", "good"), Piece("a"), Piece("the last one is as long as it is")],
        [Line.of("  ", ("deep", "bad")), Piece("bcd"), Piece("")],
        [],
    ]

    assert [line.text for line in columns(rows, indent=2)] == [
        "  東京    a  the last one is as long as it is",
        "    deep  bcd",
        "  ",
    ]
